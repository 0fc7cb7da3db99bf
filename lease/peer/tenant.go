package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	libpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	firstBackoff = 50 * time.Millisecond
	// lastBackoff leaves half of the least usual credit to a provider that was
	// started again: it is found before it has to freeze the workload.
	lastBackoff = lease.DefaultCreditSeconds * time.Second / 2
)

// Tenant runs the tenant's side of leases. Its methods may be called from
// several goroutines at once.
type Tenant struct {
	party
	cfg     TenantConfig
	sharing sync.Mutex // held while a channel gets a lease, or is ended: no lease comes to one that ends
}

// tenantPart is what a tenant's runner keeps beside the state.
type tenantPart struct {
	queue   []lease.Message // messages in order; a statement waits for its probe
	judging bool
	probes  probes
	dialing bool
	polled  time.Duration
	// credentials go with the commit, and end with the process.
	credentials lease.Credentials
}

// OpenChannels is what a [Payer] may also do: name the channels that it opened
// and never announced. After a crash between Open and the lease's first write,
// Run abandons those that no lease refers to.
type OpenChannels interface {
	Unannounced(ctx context.Context) ([]pktcloud.ID, error)
}

// NewTenant loads the leases of the store. Nothing runs before Run.
func NewTenant(ctx context.Context, cfg TenantConfig) (*Tenant, error) {
	if cfg.Host == nil || cfg.Device.IsZero() || cfg.Store == nil || cfg.Payer == nil || len(cfg.Account) == 0 {
		return nil, fmt.Errorf("lease: a tenant needs a host, a device key, an account, a store and channels")
	}
	if cfg.Prober == nil {
		cfg.Prober = SessionProber{Host: cfg.Host}
	}
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	t := &Tenant{cfg: cfg}
	t.party = party{host: cfg.Host, device: cfg.Device, store: cfg.Store, clock: cfg.Clock, log: cfg.Log}
	t.rolls, _ = cfg.Payer.(Rolls)
	t.init(lease.RoleTenant, t)
	refused := func(pktcloud.ID, []byte) error { return nil } // the provider's, on the same store
	if err := t.load(ctx, refused); err != nil {
		return nil, err
	}
	return t, nil
}

// Run follows all leases until ctx ends.
func (t *Tenant) Run(ctx context.Context) error {
	if err := t.abandonOrphans(ctx); err != nil {
		t.log.Warn("lease: channels without a lease", "error", err)
	}
	seen := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { t.sighted(c.RemotePeer()) }}
	t.host.Network().Notify(seen)
	defer t.host.Network().StopNotify(seen)
	return t.run(ctx, func(context.Context) {})
}

// sighted ends the waits of the leases with a provider that is there again,
// whoever found it.
func (t *Tenant) sighted(id libpeer.ID) {
	device, err := session.KeyOf(id)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.leases {
		if r.peer == device {
			select {
			case r.sighted <- struct{}{}:
			default:
			}
		}
	}
}

func (t *Tenant) abandonOrphans(ctx context.Context) error {
	lister, ok := t.cfg.Payer.(OpenChannels)
	if !ok {
		return nil
	}
	ids, err := lister.Unannounced(ctx)
	if err != nil {
		return err
	}
	used := map[pktcloud.ID]bool{}
	for _, v := range t.List() {
		used[v.Terms.Channel] = true
	}
	for _, id := range ids {
		if !used[id] {
			err = errors.Join(err, t.cfg.Payer.Abandon(ctx, id))
		}
	}
	return err
}

// WaitActive returns once the provider has stated that the workload runs, or
// with an error once it is clear that it never will.
func (t *Tenant) WaitActive(ctx context.Context, id pktcloud.ID) error {
	r, ok := t.runner(id)
	if !ok {
		return lease.Refusal(lease.CodeUnknown, "no lease %s here", id)
	}
	v, err := r.wait(ctx, func(v View) bool { return v.Phase >= lease.Active })
	if err != nil {
		return err
	}
	if !v.Fault.IsZero() {
		return &lease.Error{Code: lease.CodePhase, Detail: "the workload did not run", Err: v.Fault}
	}
	if v.Phase > lease.Suspended {
		return lease.Refusal(lease.CodePhase, "the lease is %s: %s %s", v.Phase, v.Reason, v.Text)
	}
	return nil
}

