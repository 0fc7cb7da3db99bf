package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Create agrees a lease: it asks for a quote, opens a channel, commits, and
// returns the lease's id once the provider has acknowledged. The workload
// starts at once, see [Tenant.WaitActive]. Errors are refusals of package
// lease, the provider's among them, or match [ErrUnreachable]. When ctx ends
// after the commit was sent, or no answer comes within the patience of the
// config, [ErrUnanswered], the lease may still come to be: it is among List, Run
// goes on asking, and its id is returned with the error.
func (t *Tenant) Create(ctx context.Context, req Request) (pktcloud.ID, error) {
	run, err := t.running(ctx)
	if err != nil {
		return pktcloud.ID{}, err
	}
	draft, rail, err := t.draft(req)
	if err != nil {
		return pktcloud.ID{}, err
	}
	l, err := t.connect(ctx, req.Offer.Body.Device, req.Offer.Body.Addresses)
	if err != nil {
		return pktcloud.ID{}, err
	}
	q, err := t.askQuote(ctx, l, draft, req)
	l.close()
	if err != nil {
		return pktcloud.ID{}, err
	}
	terms := draft
	if terms.Quote, err = q.ID(); err != nil {
		return pktcloud.ID{}, err
	}
	terms.Rate, terms.CommitBy = q.Body.Rate, q.Body.Expires
	r, err := t.share(ctx, run, terms, encode(q), req, rail)
	if err == nil && r == nil {
		r, err = t.openFor(ctx, run, terms, q, req, rail)
	}
	if err != nil {
		return pktcloud.ID{}, err
	}
	patient, cancel := context.WithTimeoutCause(ctx, t.cfg.Patience, ErrUnanswered)
	defer cancel()
	v, err := r.wait(patient, func(v View) bool { return v.Phase != lease.Proposed })
	if err != nil && ctx.Err() == nil && patient.Err() != nil {
		return r.id, context.Cause(patient)
	}
	if err != nil {
		return r.id, err
	}
	if v.Phase == lease.Refused {
		return r.id, lease.Refusal(r.refusalCode(), "%s", v.Text)
	}
	return r.id, nil
}

func (r *runner) refusalCode() lease.Code {
	code := make(chan lease.Code, 1)
	if !r.post(func() { code <- r.state.Code }) {
		return lease.CodeBusy
	}
	select {
	case c := <-code:
		return c
	case <-r.p.done():
		return lease.CodeBusy
	}
}

// draft fills in what the request leaves to defaults [LEASE-4].
func (t *Tenant) draft(req Request) (lease.Terms, market.Rail, error) {
	var none lease.Terms
	o := req.Offer.Body
	if err := market.Admit(o, t.clock.Now()); err != nil {
		return none, market.Rail{}, &lease.Error{Code: lease.CodeOffer, Detail: "the offer", Err: err}
	}
	if err := req.Manifest.Validate(); err != nil {
		return none, market.Rail{}, err
	}
	if req.Rail == "" {
		req.Rail = o.Rails[0].Name
	}
	rail, ok := o.Rail(req.Rail)
	if !ok || req.Capacity < rail.MinCapacity || req.Capacity > rail.MaxCapacity {
		return none, rail, lease.Refusal(lease.CodeChannel, "the offer wants a channel of %s to %s over %q", rail.MinCapacity, rail.MaxCapacity, req.Rail)
	}
	offer, err := req.Offer.ID()
	if err != nil {
		return none, rail, err
	}
	manifest, err := req.Manifest.ID()
	if err != nil {
		return none, rail, err
	}
	account, err := pktcloud.ParseAccount(t.cfg.Account)
	if err != nil {
		return none, rail, err
	}
	d := lease.Terms{
		Version: lease.TermsVersion, Tenant: account.Body.Identity, Provider: o.Provider,
		TenantDevice: t.device.Public(), ProviderDevice: o.Device, Offer: offer,
		Resources: req.Manifest.Resources(), Manifest: manifest, IntervalSeconds: req.IntervalSeconds,
		Limits: req.Limits, GraceSeconds: req.GraceSeconds, TermSeconds: req.TermSeconds, NoticeSeconds: req.NoticeSeconds,
	}
	if _, err := io.ReadFull(rand.Reader, d.Nonce[:]); err != nil {
		return none, rail, fmt.Errorf("no randomness: %w", err)
	}
	if err := fillDefaults(&d, o, rail, req.Capacity); err != nil {
		return none, rail, err
	}
	if err := lease.CheckIsolation(o, req.Manifest); err != nil {
		return none, rail, err
	}
	rate, err := lease.CheckDraft(o, d, rail.Name)
	if err != nil {
		return none, rail, err
	}
	if err := lease.CheckNetwork(o, req.Manifest); err != nil {
		return none, rail, err
	}
	if err := lease.CheckVolumes(o, req.Manifest); err != nil {
		return none, rail, err
	}
	if rate > req.MaxRate {
		return none, rail, lease.Refusal(lease.CodePrice, "it costs %s an hour, at most %s is allowed", pktcloud.Amount(rate), pktcloud.Amount(req.MaxRate))
	}
	return d, rail, nil
}

