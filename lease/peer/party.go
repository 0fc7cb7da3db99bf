package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

var (
	errStopped = errors.New("lease: this side is not running")
	errTwice   = errors.New("lease: Run was called twice")
	// ErrUnreachable marks a provider that does not answer.
	ErrUnreachable = errors.New("lease: the provider does not answer")
	// ErrUnanswered marks a lease whose commit was sent, and not yet answered.
	ErrUnanswered = errors.New("lease: the provider has not answered the commit yet")
)

// party is what both sides have: leases, their journal, and who watches.
type party struct {
	role   lease.Role
	side   side
	host   host.Host
	device pktcloud.PrivateKey
	store  Store
	clock  Clock
	log    *slog.Logger
	rolls  Rolls          // nil: this side's channels do not roll
	wg     sync.WaitGroup // all goroutines of run

	mu      sync.Mutex
	leases  map[pktcloud.ID]*runner
	order   []pktcloud.ID
	subs    map[chan pktcloud.ID]struct{}
	ctx     context.Context // nil until run
	started chan struct{}   // closed once run was called
	stopped chan struct{}   // closed once run's context has ended
	ran     bool
}

func (p *party) init(role lease.Role, s side) {
	p.role, p.side = role, s
	if p.clock == nil {
		p.clock = SystemClock{}
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.leases, p.subs = map[pktcloud.ID]*runner{}, map[chan pktcloud.ID]struct{}{}
	p.started, p.stopped = make(chan struct{}), make(chan struct{})
}

// done is closed when the party stops.
func (p *party) done() <-chan struct{} { return p.stopped }

// saved is what the journal holds of a lease.
type saved struct {
	state  lease.State
	commit lease.Commit
	clock  clockMark
	events []Event
	count  uint64
	offer  pktcloud.Signed[market.Offer]
	links  []pktcloud.ID
	next   proposal
	last   lease.Countersigned // with the highest revision
}

// load reads the journal. Refusals go to the caller.
func (p *party) load(ctx context.Context, refused func(id pktcloud.ID, value []byte) error) error {
	all := map[pktcloud.ID]*saved{}
	err := p.store.Load(ctx, prefix, func(k string, value []byte) error {
		id, rest, ok := splitKey(k)
		if !ok {
			return fmt.Errorf("lease: the store has a key %q that is none of ours", k)
		}
		if rest == "refusal" {
			return refused(id, value)
		}
		if all[id] == nil {
			all[id] = &saved{}
		}
		return all[id].take(rest, value)
	})
	if err != nil {
		return fmt.Errorf("reading the journal of leases: %w", err)
	}
	for id, s := range all {
		if s.state.Lease != id {
			return fmt.Errorf("lease: the journal of %s has no state of its own", id)
		}
		if s.state.Role != p.role {
			continue // one store serves a node that provides and rents
		}
		uptime := time.Duration(s.clock.Uptime)
		if p.role == lease.RoleTenant {
			uptime = s.clock.uptime(p.clock)
		}
		r := p.newRunner(s.state, s.commit, uptime)
		r.events, r.view.Events = s.count, s.events
		r.addresses, r.rails, r.links = s.offer.Body.Addresses, s.offer.Body.Rails, s.links
		if err := r.resume(s); err != nil {
			return err
		}
		r.publish()
		p.leases[id] = r
		p.order = append(p.order, id)
	}
	slices.SortFunc(p.order, func(a, b pktcloud.ID) int {
		x, y := p.leases[a].state.Began, p.leases[b].state.Began
		if x != y {
			return int(min(max(x-y, -1), 1))
		}
		return strings.Compare(a.Hex(), b.Hex())
	})
	return nil
}

// resume takes up what the journal holds of amendments.
func (r *runner) resume(s *saved) error {
	r.offer = s.offer
	if r.state.Revision > 0 {
		if s.last.Amendment.Body.Revision != r.state.Revision {
			return fmt.Errorf("lease: the journal of %s has amendment %d, and not %d", r.id, s.last.Amendment.Body.Revision, r.state.Revision)
		}
		r.manifest, r.offer = s.last.Manifest, s.last.Offer
	}
	if !r.state.Proposal.IsZero() {
		if s.next.Amendment.Body.Attempt != r.state.Proposal.Attempt {
			return fmt.Errorf("lease: the journal of %s has no amendment of attempt %d", r.id, r.state.Proposal.Attempt)
		}
		r.proposal = s.next
	}
	return nil
}

func (s *saved) take(rest string, value []byte) (err error) {
	switch kind, _, _ := strings.Cut(rest, "/"); kind {
	case "state":
		s.state, err = lease.ParseState(value)
	case "commit":
		var m lease.Message
		if m, err = lease.ParseMessage(value); err == nil {
			s.commit, _ = m.(lease.Commit)
		}
	case "offer":
		s.offer, err = market.ParseOffer(value)
	case "successor":
		var to settle.Params
		if to, err = settle.ParseParams(value); err == nil {
			s.links = append(s.links, idOf(to))
		}
	case "proposal":
		err = pktcloud.Unmarshal(value, &s.next, lease.MaxMessageBytes)
	case "amendment":
		s.last, err = lease.ParseCountersigned(value) // they ascend
	case "clock":
		err = pktcloud.Unmarshal(value, &s.clock, lease.MaxSmallBytes)
	case "event":
		var e Event
		err = pktcloud.Unmarshal(value, &e, lease.MaxSmallBytes)
		s.events = remember(s.events, e)
		s.count++
	}
	return err
}

// run starts the goroutines of all leases and serves until ctx ends.
func (p *party) run(ctx context.Context, serve func(ctx context.Context)) error {
	p.mu.Lock()
	if p.ran {
		p.mu.Unlock()
		return errTwice
	}
	p.ran, p.ctx = true, ctx
	for _, id := range p.order {
		p.start(p.leases[id])
	}
	p.mu.Unlock()
	close(p.started)
	context.AfterFunc(ctx, func() { close(p.stopped) })
	serve(ctx)
	<-p.stopped
	p.wg.Wait()
	return ctx.Err()
}

// start runs a lease's goroutine; p.mu is held.
func (p *party) start(r *runner) {
	r.ctx = p.ctx
	ctx := p.ctx
	p.wg.Go(func() { r.run(ctx) })
}

// add keeps a new lease, whose journal is durable, and runs it. after is the
// first thing that its goroutine does.
func (p *party) add(r *runner, after func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil || p.ctx.Err() != nil {
		return errStopped
	}
	p.leases[r.id] = r
	p.order = append(p.order, r.id)
	r.inbox <- after // empty as yet
	p.start(r)
	return nil
}

func (p *party) runner(id pktcloud.ID) (*runner, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.leases[id]
	return r, ok
}

// running waits until run was called, and returns its context.
func (p *party) running(ctx context.Context) (context.Context, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.stopped:
		return nil, errStopped
	case <-p.started:
		return p.ctx, nil
	}
}

