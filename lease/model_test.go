package lease_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// TestLeaseModel joins both sides by a network that loses, doubles, delays and
// reorders, lets either crash at any time, and lets either be hostile: then it
// signs and sends whatever it likes in any phase.
func TestLeaseModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"":          m.invariants,
			"time":      m.time,
			"deliver":   m.deliver,
			"lose":      m.lose,
			"double":    m.double,
			"crash":     m.crash,
			"reconnect": m.reconnect,
			"serving":   func(t *rapid.T) { m.serving = rapid.Bool().Draw(t, "serving") },
			"money":     func(t *rapid.T) { m.broke = rapid.Bool().Draw(t, "broke") },
			"close":     m.close,
			"forge":     m.forge,
			"amend":     m.amend,
			"apply":     m.apply,
			"settle":    m.settle,
		})
	})
}

type modelMessage struct {
	message lease.Message   // nil: a voucher
	voucher pktcloud.Amount // cumulative
}

// party is one side: its live state, and what would survive a crash.
type party struct {
	exists        bool
	live, durable lease.State
	statements    []pktcloud.Signed[lease.Statement] // journaled (provider)
	disputes      map[uint64]lease.DisputeMessage    // journaled (tenant)
	watch         uint64                             // provider's stopwatch
	channel       pktcloud.Amount                    // newest voucher in the channel manager
	announced     bool
	hostile       bool
	proposal      lease.Amend                       // journaled (tenant)
	acceptance    pktcloud.Signed[lease.Acceptance] // journaled (provider): the last one
	most          lease.Limits                      // that ever stood
}

type model struct {
	t        *rapid.T
	commit   lease.Commit
	now      uint64
	tenant   party
	provider party
	refused  bool // for good
	inbox    [2][]modelMessage
	serving  bool
	broke    bool
	settled  pktcloud.Amount // by CompleteClose
	closed   bool
	due      pktcloud.Amount // highest accepted by the tenant
	stored   int64           // when the provider stored the commit
	applying bool            // the provider's runtime is at it
}

const (
	toTenant   = 0
	toProvider = 1
)

func newModel(t *rapid.T) *model {
	limits := rapid.SampledFrom([]lease.Limits{
		usual,
		{Credit: 5 * perSecond, Unconfirmed: 1 << 30},
		{Credit: 1 * perSecond, Prepaid: 4 * perSecond, Unconfirmed: 1 << 30},
		{Credit: 10 * perSecond},
	}).Draw(t, "limits")
	m := &model{t: t, commit: commitFor(draft(limits), rapid.SampledFrom([]pktcloud.Amount{capacity0, 30 * perSecond}).Draw(t, "capacity")), serving: true}
	if limits.Unconfirmed > m.commit.Params.Capacity {
		d := draft(limits)
		d.Limits.Unconfirmed = m.commit.Params.Capacity
		m.commit = commitFor(d, m.commit.Params.Capacity)
	}
	m.tenant.disputes = map[uint64]lease.DisputeMessage{}
	m.tenant.most, m.provider.most = m.commit.Terms.Limits, m.commit.Terms.Limits
	m.tenant.hostile = rapid.IntRange(0, 3).Draw(t, "hostile tenant") == 0
	m.provider.hostile = rapid.IntRange(0, 3).Draw(t, "hostile provider") == 0
	s, effects := step0(lease.NewTenant(m.commit, m.at(&m.tenant)))
	m.tenant.exists, m.tenant.live, m.tenant.durable = true, s, s
	m.carryOut(&m.tenant, effects)
	return m
}

func (m *model) at(*party) lease.Now { return lease.Now{Unix: now0 + int64(m.now), Uptime: m.now} }

