package lease

import (
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// StateVersion is the version of State that this package writes.
const StateVersion = 1

// FundingSeconds is how long a provider waits for the funding of a lease that
// allows no unconfirmed payment.
const FundingSeconds = 24 * 3600

// Now is what a party's clocks say.
type Now struct {
	Unix int64 // the wall clock, Unix seconds
	// Uptime counts the seconds since the lease began on a clock that neither
	// jumps nor sleeps. It never falls; a provider that was away does not count
	// the time, a tenant does [LEASE-13].
	Uptime uint64
}

// State is one side's view of a lease: a value that its methods never change.
// [State.Step] returns the next one, or the same one with an error. Its
// encoding is what a journal keeps; [State.Check] states what always holds.
type State struct {
	Version     uint64             `cbor:"v"`
	Role        Role               `cbor:"role"`
	Phase       Phase              `cbor:"phase"`
	Lease       pktcloud.ID        `cbor:"lease"`
	Terms       Terms              `cbor:"terms"`
	TenantSig   pktcloud.Signature `cbor:"tenant_sig"`     // over the terms
	ProviderSig pktcloud.Signature `cbor:"provider_sig"`   // zero until acknowledged
	Began       int64              `cbor:"began"`          // Unix seconds: the commit was stored, or first sent
	Uptime      uint64             `cbor:"uptime"`         // of the last step
	Spendable   pktcloud.Amount    `cbor:"spendable"`      // the lease's share of the channel
	Confirmed   bool               `cbor:"confirmed"`      // the funding has the agreed depth
	Rolls       uint64             `cbor:"rolls,omitzero"` // how often the channel of the terms rolled, link by link

	Ran       uint64          `cbor:"ran"`       // provider: seconds that the workload ran, conceded ones included
	Forfeited uint64          `cbor:"forfeited"` // provider: seconds conceded in disputes
	Sequence  uint64          `cbor:"sequence"`  // of the last statement issued or seen
	Seen      pktcloud.ID     `cbor:"seen"`      // that statement
	Disputed  uint64          `cbor:"disputed"`  // the last sequence that a dispute settled
	Served    uint64          `cbor:"served"`    // seconds stated and not conceded (provider), accepted (tenant)
	Statement pktcloud.ID     `cbor:"statement"` // the last one issued (provider) or accepted (tenant)
	Stated    pktcloud.Amount `cbor:"stated"`    // the due of the last statement issued or seen
	Due       pktcloud.Amount `cbor:"due"`       // after Served
	Blind     uint64          `cbor:"blind"`     // tenant: seconds accepted since a probe last agreed, without one
	Paid      pktcloud.Amount `cbor:"paid"`      // by vouchers

	// Cancel says that the tenant's owner has ended the lease before its commit was
	// answered [LEASE-47].
	Cancel bool `cbor:"cancel,omitzero"`

	// Of amendments, amend.go; all zero for a lease that was never amended.
	Revision uint64          `cbor:"revision,omitzero"`  // that stands
	Segments []Segment       `cbor:"segments,omitempty"` // one for each revision
	Present  Amendment       `cbor:"present,omitzero"`   // that stands
	Proposal Amendment       `cbor:"proposal,omitzero"`  // under way: not answered (tenant), not carried out (provider)
	Attempt  uint64          `cbor:"attempt,omitzero"`   // last proposed (tenant), taken up or answered (provider)
	Declined Decline         `cbor:"declined,omitzero"`  // why the last attempt was refused
	Room     pktcloud.Amount `cbor:"room,omitzero"`      // what the proposal may take of the channel
	Conceded pktcloud.Due    `cbor:"conceded,omitzero"`  // provider, once amended: what the seconds conceded would have cost

	FrozenAt  uint64 `cbor:"frozen_at"`  // uptime
	Held      bool   `cbor:"held"`       // provider: the chain is out of sight and the channel perhaps past its deadline
	ClosingAt uint64 `cbor:"closing_at"` // uptime

	By            Role               `cbor:"by"`
	Reason        Reason             `cbor:"reason"`
	Final         bool               `cbor:"final"` // the final statement is issued or seen
	Record        CloseRecord        `cbor:"record"`
	TenantClose   pktcloud.Signature `cbor:"tenant_close"`
	ProviderClose pktcloud.Signature `cbor:"provider_close"`

	Code Code     `cbor:"code"` // of the last refusal or dispute; provider: of the fault that ended the lease
	Text string   `cbor:"text"`
	Max  Exposure `cbor:"max"` // the most that ever was at risk
}

// newState returns what both sides begin with.
func newState(role Role, phase Phase, c Commit, now Now) (State, error) {
	if err := c.Validate(); err != nil {
		return State{}, err
	}
	if err := c.Terms.Verify(RoleTenant, c.Signature); err != nil {
		return State{}, err
	}
	id, err := c.Terms.ID()
	if err != nil {
		return State{}, err
	}
	paid, err := c.prepaid(id)
	if err != nil {
		return State{}, err
	}
	s := State{
		Version: StateVersion, Role: role, Phase: phase, Lease: id, Terms: c.Terms, TenantSig: c.Signature,
		Began: now.Unix, Uptime: now.Uptime, Spendable: c.Terms.Share(c.Params), Paid: paid,
	}
	s.Max = s.Exposure()
	return s, nil
}

// prepaid is what the first voucher pays. It answers no statement, so it names
// the lease itself; it may not exceed the prepaid limit. A channel that pays
// other leases has had its first voucher.
func (c Commit) prepaid(id pktcloud.ID) (pktcloud.Amount, error) {
	if len(c.Voucher) == 0 {
		return 0, nil
	}
	v, err := settle.ParseVoucher(c.Voucher)
	if err != nil {
		return 0, wrap(CodePayment, "the first voucher", err)
	}
	e, ok := v.Body.Entry(id)
	if !ok || len(v.Body.Entries) != 1 || e.Statement != id || v.Body.Channel != c.Terms.Channel || e.Cumulative > c.Terms.Limits.Prepaid {
		return 0, Refusal(CodePayment, "the first voucher pays this lease alone, names it as its statement, and stays within the prepaid limit")
	}
	return e.Cumulative, nil
}

// NewProvider returns the provider's state for a commit that it has checked
// with [CheckCommit], signed, and whose channel it has accepted. The lease
// exists once this state is durable; the clock was read just before that
// [LEASE-8]. Errors match [CodeLate] and those of the commit.
func NewProvider(c Commit, own pktcloud.Signature, now Now) (State, []Effect, error) {
	s, err := newState(RoleProvider, Agreed, c, now)
	if err != nil {
		return State{}, nil, err
	}
	if now.Unix >= c.Terms.CommitBy {
		return State{}, nil, Refusal(CodeLate, "commitBy has passed by %d s; ask for a new quote", now.Unix-c.Terms.CommitBy)
	}
	if err := c.Terms.Verify(RoleProvider, own); err != nil {
		return State{}, nil, err
	}
	s.ProviderSig = own
	return s, []Effect{Send{s.ack()}, Announce{}}, nil
}

// NewTenant returns the tenant's state for a commit that it is about to send.
// Make it durable first.
func NewTenant(c Commit, now Now) (State, []Effect, error) {
	s, err := newState(RoleTenant, Proposed, c, now)
	if err != nil {
		return State{}, nil, err
	}
	return s, []Effect{SendCommit{}}, nil
}

func (s State) ack() Ack {
	return Ack{Version: MessageVersion, Lease: s.Lease, Signature: s.ProviderSig}
}

// Exposure returns what is at risk now [LEASE-12].
func (s State) Exposure() Exposure {
	var e Exposure
	if s.Phase.Final() {
		return e
	}
	served := s.Stated
	if s.Role == RoleProvider {
		served, _ = s.rendered()
	}
	e.Credit = served.SubFloor(s.Paid)
	e.Prepaid = s.Paid.SubFloor(s.Due)
	if !s.Confirmed {
		e.Unconfirmed = s.Paid
	}
	return e
}

// Countersigned reports whether both sides signed the close record.
func (s State) Countersigned() bool {
	return s.TenantClose != pktcloud.Signature{} && s.ProviderClose != pktcloud.Signature{}
}

// Fault returns why the workload did not start, or ended; zero where it did not
// end the lease, or where that is not known [LEASE-22].
func (s State) Fault() Fault {
	switch {
	case s.Reason != ReasonWorkload || s.By != RoleProvider:
		return Fault{}
	case s.Role == RoleTenant:
		return s.Record.Fault()
	case !FaultCode(s.Code).Valid():
		return Fault{}
	}
	return Fault{FaultCode(s.Code), s.Text}
}

// Check states what always holds of a lease [LEASE-12].
func (s State) Check() error {
	id, err := s.Terms.ID()
	if err != nil {
		return err
	}
	if err := s.checkAmendments(); err != nil {
		return err
	}
	due, err := s.DueAfter(s.Served)
	if err != nil {
		return err
	}
	switch {
	case s.Version != StateVersion || s.Role != RoleTenant && s.Role != RoleProvider || s.Phase < Proposed || s.Phase > Failed:
		return fmt.Errorf("lease: state version %d of %s in %s", s.Version, s.Role, s.Phase)
	case id != s.Lease:
		return fmt.Errorf("lease: %s has the terms of %s", s.Lease, id)
	case s.Phase > Proposed && s.Phase < Refused && s.ProviderSig == pktcloud.Signature{}:
		return fmt.Errorf("lease: %s in %s without the provider's signature", s.Lease, s.Phase)
	case s.Due != due:
		return fmt.Errorf("lease: due %d after %d s, want %d units", uint64(s.Due), s.Served, uint64(due))
	case s.Paid > s.Spendable:
		return fmt.Errorf("lease: paid %d of %d units", uint64(s.Paid), uint64(s.Spendable))
	case s.Phase == Closed && s.Record.IsZero():
		return fmt.Errorf("lease: %s closed without a record", s.Lease)
	case s.Phase == Closed && s.TenantClose == pktcloud.Signature{} && s.ProviderClose == pktcloud.Signature{}:
		return fmt.Errorf("lease: %s closed with a record that nobody signed", s.Lease)
	}
	if s.Role == RoleProvider {
		return s.checkProvider()
	}
	return s.checkTenant()
}

func (s State) checkProvider() error {
	if s.Served > s.Ran || s.Forfeited > s.Ran-s.Served {
		return fmt.Errorf("lease: stated %d s and conceded %d s of %d s", s.Served, s.Forfeited, s.Ran)
	}
	served, err := s.rendered()
	if err != nil {
		return err
	}
	if credit := s.Standing().Limits.Credit; served.SubFloor(s.Paid) > credit {
		return fmt.Errorf("lease: %d units served and %d paid, beyond the credit of %d", uint64(served), uint64(s.Paid), uint64(credit))
	}
	return nil
}

func (s State) checkTenant() error {
	if limit := s.prepaidLimit(); s.Paid > s.Due+limit {
		return fmt.Errorf("lease: paid %d units, accepted %d, prepaid limit %d", uint64(s.Paid), uint64(s.Due), uint64(limit))
	}
	return nil
}

// Encode returns the state's bytes.
func (s State) Encode() ([]byte, error) { return pktcloud.Marshal(s) }

// ParseState decodes a journaled state and checks it. Errors match
// [CodeMalformed].
func ParseState(data []byte) (State, error) {
	var s State
	if err := pktcloud.Unmarshal(data, &s, MaxStateBytes); err != nil {
		return State{}, wrap(CodeMalformed, "a journaled state", err)
	}
	if err := s.Terms.Validate(); err != nil {
		return State{}, err
	}
	if err := s.Check(); err != nil {
		return State{}, wrap(CodeMalformed, "a journaled state", err)
	}
	return s, nil
}
