package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// proposal is an amendment under way, as the journal keeps it: with the offer
// that makes its rate.
type proposal struct {
	Version   uint64                           `cbor:"v"`
	Amendment pktcloud.Signed[lease.Amendment] `cbor:"amendment"`
	Manifest  lease.Manifest                   `cbor:"manifest"`
	Offer     pktcloud.Signed[market.Offer]    `cbor:"offer"`
}

func (r *runner) proposalKey() string { return key(r.id, "proposal") }

// countersigned are the puts that keep an amendment which stands from now on.
func (r *runner) countersigned(a pktcloud.Signed[lease.Acceptance]) []Put {
	c := lease.Countersigned{
		Version: lease.MessageVersion, Amendment: r.proposal.Amendment, Acceptance: a, Manifest: r.proposal.Manifest, Offer: r.proposal.Offer,
	}
	return []Put{{Key: numbered(r.id, "amendment", a.Body.Revision), Value: encode(c)}, {Key: r.proposalKey()}}
}

// adopt takes over what an amendment that stands has changed.
func (r *runner) adopt() {
	r.manifest, r.offer = r.proposal.Manifest, r.proposal.Offer
}

// amendText tells people of an amendment.
func amendText(was, is lease.Terms) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s an hour, %s before", pktcloud.Amount(is.Rate), pktcloud.Amount(was.Rate))
	for _, c := range []struct {
		what    string
		was, is uint64
		per     float64
		unit    string
	}{
		{"cpu", was.Resources.MilliCPU, is.Resources.MilliCPU, 1000, ""},
		{"memory", was.Resources.MemoryBytes, is.Resources.MemoryBytes, 1 << 20, " MiB"},
		{"disk", was.Resources.DiskBytes, is.Resources.DiskBytes, 1 << 20, " MiB"},
		{"term", was.TermSeconds, is.TermSeconds, 1, " s"},
	} {
		if c.was != c.is {
			fmt.Fprintf(&text, "; %s %g%s, %g before", c.what, float64(c.is)/c.per, c.unit, float64(c.was)/c.per)
		}
	}
	if was.Limits != is.Limits {
		fmt.Fprintf(&text, "; a credit of %s and %s prepaid at most, %s and %s before", is.Limits.Credit, is.Limits.Prepaid, was.Limits.Credit, was.Limits.Prepaid)
	}
	return text.String()
}

// left is what a lease's channel has for none of its leases.
func (p *party) left(ctx context.Context, ask func(context.Context, pktcloud.ID) (ChannelStatus, error),
	latest func(pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool), channel pktcloud.ID,
) (pktcloud.Amount, error) {
	st, err := ask(ctx, channel)
	if err != nil {
		return 0, &lease.Error{Code: lease.CodeBusy, Detail: "the channel cannot be looked at now; try again", Err: err}
	}
	v, _ := latest(channel)
	return lease.Left(st.Params, v.Body, shares(p.on(channel), st.Params)), nil
}

// amend takes an amendment: one that was seen before gets its answer again, a new
// one is judged.
func (p *Provider) amend(r *runner, m lease.Amend) error {
	a := m.Amendment.Body
	if a.Lease != r.id || a.Tenant != r.peer {
		return lease.Refusal(lease.CodeUnknown, "an amendment of another lease or device")
	}
	if r.state.Answers(a) {
		return r.step(lease.Received{Message: m}, "", "")
	}
	standing, was, offer := r.state.Standing(), r.manifest, r.offer
	r.background("amend", func(ctx context.Context) func() {
		p.agree.Lock() // room is asked for and taken together
		defer p.agree.Unlock()
		next := proposal{Version: lease.MessageVersion, Amendment: m.Amendment, Manifest: m.Manifest, Offer: offer}
		left, err := p.admitAmendment(ctx, standing, was, &next)
		if ctx.Err() != nil {
			return nil // the tenant asks again
		}
		taken := make(chan struct{})
		if r.post(func() { defer close(taken); p.takeUp(r, next, left, err) }) {
			select {
			case <-taken:
			case <-p.done():
			}
		}
		return nil
	})
	return nil
}

