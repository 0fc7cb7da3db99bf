package peer

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/doorway"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// accept serves one stream until it ends.
func (p *Provider) accept(ctx context.Context, s network.Stream) {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		s.Reset() //nolint:errcheck // refused
		return
	}
	l, err := newLink(s)
	if err != nil {
		s.Reset() //nolint:errcheck // no Ed25519 key, no tenant
		return
	}
	guest, ok := p.door.Enter(l.remote, l.end)
	if !ok {
		l.send(refuse(pktcloud.ID{}, lease.Refusal(lease.CodeBusy, "at most %d streams of a device that are no lease's", MaxWaitingOfOne)))
		l.finish()
		return
	}
	defer guest.Leave()
	stop := context.AfterFunc(ctx, l.end)
	defer stop()
	if err := s.SetReadDeadline(time.Now().Add(firstDeadline)); err != nil {
		l.close()
		return
	}
	r := p.serve(ctx, l, guest)
	if r != nil {
		r.post(func() { r.unbind(l) })
	}
	l.finish()
}

// serve reads messages until the stream ends; it returns the lease that the
// stream came to be of.
func (p *Provider) serve(ctx context.Context, l *link, guest *doorway.Guest[pktcloud.PublicKey]) *runner {
	var r *runner
	for ctx.Err() == nil {
		m, err := l.read()
		if err != nil {
			if _, ok := errors.AsType[*lease.Error](err); ok {
				l.send(refuse(pktcloud.ID{}, err))
			}
			return r
		}
		switch m := m.(type) {
		case lease.Propose:
			guest.Stay()
			l.send(p.propose(ctx, l.remote, m))
			continue
		case lease.Commit:
			bound, err := p.commit(ctx, l, m)
			if err != nil {
				id, _ := m.Terms.ID()
				l.send(refuse(id, err))
				continue
			}
			r = bound
		case lease.Attach:
			bound, ok := p.runner(m.Lease)
			if !ok || bound.peer != l.remote {
				l.send(refuse(m.Lease, lease.Refusal(lease.CodeUnknown, "no such lease of this device")))
				continue
			}
			r = bound
			bound.post(func() { bound.bind(l); p.message(bound, m) })
		default:
			if r == nil {
				l.send(refuse(pktcloud.ID{}, lease.Refusal(lease.CodePhase, "begin with propose, commit or attach")))
				return nil
			}
			bound := r
			r.post(func() { p.message(bound, m) })
		}
		if r != nil {
			guest.Leave()
			if err := l.stream.SetReadDeadline(time.Time{}); err != nil {
				return r
			}
		}
	}
	return r
}

func refuse(id pktcloud.ID, err error) lease.Refuse {
	text := err.Error()
	if e, ok := errors.AsType[*lease.Error](err); ok {
		text = e.Detail
	}
	return lease.Refuse{Version: lease.MessageVersion, Lease: id, Code: lease.CodeOf(err), Text: lease.Clip(text)}
}

// message takes a message of the tenant, in the lease's goroutine.
func (p *Provider) message(r *runner, m lease.Message) {
	var err error
	switch m := m.(type) {
	case lease.VoucherMessage:
		err = p.voucher(r, m)
	case lease.Close:
		err = p.complete(r, m)
	case lease.CloseRequest:
		p.count(r)
		err = r.step(lease.Received{Message: m}, "close", "asked by the tenant: "+m.Text)
	case lease.DisputeMessage:
		p.count(r)
		b := m.Dispute.Body
		err = r.step(lease.Received{Message: m}, "dispute", string(b.Code)+": "+b.Text,
			Put{Key: numbered(r.id, "dispute", b.Sequence), Value: encode(m.Dispute)})
	case lease.Amend:
		err = p.amend(r, m)
	case lease.Attach:
		err = r.step(lease.Received{Message: m}, "attach", "")
	default:
		err = r.step(lease.Received{Message: m}, "", "")
	}
	if err != nil {
		r.event(m.MessageType(), err)
		r.send(refuse(r.id, err))
		r.lost(err)
	}
}

