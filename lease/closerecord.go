package lease

import (
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Reason says why a lease ended; a closed list [LEASE-14].
type Reason string

// The reasons.
const (
	ReasonRequested Reason = "requested" // a party asked
	ReasonTerm      Reason = "term"      // the agreed time is served
	ReasonUnpaid    Reason = "unpaid"    // the grace ended without payment
	ReasonDisputed  Reason = "disputed"  // the grace ended over disputed service
	ReasonChannel   Reason = "channel"   // the channel is used up or near its expiry
	ReasonWorkload  Reason = "workload"  // the workload did not start, or ended
	ReasonGone      Reason = "gone"      // the other side did not answer
)

var reasons = []Reason{
	ReasonRequested, ReasonTerm, ReasonUnpaid, ReasonDisputed, ReasonChannel, ReasonWorkload, ReasonGone,
}

// Valid reports whether r is on the list.
func (r Reason) Valid() bool { return slices.Contains(reasons, r) }

// CloseVersion is the version of CloseRecord that this package writes.
const CloseVersion = 1

// CloseRecord says how a lease ended [LEASE-14]. Both devices sign the same
// record; when one side is gone the other signs its own, and the ids of the
// last statement and of the last voucher's encoding are its evidence.
type CloseRecord struct {
	Version   uint64            `cbor:"v" json:"v"`
	Lease     pktcloud.ID       `cbor:"lease" json:"lease"`
	Statement pktcloud.ID       `cbor:"statement" json:"statement"` // the last statement known; zero: none
	Second    uint64            `cbor:"second" json:"second"`       // of service, at the end
	Due       pktcloud.Amount   `cbor:"due" json:"due"`             // by the last statement
	Paid      pktcloud.Amount   `cbor:"paid" json:"paid"`           // what the channel pays for this lease
	By        Role              `cbor:"by" json:"by"`
	Reason    Reason            `cbor:"reason" json:"reason"`
	Ext       map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// IsZero reports whether there is no record.
func (r CloseRecord) IsZero() bool { return r.Version == 0 }

// Validate checks the record's shape. Errors match [CodeMalformed].
func (r CloseRecord) Validate() error {
	switch {
	case r.Version != CloseVersion:
		return Refusal(CodeMalformed, "close record version %d, want %d", r.Version, CloseVersion)
	case r.Lease.IsZero() || !r.Reason.Valid() || r.By != RoleTenant && r.By != RoleProvider:
		return Refusal(CodeMalformed, "a close record names a lease, a side and a reason of the list")
	}
	for _, a := range []pktcloud.Amount{r.Due, r.Paid} {
		if err := wrap(CodeMalformed, "an amount", a.Validate()); err != nil {
			return err
		}
	}
	if err := validateFault(r.Ext, r.By, r.Reason); err != nil {
		return err
	}
	return validateExt(CodeMalformed, r.Ext)
}

// Fault returns why the workload ended; zero where it did not end the lease.
func (r CloseRecord) Fault() Fault { return faultOf(r.Ext) }

// SignClose returns a device's signature over a close record.
func SignClose(key pktcloud.PrivateKey, r CloseRecord) (pktcloud.Signature, error) {
	b, err := pktcloud.Marshal(r)
	if err != nil {
		return pktcloud.Signature{}, err
	}
	return pktcloud.Sign(key, recordClose, b), nil
}

// Verify checks a device's signature over the record. Errors match
// [CodeSignature].
func (r CloseRecord) Verify(device pktcloud.PublicKey, sig pktcloud.Signature) error {
	b, err := pktcloud.Marshal(r)
	if err != nil {
		return err
	}
	return wrap(CodeSignature, "the close record", pktcloud.Verify(device, recordClose, b, sig))
}

// ParseCloseRecord decodes and validates a close record.
func ParseCloseRecord(data []byte) (CloseRecord, error) {
	return parse[CloseRecord](data, MaxCloseBytes)
}
