//go:build system

package manager_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

// paced is a driver that knows up to which block its one manager has done its
// work: Run asks for the block after it only then.
type paced struct {
	*pktd.Driver
	mu   sync.Mutex
	last settle.Tip
}

func newPaced(t *testing.T, node *nodetest.Node) *paced {
	t.Helper()
	d, err := node.Driver()
	if err != nil {
		t.Fatal(err)
	}
	return &paced{Driver: d}
}

func (p *paced) WaitTip(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	p.mu.Lock()
	p.last = last
	p.mu.Unlock()
	return p.Driver.WaitTip(ctx, last)
}

func (p *paced) done() settle.Tip {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// TestFullBlocksOverNode is TestFullBlocksNearExpiry on a real node under
// standard policy, whose blocks others keep full: managers that run by
// themselves, and the margin of every day.
func TestFullBlocksOverNode(t *testing.T) {
	const rate, units, given = 1_000_000, 400_000, 2_000_000_000
	node := nodetest.New(t, "--blockmaxweight=16000", "--blockprioritysize=0")
	ledgers := []*paced{newPaced(t, node), newPaced(t, node)}
	payer := seatAt(node, ledgers[0], 1, 1).party(t)
	payee := seatAt(node, ledgers[1], 2, 2).party(t)
	payer.start()
	payee.start()
	c := newCrowd(t, node.Ledger, rate, node.Secret(3))
	script, err := payer.wallet.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Fund(t.Context(), script, 2*capacity); err != nil {
		t.Fatal(err)
	}
	if err := node.Fund(t.Context(), c.script, given); err != nil {
		t.Fatal(err)
	}
	c.split(given, 60_000_000)
	if node.Named() {
		mine(t, node, 1)
		c.fill()
		mine(t, node, 1)
		if c.waiting() == 0 {
			t.Skip("the node of PKTD_RPC makes blocks too large to fill: start it with --blockmaxweight=16000 --blockprioritysize=0")
		}
		mine(t, node, 1)
		c.waiting() // for nothing more
	}
	next := func() settle.Tip {
		t.Helper()
		mine(t, node, 1)
		tip, err := node.Ledger.Tip(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range ledgers {
			for deadline := time.Now().Add(3 * time.Minute); l.done() != tip; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("side %d is at %+v three minutes after block %+v", i, l.done(), tip)
				}
			}
		}
		return tip
	}
	const margin = manager.DefaultMarginBlocks
	rush{crowd: c, paid: units, mine: next, chain: payee.fundedBy(t, payer, 2*margin+4, units, next)}.run(t)
}
