package node_test

import (
	"errors"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestAmendLease: a lease that runs gets other sizes at the price of its offer,
// and its containers have them; what is taken counts against what is offered; a
// refusal says why, and leaves all as it was.
func TestAmendLease(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.offer()
	r := request(o)
	r.MaxRate, r.Capacity = 1<<50, 2*pktcloud.UnitsPerPKT
	l := w.order(r)
	w.until("it runs", func() bool {
		now, err := w.tenant.Lease(ctx, l.Label)
		w.check(err)
		return now.Phase == "active"
	})
	box := services.Container(l.ID.Hex(), lease.DefaultServiceName, 1)
	has := func(milli uint64) {
		t.Helper()
		st, err := w.runtime.Status(ctx, box)
		if err != nil || st.Limits.MilliCPU != milli {
			t.Errorf("got %d thousandths of a core, %v, want %d", st.Limits.MilliCPU, err, milli)
		}
	}
	ask := service.AmendRequest{Resources: service.Resources{MilliCPU: 700}, Plan: true}
	plan, err := w.tenant.AmendLease(ctx, l.Label, ask)
	if err != nil || plan.Before.Rate != l.Rate || plan.After.Rate <= l.Rate || plan.After.Credit <= plan.Before.Credit || plan.Revision != 1 {
		t.Fatalf("got %+v, %v for a plan", plan, err)
	}
	has(500)
	ask.Plan, ask.MaxRate = false, plan.After.Rate-1
	if _, err := w.tenant.AmendLease(ctx, l.Label, ask); err == nil {
		t.Error("an amendment above its limit is made")
	}
	ask.MaxRate++
	done, err := w.tenant.AmendLease(ctx, l.Label, ask)
	if err != nil || done.After != plan.After || done.Pending || done.Revision != 1 {
		t.Fatalf("got %+v, %v, want what was planned: %+v", done, err, plan)
	}
	has(700)
	for _, p := range []*running{w.tenant, w.provider} {
		now, err := p.Lease(ctx, l.Label)
		if err != nil || now.Revision != 1 || now.Rate != plan.After.Rate || now.Resources.MilliCPU != 700 || now.Services[0].Resources.MilliCPU != 700 {
			t.Errorf("got %+v, %v, want the lease as amended", now, err)
		}
	}
	for _, c := range []struct {
		name string
		r    service.AmendRequest
		code service.Code
	}{
		{"nothing", service.AmendRequest{MaxRate: 1 << 50}, service.CodeInvalid},
		{"no such volume", service.AmendRequest{Volumes: map[string]uint64{"data": 1 << 30}, MaxRate: 1 << 50}, service.CodeNotFound},
		{"no such service", service.AmendRequest{Services: map[string]service.Resources{"db": {MilliCPU: 1000}}, MaxRate: 1 << 50}, service.CodeNotFound},
		{"a smaller disk", service.AmendRequest{Resources: service.Resources{DiskBytes: 4 << 20}, MaxRate: 1 << 50}, service.CodeRefused},
		{"more than is offered", service.AmendRequest{Resources: service.Resources{MemoryBytes: 1 << 45}, MaxRate: 1 << 50}, ""},
	} {
		_, err := w.tenant.AmendLease(ctx, l.Label, c.r)
		if e, ok := errors.AsType[*service.Error](err); !ok || c.code != "" && e.Code != c.code {
			t.Errorf("%s: got %v, want %s", c.name, err, c.code)
		}
	}
	if _, err := w.provider.AmendLease(ctx, l.Label, ask); err == nil {
		t.Error("a provider amends")
	}
	has(700)
	w.until("the offer has less left", func() bool {
		page, err := w.tenant.Offers(ctx, service.OfferQuery{})
		w.check(err)
		for _, now := range page.Offers {
			if now.Body.Sequence > o.Body.Sequence && now.Body.Capacity.MilliCPU+700 == o.Body.Capacity.MilliCPU {
				return true
			}
		}
		return false
	})
	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
}

// TestAmendingTakesRoom: while an amendment is being carried out its room is
// nobody else's.
func TestAmendingTakesRoom(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	r := request(w.offer())
	r.MaxRate, r.Capacity = 1<<50, 2*pktcloud.UnitsPerPKT
	l := w.order(r)
	if now := w.started(w.tenant, l.Label); now.Phase != "active" {
		t.Fatalf("the lease is %s", now.Phase)
	}
	hold := make(chan struct{})
	w.runtime.hold.Store(&hold)
	done := make(chan error, 1)
	go func() {
		_, err := w.tenant.AmendLease(ctx, l.Label, service.AmendRequest{Resources: service.Resources{MilliCPU: 900}, MaxRate: 1 << 50})
		done <- err
	}()
	w.until("it is being carried out", func() bool {
		now, err := w.provider.Lease(ctx, l.Label)
		w.check(err)
		return now.Amending
	})
	page, err := w.tenant.Offers(ctx, service.OfferQuery{})
	w.check(err)
	r.Offer = page.Offers[0].ID
	r.Resources.MilliCPU = 400
	if _, err := w.tenant.CreateLease(ctx, r); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("got %v for the room of an amendment, want none", err)
	}
	close(hold)
	w.check(<-done)
	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
}
