package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

// ParamsVersion is the version of Params that this package writes.
const ParamsVersion = 1

// Params fixes a channel for its whole life; their id is the channel's id
// [SETTLE-1]. Payer and Payee are the device keys that act for the two sides:
// the payer's signs voucher bodies. Detail holds what only the rail knows:
// outpoint, scripts and keys; pktchain.Detail on the PKT chain.
type Params struct {
	Version      uint64             `cbor:"v" json:"v"`
	Rail         string             `cbor:"rail" json:"rail"`
	Payer        pktcloud.PublicKey `cbor:"payer" json:"payer"`
	Payee        pktcloud.PublicKey `cbor:"payee" json:"payee"`
	Capacity     pktcloud.Amount    `cbor:"capacity" json:"capacity"`       // value of the funding output
	Reserve      pktcloud.Amount    `cbor:"reserve" json:"reserve"`         // set aside for the closing fee
	MinChange    pktcloud.Amount    `cbor:"min_change" json:"min_change"`   // the payer's output is never below
	ExpiryHeight uint64             `cbor:"expiry" json:"expiry"`           // first height at which the payer may refund
	MarginBlocks uint64             `cbor:"margin" json:"margin"`           // safety distance before expiry
	MinDepth     uint64             `cbor:"min_depth" json:"min_depth"`     // confirmations at which funding counts as settled
	Unconfirmed  pktcloud.Amount    `cbor:"unconfirmed" json:"unconfirmed"` // largest total accepted below MinDepth
	Detail       []byte             `cbor:"detail" json:"detail"`
	Ext          map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// ID returns the channel's id.
func (p Params) ID() (pktcloud.ID, error) {
	b, err := pktcloud.Marshal(p)
	if err != nil {
		return pktcloud.ID{}, err
	}
	return pktcloud.IDOf(b), nil
}

// Validate checks the shape of params and that the numbers can live together
// [SETTLE-2]. Whether this side wants such a channel is another question. Errors
// match [ErrParams].
func (p Params) Validate() error {
	switch {
	case p.Version != ParamsVersion:
		return Refuse(ErrParams, "version %d, want %d", p.Version, ParamsVersion)
	case p.Rail == "" || len(p.Rail) > MaxRailName:
		return Refuse(ErrParams, "a rail has a name of 1 to %d bytes", MaxRailName)
	case p.Payer == p.Payee:
		return Refuse(ErrParams, "payer and payee are one key")
	case len(p.Detail) > MaxDetailBytes || len(p.Ext) > MaxExt:
		return Refuse(ErrParams, "detail or extensions are too large")
	case p.Capacity > pktcloud.MaxAmount || p.Reserve > pktcloud.MaxAmount || p.MinChange > pktcloud.MaxAmount:
		return Refuse(ErrParams, "an amount exceeds the maximum")
	case p.Spendable() == 0:
		return Refuse(ErrParams, "reserve and least change leave nothing of a capacity of %d units", uint64(p.Capacity))
	case p.Unconfirmed > p.Capacity:
		return Refuse(ErrParams, "unconfirmed exceeds the capacity")
	case p.MarginBlocks == 0 || p.MarginBlocks > MaxMarginBlocks || p.MinDepth > MaxMinDepth:
		return Refuse(ErrParams, "margin must be 1 to %d blocks, depth at most %d", MaxMarginBlocks, MaxMinDepth)
	case p.ExpiryHeight <= 2*p.MarginBlocks || p.ExpiryHeight > 1<<32-1:
		return Refuse(ErrParams, "expiry height %d", p.ExpiryHeight)
	}
	for _, k := range []pktcloud.PublicKey{p.Payer, p.Payee} {
		if err := k.Validate(); err != nil {
			return Refuse(ErrParams, "%w", err)
		}
	}
	if b, err := p.Encode(); err != nil || len(b) > MaxParamsBytes { // they are read again by themselves
		return Refuse(ErrParams, "parameters of %d bytes, at most %d", len(b), MaxParamsBytes)
	}
	return nil
}

// Spendable is the largest total a voucher may have: capacity less reserve and
// least change; zero when they exceed it [SETTLE-16].
func (p Params) Spendable() pktcloud.Amount {
	return p.Capacity.SubFloor(p.Reserve).SubFloor(p.MinChange)
}

// Deadline is the height from which the payee accepts no voucher and claims:
// expiry less two margins [SETTLE-20].
func (p Params) Deadline() uint64 { return p.ExpiryHeight - min(p.ExpiryHeight, 2*p.MarginBlocks) }

// ParseParams decodes and validates params [SETTLE-1]. Errors match
// [ErrMalformed] or [ErrParams].
func ParseParams(data []byte) (Params, error) {
	var p Params
	if err := pktcloud.Unmarshal(data, &p, MaxParamsBytes); err != nil {
		return Params{}, Refuse(ErrMalformed, "channel parameters: %w", err)
	}
	if err := p.Validate(); err != nil {
		return Params{}, err
	}
	return p, nil
}

// Encode returns the bytes of params.
func (p Params) Encode() ([]byte, error) { return pktcloud.Marshal(p) }
