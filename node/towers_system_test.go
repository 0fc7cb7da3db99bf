//go:build system

package node_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// A provider earns, deposits at its tower, and goes away; the tower claims for
// it when the time comes, and the tenant's refund finds nothing.
func TestTowerActsForAProvider(t *testing.T) {
	w, keeper, l := deposited(t)
	ctx := t.Context()
	w.provider.stop()
	for left := peer.DefaultLifetimeBlocks - manager.DefaultMarginBlocks; left > 0; left -= 10_000 {
		_, err := w.chain.Mine(min(left, 10_000), nil)
		w.check(err)
	}
	w.until("the tower's claim", func() bool {
		_, err := w.chain.Mine(1, nil)
		w.check(err)
		v, err := w.tenant.Lease(ctx, l.Label)
		w.check(err)
		return v.Channel.Closed > 0 && v.Channel.Claimed > 0
	})
	r, err := keeper.Towers(ctx)
	w.check(err)
	if r.Kept.Ended != 1 {
		t.Errorf("the keeper afterwards: got %+v", r.Kept)
	}
}
