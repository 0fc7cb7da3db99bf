package lease_test

import (
	"errors"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// amendment is the next one of a tenant, which changes what edit does.
func amendment(s lease.State, edit func(*lease.Amendment)) lease.Amendment {
	t := s.Standing()
	a := lease.Amendment{
		Version: 1, Lease: s.Lease, Tenant: t.TenantDevice, Revision: s.Revision + 1, Attempt: s.Attempt + 1, Offer: t.Offer,
		Resources: t.Resources, Manifest: t.Manifest, Rate: t.Rate, Limits: t.Limits, TermSeconds: t.TermSeconds, CommitBy: now0 + 60,
	}
	edit(&a)
	return a
}

// acceptance is what accepts the proposal of a tenant, from a second on.
func acceptance(tenant lease.State, from uint64) lease.Acceptance {
	a := tenant.Proposal
	return lease.Acceptance{
		Version: 1, Lease: a.Lease, Provider: providerDevice.Public(), Amendment: pktcloud.IDOf(must(pktcloud.Marshal(a))),
		Revision: a.Revision, Attempt: a.Attempt, From: from,
	}
}

// larger is the usual manifest with two cores, and dearer an amendment to it.
func larger() lease.Manifest {
	m := manifest()
	m.Services[0].Resources.MilliCPU = 2000
	return m
}

func dearer(a *lease.Amendment) {
	m := larger()
	a.Rate, a.Resources, a.Manifest = 2*perSecond*3600, m.Resources(), must(m.ID())
}

// amends are both sides of a lease that has served ten seconds and been paid for
// five of them.
type amends struct {
	t                *testing.T
	tenant, provider lease.State
	uptime           uint64
}

func newAmends(t *testing.T) *amends {
	t.Helper()
	w := &amends{t: t}
	w.tenant, w.provider = active(t, lease.Limits{Credit: 20 * perSecond, Unconfirmed: 900 * perSecond})
	for _, p := range []*lease.State{&w.tenant, &w.provider} {
		*p = stepOK(t, *p, lease.Funding{Known: true, Confirmed: true}, lease.Now{Unix: now0})
	}
	w.serve(5)
	return w
}

func (w *amends) now() lease.Now { return lease.Now{Unix: now0 + int64(w.uptime), Uptime: w.uptime} }

// do steps a side, and returns what it does.
func (w *amends) do(p *lease.State, in lease.Input) []lease.Effect {
	w.t.Helper()
	next, effects, err := p.Step(in, w.now())
	if err == nil {
		err = next.Check()
	}
	if err != nil {
		w.t.Fatalf("%T: %v", in, err)
	}
	*p = next
	return effects
}

func (w *amends) refused(p *lease.State, in lease.Input, want lease.Code) {
	w.t.Helper()
	next, _, err := p.Step(in, w.now())
	if !errors.Is(err, want) || !same(next, *p) {
		w.t.Errorf("%T: got %v, want %s and nothing changed", in, err, want)
	}
}

// serve lets an interval pass, and pays for it.
func (w *amends) serve(seconds uint64) {
	w.t.Helper()
	w.uptime += seconds
	effects := w.do(&w.provider, lease.Tick{Ran: w.provider.Ran + seconds})
	w.judge(effects)
}

// judge gives the tenant the statement among effects, and the provider the
// payment that follows.
func (w *amends) judge(effects []lease.Effect) {
	w.t.Helper()
	for _, e := range w.do(&w.tenant, lease.Judged{Statement: issued(w.t, effects), Verdict: lease.Good}) {
		switch e := e.(type) {
		case lease.Pay:
			w.do(&w.tenant, lease.Paid{Cumulative: e.Entry.Cumulative})
			w.do(&w.provider, lease.Paid{Cumulative: e.Entry.Cumulative})
		case lease.Object:
			w.t.Fatalf("disputed: %s", e.Dispute.Text)
		}
	}
}

// propose has the tenant propose.
func (w *amends) propose(edit func(*lease.Amendment)) lease.Amend {
	w.t.Helper()
	signed := seal(tenantDevice, amendment(w.tenant, edit))
	w.do(&w.tenant, lease.Propound{Amendment: signed, Left: 1 << 40})
	return lease.Amend{Version: 1, Amendment: signed, Manifest: larger()}
}

func (w *amends) takeUp(m lease.Amend) []lease.Effect {
	w.t.Helper()
	return w.do(&w.provider, lease.TakeUp{Amendment: m.Amendment, Left: 1 << 40})
}

// sent returns the message of a type among effects.
func sent[M lease.Message](t *testing.T, effects []lease.Effect) M {
	t.Helper()
	for _, e := range effects {
		if s, ok := e.(lease.Send); ok {
			if m, ok := s.Message.(M); ok {
				return m
			}
		}
	}
	var none M
	t.Fatalf("no %T among %v", none, effects)
	return none
}

// apply has the runtime do it; it returns the acceptance, which the tenant does
// not have yet, and the statement before it.
func (w *amends) apply() (lease.AmendAck, []lease.Effect) {
	w.t.Helper()
	effects := w.do(&w.provider, lease.Applied{})
	for _, e := range effects {
		if e, ok := e.(lease.Accept); ok {
			return lease.AmendAck{Version: 1, Acceptance: seal(providerDevice, e.Acceptance)}, effects
		}
	}
	w.t.Fatalf("no acceptance among %v", effects)
	return lease.AmendAck{}, nil
}

// TestAmend: what was served before the boundary costs the old rate, what comes
// after it the new one, to the unit on both sides.
func TestAmend(t *testing.T) {
	w := newAmends(t)
	m := w.propose(dearer)
	w.takeUp(m)
	w.uptime += 2
	w.do(&w.provider, lease.Tick{Ran: 7}) // served meanwhile
	ack, effects := w.apply()
	if st := issued(t, effects).Body; st.To != 7 || st.Due != 7*perSecond || st.Revision() != 0 || ack.Acceptance.Body.From != 7 {
		t.Fatalf("got a boundary at %d s for %d units, from %d, want 7, 7 s of the old price", st.To, uint64(st.Due), ack.Acceptance.Body.From)
	}
	w.judge(effects)
	w.do(&w.tenant, lease.Received{Message: ack})
	w.serve(5)
	for name, s := range map[string]lease.State{"tenant": w.tenant, "provider": w.provider} {
		if s.Served != 12 || s.Due != (7+2*5)*perSecond || s.Revision != 1 || s.Standing().Resources.MilliCPU != 2000 {
			t.Errorf("%s: got %d units for %d s at revision %d, want 17 s of price for 12 s at 1", name, uint64(s.Due), s.Served, s.Revision)
		}
	}
	w.do(&w.tenant, lease.Received{Message: ack}) // again: nothing
	if effects := w.do(&w.provider, lease.Received{Message: m}); len(effects) != 1 || effects[0] != (lease.AcceptAgain{}) {
		t.Errorf("got %v for the same amendment again, want the same answer", effects)
	}
	again := w.do(&w.provider, lease.Received{Message: lease.Attach{Version: 1, Lease: w.tenant.Lease, Sequence: 1}})
	if len(again) < 2 || again[0] != (lease.AcceptAgain{}) {
		t.Errorf("got %v after an attach, want the acceptance before the statements", again)
	}
}

// TestAmendmentMissed: a tenant that has not seen the acceptance neither pays nor
// disputes what was stated under it.
func TestAmendmentMissed(t *testing.T) {
	w := newAmends(t)
	w.takeUp(w.propose(dearer))
	ack, effects := w.apply()
	w.judge(effects)
	w.uptime += 5
	effects = w.do(&w.provider, lease.Tick{Ran: 10})
	w.refused(&w.tenant, lease.Judged{Statement: issued(t, effects), Verdict: lease.Good}, lease.CodeSequence)
	w.do(&w.tenant, lease.Received{Message: ack})
	w.judge(effects)
	if w.tenant.Due != 15*perSecond {
		t.Errorf("got %d units due, want 5 s at the old and 5 s at the new rate", uint64(w.tenant.Due))
	}
}

// TestAmendRefused: each attempt has one answer for good, and a refused one
// leaves everything as it was.
func TestAmendRefused(t *testing.T) {
	w := newAmends(t)
	before := w.provider
	m := w.propose(dearer)
	w.takeUp(m)
	if effects := w.do(&w.provider, lease.Received{Message: m}); len(effects) != 0 {
		t.Errorf("got %v while the runtime is at it, want nothing", effects)
	}
	no := sent[lease.AmendRefuse](t, w.do(&w.provider, lease.Turn{Attempt: 1, Code: lease.CodeCapacity, Text: "it does not fit"}))
	if s := w.provider; s.Revision != 0 || s.Spendable != before.Spendable || s.Room != 0 || !s.Proposal.IsZero() {
		t.Errorf("got %+v after a refusal, want what was before", s)
	}
	for range 2 {
		if got := sent[lease.AmendRefuse](t, w.do(&w.provider, lease.Received{Message: m})); got != no {
			t.Errorf("got %+v again, want %+v", got, no)
		}
	}
	if got := sent[lease.AmendRefuse](t, w.takeUp(m)); got != no { // and a second copy is not taken up
		t.Errorf("got %+v, want %+v", got, no)
	}
	w.do(&w.tenant, lease.Received{Message: no})
	if s := w.tenant; !s.Proposal.IsZero() || s.Declined.Code != lease.CodeCapacity || s.Revision != 0 {
		t.Errorf("got %+v, want the refusal known", s.Declined)
	}
	second := w.propose(dearer)
	w.takeUp(second)
	if effects := w.do(&w.provider, lease.Received{Message: m}); len(effects) != 0 { // the first one, late
		t.Errorf("got %v for an attempt of the past, want nothing", effects)
	}
	ack, effects := w.apply()
	w.judge(effects)
	w.do(&w.tenant, lease.Received{Message: no}) // late too
	w.do(&w.tenant, lease.Received{Message: ack})
	if w.tenant.Revision != 1 || w.provider.Revision != 1 {
		t.Errorf("got revisions %d and %d, want 1", w.tenant.Revision, w.provider.Revision)
	}
}

// TestAmendable: what a provider refuses for good, with its code.
func TestAmendable(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   func(*lease.Amendment)
		before func(*amends)
		left   pktcloud.Amount
		want   lease.Code
	}{
		{"late", func(a *lease.Amendment) { a.CommitBy = now0 + 5 }, nil, 1 << 40, lease.CodeLate},
		{"revision", func(a *lease.Amendment) { a.Revision, a.Attempt = 2, 2 }, nil, 1 << 40, lease.CodeSequence},
		{"channel", dearer, nil, 0, lease.CodeChannel},
		{"served", func(a *lease.Amendment) { a.TermSeconds = 64 }, nil, 1 << 40, lease.CodeLimits},
		{"interval uncovered", func(a *lease.Amendment) { a.Limits.Credit = 4 * perSecond }, nil, 1 << 40, lease.CodeLimits},
		{"suspended", dearer, func(w *amends) { w.do(&w.provider, lease.Tick{Ran: 400}) }, 1 << 40, lease.CodePhase},
	} {
		w := newAmends(t)
		if c.before != nil {
			c.before(w)
		}
		signed := seal(tenantDevice, amendment(w.tenant, c.edit))
		effects := w.do(&w.provider, lease.TakeUp{Amendment: signed, Left: c.left})
		if no := sent[lease.AmendRefuse](t, effects); no.Code != c.want || !w.provider.Proposal.IsZero() || w.provider.Revision != 0 {
			t.Errorf("%s: got %s (%s), want %s", c.name, no.Code, no.Text, c.want)
		}
	}
	w := newAmends(t)
	w.refused(&w.provider, lease.TakeUp{Amendment: seal(providerDevice, amendment(w.tenant, dearer)), Left: 1 << 40}, lease.CodeSignature)
	other := seal(providerDevice, amendment(w.tenant, func(a *lease.Amendment) { a.Tenant = providerDevice.Public() }))
	w.refused(&w.provider, lease.TakeUp{Amendment: other, Left: 1 << 40}, lease.CodeUnknown)
	m := w.propose(dearer)
	w.refused(&w.tenant, lease.Propound{Amendment: seal(tenantDevice, amendment(w.tenant, dearer)), Left: 1 << 40}, lease.CodeBusy)
	w.takeUp(m)
	next := seal(tenantDevice, amendment(w.tenant, dearer))
	w.refused(&w.provider, lease.TakeUp{Amendment: next, Left: 1 << 40}, lease.CodeBusy)
}

