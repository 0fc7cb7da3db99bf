//go:build system

package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// crashIntervals is how many statements each life of TestCrashPoints pays.
const crashIntervals = 2

// TestCrashPoints kills one side, with SIGKILL, at each of its journal writes
// and each of its sends in turn: before and after. Afterwards both sides have
// the same lease or none, it goes on and is closed, and the audit finds that
// nobody paid or charged twice.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"provider", "tenant"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldConfig{tags: "crashpoints"})
			victim := w.provider
			if role == "tenant" {
				victim = w.tenant
			}
			kinds := w.pointKinds(victim)
			killed := map[string]int{}
			// A life has a point fewer or more than another: a block may come
			// between. So the numbers go on until two lives in a row end alive.
			n := 0
			for alive := 0; alive < 2 && n < 200; {
				n++
				kind, hit := w.dieAt(victim, strconv.Itoa(n))
				if !hit {
					alive++
					continue
				}
				alive = 0
				killed[kind]++
			}
			missed := func() (missed []string) {
				for kind := range kinds {
					if killed[kind] == 0 {
						missed = append(missed, kind)
					}
				}
				return missed
			}
			// A kind with two points may slip through: each of its own, then.
			for _, kind := range missed() {
				for i := range kinds[kind] {
					if _, hit := w.dieAt(victim, fmt.Sprintf("%s:%d", kind, i+1)); hit {
						killed[kind]++
					}
				}
			}
			w.clean()
			t.Logf("the %s was killed at each of %d points: %v", role, n-2, killed)
			if m := missed(); len(m) > 0 {
				t.Errorf("never killed at %q, though each life passes them", m)
			}
		})
	}
}

// pointKinds lives one life and returns how many points of which kind it has.
func (w *world) pointKinds(victim *party) map[string]int {
	w.t.Helper()
	path := filepath.Join(w.dir, "points")
	victim.stop(w.t)
	victim.start("PKTCLOUD_CRASH_LOG=" + path)
	w.life()
	victim.stop(w.t)
	kinds := map[string]int{}
	for _, kind := range w.points(path) {
		kinds[kind]++
	}
	w.t.Logf("points of the %s by kind: %v", victim.name, kinds)
	return kinds
}

// points reads the kinds of the points that a process passed, in order.
func (w *world) points(path string) (kinds []string) {
	w.t.Helper()
	log, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		_, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		kinds = append(kinds, kind)
	}
	return kinds
}

// life agrees a lease, pays a few intervals and closes it.
func (w *world) life() {
	w.t.Helper()
	l := w.rent()
	w.paidIntervals(l.ID, crashIntervals)
	w.closeLease(l.ID)
}

// dieAt lives a life in which the victim dies at a point, the nth of all or of
// its kind, and sees to it that all ends well. It reports whether the point was
// reached, and its kind.
func (w *world) dieAt(victim *party, at string) (kind string, hit bool) {
	w.t.Helper()
	path := filepath.Join(w.dir, "points-"+at)
	w.t.Logf("point %s, %s", at, time.Since(w.began).Round(time.Second))
	if err := victim.tryStart("PKTCLOUD_CRASH_AT="+at, "PKTCLOUD_CRASH_LOG="+path); err == nil {
		for range 5 { // a tenant may have to try again to reach a provider that was restarted
			if w.tryLife(victim) || victim.dead() {
				break
			}
		}
		until(victim, 3*time.Second, func() bool { return false }) // it may be dying just now
	}
	w.settleAll(at, func() {
		if victim.process == nil || victim.dead() {
			hit = true
			victim.start()
		}
	})
	if victim.stopOrDie(w.t) {
		hit = true // it was at rest for a lease, and wrote once more
	}
	if passed := w.points(path); hit && len(passed) > 0 {
		kind = passed[len(passed)-1]
	}
	return kind, hit
}

