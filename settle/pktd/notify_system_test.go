//go:build system

package pktd_test

import (
	"context"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/btcdtest"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

// TestNoticesOfBtcd: a real node tells of its blocks, and of those it takes back,
// to a driver that asks by itself once an hour.
func TestNoticesOfBtcd(t *testing.T) {
	node, err := btcdtest.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
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
		up     int64
	}{{node.Mine, 1}, {node.Mine, 1}, {node.Invalidate, -1}} {
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
		if int64(next.Height-last.Height) != step.up {
			t.Errorf("got block %d after %d, want %d more", next.Height, last.Height, step.up)
		}
		last = next
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
