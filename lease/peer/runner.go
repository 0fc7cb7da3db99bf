package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

const (
	inboxSize    = 64
	viewEvents   = 100 // kept in memory; the journal keeps all
	callDeadline = 30 * time.Second
	retryDelay   = time.Second
)

// side is what differs between a provider's and a tenant's runner. Its methods
// are called by the runner's goroutine.
type side interface {
	// do carries out an effect whose state is durable.
	do(r *runner, e lease.Effect)
	// message takes a message of the peer.
	message(r *runner, m lease.Message)
	// tick is called at least once a second; it returns when to call again.
	tick(r *runner) time.Duration
	// count brings the state up to the present second.
	count(r *runner)
	// begin is called once, before anything else.
	begin(r *runner)
}

// runner runs one lease: one goroutine, fed by one channel of functions, owns
// all but the view.
type runner struct {
	p        *party
	side     side
	id       pktcloud.ID
	manifest lease.Manifest
	commit   lease.Commit       // as it is in the journal: without credentials
	peer     pktcloud.PublicKey // the other side's device
	// addresses of the provider, from its offer; of a tenant's runner only.
	addresses []string
	rails     []market.Rail                 // of the offer that the lease was agreed under
	offer     pktcloud.Signed[market.Offer] // that makes the rate
	proposal  proposal                      // of the amendment under way
	links     []pktcloud.ID                 // what the lease's channel rolled into, as far as the journal knows
	wake      chan struct{}                 // ends the wait before a tenant's next dial
	sighted   chan struct{}                 // the same: the provider is connected
	inbox     chan func()
	ctx       context.Context // of party.run

	state  lease.State
	base   time.Duration // uptime when the runner was made
	began  time.Duration // boot clock at that moment
	link   *link
	events uint64
	watch  stopwatch
	busy   map[string]bool // background work under way, by name

	provider providerPart
	tenant   tenantPart

	mu      sync.Mutex
	view    View
	changed chan struct{} // closed and replaced at each change of the view
}

func (p *party) newRunner(s lease.State, c lease.Commit, uptime time.Duration) *runner {
	since, _ := p.clock.Boot()
	c.Credentials = nil // [LEASE-43]
	r := &runner{
		p: p, side: p.side, id: s.Lease, manifest: c.Manifest, commit: c, peer: s.Terms.ProviderDevice,
		inbox: make(chan func(), inboxSize), state: s, base: uptime, began: since,
		busy: map[string]bool{}, changed: make(chan struct{}), wake: make(chan struct{}, 1), sighted: make(chan struct{}, 1),
	}
	if p.role == lease.RoleProvider {
		r.peer = s.Terms.TenantDevice
	}
	r.watch = stopwatch{clock: p.clock, ran: time.Duration(s.Ran) * time.Second}
	r.publish()
	return r
}

// run is the lease's goroutine.
func (r *runner) run(ctx context.Context) {
	r.ctx = ctx
	r.side.begin(r)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if r.link != nil {
				r.link.end()
			}
			return
		case f := <-r.inbox:
			f()
		case <-timer.C:
			timer.Reset(r.side.tick(r))
		}
	}
}

// post hands a function to the lease's goroutine. It reports whether it will
// be run, unless the party ends first.
func (r *runner) post(f func()) bool {
	select {
	case r.inbox <- f:
		return true
	case <-r.p.done():
		return false
	}
}

// background runs work beside the goroutine, and then the function it returns
// in the goroutine. One work of a name runs at a time.
func (r *runner) background(name string, work func(ctx context.Context) func()) {
	if r.busy[name] {
		return
	}
	r.busy[name] = true
	r.p.wg.Go(func() {
		after := work(r.ctx)
		r.post(func() {
			r.busy[name] = false
			if after != nil {
				after()
			}
		})
	})
}

