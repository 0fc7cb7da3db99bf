package pktd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
)

// patience is for what should take a moment.
const patience = 2 * time.Minute

// searching is a driver whose search for a script, in block 126 of 226, waits
// for a block. What the one that asks for it is told comes over the channel.
func searching(t *testing.T) (chain *devnet.Chain, d *Driver, count *counter, script []byte, told chan error) {
	t.Helper()
	scripts, chain, d, count := named(t)
	d.naming.Lock()
	d.named = nil
	d.naming.Unlock()
	d.Watch(settle.Watch{Script: scripts[1], From: 225})
	wantCoin(t, d, scripts[1], 1) // searched for before
	count.blocks.Store(0)
	count.holdAt.Store(30)
	told = make(chan error, 1)
	d.Watch(settle.Watch{Script: scripts[0], From: 121})
	go func() {
		coins, err := d.Coins(context.Background(), scripts[0])
		if err == nil && len(coins) != 1 {
			err = fmt.Errorf("got %d coins, want 1", len(coins))
		}
		told <- err
	}()
	select {
	case <-count.held:
	case <-time.After(patience):
		t.Fatal("nothing is searched")
	}
	return chain, d, count, scripts[0], told
}

// TestAnswersBesideASearch shows [LEDGER-48]: a search that takes its time keeps
// nobody waiting who does not need it, and tells how far it is.
func TestAnswersBesideASearch(t *testing.T) {
	chain, d, count, script, told := searching(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tip, err := d.Tip(ctx)
	if err != nil || tip.Height != 226 {
		t.Fatalf("tip: got %+v, %v, want block 226", tip, err)
	}
	if _, err := chain.Mine(3, nil); err != nil {
		t.Fatal(err)
	}
	if tip, err = d.WaitTip(ctx, tip); err != nil || tip.Height != 229 {
		t.Errorf("new tip: got %+v, %v, want block 229", tip, err)
	}
	other := append([]byte{0, 20, 1}, make([]byte, 19)...)
	if coins, err := d.Coins(ctx, other); err != nil || len(coins) != 1 || coins[0].Depth != 4 {
		t.Errorf("coins that were searched for: got %+v, %v, want one of depth 4", coins, err)
	} else if out, err := d.Output(ctx, coins[0].At); err != nil || out.Depth != 4 {
		t.Errorf("such an output: got %+v, %v, want depth 4", out, err)
	} else if out, err := d.Unspent(ctx, coins[0].At); err != nil || out.Depth != 4 {
		t.Errorf("an unspent output: got %+v, %v, want depth 4", out, err)
	}
	if err := d.Broadcast(ctx, []byte("nothing")); !errors.Is(err, settle.ErrRejected) {
		t.Errorf("broadcast: got %v, want ErrRejected", err)
	}
	if c, err := d.Follow(ctx, 0, [][]byte{other}); err != nil || len(c.Txs) != 1 {
		t.Errorf("follow what was searched for: got %+v, %v, want one transaction", c, err)
	}

	// Who needs the search learns how far it is when the time ends.
	err = briefly(t, func(brief context.Context) error {
		_, err := d.Coins(brief, script)
		return err
	})
	var far *settle.Searching
	if !errors.As(err, &far) || !errors.Is(err, settle.ErrLedgerUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("no time for the search: got %v, want settle.Searching, unavailable", err)
	}
	if far.Next <= 121 || far.Next >= 226 || far.End != 226 {
		t.Errorf("no time for the search: got block %d of %d, want one within 121 and 226", far.Next, far.End)
	}

	close(count.release)
	if err := <-told; err != nil {
		t.Error(err)
	}
	wantCoin(t, d, script, 104)
	// The block of the tip was read before; three came meanwhile.
	if n := count.blocks.Load(); n > 226-121+1+3 {
		t.Errorf("got %d blocks read, want each one once", n)
	}
}

// briefly gives a call a moment, and more where even what comes before the
// search took longer.
func briefly(t *testing.T, call func(ctx context.Context) error) error {
	t.Helper()
	for d := 20 * time.Millisecond; ; d *= 2 {
		ctx, end := context.WithTimeout(t.Context(), d)
		err := call(ctx)
		end()
		if d > time.Minute || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, settle.ErrLedgerUnavailable) {
			return err
		}
	}
}

// TestOutputOfASearch: a coin that the search came upon already is not told
// before it was looked for its spend.
func TestOutputOfASearch(t *testing.T) {
	_, d, count, script, told := searching(t)
	var at settle.Outpoint
	if err := d.mu.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range d.view.Coins(script) {
		at = c.At
	}
	d.mu.leave()
	if at == (settle.Outpoint{}) {
		t.Fatal("the search has not come upon the coin")
	}
	var out settle.Output
	err := briefly(t, func(brief context.Context) (err error) {
		out, err = d.Output(brief, at)
		return err
	})
	if !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("got %+v, %v before the search ended, want unavailable", out, err)
	}
	close(count.release)
	if err := <-told; err != nil {
		t.Error(err)
	}
	if out, err := d.Output(t.Context(), at); err != nil || out.Depth != 101 {
		t.Errorf("got %+v, %v, want an output of depth 101", out, err)
	}
}

// TestReorgUnderASearch: while a search goes on, blocks are taken back that it
// has yet to look at, that it looked at, and that came meanwhile.
func TestReorgUnderASearch(t *testing.T) {
	for _, c := range []struct {
		name      string
		mine      int // before blocks are taken back
		back, new int
		depth     uint64
	}{
		{"blocks that came meanwhile", 5, 3, 4, 107},
		{"all that came, and the one that the view began with", 5, 6, 7, 107},
		{"blocks yet to look at", 0, 50, 51, 102},
		{"blocks looked at", 0, 90, 91, 102},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, d, count, script, told := searching(t)
			if _, err := chain.Mine(c.mine, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Tip(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := chain.Invalidate(c.back); err != nil {
				t.Fatal(err)
			}
			if _, err := chain.Mine(c.new, nil); err != nil {
				t.Fatal(err)
			}
			if c.mine > 0 { // seen before the search ends
				if _, err := d.Tip(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			close(count.release)
			if err := <-told; err != nil {
				t.Fatal(err)
			}
			wantCoin(t, d, script, c.depth)
			out, err := d.Follow(t.Context(), 0, [][]byte{script})
			if err != nil || len(out.Txs) != 1 || out.Tip.Height != out.Txs[0].Height+c.depth-1 {
				t.Errorf("followed: got %+v, %v, want the transaction at depth %d", out, err, c.depth)
			}
		})
	}
}

// TestFailureIsShared: those that wait behind a question to a node that does not
// answer are told so with it, and do not ask one after the other.
func TestFailureIsShared(t *testing.T) {
	d, err := New(Config{URL: "http://127.0.0.1:1", User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.mu.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := make(chan error)
	go func() {
		_, err := d.Tip(context.Background())
		told <- err
	}()
	brief, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.Tip(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for another's question: got %v, want the context's error", err)
	}
	mark := fmt.Errorf("%w: marked", settle.ErrLedgerUnavailable)
	d.failed, d.failure = time.Now().Add(time.Hour), mark
	d.mu.leave()
	if err := <-told; !errors.Is(err, mark) {
		t.Errorf("got %v, want the failure of the one before", err)
	}
}
