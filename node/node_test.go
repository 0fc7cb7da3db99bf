package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// TestStory is the main job through the service of two nodes: offer, lease,
// payment, sessions, a restart of each node, close, payout.
func TestStory(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	before, err := w.tenant.WalletBalance(ctx)
	w.check(err)
	l, err := w.tenant.CreateLease(ctx, request(w.offer()))
	w.check(err)
	get := func() (string, error) {
		hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return w.tenant.Forward(ctx, l.Label, 8080)
		}}}
		r, err := hc.Get("http://lease/")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	w.until("the service answers", func() bool { s, err := get(); return err == nil && s == "it works" })
	var out bytes.Buffer
	code, err := w.tenant.Exec(ctx, l.Label, service.ExecRequest{Args: []string{"echo", "a", "b"}}, service.Streams{Stdout: &out})
	if err != nil || code != 7 || out.String() != "a b\n" {
		t.Errorf("exec: %d, %v, %q", code, err, out.String())
	}
	out.Reset()
	if err := w.tenant.Logs(ctx, l.Label, service.LogRequest{}, &out); err != nil || !strings.Contains(out.String(), "stdout GET /") {
		t.Errorf("logs: %v, %q", err, out.String())
	}
	paid := func() pktcloud.Amount {
		v, err := w.tenant.Lease(ctx, l.Label)
		w.check(err)
		l = v
		return v.Paid
	}
	w.until("payments flow", func() bool { return paid() > 0 })
	if want := fmt.Sprintf("http://web.%s.localhost:7391/", l.Label); l.Endpoint != want {
		t.Errorf("endpoint %q, want %q", l.Endpoint, want)
	}

	// Both nodes start again; the lease goes on.
	w.tenant.stop()
	w.tenant = w.start(w.tenant.config)
	last := paid()
	w.until("payments flow after the tenant's restart", func() bool { return paid() > last })

	closed, err := w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
	if closed.Phase != "closed" || closed.CloseReason != "requested" || closed.Endpoint != "" {
		t.Errorf("after closing: %+v", closed)
	}
	if _, err := w.tenant.CloseLease(ctx, l.Label); err != nil {
		t.Errorf("closing again: %v", err)
	}
	w.mineUntil("the chain pays", func() bool {
		v, err := w.provider.Lease(ctx, l.Label)
		w.check(err)
		return v.Channel.Closed > 0 && v.Channel.Claimed == closed.Paid
	})
	after, err := w.tenant.WalletBalance(ctx)
	w.check(err)
	if spent := before.Spendable - after.Spendable; spent < closed.Paid || spent > closed.Paid+20_000 {
		t.Errorf("the tenant spent %d units for a lease of %d and two fees", spent, closed.Paid)
	}
	moves, err := w.provider.WalletHistory(ctx, service.HistoryQuery{})
	if err != nil || len(moves) != 1 || moves[0].Received != closed.Paid {
		t.Errorf("the provider's history: %v %+v", err, moves)
	}
	w.until("no container is left", func() bool {
		list, err := w.runtime.List(ctx)
		w.check(err)
		return len(list) == 0
	})
}

