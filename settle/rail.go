package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

// Rail is what the channel core asks of a chain when it judges a message. The
// PKT chain's is pktchain.Rail. Implementations are values: they may be used
// from several goroutines at once, and answer the same question always alike.
type Rail interface {
	// Name is the rail's name in [Params].
	Name() string
	// VerifyVoucher checks that proof lets the payee take total from the
	// channel, whatever fee it chooses. Errors match [ErrProof] or [ErrParams].
	VerifyVoucher(p Params, total pktcloud.Amount, proof []byte) error
	// VerifyClose checks the payer's signature of a close offer and that the
	// network would carry the close. Errors match [ErrProof], [ErrDust],
	// [ErrFee], [ErrClose] or [ErrParams].
	VerifyClose(p Params, o CloseOffer) error
}

// Signer is the payer's side of a rail, bound to one channel and its keys.
// Signing the same again gives the same bytes. pktchain.Signer is one.
type Signer interface {
	// SignVoucher returns the proof of a voucher with this total.
	SignVoucher(total pktcloud.Amount) ([]byte, error)
	// SignClose returns the signature of a close offer.
	SignClose(final, fee pktcloud.Amount) ([]byte, error)
}
