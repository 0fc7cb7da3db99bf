package node

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/doorway"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

const (
	// DefaultDepositEvery is after how many further units earned the command
	// line has a provider deposit at its towers.
	DefaultDepositEvery = 10_000_000

	// DefaultTowerMinValue is the least capacity of a channel that the command
	// line has a tower keep deposits for: a channel below it would make no
	// deposit. It keeps strangers from filling the tower with dust.
	DefaultTowerMinValue = DefaultDepositEvery

	askEvery    = 5 * time.Second
	askAgain    = 30 * time.Second // after a payer refused or was away
	askAtOnce   = 8
	placesOfOne = 4 // streams of one peer, and of all, at a tower or a payer
	places      = 128
)

// towers is the node's part in keeping channels safe while owners are away: as
// payer it answers for late proofs, as payee it asks for them; it supplies its
// towers and may be one.
type towers struct {
	key       pktcloud.PrivateKey // names this node to towers, from the phrase
	doors     map[protocol.ID]*doorway.Doorway[pktcloud.PublicKey]
	depositor *tower.Depositor // nil without towers
	own       *tower.Tower     // nil unless Config.Tower
}

// openTowers opens the node's tower and its supply of others.
func (n *Node) openTowers(ctx context.Context) (err error) {
	n.towers.doors = map[protocol.ID]*doorway.Doorway[pktcloud.PublicKey]{}
	for _, id := range []protocol.ID{manager.LateProtocol, manager.ResumeProtocol, manager.RollProtocol, tower.Protocol} {
		n.towers.doors[id] = doorway.New[pktcloud.PublicKey](placesOfOne, places)
	}
	if n.cfg.Tower {
		n.towers.own, err = tower.New(ctx, tower.Config{
			Network: n.network, Ledger: n.ledger, Store: n.store, Key: n.device, Quota: n.cfg.TowerQuota, MinValue: n.cfg.TowerMinValue, Log: n.cfg.Log,
		})
		if err != nil {
			return err
		}
	}
	if len(n.cfg.Towers) == 0 {
		return nil
	}
	var targets []tower.Target
	for _, text := range n.cfg.Towers {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			return service.Errorf(service.CodeInvalid, "--tower takes /ip4/<address>/tcp/<port>/p2p/<peer id>, not %q: %v", text, err)
		}
		key, err := session.KeyOf(info.ID)
		if err != nil {
			return service.Errorf(service.CodeInvalid, "--tower: %v", err)
		}
		targets = append(targets, tower.Target{Name: text, Key: key, Dial: func(ctx context.Context) (net.Conn, error) {
			if err := n.host.Connect(ctx, *info); err != nil {
				return nil, err
			}
			return n.stream(ctx, info.ID, tower.Protocol)
		}})
	}
	n.towers.depositor, err = tower.NewDepositor(ctx, tower.DepositorConfig{
		Network: n.network, Key: n.towers.key, Parcels: n.manager.Parcels, Store: n.store, Towers: targets, Log: n.cfg.Log,
	})
	return err
}

// depositEvery is none without a tower to deposit at.
func (n *Node) depositEvery() pktcloud.Amount {
	if len(n.cfg.Towers) == 0 {
		return 0
	}
	return n.cfg.DepositEvery
}

// streamConn is a stream as a net.Conn.
type streamConn struct{ network.Stream }

type streamAddr string

func (a streamAddr) Network() string { return "libp2p" }
func (a streamAddr) String() string  { return string(a) }

// LocalAddr returns this node's peer id.
func (c streamConn) LocalAddr() net.Addr { return streamAddr(c.Conn().LocalPeer().String()) }

// RemoteAddr returns the other one's.
func (c streamConn) RemoteAddr() net.Addr { return streamAddr(c.Conn().RemotePeer().String()) }

// stream opens a stream to a peer that is connected.
func (n *Node) stream(ctx context.Context, to peer.ID, id protocol.ID) (net.Conn, error) {
	s, err := n.host.NewStream(network.WithNoDial(ctx, "a connection is there, or none"), to, id)
	if err != nil {
		return nil, err
	}
	return streamConn{s}, nil
}

