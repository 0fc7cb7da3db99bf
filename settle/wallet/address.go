package wallet

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// AddressError refuses an address [WALLET-21]. It matches settle.ErrMalformed.
type AddressError struct {
	Address string // at most 90 characters of it
	Want    string // the wallet's network
	Found   string // the network that the address belongs to, if it is known
	Err     error  // what is wrong with it otherwise
}

func (e *AddressError) Error() string {
	if e.Found != "" {
		return fmt.Sprintf("%q is an address of %s; this wallet pays on %s only", e.Address, e.Found, e.Want)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// ParseAddress returns the output script of an address of network n. It takes
// the one spelling that n.Address gives: lower case for addresses like
// "pkt1q…". Errors are *AddressError and match settle.ErrMalformed; one for
// another network names it.
func ParseAddress(n pktchain.Network, s string) ([]byte, error) {
	script, err := n.ParseAddress(s)
	if err == nil {
		return script, nil
	}
	return nil, &AddressError{Address: s[:min(len(s), 90)], Want: n.Rail, Found: networkOf(n, s), Err: err}
}

// Address returns the address of a payable script on the wallet's network.
// Errors match settle.ErrMalformed.
func (w *Wallet) Address(script []byte) (string, error) { return w.cfg.Network.Address(script) }

// ParseAddress is [ParseAddress] for the wallet's network.
func (w *Wallet) ParseAddress(s string) ([]byte, error) { return ParseAddress(w.cfg.Network, s) }

// foreign are networks whose addresses people confuse with ours.
var foreign = map[string]string{
	"bc": "Bitcoin", "tb": "Bitcoin's test network", "sb": "a Bitcoin simulation network",
	"bcrt": "btc-regtest", "tpk": "PKT's test network", "ltc": "Litecoin", "pkt": "pkt", "dpk": "pkt-devnet",
}

// foreignVersion are version bytes of legacy addresses. Test networks share
// theirs, so they are named together.
var foreignVersion = map[byte]string{
	0x00: "Bitcoin", 0x05: "Bitcoin", 0x75: "pkt", 0x38: "pkt",
	0x6f: "a test network", 0xc4: "a test network", 0x30: "Litecoin",
}

// networkOf names the network of an address that is not one of n, or returns "".
func networkOf(n pktchain.Network, s string) string {
	if len(s) > 90 {
		return ""
	}
	if hrp, _, _, err := bech32.DecodeGeneric(s); err == nil {
		if hrp == n.HRP { // its own network, but a kind that no node here carries
			return ""
		}
		return foreign[hrp]
	}
	if rest, ok := strings.CutPrefix(s, "0x"); ok && len(rest) == 40 {
		if _, err := hex.DecodeString(rest); err == nil {
			return "Ethereum or Base (the PKT token there is not the coin of this chain)"
		}
	}
	if hash, version, err := base58.CheckDecode(s); err == nil && len(hash) == 20 {
		if version == n.PubKeyHash || version == n.ScriptHash {
			return ""
		}
		return foreignVersion[version]
	}
	return ""
}

// Is reports whether target is settle.ErrMalformed.
func (e *AddressError) Is(target error) bool { return target == settle.ErrMalformed }