// voucher accepts a payment: first the channel, then the lease.
func (p *Provider) voucher(r *runner, m lease.VoucherMessage) error {
	if m.Lease != r.id {
		return lease.Refusal(lease.CodeUnknown, "a voucher for another lease")
	}
	pay, err := paymentOf(m)
	if err != nil {
		return err
	}
	p.followRoll(r)
	if !p.paidOver(r.state.Terms.Channel, pay.To.Body.Channel) {
		return lease.Refusal(lease.CodePayment, "a voucher of another channel")
	}
	if err := p.checkEntries(r, pay.To.Body); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, callDeadline)
	defer cancel()
	err = p.receive(ctx, pay)
	if errors.Is(err, settle.ErrStale) { // another lease of the channel brought a newer one, which pays this one no less
		if latest, ok := p.newer(r.id, pay.To.Body); ok {
			pay, err = Payment{To: latest}, nil
		}
	}
	switch {
	case early(err) && len(r.links) > 0: // the tenant sends it again
		return &lease.Error{Code: lease.CodeBusy, Detail: "the roll of the channel is not as far on this side; send the voucher again", Err: err}
	case err != nil:
		return &lease.Error{Code: lease.CodePayment, Detail: "the channel refuses the voucher", Err: err}
	}
	p.count(r)
	return p.credit(r, pay)
}

// credit counts a payment that the channel has accepted.
func (p *Provider) credit(r *runner, pay Payment) error {
	e, ok := pay.To.Body.Entry(r.id)
	if !ok || e.Cumulative <= r.state.Paid {
		return nil
	}
	return r.step(lease.Paid{Cumulative: e.Cumulative}, "voucher", e.Cumulative.String(), r.voucherPuts(pay)...)
}

// complete ends the lease with the tenant's record: the channel's close is
// durable and broadcast before the record is countersigned.
func (p *Provider) complete(r *runner, m lease.Close) error {
	if r.state.Phase == lease.Closed && r.state.Countersigned() && m.Record.Paid == r.state.Record.Paid {
		r.send(lease.CloseAck{Version: lease.MessageVersion, Lease: r.id, Signature: r.state.ProviderClose})
		return nil
	}
	if err := r.state.CheckClose(m); err != nil {
		return err
	}
	p.sharing.Lock()
	defer p.sharing.Unlock()
	txid, err := p.settle(r, m)
	if err != nil {
		return err
	}
	sig, err := lease.SignClose(p.device, m.Record)
	if err != nil {
		return err
	}
	return r.step(lease.Completed{Close: m, Signature: sig, TxID: txid}, "closed", string(m.Record.Reason)+", paid "+m.Record.Paid.String())
}

// propose answers a proposal: a quote, or a refusal. It keeps nothing.
func (p *Provider) propose(ctx context.Context, remote pktcloud.PublicKey, m lease.Propose) lease.Message {
	q, err := p.quote(ctx, remote, m)
	if err != nil {
		p.log.Info("lease: proposal refused", "tenant", m.Draft.Tenant, "error", err)
		return refuse(pktcloud.ID{}, err)
	}
	return lease.Quote{Version: lease.MessageVersion, Quote: encode(q), Account: p.cfg.Account}
}

func (p *Provider) quote(ctx context.Context, remote pktcloud.PublicKey, m lease.Propose) (pktcloud.Signed[market.Quote], error) {
	var none pktcloud.Signed[market.Quote]
	now := p.clock.Now()
	if m.Draft.TenantDevice != remote || m.Draft.ProviderDevice != p.device.Public() {
		return none, lease.Refusal(lease.CodeSignature, "the draft is not between this connection's two devices")
	}
	if err := lease.CheckAccount(m.Account, m.Draft.Tenant, remote, now); err != nil {
		return none, err
	}
	rate, err := p.admit(ctx, m.Draft, m.Manifest, m.Credentials, "")
	if err != nil {
		return none, err
	}
	request, err := m.Draft.ID()
	if err != nil {
		return none, err
	}
	expires := now.Unix() + p.cfg.QuoteSeconds
	detail, err := p.quoted.take(ctx, p.cfg.Payee, now.Unix(), expires)
	if err != nil {
		return none, err
	}
	return pktcloud.Seal(p.device, market.Quote{
		Version: market.QuoteVersion, Provider: m.Draft.Provider, Device: p.device.Public(), Offer: m.Draft.Offer,
		Request: request, Rate: rate, PayeeDetail: detail, Issued: now.Unix(), Expires: expires,
	})
}

