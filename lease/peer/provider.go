package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/doorway"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	readyDeadline  = 60 * time.Second // for the service's port to accept, once the workload runs
	maxStreams     = 512
	pollShallow    = time.Second      // the channel, while its funding is shallow
	pollDeep       = 10 * time.Second // and later
	workloadChecks = 2 * time.Second
	// maxRejected is how often, a retryDelay apart, the chain may refuse a
	// funding before its lease ends [LEASE-20].
	maxRejected = 10
)

// Streams that are not yet a lease's: of one device, and of all that have not
// proposed anything [LEASE-25].
const (
	MaxWaitingOfOne = 8
	MaxWaiting      = 128
)

// Provider runs the provider's side of leases. Its methods may be called from
// several goroutines at once.
type Provider struct {
	party
	cfg     ProviderConfig
	streams chan struct{} // one token a stream
	quoted  quoted
	door    *doorway.Doorway[pktcloud.PublicKey]
	sharing sync.Mutex // held while a channel gets a lease, or ends: no lease comes to one that ends

	agree    sync.Mutex // one commit at a time: room is asked for and taken together
	refused  map[pktcloud.ID]refusal
	answered map[pktcloud.ID]bool // quotes whose commit was refused for good
}

// providerPart is what a provider's runner keeps beside the state.
type providerPart struct {
	frozen   bool // the workload shall be
	polled   time.Duration
	checked  time.Duration
	rejected int // times that the chain refused the funding
}

