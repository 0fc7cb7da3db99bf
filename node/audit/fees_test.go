package audit

import (
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// TestFees: a channel's fees are those of its opening, its roll and its closing,
// and a transaction that serves two channels counts once.
func TestFees(t *testing.T) {
	ch := &chain{txs: map[chainhash.Hash]*chainTx{}, spends: map[wire.OutPoint]*chainTx{}}
	add := func(outs []int64, ins ...wire.OutPoint) chainhash.Hash {
		tx := wire.NewMsgTx(2)
		for _, i := range ins {
			tx.AddTxIn(wire.NewTxIn(&i, nil, nil))
		}
		for _, v := range outs {
			tx.AddTxOut(wire.NewTxOut(v, nil))
		}
		c := &chainTx{tx: tx}
		ch.txs[tx.TxHash()] = c
		for _, i := range ins {
			ch.spends[i] = c
		}
		return tx.TxHash()
	}
	at := func(h chainhash.Hash, n uint32) wire.OutPoint { return wire.OutPoint{Hash: h, Index: n} }

	coins := add([]int64{1000, 500}, wire.OutPoint{Index: 7})    // from nowhere, as a coinbase
	opening := add([]int64{600, 390}, at(coins, 0))              // 10; opens two channels
	roll := add([]int64{1000, 80}, at(opening, 0), at(coins, 1)) // 20, of both
	add([]int64{700, 297}, at(roll, 0))                          // 3
	add([]int64{385}, at(opening, 1))                            // 5
	fees := feeSum{}
	if got := fees.of([]*channel{{at: at(opening, 0)}, {at: at(roll, 0)}}, ch); got != 33 {
		t.Errorf("opened, rolled, closed: got %d units, want 33", got)
	}
	if got := fees.of([]*channel{{at: at(opening, 1)}}, ch); got != 5 {
		t.Errorf("opened by the same transaction: got %d units, want 5 for its closing alone", got)
	}
	if got := (feeSum{}).of([]*channel{{at: at(coins, 0)}}, ch); got != 10 {
		t.Errorf("from a coinbase: got %d units, want 10", got)
	}
}
