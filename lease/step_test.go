package lease_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

func has[E lease.Effect](effects []lease.Effect) bool {
	return slices.ContainsFunc(effects, func(e lease.Effect) bool { _, ok := e.(E); return ok })
}

// TestAgreementRule shows [LEASE-8]: in time or not at all, the same answer
// again, and no broadcast before the acknowledgement.
func TestAgreementRule(t *testing.T) {
	c := commitFor(draft(usual), capacity0)
	own := must(lease.SignTerms(providerDevice, c.Terms))
	if _, _, err := lease.NewProvider(c, own, lease.Now{Unix: c.Terms.CommitBy}); !errors.Is(err, lease.CodeLate) {
		t.Errorf("got %v at commitBy, want late", err)
	}
	p, effects, err := lease.NewProvider(c, own, lease.Now{Unix: c.Terms.CommitBy - 1})
	if err != nil {
		t.Fatal(err)
	}
	ack := effects[0].(lease.Send).Message.(lease.Ack) //nolint:forcetypeassert // or the test fails
	if _, again, err := p.Step(lease.Received{Message: c}, lease.Now{Unix: c.Terms.CommitBy + lease.AnswerSeconds - 1}); err != nil || again[0] != (lease.Send{Message: ack}) {
		t.Errorf("got %v, %v for the commit again, want the same acknowledgement", again, err)
	}
	tenant, effects, err := lease.NewTenant(c, lease.Now{Unix: now0})
	if err != nil || has[lease.Announce](effects) {
		t.Fatalf("got %v, %v, want a commit and no broadcast", effects, err)
	}
	forged := ack
	forged.Signature = c.Signature
	if _, _, err := tenant.Step(lease.Received{Message: forged}, lease.Now{}); !errors.Is(err, lease.CodeSignature) {
		t.Errorf("got %v for a forged acknowledgement, want signature", err)
	}
	if _, effects, err = tenant.Step(lease.Received{Message: ack}, lease.Now{}); err != nil || !has[lease.Announce](effects) {
		t.Errorf("got %v, %v after the acknowledgement, want the broadcast", effects, err)
	}
	busy := lease.Refuse{Version: 1, Lease: tenant.Lease, Code: lease.CodeBusy}
	if next := stepOK(t, tenant, lease.Received{Message: busy}, lease.Now{}); next.Phase != lease.Proposed {
		t.Errorf("got %s after a refusal for now, want proposed", next.Phase)
	}
	busy.Code = lease.CodeCapacity
	if _, effects, err := tenant.Step(lease.Received{Message: busy}, lease.Now{}); err != nil || !has[lease.Abandon](effects) {
		t.Errorf("got %v, %v after a refusal for good, want the channel abandoned", effects, err)
	}
	if next := stepOK(t, tenant, lease.Tick{}, lease.Now{Unix: c.Terms.CommitBy + lease.AnswerSeconds}); next.Phase != lease.Refused {
		t.Errorf("got %s when nobody answered, want refused", next.Phase)
	}
}

