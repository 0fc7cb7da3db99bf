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
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

// listenAgain is the address at which a restarted provider is found.
func (w *world) listenAgain() string { return w.hosts[1].Addrs()[0].String() }

func TestTenantStopsPaying(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.patient()
	r.Limits.Credit = 10 * unitsPerSecond // suspended soon
	id := w.create(r)
	w.until("an interval is paid", func() bool { v, _ := w.provider.Lease(id); return v.Paid > 0 })
	w.bank.Refuse(true)
	w.until("the provider froze the workload", func() bool { v, _ := w.provider.Lease(id); return v.Phase == lease.Suspended })
	_, v := w.views(id)
	if v.Exposure.Credit != v.Terms.Limits.Credit || v.Max.Credit > v.Terms.Limits.Credit {
		t.Errorf("got %d units of unpaid service, at most %d, want exactly the credit of %d", v.Exposure.Credit, v.Max.Credit, v.Terms.Limits.Credit)
	}
	if st, err := w.workload.Status(t.Context(), id); err != nil || st != peer.WorkloadFrozen {
		t.Errorf("got status %d, %v, want frozen", st, err)
	}
	w.bank.Refuse(false)
	w.until("the workload goes on after payment", func() bool { v, _ := w.provider.Lease(id); return v.Phase == lease.Active })
	w.bank.Refuse(true)
	w.until("it is frozen again", func() bool { v, _ := w.provider.Lease(id); return v.Phase == lease.Suspended && v.Due > v.Paid })
	w.clock.skip(2 * time.Duration(r.GraceSeconds) * time.Second)
	w.until("the grace ends the lease", func() bool { v, _ := w.provider.Lease(id); return v.Phase >= lease.Closing })
	w.until("both closed", func() bool { a, b := w.views(id); return a.Phase == lease.Closed && b.Phase == lease.Closed })
	_, v = w.views(id)
	if v.Record.Reason != lease.ReasonUnpaid || v.Max.Credit > v.Terms.Limits.Credit {
		t.Errorf("got reason %q and %d units at most at risk, want unpaid within %d", v.Record.Reason, v.Max.Credit, v.Terms.Limits.Credit)
	}
}

func TestProviderServesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.request()
	r.Limits.Credit, r.GraceSeconds, r.Manifest.Probe.TimeoutSeconds = 15*unitsPerSecond, 300, 3 // a slow machine alone shall not end it
	id := w.create(r)
	w.until("two intervals are paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid >= 2*unitsPerSecond })
	if err := w.workload.SetFrozen(id, true); err != nil {
		t.Fatal(err)
	}
	before, _ := w.views(id)
	w.until("the tenant disputes all of it", func() bool {
		_, p := w.views(id)
		return p.Forfeited > 0 && p.Phase == lease.Suspended && p.Due <= p.Paid
	})
	w.clock.skip(2 * time.Duration(r.GraceSeconds) * time.Second)
	w.until("the lease ends", func() bool { a, b := w.views(id); return a.Phase == lease.Closed && b.Phase == lease.Closed })
	a, b := w.views(id)
	if a.Paid > before.Paid+2*unitsPerSecond {
		t.Errorf("got %d units paid, %d before the freeze, want no more than what was under way", a.Paid, before.Paid)
	}
	if a.Record.Reason != lease.ReasonDisputed || b.Max.Credit > b.Terms.Limits.Credit {
		t.Errorf("got reason %q, at most %d units at risk, want disputed within the credit", a.Record.Reason, b.Max.Credit)
	}
	if got, _ := w.bank.Settled(a.Terms.Channel); got != a.Paid {
		t.Errorf("the chain paid %d units, the vouchers %d", got, a.Paid)
	}
}

