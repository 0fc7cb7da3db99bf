package lease

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Input is what happened to a lease.
type Input interface{ input() }

// Inputs of both sides.
type (
	// Received is a message of the other side. Statements come as [Judged],
	// vouchers as [Paid], a close as [Completed]: something must happen first.
	Received struct{ Message Message }
	// Tick is the passing of time. Ran is what the provider's stopwatch shows:
	// whole seconds that the workload ran, in all.
	Tick struct{ Ran uint64 }
	// Funding is news of the channel. Ending means that it takes no more
	// vouchers; Blind that it may be so, while the chain is out of sight.
	Funding struct{ Known, Confirmed, Ending, Blind bool }
	// Paid is the lease's entry of a voucher that was made (tenant) or accepted
	// (provider), and is durable in the channel.
	Paid struct{ Cumulative pktcloud.Amount }
	// Rolled is what the lease's channel rolled into, once both sides have signed
	// the roll: the lease's share is counted against it from then on [LEASE-29].
	Rolled struct{ Successor settle.Params }
	// CloseNow is the wish of this side's owner.
	CloseNow struct{ Reason Reason }
)

// Inputs of a provider.
type (
	// Launched means that the workload is about to start.
	Launched struct{}
	// Started means that the workload runs.
	Started struct{}
	// Ended means that the workload did not start, or ended by itself.
	Ended struct{ Fault Fault }
	// TakeUp is an amendment that offer and owner allow. Left is what the lease's
	// channel has for none of its leases.
	TakeUp struct {
		Amendment pktcloud.Signed[Amendment]
		Left      pktcloud.Amount
	}
	// Turn refuses an amendment for good: one that is not taken up, or that the
	// runtime cannot carry out, so that all is as it was.
	Turn struct {
		Attempt uint64
		Code    Code
		Text    string
	}
	// Applied means that an amendment that was taken up is carried out. With
	// [CodeBusy] it is to come again.
	Applied struct{}
	// Completed is the tenant's close, once the channel was closed by its
	// offer. Signature is the provider's own over the same record.
	Completed struct {
		Close     Close
		Signature pktcloud.Signature
		TxID      []byte
	}
)

// Propound is, for the tenant, an amendment that its owner wants. Left is what
// the lease's channel has for none of its leases.
type Propound struct {
	Amendment pktcloud.Signed[Amendment]
	Left      pktcloud.Amount
}

// Judged is, for the tenant, a statement and what its probes said.
type Judged struct {
	Statement pktcloud.Signed[Statement]
	Verdict   Verdict
	Text      string // why it is bad
}

// Verdict is what the tenant's own probes say of the seconds of a statement.
type Verdict uint8

// The verdicts.
const (
	Blind Verdict = 0 // nothing: the tenant was away, or the workload frozen by then
	Good  Verdict = 1 // it served
	Bad   Verdict = 2 // it did not
)

func (Received) input()  {}
func (Tick) input()      {}
func (Funding) input()   {}
func (Paid) input()      {}
func (Rolled) input()    {}
func (CloseNow) input()  {}
func (Launched) input()  {}
func (Started) input()   {}
func (Ended) input()     {}
func (Completed) input() {}
func (Judged) input()    {}
func (Propound) input()  {}
func (TakeUp) input()    {}
func (Turn) input()      {}
func (Applied) input()   {}

// Effect is what the caller shall do once the new state is durable, in the
// order given. All effects are idempotent: after a crash [State.Recover] and
// [State.Reconnect] name those that may be missing.
type Effect interface{ effect() }

// Effects of both sides.
type (
	// Send sends a message.
	Send struct{ Message Message }
	// Announce broadcasts the funding transaction.
	Announce struct{}
	// Conclude signs Record alone: the other side is gone. A provider then
	// claims the channel.
	Conclude struct{ Record CloseRecord }
)

