package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

// LateProofVersion is the version of LateProof that this package writes.
const LateProofVersion = 1

// LateProof lets the payee make late claims of Total: claims that the chain
// takes from [Params.LateHeight] on, which towers may hold [SETTLE-80].
// Signature is the rail's own over them; it binds every field, so that the
// record needs no other signature.
type LateProof struct {
	Version   uint64            `cbor:"v" json:"v"`
	Channel   pktcloud.ID       `cbor:"channel" json:"channel"`
	Total     pktcloud.Amount   `cbor:"total" json:"total"`
	Signature []byte            `cbor:"sig" json:"sig"`
	Ext       map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// LateRail is what a [Rail] may offer besides: late claims. The PKT chain's
// rails do.
type LateRail interface {
	// VerifyLate checks that proof lets the payee take total from the channel
	// from its late height on, whatever fee it chooses. Errors match
	// [ErrProof], [ErrCapacity] or [ErrParams].
	VerifyLate(p Params, total pktcloud.Amount, proof []byte) error
}

// LateSigner is what a [Signer] may offer besides.
type LateSigner interface {
	// SignLate returns the signature of a late proof with this total.
	SignLate(total pktcloud.Amount) ([]byte, error)
}

// LateHeight is the lock time of late claims: expiry less one margin
// [SETTLE-80]. An online payee has claimed a margin earlier.
func (p Params) LateHeight() uint64 { return p.ExpiryHeight - min(p.ExpiryHeight, p.MarginBlocks) }

// Validate checks the proof's shape. Errors match [ErrMalformed].
func (l LateProof) Validate() error {
	switch {
	case l.Version != LateProofVersion:
		return Refuse(ErrMalformed, "late proof version %d, want %d", l.Version, LateProofVersion)
	case l.Total == 0 || l.Total > pktcloud.MaxAmount:
		return Refuse(ErrMalformed, "a late proof of %d units", uint64(l.Total))
	case len(l.Signature) == 0 || len(l.Signature) > MaxProofBytes || len(l.Ext) > MaxExt:
		return Refuse(ErrMalformed, "late proof signature or extensions of a wrong size")
	}
	return nil
}

// Encode returns the proof's bytes.
func (l LateProof) Encode() ([]byte, error) { return pktcloud.Marshal(l) }

// ParseLateProof decodes and validates a late proof. The rail checks its
// signature. Errors match [ErrMalformed].
func ParseLateProof(data []byte) (LateProof, error) {
	var l LateProof
	if err := pktcloud.Unmarshal(data, &l, MaxLateProofBytes); err != nil {
		return LateProof{}, Refuse(ErrMalformed, "late proof: %w", err)
	}
	if err := l.Validate(); err != nil {
		return LateProof{}, err
	}
	return l, nil
}

// lateOpen holds when late proofs pass: while vouchers do.
func (c Channel) lateOpen() error {
	switch {
	case c.Phase != Opening && c.Phase != Open && c.Phase != Rolling:
		return Refuse(ErrClosed, "the channel is %s", c.Phase)
	case c.Height >= c.Params.Deadline():
		return Refuse(ErrLate, "height %d, no late proof from %d on", c.Height, c.Params.Deadline())
	case c.Latest.Body.Sequence == 0:
		return Refuse(ErrClose, "there is no voucher to claim")
	}
	return nil
}

// Late returns what the payer signs when it is asked for a late proof: that of
// its latest voucher's total, and no other [SETTLE-81]. The proof still lacks
// its signature. Errors match [ErrRole], [ErrClosed], [ErrLate] or, without a
// voucher, [ErrClose].
func (c Channel) Late() (LateProof, error) {
	if c.Role != Payer {
		return LateProof{}, Refuse(ErrRole, "only the payer gives late proofs")
	}
	if err := c.lateOpen(); err != nil {
		return LateProof{}, err
	}
	return LateProof{Version: LateProofVersion, Channel: c.ID, Total: c.Paid()}, nil
}

// CheckLate is the payee's judgement of a late proof [SETTLE-82]. last is the
// total of the one before, zero without one. A proof that a newer voucher has
// overtaken on its way is as good as it was. Errors match [ErrMalformed],
// [ErrRole], [ErrChannel], [ErrClosed], [ErrLate], [ErrClose], [ErrFell],
// [ErrCapacity] or [ErrProof].
func (c Channel) CheckLate(l LateProof, last pktcloud.Amount, r LateRail) error {
	if c.Role != Payee {
		return Refuse(ErrRole, "only the payee takes late proofs")
	}
	if err := l.Validate(); err != nil {
		return err
	}
	if l.Channel != c.ID {
		return Refuse(ErrChannel, "the late proof is for %s", l.Channel)
	}
	if err := c.lateOpen(); err != nil {
		return err
	}
	if l.Total < last {
		return Refuse(ErrFell, "a late proof of %d units after one of %d", uint64(l.Total), uint64(last))
	}
	if l.Total > c.Paid() {
		return Refuse(ErrCapacity, "a late proof of %d units, %d are paid", uint64(l.Total), uint64(c.Paid()))
	}
	return r.VerifyLate(c.Params, l.Total, l.Signature)
}

// LateDue reports whether the payee should ask for a late proof now: since the
// last one, of a total of last, at least every units were paid [SETTLE-84]. An
// every of zero means that nothing is ever deposited.
func (c Channel) LateDue(last, every pktcloud.Amount) bool {
	return every > 0 && c.Role == Payee && c.Settled() && c.lateOpen() == nil && c.Paid().SubFloor(last) >= every
}