// step steps a side as its runner would: durable before it acts, except for
// the counting of seconds.
func (m *model) step(p *party, in lease.Input) error {
	before := must(p.live.Encode())
	next, effects, err := p.live.Step(in, m.at(p))
	if err != nil {
		if string(before) != string(must(p.live.Encode())) || !same(next, p.live) {
			m.t.Fatalf("%T: an error changed the state", in)
		}
		if _, ok := errors.AsType[*lease.Error](err); !ok {
			m.t.Fatalf("%T: error %v has no code", in, err)
		}
		return err
	}
	for i, e := range effects {
		switch e := e.(type) {
		case lease.Issue:
			st := must(pktcloud.Seal(providerDevice, e.Statement))
			p.statements = append(p.statements, st)
			effects[i] = lease.Send{Message: lease.StatementMessage{Version: 1, Statement: st}}
		case lease.Object:
			d := lease.DisputeMessage{Version: 1, Dispute: must(pktcloud.Seal(tenantDevice, e.Dispute))}
			p.disputes[e.Dispute.Sequence] = d
			effects[i] = lease.Send{Message: d}
		case lease.Accept:
			p.acceptance = must(pktcloud.Seal(providerDevice, e.Acceptance))
			effects[i] = lease.Send{Message: lease.AmendAck{Version: 1, Acceptance: p.acceptance}}
		case lease.Conclude:
			next = next.Signed(must(lease.SignClose(m.device(p), e.Record)))
		case lease.OfferClose:
			next = next.Signed(must(lease.SignClose(m.device(p), e.Record)))
		}
	}
	p.live = next
	if _, tick := in.(lease.Tick); !tick || len(effects) > 0 {
		p.durable = next
	}
	m.carryOut(p, effects)
	return nil
}

func (m *model) device(p *party) pktcloud.PrivateKey {
	if p == &m.provider {
		return providerDevice
	}
	return tenantDevice
}

func (m *model) send(p *party, msg modelMessage) {
	to := toTenant
	if p == &m.tenant {
		to = toProvider
	}
	if len(m.inbox[to]) < 64 {
		m.inbox[to] = append(m.inbox[to], msg)
	}
}

func (m *model) carryOut(p *party, effects []lease.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case lease.Send:
			m.send(p, modelMessage{message: e.Message})
		case lease.SendCommit:
			m.send(p, modelMessage{message: m.commit})
		case lease.Announce:
			if p == &m.tenant && !m.provider.exists {
				m.t.Fatal("the tenant broadcasts the funding of a lease that does not exist")
			}
			p.announced = true
			m.step(p, lease.Funding{Known: true, Confirmed: p.live.Confirmed})
		case lease.Start:
			if p.live.Phase == lease.Funded {
				m.must(p, lease.Launched{})
			}
			if p.live.Phase == lease.Starting {
				m.must(p, lease.Started{})
			}
		case lease.Resend:
			for _, st := range p.statements {
				if st.Body.Sequence > e.After {
					m.send(p, modelMessage{message: lease.StatementMessage{Version: 1, Statement: st}})
				}
			}
		case lease.SendAmend:
			if p.proposal.Amendment.Body.Attempt != p.live.Proposal.Attempt {
				m.t.Fatal("the tenant sends another amendment than it has under way")
			}
			m.send(p, modelMessage{message: p.proposal})
		case lease.Apply:
			m.applying = true
		case lease.AcceptAgain:
			if p.acceptance.Body.Revision != p.live.Revision {
				m.t.Fatalf("acceptance %d again at revision %d", p.acceptance.Body.Revision, p.live.Revision)
			}
			m.send(p, modelMessage{message: lease.AmendAck{Version: 1, Acceptance: p.acceptance}})
		case lease.ObjectAgain:
			m.send(p, modelMessage{message: p.disputes[e.Sequence]})
		case lease.Pay:
			m.pay(p, e)
		case lease.SendVoucher:
			m.send(p, modelMessage{voucher: p.channel})
		case lease.OfferClose:
			m.send(p, modelMessage{message: lease.Close{Version: 1, Record: e.Record, Signature: p.live.TenantClose, Offer: []byte("offer")}})
		case lease.Abandon:
			if p.announced {
				m.t.Fatal("a channel whose funding was broadcast is abandoned")
			}
		}
	}
}

func (m *model) must(p *party, in lease.Input) {
	if err := m.step(p, in); err != nil {
		m.t.Fatalf("%T: %v", in, err)
	}
}

// pay is the channel: it refuses what is beyond its own limits.
func (m *model) pay(p *party, e lease.Pay) {
	switch c := e.Entry.Cumulative; {
	case m.broke || m.closed:
		return
	case c > m.commit.Params.Spendable() || !p.live.Confirmed && c > m.commit.Params.Unconfirmed:
		m.t.Fatalf("the tenant wants to pay %d, beyond what the channel can", uint64(c))
	default:
		p.channel = max(p.channel, c)
	}
	m.must(p, lease.Paid{Cumulative: e.Entry.Cumulative})
}