func fillDefaults(d *lease.Terms, o market.Offer, rail market.Rail, capacity pktcloud.Amount) error {
	rate, err := o.Rate(d.Resources)
	if err != nil {
		return err
	}
	if d.IntervalSeconds == 0 {
		d.IntervalSeconds = max(lease.DefaultIntervalSeconds, o.Limits.MinIntervalSeconds)
	}
	if d.GraceSeconds == 0 {
		d.GraceSeconds = lease.DefaultGraceSeconds
	}
	if d.TermSeconds == 0 {
		priced := *d
		priced.Rate = rate
		d.TermSeconds = min(max(priced.SecondsFor(capacity), o.MinTermSeconds), o.MaxTermSeconds)
	}
	if d.Limits != (lease.Limits{}) {
		return nil
	}
	credit, err := rate.For(min(max(lease.DefaultCreditSeconds, 2*d.IntervalSeconds), o.Limits.MaxCreditSeconds))
	if err != nil {
		return err
	}
	unconfirmed, err := rate.For(lease.DefaultUnconfirmed)
	if err != nil {
		return err
	}
	price, err := rate.For(d.IntervalSeconds)
	if err != nil {
		return err
	}
	d.Limits.Credit = credit
	d.Limits.Prepaid = price.SubFloor(credit)
	d.Limits.Unconfirmed = min(unconfirmed, rail.MaxUnconfirmed, capacity)
	return nil
}

// askQuote proposes a draft and checks the answer.
func (t *Tenant) askQuote(ctx context.Context, l *link, draft lease.Terms, req Request) (pktcloud.Signed[market.Quote], error) {
	var none pktcloud.Signed[market.Quote]
	stop := context.AfterFunc(ctx, l.end)
	defer stop()
	if err := l.stream.SetReadDeadline(time.Now().Add(callDeadline)); err != nil {
		return none, err
	}
	proposal := lease.Propose{Version: lease.MessageVersion, Account: t.cfg.Account, Draft: draft, Manifest: req.Manifest, Credentials: req.Credentials}
	if err := proposal.Validate(); err != nil {
		return none, err // the link would drop it, and the provider seem silent
	}
	l.send(proposal)
	m, err := l.read()
	if err != nil {
		return none, &lease.Error{Code: lease.CodeBusy, Detail: "the provider gives no quote", Err: fmt.Errorf("%w: %w", ErrUnreachable, err)}
	}
	switch m := m.(type) {
	case lease.Refuse:
		return none, lease.Refusal(m.Code, "the provider refuses: %s", m.Text)
	case lease.Quote:
		return t.checkQuote(m, draft, req)
	}
	return none, lease.Refusal(lease.CodePhase, "the provider answers a proposal with a %s", m.MessageType())
}

func (t *Tenant) checkQuote(m lease.Quote, draft lease.Terms, req Request) (pktcloud.Signed[market.Quote], error) {
	var none pktcloud.Signed[market.Quote]
	q, err := market.ParseQuote(m.Quote)
	if err != nil {
		return none, &lease.Error{Code: lease.CodeQuote, Detail: "the quote", Err: err}
	}
	request, err := draft.ID()
	if err != nil {
		return none, err
	}
	if err := q.Body.Answers(req.Offer, request, t.clock.Now()); err != nil {
		return none, &lease.Error{Code: lease.CodeQuote, Detail: "the quote", Err: err}
	}
	if err := lease.CheckAccount(m.Account, draft.Provider, draft.ProviderDevice, t.clock.Now()); err != nil {
		return none, err
	}
	if rate, err := req.Offer.Body.Rate(draft.Resources); err != nil || q.Body.Rate > rate || q.Body.Rate > req.MaxRate {
		return none, lease.Refusal(lease.CodePrice, "quoted are %s an hour, offered %s, allowed %s",
			pktcloud.Amount(q.Body.Rate), pktcloud.Amount(rate), pktcloud.Amount(req.MaxRate))
	}
	return q, nil
}

