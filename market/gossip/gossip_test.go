package gossip_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/gossip"
	"github.com/pkt-cash/pkt-cloud/market/markettest"
	"github.com/pkt-cash/pkt-cloud/node/p2p"
)

// now is the time of all nodes here.
func now() time.Time { return time.Unix(markettest.Issued+10, 0) }

// patience is for what does not come.
const patience = 2 * time.Minute

type node struct {
	host   host.Host
	book   *market.Book
	gossip *gossip.Gossip
}

func bareHost(t *testing.T, n byte) host.Host {
	t.Helper()
	h, err := p2p.New(p2p.Config{Key: pktcloud.NewPrivateKey([32]byte{1, n})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// start runs a node until the test ends, and fails the test if it then does
// not stop.
func start(t *testing.T, n byte) node {
	t.Helper()
	x := node{host: bareHost(t, n), book: market.NewBook(0)}
	var err error
	if x.gossip, err = gossip.New(gossip.Config{Host: x.host, Book: x.book, Clock: now}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.gossip.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	return x
}

// connect connects two hosts, once neither takes an earlier connection that the
// other has closed for a live one.
func connect(t *testing.T, from, to host.Host) {
	t.Helper()
	eventually(t, "both know of the last connection's end", func() bool {
		return from.Network().Connectedness(to.ID()) == to.Network().Connectedness(from.ID())
	})
	info, err := p2p.AddrInfo(p2p.Addresses(to)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func publish(t *testing.T, x node, offer pktcloud.Signed[market.Offer]) pktcloud.ID {
	t.Helper()
	if err := x.gossip.Publish(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	id, err := offer.ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (x node) has(id pktcloud.ID) bool {
	_, ok := x.book.Offer(id)
	return ok
}

func slot(s uint64) func(*market.Offer)     { return func(o *market.Offer) { o.Slot = s } }
func sequence(s uint64) func(*market.Offer) { return func(o *market.Offer) { o.Sequence = s } }

func TestNodesExchangeOffers(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	old := publish(t, a, markettest.NewProvider(1).Sealed())
	other := publish(t, b, markettest.NewProvider(2).Sealed())
	connect(t, a.host, b.host)
	eventually(t, "b has a's offer and a has b's", func() bool { return b.has(old) && a.has(other) })

	next := publish(t, a, markettest.NewProvider(1).Sealed(sequence(2)))
	eventually(t, "b has the newer offer in place of the old", func() bool { return b.has(next) && !b.has(old) })
	if b.book.Len() != 2 {
		t.Errorf("got %d offers, want 2", b.book.Len())
	}
}

func TestOffersPassThroughNodes(t *testing.T) {
	a, b, c := start(t, 1), start(t, 2), start(t, 3)
	connect(t, a.host, b.host)
	connect(t, b.host, c.host)
	// Once c follows b, what b hears later must be passed on to it.
	own := publish(t, b, markettest.NewProvider(2).Sealed())
	eventually(t, "c follows b", func() bool { return c.has(own) })
	id := publish(t, a, markettest.NewProvider(1).Sealed())
	eventually(t, "c has a's offer through b", func() bool { return c.has(id) })
}

func TestFollowingResumesAfterReconnect(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	connect(t, a.host, b.host)
	first := publish(t, a, markettest.NewProvider(1).Sealed())
	eventually(t, "b has the first offer", func() bool { return b.has(first) })
	if err := a.host.Network().ClosePeer(b.host.ID()); err != nil {
		t.Fatal(err)
	}
	second := publish(t, a, markettest.NewProvider(1).Sealed(slot(1)))
	connect(t, b.host, a.host)
	eventually(t, "b has the second offer", func() bool { return b.has(second) })
}

// hostile serves the protocol with the given bytes, then stays silent.
func hostile(t *testing.T, n byte, frames ...[]byte) host.Host {
	h := bareHost(t, n)
	h.SetStreamHandler(gossip.Protocol, func(s network.Stream) {
		if _, err := wire.ReadFrame(s, gossip.MaxFollowBytes); err != nil {
			return
		}
		for _, f := range frames {
			if _, err := s.Write(f); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, s)
	})
	return h
}

func frame(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func encode(t *testing.T, s pktcloud.Signed[market.Offer]) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forge signs a body that Seal would refuse.
func forge(t *testing.T, edit func(*market.Offer)) []byte {
	t.Helper()
	p := markettest.NewProvider(9)
	o := p.Offer(edit)
	body, err := pktcloud.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, pktcloud.Signed[market.Offer]{Body: o, Sig: pktcloud.Sign(p.Identity, o.RecordType(), body)})
}

func TestMisbehavingPeersAreDisconnected(t *testing.T) {
	good := markettest.NewProvider(9).Sealed()
	badSig := good
	badSig.Sig[0] ^= 1
	for name, bad := range map[string][]byte{
		"too large":         binary.BigEndian.AppendUint32(nil, market.MaxOfferBytes+1),
		"no CBOR":           frame([]byte("hello")),
		"trailing byte":     frame(append(encode(t, good), 0)),
		"signature":         frame(encode(t, badSig)),
		"slot 16":           frame(forge(t, slot(16))),
		"lives too long":    frame(forge(t, func(o *market.Offer) { o.Expires = o.Issued + market.MaxOfferLifetimeSeconds + 1 })),
		"another's address": frame(forge(t, func(o *market.Offer) { o.Device = markettest.NewProvider(8).Device.Public() })),
	} {
		t.Run(name, func(t *testing.T) {
			victim := start(t, 1)
			id := publish(t, victim, markettest.NewProvider(1).Sealed())
			// A good offer after the bad frame must not be read any more.
			h := hostile(t, 2, bad, frame(encode(t, good)))
			connect(t, h, victim.host)
			eventually(t, "the peer is disconnected", func() bool {
				return victim.host.Network().Connectedness(h.ID()) != network.Connected
			})
			if victim.book.Len() != 1 || !victim.has(id) {
				t.Errorf("got %d offers, want the own one only", victim.book.Len())
			}
		})
	}
}

// TestBannedPeerIsNotFollowed: it may connect again, for a lease perhaps, but
// its offers are not asked for.
func TestBannedPeerIsNotFollowed(t *testing.T) {
	victim, h := start(t, 1), bareHost(t, 2)
	var asked atomic.Int32
	h.SetStreamHandler(gossip.Protocol, func(s network.Stream) {
		asked.Add(1)
		_, _ = s.Write(frame([]byte("hello")))
		_, _ = io.Copy(io.Discard, s)
	})
	connect(t, h, victim.host)
	eventually(t, "the peer is disconnected", func() bool {
		return victim.host.Network().Connectedness(h.ID()) != network.Connected
	})
	connect(t, h, victim.host)
	time.Sleep(1500 * time.Millisecond) // longer than the first retry
	if asked.Load() != 1 || victim.host.Network().Connectedness(h.ID()) != network.Connected {
		t.Errorf("got %d requests, connected %v, want 1 and a connection", asked.Load(), victim.host.Network().Connectedness(h.ID()))
	}
}

func TestLateAndOldOffersAreDroppedWithoutBlame(t *testing.T) {
	p, q := markettest.NewProvider(9), markettest.NewProvider(8)
	good := q.Sealed()
	id, err := good.ID()
	if err != nil {
		t.Fatal(err)
	}
	frames := [][]byte{
		frame(encode(t, p.Sealed(func(o *market.Offer) { o.Issued, o.Expires = o.Issued-20, o.Issued-10 }))),
		frame(encode(t, p.Sealed(func(o *market.Offer) { o.Issued += 3600; o.Expires += 3600 }))),
		frame(encode(t, p.Sealed(sequence(5)))),
		frame(encode(t, p.Sealed(sequence(4)))),
		frame(encode(t, p.Sealed(sequence(5), func(o *market.Offer) { o.Region = "AT" }))),
		frame(nil),
		frame(encode(t, good)),
	}
	victim := start(t, 1)
	h := hostile(t, 2, frames...)
	connect(t, h, victim.host)
	eventually(t, "the last offer arrives", func() bool { return victim.has(id) })
	if got, ok := victim.book.Latest(market.Key{Provider: p.Identity.Public()}); !ok || got.Body.Sequence != 5 || got.Body.Region != "DE-BE" {
		t.Errorf("got %+v, want the first offer of sequence 5", got.Body)
	}
	if victim.book.Len() != 2 {
		t.Errorf("got %d offers, want 2", victim.book.Len())
	}
	if victim.host.Network().Connectedness(h.ID()) != network.Connected {
		t.Error("an honest but late peer was disconnected")
	}
}

func TestMisbehavingFollowerIsDisconnected(t *testing.T) {
	victim, h := start(t, 1), bareHost(t, 2)
	connect(t, h, victim.host)
	s, err := h.NewStream(t.Context(), victim.host.ID(), gossip.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(frame([]byte{0xa0})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the peer is disconnected", func() bool {
		return victim.host.Network().Connectedness(h.ID()) != network.Connected
	})
}

func TestProtectedPeerStaysConnected(t *testing.T) {
	victim := start(t, 1)
	h := hostile(t, 2, frame([]byte("hello")))
	victim.host.ConnManager().Protect(h.ID(), "lease")
	connect(t, h, victim.host)
	time.Sleep(100 * time.Millisecond)
	if victim.host.Network().Connectedness(h.ID()) != network.Connected {
		t.Error("a peer with a lease was disconnected")
	}
}

func TestProviderMayNotFlood(t *testing.T) {
	p := markettest.NewProvider(9)
	var frames [][]byte
	for n := range uint64(3 * gossip.ProviderBurst) {
		frames = append(frames, frame(encode(t, p.Sealed(sequence(n+1)))))
	}
	last := markettest.NewProvider(8).Sealed()
	id, _ := last.ID()
	victim := start(t, 1)
	connect(t, hostile(t, 2, append(frames, frame(encode(t, last)))...), victim.host)
	eventually(t, "another provider's offer arrives behind the flood", func() bool { return victim.has(id) })
	got, _ := victim.book.Latest(market.Key{Provider: p.Identity.Public()})
	if got.Body.Sequence != gossip.ProviderBurst {
		t.Errorf("got %d changes accepted, want %d", got.Body.Sequence, gossip.ProviderBurst)
	}
}

// TestPeerIsReadNoFasterThanAllowed: the clock of the test stands still, so
// that a peer has its burst and nothing more.
func TestPeerIsReadNoFasterThanAllowed(t *testing.T) {
	offer := markettest.NewProvider(9).Sealed()
	id, err := offer.ID()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		before int
		read   bool
	}{{"the last of the burst", gossip.PeerBurst - 1, true}, {"one beyond", gossip.PeerBurst, false}} {
		t.Run(tt.name, func(t *testing.T) {
			victim := start(t, 1)
			h := hostile(t, 2, append(make([]byte, 4*tt.before), frame(encode(t, offer))...))
			connect(t, h, victim.host)
			if tt.read {
				eventually(t, "the offer arrives", func() bool { return victim.has(id) })
				return
			}
			time.Sleep(300 * time.Millisecond)
			if victim.has(id) {
				t.Error("a frame beyond the burst was read at once")
			}
		})
	}
}

func TestSubscriberSeesOffersOrTheGap(t *testing.T) {
	a := start(t, 1)
	offers, end := a.gossip.Subscribe(2)
	for n := range uint64(2) {
		publish(t, a, markettest.NewProvider(1).Sealed(slot(n)))
	}
	publish(t, a, markettest.NewProvider(1).Sealed()) // known already: no news
	for n := range uint64(2) {
		if got := <-offers; got.Body.Slot != n {
			t.Errorf("got slot %d, want %d", got.Body.Slot, n)
		}
	}
	for n := range uint64(3) { // one more than the buffer holds
		publish(t, a, markettest.NewProvider(2).Sealed(slot(n)))
	}
	seen := 0
	for range offers {
		seen++
	}
	if seen != 2 {
		t.Errorf("got %d offers before the channel closed, want 2", seen)
	}
	end()
	end()
}

func TestPublishRefusals(t *testing.T) {
	a := start(t, 1)
	bad := markettest.NewProvider(1).Sealed()
	bad.Sig[0] ^= 1
	late := markettest.NewProvider(1).Sealed(func(o *market.Offer) { o.Issued, o.Expires = o.Issued-20, o.Issued-10 })
	if err := a.gossip.Publish(t.Context(), bad); !errors.Is(err, pktcloud.ErrSignature) {
		t.Errorf("got %v, want ErrSignature", err)
	}
	if err := a.gossip.Publish(t.Context(), late); !errors.Is(err, market.CodeExpired) {
		t.Errorf("got %v, want CodeExpired", err)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	a, b := bareHost(t, 1), start(t, 2)
	g, err := gossip.New(gossip.Config{Host: a, Book: market.NewBook(0), Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		connect(t, a, b.host)
		time.Sleep(30 * time.Millisecond)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := a.Network().ClosePeer(b.host.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+2 })
	}
}

func FuzzParseFollow(f *testing.F) {
	good, err := pktcloud.Marshal(gossip.Follow{Version: gossip.FollowVersion})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := gossip.ParseFollow(data)
		if err != nil {
			return
		}
		if again, err := pktcloud.Marshal(m); err != nil || string(again) != string(data) {
			t.Errorf("got %x, %v, want %x", again, err, data)
		}
	})
}
