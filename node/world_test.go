package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	imageRef = "example.test/hello:1"
	patience = 2 * time.Minute
)

// world is a chain, a provider and a tenant in one process; containers are the
// twin's.
type world struct {
	t                *testing.T
	chain            *devnet.Chain
	runtime          *pullCounter
	provider, tenant *running
	log              journal
}

// journal keeps what nodes log, for a test that fails.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) tell(t *testing.T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t.Failed() {
		t.Logf("the nodes said:\n%s", j.text.String())
	}
}

// pullCounter is a runtime that counts what is looked at and what is fetched.
type pullCounter struct {
	*containertest.Twin
	looks, pulls atomic.Int64
	full         atomic.Bool                   // the disk, when a volume is made
	hold         atomic.Pointer[chan struct{}] // limits change once it is closed; nil: at once
}

func (p *pullCounter) Update(ctx context.Context, id string, l container.Limits) error {
	if hold := p.hold.Load(); hold != nil {
		<-*hold
	}
	return p.Twin.Update(ctx, id, l)
}

func (p *pullCounter) CreateVolume(ctx context.Context, v container.VolumeSpec) error {
	if p.full.Load() {
		return &container.Error{Code: container.CodeDiskFull, Detail: "secret"}
	}
	return p.Twin.CreateVolume(ctx, v)
}

func (p *pullCounter) Inspect(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	p.looks.Add(1)
	return p.Twin.Inspect(ctx, ref, o)
}

func (p *pullCounter) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	p.pulls.Add(1)
	return p.Twin.Pull(ctx, ref, o)
}

type running struct {
	*node.Node
	config node.Config
	stop   func()
}

// newWorld makes one whose provider has edits of its configuration.
func newWorld(t *testing.T, edits ...func(*node.Config)) *world {
	t.Helper()
	w := &world{t: t}
	t.Cleanup(func() { w.log.tell(t) })
	var err error
	if w.chain, err = devnet.Open(t.TempDir(), devnet.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.check(w.chain.Close()) })
	w.runtime = &pullCounter{Twin: containertest.NewTwin(map[string]containertest.TwinImage{imageRef: {
		Image:    container.Image{Digest: "sha256:" + strings.Repeat("ab", 32), Index: "sha256:" + strings.Repeat("ab", 32), Args: []string{"serve"}},
		Programs: map[string]containertest.Program{"serve": serve, "echo": echo, "keep": keep, "true": func(context.Context, *containertest.Process) int { return 0 }},
	}})}
	t.Cleanup(func() { w.check(w.runtime.Close()) })
	provider := node.Config{Dir: w.init("provider"), Ledger: w.chain, Provider: true, Runtime: w.runtime}
	for _, edit := range edits {
		edit(&provider)
	}
	w.provider = w.start(provider)
	info, err := w.provider.Info(t.Context())
	w.check(err)
	w.tenant = w.start(node.Config{Dir: w.init("tenant"), Ledger: w.chain, Bootstrap: info.Addresses, ProxyPort: 7391})
	return w
}

func serve(ctx context.Context, p *containertest.Process) int {
	l, err := p.Listen(8080)
	if err != nil {
		return 1
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(p.Stdout, r.Method, r.URL.Path)
		io.WriteString(w, "it works")
	})}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	srv.Serve(l)
	return 0
}

func echo(_ context.Context, p *containertest.Process) int {
	fmt.Fprintln(p.Stdout, strings.Join(p.Args[1:], " "))
	return 7
}

// keep counts its runs in a volume, says how often it ran, and ends when it is
// told to: once somebody connects to its port.
func keep(ctx context.Context, p *containertest.Process) int {
	data := p.Volumes["/var/lib/db"]
	b, _ := data.ReadFile("runs")
	if err := data.WriteFile("runs", append(b, '.')); err != nil {
		return 1
	}
	fmt.Fprintf(p.Stdout, "run %d\n", len(b)+1)
	l, err := p.Listen(8080)
	if err != nil {
		return 1
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if c, err := l.Accept(); err == nil {
		c.Close()
	}
	return 0
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) init(name string) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), name)
	_, err := node.Init(node.InitConfig{Dir: dir, Unattended: true})
	w.check(err)
	return dir
}

func (w *world) start(c node.Config) *running {
	w.t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", filepath.Base(c.Dir))
	}
	n, err := node.Open(w.t.Context(), c)
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	r := &running{Node: n, config: c}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(r.stop)
	return r
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: it did not within %s", what, patience)
		}
	}
}

// mineUntil makes a block now and then while it waits: what is waited for may
// have been broadcast after the last one.
func (w *world) mineUntil(what string, ok func() bool) {
	w.t.Helper()
	next := time.Now()
	w.until(what, func() bool {
		if now := time.Now(); !now.Before(next) {
			_, err := w.chain.Mine(1, nil)
			w.check(err)
			next = now.Add(500 * time.Millisecond)
		}
		return ok()
	})
}

func (w *world) fund(r *running, amount pktcloud.Amount) {
	w.t.Helper()
	a, err := r.WalletAddress(w.t.Context(), service.AddressRequest{})
	w.check(err)
	network, _ := pktchain.NetworkOf(node.DefaultNetwork)
	script, err := network.ParseAddress(a.Address)
	w.check(err)
	_, err = w.chain.Faucet(w.t.Context(), script, amount)
	w.check(err)
}

var resources = service.Resources{MilliCPU: 500, MemoryBytes: 128 << 20, DiskBytes: 8 << 20}

// offer publishes one and returns it as the tenant found it.
func (w *world) offer() service.Offer {
	w.t.Helper()
	_, err := w.provider.PublishOffer(w.t.Context(), service.OfferSpec{
		Region: "DE-BE", CPUPerCoreHour: pktcloud.UnitsPerPKT, Capacity: service.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30},
	})
	w.check(err)
	var found service.Offer
	w.until("the offer reaches the tenant", func() bool {
		page, err := w.tenant.Offers(w.t.Context(), service.OfferQuery{Resources: resources, Region: "DE"})
		w.check(err)
		if len(page.Offers) > 0 {
			found = page.Offers[0]
		}
		return len(page.Offers) > 0
	})
	return found
}

// order makes a lease under the offer that the tenant knows now: it is replaced
// when what is free changes.
func (w *world) order(r service.LeaseRequest) (l service.Lease) {
	w.t.Helper()
	w.until("a lease is agreed", func() bool {
		page, err := w.tenant.Offers(w.t.Context(), service.OfferQuery{})
		w.check(err)
		if len(page.Offers) == 0 {
			return false
		}
		r.Offer = page.Offers[0].ID
		l, err = w.tenant.CreateLease(w.t.Context(), r)
		if errors.Is(err, service.CodeNotFound) {
			return false
		}
		w.check(err)
		return true
	})
	return l
}

// started waits until a lease runs, or has ended before.
func (w *world) started(r *running, name string) (l service.Lease) {
	w.t.Helper()
	w.until("the lease runs", func() bool {
		var err error
		l, err = r.AwaitLease(w.t.Context(), name, service.MaxWait)
		w.check(err)
		return !l.Pending()
	})
	return l
}

// request is one whose lease no slow machine suspends.
func request(o service.Offer) service.LeaseRequest {
	return service.LeaseRequest{
		Offer: o.ID, Image: imageRef, Port: 8080, Resources: resources, MaxRate: o.Rate, IntervalSeconds: 1, TermSeconds: 600,
		Limits: &service.ExposureRequest{CreditSeconds: 200, PrepaidSeconds: 1, UnconfirmedSeconds: 600},
	}
}