// TestAcceptanceChecks: a tenant believes no acceptance of something else, from a
// second that it has paid for, or that has not come.
func TestAcceptanceChecks(t *testing.T) {
	w := newAmends(t)
	w.propose(dearer)
	ack := func(edit func(*lease.Acceptance)) lease.Received {
		a := acceptance(w.tenant, 5)
		edit(&a)
		return lease.Received{Message: lease.AmendAck{Version: 1, Acceptance: seal(providerDevice, a)}}
	}
	w.refused(&w.tenant, ack(func(a *lease.Acceptance) { a.From = 4 }), lease.CodeSequence)
	w.refused(&w.tenant, ack(func(a *lease.Acceptance) { a.From = w.uptime + 6 }), lease.CodeAhead)
	w.refused(&w.tenant, ack(func(a *lease.Acceptance) { a.Amendment = w.tenant.Lease }), lease.CodeQuote)
	w.refused(&w.tenant, ack(func(a *lease.Acceptance) { a.Attempt = 2 }), lease.CodeQuote)
	forged := acceptance(w.tenant, 5)
	w.refused(&w.tenant, lease.Received{Message: lease.AmendAck{Version: 1, Acceptance: seal(tenantDevice, forged)}}, lease.CodeSignature)
	w.do(&w.tenant, ack(func(*lease.Acceptance) {}))
}

