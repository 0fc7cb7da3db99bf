package manager_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// coinReader is a ledger that minds which outputs it is asked about.
type coinReader struct {
	*settletest.Ledger
	unspent atomic.Int64
}

func (l *coinReader) Unspent(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	l.unspent.Add(1)
	return l.Ledger.Output(ctx, at)
}

// TestInputsAreReadAsCoins: no stranger makes a ledger search the chain.
func TestInputsAreReadAsCoins(t *testing.T) {
	w := newWorld(t)
	ledger := &coinReader{Ledger: w.ledger}
	w.payee.stop()
	w.payee.cfg.Ledger = ledger
	w.payee.start()
	w.open(nil)
	if n := ledger.unspent.Load(); n == 0 {
		t.Error("got no question for a coin, want one for each input of the funding")
	}
}

// TestAbandonedFundingComesLate shows [SETTLE-29]: a payee that holds the funding
// of an abandoned channel back until long after its expiry locks no money up.
func TestAbandonedFundingComesLate(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.open(nil)
	if err := w.payer.m.Abandon(ctx, id); err != nil {
		t.Fatal(err)
	}
	st := w.payer.until(id, "status", func(manager.Status) bool { return true })
	late := st.Params.ExpiryHeight + 2*st.Params.MarginBlocks
	w.ledger.Mine(int(late - st.Height))
	w.payer.until(id, "height", func(s manager.Status) bool { return s.Height >= late })
	w.payer.crash()
	if err := w.payee.m.Announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(2)
	w.payer.until(id, "refund", func(s manager.Status) bool { return s.Phase == settle.Closing && len(w.ledger.Pool()) == 1 })
}
