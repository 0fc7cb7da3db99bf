package tower_test

import (
	"context"
	"sync"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// coinLedger counts what is asked of it that costs a search of the chain: an
// output that was not unspent when it was named.
type coinLedger struct {
	*settletest.Ledger

	mu             sync.Mutex
	unspent, named map[settle.Outpoint]bool
	searched, read int
}

func newCoinLedger(t *testing.T) *coinLedger {
	return &coinLedger{Ledger: settletest.NewLedger(network(t)), unspent: map[settle.Outpoint]bool{}, named: map[settle.Outpoint]bool{}}
}

func (l *coinLedger) Output(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	l.mu.Lock()
	if !l.named[at] {
		l.searched++
	}
	l.mu.Unlock()
	return l.Ledger.Output(ctx, at)
}

func (l *coinLedger) Unspent(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	o, err := l.Ledger.Output(ctx, at)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read++
	if o.Depth == 0 || o.Spend != nil && o.Spend.Depth > 0 {
		return settle.Output{}, err
	}
	l.unspent[at] = true
	o.Spend = nil
	return o, err
}

func (l *coinLedger) Watch(list ...settle.Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range list {
		if l.named[w.At] = true; !l.unspent[w.At] {
			l.searched++
		}
	}
}

func (*coinLedger) Used(context.Context, []byte) (bool, error) { panic("nobody asks") }

// again is the ledger to a process that begins anew.
func (l *coinLedger) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.unspent)
	clear(l.named)
}

func (l *coinLedger) counts() (searched, read int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.searched, l.read
}

// Outputs that strangers name are never searched for.
func TestStrangersCostNoSearch(t *testing.T) {
	l := newCoinLedger(t)
	c := open(t, l.Ledger, 0)
	w := newWatch(t, l, nil)
	w.stop()
	w.take(c.lateDeposit(1_000_000, 400))
	if searched, read := l.counts(); searched != 0 || read != 1 {
		t.Errorf("got %d searches and %d reads, want 0 and 1", searched, read)
	}
}

// Nor when the tower begins again, not even for the end of a channel that ended
// meanwhile; what is not at its end is sent in time.
func TestRestartCostsNoSearch(t *testing.T) {
	l := newCoinLedger(t)
	ended, live := open(t, l.Ledger, 0), open(t, l.Ledger, 1)
	w := newWatch(t, l, nil)
	p, q := ended.late(1_000_000, 400), live.late(1_000_000, 400)
	w.take(ended.deposit(ended.payee, p))
	w.take(live.deposit(live.payee, q))
	w.stop()
	mineTo(t, l.Ledger, lock)
	broadcast(t, l, p.Txs[0])
	l.Mine(1)
	for range 2 { // and again, with an end in the store
		l.again()
		w.crash()
		pooled(t, l.Ledger, "the other's claim", q.Txs[0])
		until(t, "end", func() bool {
			n := 0
			for _, s := range w.List() {
				if s.Watch.Ended > 0 {
					n++
				}
			}
			return n == 1
		})
	}
	l.Reorg(2) // takes the end back
	l.Mine(0)
	until(t, "both claims", func() bool { return len(l.Pool()) == 2 })
	l.Mine(1)
	until(t, "both ends", func() bool { return w.List()[0].Watch.Ended > 0 && w.List()[1].Watch.Ended > 0 })
	l.Mine(tower.RetainBlocks + tower.FinalDepth + tower.SweepBlocks)
	until(t, "oblivion", func() bool { return len(w.List()) == 0 })
	if searched, _ := l.counts(); searched != 0 {
		t.Errorf("got %d searches of the chain, want none", searched)
	}
}