func TestDisputedGlitchHeals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.request()
	r.Limits.Credit, r.GraceSeconds, r.Manifest.Probe.TimeoutSeconds = 20*unitsPerSecond, 300, 3
	id := w.create(r)
	w.until("an interval is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid > 0 })
	if err := w.workload.SetFrozen(id, true); err != nil {
		t.Fatal(err)
	}
	w.until("the tenant disputes", func() bool { _, p := w.views(id); return p.Forfeited > 0 })
	if err := w.workload.SetFrozen(id, false); err != nil {
		t.Fatal(err)
	}
	paid, _ := w.views(id)
	w.until("payment goes on", func() bool { v, _ := w.tenant.Lease(id); return v.Paid >= paid.Paid+2*unitsPerSecond })
	tenant, provider := w.closeAndCheck(id)
	if tenant.Record.Due != tenant.Record.Paid || provider.Forfeited == 0 {
		t.Errorf("got %d paid of %d due and %d s forfeited, want equal amounts, the glitch unpaid", tenant.Record.Paid, tenant.Record.Due, provider.Forfeited)
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.patient())
	w.until("an interval is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid > 0 })
	again := w.listenAgain()
	w.stops[1]()
	w.startProvider(again)
	_, p := w.views(id)
	w.until("the provider is paid after its restart", func() bool { v, _ := w.provider.Lease(id); return v.Paid >= p.Paid+2*unitsPerSecond })
	w.stops[0]()
	w.startTenant()
	v, _ := w.views(id)
	w.until("the tenant pays after its restart", func() bool { now, _ := w.tenant.Lease(id); return now.Paid >= v.Paid+2*unitsPerSecond })
	w.closeAndCheck(id)
	if starts, _ := w.workload.Counts(); starts != 1 {
		t.Errorf("got %d workloads started, want 1", starts)
	}
}

// TestCrashes kills one side at every write of a short lease: its store takes
// n more writes and then none, as if the process were gone; what the other
// side and the channels know stays. After the restart both sides have the same
// lease or none, and the money is that of the record.
func TestCrashes(t *testing.T) {
	for side, name := range []string{"tenant", "provider"} {
		t.Run(name, func(t *testing.T) {
			for n := range 14 {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					t.Parallel()
					crashOnce(t, side, n)
				})
			}
		})
	}
}

