// Package service is the one layer under the HTTP API, the web pages and the
// command line: what a node can be asked to do, in values that marshal to
// JSON, and the codes of its refusals.
//
// Start with [Service]. A node implements it; so does node/client, which asks
// a running node over HTTP. The package holds types only and imports nothing
// heavy. Its JSON is described in spec/api.md.
package service
