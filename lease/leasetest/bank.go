package leasetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// RailName is the rail of the bank's channels.
const RailName = "bank"

// Bank stands for the chain and for both sides' channel managers. It survives
// the parties that use it, as durable managers would. It may be used from
// several goroutines at once.
type Bank struct {
	mu       sync.Mutex
	funded   map[pktcloud.ID]uint64          // announced channels and their depth
	payers   map[pktcloud.ID]*settle.Channel // what the payer keeps
	payees   map[pktcloud.ID]*settle.Channel // what the payee keeps
	closed   map[pktcloud.ID]pktcloud.Amount // what the chain paid
	opened   uint64
	refusing bool
}

// NewBank returns an empty bank.
func NewBank() *Bank {
	return &Bank{
		funded: map[pktcloud.ID]uint64{}, payers: map[pktcloud.ID]*settle.Channel{},
		payees: map[pktcloud.ID]*settle.Channel{}, closed: map[pktcloud.ID]pktcloud.Amount{},
	}
}

// Confirm buries every announced funding under n blocks.
func (b *Bank) Confirm(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.funded {
		b.funded[id] = n
	}
}

// Refuse makes the payer's Pay fail, or ends that: a tenant without money.
func (b *Bank) Refuse(refuse bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusing = refuse
}

// Settled returns what the chain paid out for a channel.
func (b *Bank) Settled(channel pktcloud.ID) (pktcloud.Amount, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.closed[channel]
	return a, ok
}

// Announced reports whether the funding was broadcast.
func (b *Bank) Announced(channel pktcloud.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.funded[channel]
	return ok
}

// rail signs by naming what it pays.
type rail struct{}

func proof(p settle.Params, total pktcloud.Amount) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", p.Payer, uint64(total)))
	return sum[:]
}

func (rail) Name() string { return RailName }

func (rail) VerifyVoucher(p settle.Params, total pktcloud.Amount, got []byte) error {
	if string(got) != string(proof(p, total)) {
		return settle.Refuse(settle.ErrProof, "not the bank's proof")
	}
	return nil
}

func (rail) VerifyClose(p settle.Params, o settle.CloseOffer) error {
	return rail{}.VerifyVoucher(p, o.Final, o.Signature)
}

// Payer is a tenant's view of the bank.
type Payer struct {
	bank *Bank
	key  pktcloud.PrivateKey
}

// Payer returns the payer whose device key is key.
func (b *Bank) Payer(key pktcloud.PrivateKey) *Payer { return &Payer{b, key} }

// Open implements peer.Payer.
func (p *Payer) Open(_ context.Context, r peer.OpenRequest) (params settle.Params, funding []byte, err error) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	p.bank.opened++
	params = settle.Params{
		Version: settle.ParamsVersion, Rail: RailName, Payer: p.key.Public(), Payee: r.Payee, Capacity: r.Capacity,
		ExpiryHeight: 1000 + r.LifetimeBlocks, MarginBlocks: 10, MinDepth: r.MinDepth, Unconfirmed: r.Unconfirmed,
		Detail: fmt.Appendf(nil, "%x %d", r.PayeeDetail, p.bank.opened),
	}
	c, err := settle.NewChannel(params, settle.Payer, 1)
	if err != nil {
		return params, nil, err
	}
	p.bank.payers[c.ID] = &c
	return params, []byte("funding of " + c.ID.String()), nil
}

// Abandon implements peer.Payer.
func (p *Payer) Abandon(_ context.Context, channel pktcloud.ID) error {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	c, ok := p.bank.payers[channel]
	if !ok {
		return nil
	}
	next, err := c.Abandon()
	*c = next
	return err
}

// Announce implements peer.Payer.
func (p *Payer) Announce(_ context.Context, channel pktcloud.ID) error {
	return p.bank.announce(channel)
}

func (b *Bank) announce(channel pktcloud.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.funded[channel]; !ok {
		b.funded[channel] = 0
	}
	return nil
}

// observe brings a channel up to what the chain says.
func (b *Bank) observe(c *settle.Channel) {
	depth, ok := b.funded[c.ID]
	*c = c.Observe(settle.Observation{Height: 1, Funded: ok, Depth: depth})
}

// Pay implements peer.Payer.
func (p *Payer) Pay(_ context.Context, channel pktcloud.ID, e settle.Entry) (pktcloud.Signed[settle.Voucher], error) {
	var none pktcloud.Signed[settle.Voucher]
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	c, ok := p.bank.payers[channel]
	if !ok || p.bank.refusing {
		return none, settle.Refuse(settle.ErrCapacity, "no money")
	}
	p.bank.observe(c)
	v, err := c.Next(e)
	if err != nil {
		return none, err
	}
	v.Proof = proof(c.Params, v.Total)
	s, err := pktcloud.Seal(p.key, v)
	if err != nil {
		return none, err
	}
	next, err := c.Issue(s)
	if err != nil {
		return none, err
	}
	*c = next
	return s, nil
}