// admit says whether an offer and the owner allow a draft on a rail, the
// offer's first when it is empty.
func (p *Provider) admit(ctx context.Context, draft lease.Terms, m lease.Manifest, c lease.Credentials, rail string) (pktcloud.Rate, error) {
	offer, open := p.cfg.Offer(draft.Offer)
	if !open {
		return 0, lease.Refusal(lease.CodeOffer, "the offer is not open; look for a newer one")
	}
	if rail == "" {
		rail = offer.Body.Rails[0].Name
	}
	rate, err := lease.CheckDraft(offer.Body, draft, rail)
	if err != nil {
		return 0, err
	}
	if err := lease.CheckIsolation(offer.Body, m); err != nil {
		return 0, err
	}
	if err := lease.CheckNetwork(offer.Body, m); err != nil {
		return 0, err
	}
	if err := lease.CheckVolumes(offer.Body, m); err != nil {
		return 0, err
	}
	if _, ok := p.cfg.Workload.(CredentialKeeper); !ok && len(c) > 0 {
		return 0, lease.Refusal(lease.CodeManifest, "this provider takes no credentials of registries; choose another offer, or a public image")
	}
	taken := 0
	for _, v := range p.List() {
		if !v.Phase.Final() {
			taken++
		}
	}
	if taken >= p.cfg.MaxLeases {
		return 0, lease.Refusal(lease.CodeCapacity, "all %d leases of this provider are taken", p.cfg.MaxLeases)
	}
	if p.cfg.Admit == nil {
		return rate, nil
	}
	if err := p.cfg.Admit(ctx, draft, m, c); err != nil {
		if _, ok := errors.AsType[*lease.Error](err); ok {
			return 0, err
		}
		return 0, &lease.Error{Code: lease.CodeCapacity, Detail: err.Error()}
	}
	return rate, nil
}

// commit makes a lease, or finds the one that an earlier commit made, and
// gives it the stream [LEASE-8].
func (p *Provider) commit(ctx context.Context, l *link, m lease.Commit) (*runner, error) {
	id, err := m.Terms.ID()
	if err != nil {
		return nil, err
	}
	if m.Terms.TenantDevice != l.remote {
		return nil, lease.Refusal(lease.CodeSignature, "the terms are not of this connection's device")
	}
	if _, known := p.runner(id); !known {
		// Asked twice: now it may take as long as a registry likes, and below,
		// where others wait, it is known already.
		if _, err := lease.CheckCommit(m, p.device.Public(), p.clock.Now()); err == nil {
			p.admit(ctx, m.Terms.Draft(), m.Manifest, m.Credentials, m.Params.Rail) //nolint:errcheck // judged below
		}
	}
	p.agree.Lock()
	defer p.agree.Unlock()
	if r, ok := p.runner(id); ok {
		r.post(func() { r.bind(l); p.message(r, m) })
		return r, nil
	}
	if r, ok := p.refused[id]; ok {
		return nil, &lease.Error{Code: r.Code, Detail: r.Text}
	}
	if p.answered[m.Terms.Quote] { // and not one more row for it [LEASE-21]
		return nil, lease.Refusal(lease.CodeQuote, "a commit under this quote was refused; ask for a new one")
	}
	q, err := lease.CheckCommit(m, p.device.Public(), p.clock.Now())
	if err != nil {
		return nil, err
	}
	r, err := p.agreeTo(ctx, l, m, q)
	if err == nil {
		return r, nil
	}
	code := lease.CodeOf(err)
	if code == lease.CodeBusy || code == lease.CodeInternal || ctx.Err() != nil {
		return nil, err
	}
	no := refuse(id, err)
	kept := refusal{CommitBy: m.Terms.CommitBy, Quote: m.Terms.Quote, Code: no.Code, Text: no.Text}
	if err := apply(ctx, p.store, []Put{{Key: key(id, "refusal"), Value: encode(kept)}}); err != nil {
		return nil, err
	}
	p.refused[id], p.answered[m.Terms.Quote] = kept, true
	return nil, err
}

// agreeTo judges a commit by what changes with time, takes the channel, and
// makes the lease durable. p.agree is held.
func (p *Provider) agreeTo(ctx context.Context, l *link, m lease.Commit, q pktcloud.Signed[market.Quote]) (*runner, error) {
	if _, err := p.admit(ctx, m.Terms.Draft(), m.Manifest, m.Credentials, m.Params.Rail); err != nil {
		return nil, err
	}
	sig, err := lease.SignTerms(p.device, m.Terms)
	if err != nil {
		return nil, err
	}
	p.sharing.Lock()
	defer p.sharing.Unlock()
	// Judged twice: what is refused leaves no channel, and time passes meanwhile.
	if _, _, err := lease.NewProvider(m, sig, lease.Now{Unix: p.clock.Now().Unix()}); err != nil {
		return nil, err
	}
	if err := p.takeChannel(ctx, m, q.Body.PayeeDetail); err != nil {
		return nil, err
	}
	state, effects, err := lease.NewProvider(m, sig, lease.Now{Unix: p.clock.Now().Unix()})
	if err != nil {
		return nil, err
	}
	r := p.newRunner(state, m, 0)
	offer, _ := p.cfg.Offer(m.Terms.Offer)
	r.rails, r.offer = offer.Body.Rails, offer
	keep := func(context.Context, pktcloud.ID, lease.Credentials) error { return nil }
	if k, ok := p.cfg.Workload.(CredentialKeeper); ok && len(m.Credentials) > 0 {
		keep = k.KeepCredentials
	}
	if err := keep(ctx, r.id, m.Credentials); err != nil {
		return nil, &lease.Error{Code: lease.CodeInternal, Detail: "the credentials cannot be kept now", Err: err}
	}
	if err := r.create(ctx, offer, "agreed at "+pktcloud.Amount(q.Body.Rate).String()+" an hour"); err != nil {
		return nil, errors.Join(err, keep(context.WithoutCancel(ctx), r.id, nil))
	}
	err = p.add(r, func() {
		r.bind(l)
		for _, e := range effects {
			p.do(r, e)
		}
	})
	return r, err
}