func (m *model) time(t *rapid.T) {
	for range rapid.IntRange(1, 8).Draw(t, "seconds") {
		m.now++
		if m.provider.exists {
			if m.provider.live.Phase == lease.Active {
				m.provider.watch++
			}
			m.must(&m.provider, lease.Tick{Ran: m.provider.watch})
			if m.now > 30 {
				m.must(&m.provider, lease.Funding{Known: true, Confirmed: true})
			}
		}
		m.must(&m.tenant, lease.Tick{})
		if m.tenant.announced && m.now > 30 {
			m.must(&m.tenant, lease.Funding{Known: true, Confirmed: true})
		}
	}
}

func (m *model) pick(t *rapid.T, remove bool) (to int, msg modelMessage, ok bool) {
	to = rapid.IntRange(0, 1).Draw(t, "to")
	if len(m.inbox[to]) == 0 {
		return to, msg, false
	}
	i := 0
	if rapid.IntRange(0, 3).Draw(t, "reorder") == 0 {
		i = rapid.IntRange(0, len(m.inbox[to])-1).Draw(t, "index")
	}
	msg = m.inbox[to][i]
	if remove {
		m.inbox[to] = append(m.inbox[to][:i:i], m.inbox[to][i+1:]...)
	}
	return to, msg, true
}

func (m *model) lose(t *rapid.T) { m.pick(t, true) }

func (m *model) double(t *rapid.T) {
	if to, msg, ok := m.pick(t, false); ok && len(m.inbox[to]) < 64 {
		m.inbox[to] = append(m.inbox[to], msg)
	}
}

func (m *model) deliver(t *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(t, "messages") {
		to, msg, ok := m.pick(t, true)
		switch {
		case !ok:
		case to == toTenant:
			m.toTenant(t, msg.message)
		default:
			m.toProvider(t, msg)
		}
	}
}

func (m *model) toTenant(t *rapid.T, msg lease.Message) {
	st, ok := msg.(lease.StatementMessage)
	if !ok {
		m.step(&m.tenant, lease.Received{Message: msg})
		return
	}
	verdict := lease.Good
	switch {
	case !m.serving:
		verdict = lease.Bad
	case rapid.IntRange(0, 4).Draw(t, "blind") == 0:
		verdict = lease.Blind
	}
	m.step(&m.tenant, lease.Judged{Statement: st.Statement, Verdict: verdict, Text: "test"})
}

func (m *model) toProvider(t *rapid.T, msg modelMessage) {
	p := &m.provider
	if c, ok := msg.message.(lease.Commit); ok && !p.exists {
		m.agree(t, c)
		return
	}
	if !p.exists {
		return
	}
	switch in := msg.message.(type) {
	case nil:
		if msg.voucher > m.tenant.channel {
			t.Fatal("a voucher that was never made")
		}
		if m.closed || !p.live.Confirmed && msg.voucher > m.commit.Params.Unconfirmed {
			return // refused by the channel
		}
		p.channel = max(p.channel, msg.voucher)
		m.step(p, lease.Paid{Cumulative: msg.voucher})
	case lease.Close:
		if p.live.CheckClose(in) != nil || m.closed && in.Record.Paid != m.settled {
			return
		}
		m.settled, m.closed = in.Record.Paid, true
		m.must(p, lease.Completed{Close: in, Signature: must(lease.SignClose(providerDevice, in.Record))})
	case lease.Amend:
		if p.live.Answers(in.Amendment.Body) {
			m.step(p, lease.Received{Message: in})
			return
		}
		if rapid.IntRange(0, 4).Draw(t, "owner refuses") == 0 {
			m.step(p, lease.Turn{Attempt: in.Amendment.Body.Attempt, Code: lease.CodeCapacity, Text: "no room"})
			return
		}
		m.step(p, lease.TakeUp{Amendment: in.Amendment, Left: m.left(p)})
	default:
		m.step(p, lease.Received{Message: in})
	}
}

// agree answers a commit, for good.
func (m *model) agree(t *rapid.T, c lease.Commit) {
	id := must(c.Terms.ID())
	no := modelMessage{message: lease.Refuse{Version: 1, Lease: id, Code: lease.CodeCapacity}}
	if m.refused || rapid.IntRange(0, 9).Draw(t, "refuse") == 0 {
		m.refused = true
		m.send(&m.provider, no)
		return
	}
	s, effects, err := lease.NewProvider(c, must(lease.SignTerms(providerDevice, c.Terms)), m.at(&m.provider))
	if err != nil {
		m.send(&m.provider, no)
		return
	}
	m.provider.exists, m.provider.live, m.provider.durable = true, s, s
	m.stored = now0 + int64(m.now)
	m.carryOut(&m.provider, effects)
}

