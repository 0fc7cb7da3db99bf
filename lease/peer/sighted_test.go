package peer

import (
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

// TestSightedEndsTheWait: a tenant that waits before it dials again does not wait
// once the provider is connected for another reason.
func TestSightedEndsTheWait(t *testing.T) {
	device := pktcloud.NewPrivateKey([32]byte{1}).Public()
	id, err := session.PeerOf(device)
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{ctx: t.Context(), peer: device, wake: make(chan struct{}, 1), sighted: make(chan struct{}, 1)}
	tenant := &Tenant{party: party{leases: map[pktcloud.ID]*runner{{1}: r}}}
	woken := make(chan bool, 1)
	go func() { woken <- r.awaitDial(time.Hour) }()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		tenant.sighted(id) // a sight from before the wait does not count
		select {
		case w := <-woken:
			if w {
				t.Error("a provider that is there again counts as something to say")
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Error("the tenant waits on")
}
