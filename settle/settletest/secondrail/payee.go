package secondrail

import (
	"context"
	"crypto/ed25519"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// maxFunding bounds the transaction that locks a channel's money.
const maxFunding = 1 << 10

// Payee is paid. Its methods are those of peer.Payee in package lease/peer, in
// this package's own types.
type Payee struct {
	world   *World
	key     ed25519.PrivateKey
	account Account
}

// Payee returns a payee with an account of its own.
func (w *World) Payee() *Payee {
	p := &Payee{world: w}
	p.key, p.account = accountOf(pktcloud.NewPrivateKey([32]byte{0xee}))
	return p
}

// Account is the payee's account.
func (p *Payee) Account() Account { return p.account }

// PayeeDetail returns the account that a payer pays to.
func (p *Payee) PayeeDetail(context.Context) ([]byte, error) { return p.account[:], nil }

// Accept takes a channel whose funding locks its money for this payee, and the
// vouchers that come with it, all of it or nothing.
func (p *Payee) Accept(_ context.Context, params settle.Params, funding []byte, first ...pktcloud.Signed[settle.Voucher]) (pktcloud.ID, error) {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := detailOf(params)
	if err != nil {
		return pktcloud.ID{}, err
	}
	c, err := settle.NewChannel(params, settle.Payee, w.chain.height)
	if err != nil {
		return pktcloud.ID{}, err
	}
	var tx transaction
	if err := pktcloud.Unmarshal(funding, &tx, maxFunding); err != nil {
		return pktcloud.ID{}, settle.Refuse(settle.ErrMalformed, "funding: %w", err)
	}
	known := w.payees[c.ID]
	if err := w.fits(tx, d, c, known != nil); err != nil {
		return pktcloud.ID{}, err
	}
	if known != nil {
		c = known.state
	}
	for _, v := range first {
		if c, err = c.Accept(v, Rail{}); err != nil {
			return pktcloud.ID{}, err
		}
	}
	w.payees[c.ID] = &kept{state: c, funding: tx}
	return c.ID, nil
}

// fits checks that a funding locks the channel's money for this payee, and can
// be carried out.
func (w *World) fits(tx transaction, d detail, c settle.Channel, known bool) error {
	h := tx.hash()
	a := w.chain.account(d.Payer)
	switch {
	case d.Payee != w.Payee().account:
		return settle.Refuse(settle.ErrParams, "the detail names another payee")
	case tx.Kind != openLock || tx.Channel != c.ID || tx.From != d.Payer || tx.Nonce != d.Nonce || tx.To != d.Payee,
		tx.Amount != c.Params.Capacity || tx.Height != c.Params.ExpiryHeight:
		return settle.Refuse(settle.ErrFunding, "the transaction locks something else")
	case !ed25519.Verify(tx.From[:], h[:], tx.Sig):
		return settle.Refuse(settle.ErrFunding, "the transaction's signature does not verify")
	case !known && w.chain.locks[c.ID] == nil && (tx.Nonce < a.nonce || tx.Amount > a.balance):
		return settle.Refuse(settle.ErrFunding, "nonce %d was used, or the account lacks the money", tx.Nonce)
	}
	return nil
}

// Announce locks the payer's money on the chain.
func (p *Payee) Announce(_ context.Context, channel pktcloud.ID) error {
	return p.world.announce(p.world.payees, channel)
}

// Receive accepts a voucher.
func (p *Payee) Receive(_ context.Context, v pktcloud.Signed[settle.Voucher]) error {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(w.payees, v.Body.Channel)
	if err != nil {
		return err
	}
	w.look(k)
	k.state, err = k.state.Accept(v, Rail{})
	return err
}

// Latest returns the channel's newest voucher.
func (p *Payee) Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	return p.world.latest(p.world.payees, channel)
}

// CompleteClose ends a channel as both agreed.
func (p *Payee) CompleteClose(_ context.Context, channel pktcloud.ID, o settle.CloseOffer) (txid [32]byte, err error) {
	return p.end(channel, func(c settle.Channel) (settle.Channel, transaction, error) {
		c, err := c.AcceptClose(o, Rail{})
		return c, transaction{Kind: closeLock, Amount: o.Final, Proof: o.Signature}, err
	})
}

// Claim ends a channel by its newest voucher, without the payer.
func (p *Payee) Claim(_ context.Context, channel pktcloud.ID) (txid [32]byte, err error) {
	return p.end(channel, func(c settle.Channel) (settle.Channel, transaction, error) {
		c, err := c.Claim()
		v := c.Latest.Body
		return c, transaction{Kind: claimLock, Amount: v.Total, Proof: v.Proof}, err
	})
}

// end brings a channel's end on the chain, its funding before it. What the
// chain has already is returned as it is.
func (p *Payee) end(channel pktcloud.ID, how func(settle.Channel) (settle.Channel, transaction, error)) (txid [32]byte, err error) {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(w.payees, channel)
	if err != nil {
		return txid, err
	}
	next, tx, err := how(k.state)
	if err != nil {
		return txid, err
	}
	k.state = next
	if lk := w.chain.locks[channel]; lk != nil && lk.end != nil {
		return lk.end.hash, nil
	}
	if err := w.chain.submit(k.funding); err != nil {
		return txid, err
	}
	tx.From, tx.Nonce, tx.Channel = p.account, w.nonces[p.account], channel
	tx = tx.signed(p.key)
	w.nonces[p.account]++
	return tx.hash(), w.chain.submit(tx)
}

// ChannelStatus reports on one channel.
func (p *Payee) ChannelStatus(_ context.Context, channel pktcloud.ID) (Status, error) {
	return p.world.status(p.world.payees, channel)
}
