package gossip

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/market"
)

// follower is a peer that gets this node's offers. queue holds what it has
// not been sent; stop ends the stream.
type follower struct {
	queue chan pktcloud.Signed[market.Offer]
	stop  context.CancelFunc
}

// serve answers a peer that opened a stream. libp2p calls it in a goroutine of
// its own, which ends at once: what goes on is awaited by Run.
func (g *Gossip) serve(s network.Stream) {
	started := g.start(func(ctx context.Context) {
		defer func() { _ = s.Reset() }()
		if err := g.sendOffers(ctx, s); err != nil {
			g.log.Debug("follower ended", "peer", s.Conn().RemotePeer(), "err", err)
			if isMisbehaviour(err) {
				g.ban(s.Conn().RemotePeer(), err)
			}
		}
	})
	if !started {
		_ = s.Reset()
	}
}

// sendOffers sends the book's newest live offers, an empty frame, and then
// each offer as it is stored [MARKET-9].
func (g *Gossip) sendOffers(ctx context.Context, s network.Stream) error {
	id := s.Conn().RemotePeer()
	if g.isBanned(id) {
		return nil
	}
	guest, ok := g.door.Enter(id, func() { _ = s.Reset() })
	if !ok {
		return nil
	}
	defer guest.Leave()
	if err := s.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	if err := readFollow(s); err != nil {
		return err
	}
	guest.Leave()
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	f := &follower{queue: make(chan pktcloud.Signed[market.Offer], queueLength), stop: cancel}
	g.mu.Lock()
	if old := g.followers[id]; old != nil {
		old.stop()
	}
	g.followers[id] = f
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.followers[id] == f {
			delete(g.followers, id)
		}
	}()
	g.start(func(context.Context) {
		defer cancel()
		var one [1]byte
		_, _ = s.Read(one[:]) // returns when the follower goes, or says what it must not
	})
	return g.stream(ctx, s, f)
}

// stream writes the list, then the queue. The follower was registered before
// the list was read: an offer may be sent twice, none is missed.
func (g *Gossip) stream(ctx context.Context, s network.Stream, f *follower) error {
	live := g.book.Live(g.now())
	for _, offer := range live[:min(len(live), MaxListed)] {
		if err := errors.Join(s.SetWriteDeadline(time.Now().Add(frameTimeout)), writeOffer(s, offer)); err != nil {
			return err
		}
	}
	if err := wire.WriteFrame(s, nil); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case offer := <-f.queue:
			if err := errors.Join(s.SetWriteDeadline(time.Now().Add(frameTimeout)), writeOffer(s, offer)); err != nil {
				return err
			}
		}
	}
}
