package pktchain

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Rail judges vouchers and close offers of a network's channels. It is a
// settle.Rail.
type Rail struct{ Network Network }

// Name returns the network's rail name.
func (r Rail) Name() string { return r.Network.Rail }

// VerifyVoucher checks the payer's SIGHASH_SINGLE signature over the claim of
// total [SETTLE-49]. It holds for every fee the payee may choose.
func (r Rail) VerifyVoucher(p settle.Params, total pktcloud.Amount, proof []byte) error {
	c, err := ChannelOf(r.Network, p)
	if err != nil {
		return err
	}
	return c.VerifyVoucher(total, proof)
}

// VerifyClose checks the payer's signature of a cooperative close, its fee and
// its outputs [SETTLE-50].
func (r Rail) VerifyClose(p settle.Params, o settle.CloseOffer) error {
	c, err := ChannelOf(r.Network, p)
	if err != nil {
		return err
	}
	return c.VerifyClose(o)
}

// VerifyVoucher is [Rail.VerifyVoucher] for a channel already read.
func (c Channel) VerifyVoucher(total pktcloud.Amount, proof []byte) error {
	if err := c.checkTotal(total); err != nil {
		return err
	}
	return c.verify(c.claimTx(total, 0), voucherSig, proof)
}

// VerifyClose is [Rail.VerifyClose] for a channel already read.
func (c Channel) VerifyClose(o settle.CloseOffer) error {
	tx, err := c.closeTx(o.Final, o.Fee)
	if err != nil {
		return err
	}
	return c.verify(tx, wholeSig, o.Signature)
}

// Rail returns a rail that judges this channel alone, whatever params it is
// given, without reading its detail each time.
func (c Channel) Rail() settle.Rail { return channelRail{c} }

type channelRail struct{ channel Channel }

func (r channelRail) Name() string { return r.channel.Network.Rail }

func (r channelRail) VerifyVoucher(_ settle.Params, total pktcloud.Amount, proof []byte) error {
	return r.channel.VerifyVoucher(total, proof)
}

func (r channelRail) VerifyClose(_ settle.Params, o settle.CloseOffer) error {
	return r.channel.VerifyClose(o)
}
