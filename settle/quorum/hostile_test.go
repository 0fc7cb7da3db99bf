package quorum_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/quorum"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// paying is a transaction that nobody made, with an output for a script.
func paying(script []byte, number int) settle.TxState {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: chainhash.Hash{7}, Index: uint32(number)}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(1<<40, script))
	var raw bytes.Buffer
	_ = tx.Serialize(&raw) // a bytes.Buffer does not fail
	return settle.TxState{TxID: tx.TxHash(), Raw: raw.Bytes(), Height: 2, Time: 1}
}

// invent adds a payment to what a server tells.
func invent(c settle.Changes) settle.Changes {
	c.Txs = append(slices.Clone(c.Txs), paying([]byte{0, 20}, 1))
	return c
}

// elsewhere moves all transactions to another block.
func elsewhere(c settle.Changes) settle.Changes {
	c.Txs = slices.Clone(c.Txs)
	for i := range c.Txs {
		c.Txs[i].Height++
	}
	return c
}

func script(n byte) []byte { return append([]byte{0, 20, n}, make([]byte, 19)...) }

// TestNoLiarAloneDecides: what one of three says that the others do not say has
// no effect on an answer, whatever it is about, and is reported [LEDGER-52],
// [LEDGER-58].
func TestNoLiarAloneDecides(t *testing.T) {
	chain := twin(t)
	at := chain.Mint(script(1), 5_000)
	chain.Mine(20)
	made := settle.Coin{At: settle.Outpoint{TxID: [32]byte{7}}, Amount: 1 << 40, Script: script(1), Depth: 9}
	for _, c := range []struct {
		name string
		bad  *server
	}{
		{"an output that is none", &server{output: func(o settle.Output) settle.Output {
			if !o.Known {
				o = settle.Output{Known: true, Amount: 1 << 40, Script: script(9), Depth: 9}
			}
			return o
		}}},
		{"another amount", &server{output: func(o settle.Output) settle.Output { o.Amount++; return o }}},
		{"a coin that is none, many times", &server{coins: func(list []settle.Coin) []settle.Coin { return append(list, made, made, made) }}},
		{"no coins", &server{coins: func([]settle.Coin) []settle.Coin { return nil }}},
		{"a script's use", &server{used: func(used bool) bool { return !used }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := of(t, chain, c.bad)
			if out, err := l.Output(t.Context(), at); err != nil || out.Amount != 5_000 {
				t.Errorf("the output: got %+v, %v", out, err)
			}
			for name, ask := range map[string]func(context.Context, settle.Outpoint) (settle.Output, error){"Output": l.Output, "Unspent": l.Unspent} {
				if out, err := ask(t.Context(), settle.Outpoint{TxID: [32]byte{9}}); err != nil || out.Known {
					t.Errorf("%s of one that does not exist: got %+v, %v", name, out, err)
				}
			}
			if coins, err := l.Coins(t.Context(), script(1)); err != nil || len(coins) != 1 || coins[0].At != at {
				t.Errorf("coins: got %+v, %v", coins, err)
			}
			for n, want := range map[byte]bool{1: true, 2: false} {
				if used, err := l.Used(t.Context(), script(n)); err != nil || used != want {
					t.Errorf("used: got %t, %v, want %t", used, err, want)
				}
			}
			if tr := l.Troubles(); len(tr) != 1 || tr[0].Name != "server 1" {
				t.Errorf("troubles: got %v, want server 1", tr)
			}
		})
	}
}

// TestSlowAndLying: a liar and a slow server together do not outweigh the rest: all
// are waited for then, also who was slow before.
func TestSlowAndLying(t *testing.T) { synctest.Test(t, slowAndLying) }

