// Package peer runs leases between two nodes: the protocol /pktcloud/lease/1
// over libp2p, one goroutine a lease, every step durable before it acts. It
// asks its caller for a host, a store, the channels that pay and, on the
// provider's side, something that runs workloads; what a message may do is
// decided by package lease.
//
// Start with [NewProvider] or [NewTenant], then run Run beside it. The rules
// are those of spec/lease.md, the keys of the store those of its section
// "Journal".
package peer