// Close ends a lease and returns once it is over: with a record that both have
// signed or, if the provider does not answer within the grace of the terms,
// with the tenant's own. A lease whose commit is not answered cannot end yet: it is
// closed once it is acknowledged, and Close returns [ErrUnanswered] [LEASE-47].
func (t *Tenant) Close(ctx context.Context, id pktcloud.ID) error { return t.closeLease(ctx, id) }

func (t *Tenant) begin(r *runner) {
	t.followRoll(r)
	for _, e := range r.state.Recover() {
		t.do(r, e)
	}
}

func (t *Tenant) count(r *runner) { r.event("tick", r.step(lease.Tick{}, "", "")) }

// do carries out an effect.
func (t *Tenant) do(r *runner, e lease.Effect) {
	switch e := e.(type) {
	case lease.Send:
		r.send(e.Message)
		if r.link == nil {
			r.wakeDialer()
		}
	case lease.SendCommit:
		c := r.commit
		c.Credentials = r.tenant.credentials
		r.send(c)
	case lease.Announce:
		t.announce(r)
	case lease.Abandon:
		t.abandon(r)
	case lease.Pay:
		t.pay(r, e.Entry)
	case lease.SendVoucher:
		t.sendVoucher(r)
	case lease.SendAmend:
		t.sendAmend(r)
	case lease.ObjectAgain:
		t.objectAgain(r, e.Sequence)
	case lease.OfferClose:
		t.offerClose(r, e.Record)
	}
}

func (t *Tenant) announce(r *runner) {
	channel := r.state.Terms.Channel
	r.background("announce", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		err := t.cfg.Payer.Announce(ctx, channel)
		return func() {
			if err != nil {
				r.event("announce", err)
				r.later("announce", retryDelay, func() { t.announce(r) })
				return
			}
			r.event("funding", r.step(lease.Funding{Known: true, Confirmed: r.state.Confirmed}, "", ""))
		}
	})
}

func (t *Tenant) abandon(r *runner) {
	channel := r.state.Terms.Channel
	if len(r.commit.Funding) == 0 {
		return // the channel is of other leases
	}
	r.background("abandon", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		err := t.cfg.Payer.Abandon(ctx, channel)
		return func() {
			if err != nil {
				r.event("abandon", err)
				r.later("abandon", retryDelay, func() { t.abandon(r) })
			}
		}
	})
}

// pay makes a voucher. The channel may refuse it for now, while the funding is
// shallow: the next look at the channel tries again.
func (t *Tenant) pay(r *runner, e settle.Entry) {
	ctx, cancel := context.WithTimeout(r.ctx, callDeadline)
	defer cancel()
	p, err := t.payOver(ctx, t.followRoll(r), e)
	if err != nil {
		r.event("pay", err)
		if errors.Is(err, settle.ErrRolling) { // the answer to a roll is not here yet
			r.later("pay", retryDelay, func() { t.poll(r) })
		}
		return
	}
	r.event("pay", r.step(lease.Paid{Cumulative: e.Cumulative}, "voucher", e.Cumulative.String(), r.voucherPuts(p)...))
}

func (t *Tenant) sendVoucher(r *runner) {
	p, ok := latest(t.rolls, t.cfg.Payer.Latest, t.followRoll(r))
	if !ok {
		return
	}
	m := lease.VoucherMessage{Version: lease.MessageVersion, Lease: r.id, Voucher: encode(p.To)}
	if p.From.Body.Sequence > 0 {
		m.Predecessor = encode(p.From)
	}
	r.send(m)
}

