package lease

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func (s *State) stepTenant(in Input, now Now) ([]Effect, error) {
	switch in := in.(type) {
	case Received:
		return s.tenantReceived(in.Message, now)
	case Judged:
		return s.judged(in, now)
	case Propound:
		return s.propose(in)
	case Paid:
		return s.tenantPaid(in.Cumulative)
	case Rolled:
		return nil, s.rolled(in.Successor)
	case Funding:
		return s.tenantFunding(in)
	case Tick:
		return s.tenantTick(now)
	case CloseNow:
		return s.tenantClose(in.Reason, now)
	default:
		return nil, s.refusePhase("an input of the other side")
	}
}

func (s *State) tenantReceived(m Message, now Now) ([]Effect, error) {
	switch m := m.(type) {
	case Ack:
		return s.acknowledged(m, now)
	case Refuse:
		return s.refused(m)
	case Suspend:
		if m.Lease == s.Lease && s.Phase == Active {
			s.Phase = Suspended
		}
		return nil, nil
	case Resume:
		if m.Lease == s.Lease && s.Phase == Suspended {
			s.Phase = Active
		}
		return nil, nil
	case CloseAck:
		return nil, s.closeAcknowledged(m)
	case AmendAck:
		return s.accepted(m, now)
	case AmendRefuse:
		return s.refusedAmend(m)
	default:
		return nil, s.refusePhase("a " + m.MessageType() + " to a tenant")
	}
}

// acknowledged makes the lease. Only now may the funding be broadcast
// [LEASE-8]. What was to end before is closed at once [LEASE-47].
func (s *State) acknowledged(m Ack, now Now) ([]Effect, error) {
	if m.Lease != s.Lease {
		return nil, Refusal(CodeUnknown, "an acknowledgement of another lease")
	}
	if err := s.Terms.Verify(RoleProvider, m.Signature); err != nil {
		return nil, err
	}
	if s.Phase != Proposed {
		return nil, nil // again
	}
	s.Phase, s.ProviderSig = Agreed, m.Signature
	if !s.Cancel {
		return []Effect{Announce{}}, nil
	}
	closing, err := s.tenantClose(ReasonRequested, now)
	return append([]Effect{Announce{}}, closing...), err
}

// refused ends what was never agreed. A provider that is busy or at fault is
// asked again [LEASE-8].
func (s *State) refused(m Refuse) ([]Effect, error) {
	if m.Lease != s.Lease {
		return nil, Refusal(CodeUnknown, "a refusal of another lease")
	}
	s.Code, s.Text = m.Code, Clip(m.Text)
	if s.Phase != Proposed || m.Code == CodeBusy || m.Code == CodeInternal {
		return nil, nil
	}
	s.Phase = Refused
	return []Effect{Abandon{}}, nil
}

func (s *State) tenantFunding(f Funding) ([]Effect, error) {
	if s.Phase < Agreed || s.Phase >= Closed {
		return nil, nil
	}
	s.Confirmed = f.Confirmed
	if s.Phase == Agreed && (f.Known || f.Confirmed) {
		s.Phase = Funded
	}
	return s.pay(), nil
}

func (s *State) tenantTick(now Now) ([]Effect, error) {
	switch s.Phase {
	case Proposed: // nobody answered for as long as a provider answers [LEASE-8]
		if now.Unix >= s.Terms.CommitBy+AnswerSeconds {
			s.Phase, s.Code = Refused, CodeLate
			return []Effect{Abandon{}}, nil
		}
	case Closing:
		if s.late(now) {
			return s.conclude(ReasonGone, RoleTenant), nil
		}
	case Agreed, Funded, Starting, Active, Suspended, Closed, Refused, Failed:
	}
	return nil, nil
}

func (s *State) tenantClose(reason Reason, now Now) ([]Effect, error) {
	if s.Phase == Proposed && reason.Valid() { // the provider may have stored it [LEASE-8]
		s.Cancel = true
		return nil, nil
	}
	if s.Phase < Agreed || s.Phase >= Closing {
		return nil, s.refusePhase("a close")
	}
	if !reason.Valid() {
		return nil, Refusal(CodeMalformed, "the reason is not on the list")
	}
	s.Phase, s.ClosingAt, s.By, s.Reason = Closing, now.Uptime, RoleTenant, reason
	return []Effect{Send{s.closeRequest()}}, nil
}