// NewProvider loads the leases of the store. Nothing runs before Run.
func NewProvider(ctx context.Context, cfg ProviderConfig) (*Provider, error) {
	if cfg.Host == nil || cfg.Device.IsZero() || cfg.Store == nil || cfg.Payee == nil || cfg.Workload == nil || cfg.Offer == nil || len(cfg.Account) == 0 {
		return nil, fmt.Errorf("lease: a provider needs a host, a device key, an account, a store, channels, a runtime and offers")
	}
	if cfg.MaxLeases == 0 {
		cfg.MaxLeases = DefaultMaxLeases
	}
	if cfg.QuoteSeconds == 0 {
		cfg.QuoteSeconds = DefaultQuoteSeconds
	}
	p := &Provider{
		cfg: cfg, streams: make(chan struct{}, maxStreams), refused: map[pktcloud.ID]refusal{}, answered: map[pktcloud.ID]bool{},
		door: doorway.New[pktcloud.PublicKey](MaxWaitingOfOne, MaxWaiting),
	}
	p.party = party{host: cfg.Host, device: cfg.Device, store: cfg.Store, clock: cfg.Clock, log: cfg.Log}
	p.rolls, _ = cfg.Payee.(Rolls)
	p.init(lease.RoleProvider, p)
	err := p.load(ctx, func(id pktcloud.ID, value []byte) error {
		var r refusal
		if err := pktcloud.Unmarshal(value, &r, lease.MaxSmallBytes); err != nil {
			return err
		}
		if r.CommitBy+lease.AnswerSeconds > p.clock.Now().Unix() {
			p.refused[id], p.answered[r.Quote] = r, true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Run serves the protocol and all leases until ctx ends. Workloads go on.
func (p *Provider) Run(ctx context.Context) error {
	return p.run(ctx, func(ctx context.Context) {
		p.host.SetStreamHandler(ProtocolID, func(s network.Stream) { p.accept(ctx, s) })
		<-ctx.Done()
		p.host.RemoveStreamHandler(ProtocolID)
		for range maxStreams { // all streams have ended once all tokens are back
			p.streams <- struct{}{}
		}
	})
}

// Close ends a lease for the owner and returns once it is over.
func (p *Provider) Close(ctx context.Context, id pktcloud.ID) error { return p.closeLease(ctx, id) }

// Authorize implements session.Authorizer: the tenant's device may exec,
// forward and read logs while the lease is active, and read while it is
// suspended [SESSION-3].
func (p *Provider) Authorize(_ context.Context, id pktcloud.ID, device pktcloud.PublicKey, c session.Command) error {
	v, ok := p.Lease(id)
	switch {
	case !ok || v.Terms.TenantDevice != device:
		return lease.Refusal(lease.CodeUnknown, "no such lease of this device")
	case v.Phase == lease.Active || v.Phase == lease.Suspended && c.Reads():
		return nil
	}
	return lease.Refusal(lease.CodePhase, "the lease is %s", v.Phase)
}

func (p *Provider) begin(r *runner) {
	r.provider.frozen = r.state.Phase == lease.Suspended
	if pay, ok := latest(p.rolls, p.cfg.Payee.Latest, p.followRoll(r)); ok && r.state.Phase < lease.Closed {
		r.event("voucher", p.credit(r, pay)) // accepted just before a crash
	}
	for _, e := range r.state.Recover() {
		p.do(r, e)
	}
}

// do carries out an effect.
func (p *Provider) do(r *runner, e lease.Effect) {
	switch e := e.(type) {
	case lease.Send:
		r.send(e.Message)
	case lease.Announce:
		p.announce(r)
	case lease.Start:
		p.bringUp(r)
	case lease.Freeze:
		p.freeze(r)
	case lease.Thaw:
		p.thaw(r)
	case lease.Stop:
		p.stop(r)
	case lease.Resend:
		r.resend(e.After)
	case lease.Apply:
		p.apply(r)
	case lease.AcceptAgain:
		p.acceptAgain(r)
	case lease.Conclude:
		p.claim(r)
	}
}

func (p *Provider) announce(r *runner) {
	channel := r.state.Terms.Channel
	r.background("announce", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		err := p.cfg.Payee.Announce(ctx, channel)
		return func() {
			if errors.Is(err, settle.ErrRejected) {
				r.provider.rejected++ // a chain out of sight says something else [LEASE-15]
			}
			if err != nil && r.provider.rejected >= maxRejected && r.state.Phase == lease.Agreed {
				r.event("announce", r.step(lease.CloseNow{Reason: lease.ReasonChannel}, "close", err.Error()))
			}
			if err != nil {
				r.event("announce", err)
				if r.state.Phase < lease.Closing {
					r.later("announce", retryDelay, func() { p.announce(r) })
				}
				return
			}
			r.event("funding", r.step(lease.Funding{Known: true, Confirmed: r.state.Confirmed, Blind: r.state.Held}, "", ""))
		}
	})
}

// bringUp starts a workload, or finds it again after a restart.
func (p *Provider) bringUp(r *runner) {
	if r.state.Phase >= lease.Closing {
		return
	}
	if r.state.Phase == lease.Funded {
		if err := r.step(lease.Launched{}, "", ""); err != nil {
			r.event("launch", err)
			r.later("start", retryDelay, func() { p.bringUp(r) })
			return
		}
	}
	first := r.state.Phase == lease.Starting
	manifest := r.manifest
	r.background("start", func(ctx context.Context) func() {
		err := p.cfg.Workload.Start(ctx, r.id, manifest)
		if err == nil && first && manifest.Probe.Port != 0 {
			err = p.ready(ctx, r.id, manifest.Probe)
		}
		return func() { p.started(r, err) }
	})
}

// ready waits until the probed port accepts.
func (p *Provider) ready(ctx context.Context, id pktcloud.ID, probe lease.Probe) error {
	ctx, stop := awake(ctx, readyDeadline)
	defer stop()
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		conn, err := p.cfg.Workload.Dial(ctx, id, probe.Service, uint16(probe.Port))
		if err == nil {
			return conn.Close()
		}
		if st, err := p.cfg.Workload.Status(ctx, id); st == WorkloadEnded {
			return endOf(err, "the program ended before anything answered on port %d", probe.Port)
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return lease.Faultf(lease.FaultPort, "nothing answered on port %d within %s", probe.Port, readyDeadline)
		}
	}
}

// started follows a start. When a restarted provider cannot find a workload it
// concludes nothing from that: it tries again [LEASE-15].
func (p *Provider) started(r *runner, err error) {
	if r.ctx.Err() != nil {
		return
	}
	switch {
	case r.state.Phase >= lease.Closing: // it may have begun after it was stopped
		p.stopAs(r, "stop late")
	case err == nil && r.state.Phase == lease.Starting:
		r.watch.start()
		r.event("start", r.step(lease.Started{}, "start", "the workload runs"))
	case err == nil && r.state.Phase == lease.Active:
		r.watch.start()
	case err == nil:
	case r.state.Phase == lease.Starting:
		r.event("end", r.step(lease.Ended{Fault: faultOf(err)}, "end", err.Error()))
	case r.state.Phase.Running():
		r.event("start", err)
		p.check(r)
		r.later("start", retryDelay, func() { p.bringUp(r) })
	}
}

// faultOf is what the tenant is told of a start that failed: what the runtime
// says for it, and else nothing of the provider's machine.
func faultOf(err error) lease.Fault {
	if f, ok := errors.AsType[lease.Fault](err); ok {
		return f
	}
	return lease.Faultf(lease.FaultMachine, "the provider's machine could not run it")
}

// endOf is the fault of a workload that has ended: what its status says, or a
// sentence.
func endOf(err error, format string, args ...any) lease.Fault {
	if f, ok := errors.AsType[lease.Fault](err); ok {
		return f
	}
	return lease.Faultf(lease.FaultExit, format, args...)
}

func (p *Provider) freeze(r *runner) {
	r.watch.stop()
	r.provider.frozen = true
	ctx, cancel := context.WithTimeout(r.ctx, callDeadline)
	defer cancel()
	if err := p.cfg.Workload.Freeze(ctx, r.id); err != nil {
		r.event("freeze", err)
		r.later("freeze", retryDelay, func() {
			if r.provider.frozen && r.state.Phase.Running() {
				p.freeze(r)
			}
		})
	}
}

func (p *Provider) thaw(r *runner) {
	r.provider.frozen = false
	ctx, cancel := context.WithTimeout(r.ctx, callDeadline)
	defer cancel()
	if err := p.cfg.Workload.Resume(ctx, r.id); err != nil {
		r.event("resume", err)
		r.later("resume", retryDelay, func() {
			if !r.provider.frozen && r.state.Phase == lease.Active {
				p.thaw(r)
			}
		})
		return
	}
	r.watch.start()
}

func (p *Provider) stop(r *runner) {
	r.watch.stop()
	p.stopAs(r, "stop")
}

func (p *Provider) stopAs(r *runner, name string) {
	r.background(name, func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		err := p.cfg.Workload.Destroy(ctx, r.id)
		return func() {
			if err != nil {
				r.event("stop", err)
				r.later(name, retryDelay, func() { p.stopAs(r, name) })
			}
		}
	})
}

// claim ends the channel without the tenant, unless it pays other leases: what
// it paid this one stays in their vouchers [LEASE-16].
func (p *Provider) claim(r *runner) {
	channel := p.current(r.state.Terms.Channel)
	r.background("claim", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		p.sharing.Lock()
		defer p.sharing.Unlock()
		live, _ := p.others(r)
		if _, paid := p.cfg.Payee.Latest(channel); !paid || live {
			return nil
		}
		_, err := p.cfg.Payee.Claim(ctx, channel)
		return func() {
			if err != nil {
				r.event("claim", err)
				r.later("claim", pollDeep, func() { p.claim(r) })
			}
		}
	})
}

