package wallet_test

import (
	"errors"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

var _ manager.RollWallet = (*wallet.Wallet)(nil)

// A roll's first input is another's; the wallet pays what is missing, and signs
// its own inputs so that they hold once the other is signed too.
func TestFundRoll(t *testing.T) {
	c := chain(t)
	w := open(t, seed(1), c, settletest.NewStore())
	other := open(t, seed(2), c, settletest.NewStore())
	give(t, c, w, 3*coin)
	give(t, c, w, 2*coin)
	give(t, c, other, 5*coin)
	if _, err := c.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	probe, err := other.Fund(t.Context(), []settle.Payment{{Script: sinkScript(t, other), Amount: coin}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := decode(t, probe).TxIn[0].PreviousOutPoint
	out, err := c.Output(t.Context(), settle.Outpoint{TxID: at.Hash, Index: at.Index})
	if err != nil {
		t.Fatal(err)
	}
	first := settle.Coin{At: settle.Outpoint{TxID: at.Hash, Index: at.Index}, Amount: out.Amount, Script: out.Script}
	const vbytes, rate = 100, 20_000
	raw, err := w.FundRoll(t.Context(), first, vbytes, []settle.Payment{{Script: sinkScript(t, other), Amount: 7 * coin}}, rate)
	if err != nil {
		t.Fatal(err)
	}
	tx := decode(t, raw)
	if len(tx.TxIn) != 2 || tx.TxIn[0].PreviousOutPoint != at || tx.TxIn[0].Sequence != wire.MaxTxInSequenceNum-2 || len(tx.TxIn[0].Witness) != 0 ||
		tx.TxIn[1].Sequence != wire.MaxTxInSequenceNum-1 || len(tx.TxIn[1].Witness) != 2 || pktcloud.Amount(tx.TxOut[0].Value) != 7*coin || len(tx.TxOut) != 2 {
		t.Fatalf("got %+v", tx)
	}
	size := uint64(3*tx.SerializeSizeStripped()+tx.SerializeSize()+3)/4 - 41 + vbytes
	if fee, want := pktcloud.Amount(feeOf(t, c, tx)), pktchain.Fee(size, rate); fee < want || fee > want+100 {
		t.Errorf("got a fee of %d units for %d bytes, want %d", uint64(fee), size, uint64(want))
	}
	b, err := w.Balance(t.Context())
	if err != nil || b.Reserved != 3*coin {
		t.Errorf("got %+v, %v, want the largest coin reserved", b, err)
	}
	if _, err := w.FundRoll(t.Context(), first, vbytes, []settle.Payment{{Script: sinkScript(t, other), Amount: 9 * coin}}, rate); !errors.Is(err, wallet.ErrFunds) {
		t.Errorf("more than the wallet has: got %v", err)
	}
	if err := w.Release(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	if b, err := w.Balance(t.Context()); err != nil || b.Reserved != 0 {
		t.Errorf("after the release: got %+v, %v", b, err)
	}
}

func sinkScript(t *testing.T, w *wallet.Wallet) []byte {
	t.Helper()
	script, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return script
}
