package node_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestOfferBeyondTheMachine: what is not there is not offered.
func TestOfferBeyondTheMachine(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		capacity service.Resources
		text     string
	}{
		{service.Resources{MilliCPU: 1 << 30}, "cores"},
		{service.Resources{MemoryBytes: 1 << 60}, "memory"},
	} {
		_, err := w.provider.PublishOffer(t.Context(), service.OfferSpec{CPUPerCoreHour: 1, Capacity: c.capacity})
		if runtime.GOOS != "linux" && c.text == "memory" {
			continue // not known there, where nothing is provided either
		}
		if !errors.Is(err, service.CodeInvalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: got %v, want %s with %q", c.capacity, err, service.CodeInvalid, c.text)
		}
	}
}

// TestOfferOfAPart: what an offer does not state of the machine is offered too.
func TestOfferOfAPart(t *testing.T) {
	w := newWorld(t)
	o, err := w.provider.PublishOffer(t.Context(), service.OfferSpec{CPUPerCoreHour: 1, Capacity: service.Resources{MilliCPU: 500}})
	w.check(err)
	if c := o.Body.Capacity; c.MilliCPU != 500 || runtime.GOOS == "linux" && (c.MemoryBytes == 0 || c.DiskBytes == 0) {
		t.Errorf("got %+v, want 500 mCPU and the rest of the machine", c)
	}
}

// TestOfferAfterRestart: the offer of a provider that was started again at the
// same address is there at once, also for those who never had it.
func TestOfferAfterRestart(t *testing.T) {
	w := newWorld(t)
	w.offer()
	info, err := w.provider.Info(t.Context())
	w.check(err)
	w.tenant.stop()
	w.provider.stop()
	w.provider.config.Listen = []string{strings.Split(info.Addresses[0], "/p2p/")[0]}
	w.provider = w.start(w.provider.config)
	w.tenant = w.start(node.Config{Dir: w.init("newcomer"), Ledger: w.chain, Bootstrap: info.Addresses[:1]})
	w.until("the offer is there again", func() bool {
		page, err := w.tenant.Offers(t.Context(), service.OfferQuery{Resources: resources})
		w.check(err)
		return len(page.Offers) > 0
	})
}

// TestFreedCapacity: what a lease takes and gives back is in the offer at once, not
// when the offer is looked at for another reason.
func TestFreedCapacity(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.RenewEvery(time.Hour) })
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	first := w.offer()
	whole := first.Body.Capacity
	free := func() market.Resources {
		page, err := w.tenant.Offers(t.Context(), service.OfferQuery{})
		w.check(err)
		if len(page.Offers) == 0 {
			return market.Resources{}
		}
		return page.Offers[0].Body.Capacity
	}
	l := w.order(request(w.offer()))
	w.until("the offer has less", func() bool { return free() == whole.Minus(market.Resources(l.Resources)) })
	if o, err := w.tenant.Offer(t.Context(), first.ID, service.Resources{}); err != nil || o.Body.Capacity != whole {
		t.Errorf("the offer that was looked at before: got %+v, %v, want that it stands", o.Body.Capacity, err)
	}
	w.started(w.tenant, l.Label)
	_, err := w.tenant.CloseLease(t.Context(), l.Label)
	w.check(err)
	w.until("the offer has all again", func() bool { return free() == whole })
}
