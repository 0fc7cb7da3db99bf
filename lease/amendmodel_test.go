package lease_test

import (
	"errors"
	"fmt"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// What the model of a lease does with amendments.

// left is what the channel has beyond the lease's share.
func (m *model) left(p *party) pktcloud.Amount {
	return m.commit.Params.Spendable().SubFloor(p.live.Spendable)
}

// amend lets the tenant propose anything; a hostile one says what it likes.
func (m *model) amend(t *rapid.T) {
	p := &m.tenant
	standing := p.live.Standing()
	a := amendment(p.live, func(a *lease.Amendment) {
		a.Rate = pktcloud.Rate(3600 * perSecond * rapid.Uint64Range(1, 6).Draw(t, "rate") / 2)
		a.TermSeconds = standing.TermSeconds + uint64(rapid.SampledFrom([]int{0, 0, 300, -300}).Draw(t, "term"))
		a.Limits.Credit = pktcloud.Amount(rapid.Uint64Range(0, 20).Draw(t, "credit") * perSecond)
		a.Limits.Prepaid = pktcloud.Amount(rapid.Uint64Range(0, 10).Draw(t, "prepaid") * perSecond)
		a.CommitBy = now0 + int64(m.now) + 20
	})
	if p.hostile && rapid.Bool().Draw(t, "forged") {
		a.Attempt = rapid.Uint64Range(1, 6).Draw(t, "attempt")
		a.Revision = rapid.Uint64Range(1, a.Attempt).Draw(t, "revision")
		m.send(p, modelMessage{message: lease.Amend{Version: 1, Amendment: seal(tenantDevice, a), Manifest: manifest()}})
		return
	}
	signed := seal(tenantDevice, a)
	if a.Validate() != nil {
		return
	}
	before := p.proposal
	p.proposal = lease.Amend{Version: 1, Amendment: signed, Manifest: manifest()}
	if m.step(p, lease.Propound{Amendment: signed, Left: m.left(p)}) != nil {
		p.proposal = before
	}
}

// apply is the provider's runtime, which carries an amendment out or cannot.
func (m *model) apply(t *rapid.T) {
	p := &m.provider
	if !m.applying || !p.exists {
		return
	}
	m.applying = !p.live.Proposal.IsZero()
	if rapid.IntRange(0, 3).Draw(t, "runtime refuses") == 0 {
		if m.step(p, lease.Turn{Attempt: p.live.Attempt, Code: lease.CodeCapacity, Text: "does not fit"}) == nil {
			m.applying = false
		}
		return
	}
	if err := m.step(p, lease.Applied{}); err == nil || !errors.Is(err, lease.CodeBusy) {
		m.applying = false
	}
}

// settle lets a network without losses and an able runtime end whatever is under
// way: both sides then stand at one revision, and what is due agrees.
func (m *model) settle(t *rapid.T) {
	if m.tenant.hostile || m.provider.hostile || !m.provider.exists || m.broke {
		return
	}
	m.reconnect(t)
	for range 300 {
		switch {
		case len(m.inbox[toProvider]) > 0:
			msg := m.inbox[toProvider][0]
			m.inbox[toProvider] = m.inbox[toProvider][1:]
			m.toProvider(t, msg)
		case len(m.inbox[toTenant]) > 0:
			msg := m.inbox[toTenant][0]
			m.inbox[toTenant] = m.inbox[toTenant][1:]
			m.toTenant(t, msg.message)
		case m.applying && m.step(&m.provider, lease.Applied{}) == nil:
			m.applying = false
		default:
			a, b := m.tenant.live, m.provider.live
			if a.Revision != b.Revision || fmt.Sprint(a.Segments) != fmt.Sprint(b.Segments) {
				t.Fatalf("the tenant stands at %d %v, the provider at %d %v", a.Revision, a.Segments, b.Revision, b.Segments)
			}
			if a.Served == b.Served && a.Due != b.Due {
				t.Fatalf("after %d s %d units are due to the tenant, %d to the provider", a.Served, uint64(a.Due), uint64(b.Due))
			}
			if !a.Proposal.IsZero() && b.Proposal.IsZero() && b.Phase < lease.Closing && a.Phase < lease.Closing {
				t.Fatal("an amendment has no answer")
			}
			return
		}
	}
	t.Fatal("messages without end")
}