// TestAmendedCredit: an amendment to less credit begins once what is unpaid fits,
// and one to less ahead is not proposed while more is paid ahead.
func TestAmendedCredit(t *testing.T) {
	w := newAmends(t)
	w.takeUp(w.propose(func(a *lease.Amendment) { a.Limits.Credit = 8 * perSecond }))
	w.uptime += 9
	effects := w.do(&w.provider, lease.Tick{Ran: 14})
	w.refused(&w.provider, lease.Applied{}, lease.CodeBusy)
	w.judge(effects)
	ack, effects := w.apply()
	w.judge(effects)
	w.do(&w.tenant, lease.Received{Message: ack})
	w.serve(5)
	w.propose(func(a *lease.Amendment) { a.Limits.Prepaid = 10 * perSecond })
	w.refused(&w.tenant, lease.Paid{Cumulative: w.tenant.Due + 1}, lease.CodePayment) // not yet
}

// TestAmendedDispute: seconds conceded before and after a boundary count against
// the credit at the rate at which they were served.
func TestAmendedDispute(t *testing.T) {
	w := newAmends(t)
	w.takeUp(w.propose(dearer))
	_, effects := w.apply()
	w.judge(effects)
	w.uptime += 5
	w.do(&w.provider, lease.Tick{Ran: 10})
	d := lease.Dispute{Version: 1, Lease: w.tenant.Lease, Tenant: tenantDevice.Public(), Sequence: w.provider.Sequence, Accepted: 5, Code: lease.CodeProbe}
	w.do(&w.provider, lease.Received{Message: lease.DisputeMessage{Version: 1, Dispute: seal(tenantDevice, d)}})
	if e := w.provider.Exposure(); e.Credit != 10*perSecond || w.provider.Due != 5*perSecond {
		t.Errorf("got %d units of credit used and %d due, want 10 s and 5 s of price", uint64(e.Credit), uint64(w.provider.Due))
	}
	w.do(&w.provider, lease.Tick{Ran: 400}) // 20 s of price: 10 conceded, 10 for five seconds
	if s := w.provider; s.Phase != lease.Suspended || s.Ran != 15 {
		t.Errorf("got %s after %d s, want suspended after 15", s.Phase, s.Ran)
	}
}

