//go:build system

package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// rollable is a lease whose channel is open, and paid.
func (w *world) rollable() service.Lease {
	w.t.Helper()
	l := w.rent()
	w.paidIntervals(l.ID, 1)
	w.openChannel(l.ID, "")
	return l
}

// openChannel waits until a lease is paid over an open channel other than one.
func (w *world) openChannel(id pktcloud.ID, other string) service.Lease {
	w.t.Helper()
	var l service.Lease
	eventually(w.t, "the lease is paid over an open channel", func() (ok bool, err error) {
		w.mine(1)
		if l, err = w.tenant.client().Lease(w.t.Context(), id.String()); err != nil {
			return false, err
		}
		theirs, err := w.provider.client().Lease(w.t.Context(), id.String())
		return l.Channel.Phase == "open" && l.Channel.ID.String() != other && theirs.Channel == l.Channel, err
	})
	return l
}

// TestRolledLease: the channel of a lease that runs gets money and time twice, by
// the command, while its container runs and is paid. The chain pays what was owed,
// to the unit, and the audit follows it through all three channels.
func TestRolledLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{})
	l := w.rollable()
	first := l.Channel
	if first.Phase != "open" {
		first = w.openChannel(l.ID, "").Channel
	}
	at, fees := first, pktcloud.Amount(0)
	for n := range uint64(2) {
		args := []string{"channel", "roll", "--dir", w.tenant.dir, "--json", at.ID.String(), "--add", "0.01", "--extend", "2h"}
		var plan, done service.Roll
		for _, step := range []struct {
			into *service.Roll
			flag string
		}{{&plan, "--plan"}, {&done, "--yes"}} {
			if err := json.Unmarshal([]byte(w.run(append(args, step.flag)...)), step.into); err != nil {
				t.Fatal(err)
			}
		}
		if plan.Into != "" || plan.Fee == 0 || done.Into == "" || done.Capacity != plan.Capacity || done.Added != pktcloud.UnitsPerPKT/100 || done.Expiry != plan.Expiry {
			t.Fatalf("planned %+v and got %+v", plan, done)
		}
		fees += done.Fee
		before, err := w.tenant.client().Lease(t.Context(), l.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := w.tenant.client().RollChannel(t.Context(), at.ID.String(), service.RollRequest{Add: 1 << 30, Plan: true}); !errors.Is(err, service.CodeConflict) {
			t.Errorf("a second addition during the first: got %+v, %v, want it refused", again, err)
		}
		w.paidIntervals(l.ID, before.Intervals+2) // no block yet: over both
		for name, p := range map[string]*party{"tenant": w.tenant, "provider": w.provider} {
			v, err := p.client().Channel(t.Context(), at.ID.String())
			if err != nil || v.Phase != "rolling" || v.Into != done.Into {
				t.Errorf("the %s has the channel %s as %s into %s, %v", name, at.Phase, v.Phase, v.Into, err)
			}
			to, err := p.client().Channel(t.Context(), done.Into)
			if err != nil || v.Left != 0 || to.Left == 0 || to.Left >= done.Capacity {
				t.Errorf("the %s is told that %s and %s are left, %v; want it of the successor alone", name, v.Left, to.Left, err)
			}
		}
		if b, err := w.tenant.client().WalletBalance(t.Context()); err != nil || b.Reserved >= at.Capacity+done.Capacity {
			t.Errorf("%s are reserved, %v, want one channel's %s and not the other's besides", b.Reserved, err, done.Capacity)
		}
		next := w.openChannel(l.ID, at.ID.String())
		if next.Channel.ID.String() != done.Into || next.Channel.Capacity != at.Capacity+pktcloud.UnitsPerPKT/100 {
			t.Fatalf("the lease is paid over %s of %s, want %s", next.Channel.ID, next.Channel.Capacity, done.Into)
		}
		w.paidIntervals(l.ID, next.Intervals+2) // over the new one alone
		if l = next; l.Phase != "active" {
			t.Fatalf("roll %d: the lease is %s", n, l.Phase)
		}
		at = next.Channel
	}
	closed := w.closeLease(l.ID)
	for name, p := range map[string]*party{"tenant": w.tenant, "provider": w.provider} {
		eventually(t, "the channels of the "+name+" are at rest", func() (bool, error) {
			w.mine(1)
			all, err := p.client().Channels(t.Context())
			if err == nil && (len(all) != 3 || all[0].Phase != "closed" || all[1].Phase != "rolled" || all[2].Phase != "rolled") {
				err = fmt.Errorf("got %+v", all)
			}
			return err == nil, err
		})
	}
	r := w.clean()
	if len(r.Leases) != 1 {
		t.Fatalf("the audit knows %d leases, want 1", len(r.Leases))
	}
	if a := r.Leases[0]; a.Paid == 0 || a.Paid != a.Claimed || a.Due != a.Paid || !a.Settled || a.Paid != uint64(closed.Paid) {
		t.Errorf("got due %d, paid %d, claimed %d, settled %v; want %d of all", a.Due, a.Paid, a.Claimed, a.Settled, uint64(closed.Paid))
	}
	b, err := w.provider.client().WalletBalance(t.Context())
	if err != nil || b.Spendable+b.Unconfirmed != closed.Paid {
		t.Errorf("the provider's wallet has %s, %v, want %s", b.Spendable+b.Unconfirmed, err, closed.Paid)
	}
	moves, err := w.tenant.client().WalletHistory(t.Context(), service.HistoryQuery{})
	added, shown := 0, pktcloud.Amount(0)
	for _, m := range moves {
		if m.Note == "Money or time added to the channel of a lease." && m.Sent == pktcloud.UnitsPerPKT/100 {
			added++
			shown += m.Fee
		}
	}
	if err != nil || added != 2 || shown != fees {
		t.Errorf("the history has %d additions of what was added, at fees of %s, %v, want 2 at %s", added, shown, err, fees)
	}
	if got := r.Leases[0].Fees; got <= uint64(fees) {
		t.Errorf("the audit has fees of %d units, want the rolls' %d and those of the opening and the end", got, uint64(fees))
	}
}