// judged accepts a statement, or disputes it [LEASE-10] [LEASE-11].
func (s *State) judged(in Judged, now Now) ([]Effect, error) {
	st := in.Statement.Body
	if st.Lease != s.Lease || st.Provider != s.Terms.ProviderDevice {
		return nil, Refusal(CodeUnknown, "a statement of another lease or device")
	}
	if err := asRefusal(in.Statement.Verify()); err != nil {
		return nil, err
	}
	if s.Phase < Agreed || s.Phase >= Closed {
		return nil, s.refusePhase("a statement")
	}
	id, err := idOf(st)
	if err != nil {
		return nil, err
	}
	switch {
	case st.Sequence < s.Sequence:
		return nil, nil // again, and answered since
	case st.Sequence == s.Sequence && id != s.Seen:
		return nil, Refusal(CodeSequence, "a second statement %d", st.Sequence)
	case st.Sequence == s.Sequence:
		return s.answers(), nil
	case st.Sequence != s.Sequence+1:
		return nil, Refusal(CodeSequence, "statement %d after %d", st.Sequence, s.Sequence)
	case s.Final:
		return nil, Refusal(CodePhase, "a statement after the final one")
	case st.Revision() > s.Revision: // the acceptance is missing [AMEND-10]
		return nil, Refusal(CodeSequence, "a statement under revision %d, known are %d", st.Revision(), s.Revision)
	}
	s.Sequence, s.Seen, s.Stated = st.Sequence, id, st.Due
	bad := s.fault(in, now)
	if bad == nil {
		s.Blind += st.To - st.From
		if in.Verdict == Good {
			s.Blind = 0
		}
		s.Served, s.Due, s.Statement = st.To, st.Due, id
	} else {
		s.Disputed, s.Code, s.Text = st.Sequence, bad.Code, Clip(bad.Detail)
		s.Blind = s.blindSeconds() // from now on only a good probe counts
	}
	return s.answer(st, id, bad, now), nil
}

// fault is the first reason not to accept a statement, in the order of the
// table of [LEASE-11]; nil when there is none.
func (s State) fault(in Judged, now Now) *Error {
	st := in.Statement.Body
	due, err := s.DueAfter(st.To)
	term := s.Standing().TermSeconds
	switch {
	case st.From != s.Served:
		return Refusal(CodeSequence, "it begins at second %d, accepted are %d", st.From, s.Served)
	case err != nil || st.Due != due:
		return Refusal(CodeDue, "due %s after %d s, want %s", st.Due, st.To, due)
	case st.To > term:
		return Refusal(CodeAhead, "second %d is beyond the term of %d s", st.To, term)
	case st.To > now.Uptime+s.Terms.IntervalSeconds:
		return Refusal(CodeAhead, "second %d, only %d have passed", st.To, now.Uptime)
	case st.Due > s.Spendable:
		return Refusal(CodePayment, "due %s of a share of %s", st.Due, s.Spendable)
	case st.To > st.From && in.Verdict == Bad:
		return Refusal(CodeProbe, "%s", in.Text)
	case st.To > st.From && in.Verdict != Good && s.Blind+st.To-st.From > s.blindSeconds():
		return Refusal(CodeProbe, "no probe has seen the last %d s", s.Blind+st.To-st.From)
	}
	return nil
}

// answer follows a statement that was accepted or, with bad, disputed.
func (s *State) answer(st Statement, id pktcloud.ID, bad *Error, now Now) []Effect {
	switch st.State {
	case Running:
		if s.Phase < Closing {
			s.Phase = Active
		}
	case Frozen:
		if s.Phase < Closing {
			s.Phase = Suspended
		}
	case Final:
		return s.finish(st, id, bad, now)
	}
	if bad != nil {
		return []Effect{Object{s.objection(st.Sequence, bad)}}
	}
	return s.pay()
}

