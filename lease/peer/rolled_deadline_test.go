package peer_test

import (
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// TestRolledAtTheDeadline: an extension that is in a block by the old deadline, and
// not yet deep, keeps its leases [LEASE-33].
func TestRolledAtTheDeadline(t *testing.T) {
	w, b := newRollWorld(t)
	id := w.settledLease(w.patient())
	w.paidOn("it is paid before the roll", id)
	ch := w.channelOf(id)
	st, err := b.sides[0].Status(t.Context(), ch)
	if err != nil {
		t.Fatal(err)
	}
	d := st.Params.Deadline()
	b.ledger.Mine(int(d - 6 - st.Height)) // the last height but one is d-5
	w.until("height", func() bool {
		x, _ := b.sides[0].Status(t.Context(), ch)
		y, _ := b.sides[1].Status(t.Context(), ch)
		return x.Height == d-6 && y.Height == d-6
	})
	to := w.roll(b, ch, manager.RollRequest{Capacity: 1<<24 + 1<<20, LifetimeBlocks: peer.DefaultLifetimeBlocks + 100, MinDepth: 4})
	w.paidOn("it is paid while the roll waits", id)
	b.ledger.MineFull(4, 1<<30)
	b.ledger.Mine(2) // now d, the roll is 2 deep
	w.until("height", func() bool {
		x, _ := b.sides[0].Status(t.Context(), ch)
		y, _ := b.sides[1].Status(t.Context(), ch)
		return x.Height == d && y.Height == d
	})
	y, _ := b.sides[1].Status(t.Context(), to)
	x, _ := b.sides[1].Status(t.Context(), ch)
	t.Logf("at the deadline: predecessor %s, successor %s at depth %d", x.Phase, y.Phase, y.Depth)
	time.Sleep(12 * time.Second) // longer than the provider leaves the channel unseen
	_, v := w.views(id)
	t.Logf("the lease is %s, %s", v.Phase, v.Reason)
	b.ledger.Mine(2)
	w.until("done", func() bool { z, _ := b.sides[1].Status(t.Context(), to); return z.Phase == settle.Open })
	if v.Phase >= lease.Closing {
		t.Errorf("the lease ended at the old deadline (%s), two blocks before its channel was extended", v.Reason)
	}
}
