package manager_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// pacedWorld is a world whose blocks should come once a minute, at a moment at
// which the newest is ten seconds old.
func pacedWorld(t *testing.T) *world {
	t.Helper()
	n := network(t)
	n.BlockTime = time.Minute
	w := newWorldOn(t, n)
	w.catchUp()
	return w
}

// catchUp puts the clock ten seconds after the newest block.
func (w *world) catchUp() {
	w.t.Helper()
	tip, err := w.ledger.Tip(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.clock.mu.Lock()
	defer w.clock.mu.Unlock()
	w.clock.now = time.Unix(tip.Time+10, 0)
}

// mineNow adds blocks at the moment at which the newest of them is ten seconds old.
func (w *world) mineNow(n int) {
	w.clock.Add(time.Duration(n) * w.net.BlockTime) // first, so that nobody sees them earlier
	w.ledger.Mine(n)
	w.catchUp()
}

// TestStalledNode shows [SETTLE-34] and [SETTLE-35]: a node that answers, but with
// an old block, is no sight of the chain. Its height runs on by the clock, nothing
// new begins, and nothing is claimed or refunded before the chain is seen.
func TestStalledNode(t *testing.T) {
	w := pacedWorld(t)
	ctx := t.Context()
	w.mineNow(10)
	id := w.open(nil)
	if err := w.payer.m.Announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	w.mineNow(2)
	w.payee.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.payer.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.pay(id, "a", 100_000)
	height := func(s *side) uint64 { return s.until(id, "status", func(manager.Status) bool { return true }).Height }
	seen := height(w.payee)
	w.clock.Add(29 * time.Minute)
	if got := height(w.payee); got != seen {
		t.Errorf("a slow block: got height %d, want %d", got, seen)
	}
	w.clock.Add(31 * time.Minute)
	if got, want := height(w.payee), seen+3610/45; got != want {
		t.Errorf("no block for an hour: got height %d, want %d", got, want)
	}
	w.pay(id, "a", 110_000) // there is time left, whatever the chain does
	detail, err := w.payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.payer.m.Open(ctx, manager.OpenRequest{
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, LifetimeBlocks: lifetime,
	})
	if !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("a new channel: got %v, want ErrLedgerUnavailable", err)
	}

	w.clock.Add(lifetime * time.Minute) // past the expiry, as far as anyone knows
	_, err = w.payer.m.Pay(ctx, id, entry("a", 120_000))
	code(t, "pay", err, settle.ErrLate)
	code(t, "receive", w.payee.m.Receive(ctx, mustSeal(t, w, id)), settle.ErrLate)
	w.ledger.Mine(1) // the node reads on, far behind
	for _, s := range []*side{w.payer, w.payee} {
		st := s.until(id, "depth", func(s manager.Status) bool { return s.Depth == 3 })
		if st.Phase != settle.Open || st.Height < st.Params.ExpiryHeight {
			t.Errorf("%s: got %s at height %d, want open, and a height past %d", s.name, st.Phase, st.Height, st.Params.ExpiryHeight)
		}
	}
	time.Sleep(20 * time.Millisecond) // both have acted, if they do
	if n := len(w.ledger.Pool()); n != 0 {
		t.Fatalf("got %d transactions for an estimated height, want none", n)
	}

	// What is claimed by hand meanwhile pays more as the chain's own blocks come.
	first, err := w.payee.m.Claim(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	w.payer.stop()
	st := w.payee.until(id, "claim", func(s manager.Status) bool { return s.Phase == settle.Closing })
	w.ledger.Reorg(0)
	for h := seen + 3; h < st.Params.Deadline()+settle.RaiseBlocks; h++ {
		w.ledger.Reorg(0)
	}
	w.catchUp()
	w.ledger.Reorg(0)
	w.payee.until(id, "raise", func(s manager.Status) bool { tx := w.endOf(s); return tx != first && tx != [32]byte{} })
}

// storedTip waits until a block is in the store, with the time at which it was seen.
func (s *side) storedTip(height uint64) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("block %d in the store", height), func() bool {
		var tip struct {
			Height uint64 `cbor:"height"`
			Seen   int64  `cbor:"seen"`
		}
		if err := s.store.Load(s.t.Context(), "settle/tip", func(_ string, value []byte) error {
			return pktcloud.Unmarshal(value, &tip, pktcloud.MaxRecordBytes)
		}); err != nil {
			s.t.Fatal(err)
		}
		return tip.Height == height
	})
}

// TestStandsStillAcrossARestart: a side that starts again with the same old block
// does not take it for a new one, even if the block claims to be.
func TestStandsStillAcrossARestart(t *testing.T) {
	w := pacedWorld(t)
	id := w.open(nil)
	st := w.payee.until(id, "status", func(manager.Status) bool { return true })
	seen := st.Height
	w.payee.storedTip(seen)
	w.payee.stop()
	tip, err := w.ledger.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The clock is put far behind the block's time: only the first sight counts.
	w.clock.mu.Lock()
	w.clock.now = time.Unix(tip.Time-86_400, 0)
	w.clock.mu.Unlock()
	w.payee.start()
	w.mineNow(1)
	w.clock.Add(-24 * time.Hour)
	w.payee.until(id, "block", func(s manager.Status) bool { return s.Height == seen+1 })
	w.payee.storedTip(seen + 1)
	w.clock.Add(2 * time.Hour)
	w.payee.crash()
	w.payee.until(id, "estimate", func(s manager.Status) bool { return s.Height == seen+1+7200/45 })
}

// TestClaimFeeHolds shows [SETTLE-36]: a claim that every block and every node
// refuses holds at a tenth of its money for as long as there is time, and rises
// to all of it only as the refund comes near.
func TestClaimFeeHolds(t *testing.T) {
	const paid = 400_000
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", paid)
	st := w.payee.until(id, "status", func(manager.Status) bool { return true })
	p := st.Params
	step := func() {
		t.Helper()
		w.ledger.Reorg(0) // a block comes, and the mempool is forgotten
		st = w.payee.until(id, "block", func(s manager.Status) bool { return s.Height > st.Height })
		if st.Height >= p.Deadline() { // it acts at each block
			w.payee.until(id, "claim", func(manager.Status) bool { return len(w.ledger.Pool()) == 1 })
		}
	}
	ch, err := pktchain.ChannelOf(w.net, p)
	if err != nil {
		t.Fatal(err)
	}
	fee := func() pktcloud.Amount {
		t.Helper()
		end, err := ch.EndOf(w.ledger.Pool()[0])
		if err != nil {
			t.Fatal(err)
		}
		return end.Fee
	}
	for st.Height < p.ExpiryHeight-p.MarginBlocks {
		step()
	}
	if got, want := fee(), pktcloud.Amount(paid+reserve)/settle.FeeShare; got > want || got < want*9/10 {
		t.Errorf("a margin before expiry: got a fee of %d units, want about %d", uint64(got), uint64(want))
	}
	for st.Height < p.ExpiryHeight-p.MarginBlocks/2 {
		step()
	}
	if got := fee(); got < paid/2 || got > paid*2/3 {
		t.Errorf("half a margin before expiry: got a fee of %d units, want more than half of %d", uint64(got), paid)
	}
}
