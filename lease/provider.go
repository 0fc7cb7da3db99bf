package lease

import (
	"math"
	"math/bits"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

func (s *State) stepProvider(in Input, now Now) ([]Effect, error) {
	switch in := in.(type) {
	case Received:
		return s.providerReceived(in.Message, now)
	case Tick:
		return s.providerTick(in.Ran, now)
	case Funding:
		return s.providerFunding(in, now)
	case Paid:
		return s.providerPaid(in.Cumulative)
	case Rolled:
		return nil, s.rolled(in.Successor)
	case Launched:
		if s.Phase != Funded {
			return nil, s.refusePhase("a launch")
		}
		s.Phase = Starting
		return nil, nil
	case Started:
		if s.Phase != Starting {
			return nil, s.refusePhase("a start")
		}
		s.Phase = Active
		return s.issue(Running, now) // the first statement covers nothing [LEASE-9]
	case Ended:
		if s.Phase != Starting && !s.Phase.Running() {
			return nil, s.refusePhase("the end of the workload")
		}
		fault := in.Fault.fit()
		s.Code, s.Text = Code(fault.Code), fault.Text
		return s.beginClose(RoleProvider, ReasonWorkload, now)
	case CloseNow:
		if s.Phase < Agreed || s.Phase >= Closing {
			return nil, s.refusePhase("a close")
		}
		return s.beginClose(RoleProvider, in.Reason, now)
	case TakeUp:
		return s.takeUp(in, now)
	case Turn:
		if in.Attempt <= s.Attempt && (s.Proposal.IsZero() || in.Attempt != s.Attempt) {
			return nil, Refusal(CodeSequence, "attempt %d was answered", in.Attempt)
		}
		return s.turn(in.Attempt, Refusal(in.Code, "%s", in.Text)), nil
	case Applied:
		return s.applied(now)
	case Completed:
		return s.completed(in)
	default:
		return nil, s.refusePhase("an input of the other side")
	}
}

func (s *State) providerReceived(m Message, now Now) ([]Effect, error) {
	switch m := m.(type) {
	case Commit: // again: the answer is the same [LEASE-8]
		if id, err := m.Terms.ID(); err != nil || id != s.Lease {
			return nil, Refusal(CodeUnknown, "a commit for another lease")
		}
		return []Effect{Send{s.ack()}}, nil
	case Attach:
		return s.attach(m)
	case DisputeMessage:
		return nil, s.dispute(m.Dispute)
	case Amend:
		if a := m.Amendment.Body; a.Lease == s.Lease && s.Answers(a) {
			return s.answerAmend(a), nil
		}
		return nil, Refusal(CodeUnknown, "an amendment that nobody judged")
	case CloseRequest:
		if m.Lease != s.Lease {
			return nil, Refusal(CodeUnknown, "a close of another lease")
		}
		if s.Phase >= Closing { // again, or after our own: the final statement is on its way
			return nil, nil
		}
		s.Text = Clip(m.Text)
		return s.beginClose(RoleTenant, m.Reason, now)
	default:
		return nil, s.refusePhase("a " + m.MessageType() + " to a provider")
	}
}

// attach sends what the tenant has not answered.
func (s *State) attach(m Attach) ([]Effect, error) {
	if m.Lease != s.Lease {
		return nil, Refusal(CodeUnknown, "no such lease")
	}
	if m.Sequence > s.Sequence {
		return nil, Refusal(CodeSequence, "statement %d was never issued, the last is %d", m.Sequence, s.Sequence)
	}
	var effects []Effect
	if s.Revision > 0 { // before the statements under it [AMEND-10]
		effects = append(effects, AcceptAgain{})
	}
	effects = append(effects, Resend{m.Sequence})
	switch {
	case s.Phase == Suspended:
		effects = append(effects, Send{s.suspend()})
	case s.Phase == Closed && s.Countersigned():
		effects = append(effects, Send{CloseAck{Version: MessageVersion, Lease: s.Lease, Signature: s.ProviderClose}})
	}
	return effects, nil
}

func (s State) suspend() Suspend {
	return Suspend{Version: MessageVersion, Lease: s.Lease, Second: s.Served, GraceSeconds: s.Terms.GraceSeconds}
}

func (s *State) providerFunding(f Funding, now Now) ([]Effect, error) {
	if s.Phase < Agreed || s.Phase >= Closed {
		return nil, nil
	}
	held := s.Held
	s.Confirmed, s.Held = f.Confirmed, f.Blind
	switch {
	case f.Ending && s.Phase < Closing:
		return s.beginClose(RoleProvider, ReasonChannel, now)
	case s.Held && s.Phase == Active:
		return s.suspended(now)
	case held && !s.Held && s.Phase == Suspended:
		s.FrozenAt = now.Uptime // the grace begins now
		return s.resumed(), nil
	}
	if s.Phase == Agreed && (f.Confirmed || f.Known && s.Terms.Limits.Unconfirmed > 0) {
		s.Phase = Funded
		return []Effect{Start{}}, nil
	}
	return nil, nil
}

// charged is the service that is or will be stated.
func (s State) charged() uint64 { return s.Ran - s.Forfeited }

// creditSeconds is how long the workload may run in all before it would be
// unpaid beyond the credit [LEASE-12]. Conceded seconds count: they were served.
func (s State) creditSeconds() uint64 {
	hi, lo := bits.Mul64(uint64(s.Paid+s.Standing().Limits.Credit), pktcloud.SecondsPerHour)
	left := s.Tariff().within(minus(pktcloud.Due{Hi: hi, Lo: lo}, s.conceded()))
	return left + min(s.Forfeited, math.MaxUint64-left)
}

// paidForSeconds is the most service that term and share allow.
func (s State) paidForSeconds() uint64 {
	return min(s.Standing().TermSeconds, s.Tariff().SecondsFor(s.Spendable))
}

func (s *State) providerTick(ran uint64, now Now) ([]Effect, error) {
	switch s.Phase {
	case Active:
		return s.serve(ran, now)
	case Suspended:
		if s.Held || now.Uptime < s.FrozenAt+s.Terms.GraceSeconds { // nobody can pay while the chain is out of sight [LEASE-28]
			return nil, nil
		}
		if s.Due <= s.Paid && s.Forfeited > 0 {
			return s.beginClose(RoleProvider, ReasonDisputed, now)
		}
		return s.beginClose(RoleProvider, ReasonUnpaid, now)
	case Agreed:
		if now.Uptime >= FundingSeconds {
			return s.beginClose(RoleProvider, ReasonChannel, now)
		}
	case Closing:
		if s.late(now) {
			return s.conclude(s.Reason, s.By), nil
		}
	case Proposed, Funded, Starting, Closed, Refused, Failed:
	}
	return nil, nil
}

// serve counts the seconds that the workload ran, never more than the limits
// allow, and states, freezes or ends [LEASE-10] [LEASE-12].
func (s *State) serve(ran uint64, now Now) ([]Effect, error) {
	credit, whole := s.creditSeconds(), s.paidForSeconds()
	s.Ran = max(s.Ran, min(ran, credit, whole+s.Forfeited))
	switch {
	case s.charged() >= s.Standing().TermSeconds:
		return s.beginClose(RoleProvider, ReasonTerm, now)
	case s.charged() >= whole:
		return s.beginClose(RoleProvider, ReasonChannel, now)
	case s.Ran >= credit:
		return s.suspended(now)
	case s.charged()-s.Served >= s.Terms.IntervalSeconds:
		return s.issue(Running, now)
	}
	return nil, nil
}

// suspended freezes the workload, and states what it ran until then.
func (s *State) suspended(now Now) ([]Effect, error) {
	s.Phase, s.FrozenAt = Suspended, now.Uptime
	effects := []Effect{Freeze{}}
	if s.charged() > s.Served {
		issued, err := s.issue(Frozen, now)
		if err != nil {
			return nil, err
		}
		effects = append(effects, issued...)
	}
	return append(effects, Send{s.suspend()}), nil
}

// resumed lets the workload go on, if credit is left and the chain in sight.
func (s *State) resumed() []Effect {
	if s.Phase != Suspended || s.Held || s.creditSeconds() <= s.Ran {
		return nil
	}
	s.Phase, s.FrozenAt = Active, 0
	return []Effect{Thaw{}, Send{Resume{Version: MessageVersion, Lease: s.Lease, Second: s.Served}}}
}

// issue makes the next statement, up to the second now charged [LEASE-9].
func (s *State) issue(state StatementState, now Now) ([]Effect, error) {
	due, err := s.DueAfter(s.charged())
	if err != nil {
		return nil, err
	}
	st := Statement{
		Version: StatementVersion, Lease: s.Lease, Provider: s.Terms.ProviderDevice, Sequence: s.Sequence + 1,
		From: s.Served, To: s.charged(), Due: due, State: state, Issued: max(now.Unix, 0),
	}
	if state == Final {
		st.By, st.Reason, st.Ext = s.By, s.Reason, s.Fault().ext() // [LEASE-22]
	}
	st.Ext = underRevision(st.Ext, s.Revision) // [AMEND-10]
	id, err := idOf(st)
	if err != nil {
		return nil, err
	}
	s.Sequence, s.Served, s.Due, s.Stated, s.Statement, s.Seen = st.Sequence, st.To, due, due, id, id
	return []Effect{Issue{st}}, nil
}

// beginClose ends the workload and states for the last time [LEASE-14].
func (s *State) beginClose(by Role, reason Reason, now Now) ([]Effect, error) {
	if !reason.Valid() {
		return nil, Refusal(CodeMalformed, "the reason is not on the list")
	}
	s.Phase, s.ClosingAt, s.By, s.Reason, s.Final = Closing, now.Uptime, by, reason, true
	issued, err := s.issue(Final, now)
	if err != nil {
		return nil, err
	}
	return append(append([]Effect{Stop{}}, s.unanswered()...), issued...), nil
}

// providerPaid counts a voucher, and lets the workload go on when it may.
func (s *State) providerPaid(cumulative pktcloud.Amount) ([]Effect, error) {
	switch {
	case s.Phase < Agreed || s.Phase >= Closed:
		return nil, s.refusePhase("a voucher")
	case cumulative > s.Spendable:
		return nil, Refusal(CodePayment, "%s paid of a share of %s", cumulative, s.Spendable)
	}
	s.Paid = max(s.Paid, cumulative)
	return s.resumed(), nil
}

// dispute concedes what the tenant refuses: those seconds are never charged,
// but they count as served, so that the credit bounds all that can be disputed
// away [LEASE-11].
func (s *State) dispute(d pktcloud.Signed[Dispute]) error {
	b := d.Body
	switch {
	case b.Lease != s.Lease:
		return Refusal(CodeUnknown, "a dispute of another lease")
	case b.Tenant != s.Terms.TenantDevice:
		return Refusal(CodeSignature, "the dispute is not signed by the tenant's device")
	case b.Sequence > s.Sequence:
		return Refusal(CodeSequence, "statement %d was never issued", b.Sequence)
	case !s.Phase.Running() || b.Sequence <= s.Disputed || b.Accepted >= s.Served:
		return nil // settled before, or by the close
	}
	due, err := s.DueAfter(b.Accepted)
	if err != nil {
		return err
	}
	if due < s.Paid.SubFloor(s.Standing().Limits.Prepaid) {
		return Refusal(CodePayment, "second %d was paid for", b.Accepted)
	}
	if err := s.concede(b.Accepted); err != nil {
		return err
	}
	s.Forfeited += s.Served - b.Accepted
	s.Served, s.Due, s.Disputed = b.Accepted, due, s.Sequence
	s.Code, s.Text = b.Code, Clip(b.Text)
	return nil
}

// CheckClose says whether the provider may complete a tenant's close: the
// record is that of its own final statement, pays no less than the vouchers
// and no more than is due, and bears the tenant's signature [LEASE-14]. Errors
// match [CodePhase], [CodeRecord] or [CodeSignature].
func (s State) CheckClose(c Close) error {
	r := c.Record
	want := CloseRecord{
		Version: CloseVersion, Lease: s.Lease, Statement: s.Statement, Second: s.Served,
		Due: s.Due, Paid: r.Paid, By: s.By, Reason: s.Reason, Ext: r.Ext,
	}
	switch {
	case s.Role != RoleProvider || s.Phase != Closing && s.Phase != Closed || !s.Final:
		return s.refusePhase("a close")
	case !sameRecord(r, want) || r.Fault() != s.Fault():
		return Refusal(CodeRecord, "the close record is not that of the final statement")
	case r.Paid < s.Paid:
		return Refusal(CodeRecord, "the record pays %s, the vouchers %s", r.Paid, s.Paid)
	case r.Paid > max(s.Due, s.Paid):
		return Refusal(CodeRecord, "the record pays %s, more than the %s due", r.Paid, s.Due)
	}
	return r.Verify(s.Terms.TenantDevice, c.Signature)
}

func sameRecord(a, b CloseRecord) bool {
	x, errX := idOf(a)
	y, errY := idOf(b)
	return errX == nil && errY == nil && x == y
}

func (s *State) completed(in Completed) ([]Effect, error) {
	if s.Phase == Closed && s.Countersigned() && !sameRecord(s.Record, in.Close.Record) {
		return nil, Refusal(CodeRecord, "another record has been signed")
	}
	if err := s.CheckClose(in.Close); err != nil {
		return nil, err
	}
	if err := in.Close.Record.Verify(s.Terms.ProviderDevice, in.Signature); err != nil {
		return nil, err
	}
	s.Record, s.TenantClose, s.ProviderClose = in.Close.Record, in.Close.Signature, in.Signature
	s.Phase = Closed
	return []Effect{Send{CloseAck{Version: MessageVersion, Lease: s.Lease, Signature: in.Signature, TxID: in.TxID}}}, nil
}
