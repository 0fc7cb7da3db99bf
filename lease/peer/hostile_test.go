package peer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// reusingPayer opens one channel and names it again ever after.
type reusingPayer struct {
	peer.Payer
	params  settle.Params
	funding []byte
}

func (p *reusingPayer) Open(ctx context.Context, r peer.OpenRequest) (params settle.Params, funding []byte, err error) {
	if p.funding == nil {
		p.params, p.funding, err = p.Payer.Open(ctx, r)
	}
	return p.params, p.funding, err
}

// TestChannelPaysOneLease shows [LEASE-17]: a channel that was closed would
// otherwise buy the credit again and again without a unit being paid.
func TestChannelPaysOneLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stops[0]()
	w.payer = func(p peer.Payer) peer.Payer { return &reusingPayer{Payer: p} }
	w.startTenant()
	w.closeAndCheck(w.create(w.request()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := w.tenant.Create(ctx, w.request()); !errors.Is(err, lease.CodeChannel) {
		t.Errorf("got %v for a lease over a channel that paid another one, want a refusal of the channel", err)
	}
	if starts, _ := w.workload.Counts(); starts != 1 {
		t.Errorf("got %d workloads started, want the first alone", starts)
	}
}

// TestFullDiskFreezes shows [LEASE-12] while nothing can be stored: the
// workload stands still at the credit, and goes on once that is over.
func TestFullDiskFreezes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.request())
	w.until("an interval is paid", func() bool { v, _ := w.provider.Lease(id); return v.Paid > 0 })
	w.stores[1].Down(true)
	w.until("the provider freezes what it cannot account for", func() bool {
		st, err := w.workload.Status(t.Context(), id)
		return err == nil && st == peer.WorkloadFrozen
	})
	w.stores[1].Down(false)
	_, before := w.views(id)
	w.until("service and payment go on", func() bool { _, v := w.views(id); return v.Paid >= before.Paid+5*unitsPerSecond })
	if _, v := w.views(id); v.Max.Credit > v.Terms.Limits.Credit {
		t.Errorf("got %d units of unpaid service at most, want no more than %d", v.Max.Credit, v.Terms.Limits.Credit)
	}
	w.closeAndCheck(id)
}

// recordingPayer remembers the channel that it opened.
type recordingPayer struct {
	peer.Payer
	params *settle.Params
}

func (p recordingPayer) Open(ctx context.Context, r peer.OpenRequest) (params settle.Params, funding []byte, err error) {
	params, funding, err = p.Payer.Open(ctx, r)
	*p.params = params
	return params, funding, err
}

// TestNoCommitNoChannel shows that a commit which cannot be made gives the
// channel's coins back.
func TestNoCommitNoChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stops[0]()
	var opened settle.Params
	w.payer = func(p peer.Payer) peer.Payer { return recordingPayer{p, &opened} }
	w.startTenant()
	w.bank.Refuse(true) // then the first voucher cannot be made
	r := w.request()
	r.Limits = lease.Limits{Prepaid: unitsPerSecond, Unconfirmed: 1 << 20}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := w.tenant.Create(ctx, r); !errors.Is(err, lease.CodePayment) {
		t.Fatalf("got %v, want a refusal to pay", err)
	}
	id, err := opened.ID()
	if err != nil {
		t.Fatal(err)
	}
	st, err := w.bank.Payer(w.devices[0]).ChannelStatus(ctx, id)
	if err != nil || st.Phase != settle.Abandoned {
		t.Errorf("got a channel that is %s, %v, want it abandoned", st.Phase, err)
	}
}
