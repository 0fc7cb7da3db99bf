package pktchain

import (
	"math/bits"

	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// lateTx is a late claim without signatures [SETTLE-83]: the claim of total
// with a lock time, which BIP 143 covers also under SIGHASH_SINGLE, so that a
// voucher's proof does not serve it, nor a late proof an early claim.
//
//	version 2, lock time = expiry height - margin
//	input 0:  funding output, sequence 0xfffffffd
//	output 0: capacity - total - reserve  to the payer's script
//	output 1: total + reserve - fee       to the payee's script
func (c Channel) lateTx(total, fee pktcloud.Amount) *wire.MsgTx {
	tx := c.claimTx(total, fee)
	tx.LockTime = uint32(c.Params.LateHeight())
	return tx
}

// SignLate returns the SIGHASH_SINGLE signature over the late claim of total
// [SETTLE-83]. Signing the same again gives the same bytes. Errors match
// [settle.ErrCapacity].
func (s *Signer) SignLate(total pktcloud.Amount) ([]byte, error) {
	if err := s.channel.checkTotal(total); err != nil {
		return nil, err
	}
	return s.channel.sign(s.channel.lateTx(total, 0), voucherSig, s.key)
}

// VerifyLate checks the payer's signature over the late claim of total
// [SETTLE-83]. It holds for every fee the payee may choose.
func (r Rail) VerifyLate(p settle.Params, total pktcloud.Amount, proof []byte) error {
	c, err := ChannelOf(r.Network, p)
	if err != nil {
		return err
	}
	return c.VerifyLate(total, proof)
}

// VerifyLate is [Rail.VerifyLate] for a channel already read.
func (c Channel) VerifyLate(total pktcloud.Amount, proof []byte) error {
	if err := c.checkTotal(total); err != nil {
		return err
	}
	return c.verify(c.lateTx(total, 0), voucherSig, proof)
}

func (r channelRail) VerifyLate(_ settle.Params, total pktcloud.Amount, proof []byte) error {
	return r.channel.VerifyLate(total, proof)
}

// LateClaims returns the payee's signed late claims from one late proof, one
// for each fee [SETTLE-83]. index is that of the payee's key. Errors match
// [settle.ErrFee], [settle.ErrDust], [settle.ErrCapacity] or [settle.ErrProof].
func (k *Keychain) LateClaims(c Channel, index uint32, l settle.LateProof, fees []pktcloud.Amount) ([][]byte, error) {
	if err := c.checkTotal(l.Total); err != nil {
		return nil, err
	}
	raws := make([][]byte, 0, len(fees))
	for _, fee := range fees {
		if err := c.checkClaimFee(l.Total, fee); err != nil {
			return nil, err
		}
		raw, err := k.countersign(c, index, c.lateTx(l.Total, fee), l.Signature)
		if err != nil {
			return nil, err
		}
		raws = append(raws, raw)
	}
	return raws, nil
}

// checkClaimFee judges the fee of a claim: the payee's part must bear it.
func (c Channel) checkClaimFee(total, fee pktcloud.Amount) error {
	part := total + c.Params.Reserve
	if dust := c.Network.Dust(c.Detail.PayeeScript); fee > part.SubFloor(dust) {
		return settle.Refuse(settle.ErrDust, "a fee of %d units leaves less than %d of the payee's %d", uint64(fee), uint64(dust), uint64(part))
	}
	if floor := c.ClaimFee(0); fee < floor {
		return settle.Refuse(settle.ErrFee, "a claim with a fee of %d units; nodes relay from %d", uint64(fee), uint64(floor))
	}
	return nil
}

// Level is what a transaction pays for its place in a block: the two numbers
// that decide which of two conflicting ones nodes keep.
type Level struct {
	Fee    pktcloud.Amount `cbor:"fee" json:"fee"`
	VBytes uint64          `cbor:"vbytes" json:"vbytes"`
}

// Beats reports whether nodes replace a transaction at the level old by one at
// l: it pays more per byte, and more in all by what relaying its own bytes
// costs [SETTLE-85].
func (l Level) Beats(old Level, n Network) bool {
	hi, lo := bits.Mul64(uint64(l.Fee), old.VBytes)
	oldHi, oldLo := bits.Mul64(uint64(old.Fee), l.VBytes)
	return (hi > oldHi || hi == oldHi && lo > oldLo) && l.Fee >= old.Fee+Fee(l.VBytes, n.RelayFloor)
}

// Steps of a ladder of fees: each level pays lateStep times the one before, as
// far as that is no more than one part in lateShare of what it takes.
const (
	lateStep   = 4
	lateLevels = 4
	lateShare  = 4
)

// ladder returns rising fees from low on, the last one top.
func ladder(low, top pktcloud.Amount) []pktcloud.Amount {
	var fees []pktcloud.Amount
	for fee := low; fee <= top/lateStep && len(fees) < lateLevels-1; fee *= lateStep {
		fees = append(fees, fee)
	}
	return append(fees, top)
}

// highest is the last fee of a ladder from low on: lateStep to the power of
// its steps, but no more than the share of part, and never less than low.
func highest(low, part pktcloud.Amount) pktcloud.Amount {
	share := part / lateShare
	top := low
	for range lateLevels - 1 {
		if top > share/lateStep {
			return max(low, share)
		}
		top *= lateStep
	}
	return top
}

// LateFees returns the fees of the late claims of a deposit, lowest first
// [SETTLE-85]. The first deposit of a channel, for which above is zero, climbs
// from the fee rate of today, in units per 1000 virtual bytes. A later one has
// a single level that beats above, the highest of all before it, so that no
// holder of an older one can be first with a higher fee. Errors match
// [settle.ErrFee] when total is not worth such a fee.
func (c Channel) LateFees(total, rate pktcloud.Amount, above Level) ([]pktcloud.Amount, error) {
	if err := c.checkTotal(total); err != nil {
		return nil, err
	}
	part := total + c.Params.Reserve
	most := part.SubFloor(c.Network.Dust(c.Detail.PayeeScript))
	low, floor := min(c.ClaimFee(rate), most), c.ClaimFee(0)
	top := min(highest(low, part), most)
	if above.Fee > 0 {
		top = max(top, c.FeeAbove(above))
		low = top
	}
	if top < floor || top > most {
		return nil, settle.Refuse(settle.ErrFee, "%d units are not worth a late claim's fee of %d", uint64(part), uint64(max(top, floor)))
	}
	return ladder(low, top), nil
}

// FeeAbove is the least fee at which any claim of the channel beats a level.
func (c Channel) FeeAbove(l Level) pktcloud.Amount {
	size := c.twoOfTwoSize(c.lateTx(c.Params.Spendable(), 0))
	more := pktcloud.Amount(size-min(size, l.VBytes)) * l.Fee / pktcloud.Amount(max(l.VBytes, 1))
	return l.Fee + more + 1 + c.ClaimFee(0)
}

// LateRail returns a rail that judges late proofs of this channel alone,
// whatever params it is given.
func (c Channel) LateRail() settle.LateRail { return channelRail{c} }

// RefundFees returns the fees of a deposited refund ladder, lowest first, from
// a fee rate of today, in units per 1000 virtual bytes.
func (c Channel) RefundFees(rate pktcloud.Amount) []pktcloud.Amount {
	low := min(c.RefundFee(rate), c.Params.Capacity)
	return ladder(low, highest(low, c.Params.Capacity))
}

// LevelOf returns the level of a transaction that spends the channel's funding
// output. Errors match [settle.ErrMalformed] or [settle.ErrFunding].
func (c Channel) LevelOf(raw []byte) (Level, error) {
	e, err := c.EndOf(raw)
	if err != nil {
		return Level{}, err
	}
	tx, err := decodeTx(raw)
	if err != nil {
		return Level{}, err
	}
	return Level{Fee: e.Fee, VBytes: vsize(tx)}, nil
}
