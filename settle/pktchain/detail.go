package pktchain

import (
	"bytes"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Versions of the records that this package writes.
const (
	PayeeDetailVersion = 1
	DetailVersion      = 1
)

// PayeeDetail is what a payee tells a payer before a channel exists, in its
// quote: the key of its half of the 2-of-2, and where it wants its money
// [SETTLE-42].
type PayeeDetail struct {
	Version uint64            `cbor:"v"`
	Key     []byte            `cbor:"key"`    // 33 bytes, compressed
	Script  []byte            `cbor:"script"` // payout
	Ext     map[string][]byte `cbor:"ext"`
}

// Validate checks the record's shape. Errors match [settle.ErrMalformed].
func (d PayeeDetail) Validate() error {
	if d.Version != PayeeDetailVersion || len(d.Ext) > settle.MaxExt {
		return settle.Refuse(settle.ErrMalformed, "payee detail version %d, want %d", d.Version, PayeeDetailVersion)
	}
	if err := checkKey(d.Key); err != nil {
		return err
	}
	if !Payable(d.Script) {
		return settle.Refuse(settle.ErrMalformed, "a payout script that nodes do not relay")
	}
	return nil
}

// Encode returns the record's bytes.
func (d PayeeDetail) Encode() ([]byte, error) { return pktcloud.Marshal(d) }

// ParsePayeeDetail decodes and validates a payee's detail. Errors match
// [settle.ErrMalformed].
func ParsePayeeDetail(data []byte) (PayeeDetail, error) {
	var d PayeeDetail
	if err := pktcloud.Unmarshal(data, &d, MaxPayeeDetailBytes); err != nil {
		return PayeeDetail{}, settle.Refuse(settle.ErrMalformed, "payee detail: %w", err)
	}
	if err := d.Validate(); err != nil {
		return PayeeDetail{}, err
	}
	return d, nil
}

// RefundKeys says who takes the refund: one key, or Required of several.
type RefundKeys struct {
	Required uint64   `cbor:"m"`
	Keys     [][]byte `cbor:"keys"`
}

func (r RefundKeys) equal(o RefundKeys) bool {
	return r.Required == o.Required && slices.EqualFunc(r.Keys, o.Keys, bytes.Equal)
}

// Detail is the part of [settle.Params] that only this rail reads
// [SETTLE-43]. Spender signs vouchers; the refund keys are others, so that an
// agent that pays can never take the refund.
type Detail struct {
	Version     uint64            `cbor:"v"`
	Funding     settle.Outpoint   `cbor:"funding"`
	Payee       []byte            `cbor:"payee"`
	Spender     []byte            `cbor:"spender"`
	Refund      RefundKeys        `cbor:"refund"`
	PayerScript []byte            `cbor:"payer_script"`
	PayeeScript []byte            `cbor:"payee_script"`
	Ext         map[string][]byte `cbor:"ext"`
}

// Validate checks the record's shape. Errors match [settle.ErrMalformed].
func (d Detail) Validate() error {
	_, err := d.validate()
	return err
}

// validate is Validate, and returns the spender's key as it was read.
func (d Detail) validate() (spender *btcec.PublicKey, err error) {
	if d.Version != DetailVersion || len(d.Ext) > settle.MaxExt {
		return nil, settle.Refuse(settle.ErrMalformed, "channel detail version %d, want %d", d.Version, DetailVersion)
	}
	for _, k := range append([][]byte{d.Payee}, d.Refund.Keys...) {
		if err := checkKey(k); err != nil {
			return nil, err
		}
	}
	if spender, err = parseKey(d.Spender); err != nil {
		return nil, err
	}
	if err := d.Refund.validate(); err != nil {
		return nil, err
	}
	isSpender := func(k []byte) bool { return bytes.Equal(k, d.Spender) }
	if isSpender(d.Payee) || slices.ContainsFunc(d.Refund.Keys, isSpender) {
		return nil, settle.Refuse(settle.ErrMalformed, "the spender's key serves another purpose as well")
	}
	if !Payable(d.PayerScript) || !Payable(d.PayeeScript) || bytes.Equal(d.PayerScript, d.PayeeScript) {
		return nil, settle.Refuse(settle.ErrMalformed, "payer and payee need two scripts that nodes relay")
	}
	return spender, nil
}

func (r RefundKeys) validate() error {
	if r.Required == 0 || r.Required > uint64(len(r.Keys)) || len(r.Keys) > MaxRefundKeys {
		return settle.Refuse(settle.ErrMalformed, "a refund by %d of %d keys", r.Required, len(r.Keys))
	}
	for i, k := range r.Keys {
		if slices.ContainsFunc(r.Keys[:i], func(o []byte) bool { return bytes.Equal(o, k) }) {
			return settle.Refuse(settle.ErrMalformed, "a refund key is listed twice")
		}
	}
	return nil
}

// Encode returns the record's bytes.
func (d Detail) Encode() ([]byte, error) { return pktcloud.Marshal(d) }

// ParseDetail decodes and validates a channel's detail. Errors match
// [settle.ErrMalformed].
func ParseDetail(data []byte) (Detail, error) {
	d, _, err := parseDetail(data)
	return d, err
}

func parseDetail(data []byte) (Detail, *btcec.PublicKey, error) {
	var d Detail
	if err := pktcloud.Unmarshal(data, &d, MaxDetailBytes); err != nil {
		return Detail{}, nil, settle.Refuse(settle.ErrMalformed, "channel detail: %w", err)
	}
	spender, err := d.validate()
	if err != nil {
		return Detail{}, nil, err
	}
	return d, spender, nil
}

// parseKey reads a compressed public key on the curve.
func parseKey(key []byte) (*btcec.PublicKey, error) {
	if len(key) != btcec.PubKeyBytesLenCompressed {
		return nil, settle.Refuse(settle.ErrMalformed, "a public key of %d bytes, want %d", len(key), btcec.PubKeyBytesLenCompressed)
	}
	pub, err := btcec.ParsePubKey(key)
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "public key: %w", err)
	}
	return pub, nil
}

func checkKey(key []byte) error {
	_, err := parseKey(key)
	return err
}
