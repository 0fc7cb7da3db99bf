package peer

import (
	"context"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// What several leases on one channel have to agree on: who may come, what each
// may take, and which of them ends it [LEASE-17] [LEASE-26] [LEASE-27].

// checkRail says whether an offer takes channels like this one: the more money,
// the deeper its funding has to lie [LEASE-7].
func checkRail(r market.Rail, p settle.Params) error {
	depth := settle.Depths{Least: r.MinDepth, Step: r.DepthStep}.For(p.Capacity)
	if p.MinDepth < depth || p.Capacity < r.MinCapacity || p.Capacity > r.MaxCapacity {
		return lease.Refusal(lease.CodeChannel, "the offer wants a channel of %s to %s, this one at a depth of %d", r.MinCapacity, r.MaxCapacity, depth)
	}
	return nil
}

// on returns the leases of a channel that are not over.
func (p *party) on(channel pktcloud.ID) []View {
	var live []View
	for _, v := range p.List() {
		if !v.Phase.Final() && p.current(v.Terms.Channel) == channel {
			live = append(live, v)
		}
	}
	return live
}

// others reports whether another lease of a lease's channel is not over, and
// whether it ever had another one. It asks nothing that is the lease's goroutine's.
func (p *party) others(r *runner) (live, ever bool) {
	channel := p.current(r.commit.Terms.Channel)
	for _, v := range p.List() {
		if v.ID != r.id && p.current(v.Terms.Channel) == channel {
			live, ever = live || !v.Phase.Final(), true
		}
	}
	return live, ever
}

// shares are what leases may take of their channel.
func shares(leases []View, p settle.Params) map[pktcloud.ID]pktcloud.Amount {
	all := map[pktcloud.ID]pktcloud.Amount{}
	for _, v := range leases {
		all[v.ID] = v.share(p)
	}
	return all
}

// usable says whether a channel takes leases beside those that it has: its
// funding is settled, and vouchers pass.
func usable(st ChannelStatus) error {
	if st.Phase != settle.Open || !st.Funded || st.Depth < st.Params.MinDepth || st.Height >= st.Params.Deadline() {
		return lease.Refusal(lease.CodeChannel, "the channel is %s, at a depth of %d; a further lease wants one that is open and settled", st.Phase, st.Depth)
	}
	return nil
}

// shareChannel finds room for a lease in a channel that is open.
func (p *Provider) shareChannel(ctx context.Context, m lease.Commit) error {
	channel := m.Terms.Channel
	st, err := p.cfg.Payee.ChannelStatus(ctx, channel)
	if err != nil {
		return &lease.Error{Code: lease.CodeChannel, Detail: "no such channel; send its funding", Err: err}
	}
	if err := usable(st); err != nil {
		return err
	}
	latest, _ := p.cfg.Payee.Latest(channel)
	return lease.Fits(st.Params, latest.Body, shares(p.on(channel), st.Params), m.Terms)
}

// checkEntries holds each entry of a voucher to the share of a lease on its
// channel: what goes to others would be missing to those [LEASE-26].
func (p *Provider) checkEntries(r *runner, v settle.Voucher) error {
	params := r.commit.Params
	if links := p.links(r.state.Terms.Channel); len(links) > 0 {
		params = links[len(links)-1]
	}
	for _, e := range v.Entries {
		t, share := r.state.Terms, r.state.Spendable
		if e.Lease != r.id {
			other, ok := p.Lease(e.Lease)
			if !ok {
				return lease.Refusal(lease.CodePayment, "the voucher pays lease %s, which is none of this channel", e.Lease)
			}
			t, share = other.Terms, other.share(params)
		}
		if !p.paidOver(t.Channel, v.Channel) || e.Cumulative > share {
			return lease.Refusal(lease.CodePayment, "the voucher pays lease %s %s, of a share of %s", e.Lease, e.Cumulative, share)
		}
	}
	return nil
}

// newer returns the channel's latest voucher, if it pays a lease no less than v.
func (p *Provider) newer(id pktcloud.ID, v settle.Voucher) (pktcloud.Signed[settle.Voucher], bool) {
	latest, ok := p.cfg.Payee.Latest(v.Channel)
	have, _ := latest.Body.Entry(id)
	want, paid := v.Entry(id)
	return latest, ok && paid && have.Cumulative >= want.Cumulative
}

// finalOf is what a channel pays in all when a lease's record is paid beside
// what its latest voucher pays the others.
func finalOf(latest settle.Voucher, record lease.CloseRecord) (pktcloud.Amount, error) {
	e, _ := latest.Entry(record.Lease)
	return latest.Total.SubFloor(e.Cumulative).Add(record.Paid)
}

// settle sees to it that a tenant's close is paid: by an offer that ends the
// channel, or where it pays other leases, by the vouchers so far [LEASE-27].
// p.sharing is held.
func (p *Provider) settle(r *runner, m lease.Close) (txid []byte, err error) {
	channel := p.followRoll(r)
	latest, _ := p.cfg.Payee.Latest(channel)
	final, err := finalOf(latest.Body, m.Record)
	if err != nil {
		return nil, &lease.Error{Code: lease.CodeRecord, Detail: "the record's amount", Err: err}
	}
	live, shared := p.others(r)
	switch {
	case len(m.Offer) == 0 && live && m.Record.Paid == r.state.Paid:
		return nil, nil
	case len(m.Offer) == 0 && live:
		return nil, lease.Refusal(lease.CodeBusy, "the record pays %s, the vouchers %s; pay first", m.Record.Paid, r.state.Paid)
	case len(m.Offer) == 0 && final == 0:
		return nil, nil
	case len(m.Offer) == 0 && shared: // the tenant may not know yet that the others are over
		return nil, lease.Refusal(lease.CodeBusy, "this is the channel's last lease; offer to close it")
	case len(m.Offer) == 0:
		return nil, lease.Refusal(lease.CodeRecord, "a close that pays needs an offer")
	case live:
		return nil, lease.Refusal(lease.CodeBusy, "the channel pays other leases; close it with the last one")
	}
	offer, err := settle.ParseCloseOffer(m.Offer)
	if err != nil || offer.Final != final || offer.Channel != channel {
		return nil, lease.Refusal(lease.CodeRecord, "the close offer is not one that pays the record")
	}
	ctx, cancel := context.WithTimeout(r.ctx, callDeadline)
	defer cancel()
	tx, err := p.cfg.Payee.CompleteClose(ctx, channel, offer)
	if err != nil {
		return nil, &lease.Error{Code: lease.CodeChannel, Detail: "the channel refuses the close", Err: err}
	}
	return tx[:], nil
}

// choose returns an open channel to the provider of the terms that has room for
// them, with its parameters; false when there is none. t.sharing is held.
func (t *Tenant) choose(ctx context.Context, terms lease.Terms, rail market.Rail) (settle.Params, bool) {
	seen := map[pktcloud.ID]bool{}
	for _, v := range t.List() {
		// A lease that runs keeps the provider from ending the channel.
		channel := t.current(v.Terms.Channel)
		if v.Terms.ProviderDevice != terms.ProviderDevice || v.Phase < lease.Funded || v.Phase >= lease.Closing || seen[channel] {
			continue
		}
		seen[channel] = true
		st, err := t.cfg.Payer.ChannelStatus(ctx, channel)
		if err != nil || usable(st) != nil || st.Params.Rail != rail.Name || checkRail(rail, st.Params) != nil {
			continue
		}
		if (st.Params.Deadline()-st.Height)*settle.SecondsPerBlock < terms.TermSeconds {
			continue // it may end before the lease does
		}
		latest, _ := t.cfg.Payer.Latest(channel)
		if lease.Fits(st.Params, latest.Body, shares(t.on(channel), st.Params), terms) == nil {
			return st.Params, true
		}
	}
	return settle.Params{}, false
}

// share makes a lease on a channel that is open, if there is one with room; it
// returns nil when there is none.
func (t *Tenant) share(ctx, run context.Context, terms lease.Terms, quote []byte, req Request, rail market.Rail) (*runner, error) {
	if req.OwnChannel {
		return nil, nil
	}
	t.sharing.Lock() // until the lease is among the others
	defer t.sharing.Unlock()
	params, ok := t.choose(ctx, terms, rail)
	if !ok {
		return nil, nil
	}
	var err error
	if terms.Channel, err = params.ID(); err != nil {
		return nil, err
	}
	commit, err := t.commitOf(ctx, terms, params, nil, quote, req)
	if err != nil {
		return nil, err
	}
	return t.keep(run, req.Offer, commit, "committed, paid over the open channel "+terms.Channel.Hex()[:8])
}

// closing is how a lease's record is paid: by the offer that ends its channel or,
// where the channel pays other leases, by a voucher, and no offer [LEASE-27].
func (t *Tenant) closing(r *runner, record lease.CloseRecord) (offer []byte, err error) {
	channel := t.followRoll(r)
	t.sharing.Lock()
	defer t.sharing.Unlock()
	if live, _ := t.others(r); live {
		return nil, t.payRecord(r, record)
	}
	ctx, cancel := context.WithTimeout(r.ctx, callDeadline)
	defer cancel()
	latest, _ := t.cfg.Payer.Latest(channel)
	final, err := finalOf(latest.Body, record)
	if err != nil {
		return nil, err
	}
	o, err := t.cfg.Payer.OfferClose(ctx, channel, final)
	switch {
	case err == nil:
		return encode(o), nil
	case final == 0:
		return nil, nil // there is nothing to pay, and what was paid in comes back by itself
	}
	return nil, err
}

// payRecord sends a voucher whose entry is what a close record pays. It makes one
// where the last payment could not be made.
func (t *Tenant) payRecord(r *runner, record lease.CloseRecord) error {
	paid := func() pktcloud.Amount {
		latest, _ := t.cfg.Payer.Latest(t.current(r.state.Terms.Channel))
		e, _ := latest.Body.Entry(r.id)
		return e.Cumulative
	}
	if paid() < record.Paid {
		t.pay(r, settle.Entry{Lease: r.id, Cumulative: record.Paid, Statement: record.Statement})
	} else if record.Paid > 0 {
		t.sendVoucher(r)
	}
	if have := paid(); have < record.Paid {
		return lease.Refusal(lease.CodePayment, "the record pays %s, the vouchers %s", record.Paid, have)
	}
	return nil
}
