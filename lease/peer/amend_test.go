package peer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/leasetest"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
)

// resized is the manifest of the worlds with so many thousandths of a core.
func (w *world) resized(milli uint64) lease.Manifest {
	m := w.patient().Manifest
	m.Services = slices.Clone(m.Services)
	m.Services[0].Resources.MilliCPU = milli
	return m
}

// amendment is a request for so many thousandths of a core.
func (w *world) amendment(milli uint64) peer.AmendRequest {
	return peer.AmendRequest{Manifest: w.resized(milli), MaxRate: 4 * unitsPerSecond * 3600}
}

func (w *world) amend(id pktcloud.ID, r peer.AmendRequest) (peer.View, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return w.tenant.Amend(ctx, id, r)
}

// journaled are the amendments in a side's journal, by revision.
func (w *world) journaled(side int, id pktcloud.ID) []lease.Countersigned {
	w.t.Helper()
	var all []lease.Countersigned
	err := w.stores[side].Load(context.Background(), "lease/"+id.Hex()+"/amendment/", func(_ string, value []byte) error {
		c, err := lease.ParseCountersigned(value)
		all = append(all, c)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// checkAmended wants both sides to stand at a revision with so much processor,
// the machine too, and to agree on money and journal.
func (w *world) checkAmended(id pktcloud.ID, revision, milli uint64) {
	w.t.Helper()
	a, b := w.views(id)
	for name, v := range map[string]peer.View{"tenant": a, "provider": b} {
		if v.Revision != revision || v.Terms.Resources.MilliCPU != milli || v.Manifest.Services[0].Resources.MilliCPU != milli || v.Amending != nil {
			w.t.Errorf("%s: got revision %d with %d milli of %d in the manifest, amending %v, want %d with %d",
				name, v.Revision, v.Terms.Resources.MilliCPU, v.Manifest.Services[0].Resources.MilliCPU, v.Amending, revision, milli)
		}
		if want := pktcloud.Rate(milli * unitsPerSecond * 3600 / 1000); v.Terms.Rate != want {
			w.t.Errorf("%s: got %d units an hour, want %d", name, v.Terms.Rate, want)
		}
	}
	if got := w.workload.Sizes(id).Services[0].Resources.MilliCPU; got != milli {
		w.t.Errorf("got %d milli of the machine, want %d", got, milli)
	}
	mine, theirs := w.journaled(0, id), w.journaled(1, id)
	if len(mine) != int(revision) || fmt.Sprint(mine) != fmt.Sprint(theirs) {
		w.t.Errorf("got %d amendments in the tenant's journal and %d in the provider's, want the same %d", len(mine), len(theirs), revision)
	}
}

// TestAmend grows and shrinks a lease that runs, and makes it longer: nothing is
// started again, and what is due in the end is that of the segments.
func TestAmend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.patient())
	w.until("an interval is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid > 0 })
	plan, err := w.tenant.PlanAmendment(t.Context(), id, w.amendment(2000))
	if err != nil || plan.Rate != 2*unitsPerSecond*3600 || plan.Revision != 1 {
		t.Errorf("got %+v, %v for a plan, want twice the rate", plan, err)
	}
	w.checkAmended(id, 0, 1000) // a plan changes nothing
	if _, err := w.amend(id, w.amendment(2000)); err != nil {
		t.Fatal(err)
	}
	w.checkAmended(id, 1, 2000)
	paid, _ := w.views(id)
	w.until("the new price is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid >= paid.Paid+4*unitsPerSecond })
	again := w.listenAgain()
	w.stops[1]()
	w.startProvider(again)
	w.stops[0]()
	w.startTenant()
	w.checkAmended(id, 1, 2000) // both have it from their journals
	limits := lease.Limits{Credit: 50 * unitsPerSecond, Unconfirmed: 1 << 20}
	w.until("the tenant amends after the restarts", func() bool {
		_, err := w.amend(id, peer.AmendRequest{TermSeconds: 900, Limits: &limits, MaxRate: 1 << 40})
		return err == nil || !errors.Is(err, lease.CodePhase)
	})
	w.checkAmended(id, 2, 2000)
	less := w.amendment(500)
	less.Limits = &lease.Limits{Credit: 20 * unitsPerSecond, Unconfirmed: 1 << 20}
	if _, err := w.amend(id, less); err != nil {
		t.Fatal(err)
	}
	w.checkAmended(id, 3, 500)
	a, b := w.closeAndCheck(id)
	var want pktcloud.Due
	from, rate := uint64(0), pktcloud.Rate(unitsPerSecond*3600)
	for _, c := range w.journaled(1, id) {
		want, _ = want.Accrue(rate, c.Acceptance.Body.From-from)
		from, rate = c.Acceptance.Body.From, c.Amendment.Body.Rate
	}
	want, _ = want.Accrue(rate, a.Record.Second-from)
	if due, _ := want.Amount(); a.Record.Due != due || a.Record.Paid != due || b.Terms.TermSeconds != 900 {
		t.Errorf("got %d units paid of %d due, want %d", a.Record.Paid, a.Record.Due, due)
	}
	if starts, freezes := w.workload.Counts(); starts != 1 || freezes != 0 {
		t.Errorf("got %d starts and %d freezes, want 1 and 0", starts, freezes)
	}
}

// TestAmendRefused: whoever says no, everything is as it was, and the next one is
// taken.
func TestAmendRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.patient())
	w.until("the tenant has the statement", func() bool { a, b := w.views(id); return a.Phase == lease.Active && b.Phase == lease.Active })
	for _, c := range []struct {
		name string
		edit func(*peer.AmendRequest)
		want lease.Code
	}{
		{"nothing to change", func(r *peer.AmendRequest) { r.Manifest = lease.Manifest{} }, lease.CodeMalformed},
		{"too dear", func(r *peer.AmendRequest) { r.MaxRate = 2*unitsPerSecond*3600 - 1 }, lease.CodePrice},
		{"another image", func(r *peer.AmendRequest) { r.Manifest.Services[0].Image = "other" }, lease.CodeManifest},
		{"beyond the channel", func(r *peer.AmendRequest) { r.TermSeconds = 3600; r.Manifest = w.resized(8000); r.MaxRate = 1 << 40 }, lease.CodeChannel},
	} {
		r := w.amendment(2000)
		c.edit(&r)
		if _, err := w.amend(id, r); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	w.workload.OnResize(func(pktcloud.ID, lease.Manifest) error { return lease.Refusal(lease.CodeCapacity, "it does not fit") })
	if _, err := w.amend(id, w.amendment(2000)); !errors.Is(err, lease.CodeCapacity) {
		t.Errorf("got %v of a machine that refuses, want capacity", err)
	}
	w.checkAmended(id, 0, 1000)
	tries := 0
	w.workload.OnResize(func(pktcloud.ID, lease.Manifest) error {
		if tries++; tries < 3 {
			return errors.New("the machine does not say") // asked again
		}
		return nil
	})
	if _, err := w.amend(id, w.amendment(2000)); err != nil {
		t.Error(err)
	}
	w.checkAmended(id, 1, 2000)
	w.closeAndCheck(id)
}

// TestAmendCrashes kills one side at every write of an amendment; after the
// restart both stand at one revision, and the machine does too.
func TestAmendCrashes(t *testing.T) {
	for side, name := range []string{"tenant", "provider"} {
		t.Run(name, func(t *testing.T) {
			for n := range 4 {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					t.Parallel()
					amendCrash(t, side, n)
				})
			}
		})
	}
}

