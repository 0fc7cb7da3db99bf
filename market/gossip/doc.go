// Package gossip carries offers between nodes over libp2p. Each node follows
// every peer that it is connected to: on one stream the peer sends the live
// offers of its book, then each new one as it comes. What arrives is checked
// before it is stored or passed on.
//
// Start with [New], call [Gossip.Run] once, and [Gossip.Publish] for own
// offers. The package finds no peers and keeps nothing on disk. The protocol
// is /pktcloud/offers/1 of spec/market.md.
package gossip