// serveStreams answers one protocol until ctx ends and all its streams are over.
func (n *Node) serveStreams(ctx context.Context, id protocol.ID, serve func(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	ended := false
	door := n.towers.doors[id]
	n.host.SetStreamHandler(id, func(s network.Stream) {
		reset := func() { s.Reset() } //nolint:errcheck // it is given up
		remote, err := session.KeyOf(s.Conn().RemotePeer())
		if err != nil {
			reset()
			return
		}
		guest, ok := door.Enter(remote, reset)
		mu.Lock()
		if ok = ok && !ended; ok {
			wg.Add(1)
		}
		mu.Unlock()
		if !ok {
			if guest != nil {
				guest.Leave()
			}
			reset()
			return
		}
		defer wg.Done()
		defer guest.Leave()
		stop := context.AfterFunc(ctx, reset)
		defer stop()
		serve(ctx, streamConn{s}, remote)
	})
	<-ctx.Done()
	n.host.RemoveStreamHandler(id)
	mu.Lock()
	ended = true
	mu.Unlock()
	wg.Wait()
}

// answerLate answers, as payer, payees that ask for late proofs.
func (n *Node) answerLate(ctx context.Context) error {
	n.serveStreams(ctx, manager.LateProtocol, func(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey) {
		if err := n.manager.ServeLate(ctx, conn, remote); err != nil {
			n.cfg.Log.Debug("no late proof given", "to", remote, "error", err)
		}
	})
	return nil
}

// runTower runs the node's own tower.
func (n *Node) runTower(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		n.serveStreams(ctx, tower.Protocol, func(ctx context.Context, conn net.Conn, _ pktcloud.PublicKey) {
			n.towers.own.ServeConn(ctx, conn)
		})
	})
	err := n.towers.own.Run(ctx)
	wg.Wait()
	return err
}

// askLate asks, as payee, for the late proofs that are due, and has them
// deposited. A payer that is away is asked again.
func (n *Node) askLate(ctx context.Context) error {
	var mu sync.Mutex
	failed := map[pktcloud.ID]time.Time{}
	slots := make(chan struct{}, askAtOnce)
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		var wg sync.WaitGroup
		for _, id := range n.manager.WantLate() {
			mu.Lock()
			wait := time.Since(failed[id]) < askAgain
			mu.Unlock()
			if wait {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				err := n.askOne(ctx, id)
				mu.Lock()
				defer mu.Unlock()
				if delete(failed, id); err != nil {
					failed[id] = time.Now()
					n.cfg.Log.Debug("no late proof taken", "channel", id, "error", err)
					return
				}
				n.towers.depositor.Wake()
			})
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// askOne asks the payer of a channel, if it is connected.
func (n *Node) askOne(ctx context.Context, id pktcloud.ID) error {
	st, err := n.manager.Status(ctx, id)
	if err != nil {
		return err
	}
	payer, err := session.PeerOf(st.Params.Payer)
	if err != nil {
		return err
	}
	conn, err := n.stream(ctx, payer, manager.LateProtocol)
	if err != nil {
		return err
	}
	return n.manager.AskLate(ctx, conn, id)
}

// Towers returns how the towers of this node are supplied, and what its own
// tower keeps.
func (n *Node) Towers(context.Context) (service.TowerReport, error) {
	r := service.TowerReport{Towers: []service.TowerSupply{}, Every: n.cfg.DepositEvery}
	if d := n.towers.depositor; d != nil {
		for _, s := range d.Supplies() {
			r.Towers = append(r.Towers, service.TowerSupply{
				Address: s.Name, Receipts: s.Receipts, Missing: s.Missing, Problem: cmp.Or(s.Error, s.Withheld), Told: s.Told, Kept: s.Kept, Bad: s.Bad,
			})
		}
	}
	if t := n.towers.own; t != nil {
		k := &service.TowerKept{}
		for _, s := range t.List() {
			k.Deposits++
			k.Bytes += s.Bytes
			switch {
			case s.Watch.Ended > 0:
				k.Ended++
			case s.Watch.Since > 0:
				k.Sent++
			}
		}
		r.Kept = k
	}
	return r, nil
}

// Deposit brings all towers up to date now, with all that was earned, be it less
// than what a node waits for by itself.
func (n *Node) Deposit(ctx context.Context) (service.TowerReport, error) {
	if n.towers.depositor == nil {
		return service.TowerReport{}, service.Errorf(service.CodeInvalid, "this node has no towers; start it with --tower")
	}
	var asked error
	var failed []pktcloud.ID
	for _, id := range n.manager.WantLateAfter(1) {
		if err := n.askOne(ctx, id); err != nil {
			asked = errors.Join(asked, err)
			failed = append(failed, id)
		}
	}
	if asked != nil {
		n.cfg.Log.Info("not every payer gave a late proof", "error", asked)
	}
	if err := n.towers.depositor.Supply(ctx); err != nil {
		n.cfg.Log.Info("not every tower is supplied", "error", err)
	}
	r, err := n.Towers(ctx)
	for _, id := range failed {
		r.Undeposited = append(r.Undeposited, id.String())
	}
	return r, err
}
