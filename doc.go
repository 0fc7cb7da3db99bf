// Package pktcloud holds what every part of PKT Cloud agrees on: amounts and
// rates, record ids, keys and signatures, the strict encoding, and the account
// record that ties an identity to its devices and its money.
//
// Start with [ParseAmount], [Marshal] and [Seal]. The package does no input or
// output, reads no clock and imports nothing of PKT Cloud; markets, leases and
// payments live in the packages market, lease and settle. The rules it keeps
// are those of spec/encoding.md and spec/identity.md.
package pktcloud
