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
