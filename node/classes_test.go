package node_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// classRuntime has the class gvisor until it is lost.
type classRuntime struct {
	*pullCounter
	lost  atomic.Bool
	class atomic.Value // of the last container
}

func (c *classRuntime) IsolationClasses() []container.Class {
	if c.lost.Load() {
		return []container.Class{container.ClassUserns}
	}
	return []container.Class{container.ClassUserns, container.ClassGVisor}
}

func (c *classRuntime) Start(ctx context.Context, s container.Spec) error {
	c.class.Store(s.Class)
	return c.pullCounter.Start(ctx, s)
}

// TestClassesOffered: offers name the classes that the runtime has, and a
// tenant gets the one that it demands, or a sentence before its money moves
// [CONTAINER-83] [LEASE-34].
func TestClassesOffered(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	plain := w.offer()
	strong := request(plain)
	strong.Class = string(container.ClassGVisor)
	refused := func(r service.LeaseRequest, text string) {
		t.Helper()
		if _, err := w.tenant.CreateLease(ctx, r); !errors.Is(err, service.CodeRefused) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v (%s), want it refused with %q", err, service.CodeOf(err), text)
		}
		if b, err := w.tenant.WalletBalance(ctx); err != nil || b.Reserved != 0 {
			t.Errorf("money is reserved: %+v, %v", b, err)
		}
	}
	if !slices.Equal(plain.Body.Isolation, []string{"userns"}) {
		t.Errorf("got classes %v", plain.Body.Isolation)
	}
	refused(strong, "isolation gvisor")
	find := func() []service.Offer {
		t.Helper()
		page, err := w.tenant.Offers(ctx, service.OfferQuery{Resources: resources, Class: strong.Class})
		w.check(err)
		return page.Offers
	}
	if got := find(); len(got) != 0 {
		t.Errorf("offers without the class are found: %+v", got)
	}

	info, err := w.provider.Info(ctx)
	w.check(err)
	w.provider.stop()
	r := &classRuntime{pullCounter: w.runtime}
	w.provider.config.Runtime = r
	w.provider.config.Listen = []string{strings.Split(info.Addresses[0], "/p2p/")[0]}
	w.provider = w.start(w.provider.config)
	w.until("an offer names the class", func() bool { return len(find()) == 1 })
	o := find()[0]
	if !slices.Equal(o.Body.Isolation, []string{"gvisor", "userns"}) {
		t.Errorf("got classes %v", o.Body.Isolation)
	}
	strong.Offer = o.ID
	tight := strong
	tight.Resources.MemoryBytes = gvisor.MinMemoryBytes - 1
	refused(tight, "service web has 50331647 bytes of memory; with isolation gvisor it takes at least 50331648")
	l, err := w.tenant.CreateLease(ctx, strong)
	w.check(err)
	w.until("the service runs", func() bool {
		l, err = w.tenant.Lease(ctx, l.Label)
		w.check(err)
		return l.Phase == "active"
	})
	if got := r.class.Load(); l.Class != strong.Class || got != container.ClassGVisor {
		t.Errorf("the lease has class %q, its container %q", l.Class, got)
	}
	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
	r.lost.Store(true)
	if _, err := w.tenant.CreateLease(ctx, strong); !errors.Is(err, service.CodeRefused) || !strings.Contains(err.Error(), "not to be had here any more") {
		t.Errorf("a class that is lost: got %v", err)
	}
}

// TestLeastOfAService: what a manifest may ask for at least, a container can be
// made with [SERVICE-1].
func TestLeastOfAService(t *testing.T) {
	for what, least := range map[string][2]uint64{
		"processor time": {lease.MinMilliCPU, container.MinMilliCPU},
		"memory":         {lease.MinMemoryBytes, container.MinMemory},
		"disk":           {lease.MinDiskBytes, container.MinDisk},
	} {
		if least[0] < least[1] {
			t.Errorf("%s: a lease has at least %d, a container %d", what, least[0], least[1])
		}
	}
}
