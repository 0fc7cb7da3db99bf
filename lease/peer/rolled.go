package peer

import (
	"context"
	"errors"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// What becomes of leases whose channel rolls into another one: they are paid over
// that one, link by link, and their shares counted against it [LEASE-29].

// links are what a channel rolled into.
func (p *party) links(channel pktcloud.ID) []settle.Params {
	if p.rolls == nil {
		return nil
	}
	return p.rolls.Successors(channel)
}

// current is the channel that pays in the place of one.
func (p *party) current(channel pktcloud.ID) pktcloud.ID {
	if links := p.links(channel); len(links) > 0 {
		return idOf(links[len(links)-1])
	}
	return channel
}

// idOf is the id of parameters that a channel has.
func idOf(p settle.Params) pktcloud.ID { return pktcloud.IDOf(encode(p)) }

// paidOver reports whether a lease on one channel is, or was, paid over another.
func (p *party) paidOver(of, channel pktcloud.ID) bool {
	if of == channel {
		return true
	}
	for _, l := range p.links(of) {
		if idOf(l) == channel {
			return true
		}
	}
	return false
}

// followRoll makes durable, with a lease, what its channel rolled into since, and
// returns the channel that pays it now. What a full store does not take is tried
// again at the next tick.
func (p *party) followRoll(r *runner) pktcloud.ID {
	links := p.links(r.state.Terms.Channel)
	for n := len(r.links); n < len(links) && r.state.Phase >= lease.Agreed && r.state.Phase < lease.Closed; n++ {
		id := idOf(links[n])
		err := r.step(lease.Rolled{Successor: links[n]}, "roll", "paid over channel "+id.Hex()[:8]+" of "+links[n].Capacity.String()+" from now on",
			Put{Key: numbered(r.id, "successor", uint64(n+1)), Value: encode(links[n])})
		if err != nil {
			r.event("roll", err)
			break
		}
		r.links = append(r.links, id)
		r.publish()
	}
	if len(links) > 0 {
		return idOf(links[len(links)-1])
	}
	return r.state.Terms.Channel
}

// voucherPuts keep the vouchers of a payment with a lease: sequences are a
// channel's own, so those of a successor have keys of their own.
func (r *runner) voucherPuts(p Payment) []Put {
	var puts []Put
	for _, v := range []pktcloud.Signed[settle.Voucher]{p.To, p.From} {
		switch {
		case v.Body.Sequence == 0:
		case v.Body.Channel == r.state.Terms.Channel:
			puts = append(puts, Put{Key: numbered(r.id, "voucher", v.Body.Sequence), Value: encode(v)})
		default:
			puts = append(puts, Put{Key: numbered(r.id, "rolled/"+v.Body.Channel.Hex(), v.Body.Sequence), Value: encode(v)})
		}
	}
	return puts
}

// standing is how the channel of a lease stands, as lease.Funding. While a roll is
// under way the predecessor stands for both: what only the successor bears is
// bounded by the channels themselves [ROLL-6].
func (p *party) standing(ctx context.Context, ask func(context.Context, pktcloud.ID) (ChannelStatus, error), channel pktcloud.ID) (lease.Funding, error) {
	st, err := ask(ctx, channel)
	if err != nil {
		return lease.Funding{}, err
	}
	f := fundingOf(st)
	for _, l := range p.links(channel) {
		if st, err = ask(ctx, idOf(l)); err != nil {
			return f, err
		}
		switch next := fundingOf(st); {
		case next.Confirmed:
			f = next
		case st.Depth > 0: // the predecessor has ended in it: its deadline is none any more
			f.Ending, f.Blind = next.Ending, next.Blind
		}
	}
	return f, nil
}

// payOver raises a lease's entry of the channel that pays it now: of that one
// alone or, while its roll is under way, of both.
func (t *Tenant) payOver(ctx context.Context, channel pktcloud.ID, e settle.Entry) (Payment, error) {
	v, err := t.cfg.Payer.Pay(ctx, channel, e)
	rolling, ok := t.cfg.Payer.(RollingPayer)
	if err == nil || !ok || !errors.Is(err, settle.ErrRolling) {
		return Payment{To: v}, err
	}
	p, both := rolling.PayRolling(ctx, channel, e)
	if errors.Is(both, settle.ErrUnknown) {
		return Payment{}, err // an offer that is not answered yet
	}
	return p, both
}

// latest is the newest payment of a channel.
func latest(rolls Rolls, of func(pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool), channel pktcloud.ID) (Payment, bool) {
	if rolls != nil {
		return rolls.Payment(channel)
	}
	v, ok := of(channel)
	return Payment{To: v}, ok
}

// receive takes a payment: of one channel, or of two [LEASE-30].
func (p *Provider) receive(ctx context.Context, pay Payment) error {
	if pay.From.Body.Sequence == 0 {
		return p.cfg.Payee.Receive(ctx, pay.To)
	}
	rolling, ok := p.cfg.Payee.(RollingPayee)
	if !ok {
		return settle.Refuse(settle.ErrUnknown, "channels here do not roll")
	}
	return rolling.ReceiveRolling(ctx, pay)
}

// paymentOf reads the vouchers of a message.
func paymentOf(m lease.VoucherMessage) (pay Payment, err error) {
	if pay.To, err = settle.ParseVoucher(m.Voucher); err == nil && len(m.Predecessor) > 0 {
		pay.From, err = settle.ParseVoucher(m.Predecessor)
	}
	if err != nil {
		return Payment{}, &lease.Error{Code: lease.CodePayment, Detail: "the voucher", Err: err}
	}
	return pay, nil
}

// early reports whether a channel refused a payment only because this side has
// not yet seen what the payer has of a roll: it is good a moment later.
func early(err error) bool {
	return errors.Is(err, settle.ErrRolling) || errors.Is(err, settle.ErrUnconfirmed)
}

// AdmitRoll says whether the leases of a channel allow what its payer would roll
// it into, given the voucher that the channel then has [LEASE-31]. Errors are
// those of package settle, for the answer to the payer.
func (p *Provider) AdmitRoll(channel, successor settle.Params, voucher settle.Voucher) error {
	id := idOf(channel)
	live := p.on(id)
	switch {
	case len(live) == 0:
		return settle.Refuse(settle.ErrClosed, "the channel pays no lease any more; open another")
	case successor.Capacity < channel.Capacity:
		return settle.Refuse(settle.ErrCapacity, "a successor of %s is less than the channel's %s; pay the fee from the wallet", successor.Capacity, channel.Capacity)
	}
	for _, e := range voucher.Entries {
		v, ok := p.Lease(e.Lease)
		if !ok || !p.paidOver(v.Terms.Channel, id) || e.Cumulative > v.share(channel) {
			return settle.Refuse(settle.ErrRoll, "the latest voucher pays lease %s more than its share, or it is none of this channel", e.Lease)
		}
	}
	var refused error
	for _, v := range live {
		r, ok := p.runner(v.ID)
		if !ok {
			continue
		}
		rail, ok := railOf(r.rails, successor.Rail)
		if !ok {
			continue
		}
		if refused = checkRail(rail, successor); refused == nil {
			return nil
		}
	}
	return settle.Refuse(settle.ErrParams, "%s", lease.Clip(detailOf(refused)))
}

func detailOf(err error) string {
	if e, ok := errors.AsType[*lease.Error](err); ok {
		return e.Detail
	}
	return "no lease of the channel was agreed under an offer of its rail"
}

// RollRail returns what the provider of a channel asks of channels, by the offer
// of a lease that it pays; false where it pays none [LEASE-31].
func (t *Tenant) RollRail(channel pktcloud.ID) (market.Rail, bool) {
	for _, v := range t.on(channel) {
		if r, ok := t.runner(v.ID); ok {
			if rail, ok := railOf(r.rails, r.commit.Params.Rail); ok {
				return rail, true
			}
		}
	}
	return market.Rail{}, false
}

func railOf(rails []market.Rail, name string) (market.Rail, bool) {
	return market.Offer{Rails: rails}.Rail(name)
}
