package pktchain

import (
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Network holds what differs between the chains that this rail settles on
// [SETTLE-40]. Amounts are in the chain's own base units.
type Network struct {
	Rail         string // name in settle.Params and in offers
	HRP          string // of bech32 addresses
	CoinType     uint32 // of derivation paths, without the hardening bit
	PubKeyHash   byte   // version byte of a legacy P2PKH address
	ScriptHash   byte   // version byte of a P2SH address
	PrivateKey   byte   // version byte of a WIF key
	UnitsPerCoin uint64
	// RelayFloor is the least fee rate that nodes relay, in units per 1000
	// virtual bytes; it sets dust as well.
	RelayFloor pktcloud.Amount
}

// The networks, by rail name.
var networks = []Network{
	{Rail: "pkt", HRP: "pkt", CoinType: 390, PubKeyHash: 0x75, ScriptHash: 0x38, PrivateKey: 0xe0, UnitsPerCoin: pktcloud.UnitsPerPKT, RelayFloor: 1000},
	{Rail: "pkt-devnet", HRP: "dpk", CoinType: 1, PubKeyHash: 0x6f, ScriptHash: 0xc4, PrivateKey: 0xef, UnitsPerCoin: pktcloud.UnitsPerPKT, RelayFloor: 1000},
	{Rail: "btc-regtest", HRP: "bcrt", CoinType: 1, PubKeyHash: 0x6f, ScriptHash: 0xc4, PrivateKey: 0xef, UnitsPerCoin: 1e8, RelayFloor: 1000},
}

// Networks returns all networks.
func Networks() []Network { return slices.Clone(networks) }

// NetworkOf returns the network of a rail name: "pkt", "pkt-devnet" or
// "btc-regtest".
func NetworkOf(rail string) (Network, bool) {
	i := slices.IndexFunc(networks, func(n Network) bool { return n.Rail == rail })
	if i < 0 {
		return Network{}, false
	}
	return networks[i], true
}
