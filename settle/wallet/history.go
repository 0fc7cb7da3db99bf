package wallet

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Entry is a transaction that touched the wallet.
type Entry struct {
	TxID   [32]byte
	Height uint64 // zero while it waits for a block
	Depth  uint64
	Time   int64 // of its block in Unix seconds, zero like Height
	// Received is what came in, Sent what went out, less change and fee: of a
	// transaction one of them is zero, unless others put coins in, too. Fee is
	// known, and not zero, only of a transaction that spends nothing but the
	// wallet's coins.
	Received, Sent, Fee pktcloud.Amount
	Label               string // of the transaction, or else of an address in Outputs
	// Outputs are those that say where the money went or came to: of a payment
	// those of others, otherwise the wallet's own.
	Outputs []settle.Payment
	// Inputs are the outpoints that it spends.
	Inputs []settle.Outpoint
	// Replaceable says that Replace may raise the fee.
	Replaceable bool
}

// History returns the transactions that touched the wallet, newest first: those
// that wait for a block, then the others by their blocks. Errors match
// settle.ErrLedgerUnavailable or ErrNoHistory.
func (w *Wallet) History(ctx context.Context) ([]Entry, error) { return w.HistoryPart(ctx, 0, 0) }

// HistoryPart is History without the newest skip entries, and of the others at
// most limit; zero means all.
func (w *Wallet) HistoryPart(ctx context.Context, skip, limit int) ([]Entry, error) {
	if w.follower == nil {
		return nil, ErrNoHistory
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return nil, err
	}
	type row struct {
		txid chainhash.Hash
		*chainTx
	}
	rows := make([]row, 0, len(w.index.txs)+len(w.sent))
	for txid, tx := range w.index.txs {
		rows = append(rows, row{txid, tx})
	}
	for txid, p := range w.sent {
		if w.index.txs[txid] == nil { // the chain has not seen it yet
			rows = append(rows, row{txid, newChainTx(settle.TxState{}, p.tx)})
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.height-1, a.height-1), cmp.Compare(b.position, a.position), bytes.Compare(a.txid[:], b.txid[:]))
	})
	rows = rows[min(max(skip, 0), len(rows)):]
	if limit > 0 {
		rows = rows[:min(limit, len(rows))]
	}
	entries := make([]Entry, 0, len(rows))
	for _, r := range rows {
		entries = append(entries, w.entry(r.txid, r.chainTx))
	}
	return entries, nil
}

// EntryOf returns one transaction of the history, if there is such.
func (w *Wallet) EntryOf(ctx context.Context, txid [32]byte) (e Entry, ok bool, err error) {
	if w.follower == nil {
		return Entry{}, false, ErrNoHistory
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return Entry{}, false, err
	}
	tx := w.index.txs[txid]
	if p := w.sent[txid]; tx == nil && p != nil {
		tx = newChainTx(settle.TxState{}, p.tx)
	}
	if tx == nil {
		return Entry{}, false, nil
	}
	return w.entry(txid, tx), true, nil
}

// entry adds a transaction up.
func (w *Wallet) entry(txid chainhash.Hash, tx *chainTx) Entry {
	e := Entry{TxID: txid, Height: tx.height, Depth: w.index.depth(tx.height), Time: tx.time, Label: w.labels[txLabel(txid)], Inputs: tx.ins}
	var spent, back, total pktcloud.Amount
	own := true
	for _, at := range tx.ins {
		c := w.index.outs[at]
		if c == nil {
			own = false
			continue
		}
		spent += c.amount
	}
	var ours, others []settle.Payment
	for _, out := range tx.outs {
		total += out.Amount
		if _, ok := w.index.places[string(out.Script)]; ok {
			back += out.Amount
			ours = append(ours, out)
		} else {
			others = append(others, out)
		}
	}
	e.Outputs = ours
	if own && spent >= total {
		e.Fee = spent - total
		e.Sent = total - back
		if len(others) > 0 {
			e.Outputs = others
		}
	} else {
		e.Received, e.Sent = back.SubFloor(spent), spent.SubFloor(back)
	}
	for _, o := range e.Outputs {
		if e.Label != "" {
			break
		}
		if address, err := w.cfg.Network.Address(o.Script); err == nil {
			e.Label = w.labels[addressLabel(address)]
		}
	}
	if p := w.sent[txid]; p != nil && tx.height == 0 {
		_, err := w.replaceable(txid)
		e.Replaceable = err == nil
	}
	return e
}
