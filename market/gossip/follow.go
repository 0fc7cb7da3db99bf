package gossip

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/market"
)

// Waits between two attempts to follow a peer that stays connected.
const (
	firstRetry = time.Second
	lastRetry  = 2 * time.Minute
)

// follow begins to follow a peer that has connected, once. One that was
// followed over an earlier connection is asked again without the wait that the
// end of that one cost.
func (g *Gossip) follow(id peer.ID) {
	g.mu.Lock()
	back, already := g.following[id]
	if !already {
		back = make(chan struct{}, 1)
		g.following[id] = back
	}
	g.mu.Unlock()
	if already {
		select {
		case back <- struct{}{}:
		default: // it will look anyway
		}
		return
	}
	if !g.start(func(ctx context.Context) { g.keepFollowing(ctx, id, back) }) {
		g.mu.Lock()
		delete(g.following, id)
		g.mu.Unlock()
	}
}

// keepFollowing reads the peer's offers, again and again while it is
// connected. A word on back says that it has connected anew.
func (g *Gossip) keepFollowing(ctx context.Context, id peer.ID, back <-chan struct{}) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		began := time.Now()
		err := g.readOffers(ctx, id)
		if time.Since(began) > lastRetry {
			wait = firstRetry
		}
		g.log.Debug("following ended", "peer", id, "err", err)
		if isMisbehaviour(err) {
			g.ban(id, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-back:
			wait = firstRetry / 2 // doubled at once
		}
		if g.unfollow(ctx, id) {
			return
		}
	}
}

// unfollow forgets a peer that is gone. It decides under the lock that
// [Gossip.follow] takes, so that a peer that comes back is never missed.
func (g *Gossip) unfollow(ctx context.Context, id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() == nil && g.host.Network().Connectedness(id) == network.Connected {
		return false
	}
	delete(g.following, id)
	return true
}

// readOffers follows the peer on one stream until that ends.
func (g *Gossip) readOffers(ctx context.Context, id peer.ID) error {
	if g.isBanned(id) {
		return nil
	}
	s, err := g.host.NewStream(network.WithNoDial(ctx, "offers"), id, Protocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := writeFollow(s); err != nil {
		return err
	}
	for {
		frame, err := wire.ReadFrame(s, market.MaxOfferBytes)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := g.throttle(ctx, id); err != nil {
			return err
		}
		if len(frame) == 0 { // the list is complete
			continue
		}
		if err := g.receive(frame, id); err != nil {
			return err
		}
	}
}

// throttle waits until the peer may send another frame. The stream's flow
// control passes the wait on to the sender.
func (g *Gossip) throttle(ctx context.Context, id peer.ID) error {
	for {
		g.mu.Lock()
		wait := g.perPeer.take(id, g.now())
		g.mu.Unlock()
		if wait == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// receive checks one offer, stores it and passes it on [MARKET-10]. An error
// means that the peer should have known better; an offer that is merely late,
// old or one too many is dropped.
func (g *Gossip) receive(frame []byte, from peer.ID) error {
	offer, err := market.ParseOffer(frame)
	if err != nil {
		return err
	}
	if known, ok := g.book.Latest(offer.Body.Key()); ok && known.Body.Sequence == offer.Body.Sequence && known.Sig == offer.Sig {
		return nil // seen from another peer, and free of charge to its provider
	}
	now := g.now()
	if err := market.Admit(offer.Body, now); err != nil {
		g.log.Debug("offer dropped", "peer", from, "err", err)
		return nil
	}
	g.mu.Lock()
	wait := g.perProvider.take(offer.Body.Provider, now)
	g.mu.Unlock()
	if wait > 0 {
		g.log.Debug("offer dropped", "peer", from, "err", market.CodeRateLimited, "provider", offer.Body.Provider)
		return nil
	}
	changed, err := g.book.Put(offer, now)
	if err != nil {
		g.log.Debug("offer not stored", "peer", from, "err", err)
		return nil
	}
	if changed {
		g.announce(offer, from)
	}
	return nil
}

// isMisbehaviour tells what no honest peer sends from what a network does.
func isMisbehaviour(err error) bool {
	for _, bad := range []error{
		pktcloud.ErrEncoding, pktcloud.ErrTooLarge, pktcloud.ErrKey, pktcloud.ErrSignature, market.CodeMalformed,
	} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}

// ban ends all dealings with a peer for a while [MARKET-10]. A connection that
// another part of the node protects, as for a lease, stays.
func (g *Gossip) ban(id peer.ID, why error) {
	g.log.Warn("a peer misbehaves and is disconnected", "peer", id, "err", why)
	g.mu.Lock()
	if len(g.banned) >= maxRemembered {
		clear(g.banned)
	}
	g.banned[id] = g.now().Add(BanSeconds * time.Second)
	if f := g.followers[id]; f != nil {
		f.stop()
	}
	g.mu.Unlock()
	if !g.host.ConnManager().IsProtected(id, "") {
		_ = g.host.Network().ClosePeer(id)
	}
}

func (g *Gossip) isBanned(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := g.banned[id]
	if ok && !g.now().Before(until) {
		delete(g.banned, id)
		return false
	}
	return ok
}
