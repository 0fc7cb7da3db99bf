package wallet

import (
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// The two chains of addresses of an account [WALLET-1].
const (
	external = 0 // to receive
	change   = 1
	chains   = 2
)

// purpose is the first step of the path m/84'/coin'/0'/chain/index.
const purpose = 84

// keys derives the keys of one account. Its callers hold the wallet's mutex.
type keys struct {
	account *hdkeychain.ExtendedKey
	chains  [chains]*hdkeychain.ExtendedKey
	scripts map[place][]byte // those derived already
}

// place is the end of a key's path.
type place struct{ chain, index uint32 }

func newKeys(seed []byte, coinType uint32) (*keys, error) {
	if len(seed) != SeedBytes {
		return nil, settle.Refuse(settle.ErrMalformed, "a seed of %d bytes; a BIP 39 phrase gives %d", len(seed), SeedBytes)
	}
	// Only the version bytes of extended keys come from the parameters, and
	// nothing here writes such a key.
	node, err := hdkeychain.NewMaster(seed, &chaincfg.MainNetParams)
	if err != nil {
		return nil, fmt.Errorf("wallet key: %w", err)
	}
	for _, step := range []uint32{purpose, coinType, 0} {
		if node, err = node.Derive(hdkeychain.HardenedKeyStart + step); err != nil {
			return nil, fmt.Errorf("wallet key: %w", err)
		}
	}
	k := &keys{account: node, scripts: map[place][]byte{}}
	for i := range k.chains {
		if k.chains[i], err = node.Derive(uint32(i)); err != nil {
			return nil, fmt.Errorf("wallet key: %w", err)
		}
	}
	return k, nil
}

// String keeps the keys out of logs.
func (k *keys) String() string { return "wallet keys" }

// GoString keeps the keys out of %#v.
func (k *keys) GoString() string { return k.String() }

func (k *keys) private(chain, index uint32) (*btcec.PrivateKey, error) {
	child, err := k.chains[chain].Derive(index)
	if err != nil {
		return nil, fmt.Errorf("wallet key %d/%d: %w", chain, index, err)
	}
	return child.ECPrivKey()
}

// script is the P2WPKH output script of an address [WALLET-2].
func (k *keys) script(chain, index uint32) ([]byte, error) {
	at := place{chain, index}
	if s := k.scripts[at]; s != nil {
		return s, nil
	}
	key, err := k.private(chain, index)
	if err != nil {
		return nil, err
	}
	hash := address.Hash160(key.PubKey().SerializeCompressed())
	k.scripts[at] = append([]byte{txscript.OP_0, txscript.OP_DATA_20}, hash...)
	return k.scripts[at], nil
}
