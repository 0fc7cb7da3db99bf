package peer_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/leasetest"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/market"
)

// patience is for what surely comes, however slow the machine is.
const patience = 2 * time.Minute

// unitsPerSecond is the price of the leases of these tests.
const unitsPerSecond = 1000

// world is a tenant and a provider over loopback, with twins for the rest. The
// twins survive a restart of either side.
type world struct {
	t        *testing.T
	bank     bank
	rail     market.Rail
	workload *leasetest.Workload
	stores   [2]*leasetest.Store // tenant, provider
	ids      [2]pktcloud.PrivateKey
	devices  [2]pktcloud.PrivateKey
	hosts    [2]host.Host
	offer    pktcloud.Signed[market.Offer]
	tenant   *peer.Tenant
	provider *peer.Provider
	stops    [2]func()
	prober   peer.Prober
	payer    func(peer.Payer) peer.Payer // what a hostile or poor tenant pays with; nil: the bank's own
	payee    func(peer.Payee) peer.Payee // likewise
	quotes   int64                       // seconds that a quote stands; zero: the default
	patience time.Duration               // of the tenant for an answer; zero: the default
	clock    skipping                    // the provider's
	logs     func(side string) *slog.Logger
}

func (w *world) log(side string) *slog.Logger {
	if w.logs != nil {
		return w.logs(side)
	}
	return testLog(w.t, side)
}

// skipping is a clock that can be put ahead, as if the time had passed.
type skipping struct {
	peer.SystemClock
	ahead *atomic.Int64
}

func (c skipping) Boot() (since time.Duration, boot string) {
	since, boot = c.SystemClock.Boot()
	return since + time.Duration(c.ahead.Load()), boot
}

func (c skipping) skip(d time.Duration) { c.ahead.Add(int64(d)) }

func keyOf(name string) pktcloud.PrivateKey {
	return pktcloud.NewPrivateKey(sha256.Sum256([]byte(name)))
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOver(t, market.Rail{Name: *railFlag, MinDepth: 1, MaxUnconfirmed: 1 << 30, MinCapacity: 1, MaxCapacity: 1 << 40}, func(*world) bank { return newBank() })
}

// newWorldOver is a world whose leases are paid over a rail.
func newWorldOver(t *testing.T, rail market.Rail, newBank func(w *world) bank) *world {
	t.Helper()
	w := &world{t: t, rail: rail, workload: leasetest.NewWorkload(), clock: skipping{ahead: new(atomic.Int64)}}
	for i, side := range []string{"tenant", "provider"} {
		w.stores[i] = &leasetest.Store{}
		w.ids[i], w.devices[i] = keyOf(side+" of "+t.Name()), keyOf(side+" device of "+t.Name())
	}
	w.bank = newBank(w)
	w.startProvider("/ip4/127.0.0.1/tcp/0")
	w.offer = w.makeOffer()
	w.startTenant()
	return w
}

func (w *world) newHost(i int, listen ...string) host.Host {
	w.t.Helper()
	seed := w.devices[i].Seed()
	priv, _, err := crypto.GenerateEd25519Key(&seedReader{seed[:]})
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(priv), libp2p.ListenAddrStrings(listen...), libp2p.DisableMetrics(), libp2p.DisableRelay())
	if err != nil {
		w.t.Fatal(err)
	}
	w.hosts[i] = h
	return h
}

type seedReader struct{ b []byte }

