package lease_test

import (
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/settle"
	"pgregory.net/rapid"
)

// shareTerms cost perSecond for term seconds, with something prepaid.
func shareTerms(term uint64, prepaid pktcloud.Amount) lease.Terms {
	t := draft(lease.Limits{Credit: 10 * perSecond, Prepaid: prepaid})
	t.Rate, t.TermSeconds = perSecond*3600, term
	return t
}

func voucherOf(entries ...settle.Entry) settle.Voucher {
	v := settle.Voucher{Entries: entries}
	for _, e := range entries {
		v.Total += e.Cumulative
	}
	return v
}

// TestShare shows [LEASE-26].
func TestShare(t *testing.T) {
	p := settle.Params{Capacity: 1_000_000, Reserve: 50_000, MinChange: 10_000}
	for _, c := range []struct {
		terms lease.Terms
		want  pktcloud.Amount
	}{
		{shareTerms(600, 0), 600 * perSecond},
		{shareTerms(600, 7), 600*perSecond + 7},
		{shareTerms(940, 0), 940_000},
		{shareTerms(941, 0), 940_000},
		{shareTerms(1<<40, 0), 940_000},
	} {
		if got := c.terms.Share(p); got != c.want {
			t.Errorf("a term of %d s and %d prepaid: got %d, want %d", c.terms.TermSeconds, c.terms.Limits.Prepaid, got, c.want)
		}
	}
	over := shareTerms(1<<62, 0)
	over.Rate = 1 << 62
	if got := over.Share(p); got != 0 {
		t.Errorf("terms that nothing can pay: got %d, want 0", got)
	}
}

// TestShareOfASuccessor shows [LEASE-31]: a lease may take what its channel's
// successor can pay, up to the price of its term, and no less than before.
func TestShareOfASuccessor(t *testing.T) {
	d := draft(usual)
	d.TermSeconds = 3000 // more than the channel pays for
	c := commitFor(d, capacity0)
	now := lease.Now{Unix: now0}
	tenant, _ := step0(lease.NewTenant(c, now))
	if _, _, err := tenant.Step(lease.Rolled{Successor: c.Params}, now); !errors.Is(err, lease.CodePhase) {
		t.Errorf("before it is agreed: got %v", err)
	}
	provider, _ := step0(lease.NewProvider(c, must(lease.SignTerms(providerDevice, c.Terms)), now))
	tenant = stepOK(t, tenant, lease.Received{Message: lease.Ack{Version: 1, Lease: tenant.Lease, Signature: provider.ProviderSig}}, now)
	for _, s := range []lease.State{tenant, provider} {
		for n, step := range []struct{ capacity, want pktcloud.Amount }{
			{capacity0 + 1_000, capacity0 + 1_000}, {capacity0 - 1_000, capacity0 + 1_000}, {1 << 40, 3000 * perSecond},
		} {
			p := c.Params
			p.Capacity = step.capacity
			s = stepOK(t, s, lease.Rolled{Successor: p}, now)
			if s.Spendable != step.want || s.Rolls != uint64(n+1) {
				t.Errorf("%s, a successor of %d units: got a share of %d after %d rolls, want %d", s.Role, step.capacity, s.Spendable, s.Rolls, step.want)
			}
		}
	}
}

// TestFits shows [LEASE-17]: what is left, to the unit.
func TestFits(t *testing.T) {
	p := settle.Params{Capacity: 1_000_000, Reserve: 50_000, MinChange: 10_000} // pays 940,000
	a, b, gone := pktcloud.ID{1}, pktcloud.ID{2}, pktcloud.ID{3}
	v := voucherOf(settle.Entry{Lease: a, Cumulative: 100_000}, settle.Entry{Lease: gone, Cumulative: 40_000})
	live := map[pktcloud.ID]pktcloud.Amount{a: 300_000, b: 100_000}
	if got := lease.Left(p, v, live); got != 500_000 { // 940 - 140 - (300 - 100) - 100
		t.Errorf("left: got %d, want 500000", got)
	}
	for _, c := range []struct {
		term uint64
		want error
	}{{500, nil}, {501, lease.CodeChannel}} {
		if err := lease.Fits(p, v, live, shareTerms(c.term, 0)); !errors.Is(err, c.want) {
			t.Errorf("a lease of %d s: got %v, want %v", c.term, err, c.want)
		}
	}
	if got := lease.Left(p, v, map[pktcloud.ID]pktcloud.Amount{a: 2_000_000}); got != 0 {
		t.Errorf("left beside a share of everything: got %d, want 0", got)
	}
	// Each lease, also one that is over, keeps its entry in every voucher.
	var many []settle.Entry
	for i := range byte(settle.MaxEntries - 2) {
		many = append(many, settle.Entry{Lease: pktcloud.ID{0, i + 1}, Cumulative: 1})
	}
	full := voucherOf(many...)
	one := map[pktcloud.ID]pktcloud.Amount{{0, 1}: 1, a: 1} // one is in the voucher
	if err := lease.Fits(p, full, one, shareTerms(1, 0)); err != nil {
		t.Errorf("the last of %d leases: got %v, want room", settle.MaxEntries, err)
	}
	one[b] = 1
	if err := lease.Fits(p, full, one, shareTerms(1, 0)); !errors.Is(err, lease.CodeChannel) {
		t.Errorf("one lease more than a voucher pays: got %v, want a refusal of the channel", err)
	}
}

