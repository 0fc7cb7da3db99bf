package lease

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// StatementVersion is the version of Statement that this package writes.
const StatementVersion = 1

// StatementState is what the workload was doing at the end of a statement.
type StatementState uint8

// The states.
const (
	Running StatementState = 1 // it runs
	Frozen  StatementState = 2 // frozen at the credit limit
	Final   StatementState = 3 // ended: the last statement of the lease
)

// Statement is the provider's signed word on service rendered [LEASE-9]. From
// and To count seconds of service since the workload ran: time frozen and time
// conceded in a dispute are no part of them. The first statement has the
// sequence 1 and covers nothing: it says that the workload runs. Due is what
// is owed in all, [Terms.DueAfter] of To.
type Statement struct {
	Version  uint64             `cbor:"v" json:"v"`
	Lease    pktcloud.ID        `cbor:"lease" json:"lease"`
	Provider pktcloud.PublicKey `cbor:"provider" json:"provider"` // device, signs
	Sequence uint64             `cbor:"sequence" json:"sequence"`
	From     uint64             `cbor:"from" json:"from"`
	To       uint64             `cbor:"to" json:"to"`
	Due      pktcloud.Amount    `cbor:"due" json:"due"`
	State    StatementState     `cbor:"state" json:"state"`
	By       Role               `cbor:"by" json:"by"`         // who ended it; zero unless final
	Reason   Reason             `cbor:"reason" json:"reason"` // why it ended; empty unless final
	Issued   int64              `cbor:"issued" json:"issued"` // Unix seconds, for people
	Ext      map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "lease-statement".
func (Statement) RecordType() string { return "lease-statement" }

// Signer returns the provider's device.
func (s Statement) Signer() pktcloud.PublicKey { return s.Provider }

// Validate checks the statement's shape. Errors match [CodeMalformed].
func (s Statement) Validate() error {
	if s.Version != StatementVersion {
		return Refusal(CodeMalformed, "statement version %d, want %d", s.Version, StatementVersion)
	}
	if err := s.Provider.Validate(); err != nil {
		return wrap(CodeMalformed, "the provider's device", err)
	}
	switch {
	case s.Lease.IsZero() || s.Sequence == 0 || s.To < s.From || s.Issued < 0:
		return Refusal(CodeMalformed, "a statement names a lease and a sequence from 1, and ends no earlier than it begins")
	case s.State < Running || s.State > Final:
		return Refusal(CodeMalformed, "state %d of a statement", s.State)
	case (s.State == Final) != s.Reason.Valid() || (s.State == Final) != (s.By == RoleTenant || s.By == RoleProvider):
		return Refusal(CodeMalformed, "a final statement, and no other, says who ended the lease and why")
	case s.State != Final && (s.By != 0 || s.Reason != ""):
		return Refusal(CodeMalformed, "only a final statement has a reason")
	}
	if err := wrap(CodeMalformed, "the amount due", s.Due.Validate()); err != nil {
		return err
	}
	if err := validateFault(s.Ext, s.By, s.Reason); err != nil {
		return err
	}
	if err := validateRevision(s.Ext); err != nil {
		return err
	}
	return validateExt(CodeMalformed, s.Ext)
}

// Fault returns why the workload ended; zero where a statement does not say.
func (s Statement) Fault() Fault { return faultOf(s.Ext) }

// ParseStatement decodes and verifies a statement.
func ParseStatement(data []byte) (pktcloud.Signed[Statement], error) {
	return parseSigned[Statement](data, MaxStatementBytes)
}

// DisputeVersion is the version of Dispute that this package writes.
const DisputeVersion = 1

// Dispute is the tenant's signed refusal of a statement: it accepts, and pays,
// the service up to second Accepted and no more [LEASE-11].
type Dispute struct {
	Version  uint64             `cbor:"v" json:"v"`
	Lease    pktcloud.ID        `cbor:"lease" json:"lease"`
	Tenant   pktcloud.PublicKey `cbor:"tenant" json:"tenant"`     // device, signs
	Sequence uint64             `cbor:"sequence" json:"sequence"` // of the statement refused
	Accepted uint64             `cbor:"accepted" json:"accepted"` // the last second accepted
	Code     Code               `cbor:"code" json:"code"`
	Text     string             `cbor:"text" json:"text"`
	Ext      map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "lease-dispute".
func (Dispute) RecordType() string { return "lease-dispute" }

// Signer returns the tenant's device.
func (d Dispute) Signer() pktcloud.PublicKey { return d.Tenant }

// Validate checks the dispute's shape. Errors match [CodeMalformed].
func (d Dispute) Validate() error {
	if d.Version != DisputeVersion {
		return Refusal(CodeMalformed, "dispute version %d, want %d", d.Version, DisputeVersion)
	}
	if err := d.Tenant.Validate(); err != nil {
		return wrap(CodeMalformed, "the tenant's device", err)
	}
	if d.Lease.IsZero() || d.Sequence == 0 {
		return Refusal(CodeMalformed, "a dispute names a lease and a statement")
	}
	if err := validateReason(d.Code, d.Text); err != nil {
		return err
	}
	return validateExt(CodeMalformed, d.Ext)
}

// ParseDispute decodes and verifies a dispute.
func ParseDispute(data []byte) (pktcloud.Signed[Dispute], error) {
	return parseSigned[Dispute](data, MaxDisputeBytes)
}

func validateReason(code Code, text string) error {
	if code == "" || len(code) > 32 || !printable(string(code)) || len(text) > MaxText || !printable(text) {
		return Refusal(CodeMalformed, "a reason has a code of at most 32 and a text of at most %d printable characters", MaxText)
	}
	return nil
}