// crash loses all that is not durable: messages under way, and seconds served
// but not yet stated.
func (m *model) crash(t *rapid.T) {
	p := &m.tenant
	if rapid.Bool().Draw(t, "provider") {
		p = &m.provider
	}
	if !p.exists {
		return
	}
	s, err := lease.ParseState(must(p.durable.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	m.inbox = [2][]modelMessage{}
	if p == &m.provider {
		m.applying = false
	}
	p.live, p.durable, p.watch = s, s, s.Ran
	if p.channel > s.Paid && s.Phase < lease.Closed {
		m.must(p, lease.Paid{Cumulative: p.channel}) // the channel knew more
	}
	m.carryOut(p, s.Recover())
	m.carryOut(&m.tenant, m.tenant.live.Reconnect())
}

func (m *model) reconnect(*rapid.T) {
	m.inbox = [2][]modelMessage{}
	m.carryOut(&m.tenant, m.tenant.live.Reconnect())
}

func (m *model) close(t *rapid.T) {
	p := &m.tenant
	if rapid.Bool().Draw(t, "provider") {
		p = &m.provider
	}
	if p.exists && rapid.IntRange(0, 3).Draw(t, "really") == 0 {
		m.step(p, lease.CloseNow{Reason: lease.ReasonRequested})
	}
}

// forge lets a hostile side sign and send anything.
func (m *model) forge(t *rapid.T) {
	id := m.tenant.live.Lease
	small := rapid.Uint64Range(0, 40)
	if m.provider.hostile && m.provider.exists {
		to := small.Draw(t, "to")
		from := min(to, small.Draw(t, "from"))
		st := lease.Statement{
			Version: 1, Lease: id, Provider: providerDevice.Public(), Sequence: 1 + m.tenant.live.Sequence, From: from, To: to,
			Due: pktcloud.Amount(to * perSecond), State: rapid.SampledFrom([]lease.StatementState{lease.Running, lease.Frozen}).Draw(t, "state"),
		}
		if rapid.Bool().Draw(t, "wrong due") {
			st.Due = pktcloud.Amount(small.Draw(t, "due") * perSecond)
		}
		m.send(&m.provider, modelMessage{message: lease.StatementMessage{Version: 1, Statement: must(pktcloud.Seal(providerDevice, st))}})
		m.send(&m.provider, modelMessage{message: anything(t, id)})
		if a := m.tenant.live.Proposal; !a.IsZero() {
			x := acceptance(m.tenant.live, small.Draw(t, "counts from"))
			x.Attempt = rapid.Uint64Range(x.Revision, 6).Draw(t, "attempt")
			m.send(&m.provider, modelMessage{message: lease.AmendAck{Version: 1, Acceptance: seal(providerDevice, x)}})
		}
	}
	if m.tenant.hostile && m.provider.exists {
		d := lease.Dispute{
			Version: 1, Lease: id, Tenant: tenantDevice.Public(), Sequence: 1 + small.Draw(t, "sequence"),
			Accepted: small.Draw(t, "accepted"), Code: lease.CodeProbe,
		}
		m.send(&m.tenant, modelMessage{message: lease.DisputeMessage{Version: 1, Dispute: must(pktcloud.Seal(tenantDevice, d))}})
		s := m.provider.live
		r := lease.CloseRecord{
			Version: 1, Lease: id, Statement: s.Statement, Second: s.Served, Due: s.Due,
			Paid: pktcloud.Amount(small.Draw(t, "paid") * perSecond), By: lease.RoleTenant, Reason: lease.ReasonRequested,
		}
		m.send(&m.tenant, modelMessage{message: lease.Close{Version: 1, Record: r, Signature: must(lease.SignClose(tenantDevice, r))}})
		m.send(&m.tenant, modelMessage{message: anything(t, id)})
	}
}

func anything(t *rapid.T, id pktcloud.ID) lease.Message {
	n := rapid.Uint64Range(0, 9).Draw(t, "n")
	return rapid.SampledFrom([]lease.Message{
		lease.Ack{Version: 1, Lease: id},
		lease.Refuse{Version: 1, Lease: id, Code: lease.CodeLate},
		lease.Suspend{Version: 1, Lease: id, Second: n},
		lease.Resume{Version: 1, Lease: id, Second: n},
		lease.CloseRequest{Version: 1, Lease: id, Reason: lease.ReasonRequested},
		lease.CloseAck{Version: 1, Lease: id},
		lease.Attach{Version: 1, Lease: id, Sequence: n},
		lease.AmendRefuse{Version: 1, Lease: id, Attempt: 1 + n, Code: lease.CodeCapacity},
	}).Draw(t, "message")
}

func (m *model) invariants(t *rapid.T) {
	for _, p := range []*party{&m.tenant, &m.provider} {
		if !p.exists {
			continue
		}
		for _, s := range []lease.State{p.live, p.durable} {
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
		}
		now := p.live.Standing().Limits
		p.most.Credit, p.most.Prepaid = max(p.most.Credit, now.Credit), max(p.most.Prepaid, now.Prepaid)
		if e, l := p.live.Max, p.most; p == &m.provider && e.Credit > l.Credit || p == &m.tenant && e.Prepaid > l.Prepaid {
			t.Fatalf("%s: at risk %+v, limits %+v", p.live.Role, e, l)
		}
	}
	a, b := m.tenant.live, m.provider.live
	// Money: what the provider holds was paid, and what was paid was accepted.
	if b.Paid > a.Paid || m.provider.channel > m.tenant.channel {
		t.Fatalf("the provider holds %d units, the tenant paid %d", uint64(b.Paid), uint64(a.Paid))
	}
	if a.Due < m.due {
		t.Fatalf("the accepted due fell from %d to %d", uint64(m.due), uint64(a.Due))
	}
	m.due = a.Due
	if !m.tenant.hostile && !m.provider.hostile && m.provider.exists {
		if a.Revision > b.Revision || b.Revision > a.Revision+1 || b.Revision > a.Revision && a.Attempt != b.Attempt {
			t.Fatalf("the tenant stands at revision %d, the provider at %d", a.Revision, b.Revision)
		}
		if n := min(len(a.Segments), len(b.Segments)); fmt.Sprint(a.Segments[:n]) != fmt.Sprint(b.Segments[:n]) {
			t.Fatalf("two tariffs: %v and %v", a.Segments, b.Segments)
		}
	}
	if m.closed && (m.settled < m.provider.channel || m.settled > max(a.Due, a.Paid) && !m.tenant.hostile) {
		t.Fatalf("the chain pays %d units; vouchers say %d, accepted are %d", uint64(m.settled), uint64(m.provider.channel), uint64(a.Due))
	}
	m.agreement(t)
	m.records(t)
}

// agreement: the lease exists if and only if the provider stored the commit in
// time, and the tenant never believes otherwise.
func (m *model) agreement(t *rapid.T) {
	a := m.tenant.live
	agreed := a.Phase >= lease.Agreed && a.Phase <= lease.Closed
	switch {
	case m.provider.exists && m.stored >= m.commit.Terms.CommitBy:
		t.Fatal("a commit was stored after commitBy")
	case m.provider.exists && m.refused:
		t.Fatal("a refused commit became a lease")
	case agreed && !m.provider.exists:
		t.Fatal("the tenant believes in a lease that does not exist")
	case a.Phase == lease.Refused && m.provider.exists && !m.provider.hostile:
		t.Fatal("the tenant gave up a lease that exists")
	}
}

// records: both sides hold the same record, or one holds its own with evidence.
func (m *model) records(t *rapid.T) {
	a, b := m.tenant.live, m.provider.live
	if m.tenant.hostile || m.provider.hostile || !m.provider.exists {
		return
	}
	if a.Countersigned() && b.Countersigned() && fmt.Sprint(a.Record) != fmt.Sprint(b.Record) {
		t.Fatalf("two close records:\n%+v\n%+v", a.Record, b.Record)
	}
	for _, s := range []lease.State{a, b} {
		if s.Phase == lease.Closed && s.Sequence > 0 && s.Record.Statement.IsZero() && s.Served > 0 {
			t.Fatal("a close record without its evidence")
		}
		if s.Phase == lease.Closed && s.Role == lease.RoleTenant && s.Countersigned() && !b.Countersigned() {
			t.Fatal("the tenant holds a countersigned record that the provider does not")
		}
	}
}
