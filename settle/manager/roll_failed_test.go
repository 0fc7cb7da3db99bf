package manager_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// The payee claims the successor before the roll is mined, and is away while the
// roll's coin goes elsewhere: nothing is left of the successor when it is back.
func TestRollDoubleSpentUnseen(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 60_000)
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := w.payer.wallet.Elsewhere(ctx, o.Tx, 50_000)
	if err != nil {
		t.Fatal(err)
	}
	to := w.roll(id, manager.RollRequest{})
	w.ledger.MineFull(1, 20_000) // without the roll
	w.payee.until(to, "roll", func(st manager.Status) bool { return st.Funded })
	if _, err := w.payee.m.Claim(ctx, to); err != nil {
		t.Fatal(err)
	}
	w.payee.stop()
	if err := w.ledger.Broadcast(ctx, elsewhere); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(lifetime)
	st := w.payer.until(id, "refund", func(st manager.Status) bool { return w.endOf(st) != [32]byte{} })
	w.ledger.Mine(int(st.Params.MinDepth))
	w.payee.start()
	w.both(id, settle.Refunded)
	w.both(to, settle.Abandoned)
}
