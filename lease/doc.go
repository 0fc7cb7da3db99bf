// Package lease is the core of a running agreement between a tenant and a
// provider: its terms, the messages that make, pay and end it, and for each
// side one step function that says what a message does. Both sides compute
// what is due with [Terms.DueAfter], so they cannot quarrel over it.
//
// Start with [Terms], [State] and [State.Step]. The package is pure: it knows
// no network, no clock, no money of its own and no container. The running half
// is lease/peer, sessions on a lease are lease/session. The rules are those of
// spec/lease.md.
package lease