// Latest implements peer.Payer.
func (p *Payer) Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	return latest(p.bank.payers[channel])
}

func latest(c *settle.Channel) (pktcloud.Signed[settle.Voucher], bool) {
	if c == nil || c.Latest.Body.Sequence == 0 {
		return pktcloud.Signed[settle.Voucher]{}, false
	}
	return c.Latest, true
}

// OfferClose implements peer.Payer.
func (p *Payer) OfferClose(_ context.Context, channel pktcloud.ID, final pktcloud.Amount) (settle.CloseOffer, error) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	c, ok := p.bank.payers[channel]
	if !ok {
		return settle.CloseOffer{}, settle.Refuse(settle.ErrChannel, "no such channel")
	}
	o := settle.CloseOffer{Version: settle.CloseOfferVersion, Channel: channel, Final: final, Signature: proof(c.Params, final)}
	next, err := c.OfferClose(o)
	if err != nil {
		return settle.CloseOffer{}, err
	}
	*c = next
	return o, nil
}

// ChannelStatus implements peer.Payer.
func (p *Payer) ChannelStatus(_ context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	return p.bank.status(p.bank.payers[channel])
}

func (b *Bank) status(c *settle.Channel) (peer.ChannelStatus, error) {
	if c == nil {
		return peer.ChannelStatus{}, settle.Refuse(settle.ErrChannel, "no such channel")
	}
	b.observe(c)
	return peer.ChannelStatus{
		Params: c.Params, Phase: c.Phase, Funded: c.Funded, Depth: c.Depth, Height: c.Height, Paid: c.Paid(),
	}, nil
}

// Payee is a provider's view of the bank.
type Payee struct{ bank *Bank }

// Payee returns the payee.
func (b *Bank) Payee() *Payee { return &Payee{b} }

// PayeeDetail implements peer.Payee.
func (p *Payee) PayeeDetail(context.Context) ([]byte, error) { return []byte("payee"), nil }

// Accept implements peer.Payee.
func (p *Payee) Accept(_ context.Context, params settle.Params, funding []byte, first ...pktcloud.Signed[settle.Voucher]) (pktcloud.ID, error) {
	c, err := settle.NewChannel(params, settle.Payee, 1)
	if err != nil {
		return pktcloud.ID{}, err
	}
	if string(funding) != "funding of "+c.ID.String() {
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "another funding transaction")
	}
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	if known := p.bank.payees[c.ID]; known != nil {
		c = *known
	}
	for _, v := range first {
		if c, err = c.Accept(v, rail{}); err != nil {
			return pktcloud.ID{}, err
		}
	}
	p.bank.payees[c.ID] = &c
	return c.ID, nil
}

// Announce implements peer.Payee.
func (p *Payee) Announce(_ context.Context, channel pktcloud.ID) error {
	return p.bank.announce(channel)
}

// Receive implements peer.Payee.
func (p *Payee) Receive(_ context.Context, v pktcloud.Signed[settle.Voucher]) error {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	c, ok := p.bank.payees[v.Body.Channel]
	if !ok {
		return settle.Refuse(settle.ErrChannel, "no such channel")
	}
	p.bank.observe(c)
	next, err := c.Accept(v, rail{})
	if err != nil {
		return err
	}
	*c = next
	return nil
}

// Latest implements peer.Payee.
func (p *Payee) Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	return latest(p.bank.payees[channel])
}

// CompleteClose implements peer.Payee.
func (p *Payee) CompleteClose(_ context.Context, channel pktcloud.ID, o settle.CloseOffer) (txid [32]byte, err error) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	c, ok := p.bank.payees[channel]
	if !ok {
		return txid, settle.Refuse(settle.ErrChannel, "no such channel")
	}
	next, err := c.AcceptClose(o, rail{})
	if err != nil {
		return txid, err
	}
	*c = next
	p.bank.closed[channel] = o.Final
	return sha256.Sum256(o.Signature), nil
}

// Claim implements peer.Payee.
func (p *Payee) Claim(_ context.Context, channel pktcloud.ID) (txid [32]byte, err error) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	c, ok := p.bank.payees[channel]
	if !ok {
		return txid, settle.Refuse(settle.ErrChannel, "no such channel")
	}
	next, err := c.Claim()
	if err != nil {
		return txid, err
	}
	*c = next
	p.bank.closed[channel] = c.Paid()
	return sha256.Sum256(c.Latest.Body.Proof), nil
}

// ChannelStatus implements peer.Payee.
func (p *Payee) ChannelStatus(_ context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	return p.bank.status(p.bank.payees[channel])
}
