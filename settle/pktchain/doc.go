// Package pktchain settles channels on PKT's own chain and on chains with
// Bitcoin's transactions: the funding script, vouchers, claims, cooperative
// closes and refunds, and the keys of all of them from one phrase. It is pure:
// it makes and judges bytes, and never talks to a chain.
//
// Start with [NewKeychain], [Detail] and [Rail]. The rules are those of
// spec/settle.md, from [SETTLE-40] on.
package pktchain