// TestCommitChecks shows [LEASE-7].
func TestCommitChecks(t *testing.T) {
	at := time.Unix(now0+1, 0)
	resign := func(c *lease.Commit) { c.Signature = must(lease.SignTerms(tenantDevice, c.Terms)) }
	for _, c := range []struct {
		name string
		edit func(*lease.Commit)
		want lease.Code
	}{
		{"good", func(*lease.Commit) {}, ""},
		{"signed by another", func(c *lease.Commit) { c.Signature = must(lease.SignTerms(providerDevice, c.Terms)) }, lease.CodeSignature},
		{"account of another", func(c *lease.Commit) { c.Account = account(providerKey, tenantDevice) }, lease.CodeSignature},
		{"device not listed", func(c *lease.Commit) { c.Account = account(tenantKey, providerDevice) }, lease.CodeSignature},
		{"cheaper than quoted", func(c *lease.Commit) { c.Terms.Rate--; resign(c) }, lease.CodePrice},
		{"later commitBy", func(c *lease.Commit) { c.Terms.CommitBy++; resign(c) }, lease.CodeQuote},
		{"another draft", func(c *lease.Commit) { c.Terms.TermSeconds++; resign(c) }, lease.CodeQuote},
		{"quote of another device", func(c *lease.Commit) {
			d := c.Terms.Draft()
			d.ProviderDevice = key("other").Public()
			*c = commitFor(d, capacity0)
			c.Quote = must(seal(key("other"), quoteFor(d).Body).Encode())
		}, lease.CodeQuote},
	} {
		m := commitFor(draft(usual), capacity0)
		c.edit(&m)
		_, err := lease.CheckCommit(m, providerDevice.Public(), at)
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := lease.CheckCommit(commitFor(draft(usual), capacity0), providerDevice.Public(), time.Unix(now0+86400, 0)); !errors.Is(err, pktcloud.ErrExpired) {
		t.Errorf("got %v for an expired device, want expired", err)
	}
}

// TestDraftChecks shows what an offer allows [LEASE-7].
func TestDraftChecks(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*lease.Terms)
		want lease.Code
	}{
		{"good", func(*lease.Terms) {}, ""},
		{"another provider", func(d *lease.Terms) { d.Provider = d.Tenant }, lease.CodeOffer},
		{"no room", func(d *lease.Terms) { d.Resources.MilliCPU = 4001 }, lease.CodeCapacity},
		{"credit", func(d *lease.Terms) { d.Limits.Credit = 3601 * perSecond }, lease.CodeLimits},
		{"unconfirmed", func(d *lease.Terms) { d.Limits.Unconfirmed = 1<<40 + 1 }, lease.CodeLimits},
		{"term", func(d *lease.Terms) { d.TermSeconds = 86401 }, lease.CodeLimits},
		{"interval uncovered", func(d *lease.Terms) { d.Limits.Credit = 5*perSecond - 1 }, lease.CodeLimits},
	} {
		d := draft(usual)
		c.edit(&d)
		rate, err := lease.CheckDraft(offer().Body, d, "bank")
		if c.want == "" && (err != nil || rate != perSecond*3600) || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %d, %v, want %q", c.name, rate, err, c.want)
		}
	}
	if _, err := lease.CheckDraft(offer().Body, draft(usual), "other"); !errors.Is(err, lease.CodeChannel) {
		t.Errorf("got %v for another rail, want channel", err)
	}
}

// TestIsolationChecks shows that a class is demanded, or not [LEASE-34].
func TestIsolationChecks(t *testing.T) {
	o := offer().Body
	for class, want := range map[string]bool{"": true, o.Isolation[0]: true, "gvisor": false} {
		m := manifest()
		m.Ext = map[string][]byte{"other": {1}}
		m.Demand(class)
		err := lease.CheckIsolation(o, m)
		if m.Isolation() != class || len(m.Ext["other"]) != 1 || want != (err == nil) {
			t.Errorf("class %q: got %v and %q", class, err, m.Isolation())
		}
		if err != nil && (!errors.Is(err, lease.CodeOffer) || !errors.Is(err, market.CodeIsolation)) {
			t.Errorf("class %q: %v is neither of the offer nor of isolation", class, err)
		}
	}
	m := manifest()
	before := must(m.ID())
	m.Demand("gvisor")
	if m.Demand(""); must(m.ID()) != before {
		t.Error("a class taken back left something")
	}
}

