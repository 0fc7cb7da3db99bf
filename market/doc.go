// Package market holds what providers and tenants tell each other before they
// agree on anything: the signed [Offer], the [Request] that a tenant matches
// against it, the short-lived signed [Quote], and the [Book] that keeps the
// live offers of others.
//
// Start with [ParseOffer] and [Match]. The package is pure: it opens no
// connection and reads no clock; market/gossip carries offers between nodes.
// The rules are those of spec/market.md.
package market