// admitAmendment says whether offer, owner and machine allow an amendment, and what
// its channel has left. It fills in the offer that the amendment names.
func (p *Provider) admitAmendment(ctx context.Context, standing lease.Terms, was lease.Manifest, next *proposal) (pktcloud.Amount, error) {
	a := next.Amendment.Body
	if a.Offer != standing.Offer {
		offer, open := p.cfg.Offer(a.Offer)
		if !open {
			return 0, lease.Refusal(lease.CodeOffer, "the offer is not open; look for a newer one")
		}
		next.Offer = offer
	}
	if err := lease.CheckAmendment(next.Offer, standing, was, next.Manifest, a); err != nil {
		return 0, err
	}
	if _, ok := p.cfg.Workload.(Resizer); !ok && a.Manifest != standing.Manifest {
		return 0, lease.Refusal(lease.CodeManifest, "this provider changes no size of what runs; make a new lease")
	}
	if p.cfg.AdmitAmendment != nil {
		if err := p.cfg.AdmitAmendment(ctx, a.Lease, next.Offer.Body, standing.Amended(a), next.Manifest); err != nil {
			if _, ok := errors.AsType[*lease.Error](err); ok {
				return 0, err
			}
			return 0, &lease.Error{Code: lease.CodeCapacity, Detail: err.Error()}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	return p.left(ctx, p.cfg.Payee.ChannelStatus, p.cfg.Payee.Latest, p.current(standing.Channel))
}

// takeUp makes durable that an amendment is taken up, or refused.
func (p *Provider) takeUp(r *runner, next proposal, left pktcloud.Amount, judged error) {
	p.count(r)
	p.followRoll(r)
	a := next.Amendment.Body
	if judged != nil {
		if !r.state.Answers(a) {
			err := r.step(lease.Turn{Attempt: a.Attempt, Code: lease.CodeOf(judged), Text: lease.Plainly(judged)}, "amend", "refused: "+lease.Plainly(judged))
			r.event("amend", err)
			r.lost(err)
		}
		return
	}
	in := lease.TakeUp{Amendment: next.Amendment, Left: left}
	was, kind, text, puts := r.proposal, "", "", []Put(nil)
	after, _, err := r.state.Step(in, r.now())
	switch {
	case err == nil && r.state.Proposal.IsZero() && !after.Proposal.IsZero():
		r.proposal, kind, text = next, "amend", "asked for: "+amendText(r.state.Standing(), r.state.Standing().Amended(a))
		puts = []Put{{Key: r.proposalKey(), Value: encode(next)}}
	case err == nil && after.Attempt != r.state.Attempt:
		kind, text = "amend", "refused: "+after.Declined.Text
	}
	if err := r.step(in, kind, text, puts...); err != nil {
		r.proposal = was
		r.event("amend", err)
		r.lost(err) // the tenant attaches again, and asks again
	}
}

// apply has the runtime carry out what was taken up, also after a restart. Where
// the runtime can say neither yes nor no it is asked again [AMEND-5].
func (p *Provider) apply(r *runner) {
	a, m := r.state.Proposal, r.proposal.Manifest
	if a.IsZero() {
		return
	}
	if a.Manifest == r.state.Standing().Manifest {
		p.applied(r)
		return
	}
	resizer, ok := p.cfg.Workload.(Resizer)
	if !ok { // it could before the restart
		p.turn(r, a.Attempt, lease.Refusal(lease.CodeManifest, "this provider changes no size of what runs any more"))
		return
	}
	r.background("apply", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		crash.Point("amend apply")
		err := resizer.Resize(ctx, r.id, m)
		crash.Point("amend apply")
		return func() {
			if r.ctx.Err() != nil || r.state.Proposal.Attempt != a.Attempt {
				return
			}
			refused, ok := errors.AsType[*lease.Error](err)
			switch {
			case err == nil:
				p.applied(r)
			case ok:
				p.turn(r, a.Attempt, refused)
			default:
				r.event("amend", err)
				r.later("apply later", retryDelay, func() { p.apply(r) })
			}
		}
	})
}

// turn refuses what cannot be carried out.
func (p *Provider) turn(r *runner, attempt uint64, why *lease.Error) {
	text := lease.Plainly(why)
	err := r.step(lease.Turn{Attempt: attempt, Code: why.Code, Text: text}, "amend", "refused: "+text, Put{Key: r.proposalKey()})
	if err != nil {
		r.event("amend", err)
		r.later("turn", retryDelay, func() {
			if r.state.Proposal.Attempt == attempt {
				p.turn(r, attempt, why)
			}
		})
	}
}

// applied makes an amendment stand that is carried out.
func (p *Provider) applied(r *runner) {
	a := r.state.Proposal
	if a.IsZero() || !r.state.Phase.Running() {
		return
	}
	p.count(r)
	if r.state.Proposal.Attempt != a.Attempt {
		return // that was the end of the lease
	}
	was := r.state.Standing()
	err := r.step(lease.Applied{}, "amended", amendText(was, was.Amended(a)))
	if err == nil {
		return
	}
	if !errors.Is(err, lease.CodeBusy) { // what is unpaid is paid soon
		r.event("amend", err)
	}
	r.later("applied", retryDelay, func() { p.applied(r) })
}

// acceptAgain sends the last acceptance again.
func (p *Provider) acceptAgain(r *runner) {
	want := numbered(r.id, "amendment", r.state.Revision)
	err := p.store.Load(r.ctx, want, func(k string, value []byte) error {
		c, err := lease.ParseCountersigned(value)
		if err == nil && k == want {
			r.send(lease.AmendAck{Version: lease.MessageVersion, Acceptance: c.Acceptance})
		}
		return err
	})
	r.event("amend", err)
}
