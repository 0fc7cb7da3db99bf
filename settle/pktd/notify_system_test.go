//go:build system

package pktd_test

import (
	"context"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

// TestNoticesOfNode: a real node tells of its blocks, and of those it takes back,
// to a driver that asks by itself once an hour.
func TestNoticesOfNode(t *testing.T) {
	node := nodetest.New(t)
	cfg := node.Config()
	cfg.PollInterval = time.Hour
	d, err := pktd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	subscribed := d.Announced()
	select {
	case <-subscribed:
	case <-ctx.Done():
		t.Fatal("the node tells of nothing")
	}
	last, err := d.Tip(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		change func(context.Context, int) error
		other  bool // the block before, or one more of another branch
	}{{node.Mine, false}, {node.Mine, false}, {node.TakeBack, true}} {
		began := time.Now()
		came := make(chan settle.Tip, 1)
		go func() {
			tip, err := d.WaitTip(ctx, last)
			if err != nil {
				t.Error(err)
			}
			came <- tip
		}()
		for !d.AskedSince(began) && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		if err := step.change(ctx, 1); err != nil {
			t.Fatal(err)
		}
		next := <-came
		if up := int64(next.Height - last.Height); up != 1 && (up != -1 || !step.other) {
			t.Errorf("got block %+v after %+v", next, last)
		}
		last = next
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
