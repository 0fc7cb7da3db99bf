package secondrail

import (
	"crypto/ed25519"
	"encoding/binary"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Name is the rail's name in settle.Params and in offers.
const Name = "accounts"

// detail is this rail's part of settle.Params.
type detail struct {
	Payer Account `cbor:"payer"`
	Nonce uint64  `cbor:"nonce"` // of the payer's transaction that locks the money
	Payee Account `cbor:"payee"`
}

func detailOf(p settle.Params) (d detail, err error) {
	if p.Rail != Name {
		return d, settle.Refuse(settle.ErrParams, "rail %q, want %q", p.Rail, Name)
	}
	if err := pktcloud.Unmarshal(p.Detail, &d, settle.MaxDetailBytes); err != nil {
		return d, settle.Refuse(settle.ErrMalformed, "detail: %w", err)
	}
	return d, nil
}

// signed is the digest of a voucher or a close: what it is, the channel, and
// the amounts.
func signed(what string, channel pktcloud.ID, amounts ...pktcloud.Amount) []byte {
	b := channel[:]
	for _, a := range amounts {
		b = binary.BigEndian.AppendUint64(b, uint64(a))
	}
	d := digest(what, b)
	return d[:]
}

func verify(by Account, what string, channel pktcloud.ID, sig []byte, amounts ...pktcloud.Amount) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(by[:], signed(what, channel, amounts...), sig)
}

// Rail judges vouchers and closes. It is a settle.Rail.
type Rail struct{}

// Name returns "accounts".
func (Rail) Name() string { return Name }

// VerifyVoucher checks the payer's account signature of a total.
func (Rail) VerifyVoucher(p settle.Params, total pktcloud.Amount, proof []byte) error {
	return judge(p, "voucher", total, proof)
}

// VerifyClose checks the payer's account signature of a final. Transactions
// cost nothing here.
func (Rail) VerifyClose(p settle.Params, o settle.CloseOffer) error {
	if o.Fee != 0 {
		return settle.Refuse(settle.ErrFee, "this rail takes no fee")
	}
	return judge(p, "close", o.Final, o.Signature)
}

func judge(p settle.Params, what string, amount pktcloud.Amount, sig []byte) error {
	d, err := detailOf(p)
	if err != nil {
		return err
	}
	id, err := p.ID()
	if err != nil {
		return err
	}
	if !verify(d.Payer, what, id, sig, amount) {
		return settle.Refuse(settle.ErrProof, "the account's signature of a %s does not verify", what)
	}
	return nil
}

// Signer is the payer's side of a channel. It is a settle.Signer.
type Signer struct {
	Channel pktcloud.ID
	Key     ed25519.PrivateKey
}

// SignVoucher returns the proof of a total.
func (s Signer) SignVoucher(total pktcloud.Amount) ([]byte, error) {
	return ed25519.Sign(s.Key, signed("voucher", s.Channel, total)), nil
}

// SignClose returns the signature of a close; the fee must be zero.
func (s Signer) SignClose(final, fee pktcloud.Amount) ([]byte, error) {
	if fee != 0 {
		return nil, settle.Refuse(settle.ErrFee, "this rail takes no fee")
	}
	return ed25519.Sign(s.Key, signed("close", s.Channel, final)), nil
}