// count brings the state up to the present second.
func (p *Provider) count(r *runner) {
	in := lease.Tick{Ran: r.watch.seconds()}
	err := r.step(in, "", "")
	r.event("tick", err)
	switch {
	case err != nil:
		p.hold(r, in)
	case r.state.Phase == lease.Active && r.provider.frozen: // held, and paid for since
		p.thaw(r)
	}
}

// hold freezes a workload whose credit is used up, or its term, while the
// store takes nothing: a full disk must not make a provider serve on unpaid
// [LEASE-12].
func (p *Provider) hold(r *runner, in lease.Tick) {
	next, _, err := r.state.Step(in, r.now())
	if err == nil && r.state.Phase == lease.Active && next.Phase != lease.Active && !r.provider.frozen {
		p.freeze(r)
	}
}

// tick counts, looks at the channel and the workload now and then, and wakes
// at the next whole second of service.
func (p *Provider) tick(r *runner) time.Duration {
	p.count(r)
	if r.state.Phase >= lease.Closed {
		return time.Hour
	}
	p.followRoll(r)
	up := r.uptime()
	every := pollDeep
	if !r.state.Confirmed {
		every = pollShallow
	}
	if up-r.provider.polled >= every {
		r.provider.polled = up
		p.poll(r)
	}
	if r.state.Phase == lease.Active && up-r.provider.checked >= workloadChecks {
		r.provider.checked = up
		p.check(r)
	}
	if r.watch.running {
		return time.Second - r.watch.elapsed()%time.Second + time.Millisecond
	}
	return time.Second
}

// poll asks how the channel stands.
func (p *Provider) poll(r *runner) {
	channel := r.state.Terms.Channel
	r.background("poll", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		f, err := p.standing(ctx, p.cfg.Payee.ChannelStatus, channel)
		return func() {
			if err != nil {
				r.event("channel", err)
				return
			}
			r.event("channel", r.step(f, "", ""))
		}
	})
}

func fundingOf(st ChannelStatus) lease.Funding {
	late := st.Height >= st.Params.Deadline()
	return lease.Funding{
		Known:     st.Funded,
		Confirmed: st.Funded && st.Depth >= st.Params.MinDepth,
		Ending:    late && !st.OutOfSight || st.Phase == settle.Closed || st.Phase == settle.Refunded,
		Blind:     late && st.OutOfSight, // perhaps late, perhaps not [LEASE-28]
	}
}

// check looks whether the workload is still there.
func (p *Provider) check(r *runner) {
	r.background("check", func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		st, err := p.cfg.Workload.Status(ctx, r.id)
		return func() {
			if st == WorkloadEnded && r.state.Phase.Running() {
				p.count(r)
				r.watch.stop()
				fault := endOf(err, "the program ended by itself")
				r.event("end", r.step(lease.Ended{Fault: fault}, "end", "the workload ended by itself"))
				return
			}
			if st != WorkloadEnded {
				r.event("check", err)
			}
		}
	})
}