// TestFreezeAtCredit shows [LEASE-12] and [LEASE-13]: frozen at the credit to
// the second, stated at once, thawed by payment, closed after the grace.
func TestFreezeAtCredit(t *testing.T) {
	_, p := active(t, usual)
	p = stepOK(t, p, lease.Tick{Ran: 9}, lease.Now{Uptime: 9})
	next, effects, err := p.Step(lease.Tick{Ran: 30}, lease.Now{Uptime: 30})
	if err != nil || next.Phase != lease.Suspended || !has[lease.Freeze](effects) {
		t.Fatalf("got %s, %v, %v, want frozen", next.Phase, effects, err)
	}
	if st := issued(t, effects).Body; st.To != 10 || st.Due != usual.Credit || st.State != lease.Frozen {
		t.Errorf("got a statement to second %d of %d units in state %d, want 10, the credit, frozen", st.To, uint64(st.Due), st.State)
	}
	p = next
	if late := stepOK(t, p, lease.Tick{Ran: 99}, lease.Now{Uptime: 49}); late.Ran != 10 || late.Phase != lease.Suspended {
		t.Errorf("got %d s served while frozen in %s, want 10", late.Ran, late.Phase)
	}
	paid, effects, err := p.Step(lease.Paid{Cumulative: 5 * perSecond}, lease.Now{Uptime: 31})
	if err != nil || paid.Phase != lease.Active || !has[lease.Thaw](effects) {
		t.Errorf("got %s, %v, %v after payment, want a thaw", paid.Phase, effects, err)
	}
	closed, effects, err := p.Step(lease.Tick{}, lease.Now{Uptime: 50})
	if err != nil || closed.Phase != lease.Closing || closed.Reason != lease.ReasonUnpaid || !has[lease.Stop](effects) {
		t.Errorf("got %s %q, %v, want closing, unpaid", closed.Phase, closed.Reason, err)
	}
	alone, effects, err := closed.Step(lease.Tick{}, lease.Now{Uptime: 70})
	if err != nil || alone.Phase != lease.Closed || !has[lease.Conclude](effects) || alone.Record.Statement != closed.Statement {
		t.Errorf("got %s, %v, want a record of the provider alone with its last statement", alone.Phase, err)
	}
}

// TestEndsByItself shows the other ends that a provider decides [LEASE-14].
func TestEndsByItself(t *testing.T) {
	_, p := active(t, lease.Limits{Credit: 3000 * perSecond, Unconfirmed: 1})
	for _, c := range []struct {
		name string
		in   lease.Input
		want lease.Reason
	}{
		{"term", lease.Tick{Ran: 700}, lease.ReasonTerm},
		{"workload", lease.Ended{Fault: lease.Faultf(lease.FaultExit, "exit 1")}, lease.ReasonWorkload},
		{"channel", lease.Funding{Known: true, Ending: true}, lease.ReasonChannel},
		{"owner", lease.CloseNow{Reason: lease.ReasonRequested}, lease.ReasonRequested},
	} {
		next := stepOK(t, p, c.in, lease.Now{Uptime: 700})
		if next.Phase != lease.Closing || next.Reason != c.want || next.By != lease.RoleProvider || next.Served > 600 {
			t.Errorf("%s: got %s %q by %s after %d s, want closing %q", c.name, next.Phase, next.Reason, next.By, next.Served, c.want)
		}
	}
	c := commitFor(draft(lease.Limits{Credit: 50 * perSecond, Unconfirmed: 1}), 20*perSecond)
	s, _ := step0(lease.NewProvider(c, must(lease.SignTerms(providerDevice, c.Terms)), lease.Now{Unix: now0}))
	for _, in := range []lease.Input{lease.Funding{Known: true}, lease.Launched{}, lease.Started{}} {
		s = stepOK(t, s, in, lease.Now{})
	}
	if s = stepOK(t, s, lease.Tick{Ran: 30}, lease.Now{Uptime: 30}); s.Reason != lease.ReasonChannel || s.Due != 20*perSecond {
		t.Errorf("got %q with %d due, want channel, with all of it due", s.Reason, uint64(s.Due))
	}
}