// openFor makes a lease on a channel that it opens.
func (t *Tenant) openFor(ctx, run context.Context, terms lease.Terms, q pktcloud.Signed[market.Quote], req Request, rail market.Rail) (*runner, error) {
	commit, err := t.open(ctx, terms, q, req, rail)
	if err != nil {
		return nil, err
	}
	r, err := t.keep(run, req.Offer, commit, "committed, "+commit.Params.Capacity.String()+" in the channel")
	if err != nil {
		abandoned := t.cfg.Payer.Abandon(context.WithoutCancel(ctx), commit.Terms.Channel)
		return nil, errors.Join(err, abandoned)
	}
	return r, nil
}

// open makes the channel and the commit. Nothing leaves this machine.
func (t *Tenant) open(ctx context.Context, terms lease.Terms, q pktcloud.Signed[market.Quote], req Request, rail market.Rail) (lease.Commit, error) {
	life := req.LifetimeBlocks
	if life == 0 {
		life = DefaultLifetimeBlocks
	}
	params, funding, err := t.cfg.Payer.Open(ctx, OpenRequest{
		Payee: terms.ProviderDevice, PayeeDetail: q.Body.PayeeDetail, Capacity: req.Capacity,
		Unconfirmed: terms.Limits.Unconfirmed, LifetimeBlocks: life,
		MinDepth: settle.Depths{Least: rail.MinDepth, Step: rail.DepthStep}.For(req.Capacity),
	})
	if err != nil {
		return lease.Commit{}, &lease.Error{Code: lease.CodeChannel, Detail: "opening a channel", Err: err}
	}
	if terms.Channel, err = params.ID(); err != nil {
		return lease.Commit{}, err
	}
	commit, err := t.commitOf(ctx, terms, params, funding, encode(q), req)
	if err != nil {
		abandoned := t.cfg.Payer.Abandon(context.WithoutCancel(ctx), terms.Channel)
		return lease.Commit{}, errors.Join(err, abandoned)
	}
	return commit, nil
}

func (t *Tenant) commitOf(ctx context.Context, terms lease.Terms, params settle.Params, funding, quote []byte, req Request) (lease.Commit, error) {
	var none lease.Commit
	id, err := terms.ID()
	if err != nil {
		return none, err
	}
	var voucher []byte
	if ahead := min(terms.Ahead(), terms.Limits.Unconfirmed); ahead > 0 && funding != nil { // else it is paid once agreed
		v, err := t.cfg.Payer.Pay(ctx, terms.Channel, settle.Entry{Lease: id, Cumulative: ahead, Statement: id})
		if err != nil {
			return none, &lease.Error{Code: lease.CodePayment, Detail: "the first voucher", Err: err}
		}
		voucher = encode(v)
	}
	sig, err := lease.SignTerms(t.device, terms)
	if err != nil {
		return none, err
	}
	c := lease.Commit{
		Version: lease.MessageVersion, Terms: terms, Signature: sig, Account: t.cfg.Account, Quote: quote,
		Manifest: req.Manifest, Params: params, Funding: funding, Voucher: voucher,
		Credentials: req.Credentials,
	}
	return c, c.Validate()
}

// keep makes the commit durable and hands it to a goroutine that sends it.
func (t *Tenant) keep(ctx context.Context, offer pktcloud.Signed[market.Offer], c lease.Commit, text string) (*runner, error) {
	state, _, err := lease.NewTenant(c, lease.Now{Unix: t.clock.Now().Unix()})
	if err != nil {
		return nil, err
	}
	r := t.newRunner(state, c, 0)
	r.tenant.credentials = c.Credentials
	r.addresses, r.rails, r.offer = offer.Body.Addresses, offer.Body.Rails, offer
	if err := r.create(ctx, offer, text); err != nil {
		return nil, err
	}
	return r, t.add(r, func() { t.dial(r) }) // the stream's first act is the commit
}
