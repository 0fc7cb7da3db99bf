// Package settle is the core of a payment channel: what it holds, what a
// voucher may say, how much is at risk, and what to do next. It is pure and
// knows no chain; scripts and transactions of PKT live in settle/pktchain, the
// running half in settle/manager.
//
// Start with [Params] and [Voucher]. The rules are those of spec/settle.md.
package settle
