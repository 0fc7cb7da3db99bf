package node

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Times between attempts to reach a bootstrap node.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
	checkEvery = time.Second
)

// checkBootstrap refuses addresses that name no node, before anything runs.
func (n *Node) checkBootstrap() error {
	for _, text := range n.cfg.Bootstrap {
		if _, err := peer.AddrInfoFromString(text); err != nil {
			return service.Errorf(service.CodeInvalid, "--bootstrap takes /ip4/<address>/tcp/<port>/p2p/<peer id>, not %q: %v", text, err)
		}
	}
	return nil
}

// stayConnected keeps connections to the bootstrap nodes.
func (n *Node) stayConnected(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, text := range n.cfg.Bootstrap {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			return err // checkBootstrap let it pass
		}
		wg.Go(func() { n.keepTo(ctx, *info) })
	}
	<-ctx.Done()
	return nil
}

// keepTo has a rhythm of its own: what libp2p remembers of failed attempts would
// keep a node away for half a minute from a peer that was restarted.
func (n *Node) keepTo(ctx context.Context, to peer.AddrInfo) {
	dialler, _ := n.host.Network().(interface{ Backoff() *swarm.DialBackoff })
	wait, told := firstRetry, false
	for ctx.Err() == nil {
		if dialler != nil {
			dialler.Backoff().Clear(to.ID)
		}
		err := n.host.Connect(ctx, to) // at once when connected already
		pause := checkEvery
		if err != nil {
			n.cfg.Log.Debug("a bootstrap node is not reached", "peer", to.ID, "error", err)
			if !told && wait == lastRetry { // it had its time to start
				n.cfg.Log.Warn("the node of --bootstrap is not reached; this one goes on trying", "addresses", to.Addrs)
				told = true
			}
			pause, wait = wait, min(2*wait, lastRetry)
		} else {
			wait, told = firstRetry, false
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}
