package node

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
)

// TestNewestFirst: leases of one second too.
func TestNewestFirst(t *testing.T) {
	views := []peer.View{{ID: pktcloud.ID{1}, Agreed: 7}, {ID: pktcloud.ID{2}, Agreed: 9}, {ID: pktcloud.ID{3}, Agreed: 9}, {ID: pktcloud.ID{4}, Agreed: 8}}
	newestFirst(views)
	for i, want := range []byte{3, 2, 4, 1} {
		if views[i].ID[0] != want {
			t.Errorf("%d: got lease %d, want %d", i, views[i].ID[0], want)
		}
	}
}
