package peer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	libpeer "github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// reusingPayer opens one channel and names it again ever after.
type reusingPayer struct {
	peer.Payer
	params  settle.Params
	funding []byte
}

func (p *reusingPayer) Open(ctx context.Context, r peer.OpenRequest) (params settle.Params, funding []byte, err error) {
	if p.funding == nil {
		p.params, p.funding, err = p.Payer.Open(ctx, r)
	}
	return p.params, p.funding, err
}

// TestChannelPaysOneLease shows [LEASE-17]: a channel that was closed would
// otherwise buy the credit again and again without a unit being paid.
func TestChannelPaysOneLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stops[0]()
	w.payer = func(p peer.Payer) peer.Payer { return &reusingPayer{Payer: p} }
	w.startTenant()
	w.closeAndCheck(w.create(w.patient()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.tenant.Create(ctx, w.request()); !errors.Is(err, lease.CodeChannel) {
		t.Errorf("got %v for a lease over a channel that paid another one, want a refusal of the channel", err)
	}
	if starts, _ := w.workload.Counts(); starts != 1 {
		t.Errorf("got %d workloads started, want the first alone", starts)
	}
}

// TestFullDiskFreezes shows [LEASE-12] while nothing can be stored: the
// workload stands still at the credit, and goes on once that is over.
func TestFullDiskFreezes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.patient()
	r.Limits.Credit = 10 * unitsPerSecond // frozen soon
	id := w.create(r)
	w.until("an interval is paid", func() bool { v, _ := w.provider.Lease(id); return v.Paid > 0 })
	w.stores[1].Down(true)
	w.until("the provider freezes what it cannot account for", func() bool {
		st, err := w.workload.Status(t.Context(), id)
		return err == nil && st == peer.WorkloadFrozen
	})
	w.stores[1].Down(false)
	_, before := w.views(id)
	w.until("service and payment go on", func() bool { _, v := w.views(id); return v.Paid >= before.Paid+5*unitsPerSecond })
	if _, v := w.views(id); v.Max.Credit > v.Terms.Limits.Credit {
		t.Errorf("got %d units of unpaid service at most, want no more than %d", v.Max.Credit, v.Terms.Limits.Credit)
	}
	w.closeAndCheck(id)
}

// recordingPayer remembers the channel that it opened.
type recordingPayer struct {
	peer.Payer
	params *settle.Params
}

func (p recordingPayer) Open(ctx context.Context, r peer.OpenRequest) (params settle.Params, funding []byte, err error) {
	params, funding, err = p.Payer.Open(ctx, r)
	*p.params = params
	return params, funding, err
}

// TestNoCommitNoChannel shows that a commit which cannot be made gives the
// channel's coins back.
func TestNoCommitNoChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stops[0]()
	var opened settle.Params
	w.payer = func(p peer.Payer) peer.Payer { return recordingPayer{p, &opened} }
	w.startTenant()
	w.bank.Refuse(true) // then the first voucher cannot be made
	r := w.request()
	r.Limits = lease.Limits{Prepaid: unitsPerSecond, Unconfirmed: 1 << 20}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.tenant.Create(ctx, r); !errors.Is(err, lease.CodePayment) {
		t.Fatalf("got %v, want a refusal to pay", err)
	}
	id, err := opened.ID()
	if err != nil {
		t.Fatal(err)
	}
	st, err := w.bank.Payer(w.devices[0]).ChannelStatus(ctx, id)
	if err != nil || st.Phase != settle.Abandoned {
		t.Errorf("got a channel that is %s, %v, want it abandoned", st.Phase, err)
	}
}

// raw is a tenant's device that says what it likes.
type raw struct {
	t      *testing.T
	stream network.Stream
}

// raw takes the place of the world's tenant.
func (w *world) raw() raw {
	w.t.Helper()
	w.stops[0]()
	h := w.newHost(0, "/ip4/127.0.0.1/tcp/0")
	w.t.Cleanup(func() { h.Close() })
	if err := h.Connect(w.t.Context(), libpeer.AddrInfo{ID: w.hosts[1].ID(), Addrs: w.hosts[1].Addrs()}); err != nil {
		w.t.Fatal(err)
	}
	s, err := h.NewStream(w.t.Context(), w.hosts[1].ID(), peer.ProtocolID)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	return raw{w.t, s}
}

func (r raw) send(m lease.Message) {
	r.t.Helper()
	b, err := lease.AppendMessage(nil, m)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := wire.WriteFrame(r.stream, b); err != nil {
		r.t.Fatal(err)
	}
}