// takeChannel takes the channel that a lease brings, or finds room in an open
// one [LEASE-17]. p.sharing is held.
func (p *Provider) takeChannel(ctx context.Context, m lease.Commit, detail []byte) error {
	offer, _ := p.cfg.Offer(m.Terms.Offer)
	rail, ok := offer.Body.Rail(m.Params.Rail)
	if !ok {
		return lease.Refusal(lease.CodeChannel, "the offer is not paid over %q", m.Params.Rail)
	}
	if err := checkRail(rail, m.Params); err != nil {
		return err
	}
	if len(m.Funding) == 0 {
		return p.shareChannel(ctx, m)
	}
	for _, v := range p.List() {
		if p.paidOver(v.Terms.Channel, m.Terms.Channel) {
			return lease.Refusal(lease.CodeChannel, "the channel pays another lease; open one for this lease, or name it without a funding")
		}
	}
	var first []pktcloud.Signed[settle.Voucher]
	if len(m.Voucher) != 0 {
		v, err := settle.ParseVoucher(m.Voucher)
		if err != nil {
			return &lease.Error{Code: lease.CodePayment, Detail: "the first voucher", Err: err}
		}
		first = append(first, v)
	}
	channel, err := p.cfg.Payee.Accept(ctx, m.Params, m.Funding, first...)
	if errors.Is(err, settle.ErrLedgerUnavailable) {
		return &lease.Error{Code: lease.CodeBusy, Detail: "the chain is out of sight, try again", Err: err}
	}
	if err != nil {
		return &lease.Error{Code: lease.CodeChannel, Detail: err.Error(), Err: err}
	}
	p.quoted.used(detail)
	if channel != m.Terms.Channel {
		return lease.Refusal(lease.CodeChannel, "the channel is not the one of the terms")
	}
	return nil
}

// create makes a new lease durable, in one write, with the offer that it was
// agreed under: the offer may be gone from the market tomorrow.
func (r *runner) create(ctx context.Context, offer pktcloud.Signed[market.Offer], text string) error {
	b, err := r.state.Encode()
	if err != nil {
		return err
	}
	commit, err := lease.AppendMessage(nil, r.commit)
	if err != nil {
		return err
	}
	since, boot := r.p.clock.Boot()
	mark := clockMark{Boot: boot, Since: int64(since), Unix: r.p.clock.Now().Unix(), Uptime: int64(r.uptime())}
	event := Event{At: r.p.clock.Now().UnixMilli(), Phase: r.state.Phase, Kind: "agree", Text: text}
	puts := []Put{
		{Key: key(r.id, "state"), Value: b},
		{Key: key(r.id, "terms"), Value: encode(signedTerms(r.state))},
		{Key: key(r.id, "commit"), Value: commit},
		{Key: key(r.id, "offer"), Value: encode(offer)},
		{Key: key(r.id, "clock"), Value: encode(mark)},
		{Key: numbered(r.id, "event", 1), Value: encode(event)},
	}
	if len(r.commit.Voucher) != 0 {
		v, err := settle.ParseVoucher(r.commit.Voucher)
		if err != nil {
			return err
		}
		puts = append(puts, Put{Key: numbered(r.id, "voucher", v.Body.Sequence), Value: r.commit.Voucher})
	}
	if err := apply(ctx, r.p.store, puts); err != nil {
		return err
	}
	r.events = 1
	r.note(event)
	if r.state.Phase == lease.Agreed {
		r.tell(lease.Proposed)
	}
	return nil
}
