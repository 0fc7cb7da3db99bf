package manager_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// A channel whose refund today's fee rate makes worthless keeps no other
// channel's parcel from the towers.
func TestParcelsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.settled()
	small := w.open(func(r *manager.OpenRequest) { r.Capacity = 100_000 })
	if err := w.payer.m.Announce(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(3)
	w.payer.until(small, "open", func(s manager.Status) bool { return s.Phase.String() == "open" })
	w.ledger.SetFeeRate(5_000_000)
	w.payer.parcel() // of the other
	w.ledger.SetFeeRate(1_000)
	if list, err := w.payer.m.Parcels(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("got %d parcels, %v, want 2", len(list), err)
	}
}