// Effects of a provider.
type (
	// Start brings the workload up, or finds it again.
	Start struct{}
	// Freeze freezes the workload.
	Freeze struct{}
	// Thaw lets it go on.
	Thaw struct{}
	// Stop ends the workload for good.
	Stop struct{}
	// Issue signs, keeps and sends a statement. The state already counts it:
	// keep both in one write.
	Issue struct{ Statement Statement }
	// Apply carries the proposal out; answer with Applied or Turn.
	Apply struct{}
	// Accept signs, keeps and sends an acceptance. The state already counts it:
	// keep both in one write.
	Accept struct{ Acceptance Acceptance }
	// AcceptAgain sends the last acceptance again.
	AcceptAgain struct{}
	// Resend sends the statements after a sequence again.
	Resend struct{ After uint64 }
)

// Effects of a tenant.
type (
	// SendCommit sends the commit, again if need be.
	SendCommit struct{}
	// Abandon gives the channel up: the lease does not exist.
	Abandon struct{}
	// Pay makes a voucher whose entry for the lease is this; answer with Paid.
	Pay struct{ Entry settle.Entry }
	// SendVoucher sends the newest voucher.
	SendVoucher struct{}
	// Object signs, keeps and sends a dispute. Keep it in one write with the
	// state.
	Object struct{ Dispute Dispute }
	// SendAmend sends the proposal, again if need be.
	SendAmend struct{}
	// ObjectAgain sends the dispute of a sequence again.
	ObjectAgain struct{ Sequence uint64 }
	// OfferClose signs the record and sends it: with the payer's half of the
	// closing transaction that pays Record.Paid, or where the channel pays other
	// leases, after a voucher that does [LEASE-27].
	OfferClose struct{ Record CloseRecord }
)

func (Send) effect()        {}
func (Announce) effect()    {}
func (Conclude) effect()    {}
func (Start) effect()       {}
func (Freeze) effect()      {}
func (Thaw) effect()        {}
func (Stop) effect()        {}
func (Issue) effect()       {}
func (Resend) effect()      {}
func (SendCommit) effect()  {}
func (Abandon) effect()     {}
func (Pay) effect()         {}
func (SendVoucher) effect() {}
func (Object) effect()      {}
func (ObjectAgain) effect() {}
func (OfferClose) effect()  {}
func (SendAmend) effect()   {}
func (Apply) effect()       {}
func (Accept) effect()      {}
func (AcceptAgain) effect() {}

// Step returns the state after an input, and what to do about it. With an
// error the state is the one that Step was called on, and there is nothing to
// do: the error's code says which rule the input breaks.
func (s State) Step(in Input, now Now) (State, []Effect, error) {
	next := s
	next.Uptime = max(s.Uptime, now.Uptime)
	now.Uptime = next.Uptime
	var effects []Effect
	var err error
	if s.Role == RoleProvider {
		effects, err = next.stepProvider(in, now)
	} else {
		effects, err = next.stepTenant(in, now)
	}
	if err != nil {
		return s, nil, err
	}
	next.Max = next.Max.Most(next.Exposure())
	return next, effects, nil
}

// Signed returns the state with this side's signature over its close record,
// for [Conclude] and [OfferClose].
func (s State) Signed(sig pktcloud.Signature) State {
	if s.Role == RoleProvider {
		s.ProviderClose = sig
	} else {
		s.TenantClose = sig
	}
	return s
}

func (s State) refusePhase(what string) error {
	return Refusal(CodePhase, "%s in phase %s", what, s.Phase)
}

// conclude ends the lease with a record of this side alone [LEASE-16].
func (s *State) conclude(reason Reason, by Role) []Effect {
	if s.Record.IsZero() {
		s.By, s.Reason = by, reason
		s.Record = CloseRecord{
			Version: CloseVersion, Lease: s.Lease, Statement: s.Statement, Second: s.Served,
			Due: s.Due, Paid: s.Paid, By: by, Reason: reason, Ext: s.Fault().ext(),
		}
	}
	s.unanswered()
	s.Phase = Closed
	return []Effect{Conclude{s.Record}}
}

// late reports whether the wait for the other side's close is over.
func (s State) late(now Now) bool {
	return now.Uptime >= s.ClosingAt+s.Terms.GraceSeconds
}