// TestSharesModel: leases come by the rule, pay up to their shares in any order,
// and go; no payment that a share allows ever finds the channel empty.
func TestSharesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := settle.Params{Capacity: pktcloud.Amount(rapid.IntRange(1_000, 2_000_000).Draw(t, "capacity")), Reserve: 100, MinChange: 100}
		live := map[pktcloud.ID]pktcloud.Amount{}
		var order []pktcloud.ID
		paid := map[pktcloud.ID]pktcloud.Amount{}
		n := byte(0)
		latest := func() settle.Voucher {
			var v settle.Voucher
			for i := range n {
				if id := (pktcloud.ID{i + 1}); paid[id] > 0 {
					v.Entries = append(v.Entries, settle.Entry{Lease: id, Cumulative: paid[id]})
					v.Total += paid[id]
				}
			}
			return v
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				terms := shareTerms(uint64(rapid.IntRange(1, 900).Draw(t, "term")), pktcloud.Amount(rapid.IntRange(0, 3000).Draw(t, "prepaid")))
				if n == 250 || lease.Fits(p, latest(), live, terms) != nil {
					t.Skip("no room")
				}
				n++
				id := pktcloud.ID{n}
				live[id] = terms.Share(p)
				order = append(order, id)
			},
			"pay": func(t *rapid.T) {
				if len(order) == 0 {
					t.Skip("nobody")
				}
				id := rapid.SampledFrom(order).Draw(t, "lease")
				share, alive := live[id]
				if !alive {
					t.Skip("over")
				}
				paid[id] += pktcloud.Amount(rapid.Uint64Range(0, uint64(share-paid[id])).Draw(t, "more"))
			},
			"go": func(t *rapid.T) {
				if len(order) == 0 {
					t.Skip("nobody")
				}
				delete(live, rapid.SampledFrom(order).Draw(t, "lease"))
			},
			"": func(t *rapid.T) {
				v := latest()
				rest := v.Total
				for id, share := range live {
					rest += share - paid[id]
				}
				if rest > p.Spendable() || len(v.Entries) > settle.MaxEntries {
					t.Fatalf("shares and payments come to %d of %d, %d leases", rest, p.Spendable(), len(v.Entries))
				}
			},
		})
	})
}

// TestHeldWhileBlind shows [LEASE-28]: a provider whose chain is out of sight, and
// whose channel may be past its deadline, lets the workload stand still and does
// not count the grace; what the chain then says decides.
func TestHeldWhileBlind(t *testing.T) {
	_, p := active(t, usual)
	p = stepOK(t, p, lease.Tick{Ran: 7}, lease.Now{Uptime: 7})
	p = stepOK(t, p, lease.Paid{Cumulative: 5 * perSecond}, lease.Now{Uptime: 7})
	p = stepOK(t, p, lease.Tick{Ran: 9}, lease.Now{Uptime: 9})
	held, effects, err := p.Step(lease.Funding{Known: true, Confirmed: true, Blind: true}, lease.Now{Uptime: 9})
	if err != nil || held.Phase != lease.Suspended || !has[lease.Freeze](effects) {
		t.Fatalf("got %s, %v, %v, want frozen", held.Phase, effects, err)
	}
	if st := issued(t, effects).Body; st.To != 9 || st.State != lease.Frozen {
		t.Errorf("got a statement to second %d, %d, want 9 and frozen", st.To, st.State)
	}
	held = stepOK(t, held, lease.Tick{Ran: 9}, lease.Now{Uptime: 9 + 100*held.Terms.GraceSeconds})
	if held.Phase != lease.Suspended {
		t.Fatalf("got %s after the grace, out of sight, want suspended", held.Phase)
	}
	if paid := stepOK(t, held, lease.Paid{Cumulative: 7 * perSecond}, lease.Now{Uptime: 3000}); paid.Phase != lease.Suspended {
		t.Errorf("got %s after a payment, out of sight, want suspended", paid.Phase)
	}
	at := lease.Now{Uptime: 3000}
	back, effects, err := held.Step(lease.Funding{Known: true, Confirmed: true}, at)
	if err != nil || back.Phase != lease.Active || !has[lease.Thaw](effects) {
		t.Errorf("the chain is back, below the deadline: got %s, %v, %v, want active", back.Phase, effects, err)
	}
	over := stepOK(t, held, lease.Funding{Known: true, Confirmed: true, Ending: true}, at)
	if over.Phase != lease.Closing || over.Reason != lease.ReasonChannel {
		t.Errorf("the chain is back, past the deadline: got %s for %q, want an end by the channel", over.Phase, over.Reason)
	}
	// Used up at the same time: the grace begins with the chain's return.
	used := stepOK(t, p, lease.Tick{Ran: 15}, lease.Now{Uptime: 15})
	if used.Phase != lease.Suspended {
		t.Fatalf("got %s at the credit, want suspended", used.Phase)
	}
	used = stepOK(t, used, lease.Funding{Known: true, Blind: true}, lease.Now{Uptime: 16})
	used = stepOK(t, used, lease.Funding{Known: true}, at)
	used = stepOK(t, used, lease.Tick{Ran: 15}, lease.Now{Uptime: 3000 + used.Terms.GraceSeconds - 1})
	if used.Phase != lease.Suspended {
		t.Errorf("got %s a second before the grace ends, want suspended", used.Phase)
	}
	used = stepOK(t, used, lease.Tick{Ran: 15}, lease.Now{Uptime: 3000 + used.Terms.GraceSeconds})
	if used.Phase != lease.Closing || used.Reason != lease.ReasonUnpaid {
		t.Errorf("got %s for %q after the grace, want an end unpaid", used.Phase, used.Reason)
	}
}
