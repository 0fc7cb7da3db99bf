// Package audit checks a lease from outside: it reads the data directories of
// a provider and a tenant and the raw blocks of a chain, verifies every
// signature and script again, and computes anew what was due, what was paid
// and what each side had at risk.
//
// Start with [Run]. The package uses the codecs of lease, market, settle and
// settle/pktchain to read records, and nothing else of those who wrote them:
// the funding script, the claim, its digest and every sum are computed here
// from the text of spec/settle.md and spec/lease.md. It writes nothing.
package audit
