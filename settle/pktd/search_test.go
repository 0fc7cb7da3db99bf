package pktd

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
)

// named is a chain of 226 blocks that pays two scripts, in blocks 126 and 226,
// and a driver that was told of them.
func named(t *testing.T) (scripts [2][]byte, chain *devnet.Chain, d *Driver, count *counter) {
	t.Helper()
	chain, d = serve(t, Config{})
	count = countBlocks(t, d)
	for i := range scripts {
		scripts[i] = append([]byte{0, 20, byte(i)}, make([]byte, 19)...)
		if _, err := chain.Faucet(t.Context(), scripts[i], 5000); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := chain.Mine(99, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.Watch(settle.Watch{Script: scripts[1], From: 150}, settle.Watch{Script: scripts[0], From: 121})
	return scripts, chain, d, count
}

func wantCoin(t *testing.T, d *Driver, script []byte, depth uint64) {
	t.Helper()
	coins, err := d.Coins(t.Context(), script)
	if err != nil || len(coins) != 1 || coins[0].Depth != depth {
		t.Fatalf("coins: got %+v, %v, want one of depth %d", coins, err, depth)
	}
}

// TestOneSearch shows [LEDGER-15]: what was named before the first question costs
// one look at each block from the lowest height on, and no question of the tip
// waits for it.
func TestOneSearch(t *testing.T) {
	scripts, _, d, count := named(t)
	if _, err := d.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count.blocks.Load(); n != 1 {
		t.Errorf("got %d blocks read for the tip, want 1", n)
	}
	wantCoin(t, d, scripts[0], 101)
	wantCoin(t, d, scripts[1], 1)
	d.Watch(settle.Watch{Script: scripts[0], From: 130}) // nothing new
	wantCoin(t, d, scripts[0], 101)
	if n := count.blocks.Load(); n != 226-121+1 {
		t.Errorf("got %d blocks read, want those from 121 to 226 once", n)
	}
	// Below the lowest height nothing is looked at; named from there, it is.
	count.blocks.Store(0)
	d.Watch(settle.Watch{Script: scripts[0], From: 111})
	wantCoin(t, d, scripts[0], 101)
	if n := count.blocks.Load(); n != 226-111+1 {
		t.Errorf("got %d blocks read for a lower height, want those from 111 to 226", n)
	}
}

// TestSearchGoesOn: a search that was interrupted loses none of its work.
func TestSearchGoesOn(t *testing.T) {
	scripts, chain, d, count := named(t)
	for _, most := range []int64{40, 80} {
		count.most.Store(most)
		if _, err := d.Coins(t.Context(), scripts[0]); !errors.Is(err, settle.ErrLedgerUnavailable) {
			t.Fatalf("interrupted: got %v, want ErrLedgerUnavailable", err)
		}
	}
	count.most.Store(0)
	wantCoin(t, d, scripts[0], 101)
	if n := count.blocks.Load(); n != 226-121+1 {
		t.Errorf("got %d blocks read, want those from 121 to 226 once", n)
	}
	// Interrupted, and the blocks it had looked at are no longer in the chain.
	count.most.Store(count.blocks.Load() + 110)
	d.Watch(settle.Watch{Script: scripts[0], From: 111})
	if _, err := d.Coins(t.Context(), scripts[0]); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Fatalf("interrupted again: got %v, want ErrLedgerUnavailable", err)
	}
	count.most.Store(0)
	if err := chain.Invalidate(20); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Mine(20, nil); err != nil {
		t.Fatal(err)
	}
	wantCoin(t, d, scripts[0], 101)
	wantCoin(t, d, scripts[1], 20)
}

// TestReorgAfterSearch: blocks that a search went through are taken back like
// those that were followed, without another search.
func TestReorgAfterSearch(t *testing.T) {
	scripts, chain, d, count := named(t)
	wantCoin(t, d, scripts[1], 1)
	count.blocks.Store(0)
	if err := chain.Invalidate(2); err != nil {
		t.Fatal(err)
	}
	wantCoin(t, d, scripts[0], 99)
	wantCoin(t, d, scripts[1], 0)
	if n := count.blocks.Load(); n != 0 {
		t.Errorf("got %d blocks read after the reorganisation, want none", n)
	}
}

// TestSearchBesideQuestions asks while the chain is searched, as a wallet does
// while a manager looks for its channels: neither waits for the other, and the
// race detector sees them.
func TestSearchBesideQuestions(t *testing.T) {
	_, _, d, _ := named(t)
	from, err := d.TipAt(t.Context(), 220)
	if err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	searched := make(chan error)
	go func() {
		var err error
		for err == nil && !over.Load() {
			_, _, err = d.Search(t.Context(), from, func([]byte) bool { return false })
		}
		searched <- err
	}()
	for i := range 60 {
		script := append([]byte{0, 20, 9, byte(i)}, make([]byte, 18)...)
		d.Watch(settle.Watch{Script: script, From: 224})
		if used, err := d.Used(t.Context(), script); used || err != nil {
			t.Fatalf("a script nobody pays: got %t, %v", used, err)
		}
	}
	over.Store(true)
	if err := <-searched; err != nil {
		t.Error(err)
	}
}

// TestAskedThenNamed: an output that a stranger named is not watched, however
// long its transaction is; once it is named for good, no search is needed to
// follow it, as old as it may be [LEDGER-14].
func TestAskedThenNamed(t *testing.T) {
	chain, d := serve(t, Config{})
	script := append([]byte{0, 20}, make([]byte, 20)...)
	txid, err := chain.Faucet(t.Context(), script, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Mine(99, nil); err != nil {
		t.Fatal(err)
	}
	count := countBlocks(t, d)
	at := settle.Outpoint{TxID: txid}
	for range 2 {
		out, err := d.Unspent(t.Context(), at)
		if err != nil || !out.Known || out.Amount != 5000 || out.Depth != 100 {
			t.Fatalf("got %+v, %v, want 5000 units, 100 deep", out, err)
		}
	}
	if d.view.WatchedPoint(wire.OutPoint{Hash: txid}) {
		t.Error("what a stranger named is watched")
	}
	count.blocks.Store(0)
	d.Watch(settle.Watch{At: at, From: 1})
	out, err := d.Output(t.Context(), at)
	if err != nil || !out.Known || out.Depth != 100 {
		t.Errorf("got %+v, %v, want the output", out, err)
	}
	if n := count.blocks.Load(); n != 0 {
		t.Errorf("got %d blocks read for an output whose block is known, want none", n)
	}
}