// await reads until a message of the type comes.
func (r raw) await(types ...string) lease.Message {
	r.t.Helper()
	for {
		b, err := wire.ReadFrame(r.stream, lease.MaxMessageBytes)
		if err != nil {
			r.t.Fatalf("waiting for %v: %v", types, err)
		}
		m, err := lease.ParseMessage(b)
		if err != nil {
			r.t.Fatal(err)
		}
		if slices.Contains(types, m.MessageType()) {
			return m
		}
	}
}

// TestSettledDisputeIsNotKept shows that a dispute which settles nothing
// neither replaces evidence in the journal nor makes it grow.
func TestSettledDisputeIsNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(w.patient())
	w.until("two intervals are paid", func() bool { v, _ := w.provider.Lease(id); return v.Paid >= 2*unitsPerSecond })
	r := w.raw()
	v, _ := w.provider.Lease(id)
	r.send(lease.Attach{Version: 1, Lease: id, Sequence: v.Sequence})
	d, err := pktcloud.Seal(w.devices[0], lease.Dispute{
		Version: 1, Lease: id, Tenant: w.devices[0].Public(), Sequence: 1, Accepted: 1000, Code: lease.CodeProbe,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.send(lease.DisputeMessage{Version: 1, Dispute: d})
	r.send(lease.Attach{Version: 1, Lease: id, Sequence: 1 << 40}) // its refusal comes after the dispute
	r.await(lease.TypeRefuse)
	err = w.stores[1].Load(t.Context(), "lease/"+id.Hex()+"/", func(k string, _ []byte) error {
		if strings.Contains(k, "/dispute/") {
			t.Errorf("got %s in the journal, want no dispute that settled nothing", k)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// beyond asks for what the world's offer does not grant of the network.
var beyond = map[string]func(*lease.Service){
	"egress":         func(s *lease.Service) { s.Egress = []string{lease.EgressPublic} },
	"a single place": func(s *lease.Service) { s.Egress = []string{"example.org:443"} },
	"a port":         func(s *lease.Service) { s.Publish = []lease.PublishedPort{{Port: 80, Protocol: lease.TCP}} },
}

// TestNetworkBeyondTheOffer: a provider refuses what its offer does not grant of
// its network, before any quote [LEASE-35].
func TestNetworkBeyondTheOffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.raw()
	for name, edit := range beyond {
		p := w.propose(1)
		edit(&p.Manifest.Services[0])
		var err error
		if p.Draft.Manifest, err = p.Manifest.ID(); err != nil {
			t.Fatal(err)
		}
		r.send(p)
		if m, ok := r.await(lease.TypeQuote, lease.TypeRefuse).(lease.Refuse); !ok || m.Code != lease.CodeNetwork {
			t.Errorf("%s: got %+v, want a refusal of the network", name, m)
		}
	}
}

// TestNetworkIsNotAskedFor: a tenant does not ask for what the offer does not
// grant, and finds that out without the provider [LEASE-35].
func TestNetworkIsNotAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stops[1]()
	for name, edit := range beyond {
		q := w.request()
		edit(&q.Manifest.Services[0])
		if _, err := w.tenant.Create(t.Context(), q); !errors.Is(err, lease.CodeNetwork) {
			t.Errorf("%s: got %v, want a refusal of the network", name, err)
		}
	}
}

// propose is a proposal that the provider quotes.
func (w *world) propose(nonce byte) lease.Propose {
	w.t.Helper()
	req := w.request()
	offer, err := w.offer.ID()
	if err != nil {
		w.t.Fatal(err)
	}
	manifest, err := req.Manifest.ID()
	if err != nil {
		w.t.Fatal(err)
	}
	return lease.Propose{Version: 1, Account: w.account(0), Manifest: req.Manifest, Draft: lease.Terms{
		Version: 1, Tenant: w.ids[0].Public(), Provider: w.ids[1].Public(), TenantDevice: w.devices[0].Public(),
		ProviderDevice: w.devices[1].Public(), Offer: offer, Resources: req.Manifest.Resources(), Manifest: manifest,
		IntervalSeconds: 1, Limits: req.Limits, GraceSeconds: 3, TermSeconds: 600, Nonce: [16]byte{nonce},
	}}
}

// TestOneRefusalPerQuote shows [LEASE-21]: commits without money behind them
// do not fill the provider's disk.
func TestOneRefusalPerQuote(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.raw()
	p := w.propose(1)
	r.send(p)
	quote, ok := r.await(lease.TypeQuote).(lease.Quote)
	if !ok {
		t.Fatal("no quote")
	}
	q, err := market.ParseQuote(quote.Quote)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []lease.Code{lease.CodeChannel, lease.CodeQuote, lease.CodeQuote} {
		c := lease.Commit{Version: 1, Terms: p.Draft, Account: p.Account, Quote: quote.Quote, Manifest: p.Manifest, Funding: []byte("none")}
		c.Params, _, err = w.bank.Payer(w.devices[0]).Open(t.Context(), peer.OpenRequest{
			Payee: w.devices[1].Public(), PayeeDetail: q.Body.PayeeDetail, Capacity: 1 << 24, Unconfirmed: 1 << 20, MinDepth: 1, LifetimeBlocks: 1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Terms.Rate, c.Terms.CommitBy = q.Body.Rate, q.Body.Expires
		if c.Terms.Quote, err = q.ID(); err != nil {
			t.Fatal(err)
		}
		if c.Terms.Channel, err = c.Params.ID(); err != nil {
			t.Fatal(err)
		}
		if c.Signature, err = lease.SignTerms(w.devices[0], c.Terms); err != nil {
			t.Fatal(err)
		}
		r.send(c)
		if m, ok := r.await(lease.TypeAck, lease.TypeRefuse).(lease.Refuse); !ok || m.Code != want {
			t.Errorf("commit %d: got %+v, want a refusal of the %s", i, m, want)
		}
	}
	rows := 0
	err = w.stores[1].Load(t.Context(), "lease/", func(k string, _ []byte) error {
		if strings.HasSuffix(k, "/refusal") {
			rows++
		}
		return nil
	})
	if err != nil || rows != 1 {
		t.Errorf("got %d refusals kept, %v, want one", rows, err)
	}
}

// countingPayee counts the payment keys that it hands out.
type countingPayee struct {
	peer.Payee
	details *atomic.Int64
}

func (p countingPayee) PayeeDetail(ctx context.Context) ([]byte, error) {
	p.details.Add(1)
	return p.Payee.PayeeDetail(ctx)
}

// TestProposalsBurnNoKeys shows [LEASE-18]: proposals that lead to nothing do
// not use payment keys up.
func TestProposalsBurnNoKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var details atomic.Int64
	w.payee, w.quotes = func(p peer.Payee) peer.Payee { return countingPayee{p, &details} }, 1
	again := w.listenAgain()
	w.stops[1]()
	w.startProvider(again)
	w.raw()
	for i := range byte(3) {
		r := raw{t, w.stream(w.hosts[0])} // one does not stay open so long without a lease
		r.send(w.propose(i))
		if m, ok := r.await(lease.TypeQuote, lease.TypeRefuse).(lease.Quote); !ok {
			t.Fatalf("got %+v, want a quote", m)
		}
		time.Sleep(2 * time.Second) // until the quote has expired
	}
	if n := details.Load(); n != 1 {
		t.Errorf("got %d payment keys used for three quotes, one after another, want one", n)
	}
}

// refusingPayee has a chain that refuses every funding.
type refusingPayee struct{ peer.Payee }

func (refusingPayee) Announce(context.Context, pktcloud.ID) error {
	return &settle.Rejection{Code: -26, Reason: "an input is spent elsewhere"}
}

// quietPayer leaves the funding to the provider.
type quietPayer struct{ peer.Payer }

func (quietPayer) Announce(context.Context, pktcloud.ID) error { return nil }

// TestRefusedFundingEnds shows [LEASE-20]: a funding that can never be mined
// holds no place at the provider.
func TestRefusedFundingEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	again := w.listenAgain()
	w.stops[0]()
	w.stops[1]()
	w.payer = func(p peer.Payer) peer.Payer { return quietPayer{p} }
	w.payee = func(p peer.Payee) peer.Payee { return refusingPayee{p} }
	w.startProvider(again)
	w.startTenant()
	id, err := w.tenant.Create(t.Context(), w.request())
	if err != nil {
		t.Fatal(err)
	}
	w.until("the provider ends the lease", func() bool { v, _ := w.provider.Lease(id); return v.Phase >= lease.Closing })
	if v, _ := w.provider.Lease(id); v.Reason != lease.ReasonChannel {
		t.Errorf("got reason %q, want channel", v.Reason)
	}
	if starts, _ := w.workload.Counts(); starts != 0 {
		t.Errorf("got %d workloads started on a funding that the chain refuses, want none", starts)
	}
}

// TestProviderRefusesClass proposes what no tenant of this package would: a
// class that the offer does not name [LEASE-34].
func TestProviderRefusesClass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.raw()
	for class, want := range map[string]bool{"gvisor": false, w.offer.Body.Isolation[0]: true} {
		p := w.propose(byte(len(class)))
		p.Manifest.Demand(class)
		id, err := p.Manifest.ID()
		if err != nil {
			t.Fatal(err)
		}
		p.Draft.Manifest = id
		r.send(p)
		m := r.await(lease.TypeQuote, lease.TypeRefuse)
		refusal, refused := m.(lease.Refuse)
		if refused == want || refused && refusal.Code != lease.CodeOffer {
			t.Errorf("class %q: got %+v", class, m)
		}
	}
}
