package node_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

var localhost = netip.MustParseAddr("127.0.0.1")

// freeRange finds some ports in a row that nobody uses.
func freeRange(t *testing.T, count uint16) uint16 {
	t.Helper()
	for range 1000 {
		first := 10000 + uint16(rand.IntN(20000))
		ok := true
		for p := first; p < first+count && ok; p++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			c, err2 := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", p))
			if ok = err == nil && err2 == nil; err == nil {
				l.Close()
			}
			if err2 == nil {
				c.Close()
			}
		}
		if ok {
			return first
		}
	}
	t.Skip("no ports are free")
	return 0
}

// published awaits the addresses of a lease's ports.
func (w *world) published(n *running, l service.Lease, want int) (out []string) {
	w.t.Helper()
	w.until("the ports of "+l.Label, func() bool {
		list, err := n.LeaseServices(w.t.Context(), l.Label)
		if err != nil || list[0].Network == nil || list[0].State != "running" {
			return false
		}
		out = nil
		for _, p := range list[0].Network.Published {
			out = append(out, fmt.Sprintf("%s %d/%s", p.Address, p.Port, p.Protocol))
		}
		return true
	})
	if len(out) != want {
		w.t.Fatalf("got %v, want %d ports", out, want)
	}
	return out
}

// TestNetworkOfALease: what an offer grants of the provider's network is given,
// told, kept over restarts, given to nobody else, and free again after the end;
// what it does not grant is refused before money moves.
func TestNetworkOfALease(t *testing.T) {
	first := freeRange(t, 3)
	outside := netip.MustParseAddr("203.0.113.9")
	w := newWorld(t, func(c *node.Config) {
		c.LeaseNetwork = node.LeaseNetwork{
			PublishOn: []node.PublishAddress{{On: localhost, As: outside}}, PublishFirst: first, PublishLast: first + 2, BytesPerSecond: 1 << 20,
		}
	})
	ctx := t.Context()
	for range 3 { // a coin for each lease
		w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	}
	o := w.offer()
	if want := (market.Network{Egress: true, Ports: 3, BytesPerSecond: 1 << 20}); o.Body.Network != want { // [MARKET-25]
		t.Fatalf("got an offer of %+v, want %+v", o.Body.Network, want)
	}
	r := request(o)
	r.Resources.MilliCPU = 250
	r.Egress, r.Publish, r.Bandwidth = []string{"example.org:443", "1.0.0.0/8:*"}, []string{"8080", "53/udp", "53/tcp"}, 1<<19
	for _, c := range []struct {
		name   string
		change func(*service.LeaseRequest)
		want   service.Code
		text   string
	}{
		{"more ports than there are", func(r *service.LeaseRequest) { r.Publish = []string{"1", "2", "3", "4"} }, service.CodeRefused, "has 3 ports to publish"},
		{"more bytes", func(r *service.LeaseRequest) { r.Bandwidth = 1<<20 + 1 }, service.CodeRefused, "bytes a second"},
		{"a private place", func(r *service.LeaseRequest) { r.Egress = []string{"10.0.0.0/8:*"} }, service.CodeRefused, "not on the public internet"},
		{"metadata", func(r *service.LeaseRequest) { r.Egress = []string{"169.254.169.254:80"} }, service.CodeRefused, "not on the public internet"},
		{"mail", func(r *service.LeaseRequest) { r.Egress = []string{"example.org:25"} }, service.CodeRefused, "port 25"},
		{"a place that is none", func(r *service.LeaseRequest) { r.Egress = []string{"example.org"} }, service.CodeInvalid, "such as example.org:443"},
		{"a port that is none", func(r *service.LeaseRequest) { r.Publish = []string{"8080:80"} }, service.CodeInvalid, "the provider chooses"},
	} {
		q := r
		c.change(&q)
		if _, err := w.tenant.CreateLease(ctx, q); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v (%s), want %s with %q", c.name, err, service.CodeOf(err), c.want, c.text)
		}
	}
	if b, err := w.tenant.WalletBalance(ctx); err != nil || b.Reserved != 0 || b.Spendable != 30*pktcloud.UnitsPerPKT {
		t.Errorf("refusals moved money: %+v, %v", b, err)
	}

	l, err := w.tenant.CreateLease(ctx, r)
	w.check(err)
	if s := l.Services[0]; !slices.Equal(s.Egress, r.Egress) || !slices.Equal(s.Publish, []string{"53/tcp", "53/udp", "8080/tcp"}) || s.Bandwidth != 1<<19 {
		t.Errorf("got %+v, want what was asked for", s)
	}
	ports := w.published(w.tenant, l, 3)
	for _, p := range ports {
		if !strings.HasPrefix(p, "203.0.113.9:") {
			t.Errorf("got %s, want the address that a router has", p)
		}
	}
	dns, web := strings.Fields(ports[0])[0], strings.Fields(ports[2])[0]
	if !strings.HasPrefix(ports[1], dns+" 53/udp") || !strings.HasPrefix(ports[0], dns+" 53/tcp") || dns == web {
		t.Errorf("got %v, want both protocols of a port at one number, and another port at another", ports)
	}

	// Two of the three are taken: the offer says so, and the provider holds to it.
	free := func(want uint64) {
		t.Helper()
		w.until(fmt.Sprintf("an offer of %d ports", want), func() bool {
			page, err := w.tenant.Offers(ctx, service.OfferQuery{Network: market.Network{Ports: want}})
			w.check(err)
			if len(page.Offers) == 0 || page.Offers[0].Body.Network.Ports != want {
				_, err = w.provider.PublishOffer(ctx, service.OfferSpec{
					Region: "DE-BE", CPUPerCoreHour: pktcloud.UnitsPerPKT, Capacity: service.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30},
				})
				w.check(err)
				return false
			}
			o = page.Offers[0]
			return true
		})
	}
	free(1)
	r.Offer, r.Publish = o.ID, []string{"8080"}
	second, err := w.tenant.CreateLease(ctx, r)
	w.check(err)
	if p := w.published(w.tenant, second, 1); p[0] == ports[2] || strings.HasPrefix(p[0], dns) {
		t.Errorf("got %v, which another lease has", p)
	}
	// Under the old offer, which has one, unless it has been renewed meanwhile.
	if _, err := w.tenant.CreateLease(ctx, r); !errors.Is(err, service.CodeRefused) && !errors.Is(err, service.CodeNotFound) {
		t.Errorf("got %v for a port that is not there", err)
	}

	w.provider.stop()
	w.provider = w.start(w.provider.config)
	if again := w.published(w.provider, l, 3); !slices.Equal(again, ports) {
		t.Errorf("after a restart: got %v, want %v", again, ports)
	}
	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
	free(2)
}

