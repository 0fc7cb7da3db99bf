package lease

import (
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Decline is why an amendment was refused; zero where it was not.
type Decline struct {
	Code Code   `cbor:"code" json:"code"`
	Text string `cbor:"text" json:"text"`
}

// Standing returns the terms as amended: what holds now.
func (s State) Standing() Terms {
	if s.Present.IsZero() {
		return s.Terms
	}
	return s.Terms.Amended(s.Present)
}

// Tariff returns what each second costs.
func (s State) Tariff() Tariff {
	return append(Tariff{{Rate: s.Terms.Rate}}, s.Segments...)
}

// DueAfter returns what is owed after a number of seconds served [LEASE-10].
func (s State) DueAfter(seconds uint64) (pktcloud.Amount, error) {
	return s.Tariff().DueAfter(seconds)
}

// conceded is what the seconds that the provider conceded would have cost. Of a
// lease that was never amended that is their number times the rate.
func (s State) conceded() pktcloud.Due {
	if s.Revision > 0 {
		return s.Conceded
	}
	d, err := pktcloud.Due{}.Accrue(s.Terms.Rate, s.Forfeited)
	if err != nil {
		return s.Conceded // Check refuses such a state
	}
	return d
}

// concede counts the price of the seconds after one that are conceded.
func (s *State) concede(accepted uint64) error {
	if s.Revision == 0 {
		return nil // it follows from their number
	}
	whole, err := s.Tariff().accrued(s.Served)
	if err != nil {
		return err
	}
	kept, err := s.Tariff().accrued(accepted)
	if err != nil {
		return err
	}
	s.Conceded, err = plus(s.Conceded, minus(whole, kept))
	return err
}

// rendered is the price of all service, conceded seconds included: each at the
// rate at which it was served.
func (s State) rendered() (pktcloud.Amount, error) {
	d, err := s.Tariff().accrued(s.charged())
	if err == nil {
		d, err = plus(d, s.conceded())
	}
	if err != nil {
		return 0, err
	}
	a, err := d.Amount()
	return a, wrap(CodeMalformed, "the service rendered", err)
}

// Whole is the price of the whole term, and what may be prepaid: what the lease
// may take of a channel that has enough [LEASE-26] [AMEND-6].
func (s State) Whole() pktcloud.Amount {
	t := s.Standing()
	price, err := s.DueAfter(t.TermSeconds)
	if err != nil {
		return 0
	}
	return price + t.Limits.Prepaid
}

// Wants is the same, and while an amendment is under way also by that one.
func (s State) Wants() pktcloud.Amount { return max(s.Whole(), s.Room) }

// share is what the lease may take of a channel.
func (s State) share(p settle.Params) pktcloud.Amount { return min(s.Whole(), p.Spendable()) }

// prepaidLimit is the least of what the tenant may prepay by the terms, and by
// those that it has proposed: the provider may have accepted them by now.
func (s State) prepaidLimit() pktcloud.Amount {
	limit := s.Standing().Limits.Prepaid
	if !s.Proposal.IsZero() && s.Role == RoleTenant {
		limit = min(limit, s.Proposal.Limits.Prepaid)
	}
	return limit
}

// Answers reports whether an amendment of the tenant gets the answer that it had,
// or none: it was answered or is being carried out. Else it is to be judged:
// [TakeUp] or [Turn].
func (s State) Answers(a Amendment) bool { return a.Attempt <= s.Attempt }

// amendable refuses an amendment that cannot follow on what stands [AMEND-2].
func (s State) amendable(a Amendment, left pktcloud.Amount) (room pktcloud.Amount, err error) {
	t := s.Terms.Amended(a)
	second := s.Served
	if s.Role == RoleProvider {
		second = s.charged()
	}
	switch {
	case s.Phase != Active:
		return 0, Refusal(CodePhase, "the lease is %s; only one that runs is amended", s.Phase)
	case a.Revision != s.Revision+1:
		return 0, Refusal(CodeSequence, "revision %d after %d", a.Revision, s.Revision)
	case t.TermSeconds < second+MinAmendedSeconds:
		return 0, Refusal(CodeLimits, "a term of %d s, %d are served; it ends no sooner than in %d s", t.TermSeconds, second, MinAmendedSeconds)
	}
	if err := t.validateLimits(); err != nil {
		return 0, err
	}
	whole := s.from(a, second).Whole()
	whole = max(whole, s.from(a, min(second+amendSlack, t.TermSeconds)).Whole()) // it may take a while
	if whole > s.Spendable && whole-s.Spendable > left {
		return 0, Refusal(CodeChannel, "the amended term costs up to %s of the channel, %s more than it has for this lease; add money to the channel first",
			whole, (whole - s.Spendable).SubFloor(left))
	}
	return max(whole, s.Spendable), nil
}

// from is the state with an amendment that stands from a second on.
func (s State) from(a Amendment, second uint64) State {
	s.begin(a, second)
	return s
}

// amendSlack is how many seconds may be served before an amendment stands, as
// far as the lease's share is concerned.
const amendSlack = 600

// begin makes an amendment stand from a second of service on [AMEND-9].
func (s *State) begin(a Amendment, from uint64) {
	s.Conceded = s.conceded()
	s.Segments = append(slices.Clone(s.Segments), Segment{From: from, Rate: a.Rate})
	s.Present, s.Revision = a, a.Revision
}

// amended begins an amendment, and counts the lease's share anew [AMEND-6].
func (s *State) amended(a Amendment, from uint64) {
	room := max(s.Room, s.Spendable)
	s.begin(a, from)
	s.Proposal, s.Room, s.Declined = Amendment{}, 0, Decline{}
	s.Spendable = max(min(s.Whole(), room), s.Paid)
}

// propose is the tenant's wish to amend [AMEND-1].
func (s *State) propose(in Propound) ([]Effect, error) {
	a := in.Amendment.Body
	if err := asRefusal(in.Amendment.Verify()); err != nil {
		return nil, err
	}
	switch {
	case a.Lease != s.Lease || a.Tenant != s.Terms.TenantDevice:
		return nil, Refusal(CodeUnknown, "an amendment of another lease or device")
	case !s.Proposal.IsZero():
		return nil, Refusal(CodeBusy, "an amendment is under way; wait for its answer")
	case a.Attempt != s.Attempt+1:
		return nil, Refusal(CodeSequence, "attempt %d after %d", a.Attempt, s.Attempt)
	}
	room, err := s.amendable(a, in.Left)
	if err != nil {
		return nil, err
	}
	if s.Paid > s.Due+a.Limits.Prepaid {
		return nil, Refusal(CodeBusy, "%s are paid ahead now, more than the new limit of %s; try again later", s.Paid-s.Due, a.Limits.Prepaid)
	}
	s.Proposal, s.Attempt, s.Room, s.Declined = a, a.Attempt, room, Decline{}
	return []Effect{SendAmend{}}, nil
}

// takeUp begins to carry an amendment out, or refuses it for good: either is
// durable before anything else [AMEND-5].
func (s *State) takeUp(in TakeUp, now Now) ([]Effect, error) {
	a := in.Amendment.Body
	if err := asRefusal(in.Amendment.Verify()); err != nil {
		return nil, err
	}
	switch {
	case a.Lease != s.Lease || a.Tenant != s.Terms.TenantDevice:
		return nil, Refusal(CodeUnknown, "an amendment of another lease or device")
	case s.Answers(a):
		return s.answerAmend(a), nil
	case !s.Proposal.IsZero():
		return nil, Refusal(CodeBusy, "an amendment is under way")
	}
	room, err := s.amendable(a, in.Left)
	if err == nil && now.Unix >= a.CommitBy {
		err = Refusal(CodeLate, "commitBy has passed by %d s", now.Unix-a.CommitBy)
	}
	if err != nil {
		return s.turn(a.Attempt, err), nil
	}
	s.Proposal, s.Attempt, s.Room, s.Declined = a, a.Attempt, room, Decline{}
	return []Effect{Apply{}}, nil
}

// turn refuses an attempt for good.
func (s *State) turn(attempt uint64, err error) []Effect {
	s.Attempt, s.Proposal, s.Room = attempt, Amendment{}, 0
	s.Declined = Decline{CodeOf(err), Clip(Plainly(err))}
	return []Effect{Send{s.refusal()}}
}

func (s State) refusal() AmendRefuse {
	return AmendRefuse{Version: MessageVersion, Lease: s.Lease, Attempt: s.Attempt, Code: s.Declined.Code, Text: s.Declined.Text}
}

// answerAmend is what an attempt that was seen before is told [AMEND-8].
func (s State) answerAmend(a Amendment) []Effect {
	switch {
	case a.Attempt < s.Attempt || !s.Proposal.IsZero():
		return nil // the tenant has gone on since, or hears of it when it is carried out
	case s.Declined != (Decline{}):
		return []Effect{Send{s.refusal()}}
	}
	return []Effect{AcceptAgain{}}
}

// applied makes an amendment that the runtime has carried out stand: a statement
// ends here, and the next one begins at the new rate [AMEND-7] [AMEND-9].
func (s *State) applied(now Now) ([]Effect, error) {
	if s.Proposal.IsZero() || !s.Phase.Running() {
		return nil, s.refusePhase("the end of an amendment")
	}
	a := s.Proposal
	rendered, err := s.rendered()
	if err != nil {
		return nil, err
	}
	if rendered.SubFloor(s.Paid) > a.Limits.Credit {
		return nil, Refusal(CodeBusy, "%s are unpaid, more than the new credit of %s; it begins once they are paid", rendered.SubFloor(s.Paid), a.Limits.Credit)
	}
	id, err := idOf(a)
	if err != nil {
		return nil, err
	}
	state := Running
	if s.Phase == Suspended {
		state = Frozen
	}
	effects, err := s.issue(state, now)
	if err != nil {
		return nil, err
	}
	s.amended(a, s.Served)
	effects = append(effects, Accept{Acceptance{
		Version: AmendmentVersion, Lease: s.Lease, Provider: s.Terms.ProviderDevice, Amendment: id,
		Revision: a.Revision, Attempt: a.Attempt, From: s.Served, Issued: max(now.Unix, 0),
	}})
	return append(effects, s.resumed()...), nil
}

// accepted makes an amendment stand for the tenant: from a second that it has
// not yet paid for at the old rate, and that it can believe [AMEND-11].
func (s *State) accepted(m AmendAck, now Now) ([]Effect, error) {
	b := m.Acceptance.Body
	if err := asRefusal(m.Acceptance.Verify()); err != nil {
		return nil, err
	}
	switch {
	case b.Lease != s.Lease || b.Provider != s.Terms.ProviderDevice:
		return nil, Refusal(CodeUnknown, "an acceptance of another lease or device")
	case b.Revision <= s.Revision:
		return nil, nil // again
	case s.Proposal.IsZero() || s.Phase < Agreed || s.Phase >= Closed:
		return nil, Refusal(CodeUnknown, "an acceptance of what is not proposed")
	}
	if err := b.Of(s.Proposal); err != nil {
		return nil, err
	}
	switch t := s.Standing(); {
	case b.From < s.Served:
		return nil, Refusal(CodeSequence, "it counts from second %d, accepted are %d", b.From, s.Served)
	case b.From > now.Uptime+t.IntervalSeconds:
		return nil, Refusal(CodeAhead, "it counts from second %d, only %d have passed", b.From, now.Uptime)
	}
	s.amended(s.Proposal, b.From)
	return s.pay(), nil
}

// refusedAmend forgets what the provider refused for good [AMEND-8].
func (s *State) refusedAmend(m AmendRefuse) ([]Effect, error) {
	if m.Lease != s.Lease {
		return nil, Refusal(CodeUnknown, "a refusal of another lease")
	}
	if s.Proposal.IsZero() || m.Attempt != s.Proposal.Attempt {
		return nil, nil // again
	}
	s.Proposal, s.Room, s.Declined = Amendment{}, 0, Decline{m.Code, Clip(m.Text)}
	return s.pay(), nil
}

// unanswered is what a side that ends the lease does with an amendment under way
// [AMEND-12].
func (s *State) unanswered() []Effect {
	if s.Proposal.IsZero() {
		return nil
	}
	if s.Role == RoleProvider {
		return s.turn(s.Attempt, Refusal(CodePhase, "the lease ends"))
	}
	s.Proposal, s.Room, s.Declined = Amendment{}, 0, Decline{CodePhase, "the lease ended"}
	return nil
}

// checkAmendments states what always holds of amendments.
func (s State) checkAmendments() error {
	if uint64(len(s.Segments)) != s.Revision || s.Revision != s.Present.Revision || s.Revision > MaxRevisions {
		return Refusal(CodeMalformed, "revision %d with %d segments, present is %d", s.Revision, len(s.Segments), s.Present.Revision)
	}
	for i, g := range s.Segments {
		if i > 0 && g.From < s.Segments[i-1].From {
			return Refusal(CodeMalformed, "segment %d begins at second %d, before the last one", i, g.From)
		}
		if err := g.Rate.Validate(); err != nil {
			return wrap(CodeMalformed, "a rate", err)
		}
	}
	if s.Revision > 0 && (s.Segments[s.Revision-1].Rate != s.Present.Rate || s.Present.Attempt > s.Attempt) {
		return Refusal(CodeMalformed, "the last segment is not that of revision %d", s.Revision)
	}
	if s.Revision == 0 && s.Conceded != (pktcloud.Due{}) {
		return Refusal(CodeMalformed, "a lease that was never amended counts conceded seconds alone")
	}
	for _, a := range []Amendment{s.Present, s.Proposal} {
		if a.IsZero() {
			if !isZeroAmendment(a) {
				return Refusal(CodeMalformed, "an amendment without a version")
			}
			continue
		}
		if err := a.Validate(); err != nil {
			return err
		}
	}
	if !s.Proposal.IsZero() && (s.Proposal.Attempt != s.Attempt || s.Proposal.Revision != s.Revision+1) {
		return Refusal(CodeMalformed, "attempt %d is under way, the last is %d", s.Proposal.Attempt, s.Attempt)
	}
	return nil
}

func isZeroAmendment(a Amendment) bool {
	x, errX := idOf(a)
	y, errY := idOf(Amendment{})
	return errX == nil && errY == nil && x == y
}
