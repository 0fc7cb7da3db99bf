// Package leasetest holds in-memory twins of what lease/peer and lease/session
// ask of their callers: a store that can lose what is not applied, a bank that
// pays over channels without a chain, and a workload that answers over HTTP
// and can be frozen.
//
// Start with [NewBank], [NewWorkload] and [Store]. Nothing here is fit for
// money.
package leasetest
