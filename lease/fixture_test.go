package lease_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// now0 is the wall clock when the leases of these tests are quoted.
const now0 = 1_800_000_000

// perSecond is their price.
const perSecond = 1000

func key(name string) pktcloud.PrivateKey {
	return pktcloud.NewPrivateKey(sha256.Sum256([]byte("lease test " + name)))
}

var (
	tenantKey, tenantDevice     = key("tenant"), key("tenant device")
	providerKey, providerDevice = key("provider"), key("provider device")
)

// must is for what these tests build themselves.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func account(identity, device pktcloud.PrivateKey) []byte {
	a := must(pktcloud.Seal(identity, pktcloud.Account{
		Version: 1, Identity: identity.Public(), Sequence: 1, Issued: now0,
		Devices: []pktcloud.Device{{Key: device.Public(), Name: "one", Expires: now0 + 86400}},
	}))
	return must(a.Encode())
}

func manifest() lease.Manifest {
	return lease.Manifest{
		Version: 1,
		Services: []lease.Service{{
			Name: "web", Image: "example.org/hello:1", Args: []string{"serve"}, Env: []string{"MODE=test"}, Ports: []uint64{8080},
			Resources: market.Resources{MilliCPU: 1000, MemoryBytes: 256 << 20}, Restart: lease.Restart{Policy: lease.RestartNo},
		}},
		Probe: lease.Probe{Service: "web", Port: 8080, HTTPPath: "/", TimeoutSeconds: 2},
	}
}

// three is a manifest of three services.
func three() lease.Manifest {
	m := manifest()
	small := market.Resources{MilliCPU: 500, MemoryBytes: 128 << 20}
	m.Services[0].Depends = []lease.Dependency{{Service: "db", When: lease.WhenHealthy}, {Service: "migrate", When: lease.WhenCompleted}}
	m.Services = append(m.Services,
		lease.Service{
			Name: "db", Image: "example.org/db:1", Ports: []uint64{5432, 9187}, Resources: small, Restart: lease.Restart{Policy: lease.RestartAlways}, Stop: 10,
			Health: lease.Health{Check: lease.CheckTCP, Port: 5432, Interval: 10, Timeout: 2, Start: 30, Retries: 3},
		},
		lease.Service{
			Name: "migrate", Image: "example.org/migrate:1", Resources: small, Restart: lease.Restart{Policy: lease.RestartOnFailure, Max: 3}, Job: true,
			Depends: []lease.Dependency{{Service: "db", When: lease.WhenHealthy}},
		})
	return m
}

func offer() pktcloud.Signed[market.Offer] {
	return must(pktcloud.Seal(providerKey, market.Offer{
		Version: 1, Provider: providerKey.Public(), Device: providerDevice.Public(), Sequence: 1, Issued: now0, Expires: now0 + 3600,
		Addresses: []string{"/ip4/127.0.0.1/tcp/4001/p2p/" + providerDevice.Public().PeerID()},
		Capacity:  market.Resources{MilliCPU: 4000, MemoryBytes: 8 << 30, DiskBytes: 10 << 30},
		Prices:    market.Prices{CPUPerCoreHour: perSecond * 3600},
		Rails:     []market.Rail{{Name: "bank", MinDepth: 1, MaxUnconfirmed: 1 << 40, MinCapacity: 1, MaxCapacity: 1 << 40}},
		Limits:    market.Limits{MaxCreditSeconds: 3600, MinIntervalSeconds: 1}, MaxTermSeconds: 86400,
		Isolation: []string{"userns"}, Software: "test",
	}))
}

func draft(limits lease.Limits) lease.Terms {
	m := manifest()
	return lease.Terms{
		Version: 1, Tenant: tenantKey.Public(), Provider: providerKey.Public(),
		TenantDevice: tenantDevice.Public(), ProviderDevice: providerDevice.Public(),
		Offer: must(offer().ID()), Resources: m.Resources(), Manifest: must(m.ID()), IntervalSeconds: 5, Limits: limits,
		GraceSeconds: 20, TermSeconds: 600, NoticeSeconds: 60, Nonce: [16]byte{1, 2, 3},
	}
}