// voucherLater sends the payment again: what stood against it may have passed.
func (t *Tenant) voucherLater(r *runner) {
	r.later("voucher", retryDelay, func() {
		if r.state.Phase >= lease.Agreed && r.state.Phase < lease.Closed && r.state.Paid > 0 {
			t.sendVoucher(r)
		}
	})
}

func (t *Tenant) objectAgain(r *runner, sequence uint64) {
	want := numbered(r.id, "dispute", sequence)
	err := t.store.Load(r.ctx, want, func(k string, value []byte) error {
		d, err := lease.ParseDispute(value)
		if err == nil && k == want {
			r.send(lease.DisputeMessage{Version: lease.MessageVersion, Dispute: d})
		}
		return err
	})
	r.event("dispute", err)
}

// offerClose sends the close record, and what pays it.
func (t *Tenant) offerClose(r *runner, record lease.CloseRecord) {
	offer, err := t.closing(r, record)
	if err != nil {
		r.event("close", err)
		t.offerLater(r)
		return
	}
	r.send(lease.Close{Version: lease.MessageVersion, Record: record, Signature: r.state.TenantClose, Offer: offer})
}

// offerLater offers the close again: what stood against it may have passed.
func (t *Tenant) offerLater(r *runner) {
	r.later("close", retryDelay, func() {
		if r.state.Phase == lease.Closing && r.state.Final {
			t.offerClose(r, r.state.Record)
		}
	})
}

// tick counts, looks at the channel now and then, probes, and dials.
func (t *Tenant) tick(r *runner) time.Duration {
	t.count(r)
	t.followRoll(r)
	phase := r.state.Phase
	if phase.Final() {
		if r.link != nil {
			r.link.end()
		}
		return time.Hour
	}
	t.dial(r)
	up := r.uptime()
	every := pollDeep
	if !r.state.Confirmed {
		every = pollShallow
	}
	if phase != lease.Proposed && up-r.tenant.polled >= every {
		r.tenant.polled = up
		t.poll(r)
	}
	if phase == lease.Active {
		t.probeSometimes(r)
	}
	return min(time.Second, time.Duration(r.state.Terms.IntervalSeconds)*time.Second/4)
}

func (t *Tenant) poll(r *runner) {
	channel := r.state.Terms.Channel
	r.background("poll", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		f, err := t.standing(ctx, t.cfg.Payer.ChannelStatus, channel)
		return func() {
			if err != nil {
				r.event("channel", err)
				return
			}
			r.event("channel", r.step(f, "", ""))
		}
	})
}

// dial keeps a stream to the provider while the lease lasts.
func (t *Tenant) dial(r *runner) {
	if r.tenant.dialing {
		return
	}
	r.tenant.dialing = true
	t.wg.Go(func() {
		backoff := firstBackoff
		for r.ctx.Err() == nil {
			if v, _ := r.snapshot(); v.Phase.Final() {
				break
			}
			l, err := t.connect(r.ctx, r.peer, r.addresses)
			if err == nil {
				began := time.Now()
				t.follow(r, l)
				if time.Since(began) > time.Second {
					backoff = firstBackoff
				}
			}
			if r.awaitDial(backoff) {
				backoff = firstBackoff
				continue
			}
			backoff = min(2*backoff, lastBackoff)
		}
		r.post(func() { r.tenant.dialing = false })
	})
}

// wakeDialer ends the wait before the next dial: there is something to say.
func (r *runner) wakeDialer() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// awaitDial waits before the next dial; it reports whether it was woken.
func (r *runner) awaitDial(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.sighted: // by the dial that just failed: no reason for another one
	default:
	}
	select {
	case <-r.ctx.Done():
	case <-t.C:
	case <-r.sighted:
	case <-r.wake:
		return true
	}
	return false
}