func (p *party) notify(id pktcloud.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.subs {
		select {
		case c <- id:
		default: // make room: the newest change is the one to see
			select {
			case <-c:
			default:
			}
			select {
			case c <- id:
			default:
			}
		}
	}
}

// List returns all leases, oldest first.
func (p *party) List() []View {
	p.mu.Lock()
	runners := make([]*runner, 0, len(p.order))
	for _, id := range p.order {
		runners = append(runners, p.leases[id])
	}
	p.mu.Unlock()
	views := make([]View, 0, len(runners))
	for _, r := range runners {
		v, _ := r.snapshot()
		views = append(views, v)
	}
	return views
}

// Lease returns one lease.
func (p *party) Lease(id pktcloud.ID) (View, bool) {
	r, ok := p.runner(id)
	if !ok {
		return View{}, false
	}
	v, _ := r.snapshot()
	return v, true
}

// Subscribe returns a channel that receives the id of each lease that changed,
// and a function that ends it. A slow reader misses ids, never the newest.
func (p *party) Subscribe() (changes <-chan pktcloud.ID, cancel func()) {
	c := make(chan pktcloud.ID, 64)
	p.mu.Lock()
	p.subs[c] = struct{}{}
	p.mu.Unlock()
	return c, func() {
		p.mu.Lock()
		delete(p.subs, c)
		p.mu.Unlock()
	}
}

// closeLease asks a lease to end and waits until it has.
func (p *party) closeLease(ctx context.Context, id pktcloud.ID) error {
	r, ok := p.runner(id)
	if !ok {
		return lease.Refusal(lease.CodeUnknown, "no lease %s here", id)
	}
	failed := make(chan error, 1)
	r.post(func() {
		if r.state.Phase >= lease.Closing {
			failed <- nil
			return
		}
		r.side.count(r)
		failed <- r.step(lease.CloseNow{Reason: lease.ReasonRequested}, "close", "asked by the owner")
	})
	select {
	case err := <-failed:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done():
		return errStopped
	}
	v, err := r.wait(ctx, func(v View) bool { return v.Phase.Final() || v.Cancelled })
	if err == nil && v.Phase == lease.Proposed {
		return ErrUnanswered
	}
	if err == nil {
		_, err = r.wait(ctx, func(v View) bool { return v.Phase.Final() })
	}
	return err
}