// TestNoNetworkToLend: a provider without it refuses what asks for it, and says
// so in its offer.
func TestNoNetworkToLend(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.LeaseNetwork.NoEgress = true })
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.offer()
	if !o.Body.Network.IsZero() {
		t.Fatalf("got an offer of %+v, want none", o.Body.Network)
	}
	for text, change := range map[string]func(*service.LeaseRequest){
		"connect to nothing":  func(r *service.LeaseRequest) { r.Egress = []string{"public"} },
		"publishes no ports":  func(r *service.LeaseRequest) { r.Publish = []string{"8080"} },
		"connect to nothing ": func(r *service.LeaseRequest) { r.Egress = []string{"example.org:443"} },
	} {
		r := request(o)
		change(&r)
		if _, err := w.tenant.CreateLease(t.Context(), r); !errors.Is(err, service.CodeRefused) || !strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("got %v, want that the provider %s", err, text)
		}
	}
	l, err := w.tenant.CreateLease(t.Context(), request(o))
	w.check(err)
	w.until("it runs", func() bool {
		list, err := w.tenant.LeaseServices(t.Context(), l.Label)
		return err == nil && list[0].State == "running" && list[0].Network == nil
	})
}

// specs is a runtime that remembers what was started.
type specs struct {
	*containertest.Twin
	mu   sync.Mutex
	last container.Spec
}

func (s *specs) Start(ctx context.Context, spec container.Spec) error {
	s.mu.Lock()
	s.last = spec
	s.mu.Unlock()
	return s.Twin.Start(ctx, spec)
}

// TestEntrypointOfALease: the provider runs what the manifest says of the
// entrypoint [SERVICE-37].
func TestEntrypointOfALease(t *testing.T) {
	var runtime *specs
	w := newWorld(t, func(c *node.Config) {
		runtime = &specs{Twin: c.Runtime.(*pullCounter).Twin}
		c.Runtime = runtime
	})
	for range 2 {
		w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	}
	for _, entrypoint := range []bool{false, true} {
		r := request(w.offer())
		r.Resources.MilliCPU = 250
		m, err := node.Manifest(r)
		if err != nil {
			t.Fatal(err)
		}
		m.Services[0].Args, m.Services[0].Entrypoint = []string{"serve", "8080"}, entrypoint
		r = service.LeaseRequest{Offer: r.Offer, MaxRate: r.MaxRate, TermSeconds: r.TermSeconds, Manifest: &m}
		w.started(w.tenant, w.order(r).Label)
		runtime.mu.Lock()
		got := runtime.last
		runtime.mu.Unlock()
		if got.Entrypoint != entrypoint || !slices.Equal(got.Args, []string{"serve", "8080"}) {
			t.Errorf("got %+v, want its entrypoint %v", got, entrypoint)
		}
	}
}

// TestNetworkReachesTheRuntime: what was agreed is what the container's runtime
// is told, also for one service alone [SERVICE-21] [SERVICE-23].
func TestNetworkReachesTheRuntime(t *testing.T) {
	first := freeRange(t, 1)
	var runtime *specs
	w := newWorld(t, func(c *node.Config) {
		runtime = &specs{Twin: c.Runtime.(*pullCounter).Twin}
		c.Runtime = runtime
		c.LeaseNetwork = node.LeaseNetwork{PublishOn: []node.PublishAddress{{On: localhost}}, PublishFirst: first, PublishLast: first}
	})
	for range 2 {
		w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	}
	r := request(w.offer())
	r.Resources.MilliCPU = 250
	for _, c := range []struct {
		change func(*service.LeaseRequest)
		want   container.Network
	}{
		{func(r *service.LeaseRequest) { r.Egress = []string{"public"} }, container.Network{Egress: container.Egress{Public: true}}},
		{func(r *service.LeaseRequest) {
			r.Egress, r.Publish, r.Bandwidth = []string{"example.org:443", "192.0.0.0/8:*"}, []string{"8080", "8080/udp"}, 1<<20
		}, container.Network{
			Egress: container.Egress{Allow: []string{"example.org:443", "192.0.0.0/8:*"}}, BytesPerSecond: 1 << 20, Publish: []container.PublishedPort{
				{Host: localhost, Port: first, Inside: 8080, Protocol: "tcp"}, {Host: localhost, Port: first, Inside: 8080, Protocol: "udp"},
			},
		}},
	} {
		q := r
		c.change(&q)
		l := w.started(w.tenant, w.order(q).Label)
		c.want.Group, c.want.Name = l.ID.Hex(), "web"
		runtime.mu.Lock()
		got := runtime.last.Network
		runtime.mu.Unlock()
		if !got.Equal(c.want) {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}
