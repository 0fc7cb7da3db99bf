package wallet

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// bulk is how many transactions at once make sorting all coins cheaper than
// putting each in its place.
const bulk = 500

// coin is an output that pays the wallet, spent or not.
type coin struct {
	at       settle.Outpoint
	amount   pktcloud.Amount
	place    place
	height   uint64 // zero in the mempool
	coinbase bool
	own      bool            // of a transaction that spends nothing but the wallet's coins
	spender  *chainhash.Hash // nil while unspent
	reserved bool
	frozen   bool
}

// chainTx is a transaction that touches the wallet.
type chainTx struct {
	height, position uint64 // zero height: in the mempool
	time             int64
	coinbase         bool
	ins              []settle.Outpoint
	outs             []settle.Payment
}

func newChainTx(at settle.TxState, tx *wire.MsgTx) *chainTx {
	t := &chainTx{height: at.Height, position: at.Position, time: at.Time, coinbase: at.Coinbase}
	for _, in := range tx.TxIn {
		t.ins = append(t.ins, settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index})
	}
	for _, out := range tx.TxOut {
		t.outs = append(t.outs, settle.Payment{Script: out.PkScript, Amount: pktcloud.Amount(max(out.Value, 0))})
	}
	return t
}

// index is what the wallet knows of the chain [WALLET-50].
type index struct {
	cursor uint64 // of the follower; zero before the first answer
	tip    settle.Tip
	places map[string]place // by script: addresses given out
	txs    map[chainhash.Hash]*chainTx
	outs   map[settle.Outpoint]*coin
	spends map[settle.Outpoint]chainhash.Hash // of every input of txs
	sorted map[uint32][]*coin                 // unspent, by account, the largest first
	stale  bool                               // sorted must be made anew
}

func newIndex() index {
	return index{
		places: map[string]place{}, txs: map[chainhash.Hash]*chainTx{}, outs: map[settle.Outpoint]*coin{},
		spends: map[settle.Outpoint]chainhash.Hash{}, sorted: map[uint32][]*coin{},
	}
}

// order sorts coins: the largest first, then the oldest.
func order(a, b *coin) int {
	return cmp.Or(cmp.Compare(b.amount, a.amount), cmp.Compare(a.height-1, b.height-1), // the mempool, at zero, last
		bytes.Compare(a.at.TxID[:], b.at.TxID[:]), cmp.Compare(a.at.Index, b.at.Index))
}

// coins are the unspent coins of an account, the largest first.
func (x *index) coins(account uint32) []*coin { return x.sorted[account] }

func (x *index) depth(height uint64) uint64 {
	if height == 0 {
		return 0
	}
	return x.tip.Height - height + 1
}

// confirmed reports whether a coin can be spent in a transaction that must not
// change any more.
func (x *index) confirmed(c *coin) bool {
	return c.height > 0 && (!c.coinbase || x.depth(c.height) >= CoinbaseMaturity)
}

// list puts an unspent coin in its place among the sorted ones.
func (x *index) list(c *coin) {
	if x.stale {
		return
	}
	all := x.sorted[c.place.account]
	if i, found := slices.BinarySearchFunc(all, c, order); !found {
		x.sorted[c.place.account] = slices.Insert(all, i, c)
	}
}

func (x *index) unlist(c *coin) {
	if x.stale {
		return
	}
	all := x.sorted[c.place.account]
	if i, found := slices.BinarySearchFunc(all, c, order); found {
		x.sorted[c.place.account] = slices.Delete(all, i, i+1)
	}
}

func (x *index) sort() {
	if !x.stale {
		return
	}
	x.stale = false
	clear(x.sorted)
	for _, c := range x.outs {
		if c.spender == nil {
			x.sorted[c.place.account] = append(x.sorted[c.place.account], c)
		}
	}
	for _, all := range x.sorted {
		slices.SortFunc(all, order)
	}
}

// forget makes the index begin again.
func (w *Wallet) forget() {
	w.index = newIndex()
	for _, b := range w.branches {
		b.followed = 0
	}
}

// refresh brings the index to the chain's present state. The caller holds w.mu.
func (w *Wallet) refresh(ctx context.Context) error {
	if w.follower == nil {
		return w.reload(ctx)
	}
	for {
		if w.index.cursor == 0 || w.unborn || w.unwatched() {
			if err := w.watch(ctx); err != nil {
				return fmt.Errorf("watch the wallet's addresses: %w", err)
			}
		}
		added, err := w.unfollowed()
		if err != nil {
			return err
		}
		changes, err := w.follower.Follow(ctx, w.index.cursor, added)
		if err != nil {
			return fmt.Errorf("ask for the wallet's transactions: %w", err)
		}
		if changes.Lost {
			if w.index.cursor == 0 {
				return fmt.Errorf("%w: it forgets at once what it said", settle.ErrLedgerUnavailable)
			}
			w.forget()
			continue
		}
		if err := w.apply(changes); err != nil {
			w.forget()
			return err
		}
		for _, b := range w.branches {
			b.followed = max(b.followed, b.next)
		}
		w.seen = changes.Tip.Height
		return nil
	}
}

// unwatched reports whether addresses were given out since the ledger was told
// what to watch.
func (w *Wallet) unwatched() bool {
	return w.watcher != nil && slices.ContainsFunc(w.branches, func(b *branch) bool { return b.watched < b.next+lookAhead })
}

