package gossip

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/doorway"
	"github.com/pkt-cash/pkt-cloud/market"
)

// Protocol is the libp2p protocol of offers [MARKET-9].
const Protocol protocol.ID = "/pktcloud/offers/1"

// Config says between what offers are carried. Host and Book are required.
type Config struct {
	Host  host.Host
	Book  *market.Book
	Clock func() time.Time // nil means time.Now
	Log   *slog.Logger     // nil means none
}

// Gossip carries offers between a book and the connected peers. All methods
// may be called from several goroutines at once.
type Gossip struct {
	host host.Host
	book *market.Book
	now  func() time.Time
	log  *slog.Logger

	door *doorway.Doorway[peer.ID] // streams that have not asked to follow yet

	work sync.WaitGroup // of everything that Run started

	mu          sync.Mutex                   // guards all below
	ctx         context.Context              // of Run; nil while it does not run
	following   map[peer.ID]chan struct{}    // peers that a goroutine follows, and how to tell it that one is back
	followers   map[peer.ID]*follower        // peers that follow this node
	banned      map[peer.ID]time.Time        // until when
	perPeer     *buckets[peer.ID]            // frames that a peer may send
	perProvider *buckets[pktcloud.PublicKey] // changes that a provider may make
	subscribers map[*subscriber]struct{}
}

type subscriber struct {
	offers chan pktcloud.Signed[market.Offer]
}

// New returns a Gossip that does nothing until Run.
func New(c Config) (*Gossip, error) {
	if c.Host == nil || c.Book == nil {
		return nil, errors.New("gossip: a host and a book are required")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Gossip{
		host: c.Host, book: c.Book, now: c.Clock, log: c.Log,
		door:      doorway.New[peer.ID](maxWaitingOfOne, maxWaiting),
		following: map[peer.ID]chan struct{}{}, followers: map[peer.ID]*follower{}, banned: map[peer.ID]time.Time{},
		perPeer:     newBuckets[peer.ID](PeerBurst, PeerPerSecond),
		perProvider: newBuckets[pktcloud.PublicKey](ProviderBurst, ProviderPerSecond),
		subscribers: map[*subscriber]struct{}{},
	}, nil
}

// Run serves and follows peers until ctx ends, and returns when everything
// that it started has ended. It may run once at a time.
func (g *Gossip) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	if g.ctx != nil {
		g.mu.Unlock()
		return errors.New("gossip: Run is running")
	}
	g.ctx = ctx
	g.mu.Unlock()

	g.host.SetStreamHandler(Protocol, g.serve)
	events := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { g.follow(c.RemotePeer()) }}
	g.host.Network().Notify(events)
	for _, id := range g.host.Network().Peers() {
		g.follow(id)
	}
	g.sweep(ctx)

	g.host.Network().StopNotify(events)
	g.host.RemoveStreamHandler(Protocol)
	g.mu.Lock()
	g.ctx = nil // nothing is started from here on
	g.mu.Unlock()
	g.work.Wait()
	return nil
}

// sweep drops expired offers until ctx ends.
func (g *Gossip) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if n := g.book.RemoveExpired(g.now()); n > 0 {
				g.log.Debug("offers expired", "count", n)
			}
		}
	}
}

// start runs f in a goroutine that Run awaits, or reports false while Run does
// not run. The caller holds no lock.
func (g *Gossip) start(f func(context.Context)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx := g.ctx
	if ctx == nil || ctx.Err() != nil {
		return false
	}
	g.work.Go(func() { f(ctx) })
	return true
}

// Publish stores an own offer and sends it to all who follow this node.
// Errors are those of [market.Book.Put]; an offer that fails to verify is
// refused as well.
func (g *Gossip) Publish(ctx context.Context, offer pktcloud.Signed[market.Offer]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := offer.Verify(); err != nil {
		return err
	}
	changed, err := g.book.Put(offer, g.now())
	if err == nil && changed {
		g.announce(offer, "")
	}
	return err
}

// announce passes a stored offer to subscribers and to all followers except
// the one that it came from. Who is too slow is cut off, and starts anew.
func (g *Gossip) announce(offer pktcloud.Signed[market.Offer], from peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.subscribers {
		select {
		case s.offers <- offer:
		default:
			delete(g.subscribers, s)
			close(s.offers)
		}
	}
	for id, f := range g.followers {
		if id == from {
			continue
		}
		select {
		case f.queue <- offer:
		default:
			g.log.Info("a follower is too slow", "peer", id)
			f.stop()
		}
	}
}

// Subscribe returns the offers stored from now on, own ones included. A
// subscriber that falls buffer offers behind finds the channel closed: it has
// missed some, and reads the book and subscribes again. The function ends the
// subscription.
func (g *Gossip) Subscribe(buffer int) (<-chan pktcloud.Signed[market.Offer], func()) {
	s := &subscriber{offers: make(chan pktcloud.Signed[market.Offer], max(buffer, 1))}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.subscribers[s] = struct{}{}
	return s.offers, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if _, ok := g.subscribers[s]; ok {
			delete(g.subscribers, s)
			close(s.offers)
		}
	}
}