// TestRefusals: each with its code and a sentence, and nothing is left half
// done.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	o := w.offer()
	for _, c := range []struct {
		name   string
		change func(*service.LeaseRequest)
		want   service.Code
		text   string
	}{
		{"no money", func(*service.LeaseRequest) {}, service.CodeMoney, "not enough money"},
		{"no limit on the price", func(r *service.LeaseRequest) { r.MaxRate = 0 }, service.CodeMoney, "at most"},
		{"dearer than the limit", func(r *service.LeaseRequest) { r.MaxRate-- }, service.CodeMoney, "your limit is"},
		{"unknown offer", func(r *service.LeaseRequest) { r.Offer = pktcloud.IDOf([]byte("none")) }, service.CodeNotFound, "look at the market again"},
		{"unknown image", func(r *service.LeaseRequest) { r.Image = "example.test/none:1" }, service.CodeRefused, "no such image"},
		{"another digest", func(r *service.LeaseRequest) { r.Image += "@sha256:" + strings.Repeat("cd", 32) }, service.CodeRefused, "image"},
		{"malformed image", func(r *service.LeaseRequest) { r.Image = "a b" }, service.CodeInvalid, "image reference"},
		{"no room", func(r *service.LeaseRequest) { r.Resources.MemoryBytes = 1 << 40 }, service.CodeRefused, "ask for less"},
		{"an interval beyond the longest", func(r *service.LeaseRequest) { r.IntervalSeconds, r.Limits = 7200, nil }, service.CodeInvalid, "1 to 3600"},
		{"no exposure at all", func(r *service.LeaseRequest) { r.Limits = &service.ExposureRequest{} }, service.CodeInvalid, "raise one of the two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name != "no money" {
				b, err := w.tenant.WalletBalance(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if b.Spendable == 0 {
					w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
				}
			}
			r := request(o)
			c.change(&r)
			_, err := w.tenant.CreateLease(ctx, r)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v (%s), want %s with %q", err, service.CodeOf(err), c.want, c.text)
			}
			if err != nil && strings.HasPrefix(err.Error(), "lease:") {
				t.Errorf("the sentence begins with a package: %v", err)
			}
		})
	}
	b, err := w.tenant.WalletBalance(ctx)
	w.check(err)
	if b.Reserved != 0 || b.Spendable != 10*pktcloud.UnitsPerPKT {
		t.Errorf("refusals left money reserved: %+v", b)
	}
	if list, err := w.runtime.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("containers are left: %v %v", err, list)
	}
	if _, err := w.tenant.PublishOffer(ctx, service.OfferSpec{}); !errors.Is(err, service.CodeMissing) {
		t.Errorf("a tenant's offer: %v, want %s", err, service.CodeMissing)
	}
}

// TestStrangersFetchNothing: a proposal makes a provider look at an image, and
// an agreed lease makes it fetch what it saw [CONTAINER-45].
func TestStrangersFetchNothing(t *testing.T) {
	w := newWorld(t)
	o := w.offer()
	if _, err := w.tenant.CreateLease(t.Context(), request(o)); !errors.Is(err, service.CodeMoney) {
		t.Fatalf("without money: got %v", err)
	}
	if looks, pulls := w.runtime.looks.Load(), w.runtime.pulls.Load(); looks != 1 || pulls != 0 {
		t.Errorf("a proposal: got %d looks and %d pulls, want one and none", looks, pulls)
	}
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	l, err := w.tenant.CreateLease(t.Context(), request(o))
	w.check(err)
	if l = w.started(w.tenant, l.Label); l.Phase != "active" {
		t.Fatalf("got phase %s", l.Phase)
	}
	if pulls := w.runtime.pulls.Load(); pulls != 1 {
		t.Errorf("an agreed lease: got %d pulls, want one", pulls)
	}
}

// TestShortTerm: a term below the default of what may be paid unconfirmed is
// agreed, with limits left open and with them stated.
func TestShortTerm(t *testing.T) {
	w := newWorld(t)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	for i, limits := range []*service.ExposureRequest{nil, {CreditSeconds: 10, UnconfirmedSeconds: 900}} {
		create := func() (l service.Lease, err error) {
			w.until("the offer stands", func() bool { // it is replaced when what is free changes
				r := request(w.offer())
				r.TermSeconds, r.Limits = 300, limits
				l, err = w.tenant.CreateLease(t.Context(), r)
				return !errors.Is(err, service.CodeNotFound)
			})
			return l, err
		}
		l, err := create()
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if e := l.Exposure[2]; e.Limit == 0 || e.Limit > l.Channel.Capacity {
			t.Errorf("%d: unconfirmed limit %d of a capacity of %d", i, e.Limit, l.Channel.Capacity)
		}
		if i == 0 { // there is room for two
			_, err = create()
			if !errors.Is(err, service.CodeMoney) || !strings.Contains(err.Error(), "wait for the next block") {
				t.Errorf("again at once: got %v, want %s and what to wait for", err, service.CodeMoney)
			}
		}
		w.mineUntil("the change is there again", func() bool {
			b, err := w.tenant.WalletBalance(t.Context())
			w.check(err)
			return b.Unconfirmed == 0
		})
	}
}

