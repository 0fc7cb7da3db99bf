// Package wallet keeps the coins of one BIP 39 seed: BIP 84 addresses, coin
// selection, payments, and the reservations of a channel manager. It works
// over any settle.Ledger and a small store.
//
// Start with [Open]. It holds private keys in memory and signs with them; the
// phrase itself is for the caller to keep. Channel keys are not here but in
// settle/pktchain. The rules are those of spec/wallet.md.
package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	nextPrefix = "wallet/next/" // + chain: decimal index of the next address
	sentPrefix = "wallet/sent/" // + txid: raw transaction
	// birthdayKey holds, in decimal, a height below which no coin of the seed lies.
	birthdayKey = "wallet/birthday"
)

// Put is one change of a [Store]. A nil value deletes the key.
type Put = struct {
	Key   string
	Value []byte
}

// Store keeps the indexes of addresses given out and the payments under way.
// All keys begin with "wallet/".
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
	cfg  Config
	keys *keys

	mu       sync.Mutex // guards all below
	next     [chains]uint32
	used     [chains]uint32 // first index that is not known to be used
	spare    [chains]uint32 // counts addresses given out again
	reserved map[settle.Outpoint]bool
	watcher  settle.Watcher // nil when the ledger is none
	watched  [chains]uint32 // addresses named to it
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
	w := &Wallet{cfg: cfg, keys: k, reserved: map[settle.Outpoint]bool{}}
	w.watcher, _ = cfg.Ledger.(settle.Watcher)
	err = cfg.Store.Load(ctx, nextPrefix, func(key string, value []byte) error {
		chain, err := strconv.ParseUint(strings.TrimPrefix(key, nextPrefix), 10, 8)
		if err != nil || chain >= chains {
			return fmt.Errorf("key %q", key)
		}
		next, err := strconv.ParseUint(string(value), 10, 31)
		w.next[chain] = uint32(next)
		return err
	})
	if err == nil {
		err = cfg.Store.Load(ctx, sentPrefix, func(_ string, raw []byte) error { return w.Reserve(ctx, raw) })
	}
	if err == nil {
		err = w.openBirthday(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("read wallet: %w", err)
	}
	return w, nil
}

// Network returns the wallet's network.
func (w *Wallet) Network() pktchain.Network { return w.cfg.Network }

// Balance is what the wallet holds, in base units.
type Balance struct {
	// Confirmed can be spent now.
	Confirmed pktcloud.Amount `json:"confirmed_units"`
	// Unconfirmed waits for a block, or is a reward that must still mature.
	Unconfirmed pktcloud.Amount `json:"unconfirmed_units"`
	// Reserved is set aside for channels and payments under way; it is part of
	// neither other sum.
	Reserved pktcloud.Amount `json:"reserved_units"`
}

// Balance adds up the wallet's coins. Errors match settle.ErrLedgerUnavailable.
func (w *Wallet) Balance(ctx context.Context) (Balance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	coins, err := w.coins(ctx)
	if err != nil {
		return Balance{}, err
	}
	var b Balance
	for _, c := range coins {
		sum := &b.Confirmed
		switch {
		case w.reserved[c.At]:
			sum = &b.Reserved
		case !c.confirmed():
			sum = &b.Unconfirmed
		}
		if *sum, err = sum.Add(c.Amount); err != nil {
			return Balance{}, fmt.Errorf("balance: %w", err)
		}
	}
	return b, nil
}

// coin is a coin of the wallet and where its key is.
type coin struct {
	settle.Coin
	place
}

// confirmed reports whether a coin can be spent in a transaction that must not
// change any more.
func (c coin) confirmed() bool {
	return c.Depth > 0 && (!c.Coinbase || c.Depth >= CoinbaseMaturity)
}

