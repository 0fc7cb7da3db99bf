package peer

import (
	"context"
	"errors"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

// amendSeconds is how long a provider may take to begin with an amendment, by
// its own clock.
const amendSeconds = 120

// AmendRequest is what shall change of a lease. What is zero stays as it is.
type AmendRequest struct {
	// Manifest differs from the lease's in sizes alone.
	Manifest    lease.Manifest
	Limits      *lease.Limits
	TermSeconds uint64 // of service, from the start of the lease
	// Offer is another one of the same provider, that is open, for its prices;
	// zero: the one that the lease has.
	Offer   pktcloud.Signed[market.Offer]
	MaxRate pktcloud.Rate // that may stand afterwards; zero pays nothing
}

// PlanAmendment says what Amend would propose: with the rate that follows from
// the offer. Errors are refusals of package lease.
func (t *Tenant) PlanAmendment(ctx context.Context, id pktcloud.ID, req AmendRequest) (a lease.Amendment, err error) {
	done := make(chan struct{})
	err = t.within(ctx, id, done, func(r *runner) error {
		next, left, err := t.planAmendment(ctx, r, req)
		if err == nil {
			a = next.Amendment.Body
			_, _, err = r.state.Step(lease.Propound{Amendment: next.Amendment, Left: left}, r.now())
		}
		return err
	})
	return a, err
}

// Amend proposes an amendment and returns once the provider has answered: the
// lease as amended, or a refusal, with all as it was. When ctx ends first, or no
// answer comes within the patience of the config, [ErrAmending], Run goes on
// asking, and the view tells.
func (t *Tenant) Amend(ctx context.Context, id pktcloud.ID, req AmendRequest) (View, error) {
	var attempt uint64
	done := make(chan struct{})
	err := t.within(ctx, id, done, func(r *runner) error {
		t.sharing.Lock()
		defer t.sharing.Unlock()
		next, left, err := t.planAmendment(ctx, r, req)
		if err != nil {
			return err
		}
		a := next.Amendment.Body
		was := r.proposal
		r.proposal, attempt = next, a.Attempt
		standing := r.state.Standing()
		err = r.step(lease.Propound{Amendment: next.Amendment, Left: left}, "amend", "asked for: "+amendText(standing, standing.Amended(a)),
			Put{Key: r.proposalKey(), Value: encode(next)})
		if err != nil {
			r.proposal = was
		}
		return err
	})
	if err != nil {
		return View{}, err
	}
	r, _ := t.runner(id)
	patient, cancel := context.WithTimeoutCause(ctx, t.cfg.Patience, ErrAmending)
	defer cancel()
	v, err := r.wait(patient, func(v View) bool { return v.Amending == nil || v.Amending.Attempt != attempt })
	switch {
	case err != nil && ctx.Err() == nil && patient.Err() != nil:
		return v, context.Cause(patient)
	case err != nil:
		return v, err
	case v.Declined != (lease.Decline{}):
		return v, lease.Refusal(v.Declined.Code, "%s", v.Declined.Text)
	}
	return v, nil
}

// PricesOf returns the offer that makes a lease's rate.
func (t *Tenant) PricesOf(id pktcloud.ID) (market.Offer, bool) {
	r, ok := t.runner(id)
	if !ok {
		return market.Offer{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.prices, true
}

// within runs f in a lease's goroutine.
func (t *Tenant) within(ctx context.Context, id pktcloud.ID, done chan struct{}, f func(r *runner) error) (err error) {
	if _, err := t.running(ctx); err != nil {
		return err
	}
	r, ok := t.runner(id)
	if !ok {
		return lease.Refusal(lease.CodeUnknown, "no lease %s here", id)
	}
	if !r.post(func() { defer close(done); err = f(r) }) {
		return errStopped
	}
	select { // f has the caller's variables: it is waited for also when ctx ends
	case <-done:
		return err
	case <-t.done():
		return errStopped
	}
}

// planAmendment makes the amendment that follows on what stands.
func (t *Tenant) planAmendment(ctx context.Context, r *runner, req AmendRequest) (proposal, pktcloud.Amount, error) {
	standing := r.state.Standing()
	next := proposal{Version: lease.MessageVersion, Manifest: r.manifest, Offer: r.offer}
	if req.Manifest.Version != 0 {
		next.Manifest = req.Manifest
	}
	if req.Offer.Body.Version != 0 {
		next.Offer = req.Offer
	}
	if err := next.Manifest.Validate(); err != nil {
		return next, 0, err
	}
	a := lease.Amendment{
		Version: lease.AmendmentVersion, Lease: r.id, Tenant: t.device.Public(), Revision: r.state.Revision + 1, Attempt: r.state.Attempt + 1,
		Resources: next.Manifest.Resources(), Limits: standing.Limits, TermSeconds: standing.TermSeconds, CommitBy: t.clock.Now().Unix() + amendSeconds,
	}
	if req.Limits != nil {
		a.Limits = *req.Limits
	}
	if req.TermSeconds != 0 {
		a.TermSeconds = req.TermSeconds
	}
	var err error
	if a.Offer, err = next.Offer.ID(); err != nil {
		return next, 0, err
	}
	if a.Manifest, err = next.Manifest.ID(); err != nil {
		return next, 0, err
	}
	if a.Rate, err = next.Offer.Body.Rate(a.Resources); err != nil {
		return next, 0, &lease.Error{Code: lease.CodePrice, Detail: "the price", Err: err}
	}
	if a.Rate > req.MaxRate {
		return next, 0, lease.Refusal(lease.CodePrice, "it would cost %s an hour, at most %s is allowed", pktcloud.Amount(a.Rate), pktcloud.Amount(req.MaxRate))
	}
	if err := lease.CheckAmendment(next.Offer, standing, r.manifest, next.Manifest, a); err != nil {
		return next, 0, err
	}
	if next.Amendment, err = pktcloud.Seal(t.device, a); err != nil {
		return next, 0, err
	}
	if next.Amendment.Body.Offer != standing.Offer {
		if err := market.Admit(next.Offer.Body, t.clock.Now()); err != nil {
			return next, 0, &lease.Error{Code: lease.CodeOffer, Detail: "the offer", Err: err}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	left, err := t.left(ctx, t.cfg.Payer.ChannelStatus, t.cfg.Payer.Latest, t.followRoll(r))
	return next, left, err
}

// sendAmend sends the proposal, again if need be.
func (t *Tenant) sendAmend(r *runner) {
	r.send(lease.Amend{Version: lease.MessageVersion, Amendment: r.proposal.Amendment, Manifest: r.proposal.Manifest})
}

// amended takes the provider's acceptance.
func (t *Tenant) amended(r *runner, m lease.AmendAck) error {
	kind, text, puts := "", "", []Put(nil)
	if b := m.Acceptance.Body; b.Revision > r.state.Revision && !r.state.Proposal.IsZero() {
		was := r.state.Standing()
		kind, text, puts = "amended", amendText(was, was.Amended(r.state.Proposal)), r.countersigned(m.Acceptance)
	}
	return r.step(lease.Received{Message: m}, kind, text, puts...)
}

// notAmended takes the provider's refusal.
func (t *Tenant) notAmended(r *runner, m lease.AmendRefuse) error {
	kind, text, puts := "", "", []Put(nil)
	if !r.state.Proposal.IsZero() && r.state.Proposal.Attempt == m.Attempt {
		kind, text, puts = "amend", "refused: "+string(m.Code)+": "+m.Text, []Put{{Key: r.proposalKey()}}
	}
	return r.step(lease.Received{Message: m}, kind, text, puts...)
}

// ErrAmending marks an amendment that was sent and not yet answered.
var ErrAmending = errors.New("lease: the provider has not answered the amendment yet; it is asked on and on")