func amendCrash(t *testing.T, side, n int) {
	w := newWorld(t)
	again := w.listenAgain()
	r := w.patient()
	r.IntervalSeconds = 30 // few other writes
	id := w.create(r)
	w.until("both know that it runs", func() bool {
		a, b := w.views(id)
		return a.Phase == lease.Active && b.Phase == lease.Active && a.Sequence > 0
	})
	w.stores[side].DownAfter(n)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	w.tenant.Amend(ctx, id, w.amendment(2000)) // it may be cut off anywhere
	w.stops[side]()
	w.stores[side].Down(false)
	if side == 0 {
		w.startTenant()
	} else {
		w.startProvider(again)
	}
	w.until("nothing is under way", func() bool {
		a, b := w.views(id)
		return a.Amending == nil && b.Amending == nil && a.Revision == b.Revision && a.Connected
	})
	a, _ := w.views(id)
	w.checkAmended(id, a.Revision, 1000+1000*a.Revision)
	if a.Revision == 0 {
		w.until("it is amended then", func() bool {
			_, err := w.amend(id, w.amendment(2000))
			return err == nil
		})
		w.checkAmended(id, 1, 2000)
	}
	w.closeAndCheck(id)
}

// TestAmendSharedChannel: an amendment takes no money that is another lease's.
func TestAmendSharedChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.patient()
	r.Capacity = 2*600*unitsPerSecond + 700*unitsPerSecond // two leases, and a little more than a third
	id := w.create(r)
	w.until("both know of the funding", func() bool { a, b := w.views(id); return a.Phase >= lease.Funded && b.Phase >= lease.Funded })
	w.bank.Confirm(3)
	w.until("both see the depth", func() bool { a, b := w.views(id); return a.Confirmed && b.Confirmed })
	other := w.create(r)
	a, _ := w.views(id)
	if b, _ := w.views(other); a.Terms.Channel != b.Terms.Channel {
		t.Fatal("the second lease has a channel of its own")
	}
	if _, err := w.amend(id, w.amendment(3000)); !errors.Is(err, lease.CodeChannel) {
		t.Errorf("got %v for thrice the price, want a refusal of the channel", err)
	}
	if _, err := w.amend(id, w.amendment(2000)); err != nil {
		t.Error(err)
	}
	if _, err := w.amend(other, w.amendment(2000)); !errors.Is(err, lease.CodeChannel) {
		t.Errorf("got %v for what is left, want a refusal of the channel", err)
	}
	w.checkAmended(id, 1, 2000)
	w.checkAmended(other, 0, 1000)
	for _, l := range []pktcloud.ID{id, other} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := w.tenant.Close(ctx, l); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

var _ peer.Resizer = (*leasetest.Workload)(nil)