// connect opens a stream to a device at the addresses of its offer.
func (t *Tenant) connect(ctx context.Context, device pktcloud.PublicKey, addresses []string) (*link, error) {
	id, err := session.PeerOf(device)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			continue // of a kind that this version does not know
		}
		if addr, _ := libpeer.SplitAddr(m); addr != nil {
			t.host.Peerstore().AddAddr(id, addr, peerstore.AddressTTL)
		}
	}
	if n, ok := t.host.Network().(*swarm.Swarm); ok {
		n.Backoff().Clear(id) // the delays between dials are ours
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	s, err := t.host.NewStream(ctx, id, ProtocolID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	l, err := newLink(s)
	if err != nil {
		s.Reset() //nolint:errcheck // given up
		return nil, err
	}
	return l, nil
}

// follow runs one stream until it ends.
func (t *Tenant) follow(r *runner, l *link) {
	stop := context.AfterFunc(r.ctx, l.end)
	defer stop()
	r.post(func() {
		r.bind(l)
		for _, e := range r.state.Reconnect() {
			if e, ok := e.(lease.OfferClose); ok && r.state.TenantClose == (pktcloud.Signature{}) {
				continue // the step that made the record is still to come
			} else if ok {
				t.offerClose(r, e.Record)
				continue
			}
			t.do(r, e)
		}
	})
	for {
		m, err := l.read()
		if err != nil {
			break
		}
		r.post(func() { t.message(r, m) })
	}
	r.post(func() { r.unbind(l) })
	l.close()
}

// message takes a message of the provider, in the lease's goroutine. Messages
// keep their order: those behind a statement wait for its probe.
func (t *Tenant) message(r *runner, m lease.Message) {
	r.tenant.queue = append(r.tenant.queue, m)
	if len(r.tenant.queue) > sendQueue && r.link != nil {
		r.link.end() // it will send again what is not answered
		r.tenant.queue = nil
	}
	t.drain(r)
}

func (t *Tenant) drain(r *runner) {
	for len(r.tenant.queue) > 0 && !r.tenant.judging {
		m := r.tenant.queue[0]
		r.tenant.queue = r.tenant.queue[1:]
		if st, ok := m.(lease.StatementMessage); ok {
			t.judge(r, st.Statement)
			continue
		}
		var err error
		switch m := m.(type) {
		case lease.Ack:
			err = r.step(lease.Received{Message: m}, "", "")
		case lease.Refuse:
			err = r.step(lease.Received{Message: m}, "refused", string(m.Code)+": "+m.Text)
			if m.Code == lease.CodeBusy {
				t.offerLater(r) // another lease of the channel stands in the way
				t.voucherLater(r)
			}
		case lease.AmendAck:
			err = t.amended(r, m)
		case lease.AmendRefuse:
			err = t.notAmended(r, m)
		case lease.CloseAck:
			err = r.step(lease.Received{Message: m}, "closed", string(r.state.Reason)+", paid "+r.state.Record.Paid.String())
		default:
			err = r.step(lease.Received{Message: m}, m.MessageType(), "")
		}
		if err != nil {
			r.event(m.MessageType(), err)
			r.lost(err)
		}
	}
}

// judged steps with a statement and the verdict of the probes.
func (t *Tenant) judged(r *runner, in lease.Judged) {
	t.followRoll(r) // the provider may count on what a roll added
	st := in.Statement
	before := r.state.Sequence
	kind, text, puts := "", "", []Put(nil)
	if st.Body.Sequence == before+1 { // a repeated one never overwrites what is kept
		kind, text = "statement", fmt.Sprintf("%d: to second %d, due %s", st.Body.Sequence, st.Body.To, st.Body.Due)
		puts = []Put{{Key: numbered(r.id, "statement", st.Body.Sequence), Value: encode(st)}}
	}
	err := r.step(in, kind, text, puts...)
	switch {
	case err == nil && r.state.Disputed == st.Body.Sequence && r.state.Sequence > before:
		r.event("dispute", lease.Refusal(r.state.Code, "%s", r.state.Text))
	case errors.Is(err, lease.CodeSequence) && r.link != nil:
		r.event("statement", err)
		r.link.end() // attach again, from the last one known
	default:
		r.event("statement", err)
		r.lost(err)
	}
}