// unfollowed returns the scripts that were given out since the index last saw
// the chain, and notes whose they are.
func (w *Wallet) unfollowed() (added [][]byte, err error) {
	for _, b := range w.branches {
		for i := b.followed; i < b.next; i++ {
			script, err := w.keys.script(b.place(i))
			if err != nil {
				return nil, err
			}
			w.index.places[string(script)] = b.place(i)
			added = append(added, script)
		}
	}
	return added, nil
}

// changed is a transaction whose place changed.
type changed struct {
	settle.TxState
	tx *wire.MsgTx
}

// apply takes changes over: first what is gone, then what is there, those that
// are spent before those that spend them.
func (w *Wallet) apply(changes settle.Changes) error {
	x := &w.index
	x.cursor, x.tip = changes.Next, changes.Tip
	x.stale = x.stale || len(changes.Txs) > bulk
	var there []changed
	for _, state := range changes.Txs {
		w.drop(state.TxID)
		if state.Gone {
			continue
		}
		tx, err := decodeTx(state.Raw)
		if err != nil {
			return fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, err)
		}
		there = append(there, changed{state, tx})
	}
	slices.SortStableFunc(there, func(a, b changed) int {
		return cmp.Or(cmp.Compare(a.Height-1, b.Height-1), cmp.Compare(a.Position, b.Position)) // the mempool, at zero, last
	})
	mined := slices.IndexFunc(there, func(c changed) bool { return c.Height == 0 })
	if mined < 0 {
		mined = len(there)
	}
	for _, c := range there[:mined] {
		w.take(c)
	}
	w.takePool(there[mined:])
	x.sort()
	return nil
}

// takePool takes transactions of the mempool, which come in no order.
func (w *Wallet) takePool(pool []changed) {
	waiting := make(map[chainhash.Hash]changed, len(pool))
	for _, c := range pool {
		waiting[c.TxID] = c
	}
	var take func(c changed)
	take = func(c changed) {
		delete(waiting, c.TxID)
		for _, in := range c.tx.TxIn {
			if parent, ok := waiting[in.PreviousOutPoint.Hash]; ok {
				take(parent)
			}
		}
		w.take(c)
	}
	for _, c := range pool {
		if _, ok := waiting[c.TxID]; ok {
			take(c)
		}
	}
}

// drop takes a transaction out of the index.
func (w *Wallet) drop(txid chainhash.Hash) {
	x := &w.index
	tx := x.txs[txid]
	if tx == nil {
		return
	}
	delete(x.txs, txid)
	for _, at := range tx.ins {
		if x.spends[at] != txid {
			continue
		}
		delete(x.spends, at)
		if c := x.outs[at]; c != nil {
			c.spender = nil
			x.list(c)
		}
	}
	for i := range tx.outs {
		at := settle.Outpoint{TxID: txid, Index: uint32(i)}
		if c := x.outs[at]; c != nil {
			x.unlist(c)
			delete(x.outs, at)
		}
	}
}

// take puts a transaction in the index, if it touches the wallet.
func (w *Wallet) take(c changed) {
	x := &w.index
	txid := chainhash.Hash(c.TxID)
	t := newChainTx(c.TxState, c.tx)
	touches, own := false, true
	for _, at := range t.ins {
		touches, own = touches || x.outs[at] != nil, own && x.outs[at] != nil
	}
	for _, out := range t.outs {
		_, ours := x.places[string(out.Script)]
		touches = touches || ours
	}
	if !touches {
		return
	}
	x.txs[txid] = t
	for _, at := range t.ins {
		x.spends[at] = txid
		if c := x.outs[at]; c != nil {
			x.unlist(c)
			c.spender = &txid
		}
	}
	for i, out := range t.outs {
		p, ours := x.places[string(out.Script)]
		if !ours {
			continue
		}
		at := settle.Outpoint{TxID: txid, Index: uint32(i)}
		c := &coin{
			at: at, amount: out.Amount, place: p, height: t.height, coinbase: t.coinbase, own: own,
			reserved: w.reserved[at], frozen: w.frozen[at],
		}
		b := w.branch(p.account, p.chain)
		b.used = max(b.used, p.index+1)
		x.outs[at] = c
		if spender, spent := x.spends[at]; spent {
			c.spender = &spender
		} else {
			x.list(c)
		}
	}
}

// reload asks a ledger that is no follower for the coins of all addresses.
func (w *Wallet) reload(ctx context.Context) error {
	if err := w.watch(ctx); err != nil {
		return fmt.Errorf("watch the wallet's addresses: %w", err)
	}
	tip, err := w.cfg.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	w.forget()
	if _, err := w.unfollowed(); err != nil {
		return err
	}
	x := &w.index
	x.tip, x.stale = tip, true
	for _, b := range w.branches {
		for i := range b.next {
			script, err := w.keys.script(b.place(i))
			if err != nil {
				return err
			}
			found, err := w.cfg.Ledger.Coins(ctx, script)
			if err != nil {
				return fmt.Errorf("ask for the wallet's coins: %w", err)
			}
			for _, f := range found {
				c := &coin{at: f.At, amount: f.Amount, place: b.place(i), coinbase: f.Coinbase, own: true, reserved: w.reserved[f.At], frozen: w.frozen[f.At]}
				if f.Depth > 0 {
					c.height = tip.Height + 1 - min(f.Depth, tip.Height)
				}
				b.used = max(b.used, i+1)
				x.outs[f.At] = c
			}
		}
	}
	x.sort()
	return nil
}