// coins asks the ledger for the coins of all addresses given out. The caller
// holds w.mu.
func (w *Wallet) coins(ctx context.Context) ([]coin, error) {
	var places []place
	var scripts [][]byte
	for chain := range uint32(chains) {
		for i := range w.next[chain] {
			script, err := w.keys.script(chain, i)
			if err != nil {
				return nil, err
			}
			places, scripts = append(places, place{chain, i}), append(scripts, script)
		}
	}
	if err := w.watch(ctx); err != nil {
		return nil, fmt.Errorf("watch the wallet's addresses: %w", err)
	}
	var all []coin
	for i, p := range places {
		found, err := w.cfg.Ledger.Coins(ctx, scripts[i])
		if err != nil {
			return nil, fmt.Errorf("ask for the wallet's coins: %w", err)
		}
		for _, c := range found {
			all = append(all, coin{c, p})
		}
	}
	return all, nil
}

// NewAddress returns an address that was not given out before, as long as
// fewer than GapLimit in a row are unused; then one of those again [WALLET-6].
func (w *Wallet) NewAddress(ctx context.Context) (string, error) {
	script, err := w.ReceiveScript(ctx)
	if err != nil {
		return "", err
	}
	return w.cfg.Network.Address(script)
}

// ReceiveScript is NewAddress as an output script.
func (w *Wallet) ReceiveScript(ctx context.Context) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fresh(ctx, external)
}

// fresh takes the next script of a chain of addresses; its index is durable
// before the script is known to anybody [WALLET-5]. The caller holds w.mu.
func (w *Wallet) fresh(ctx context.Context, chain uint32) ([]byte, error) {
	if w.next[chain]-w.used[chain] >= GapLimit {
		w.findUsed(ctx, chain)
	}
	if open := w.next[chain] - w.used[chain]; open >= GapLimit {
		w.spare[chain]++
		return w.keys.script(chain, w.used[chain]+w.spare[chain]%open)
	}
	index := w.next[chain]
	script, err := w.keys.script(chain, index)
	if err != nil {
		return nil, err
	}
	if err := w.beBorn(ctx); err != nil {
		return nil, err
	}
	if err := w.saveNext(ctx, chain, index+1); err != nil {
		return nil, err
	}
	return script, nil
}

func (w *Wallet) saveNext(ctx context.Context, chain, next uint32) error {
	put := Put{Key: nextPrefix + strconv.FormatUint(uint64(chain), 10), Value: strconv.AppendUint(nil, uint64(next), 10)}
	if err := w.cfg.Store.Apply(ctx, []Put{put}); err != nil {
		return fmt.Errorf("store address index: %w", err)
	}
	w.next[chain] = next
	return nil
}

// findUsed looks for the last used one of the addresses given out. When the
// chain does not answer, none counts as used: giving an address out twice is
// better than one that a restored wallet would not find.
func (w *Wallet) findUsed(ctx context.Context, chain uint32) {
	if w.watch(ctx) != nil {
		return
	}
	for i := w.next[chain]; i > w.used[chain]; i-- {
		script, err := w.keys.script(chain, i-1)
		if err != nil {
			return
		}
		used, err := w.wasUsed(ctx, script)
		if err != nil {
			return
		}
		if used {
			w.used[chain] = i
			return
		}
	}
}

func (w *Wallet) wasUsed(ctx context.Context, script []byte) (bool, error) {
	if w.watcher != nil {
		return w.watcher.Used(ctx, script)
	}
	coins, err := w.cfg.Ledger.Coins(ctx, script)
	return len(coins) > 0, err
}