// later calls f in the goroutine after a while, once per name.
func (r *runner) later(name string, d time.Duration, f func()) {
	r.background(name, func(ctx context.Context) func() {
		sleep(ctx, d)
		return f
	})
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (r *runner) uptime() time.Duration {
	since, _ := r.p.clock.Boot()
	return r.base + max(0, since-r.began)
}

func (r *runner) now() lease.Now {
	return lease.Now{Unix: r.p.clock.Now().Unix(), Uptime: uint64(r.uptime() / time.Second)}
}

// step takes an input: the new state, what it issues and more puts are durable
// before anything is done.
func (r *runner) step(in lease.Input, kind, text string, more ...Put) error {
	next, effects, err := r.state.Step(in, r.now())
	if err != nil {
		return err
	}
	_, isTick := in.(lease.Tick)
	quiet := len(effects) == 0 && next.Phase == r.state.Phase && len(more) == 0 && (isTick || kind == "")
	if quiet || len(effects) == 0 && sameState(next, r.state) {
		r.state = next // counts that a restart may forget
		r.publish()
		return nil
	}
	return r.advance(next, effects, kind, text, more...)
}

// sameState reports whether nothing but time lies between two states: then
// there is nothing to keep, and nothing that was kept is replaced.
func sameState(a, b lease.State) bool {
	a.Uptime = b.Uptime
	x, errX := a.Encode()
	y, errY := b.Encode()
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// advance makes a state durable together with what its effects sign, and then
// carries the effects out.
func (r *runner) advance(next lease.State, effects []lease.Effect, kind, text string, more ...Put) error {
	puts := more
	for i, e := range effects {
		var err error
		if next, effects[i], puts, err = r.sign(next, e, puts); err != nil {
			return err
		}
	}
	if kind == "" && next.Phase != r.state.Phase {
		kind = "phase"
	}
	var event *Event
	if kind != "" {
		event = &Event{At: r.p.clock.Now().UnixMilli(), Phase: next.Phase, Kind: kind, Text: text}
		puts = append(puts, Put{Key: numbered(r.id, "event", r.events+1), Value: encode(event)})
	}
	since, boot := r.p.clock.Boot()
	mark := clockMark{Boot: boot, Since: int64(since), Unix: r.p.clock.Now().Unix(), Uptime: int64(r.uptime())}
	b, err := next.Encode()
	if err != nil {
		return err
	}
	puts = append(puts, Put{Key: key(r.id, "state"), Value: b}, Put{Key: key(r.id, "clock"), Value: encode(mark)})
	if next.Phase != r.state.Phase && next.ProviderSig != (pktcloud.Signature{}) {
		puts = append(puts, Put{Key: key(r.id, "terms"), Value: encode(signedTerms(next))})
	}
	if !next.Record.IsZero() && next.TenantClose != next.ProviderClose { // the record is new, or gains a signature
		puts = append(puts, Put{Key: key(r.id, "close"), Value: encode(lease.SignedClose{
			Version: lease.MessageVersion, Record: next.Record, Tenant: next.TenantClose, Provider: next.ProviderClose,
		})})
	}
	if err := apply(r.ctx, r.p.store, puts); err != nil {
		return err
	}
	before, amended := r.state.Phase, next.Revision > r.state.Revision
	r.state = next
	r.tell(before)
	if amended {
		r.adopt()
	}
	if event != nil {
		r.events++
		r.note(*event)
	}
	r.publish()
	for _, e := range effects {
		r.side.do(r, e)
	}
	return nil
}

// tell logs for the owner when a lease is agreed, starts and ends: a line each.
func (r *runner) tell(before lease.Phase) {
	s := r.state
	if s.Phase == before {
		return
	}
	other := s.Terms.Provider
	if s.Role == lease.RoleProvider {
		other = s.Terms.Tenant
	}
	log := r.p.log.With("lease", r.id, "role", s.Role.String(), "peer", other, "price", pktcloud.Amount(s.Terms.Rate).String()+" an hour")
	switch {
	case before == lease.Proposed && s.Phase != lease.Refused:
		log.Info("lease agreed", "term", time.Duration(s.Terms.TermSeconds)*time.Second)
	case s.Phase == lease.Active && before < lease.Active:
		log.Info("lease started")
	case s.Phase == lease.Refused:
		log.Info("lease refused", "reason", s.Code)
	case s.Phase.Final():
		log.Info("lease ended", "reason", s.Reason, "by", s.By.String(), "fault", s.Fault().Code, "served", time.Duration(s.Served)*time.Second, "paid", s.Paid)
	}
}

func signedTerms(s lease.State) lease.SignedTerms {
	return lease.SignedTerms{Version: lease.MessageVersion, Terms: s.Terms, Tenant: s.TenantSig, Provider: s.ProviderSig}
}

// sign makes the signatures that an effect asks for, and the puts that keep
// what they sign.
func (r *runner) sign(next lease.State, e lease.Effect, puts []Put) (lease.State, lease.Effect, []Put, error) {
	switch e := e.(type) {
	case lease.Issue:
		st, err := pktcloud.Seal(r.p.device, e.Statement)
		if err != nil {
			return next, e, puts, fmt.Errorf("signing a statement: %w", err)
		}
		puts = append(puts, Put{Key: numbered(r.id, "statement", st.Body.Sequence), Value: encode(st)})
		return next, lease.Send{Message: lease.StatementMessage{Version: lease.MessageVersion, Statement: st}}, puts, nil
	case lease.Object:
		d, err := pktcloud.Seal(r.p.device, e.Dispute)
		if err != nil {
			return next, e, puts, fmt.Errorf("signing a dispute: %w", err)
		}
		puts = append(puts, Put{Key: numbered(r.id, "dispute", d.Body.Sequence), Value: encode(d)})
		return next, lease.Send{Message: lease.DisputeMessage{Version: lease.MessageVersion, Dispute: d}}, puts, nil
	case lease.Accept:
		a, err := pktcloud.Seal(r.p.device, e.Acceptance)
		if err != nil {
			return next, e, puts, fmt.Errorf("signing an acceptance: %w", err)
		}
		return next, lease.Send{Message: lease.AmendAck{Version: lease.MessageVersion, Acceptance: a}}, append(puts, r.countersigned(a)...), nil
	case lease.Conclude:
		sig, err := lease.SignClose(r.p.device, e.Record)
		return next.Signed(sig), e, puts, err
	case lease.OfferClose:
		sig, err := lease.SignClose(r.p.device, e.Record)
		return next.Signed(sig), e, puts, err
	}
	return next, e, puts, nil
}

// event notes what happened without changing the state. It is not durable.
func (r *runner) event(kind string, err error) {
	if err == nil || errors.Is(err, context.Canceled) && r.ctx.Err() != nil {
		return
	}
	r.p.log.Warn("lease: "+kind, "lease", r.id, "error", err)
	r.note(Event{At: r.p.clock.Now().UnixMilli(), Phase: r.state.Phase, Kind: kind, Text: err.Error()})
}

func (r *runner) note(e Event) {
	r.p.log.Debug("lease: "+e.Kind, "lease", r.id, "phase", e.Phase, "text", e.Text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.Events = remember(slices.Clone(r.view.Events), e) // views hand the old one out
}

// remember adds an event to those of a view. What is routine makes room for
// what happens once.
func remember(events []Event, e Event) []Event {
	if len(events) >= viewEvents {
		i := max(0, slices.IndexFunc(events, func(e Event) bool { return e.Kind == "statement" || e.Kind == "voucher" }))
		events = slices.Delete(events, i, i+1)
	}
	return append(events, e)
}

// publish makes the state visible.
func (r *runner) publish() {
	s := r.state
	r.mu.Lock()
	v := &r.view
	v.ID, v.Role, v.RoleName, v.Phase = s.Lease, s.Role, s.Role.String(), s.Phase
	v.Terms, v.Manifest, v.Connected = s.Standing(), r.manifest, r.link != nil
	v.Revision, v.Declined, v.Amending, v.wants, v.prices = s.Revision, s.Declined, nil, s.Wants(), r.offer.Body
	if a := s.Proposal; !a.IsZero() {
		v.Amending = &a
	}
	if v.Channel = s.Terms.Channel; len(r.links) > 0 {
		v.Channel = r.links[len(r.links)-1]
	}
	v.Exposure, v.Max, v.Due, v.Paid = s.Exposure(), s.Max, s.Due, s.Paid
	v.Served, v.Forfeited, v.Sequence = s.Served, s.Forfeited, s.Sequence
	v.Confirmed, v.Agreed, v.Cancelled = s.Confirmed, s.Began, s.Cancel
	v.By, v.Reason, v.Text, v.Fault = s.By, s.Reason, s.Text, s.Fault()
	v.Record, v.Countersigned = s.Record, s.Countersigned()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	r.p.notify(r.id)
}

func (r *runner) snapshot() (View, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view, r.changed
}

// wait returns once ok holds for the view.
func (r *runner) wait(ctx context.Context, ok func(View) bool) (View, error) {
	for {
		v, changed := r.snapshot()
		if ok(v) {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-r.p.done():
			return v, errStopped
		case <-changed:
		}
	}
}

// bind makes a stream the lease's own; an older one ends.
func (r *runner) bind(l *link) {
	if r.link != nil && r.link != l {
		r.link.end()
	}
	r.link = l
	r.p.host.ConnManager().Protect(l.stream.Conn().RemotePeer(), r.protection())
	r.publish()
}

// protection tags a connection that the host must not close to make room.
func (r *runner) protection() string { return "lease/" + r.id.Hex() }

// unbind forgets a stream that ended.
func (r *runner) unbind(l *link) {
	if r.link == l {
		r.link = nil
		r.p.host.ConnManager().Unprotect(l.stream.Conn().RemotePeer(), r.protection())
		r.publish()
	}
}

// send sends to the peer, if it is there. What is lost is sent again when the
// tenant attaches.
func (r *runner) send(m lease.Message) {
	if r.link != nil {
		r.link.send(m)
	}
}

// lost ends the stream when a message was neither taken nor refused, such as
// by a store that fails: the tenant attaches again and repeats it.
func (r *runner) lost(err error) {
	var refused *lease.Error
	if err != nil && !errors.As(err, &refused) && r.link != nil {
		r.link.end()
	}
}

// resend sends the journaled statements after a sequence again.
func (r *runner) resend(after uint64) {
	err := r.p.store.Load(r.ctx, key(r.id, "statement")+"/", func(_ string, value []byte) error {
		st, err := lease.ParseStatement(value)
		if err != nil {
			return err
		}
		if st.Body.Sequence > after {
			r.send(lease.StatementMessage{Version: lease.MessageVersion, Statement: st})
		}
		return nil
	})
	r.event("resend", err)
}

// maxUnwatched is the most that a workload is said to have run between two looks,
// of which there is one each second: while a provider stands still, as a machine
// does that sleeps, nobody reaches what it serves. To state such seconds would
// only have them disputed, and with them the lease's credit [LEASE-13].
const maxUnwatched = 2 * time.Second

// stopwatch counts how long a workload ran, and was watched.
type stopwatch struct {
	clock   Clock
	running bool
	since   time.Duration // the last look
	ran     time.Duration
}

func (w *stopwatch) start() {
	if !w.running {
		w.since, _ = w.clock.Boot()
		w.running = true
	}
}

func (w *stopwatch) stop() {
	w.ran = w.elapsed()
	w.running = false
}

func (w *stopwatch) elapsed() time.Duration {
	if w.running {
		now, _ := w.clock.Boot()
		w.ran += min(max(0, now-w.since), maxUnwatched)
		w.since = now
	}
	return w.ran
}

func (w *stopwatch) seconds() uint64 { return uint64(w.elapsed() / time.Second) }
