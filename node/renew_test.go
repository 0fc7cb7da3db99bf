package node

import (
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// TestRenewals: what changes nothing of the room is no reason to issue an offer
// again, and offers are never issued faster than peers take them.
func TestRenewals(t *testing.T) {
	var r renewals
	one, other := pktcloud.IDOf([]byte("one")), pktcloud.IDOf([]byte("other"))
	for i, c := range []struct {
		id    pktcloud.ID
		phase lease.Phase
		want  bool
	}{
		{one, lease.Agreed, true},
		{one, lease.Active, false},
		{one, lease.Suspended, false},
		{other, lease.Agreed, true},
		{one, lease.Closing, false},
		{one, lease.Closed, true},
		{one, lease.Closed, false},
		{other, lease.Active, false},
	} {
		if got := r.changed(c.id, c.phase); got != c.want {
			t.Errorf("%d: got %v for a lease that is %s, want %v", i, got, c.phase, c.want)
		}
	}
	if len(r.rooms) != 1 {
		t.Errorf("%d leases are remembered, want the one that goes on", len(r.rooms))
	}
	now, issued := time.Unix(1_800_000_000, 0), 0
	for end := now.Add(1000 * time.Second); now.Before(end); issued++ {
		wait := r.take(now)
		if now = now.Add(wait); wait > 0 && r.take(now) > 0 {
			t.Fatalf("after a wait of %s none may be issued", wait)
		}
	}
	// Peers take 32, and one more each 5 seconds [MARKET-11].
	if issued < 100 || issued > 232/2 {
		t.Errorf("got %d records in 1000 s, want no more than half of what peers take", issued)
	}
}