// Restore searches the chain for addresses of the seed that were used before,
// until GapLimit in a row were not, and makes what it found durable
// [WALLET-7]. On a ledger that is no settle.Watcher only addresses that
// hold coins count as used. Errors match settle.ErrLedgerUnavailable; calling
// it again is harmless.
func (w *Wallet) Restore(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.watch(ctx); err != nil {
		return fmt.Errorf("search for used addresses: %w", err)
	}
	for chain := range uint32(chains) {
		found := w.next[chain]
		for i := uint32(0); i < found+GapLimit; i++ {
			if i >= w.watched[chain] { // beyond what was looked ahead
				if err := w.watchTo(chain, i+lookAhead, w.birthday); err != nil {
					return err
				}
			}
			script, err := w.keys.script(chain, i)
			if err != nil {
				return err
			}
			used, err := w.wasUsed(ctx, script)
			if err != nil {
				return fmt.Errorf("search for used addresses: %w", err)
			}
			if used {
				found, w.used[chain] = max(found, i+1), max(w.used[chain], i+1)
			}
		}
		if found > w.next[chain] {
			if err := w.saveNext(ctx, chain, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// Reserve sets the coins that a transaction spends aside. Doing so twice is
// harmless.
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
	}
}

// Send pays an output and returns the transaction's id, in internal byte order.
// feeRate is in units per 1000 virtual bytes; the ledger's own rate counts if
// it is higher. The payment is durable before it is broadcast. An error matching
// settle.ErrLedgerUnavailable comes with the id: the payment is stored, and
// [Wallet.Rebroadcast] sends it; do not pay again. Other errors match ErrFunds,
// settle.ErrDust or settle.ErrRejected; nothing was paid then.
func (w *Wallet) Send(ctx context.Context, to settle.Payment, feeRate pktcloud.Amount) ([32]byte, error) {
	rate, err := w.cfg.Ledger.FeeRate(ctx)
	if err != nil {
		return [32]byte{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, err := w.build(ctx, request{
		outputs: []settle.Payment{to}, rate: max(rate, feeRate), maxInputs: maxSendInputs, ownChange: true,
	})
	if err != nil {
		return [32]byte{}, err
	}
	raw, err := encodeTx(tx)
	if err != nil {
		return [32]byte{}, err
	}
	txid := tx.TxHash()
	if err := w.cfg.Store.Apply(ctx, []Put{{Key: sentPrefix + txid.String(), Value: raw}}); err != nil {
		return [32]byte{}, fmt.Errorf("store payment: %w", err)
	}
	w.mark(tx, true)
	err = w.cfg.Ledger.Broadcast(ctx, raw)
	if errors.Is(err, settle.ErrRejected) {
		w.mark(tx, false)
		return [32]byte{}, errors.Join(fmt.Errorf("send: %w", err), w.dropSent(ctx, txid))
	}
	if err != nil {
		err = fmt.Errorf("payment %s is stored and goes out once the chain is back; do not send it again: %w", txid, err)
	}
	return txid, err
}

func (w *Wallet) dropSent(ctx context.Context, txid chainhash.Hash) error {
	return w.cfg.Store.Apply(ctx, []Put{{Key: sentPrefix + txid.String()}})
}

// Rebroadcast offers the payments under way to the chain again and forgets
// those that are settled. Call it at start and after new blocks: a node loses
// its mempool when it restarts.
func (w *Wallet) Rebroadcast(ctx context.Context) error {
	var sent [][]byte
	err := w.cfg.Store.Load(ctx, sentPrefix, func(_ string, raw []byte) error {
		sent = append(sent, slices.Clone(raw))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read payments: %w", err)
	}
	var errs []error
	for _, raw := range sent {
		if err := w.rebroadcast(ctx, raw); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *Wallet) rebroadcast(ctx context.Context, raw []byte) error {
	tx, err := decodeTx(raw)
	if err != nil {
		return err
	}
	at := tx.TxIn[0].PreviousOutPoint
	out, err := w.cfg.Ledger.Output(ctx, settle.Outpoint{TxID: at.Hash, Index: at.Index})
	if err != nil {
		return fmt.Errorf("look for payment %s: %w", tx.TxHash(), err)
	}
	if s := out.Spend; s != nil && s.Depth >= SettledDepth { // by this payment, or by another in its place
		return errors.Join(w.dropSent(ctx, tx.TxHash()), w.Release(ctx, raw))
	}
	if err := w.cfg.Ledger.Broadcast(ctx, raw); err != nil {
		return fmt.Errorf("broadcast payment %s again: %w", tx.TxHash(), err)
	}
	return nil
}