func slowAndLying(t *testing.T) {
	chain := twin(t)
	at := chain.Mint(script(1), 5_000)
	chain.Mine(20)
	slow := &server{Ledger: chain, before: func(ctx context.Context) error {
		select {
		case <-time.After(2 * quorum.Grace):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	liar := &server{
		Ledger: chain, output: func(settle.Output) settle.Output { return settle.Output{} },
		coins:  func([]settle.Coin) []settle.Coin { return nil },
		tip:    func(tip settle.Tip) settle.Tip { tip.Hash[0] ^= 1; return tip },
		follow: func(c settle.Changes) settle.Changes { c.Txs = nil; return c },
	}
	l := over(t, liar, &server{Ledger: chain}, slow)
	for range 2 { // the second time the slow one is not asked at first
		if out, err := l.Output(t.Context(), at); err != nil || !out.Known {
			t.Errorf("output: got %+v, %v", out, err)
		}
	}
	if coins, err := l.Coins(t.Context(), script(1)); err != nil || len(coins) != 1 {
		t.Errorf("coins: got %+v, %v", coins, err)
	}
	if tip, err := l.Tip(t.Context()); err != nil || tip.Height != 22 {
		t.Errorf("tip: got %+v, %v", tip, err)
	}
	if c, err := l.Follow(t.Context(), 0, [][]byte{script(1)}); err != nil || len(c.Txs) != 1 {
		t.Errorf("follow: got %+v, %v", c, err)
	}
}

// TestTipBelowALiar: where an honest server lags, the block below counts which
// both honest ones have, not the liar's.
func TestTipBelowALiar(t *testing.T) {
	low, high := twin(t), twin(t)
	low.Mine(7)
	high.Mine(8)
	fork := func(tip settle.Tip) settle.Tip { tip.Hash[0] ^= 1; return tip }
	l := over(t, &server{Ledger: low}, &server{Ledger: high, tip: fork}, &server{Ledger: high})
	want, _ := low.Tip(t.Context())
	if tip, err := l.Tip(t.Context()); err != nil || tip != want {
		t.Errorf("got %+v, %v, want %+v", tip, err, want)
	}
	if _, end, err := l.Search(t.Context(), settle.Tip{}, func([]byte) bool { return false }); err != nil || end != want {
		t.Errorf("end of a search: got %+v, %v, want %+v", end, err, want)
	}
}

// TestSpendsBytes: of the bytes for one spend those count whose signatures are
// good, whoever is heard first.
func TestSpendsBytes(t *testing.T) {
	chain := twin(t)
	n, _ := pktchain.NetworkOf("pkt-devnet")
	w := settletest.NewWallet(n, chain, "w")
	own, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := chain.Mint(own, 50_000)
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: own, Amount: 40_000}}, 1_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Broadcast(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{[]byte("nothing"), append(raw[:len(raw)-10:len(raw)-10], make([]byte, 10)...)} {
		mangle := &server{Ledger: chain, output: func(o settle.Output) settle.Output {
			if o.Spend != nil {
				o.Spend = &settle.Spend{TxID: o.Spend.TxID, Raw: bad}
			}
			return o
		}}
		for i, l := range []*quorum.Ledger{over(t, mangle, &server{Ledger: chain}, &server{Ledger: chain}), over(t, &server{Ledger: chain}, mangle)} {
			if out, err := l.Output(t.Context(), at); err != nil || out.Spend == nil || !bytes.Equal(out.Spend.Raw, raw) {
				t.Errorf("%d: got %+v, %v, want the spend's own bytes", i, out.Spend, err)
			}
		}
	}
}

// TestMedianOfTwo: with one server away, the other cannot drive the fee up.
func TestMedianOfTwo(t *testing.T) {
	chain := twin(t)
	chain.SetFeeRate(5_000)
	l := over(t, &server{Ledger: chain}, &server{Ledger: chain, rate: 1 << 50}, &server{Ledger: chain, before: func(context.Context) error { return settle.ErrLedgerUnavailable }})
	if rate, err := l.FeeRate(t.Context()); err != nil || rate != 5_000 {
		t.Errorf("got %d, %v; want 5000", uint64(rate), err)
	}
}

// TestSearchIsNotShared: the caller's test of scripts runs in one goroutine at a
// time, and none after the search has returned.
func TestSearchIsNotShared(t *testing.T) {
	chain := twin(t)
	chain.Mint(script(1), 5_000)
	release, done := make(chan struct{}), make(chan struct{})
	late := &server{Ledger: chain, before: func(context.Context) error { <-release; return nil }}
	l := over(t, &server{Ledger: chain}, &server{Ledger: chain}, &watched{server: late, done: done})
	calls, over := 0, false // unguarded: the race detector looks on
	found, _, err := l.Search(t.Context(), settle.Tip{}, func([]byte) bool {
		if calls++; over {
			t.Error("called after the search")
		}
		return true
	})
	over = true
	close(release)
	<-done
	if err != nil || len(found) != 1 || calls != 2 {
		t.Errorf("got %d found in %d calls, %v, want one of two servers", len(found), calls, err)
	}
}

// watched tells when a search has ended.
type watched struct {
	*server
	done chan struct{}
}

func (w *watched) Search(_ context.Context, after settle.Tip, match func([]byte) bool) ([]settle.Found, settle.Tip, error) {
	defer close(w.done)
	return w.server.Search(context.Background(), after, match)
}

// TestNothingChangesUnderASilence: servers that are silent, fail or lie make an
// error that says so, and the next answer is as if nothing had been.
func TestNothingChangesUnderASilence(t *testing.T) {
	chain := twin(t)
	var bad atomic.Bool
	moody := func() *server {
		return &server{Ledger: chain, before: func(context.Context) error {
			if bad.Load() {
				return fmt.Errorf("%w: a bad day", settle.ErrLedgerUnavailable)
			}
			return nil
		}}
	}
	l := over(t, moody(), moody(), &server{Ledger: chain})
	at := chain.Mint(script(1), 5_000)
	began, err := l.Follow(t.Context(), 0, [][]byte{script(1)})
	if err != nil || len(began.Txs) != 1 {
		t.Fatalf("got %+v, %v", began, err)
	}
	bad.Store(true)
	second := chain.Mint(script(1), 6_000)
	_, tip := l.Tip(t.Context())
	_, output := l.Output(t.Context(), at)
	_, coins := l.Coins(t.Context(), script(1))
	_, used := l.Used(t.Context(), script(1))
	_, follow := l.Follow(t.Context(), began.Next, nil)
	_, rate := l.FeeRate(t.Context())
	_, _, search := l.Search(t.Context(), settle.Tip{}, func([]byte) bool { return false })
	send := l.Broadcast(t.Context(), []byte("nothing"))
	for name, err := range map[string]error{
		"Tip": tip, "Output": output, "Coins": coins, "Used": used, "Follow": follow, "FeeRate": rate, "Search": search, "Broadcast": send,
	} {
		if !errors.Is(err, settle.ErrLedgerUnavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
	bad.Store(false)
	next, err := l.Follow(t.Context(), began.Next, nil)
	if err != nil || len(next.Txs) != 1 || next.Txs[0].TxID != second.TxID {
		t.Errorf("afterwards: got %+v, %v, want the second payment alone", next, err)
	}
	if tr := l.Troubles(); len(tr) != 0 {
		t.Errorf("afterwards: troubles with %v, want none", tr)
	}
}

func txidOf(raw []byte) [32]byte {
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		panic(err) // of the test itself
	}
	return tx.TxHash()
}

// teller tells of blocks.
type teller struct {
	*server
	told chan struct{}
}

func (s *teller) Announced() <-chan struct{} { return s.told }

// TestWaitTipIsTold: one server that tells of a block is enough to ask all; it
// alone does not make one.
func TestWaitTipIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain := twin(t)
		first := &teller{&server{Ledger: chain}, make(chan struct{})}
		l, err := quorum.New([]quorum.Member{
			{Name: "a", Server: first}, {Name: "b", Server: &server{Ledger: chain}},
		}, quorum.Config{PollInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		last, err := l.Tip(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		came := make(chan error, 1)
		go func() {
			_, err := l.WaitTip(t.Context(), last)
			came <- err
		}()
		synctest.Wait()
		chain.Mine(1)
		close(first.told)
		if err := <-came; err != nil || time.Since(began) > time.Minute {
			t.Errorf("got %v after %v, want the block at once", err, time.Since(began))
		}
	})
}
