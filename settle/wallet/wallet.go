// Package wallet keeps the coins of one BIP 39 seed: BIP 84 accounts and
// addresses, coin selection, payments, history, and the reservations of a
// channel manager. It works over any settle.Ledger and a small store; over one
// that is a settle.TxFollower it keeps its coins in memory and asks only for
// what changed.
//
// Start with [Open]. It holds private keys in memory and signs with them; the
// phrase itself is for the caller to keep. Channel keys are not here but in
// settle/pktchain. The rules are those of spec/wallet.md.
package wallet

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	// GapLimit is how many unused addresses in a row end a search for used
	// ones; the wallet never hands out more in a row [WALLET-6].
	GapLimit = 20
	// MaxAccounts is how many accounts a wallet has at most [WALLET-40].
	MaxAccounts = 100
	// SeedBytes is the length of a BIP 39 seed.
	SeedBytes = 64
	// CoinbaseMaturity is how many confirmations a block reward needs before
	// it can be spent.
	CoinbaseMaturity = 100
	// lookAhead is how many addresses that were not given out yet are watched:
	// those of another machine with the same phrase, or of a store that was put
	// back to an older state.
	lookAhead = 2 * GapLimit
	// SettledDepth is how deep a payment lies before the wallet stops
	// broadcasting it again.
	SettledDepth = 100
)

// Keys of the store.
const (
	nextPrefix = "wallet/next/" // + chain, or account/chain: decimal index of the next address
	sentPrefix = "wallet/sent/" // + txid: a sentRecord
	// accountPrefix + account, from 1 on: its name
	accountPrefix = "wallet/account/"
	labelPrefix   = "wallet/label/"  // + "tx/" or "address/" and which: a text
	frozenPrefix  = "wallet/frozen/" // + txid:index
	// birthdayKey holds, in decimal, a height below which no coin of the seed lies.
	birthdayKey = "wallet/birthday"
)

// Errors that functions of this package wrap.
var (
	// ErrFunds marks a payment that the wallet's coins do not cover. The error's
	// text says what is missing and what may come.
	ErrFunds = errors.New("not enough money in the wallet")
	// ErrFee marks a fee above the limit that the caller set.
	ErrFee = errors.New("the fee is above the limit")
	// ErrCoin marks a coin that was chosen and cannot be spent.
	ErrCoin = errors.New("the coin cannot be spent")
	// ErrReplace marks a transaction that cannot be replaced.
	ErrReplace = errors.New("the payment cannot be replaced")
	// ErrNoHistory marks a ledger that tells no transactions.
	ErrNoHistory = errors.New("this ledger tells no transactions")
)

// Put is one change of a [Store]. A nil value deletes the key.
type Put = struct {
	Key   string
	Value []byte
}

// Store keeps the indexes of addresses given out, the payments under way, and
// what the owner wrote beside them. All keys begin with "wallet/".
type Store interface {
	// Apply makes all puts durable, all or none, before it returns.
	Apply(ctx context.Context, puts []Put) error
	// Load calls fn for each key with the prefix, in ascending order of key.
	Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
}

// Config is what a wallet works with. Network, Ledger and Store are required.
type Config struct {
	Network pktchain.Network
	Ledger  settle.Ledger
	Store   Store
	// Birthday is a height below which no coin of the seed lies. It counts when
	// the store is used for the first time; zero is always right [WALLET-8].
	Birthday uint64
	// New says that the seed was made for this store and used nowhere else: the
	// wallet then takes its birthday from the chain, before it gives out the
	// first address.
	New bool
}

// Wallet is the wallet of one seed. It is safe for concurrent use; a call may
// wait for another's question to the chain.
type Wallet struct {
	cfg      Config
	watcher  settle.Watcher    // nil when the ledger is none
	follower settle.TxFollower // likewise

	mu       sync.Mutex // guards all below
	keys     *keys
	branches []*branch // two an account, and those of one account more than there are
	names    []string  // of the accounts
	index    index
	reserved map[settle.Outpoint]bool
	frozen   map[settle.Outpoint]bool
	labels   map[string]string // by key of the store without its prefix
	sent     map[chainhash.Hash]*payment
	fundings map[chainhash.Hash]bool // of channels, known since Fund or Reserve
	birthday uint64
	unborn   bool   // the birthday is still to be taken from the chain
	seen     uint64 // height at which all addresses given out were watched
}