// TestDisputeCountsAgainstCredit shows that a tenant gains no more than the
// credit by disputing [LEASE-11].
func TestDisputeCountsAgainstCredit(t *testing.T) {
	_, p := active(t, usual)
	p = stepOK(t, p, lease.Tick{Ran: 5}, lease.Now{Uptime: 5})
	object := func(k pktcloud.PrivateKey, sequence, accepted uint64) lease.Received {
		d := dispute()
		d.Lease, d.Sequence, d.Accepted, d.Tenant = p.Lease, sequence, accepted, k.Public()
		return lease.Received{Message: lease.DisputeMessage{Version: 1, Dispute: seal(k, d)}}
	}
	if _, _, err := p.Step(object(providerDevice, 2, 0), lease.Now{}); !errors.Is(err, lease.CodeSignature) {
		t.Errorf("got %v for a dispute by another, want signature", err)
	}
	if _, _, err := p.Step(object(tenantDevice, 9, 0), lease.Now{}); !errors.Is(err, lease.CodeSequence) {
		t.Errorf("got %v for a statement never issued, want sequence", err)
	}
	p = stepOK(t, p, object(tenantDevice, 2, 0), lease.Now{Uptime: 6})
	if p.Served != 0 || p.Forfeited != 5 || p.Due != 0 {
		t.Errorf("got %d s stated, %d conceded, %d units due, want 0, 5, 0", p.Served, p.Forfeited, uint64(p.Due))
	}
	if again := stepOK(t, p, object(tenantDevice, 2, 0), lease.Now{Uptime: 6}); !same(again, p) {
		t.Error("the same dispute again changed the state")
	}
	p = stepOK(t, p, lease.Tick{Ran: 12}, lease.Now{Uptime: 12})
	if p.Phase != lease.Suspended || p.Ran != 10 || p.Served != 5 {
		t.Errorf("got %s after %d s, %d stated, want suspended at the credit, conceded seconds counted", p.Phase, p.Ran, p.Served)
	}
	p = stepOK(t, p, object(tenantDevice, p.Sequence, 0), lease.Now{Uptime: 12})
	if p = stepOK(t, p, lease.Tick{}, lease.Now{Uptime: 40}); p.Reason != lease.ReasonDisputed {
		t.Errorf("got %q after the grace, want disputed", p.Reason)
	}
	_, q := active(t, usual)
	q = stepOK(t, stepOK(t, q, lease.Tick{Ran: 5}, lease.Now{}), lease.Paid{Cumulative: 5 * perSecond}, lease.Now{})
	if _, _, err := q.Step(object(tenantDevice, 2, 0), lease.Now{}); !errors.Is(err, lease.CodePayment) {
		t.Errorf("got %v for a dispute of what was paid, want payment", err)
	}
}

// TestNoTrustAfterBadProbe shows that a tenant whose probe disagreed pays for
// nothing that no probe has seen [LEASE-11].
func TestNoTrustAfterBadProbe(t *testing.T) {
	tenant, _ := active(t, usual)
	st := statement()
	tenant = stepOK(t, tenant, lease.Judged{Statement: seal(providerDevice, st), Verdict: lease.Bad, Text: "silence"}, lease.Now{Uptime: 5})
	st.Sequence, st.State, st.To, st.Due = 3, lease.Frozen, 1, perSecond
	tenant = stepOK(t, tenant, lease.Judged{Statement: seal(providerDevice, st)}, lease.Now{Uptime: 6})
	if tenant.Due != 0 || tenant.Disputed != 3 {
		t.Errorf("got %d units due, want a dispute", uint64(tenant.Due))
	}
	st.Sequence, st.State = 4, lease.Running
	if tenant = stepOK(t, tenant, lease.Judged{Statement: seal(providerDevice, st), Verdict: lease.Good}, lease.Now{Uptime: 7}); tenant.Due != perSecond || tenant.Blind != 0 {
		t.Errorf("got %d units due after a good probe, want %d", uint64(tenant.Due), perSecond)
	}
}

