package audit

import (
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// feeSum adds fees up, that of each transaction once: one may open several
// channels.
type feeSum map[chainhash.Hash]bool

// of is what the transactions cost that opened the first of these channels,
// made each the next one, and closed the last.
func (f feeSum) of(path []*channel, ch *chain) uint64 {
	var sum uint64
	add := func(t *chainTx) {
		if t == nil || f[t.tx.TxHash()] {
			return
		}
		f[t.tx.TxHash()] = true
		sum += ch.fee(t.tx)
	}
	for _, c := range path {
		add(ch.txs[c.at.Hash])
		add(ch.spends[c.at])
	}
	return sum
}

// fee is what a transaction leaves to its miner.
func (ch *chain) fee(tx *wire.MsgTx) uint64 {
	var in, out int64
	for _, i := range tx.TxIn {
		from := ch.txs[i.PreviousOutPoint.Hash]
		if from == nil || int(i.PreviousOutPoint.Index) >= len(from.tx.TxOut) {
			return 0 // a coinbase, or what these blocks do not hold
		}
		in += from.tx.TxOut[i.PreviousOutPoint.Index].Value
	}
	for _, o := range tx.TxOut {
		out += o.Value
	}
	return uint64(max(in-out, 0))
}