// blindSeconds is how much service a tenant takes on trust after it was away:
// what the provider trusted it with [LEASE-11].
func (s State) blindSeconds() uint64 {
	t := s.Standing()
	return min(t.SecondsFor(t.Limits.Credit), t.TermSeconds)
}

func (s State) objection(sequence uint64, bad *Error) Dispute {
	return Dispute{
		Version: DisputeVersion, Lease: s.Lease, Tenant: s.Terms.TenantDevice, Sequence: sequence,
		Accepted: s.Served, Code: bad.Code, Text: Clip(bad.Detail),
	}
}

// finish makes the close record out of the final statement: it says what is
// due by that statement, and pays what was accepted [LEASE-14].
func (s *State) finish(st Statement, id pktcloud.ID, bad *Error, now Now) []Effect {
	if s.Phase != Closing {
		s.Phase, s.ClosingAt = Closing, now.Uptime
	}
	s.unanswered()
	s.Final, s.By, s.Reason = true, st.By, st.Reason
	s.Record = CloseRecord{
		Version: CloseVersion, Lease: s.Lease, Statement: id, Second: st.To, Due: st.Due,
		Paid: max(s.Due, s.Paid), By: st.By, Reason: st.Reason, Ext: st.Fault().ext(), // [LEASE-24]
	}
	var effects []Effect
	if bad != nil {
		effects = append(effects, Object{s.objection(st.Sequence, bad)})
	}
	return append(append(effects, s.pay()...), OfferClose{s.Record})
}

// pay wants a voucher for what is accepted and, where the credit does not
// cover an interval, for the next one in advance: never beyond the prepaid
// limit, never beyond the unconfirmed limit while the funding is shallow
// [LEASE-10] [LEASE-12].
func (s State) pay() []Effect {
	want := s.Due
	if s.Phase < Closing {
		want += min(s.Standing().Ahead(), s.prepaidLimit())
	}
	want = min(want, s.Spendable)
	if !s.Confirmed {
		want = min(want, s.Terms.Limits.Unconfirmed)
	}
	if s.Phase < Agreed || s.Phase >= Closed || want <= s.Paid {
		return nil
	}
	answered := s.Statement
	if answered.IsZero() {
		answered = s.Lease
	}
	return []Effect{Pay{settle.Entry{Lease: s.Lease, Cumulative: want, Statement: answered}}}
}

// Ahead is what a tenant pays in advance: the part of an interval's price that
// the credit does not cover, at most the prepaid limit.
func (t Terms) Ahead() pktcloud.Amount {
	price, err := t.DueAfter(t.IntervalSeconds)
	if err != nil {
		return 0
	}
	return min(t.Limits.Prepaid, price.SubFloor(t.Limits.Credit))
}

func (s *State) tenantPaid(cumulative pktcloud.Amount) ([]Effect, error) {
	switch {
	case s.Phase < Agreed || s.Phase >= Closed:
		return nil, s.refusePhase("a payment")
	case cumulative > s.Due+s.prepaidLimit():
		return nil, Refusal(CodePayment, "%s paid, %s accepted, prepaid limit %s", cumulative, s.Due, s.prepaidLimit())
	case cumulative > s.Spendable:
		return nil, Refusal(CodePayment, "%s paid of a share of %s", cumulative, s.Spendable)
	}
	s.Paid = max(s.Paid, cumulative)
	return []Effect{SendVoucher{}}, nil
}

// closeAcknowledged ends the lease with a record that both have signed.
func (s *State) closeAcknowledged(m CloseAck) error {
	switch {
	case m.Lease != s.Lease:
		return Refusal(CodeUnknown, "a close of another lease")
	case s.Phase != Closing && s.Phase != Closed || !s.Final || s.TenantClose == pktcloud.Signature{}:
		return s.refusePhase("the acknowledgement of a close")
	}
	if err := s.Record.Verify(s.Terms.ProviderDevice, m.Signature); err != nil {
		return err
	}
	s.Phase, s.ProviderClose = Closed, m.Signature
	return nil
}