// TestRollThroughDeath kills one side, with SIGKILL, around each write and each send
// of a roll in turn, while a lease is paid. Each time the channel rolls or stays as
// it was, the lease goes on, and at the end the audit is clean.
func TestRollThroughDeath(t *testing.T) {
	t.Parallel()
	for role, points := range map[string][]string{
		"tenant":   {"roll begins:1", "roll begins:2", "roll ask:1", "roll ask:2", "roll answered:1", "roll answered:2"},
		"provider": {"roll begins:1", "roll begins:2", "roll answer:1", "roll answer:2"},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldConfig{tags: "crashpoints"})
			victim := w.provider
			if role == "tenant" {
				victim = w.tenant
			}
			l := w.openChannel(w.rollable().ID, "")
			for _, point := range points {
				at := l.Channel.ID.String()
				victim.stop(t)
				victim.start("PKTCLOUD_CRASH_AT=" + point)
				eventually(t, "a roll is offered, and "+point+" reached", func() (bool, error) {
					_, err := w.tenant.client().RollChannel(t.Context(), at, service.RollRequest{Add: pktcloud.UnitsPerPKT / 1000, MaxFee: 1 << 20})
					if victim.dead() || until(victim, 500*time.Millisecond, func() bool { return false }) || victim.dead() {
						return true, nil
					}
					return false, err
				})
				victim.start()
				eventually(t, "the channel rolls after "+point, func() (bool, error) {
					now, err := w.tenant.client().Lease(t.Context(), l.ID.String())
					if err != nil || now.Channel.ID.String() != at {
						return err == nil, err
					}
					_, err = w.tenant.client().RollChannel(t.Context(), at, service.RollRequest{Add: pktcloud.UnitsPerPKT / 1000, MaxFee: 1 << 20})
					return false, err
				})
				l = w.openChannel(l.ID, at)
				w.paidIntervals(l.ID, l.Intervals+2)
			}
			if l.Phase != "active" {
				t.Errorf("the lease is %s", l.Phase)
			}
			w.closeLease(l.ID)
			r := w.clean()
			if len(r.Leases) != 1 || r.Leases[0].Paid == 0 || r.Leases[0].Paid != r.Leases[0].Claimed || !r.Leases[0].Settled {
				t.Errorf("got %+v, want one lease that is paid to the unit", r.Leases)
			}
		})
	}
}