func (r *seedReader) Read(p []byte) (int, error) {
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

func (w *world) account(i int) []byte {
	w.t.Helper()
	now := time.Now().Unix()
	a, err := pktcloud.Seal(w.ids[i], pktcloud.Account{
		Version: 1, Identity: w.ids[i].Public(), Sequence: 1, Issued: now,
		Devices: []pktcloud.Device{{Key: w.devices[i].Public(), Name: "test", Expires: now + 3600}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := a.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) startProvider(listen string) {
	w.t.Helper()
	h := w.newHost(1, listen)
	payee := w.bank.Payee()
	if w.payee != nil {
		payee = w.payee(payee)
	}
	p, err := peer.NewProvider(w.t.Context(), peer.ProviderConfig{
		Host: h, Device: w.devices[1], Account: w.account(1), Store: w.stores[1], Payee: payee, Workload: w.workload,
		Offer: func(id pktcloud.ID) (pktcloud.Signed[market.Offer], bool) {
			own, err := w.offer.ID()
			return w.offer, err == nil && own == id
		},
		QuoteSeconds: w.quotes, Clock: w.clock, Log: w.log("provider"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.provider = p
	srv, err := session.NewServer(session.ServerConfig{Host: h, Workload: w.workload, Authorizer: p})
	if err != nil {
		w.t.Fatal(err)
	}
	w.stops[1] = w.run(h, p.Run, srv.Run)
	w.until("the provider serves", func() bool { return slices.Contains(h.Mux().Protocols(), peer.ProtocolID) })
}

func (w *world) startTenant() {
	w.t.Helper()
	h := w.newHost(0, "/ip4/127.0.0.1/tcp/0")
	payer := w.bank.Payer(w.devices[0])
	if w.payer != nil {
		payer = w.payer(payer)
	}
	tn, err := peer.NewTenant(w.t.Context(), peer.TenantConfig{
		Host: h, Device: w.devices[0], Account: w.account(0), Store: w.stores[0], Payer: payer,
		Prober: w.prober, Patience: w.patience, Log: w.log("tenant"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.tenant = tn
	w.stops[0] = w.run(h, tn.Run)
}

// run runs the functions until the returned one is called.
func (w *world) run(h host.Host, runs ...func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(runs))
	for _, r := range runs {
		go func() { done <- r(ctx) }()
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range runs {
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					w.t.Errorf("got %v from Run, want the context's end", err)
				}
			case <-time.After(patience):
				w.t.Error("Run does not return")
			}
		}
		if err := h.Close(); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func testLog(t *testing.T, side string) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("side", side)
}

func (w *world) makeOffer() pktcloud.Signed[market.Offer] {
	w.t.Helper()
	now := time.Now().Unix()
	o, err := pktcloud.Seal(w.ids[1], market.Offer{
		Version: 1, Provider: w.ids[1].Public(), Device: w.devices[1].Public(), Sequence: 1, Issued: now, Expires: now + 3600,
		Addresses: []string{fmt.Sprintf("%s/p2p/%s", w.hosts[1].Addrs()[0], w.hosts[1].ID())},
		Capacity:  market.Resources{MilliCPU: 4000, MemoryBytes: 1 << 32, DiskBytes: 1 << 34},
		Prices:    market.Prices{CPUPerCoreHour: unitsPerSecond * 3600},
		Rails:     []market.Rail{w.rail},
		Limits:    market.Limits{MaxCreditSeconds: 60, MinIntervalSeconds: 1}, MaxTermSeconds: 3600, Isolation: []string{"userns"}, Software: "test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) request() peer.Request {
	return peer.Request{
		Offer: w.offer,
		Manifest: lease.Manifest{
			Version: 1, Probe: lease.Probe{Service: "web", Port: 80, HTTPPath: "/", TimeoutSeconds: 1},
			Services: []lease.Service{{
				Name: "web", Image: "example.org/hello:1", Ports: []uint64{80}, Restart: lease.Restart{Policy: lease.RestartNo},
				Resources: market.Resources{MilliCPU: 1000, MemoryBytes: 1 << 28},
			}},
		},
		Limits:          lease.Limits{Credit: 3 * unitsPerSecond, Unconfirmed: 1 << 20},
		IntervalSeconds: 1, GraceSeconds: 3, TermSeconds: 600, MaxRate: unitsPerSecond * 3600, Capacity: 1 << 24,
	}
}

// patient is a request for tests in which nobody shall lose a lease because this
// machine is slow.
func (w *world) patient() peer.Request {
	r := w.request()
	r.Limits.Credit, r.GraceSeconds, r.Manifest.Probe.TimeoutSeconds = 60*unitsPerSecond, 300, 10
	return r
}

func (w *world) create(r peer.Request) pktcloud.ID {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	id, err := w.tenant.Create(ctx, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.tenant.WaitActive(ctx, id); err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			w.t.Fatalf("still not: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) views(id pktcloud.ID) (tenant, provider peer.View) {
	w.t.Helper()
	tenant, ok := w.tenant.Lease(id)
	if !ok {
		w.t.Fatal("the tenant does not know the lease")
	}
	if provider, ok = w.provider.Lease(id); !ok {
		w.t.Fatal("the provider does not know the lease")
	}
	return tenant, provider
}

// closeAndCheck closes by the tenant and compares both records and the money.
func (w *world) closeAndCheck(id pktcloud.ID) (tenant, provider peer.View) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.tenant.Close(ctx, id); err != nil {
		w.t.Fatal(err)
	}
	w.until("both have both signatures", func() bool {
		tenant, provider = w.views(id)
		return tenant.Countersigned && provider.Countersigned
	})
	if fmt.Sprint(tenant.Record) != fmt.Sprint(provider.Record) {
		w.t.Errorf("got two close records:\n%+v\n%+v", tenant.Record, provider.Record)
	}
	if got, ok := w.bank.Settled(tenant.Terms.Channel); !ok || got != tenant.Record.Paid {
		w.t.Errorf("the chain paid %d units, want %d", got, tenant.Record.Paid)
	}
	return tenant, provider
}

func TestFiveIntervals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	began := time.Now()
	id := w.create(w.patient())
	t.Logf("%s from the choice to the running workload", time.Since(began))
	w.until("five intervals are paid", func() bool {
		v, _ := w.tenant.Lease(id)
		return v.Paid >= 5*unitsPerSecond
	})
	tenant, provider := w.closeAndCheck(id)
	if tenant.Record.Paid != tenant.Record.Due || tenant.Record.Due < 5*unitsPerSecond {
		t.Errorf("got %d paid of %d due, want all of at least five intervals", tenant.Record.Paid, tenant.Record.Due)
	}
	if provider.Max.Credit > tenant.Terms.Limits.Credit || tenant.Max.Prepaid != 0 {
		t.Errorf("got exposures %+v and %+v, want credit within %d and nothing prepaid", provider.Max, tenant.Max, tenant.Terms.Limits.Credit)
	}
	if starts, freezes := w.workload.Counts(); starts != 1 || freezes != 0 {
		t.Errorf("got %d starts and %d freezes, want 1 and 0", starts, freezes)
	}
}
