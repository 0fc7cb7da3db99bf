package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

const (
	defaultProbeTimeout = 2 * time.Second
	maxProbeBody        = 1 << 20
)

// SessionProber probes through lease/session: it asks the service's port for
// the manifest's path and wants a whole HTTP answer with a status below 500.
// Without a path it only connects.
type SessionProber struct{ Host host.Host }

// Probe implements [Prober].
func (p SessionProber) Probe(ctx context.Context, v View) error {
	probe := v.Manifest.Probe
	if probe.Port == 0 {
		return nil // nothing promised to answer
	}
	target := session.Target{Host: p.Host, Provider: v.Terms.ProviderDevice, Lease: v.ID, Service: probe.Service}
	conn, err := session.Dial(ctx, target, uint16(probe.Port))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { giveUp(conn) })
	defer stop()
	if probe.HTTPPath == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lease"+probe.HTTPPath, http.NoBody)
	if err != nil {
		return err
	}
	req.Close = true
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("asking the service: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return fmt.Errorf("the service does not answer: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxProbeBody)); err != nil {
		return fmt.Errorf("the service breaks off: %w", err)
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the service answers %s", resp.Status)
	}
	return nil
}

// giveUp ends a connection so that the provider knows it, also where the
// service never answers: a close alone would leave the session waiting for it.
func giveUp(conn net.Conn) {
	if s, ok := conn.(interface{ Reset() error }); ok {
		s.Reset() //nolint:errcheck // given up
		return
	}
	conn.Close()
}

// probes are the tenant's looks at the service since the last statement that
// it judged.
type probes struct {
	good, bad int
	text      string
	next      time.Duration // uptime of the next one
	running   bool
	cancel    context.CancelFunc
	epoch     int // a result of an earlier epoch does not count
}

// errBlind is the result of a probe that failed while the stream to the
// provider ended, or the lease: that says nothing about the service.
var errBlind = errors.New("the service was out of sight")

// stopping reports whether the workload has been ended or frozen by the lease
// as far as the tenant has heard.
func (r *runner) stopping() bool {
	return r.state.Phase == lease.Closing || slices.ContainsFunc(r.tenant.queue, func(m lease.Message) bool {
		st, ok := m.(lease.StatementMessage)
		return ok && st.Statement.Body.State != lease.Running
	})
}

// linkGrace is how long a probe that failed waits to see whether the stream to
// the provider ends too.
const linkGrace = 100 * time.Millisecond

// probe looks once, in the background, and then calls after.
func (t *Tenant) probe(r *runner, after func(err error)) {
	v, _ := r.snapshot()
	timeout := defaultProbeTimeout
	if s := v.Manifest.Probe.TimeoutSeconds; s != 0 {
		timeout = time.Duration(s) * time.Second
	}
	ctx, cancel := awake(r.ctx, timeout) // a tenant that stood still has not waited
	r.tenant.probes.cancel = cancel
	l := r.link
	t.wg.Go(func() {
		err := t.cfg.Prober.Probe(ctx, v)
		if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			err = fmt.Errorf("the service does not answer within %s", timeout)
		}
		cancel()
		if err != nil {
			sleep(r.ctx, linkGrace)
		}
		r.post(func() {
			if err != nil && (l == nil || r.link != l || r.stopping()) {
				err = errBlind
			}
			after(err)
		})
	})
}

// probeSometimes looks at a random moment of each interval, so that a provider
// cannot serve at the ends of intervals only.
func (t *Tenant) probeSometimes(r *runner) {
	p := &r.tenant.probes
	if up := r.uptime(); p.running || r.tenant.judging || r.link == nil || up < p.next {
		return
	}
	interval := time.Duration(r.state.Terms.IntervalSeconds) * time.Second
	p.next = r.uptime() + interval/2 + rand.N(interval/2)
	p.running = true
	epoch := p.epoch
	t.probe(r, func(err error) {
		p.running = false
		if epoch == p.epoch {
			p.count(err)
		}
	})
}

func (p *probes) count(err error) {
	if errors.Is(err, lease.CodePhase) || errors.Is(err, context.Canceled) || errors.Is(err, errBlind) {
		return // suspended, stopped, or out of sight: that says nothing
	}
	if err == nil {
		p.good++
		return
	}
	p.bad++
	p.text = err.Error()
}

// verdict is that of all probes since the last statement, and begins anew.
func (p *probes) verdict() (lease.Verdict, string) {
	defer func() { p.good, p.bad = 0, 0 }()
	switch {
	case p.bad > 0:
		return lease.Bad, p.text
	case p.good > 0:
		return lease.Good, ""
	}
	return lease.Blind, ""
}

// judge decides on a statement: one that says the workload runs is probed now;
// of one that says it is frozen or ended only earlier probes can tell.
func (t *Tenant) judge(r *runner, st pktcloud.Signed[lease.Statement]) {
	b, p := st.Body, &r.tenant.probes
	if b.State != lease.Running {
		p.epoch++ // a probe under way met a frozen workload
		if p.running && p.cancel != nil {
			p.cancel()
		}
	}
	in := lease.Judged{Statement: st}
	switch {
	case b.Sequence <= r.state.Sequence || b.From == b.To:
		t.judged(r, in)
	case b.State != lease.Running:
		in.Verdict, in.Text = p.verdict()
		t.judged(r, in)
	default:
		r.tenant.judging = true
		t.probe(r, func(err error) {
			r.tenant.judging = false
			p.count(err)
			in.Verdict, in.Text = p.verdict()
			t.judged(r, in)
			t.drain(r)
		})
	}
}