// TestAmendmentEnds: a lease that ends answers what is under way, and a provider
// that comes back carries on with it.
func TestAmendmentEnds(t *testing.T) {
	w := newAmends(t)
	w.takeUp(w.propose(dearer))
	again := w.provider.Recover()
	if len(again) != 2 || again[1] != (lease.Apply{}) {
		t.Errorf("got %v after a restart, want the amendment carried on with", again)
	}
	effects := w.do(&w.provider, lease.CloseNow{Reason: lease.ReasonRequested})
	if no := sent[lease.AmendRefuse](t, effects); no.Code != lease.CodePhase {
		t.Errorf("got %s, want phase", no.Code)
	}
	w.refused(&w.provider, lease.Applied{}, lease.CodePhase)
	w.do(&w.tenant, lease.Judged{Statement: issued(t, effects), Verdict: lease.Good})
	if !w.tenant.Proposal.IsZero() {
		t.Error("the amendment is under way after the final statement")
	}
}

// TestCheckAmendment: what offer and manifest allow.
func TestCheckAmendment(t *testing.T) {
	w := newAmends(t)
	for _, c := range []struct {
		name     string
		edit     func(*lease.Amendment)
		manifest func(*lease.Manifest)
		want     lease.Code // empty: allowed
	}{
		{"larger", dearer, func(m *lease.Manifest) { *m = larger() }, ""},
		{"longer", func(a *lease.Amendment) { a.TermSeconds = 7200 }, nil, ""},
		{"nothing", func(*lease.Amendment) {}, nil, lease.CodeMalformed},
		{"too long", func(a *lease.Amendment) { a.TermSeconds = 86401 }, nil, lease.CodeLimits},
		{"cheaper", func(a *lease.Amendment) { a.Rate-- }, nil, lease.CodePrice},
		{"dearer", func(a *lease.Amendment) { a.Rate++ }, nil, lease.CodePrice},
		{"credit", func(a *lease.Amendment) { a.Limits.Credit = 3601 * perSecond }, nil, lease.CodeLimits},
		{"unconfirmed", func(a *lease.Amendment) { a.Limits.Unconfirmed++ }, nil, lease.CodeLimits},
		{"other offer", func(a *lease.Amendment) { a.Offer = a.Lease }, nil, lease.CodeOffer},
		{"image", dearer, func(m *lease.Manifest) { *m = larger(); m.Services[0].Image = "other" }, lease.CodeManifest},
		{"disk", dearer, func(m *lease.Manifest) { *m = larger(); m.Services[0].Resources.DiskBytes = 0 }, lease.CodeManifest},
		{"service", dearer, func(m *lease.Manifest) { *m = larger(); m.Services = nil }, lease.CodeManifest},
	} {
		was, m := manifest(), manifest()
		was.Services[0].Resources.DiskBytes = 1
		m.Services[0].Resources.DiskBytes = 1
		if c.manifest != nil {
			c.manifest(&m)
			if len(m.Services) > 0 && c.name != "disk" {
				m.Services[0].Resources.DiskBytes = 1
			}
		}
		err := lease.CheckAmendment(offer(), w.tenant.Standing(), was, m, amendment(w.tenant, c.edit))
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	was := volumesProposal(func(*lease.Propose) {}).Manifest
	less := volumesProposal(func(p *lease.Propose) { p.Manifest.Volumes[0].SizeBytes -= lease.VolumeStep }).Manifest
	if err := lease.CheckResize(was, less); !errors.Is(err, lease.CodeManifest) {
		t.Errorf("a volume that shrinks: got %v, want manifest", err)
	}
	if err := lease.CheckResize(less, was); err != nil {
		t.Errorf("a volume that grows: %v", err)
	}
}

// TestTariff compares the due over segments, and its inverse, with sums of exact
// numbers.
func TestTariff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tariff := lease.Tariff{{Rate: pktcloud.Rate(rapid.Uint64Range(0, 1<<40).Draw(t, "rate"))}}
		for i := range rapid.IntRange(0, 5).Draw(t, "segments") {
			from := tariff[i].From + rapid.Uint64Range(0, 5000).Draw(t, "after")
			tariff = append(tariff, lease.Segment{From: from, Rate: pktcloud.Rate(rapid.Uint64Range(0, 1<<40).Draw(t, "rate"))})
		}
		seconds := rapid.Uint64Range(0, 40_000).Draw(t, "seconds")
		sum := new(big.Int)
		for second := range seconds {
			rate := tariff[0].Rate
			for _, s := range tariff {
				if s.From <= second {
					rate = s.Rate
				}
			}
			sum.Add(sum, new(big.Int).SetUint64(uint64(rate)))
		}
		want := new(big.Int).Div(sum.Add(sum, big.NewInt(3599)), big.NewInt(3600)).Uint64()
		due, err := tariff.DueAfter(seconds)
		if err != nil || uint64(due) != want {
			t.Fatalf("got %d units, %v, want %d", uint64(due), err, want)
		}
		back := tariff.SecondsFor(due)
		if back < seconds {
			t.Fatalf("%d units pay for %d s, want at least %d", uint64(due), back, seconds)
		}
		if back < 1<<50 {
			if more, err := tariff.DueAfter(back + 1); err != nil || more <= due {
				t.Fatalf("%d s cost %d units, and %d s no more than %d", back+1, uint64(more), back, uint64(due))
			}
		}
	})
}