// Open returns the wallet of a 64-byte BIP 39 seed. It reads the store, not the
// chain: a wallet that was never opened with this store begins at the first
// address, and [Wallet.Restore] finds what the seed already owns.
func Open(ctx context.Context, seed []byte, cfg Config) (*Wallet, error) {
	k, err := newKeys(seed, cfg.Network.CoinType)
	if err != nil {
		return nil, err
	}
	w := &Wallet{
		cfg: cfg, keys: k, names: []string{""}, index: newIndex(),
		reserved: map[settle.Outpoint]bool{}, frozen: map[settle.Outpoint]bool{}, labels: map[string]string{},
		sent: map[chainhash.Hash]*payment{}, fundings: map[chainhash.Hash]bool{},
	}
	w.watcher, _ = cfg.Ledger.(settle.Watcher)
	w.follower, _ = cfg.Ledger.(settle.TxFollower)
	for _, load := range []func(context.Context) error{w.loadAccounts, w.loadNotes, w.loadSent, w.openBirthday} {
		if err := load(ctx); err != nil {
			return nil, fmt.Errorf("read wallet: %w", err)
		}
	}
	return w, nil
}

// Network returns the wallet's network.
func (w *Wallet) Network() pktchain.Network { return w.cfg.Network }

// Balance is what the wallet, or one account, holds, in base units. Each coin
// counts in one of the sums.
type Balance struct {
	// Confirmed can be spent now.
	Confirmed pktcloud.Amount `json:"confirmed_units"`
	// Unconfirmed waits for a block, or is a reward that must still mature.
	Unconfirmed pktcloud.Amount `json:"unconfirmed_units"`
	// Reserved is set aside for channels and payments under way.
	Reserved pktcloud.Amount `json:"reserved_units"`
	// Frozen was set aside by the owner.
	Frozen pktcloud.Amount `json:"frozen_units"`
}

// Balance adds up the wallet's coins. Errors match settle.ErrLedgerUnavailable.
func (w *Wallet) Balance(ctx context.Context) (Balance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return Balance{}, err
	}
	var total Balance
	for i := range w.names {
		b, err := w.balance(uint32(i))
		if err != nil {
			return Balance{}, err
		}
		for _, s := range []struct{ sum, add *pktcloud.Amount }{
			{&total.Confirmed, &b.Confirmed}, {&total.Unconfirmed, &b.Unconfirmed}, {&total.Reserved, &b.Reserved}, {&total.Frozen, &b.Frozen},
		} {
			if *s.sum, err = s.sum.Add(*s.add); err != nil {
				return Balance{}, fmt.Errorf("balance: %w", err)
			}
		}
	}
	return total, nil
}

// balance adds up one account. The caller holds w.mu.
func (w *Wallet) balance(account uint32) (b Balance, err error) {
	for _, c := range w.index.coins(account) {
		sum := &b.Confirmed
		switch {
		case c.reserved:
			sum = &b.Reserved
		case c.frozen:
			sum = &b.Frozen
		case !w.index.confirmed(c):
			sum = &b.Unconfirmed
		}
		if *sum, err = sum.Add(c.amount); err != nil {
			return Balance{}, fmt.Errorf("balance: %w", err)
		}
	}
	return b, nil
}

// Reserve sets the coins that a channel's funding spends aside, and remembers
// that it is one: it is never replaced. Doing so twice is harmless.
func (w *Wallet) Reserve(_ context.Context, raw []byte) error {
	return w.setReserved(raw, true)
}

// Release gives the coins of a transaction back. It is idempotent.
func (w *Wallet) Release(_ context.Context, raw []byte) error {
	return w.setReserved(raw, false)
}

func (w *Wallet) setReserved(raw []byte, reserve bool) error {
	tx, err := decodeTx(raw)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if reserve {
		w.fundings[tx.TxHash()] = true
	}
	w.mark(tx, reserve)
	return nil
}

func (w *Wallet) mark(tx *wire.MsgTx, reserve bool) {
	for _, in := range tx.TxIn {
		at := settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index}
		if reserve {
			w.reserved[at] = true
		} else {
			delete(w.reserved, at)
		}
		if c := w.index.outs[at]; c != nil {
			c.reserved = reserve
		}
	}
}
