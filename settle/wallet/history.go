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
	Label               string
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
func (w *Wallet) History(ctx context.Context) ([]Entry, error) {
	if w.follower == nil {
		return nil, ErrNoHistory
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return nil, err
	}
	type row struct {
		Entry
		position uint64
	}
	rows := make([]row, 0, len(w.index.txs))
	for txid, tx := range w.index.txs {
		rows = append(rows, row{w.entry(txid, tx), tx.position})
	}
	for txid, p := range w.sent { // those that the chain has not seen yet
		if w.index.txs[txid] == nil {
			tx := &chainTx{}
			for _, in := range p.tx.TxIn {
				tx.ins = append(tx.ins, settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index})
			}
			for _, out := range p.tx.TxOut {
				tx.outs = append(tx.outs, settle.Payment{Script: out.PkScript, Amount: pktcloud.Amount(out.Value)})
			}
			rows = append(rows, row{w.entry(txid, tx), 0})
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.Height-1, a.Height-1), cmp.Compare(b.position, a.position), bytes.Compare(a.TxID[:], b.TxID[:]))
	})
	entries := make([]Entry, 0, len(rows))
	for _, r := range rows {
		entries = append(entries, r.Entry)
	}
	return entries, nil
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
	if p := w.sent[txid]; p != nil && tx.height == 0 {
		_, err := w.replaceable(txid)
		e.Replaceable = err == nil
	}
	return e
}