// usual are limits of ten seconds' credit and fifteen minutes unconfirmed.
var usual = lease.Limits{Credit: 10 * perSecond, Unconfirmed: 900 * perSecond}

func quoteFor(d lease.Terms) pktcloud.Signed[market.Quote] {
	return seal(providerDevice, market.Quote{
		Version: 1, Provider: d.Provider, Device: d.ProviderDevice, Offer: d.Offer, Request: must(d.ID()),
		Rate: perSecond * 3600, PayeeDetail: []byte("payee"), Issued: now0, Expires: now0 + 60,
	})
}

// commitFor builds the commit that follows a draft.
func commitFor(d lease.Terms, capacity pktcloud.Amount) lease.Commit {
	q := quoteFor(d)
	p := settle.Params{
		Version: 1, Rail: "bank", Payer: d.TenantDevice, Payee: d.ProviderDevice, Capacity: capacity, ExpiryHeight: 5000,
		MarginBlocks: 10, MinDepth: 1, Unconfirmed: d.Limits.Unconfirmed, Detail: []byte("detail"),
	}
	t := d
	t.Quote, t.Channel, t.Rate, t.CommitBy = must(q.ID()), must(p.ID()), q.Body.Rate, q.Body.Expires
	return lease.Commit{
		Version: 1, Terms: t, Signature: must(lease.SignTerms(tenantDevice, t)), Account: account(tenantKey, tenantDevice),
		Quote: must(q.Encode()), Manifest: manifest(), Params: p, Funding: []byte("raw"),
	}
}

const capacity0 = 2000 * perSecond

// active returns both sides of a lease whose workload runs.
func active(t testing.TB, limits lease.Limits) (tenant, provider lease.State) {
	t.Helper()
	c := commitFor(draft(limits), capacity0)
	tenant, _ = step0(lease.NewTenant(c, lease.Now{Unix: now0}))
	provider, _ = step0(lease.NewProvider(c, must(lease.SignTerms(providerDevice, c.Terms)), lease.Now{Unix: now0}))
	at := lease.Now{Unix: now0}
	for _, in := range []lease.Input{lease.Funding{Known: true}, lease.Launched{}} {
		provider = stepOK(t, provider, in, at)
	}
	provider, effects, err := provider.Step(lease.Started{}, at)
	if err != nil {
		t.Fatal(err)
	}
	tenant = stepOK(t, tenant, lease.Received{Message: lease.Ack{Version: 1, Lease: tenant.Lease, Signature: provider.ProviderSig}}, at)
	tenant = stepOK(t, tenant, lease.Funding{Known: true}, at)
	tenant = stepOK(t, tenant, lease.Judged{Statement: issued(t, effects)}, at)
	return tenant, provider
}

func step0(s lease.State, e []lease.Effect, err error) (lease.State, []lease.Effect) {
	if err != nil {
		panic(err)
	}
	return s, e
}

func stepOK(t testing.TB, s lease.State, in lease.Input, now lease.Now) lease.State {
	t.Helper()
	next, _, err := s.Step(in, now)
	if err != nil {
		t.Fatalf("%T: %v", in, err)
	}
	if err := next.Check(); err != nil {
		t.Fatalf("%T: %v", in, err)
	}
	return next
}

// issued signs the statement among effects.
func issued(t testing.TB, effects []lease.Effect) pktcloud.Signed[lease.Statement] {
	t.Helper()
	for _, e := range effects {
		if e, ok := e.(lease.Issue); ok {
			return must(pktcloud.Seal(providerDevice, e.Statement))
		}
	}
	t.Fatalf("no statement among %v", effects)
	return pktcloud.Signed[lease.Statement]{}
}

func same(a, b lease.State) bool {
	return bytes.Equal(must(a.Encode()), must(b.Encode()))
}
