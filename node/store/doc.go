// Package store keeps what a node must not lose: the journals of its channels
// and leases, its wallet's indexes, its offers. It is one table of keys and
// values in SQLite, in a file of the node's data directory.
//
// Start with [Open]. A [Store] fits the Store interfaces that settle/manager,
// settle/wallet and lease/peer declare; [Memory] is its twin for tests. The
// package knows nothing of what the values mean.
package store
