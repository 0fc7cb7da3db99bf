package wallet

import (
	"errors"
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

// purpose is the first step of the path m/84'/coin'/account'/chain/index.
const purpose = 84

// ErrLocked marks what needs the keys of a wallet that is locked.
var ErrLocked = errors.New("the wallet is locked; unlock it with its password first")

// keys derives the keys of the accounts. Its callers hold the wallet's mutex.
type keys struct {
	coin     *hdkeychain.ExtendedKey // m/84'/coin type'; nil while locked
	accounts []accountKeys
}

// accountKeys are an account's two chains: what signs, which is nil while
// locked, and what gives addresses.
type accountKeys struct {
	private, public [chains]*hdkeychain.ExtendedKey
	scripts         map[place][]byte // those derived already
}

// place is where a key lies.
type place struct{ account, chain, index uint32 }

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
	for _, step := range []uint32{purpose, coinType} {
		if node, err = node.Derive(hdkeychain.HardenedKeyStart + step); err != nil {
			return nil, fmt.Errorf("wallet key: %w", err)
		}
	}
	return &keys{coin: node}, nil
}

// String keeps the keys out of logs.
func (k *keys) String() string { return "wallet keys" }

// GoString keeps the keys out of %#v.
func (k *keys) GoString() string { return k.String() }

// add derives the next account.
func (k *keys) add() error {
	if k.coin == nil {
		return ErrLocked
	}
	var a accountKeys
	if err := a.derive(k.coin, uint32(len(k.accounts))); err != nil {
		return err
	}
	for i := range a.public {
		public, err := a.private[i].Neuter()
		if err == nil {
			// A copy: the library's own shares bytes that lock overwrites.
			a.public[i], err = hdkeychain.NewKeyFromString(public.String())
		}
		if err != nil {
			return fmt.Errorf("wallet key: %w", err)
		}
	}
	a.scripts = map[place][]byte{}
	k.accounts = append(k.accounts, a)
	return nil
}

func (a *accountKeys) derive(coin *hdkeychain.ExtendedKey, account uint32) error {
	node, err := coin.Derive(hdkeychain.HardenedKeyStart + account)
	if err != nil {
		return fmt.Errorf("wallet key: %w", err)
	}
	for i := range a.private {
		if a.private[i], err = node.Derive(uint32(i)); err != nil {
			return fmt.Errorf("wallet key: %w", err)
		}
	}
	return nil
}

// lock forgets the private keys.
func (k *keys) lock() {
	if k.coin == nil {
		return
	}
	k.coin.Zero()
	k.coin = nil
	for i := range k.accounts {
		for _, key := range k.accounts[i].private {
			key.Zero()
		}
		k.accounts[i].private = [chains]*hdkeychain.ExtendedKey{}
	}
}

// unlock takes the private keys from a seed again. Another seed is refused.
func (k *keys) unlock(seed []byte, coinType uint32) error {
	fresh, err := newKeys(seed, coinType)
	if err != nil {
		return err
	}
	for i := range k.accounts {
		if err := fresh.add(); err != nil {
			return err
		}
		if fresh.accounts[i].public[external].String() != k.accounts[i].public[external].String() {
			return settle.Refuse(settle.ErrMalformed, "the seed is not that of this wallet")
		}
	}
	k.coin = fresh.coin
	for i := range k.accounts {
		k.accounts[i].private = fresh.accounts[i].private
	}
	return nil
}

func (k *keys) private(p place) (*btcec.PrivateKey, error) {
	node := k.accounts[p.account].private[p.chain]
	if node == nil {
		return nil, ErrLocked
	}
	child, err := node.Derive(p.index)
	if err != nil {
		return nil, fmt.Errorf("wallet key %d/%d/%d: %w", p.account, p.chain, p.index, err)
	}
	return child.ECPrivKey()
}

// script is the P2WPKH output script of an address [WALLET-2].
func (k *keys) script(p place) ([]byte, error) {
	a := k.accounts[p.account]
	if s := a.scripts[p]; s != nil {
		return s, nil
	}
	child, err := a.public[p.chain].Derive(p.index)
	if err != nil {
		return nil, fmt.Errorf("wallet key %d/%d/%d: %w", p.account, p.chain, p.index, err)
	}
	key, err := child.ECPubKey()
	if err != nil {
		return nil, fmt.Errorf("wallet key %d/%d/%d: %w", p.account, p.chain, p.index, err)
	}
	a.scripts[p] = witnessScript(key)
	return a.scripts[p], nil
}

// witnessScript is the P2WPKH script of a key.
func witnessScript(key *btcec.PublicKey) []byte {
	return append([]byte{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(key.SerializeCompressed())...)
}

// Lock forgets the keys that sign, until Unlock. Addresses, balance and history
// go on without them; payments and new channels are refused with ErrLocked.
func (w *Wallet) Lock() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys.lock()
}

// Unlock gives the keys back. A seed that is not the wallet's is refused with an
// error that matches settle.ErrMalformed.
func (w *Wallet) Unlock(seed []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys.unlock(seed, w.cfg.Network.CoinType)
}

// Locked reports whether the wallet is locked.
func (w *Wallet) Locked() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys.coin == nil
}
