package pktchain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/btcsuite/btcd/txscript/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
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
	Magic        uint32 // of the network between nodes, by which a chain is known
	UnitsPerCoin uint64
	// BlockTime is the mean time between blocks; zero where they come on demand,
	// so that no age of the best block means anything, and where a chain may
	// begin anew under the same name.
	BlockTime time.Duration
	// RelayFloor is the least fee rate that nodes relay, in units per 1000
	// virtual bytes; it sets dust as well.
	RelayFloor pktcloud.Amount
}

// networks, by rail name. The numbers are those of each chain's node.
var networks = []Network{
	{
		Rail: "pkt", HRP: "pkt", CoinType: 390, PubKeyHash: 0x75, ScriptHash: 0x38, PrivateKey: 0xe0,
		Magic: 0x082f00fc, UnitsPerCoin: pktcloud.UnitsPerPKT, RelayFloor: settle.RelayFloor,
		BlockTime: time.Minute,
	},
	{
		Rail: "pkt-devnet", HRP: "dpk", CoinType: 1, PubKeyHash: 0x6f, ScriptHash: 0xc4, PrivateKey: 0xef,
		Magic: 0x316b7064, UnitsPerCoin: pktcloud.UnitsPerPKT, RelayFloor: settle.RelayFloor,
	},
	{
		Rail: "btc-regtest", HRP: "bcrt", CoinType: 1, PubKeyHash: 0x6f, ScriptHash: 0xc4, PrivateKey: 0xef,
		Magic: 0xdab5bffa, UnitsPerCoin: 1e8, RelayFloor: settle.RelayFloor,
	},
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

// Dust is the least amount that nodes carry in an output with this script: what
// spending it would cost at three times the relay floor [SETTLE-45].
func (n Network) Dust(script []byte) pktcloud.Amount {
	spend := 148 // an input with a signature script
	if txscript.IsWitnessProgram(script) {
		spend = 67
	}
	size := 8 + 1 + len(script) // scripts here are shorter than 253 bytes
	return pktcloud.Amount(3*(size+spend)) * n.RelayFloor / 1000
}

// Fee is what a transaction of vsize virtual bytes pays at a rate in units per
// 1000 virtual bytes, rounded up.
func Fee(vsize uint64, rate pktcloud.Amount) pktcloud.Amount {
	return (pktcloud.Amount(vsize)*rate + 999) / 1000
}

// Payable reports whether a script is of a form that every node of these
// chains relays: P2WPKH, P2WSH, P2PKH or P2SH, but not taproot [SETTLE-44].
func Payable(script []byte) bool {
	return txscript.IsPayToWitnessPubKeyHash(script) || txscript.IsPayToWitnessScriptHash(script) ||
		txscript.IsPayToPubKeyHash(script) || txscript.IsPayToScriptHash(script)
}

// Address returns the address of a payable script. Errors match
// [settle.ErrMalformed].
func (n Network) Address(script []byte) (string, error) {
	switch {
	case txscript.IsPayToWitnessPubKeyHash(script), txscript.IsPayToWitnessScriptHash(script):
		data, err := bech32.ConvertBits(script[2:], 8, 5, true)
		if err != nil {
			return "", settle.Refuse(settle.ErrMalformed, "witness program: %w", err)
		}
		return bech32.Encode(n.HRP, append([]byte{0}, data...))
	case txscript.IsPayToPubKeyHash(script):
		return base58.CheckEncode(script[3:23], n.PubKeyHash), nil
	case txscript.IsPayToScriptHash(script):
		return base58.CheckEncode(script[2:22], n.ScriptHash), nil
	}
	return "", settle.Refuse(settle.ErrMalformed, "a script without an address")
}

// ParseAddress returns the script of an address of this network, in the
// spelling that Address gives. Errors match [settle.ErrMalformed].
func (n Network) ParseAddress(s string) ([]byte, error) {
	script, err := n.parseAddress(s)
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "%q is no address of %s (they begin with %q): %w", clip(s), n.Rail, n.HRP+"1", err)
	}
	if again, err := n.Address(script); err != nil || again != s {
		return nil, settle.Refuse(settle.ErrMalformed, "%q is not the usual spelling of an address", clip(s))
	}
	return script, nil
}

// errTypo is the cause when a checksum is wrong in each form.
var errTypo = errors.New("a character of it is wrong or missing")

// errAddress is the cause when none of the two forms fits.
var errAddress = fmt.Errorf("another network, kind or length")

func (n Network) parseAddress(s string) ([]byte, error) {
	if len(s) > 90 {
		return nil, errAddress
	}
	if hrp, data, err := bech32.Decode(s); err == nil {
		if hrp != n.HRP || len(data) < 2 || data[0] != 0 {
			return nil, errAddress
		}
		program, err := bech32.ConvertBits(data[1:], 5, 8, false)
		if err != nil || len(program) != 20 && len(program) != 32 {
			return nil, errAddress
		}
		return append([]byte{0, byte(len(program))}, program...), nil
	}
	hash, version, err := base58.CheckDecode(s)
	if err != nil {
		return nil, errTypo
	}
	switch {
	case len(hash) == 20 && version == n.PubKeyHash:
		return bytes.Join([][]byte{{txscript.OP_DUP, txscript.OP_HASH160, 20}, hash, {txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG}}, nil), nil
	case len(hash) == 20 && version == n.ScriptHash:
		return bytes.Join([][]byte{{txscript.OP_HASH160, 20}, hash, {txscript.OP_EQUAL}}, nil), nil
	}
	return nil, errAddress
}

func clip(s string) string { return s[:min(len(s), 90)] }

// witnessScriptHash is the P2WSH output script of a witness script.
func witnessScriptHash(script []byte) []byte {
	hash := sha256.Sum256(script)
	return append([]byte{txscript.OP_0, sha256.Size}, hash[:]...)
}