// stopOrDie is stop for a process that may die at any moment. It reports
// whether it died.
func (p *process) stopOrDie(t *testing.T) bool {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone, which is no fault here
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the process did not stop within %s of SIGTERM\n%s", patience, p.log)
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// tryLife is life for a world in which one side dies on the way: every call
// may fail, and then it ends. It reports whether it was lived to its end.
func (w *world) tryLife(victim *party) bool {
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	go func(done <-chan struct{}) {
		<-done
		cancel() // a tenant would wait for the dead provider's answer
	}(victim.done)
	publish := func() (service.Offer, error) {
		if victim.dead() {
			return service.Offer{}, errDied
		}
		return w.provider.client().PublishOffer(ctx, service.OfferSpec{Region: "DE", CPUPerCoreHour: 20_000_000, MemoryPerGiBHour: 10_000_000})
	}
	offer, err := publish()
	if err != nil {
		return false
	}
	tenant := w.tenant.client()
	var lease service.Lease
	if !until(victim, 30*time.Second, func() bool {
		_, err := tenant.Offer(ctx, offer.ID, service.Resources{})
		return err == nil
	}) {
		w.t.Log("the offer did not reach the tenant")
		return false
	}
	if lease, err = tenant.CreateLease(ctx, w.request(offer.ID)); err != nil {
		w.t.Logf("no lease: %v", err)
		return false
	}
	if !until(victim, 30*time.Second, func() bool {
		l, err := tenant.Lease(ctx, lease.ID.String())
		return err == nil && l.Intervals > crashIntervals && l.Paid > 0 && l.Paid == l.Due
	}) {
		w.t.Log("the intervals were not paid")
		return false
	}
	tenant.CloseLease(ctx, lease.ID.String())
	return until(victim, 20*time.Second, func() bool {
		w.mine(1)
		time.Sleep(300 * time.Millisecond) // the fewer blocks the better
		l, err := tenant.Lease(ctx, lease.ID.String())
		return err == nil && l.Channel.Closed > 0
	})
}

var errDied = errors.New("the process died")

// until polls until ok, the victim's death, or the deadline.
func until(victim *party, within time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline) && !victim.dead(); time.Sleep(30 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// final are the phases in which a lease is over.
var final = map[string]bool{"closed": true, "refused": true, "failed": true}

// settleAll closes what is open, waits until both sides agree that all is
// over, and that they mean the same. It revives whoever is dead.
func (w *world) settleAll(at string, revive func()) {
	w.t.Helper()
	ctx := w.t.Context()
	var mined time.Time
	var mine, theirs []service.Lease
	eventually(w.t, fmt.Sprintf("after death at point %s both sides end the lease", at), func() (bool, error) {
		revive()
		tenant, provider := w.tenant.client(), w.provider.client()
		if time.Since(mined) > 500*time.Millisecond {
			mined = time.Now()
			w.mine(1) // the next life needs the change of this one
		}
		open := 0
		var err error
		if mine, err = tenant.Leases(ctx); err != nil {
			return false, err
		}
		for _, l := range mine {
			if !final[l.Phase] {
				open++
				if l.Phase == "active" {
					tenant.CloseLease(ctx, l.ID.String())
				}
			}
		}
		theirs, err = provider.Leases(ctx)
		for _, l := range theirs {
			if !final[l.Phase] {
				open++
			}
		}
		if open > 0 {
			err = errors.Join(err, fmt.Errorf("%d open: %s", open, phases(slices.Concat(mine, theirs))))
		}
		return open == 0 && err == nil, err
	})
	w.sameEnds(at, mine, theirs)
}

func phases(leases []service.Lease) string {
	var b strings.Builder
	for _, l := range leases {
		if !final[l.Phase] {
			fmt.Fprintf(&b, "%s %s %s (%s); ", l.Role, l.Label, l.Phase, l.Problem)
		}
	}
	return b.String()
}

// sameEnds compares the two sides: every lease of the provider is the
// tenant's too, with the same sums.
func (w *world) sameEnds(at string, mine, theirs []service.Lease) {
	w.t.Helper()
	byID := map[pktcloud.ID]service.Lease{}
	for _, l := range mine {
		byID[l.ID] = l
	}
	for _, p := range theirs {
		t, ok := byID[p.ID]
		if !ok {
			w.t.Errorf("after death at point %s: the tenant does not know lease %s", at, p.ID)
			continue
		}
		if p.Phase == "closed" && t.Phase == "closed" && p.Paid != t.Paid {
			w.t.Errorf("after death at point %s: lease %s is paid %d units for the provider and %d for the tenant", at, p.ID, uint64(p.Paid), uint64(t.Paid))
		}
	}
}