// TestPrepaid shows a lease without credit: paid in advance, never beyond the
// limit [LEASE-12].
func TestPrepaid(t *testing.T) {
	tenant, provider := active(t, lease.Limits{Prepaid: 6 * perSecond, Unconfirmed: 900 * perSecond})
	effects := tenant.Reconnect()
	i := slices.IndexFunc(effects, func(e lease.Effect) bool { _, ok := e.(lease.Pay); return ok })
	if i < 0 || effects[i].(lease.Pay).Entry.Cumulative != 5*perSecond { //nolint:forcetypeassert // just found
		t.Fatalf("got %v, want one interval paid in advance", effects)
	}
	if _, _, err := tenant.Step(lease.Paid{Cumulative: 6*perSecond + 1}, lease.Now{}); !errors.Is(err, lease.CodePayment) {
		t.Errorf("got %v for a unit beyond the prepaid limit, want payment", err)
	}
	if p := stepOK(t, provider, lease.Tick{Ran: 3}, lease.Now{}); p.Ran != 0 || p.Phase != lease.Suspended {
		t.Errorf("got %d s served unpaid, want none", p.Ran)
	}
}

// TestUnconfirmed shows that the tenant pays no more than the unconfirmed limit
// until the funding has its depth [LEASE-12].
func TestUnconfirmed(t *testing.T) {
	tenant, _ := active(t, lease.Limits{Credit: 10 * perSecond, Unconfirmed: 2 * perSecond})
	next, effects, err := tenant.Step(lease.Judged{Statement: seal(providerDevice, statementOf(tenant)), Verdict: lease.Good}, lease.Now{Uptime: 5})
	if err != nil || !slices.ContainsFunc(effects, func(e lease.Effect) bool {
		p, ok := e.(lease.Pay)
		return ok && p.Entry.Cumulative == 2*perSecond
	}) {
		t.Fatalf("got %v, %v, want a payment of 2 s", effects, err)
	}
	if _, effects, err = next.Step(lease.Funding{Known: true, Confirmed: true}, lease.Now{}); err != nil || effects[0].(lease.Pay).Entry.Cumulative != 5*perSecond { //nolint:forcetypeassert // or the test fails
		t.Errorf("got %v, %v once confirmed, want all of it", effects, err)
	}
}

func statementOf(s lease.State) lease.Statement {
	st := statement()
	st.Lease = s.Lease
	return st
}