func crashOnce(t *testing.T, side, n int) {
	w := newWorld(t)
	again := w.listenAgain()
	w.stores[side].DownAfter(n)
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	id, err := w.tenant.Create(ctx, w.patient())
	if err == nil {
		err = w.tenant.WaitActive(ctx, id)
	}
	if err == nil {
		<-ctx.Done() // two intervals, if it goes on
	}
	w.stops[side]()
	w.stores[side].Down(false)
	if side == 0 {
		w.startTenant()
	} else {
		w.startProvider(again)
	}
	if len(w.tenant.List()) == 0 {
		if len(w.provider.List()) != 0 {
			t.Fatal("the provider has a lease that the tenant does not know")
		}
		return
	}
	id = w.tenant.List()[0].ID
	w.until("the tenant has an answer", func() bool { v, _ := w.tenant.Lease(id); return v.Phase != lease.Proposed })
	if v, _ := w.tenant.Lease(id); v.Phase == lease.Refused {
		if len(w.provider.List()) != 0 {
			t.Fatal("the provider has a lease that the tenant believes refused")
		}
		return
	}
	w.until("the lease is active on both sides", func() bool {
		a, b := w.views(id)
		return a.Phase == lease.Active && b.Phase == lease.Active
	})
	w.until("something is paid", func() bool { _, b := w.views(id); return b.Paid > 0 })
	a, b := w.closeAndCheck(id)
	if a.Record.Paid != a.Record.Due || a.Paid != b.Paid {
		t.Errorf("got %d paid of %d due, vouchers of %d and %d, want all equal", a.Record.Paid, a.Record.Due, a.Paid, b.Paid)
	}
	if starts, _ := w.workload.Counts(); starts != 1 {
		t.Errorf("got %d workloads started, want 1", starts)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		name   string
		change func(*peer.Request)
		want   lease.Code
	}{
		{"too dear", func(r *peer.Request) { r.MaxRate-- }, lease.CodePrice},
		{"too large", func(r *peer.Request) { r.Manifest.Services[0].Resources.MilliCPU = 1 << 20 }, lease.CodeCapacity},
		{"no credit", func(r *peer.Request) { r.Limits.Credit = 1 }, lease.CodeLimits},
		{"channel too large", func(r *peer.Request) { r.Capacity = 1 << 41 }, lease.CodeChannel},
		{"a class that the offer lacks", func(r *peer.Request) { r.Manifest.Demand("gvisor") }, lease.CodeOffer},
		{"bad manifest", func(r *peer.Request) { r.Manifest.Services[0].Image = "" }, lease.CodeManifest},
	} {
		r := w.request()
		c.change(&r)
		if _, err := w.tenant.Create(t.Context(), r); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	w.workload.Fail(errors.New("no such image"))
	id, err := w.tenant.Create(t.Context(), w.patient())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.tenant.WaitActive(t.Context(), id); err == nil {
		t.Error("got an active lease, want the workload's failure")
	}
	w.until("both closed", func() bool { a, b := w.views(id); return a.Phase == lease.Closed && b.Phase == lease.Closed })
	if v, _ := w.views(id); v.Record.Reason != lease.ReasonWorkload || v.Record.Paid != 0 {
		t.Errorf("got %q and %d units, want workload and nothing paid", v.Record.Reason, v.Record.Paid)
	}
	var none pktcloud.ID
	if err := w.tenant.Close(t.Context(), none); !errors.Is(err, lease.CodeUnknown) {
		t.Errorf("got %v, want unknown", err)
	}
}

// TestFaultReachesTheTenant shows that the tenant learns, signed, why its
// workload did not start, also after a restart, and nothing of the provider's
// machine beside that [LEASE-22] [LEASE-24].
func TestFaultReachesTheTenant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
		want lease.Fault
	}{
		{"explained", fmt.Errorf("starting: %w", lease.Faultf(lease.FaultProgram, "nosuch\x1bprog: no such file")), lease.Fault{Code: lease.FaultProgram, Text: "nosuch?prog: no such file"}},
		{"a secret", errors.New("/home/owner/.ssh is full"), lease.Fault{Code: lease.FaultMachine, Text: "the provider's machine could not run it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.workload.Fail(c.err)
			id, err := w.tenant.Create(t.Context(), w.patient())
			if err != nil {
				t.Fatal(err)
			}
			if err := w.tenant.WaitActive(t.Context(), id); !errors.Is(err, c.want) {
				t.Errorf("got %v, want the fault", err)
			}
			w.until("both closed", func() bool { a, b := w.views(id); return a.Phase == lease.Closed && b.Phase == lease.Closed })
			w.stops[0]()
			w.startTenant()
			tenant, provider := w.views(id)
			if tenant.Fault != c.want || provider.Fault != c.want {
				t.Errorf("got %+v at the tenant, %+v at the provider, want %+v", tenant.Fault, provider.Fault, c.want)
			}
			if !tenant.Countersigned || tenant.Record.Fault() != c.want || tenant.Paid != 0 {
				t.Errorf("got a record with %+v, countersigned %v, %d units paid, want the fault, both signatures, nothing paid",
					tenant.Record.Fault(), tenant.Countersigned, tenant.Paid)
			}
		})
	}
}

// TestSilentProvider shows that a provider which takes a commit and does not
// answer holds Create up no longer than the tenant's patience, and that the
// lease comes to be without Create, also after a restart.
func TestSilentProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stops[0]()
	w.patience = 200 * time.Millisecond
	w.startTenant()
	w.stores[1].Down(true) // it can promise nothing
	ctx, cancel := context.WithTimeout(t.Context(), peer.DefaultPatience*3/4)
	defer cancel()
	id, err := w.tenant.Create(ctx, w.patient())
	if !errors.Is(err, peer.ErrUnanswered) {
		t.Fatalf("got %v, want no answer", err)
	}
	w.stops[0]()
	w.startTenant()
	if v, ok := w.tenant.Lease(id); !ok || v.Phase != lease.Proposed {
		t.Fatalf("got %s, %v after a restart, want the lease, proposed", v.Phase, ok)
	}
	w.stores[1].Down(false)
	w.until("the lease is active", func() bool { v, _ := w.tenant.Lease(id); return v.Phase == lease.Active })
	w.closeAndCheck(id)
}

func TestWorkloadEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.patient())
	w.until("an interval is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid > 0 })
	w.workload.Kill(id)
	w.until("both closed", func() bool { a, b := w.views(id); return a.Phase == lease.Closed && b.Phase == lease.Closed })
	a, b := w.views(id)
	if a.Record.Reason != lease.ReasonWorkload || !a.Countersigned || !b.Countersigned || a.Fault.Code != lease.FaultExit {
		t.Errorf("got %q with %+v, countersigned %v and %v, want workload by its exit, both", a.Record.Reason, a.Fault, a.Countersigned, b.Countersigned)
	}
}

func TestProviderGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.patient()
	r.GraceSeconds = 10 // after which this side signs alone
	id := w.create(r)
	w.until("an interval is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid > 0 })
	w.stops[1]()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.tenant.Close(ctx, id); err != nil {
		t.Fatal(err)
	}
	v, _ := w.tenant.Lease(id)
	if v.Record.Reason != lease.ReasonGone || v.Countersigned || v.Record.Statement.IsZero() {
		t.Errorf("got %q, countersigned %v, want a record of this side alone with its evidence", v.Record.Reason, v.Countersigned)
	}
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.patient()
	r.Limits.Credit = 10 * unitsPerSecond // suspended soon
	id := w.create(r)
	tenant, stranger := w.devices[0].Public(), w.devices[1].Public()
	for _, c := range []struct {
		name    string
		id      pktcloud.ID
		device  pktcloud.PublicKey
		command session.Command
		want    lease.Code
	}{
		{"the tenant", id, tenant, session.CommandExec, ""},
		{"a stranger", id, stranger, session.CommandExec, lease.CodeUnknown},
		{"another lease", pktcloud.ID{1}, tenant, session.CommandExec, lease.CodeUnknown},
	} {
		if c.want == "" { // unless a slow machine has suspended it for a moment
			w.until(c.name, func() bool { return w.provider.Authorize(t.Context(), c.id, c.device, c.command) == nil })
			continue
		}
		if err := w.provider.Authorize(t.Context(), c.id, c.device, c.command); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	w.bank.Refuse(true)
	w.until("the lease is suspended", func() bool { v, _ := w.provider.Lease(id); return v.Phase == lease.Suspended })
	if err := w.provider.Authorize(t.Context(), id, tenant, session.CommandLogs); err != nil {
		t.Errorf("got %v for the logs of a suspended lease, want nil", err)
	}
	if err := w.provider.Authorize(t.Context(), id, tenant, session.CommandExec); !errors.Is(err, lease.CodePhase) {
		t.Errorf("got %v for exec in a suspended lease, want phase", err)
	}
}

// TestRuntimeOutOfSight shows that a provider which cannot ask its runtime, or
// find a workload again after a restart, does not end the lease [LEASE-15].
func TestRuntimeOutOfSight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.patient())
	w.until("an interval is paid", func() bool { v, _ := w.tenant.Lease(id); return v.Paid > 0 })
	again := w.listenAgain()
	w.stops[1]()
	w.workload.Fail(errors.New("the runtime does not answer"))
	w.startProvider(again)
	w.until("the provider has tried", func() bool {
		v, _ := w.provider.Lease(id)
		return slices.ContainsFunc(v.Events, func(e peer.Event) bool { return e.Kind == "start" && e.Text != "the workload runs" })
	})
	v, _ := w.provider.Lease(id)
	if v.Phase != lease.Active {
		t.Errorf("got %s, want active", v.Phase)
	}
	w.workload.Fail(nil)
	paid := v.Paid
	w.until("the provider is paid again", func() bool { v, _ := w.provider.Lease(id); return v.Paid > paid })
	w.closeAndCheck(id)
}

// TestClosedWhileStarting: a workload that comes up after the end of its lease is
// stopped again [LEASE-40].
func TestClosedWhileStarting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := w.workload.Hold()
	defer release()
	id, err := w.tenant.Create(t.Context(), w.request())
	if err != nil {
		t.Fatal(err)
	}
	w.until("the provider starts it", func() bool { v, _ := w.provider.Lease(id); return v.Phase == lease.Starting })
	if err := w.tenant.Close(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.until("both closed", func() bool { a, b := w.views(id); return a.Phase == lease.Closed && b.Phase == lease.Closed })
	if starts, _ := w.workload.Counts(); starts != 0 {
		t.Fatal("this is no test: it was started before the end")
	}
	release()
	w.until("it came up, and was stopped", func() bool {
		starts, _ := w.workload.Counts()
		st, err := w.workload.Status(t.Context(), id)
		return starts == 1 && err == nil && st == peer.WorkloadEnded
	})
}
