// Package node joins the parts into one node: identity, store, chain, wallet,
// channels, market, leases and containers. It owns configuration and nothing
// of the rules; those belong to the packages that it joins.
//
// Start with [Init] once, then [Open] and [Node.Run]. A [Node] is a
// service.Service: the same methods that the HTTP API of node/api, the pages
// of node/web and the command line use.
package node