func TestExposure(t *testing.T) {
	o := market.Offer{Limits: market.Limits{MaxCreditSeconds: 300, MinIntervalSeconds: 1}, MaxTermSeconds: 86400}
	n := func(v uint64) *uint64 { return &v }
	for _, c := range []struct {
		name    string
		request service.LeaseRequest
		given   node.GivenExposure
		want    service.ExposureRequest
	}{
		{"all open", service.LeaseRequest{}, node.GivenExposure{}, service.ExposureRequest{CreditSeconds: 10, UnconfirmedSeconds: 900}},
		{"short term", service.LeaseRequest{TermSeconds: 600}, node.GivenExposure{}, service.ExposureRequest{CreditSeconds: 10, UnconfirmedSeconds: 600}},
		{"unconfirmed given", service.LeaseRequest{}, node.GivenExposure{Unconfirmed: n(300)}, service.ExposureRequest{CreditSeconds: 10, UnconfirmedSeconds: 300}},
		{"no credit", service.LeaseRequest{}, node.GivenExposure{Credit: n(0)}, service.ExposureRequest{PrepaidSeconds: 5, UnconfirmedSeconds: 900}},
		{"no credit, nothing prepaid", service.LeaseRequest{}, node.GivenExposure{Credit: n(0), Prepaid: n(0)}, service.ExposureRequest{UnconfirmedSeconds: 900}},
	} {
		if got := node.Exposure(o, c.request, c.given); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestNoSuchProgram: both sides show why a lease ended before it served.
func TestNoSuchProgram(t *testing.T) {
	w := newWorld(t)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	r := request(w.offer())
	r.Command, r.Port = []string{"nosuchprog"}, 0
	l, err := w.tenant.CreateLease(t.Context(), r)
	w.check(err)
	l = w.started(w.tenant, l.Label)
	if l.Fault == nil || l.Fault.Code != "program" || !strings.Contains(l.Fault.Text, "nosuchprog") {
		t.Errorf("the tenant waited for %s with %+v, want the provider's word on the program", l.Phase, l.Fault)
	}
	for name, side := range map[string]struct {
		node *running
		text string
	}{"tenant": {w.tenant, `nosuchprog`}, "provider": {w.provider, "nosuchprog"}} {
		w.until(name+" sees the end", func() bool {
			v, err := side.node.Lease(t.Context(), l.ID.String())
			w.check(err)
			l = v
			return v.Phase == "closed"
		})
		if l.CloseReason != "workload" || !strings.Contains(l.Problem, side.text) {
			t.Errorf("%s: closed because %q, problem %q", name, l.CloseReason, l.Problem)
		}
	}
}

// TestAwaitLease: a wait ends when the service runs, or with its time.
func TestAwaitLease(t *testing.T) {
	w := newWorld(t)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	if _, err := w.tenant.AwaitLease(t.Context(), "none", patience); !errors.Is(err, service.CodeNotFound) {
		t.Errorf("got %v, want %s", err, service.CodeNotFound)
	}
	r := request(w.offer())
	r.Port = 8081 // where nothing answers
	l, err := w.tenant.CreateLease(t.Context(), r)
	w.check(err)
	began := time.Now()
	if l, err = w.tenant.AwaitLease(t.Context(), l.Label, 300*time.Millisecond); err != nil || !l.Pending() || time.Since(began) < 300*time.Millisecond {
		t.Errorf("got %s, %v after %s, want a lease that still starts after the whole wait", l.Phase, err, time.Since(began))
	}
	_, err = w.tenant.CloseLease(t.Context(), l.Label)
	w.check(err)
	w.mineUntil("the money is back", func() bool { b, err := w.tenant.WalletBalance(t.Context()); return err == nil && b.Unconfirmed == 0 })
	w.until("a lease is agreed", func() bool { // the offer is replaced when what is free changes
		l, err = w.tenant.CreateLease(t.Context(), request(w.offer()))
		return err == nil
	})
	for _, side := range []*running{w.tenant, w.provider} {
		if l = w.started(side, l.ID.String()); l.Phase != "active" {
			t.Errorf("got %s, want active", l.Phase)
		}
	}
	if l.Channel.Reserve != node.DefaultReserve {
		t.Errorf("got a reserve of %d units, want %d", uint64(l.Channel.Reserve), node.DefaultReserve)
	}
}

// gatedLedger is a chain that can be made to keep its users waiting.
type gatedLedger struct {
	settle.Ledger
	gate atomic.Pointer[chan struct{}]
}

func (l *gatedLedger) Tip(ctx context.Context) (settle.Tip, error) {
	if g := l.gate.Load(); g != nil {
		select {
		case <-*g:
		case <-ctx.Done():
			return settle.Tip{}, ctx.Err()
		}
	}
	return l.Ledger.Tip(ctx)
}

// TestUnansweredOrder: a provider that was sent the commit and is silent holds
// nobody up; the order says so, and goes on by itself [API-13].
func TestUnansweredOrder(t *testing.T) {
	w := newWorld(t)
	slow := &gatedLedger{Ledger: w.chain}
	w.provider.stop()
	w.provider.config.Ledger = slow
	w.provider = w.start(w.provider.config)
	info, err := w.provider.Info(t.Context())
	w.check(err)
	w.tenant.stop()
	w.tenant.config.Bootstrap, w.tenant.config.Patience = info.Addresses, 300*time.Millisecond
	w.tenant = w.start(w.tenant.config)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.offer()
	gate := make(chan struct{})
	slow.gate.Store(&gate)
	l, err := w.tenant.CreateLease(t.Context(), request(o))
	if err != nil || l.Phase != "proposed" {
		t.Fatalf("got %s, %v, want the order, proposed", l.Phase, err)
	}
	w.until("the lease says what it waits for", func() bool {
		l, err := w.tenant.Lease(t.Context(), l.Label)
		return err == nil && l.Phase == "proposed" && strings.Contains(l.Problem, "has not answered")
	})
	slow.gate.Store(nil)
	close(gate)
	if l = w.started(w.tenant, l.Label); l.Phase != "active" {
		t.Errorf("got %s, want active by itself", l.Phase)
	}

	// One that is closed before it is answered ends with the answer [LEASE-47].
	w.mineUntil("there is money for another one", func() bool {
		b, err := w.tenant.WalletBalance(t.Context())
		w.check(err)
		return b.Spendable > pktcloud.UnitsPerPKT
	})
	gate = make(chan struct{})
	slow.gate.Store(&gate)
	r := request(o)
	r.OwnChannel = true
	if l = w.order(r); l.Phase != "proposed" {
		t.Fatalf("got %s, want the order, proposed", l.Phase)
	}
	for range 2 {
		l, err = w.tenant.CloseLease(t.Context(), l.Label)
		if err != nil || l.Phase != "proposed" || !strings.Contains(l.Problem, "cancelled as soon as its provider answers") || !strings.Contains(l.Problem, " UTC on.") {
			t.Fatalf("closing it: got %s, %v, %q, want the order, cancelled", l.Phase, err, l.Problem)
		}
	}
	slow.gate.Store(nil)
	close(gate)
	w.until("the lease ends by itself", func() bool {
		l, err = w.tenant.Lease(t.Context(), l.Label)
		return err == nil && l.Phase == "closed" && l.CloseReason == "requested" && l.Paid == 0
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "n")
	if _, err := node.Open(t.Context(), node.Config{Dir: dir}); !errors.Is(err, service.CodeNoNode) || !strings.Contains(err.Error(), "pktcloud init") {
		t.Errorf("without a keystore: %v", err)
	}
	// An unattended keystore opens fast; its password is then taken away.
	if _, err := node.Init(node.InitConfig{Dir: dir, Unattended: true}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "password"))
	if err = errors.Join(err, os.Remove(filepath.Join(dir, "password"))); err != nil {
		t.Fatal(err)
	}
	password := strings.TrimSpace(string(b))
	if _, err := node.Init(node.InitConfig{Dir: dir, Password: "x"}); !errors.Is(err, service.CodeConflict) {
		t.Errorf("a second init: %v", err)
	}
	for _, c := range []struct {
		name   string
		config node.Config
		want   service.Code
	}{
		{"no password", node.Config{}, service.CodeUnauthorized},
		{"wrong password", node.Config{Password: "y"}, service.CodeUnauthorized},
		{"unknown network", node.Config{Password: password, Network: "mars"}, service.CodeInvalid},
		{"bad address", node.Config{Password: password, Listen: []string{"/ip4/127.0.0.1/udp/1"}}, service.CodeInvalid},
	} {
		c.config.Dir = dir
		n, err := node.Open(t.Context(), c.config)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
		if n != nil {
			n.Close()
		}
	}
	n, err := node.Open(t.Context(), node.Config{Dir: dir, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := node.Open(t.Context(), node.Config{Dir: dir, Password: password}); !errors.Is(err, service.CodeConflict) {
		t.Errorf("a second node on one directory: %v", err)
	}
}