// TestCancelled: what is to end before it is agreed ends as soon as it is, and is
// abandoned no sooner than any other [LEASE-47].
func TestCancelled(t *testing.T) {
	c := commitFor(draft(usual), capacity0)
	tenant, _ := step0(lease.NewTenant(c, lease.Now{Unix: now0}))
	tenant, effects, err := tenant.Step(lease.CloseNow{Reason: lease.ReasonRequested}, lease.Now{Unix: now0})
	if err != nil || len(effects) != 0 || tenant.Phase != lease.Proposed {
		t.Fatalf("got %v, %v in %s, want nothing yet", effects, err, tenant.Phase)
	}
	tenant, err = lease.ParseState(must(tenant.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if effects = tenant.Reconnect(); !has[lease.SendCommit](effects) {
		t.Errorf("got %v after a break, want the commit again", effects)
	}
	late := lease.Now{Unix: c.Terms.CommitBy + lease.AnswerSeconds - 1}
	if next, effects, err := tenant.Step(lease.Tick{}, late); err != nil || len(effects) != 0 || next.Phase != lease.Proposed {
		t.Errorf("got %v, %v in %s before the 30 days have passed", effects, err, next.Phase)
	}
	provider, effects, err := lease.NewProvider(c, must(lease.SignTerms(providerDevice, c.Terms)), lease.Now{Unix: now0})
	if err != nil {
		t.Fatal(err)
	}
	ack := effects[0].(lease.Send).Message //nolint:forcetypeassert // or the test fails
	next, effects, err := tenant.Step(lease.Received{Message: ack}, lease.Now{Unix: now0, Uptime: 9})
	if err != nil || next.Phase != lease.Closing || next.ClosingAt != 9 || !has[lease.Announce](effects) || len(effects) != 2 {
		t.Fatalf("got %v, %v in %s, want the broadcast and the close", effects, err, next.Phase)
	}
	if provider, effects, err = provider.Step(lease.Received{Message: effects[1].(lease.Send).Message}, lease.Now{Unix: now0}); err != nil || provider.Reason != lease.ReasonRequested { //nolint:forcetypeassert // or the test fails
		t.Fatalf("got %v, %v at the provider", effects, err)
	}
	if next, effects, err = next.Step(lease.Judged{Statement: issued(t, effects)}, lease.Now{Uptime: 9}); err != nil || !has[lease.OfferClose](effects) || next.Record.Paid != 0 {
		t.Errorf("got %v, %v paying %d, want a close that pays nothing", effects, err, uint64(next.Record.Paid))
	}
	refuse := lease.Refuse{Version: 1, Lease: tenant.Lease, Code: lease.CodeLate, Text: "late"}
	if next, effects, err = tenant.Step(lease.Received{Message: refuse}, lease.Now{Unix: now0}); err != nil || next.Phase != lease.Refused || !has[lease.Abandon](effects) {
		t.Errorf("got %v, %v in %s, want it abandoned once it is refused", effects, err, next.Phase)
	}
}

// TestClose shows the countersigned end [LEASE-14], and what is refused there.
func TestClose(t *testing.T) {
	tenant, provider := active(t, usual)
	tenant, effects, err := tenant.Step(lease.CloseNow{Reason: lease.ReasonRequested}, lease.Now{Uptime: 4})
	if err != nil {
		t.Fatal(err)
	}
	provider = stepOK(t, provider, lease.Tick{Ran: 3}, lease.Now{Uptime: 3})
	provider, effects, err = provider.Step(lease.Received{Message: effects[0].(lease.Send).Message}, lease.Now{Uptime: 4}) //nolint:forcetypeassert // or the test fails
	if err != nil {
		t.Fatal(err)
	}
	tenant, effects, err = tenant.Step(lease.Judged{Statement: issued(t, effects)}, lease.Now{Uptime: 4})
	if err != nil || !has[lease.OfferClose](effects) || tenant.Record.Paid != 3*perSecond {
		t.Fatalf("got %v, %v paying %d, want a close that pays 3 s", effects, err, uint64(tenant.Record.Paid))
	}
	good := lease.Close{Version: 1, Record: tenant.Record, Signature: must(lease.SignClose(tenantDevice, tenant.Record))}
	for _, c := range []struct {
		name string
		edit func(*lease.CloseRecord)
		want lease.Code
	}{
		{"another due", func(r *lease.CloseRecord) { r.Due-- }, lease.CodeRecord},
		{"more than due", func(r *lease.CloseRecord) { r.Paid++ }, lease.CodeRecord},
		{"another reason", func(r *lease.CloseRecord) { r.Reason = lease.ReasonTerm }, lease.CodeRecord},
		{"another statement", func(r *lease.CloseRecord) { r.Statement = r.Lease }, lease.CodeRecord},
		{"unsigned", nil, lease.CodeSignature},
	} {
		bad := good
		if c.edit != nil {
			c.edit(&bad.Record)
			bad.Signature = must(lease.SignClose(tenantDevice, bad.Record))
		} else {
			bad.Signature = must(lease.SignClose(providerDevice, bad.Record))
		}
		if err := provider.CheckClose(bad); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	voucher := stepOK(t, provider, lease.Paid{Cumulative: 3 * perSecond}, lease.Now{})
	less := good
	less.Record.Paid--
	less.Signature = must(lease.SignClose(tenantDevice, less.Record))
	if err := voucher.CheckClose(less); !errors.Is(err, lease.CodeRecord) {
		t.Errorf("got %v for a close below the vouchers, want record", err)
	}
	sig := must(lease.SignClose(providerDevice, good.Record))
	provider, effects, err = provider.Step(lease.Completed{Close: good, Signature: sig}, lease.Now{})
	if err != nil || provider.Phase != lease.Closed || !provider.Countersigned() {
		t.Fatalf("got %s, %v, want closed", provider.Phase, err)
	}
	tenant = tenant.Signed(good.Signature)
	tenant = stepOK(t, tenant, lease.Received{Message: effects[0].(lease.Send).Message}, lease.Now{}) //nolint:forcetypeassert // or the test fails
	if tenant.Phase != lease.Closed || !tenant.Countersigned() {
		t.Errorf("got %s, want a countersigned close", tenant.Phase)
	}
}

// TestErrorsMatchTheirCode shows that a refusal is matched by its code alone.
func TestErrorsMatchTheirCode(t *testing.T) {
	err := error(lease.Refusal(lease.CodeLate, "by %d s", 3))
	if !errors.Is(err, lease.CodeLate) || errors.Is(err, lease.CodeDue) || lease.CodeOf(err) != lease.CodeLate {
		t.Errorf("got %v, which does not match its code alone", err)
	}
	if lease.CodeOf(errors.New("late")) != lease.CodeInternal {
		t.Error("an error of another kind has a code")
	}
}

// TestFaultReachesTheRecord shows that what the provider knows of a failed
// start stands in its final statement, in the tenant's close record, and in
// both states; and that a record which says otherwise is not countersigned
// [LEASE-14] [LEASE-22] [LEASE-24].
func TestFaultReachesTheRecord(t *testing.T) {
	tenant, p := active(t, usual)
	p, effects, err := p.Step(lease.Ended{Fault: lease.Fault{Code: "whim", Text: "a\x1b[2Jb\n" + strings.Repeat("c", 300)}}, lease.Now{Uptime: 1})
	if err != nil {
		t.Fatal(err)
	}
	st := issued(t, effects).Body
	want := lease.Fault{Code: lease.FaultMachine, Text: "a?[2Jb " + strings.Repeat("c", lease.MaxText-7)}
	if got := st.Fault(); got != want || p.Fault() != want {
		t.Fatalf("got %+v stated and %+v kept, want %+v: what does not fit is made to", got, p.Fault(), want)
	}
	tenant = stepOK(t, tenant, lease.Judged{Statement: seal(providerDevice, st), Verdict: lease.Good}, lease.Now{Uptime: 1})
	if tenant.Record.Fault() != want || tenant.Fault() != want {
		t.Errorf("got %+v in the tenant's record, want the statement's", tenant.Record.Fault())
	}
	back := must(lease.ParseState(must(tenant.Encode())))
	if back.Fault() != want {
		t.Errorf("got %+v after a restart, want the same", back.Fault())
	}
	for name, r := range map[string]lease.CloseRecord{"the same": tenant.Record, "another": tenant.Record, "none": tenant.Record} {
		switch name {
		case "another":
			r.Ext = map[string][]byte{"fault": []byte("machine"), "fault-text": []byte("all my fault")}
		case "none":
			r.Ext = nil
		}
		err := p.CheckClose(lease.Close{Version: 1, Record: r, Signature: must(lease.SignClose(tenantDevice, r))})
		if (name == "the same") != (err == nil) || err != nil && !errors.Is(err, lease.CodeRecord) {
			t.Errorf("%s fault in the close record: got %v", name, err)
		}
	}
	// A tenant that ends a lease puts no words into the provider's mouth.
	_, q := active(t, usual)
	q.Code = lease.Code(lease.FaultPort) // of a dispute
	q = stepOK(t, q, lease.Received{Message: lease.CloseRequest{Version: 1, Lease: q.Lease, Reason: lease.ReasonWorkload, Text: "your fault"}}, lease.Now{Uptime: 1})
	if !q.Fault().IsZero() {
		t.Errorf("got %+v after a tenant's close, want none", q.Fault())
	}
}
