package manager_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"pgregory.net/rapid"
)

// requests are for n channels to the payee, of different sizes and limits.
func (w *world) requests(n int) []manager.OpenRequest {
	w.t.Helper()
	detail, err := w.payee.m.PayeeDetail(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var rs []manager.OpenRequest
	for i := range n {
		rs = append(rs, manager.OpenRequest{
			Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity/8 + pktcloud.Amount(i)*10_000,
			Unconfirmed: pktcloud.Amount(i) * 10_000, MinDepth: 1 + uint64(i), LifetimeBlocks: lifetime,
		})
	}
	return rs
}

// openMany opens n channels with one transaction, which both sides have.
func (w *world) openMany(n int) (ids []pktcloud.ID, funding []byte) {
	w.t.Helper()
	ctx := context.Background()
	params, funding, err := w.payer.m.OpenMany(ctx, w.requests(n)...)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range params {
		id, err := w.payee.m.Accept(ctx, p, funding)
		if err != nil {
			w.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids, funding
}

// TestOpenMany: channels of one transaction are announced together, are paid and
// end each by itself, and have each its own limits.
func TestOpenMany(t *testing.T) {
	w := newWorld(t)
	ids, funding := w.openMany(3)
	for i, id := range ids { // before a block: each up to its own limit
		limit := pktcloud.Amount(i) * 10_000
		if limit > 0 {
			w.pay(id, "a", limit)
		}
		_, err := w.payer.m.Pay(t.Context(), id, entry("a", limit+1))
		code(t, fmt.Sprintf("beyond the limit of channel %d", i), err, settle.ErrUnconfirmed)
	}
	if err := w.payer.m.Announce(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	w.payer.crash() // and all are announced
	for _, id := range ids {
		st, err := w.payer.m.Status(t.Context(), id)
		if err != nil || !st.Announced {
			t.Fatalf("after a crash: announced %v, %v", st.Announced, err)
		}
		code(t, "to abandon", w.payer.m.Abandon(t.Context(), id), settle.ErrClosed)
	}
	if n := len(w.ledger.Pool()); n != 1 || !bytes.Equal(w.ledger.Pool()[0], funding) {
		t.Fatalf("got %d transactions in the mempool, want the funding", n)
	}
	w.ledger.Mine(3)
	for i, id := range ids {
		for _, s := range []*side{w.payer, w.payee} {
			s.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open && s.Params.MinDepth == uint64(i)+1 })
		}
		w.pay(id, "a", 100_000+pktcloud.Amount(i))
	}
	// One closes, one is claimed, one is left to its refund.
	offer, err := w.payer.m.OfferClose(t.Context(), ids[0], 100_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.payee.m.CompleteClose(t.Context(), ids[0], offer); err != nil {
		t.Fatal(err)
	}
	if _, err := w.payee.m.Claim(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(3)
	for i, want := range []settle.Phase{settle.Closed, settle.Closed, settle.Open} {
		w.payer.until(ids[i], want.String(), func(s manager.Status) bool { return s.Phase == want })
	}
	w.payee.stop()
	w.ledger.Mine(lifetime)
	eventually(t, "the refund", func() bool { return len(w.ledger.Pool()) == 1 })
	w.ledger.Mine(3)
	w.payer.until(ids[2], "refunded", func(s manager.Status) bool { return s.Phase == settle.Refunded })
}

// TestOpenManyRefuses: what no single note brings back is not opened, and costs
// nothing.
func TestOpenManyRefuses(t *testing.T) {
	w := newWorld(t)
	other := detailOf(t, w.payee)
	for name, change := range map[string]func(rs []manager.OpenRequest) []manager.OpenRequest{
		"none":             func([]manager.OpenRequest) []manager.OpenRequest { return nil },
		"too many":         func([]manager.OpenRequest) []manager.OpenRequest { return w.requests(pktchain.MaxRun + 1) },
		"another payee":    func(rs []manager.OpenRequest) []manager.OpenRequest { rs[1].Payee = keyOf(5); return rs },
		"another quote":    func(rs []manager.OpenRequest) []manager.OpenRequest { rs[1].PayeeDetail = other; return rs },
		"another lifetime": func(rs []manager.OpenRequest) []manager.OpenRequest { rs[1].LifetimeBlocks++; return rs },
	} {
		_, _, err := w.payer.m.OpenMany(t.Context(), change(w.requests(2))...)
		code(t, name, err, settle.ErrParams)
	}
	rs := w.requests(2)
	rs[1].Capacity, rs[1].Unconfirmed = 294+200, 0 // no claim of 200 units is worth its fee
	w.payer.stop()
	w.payer.cfg.Reserve = 0
	w.payer.start()
	_, _, err := w.payer.m.OpenMany(t.Context(), rs...)
	code(t, "dust", err, settle.ErrDust)
	if n := len(w.payer.m.List()); n != 0 {
		t.Errorf("got %d channels, want none", n)
	}
}

func keyOf(b byte) pktcloud.PublicKey { return pktcloud.NewPrivateKey([32]byte{b}).Public() }

// TestOpenManyThroughCrashes: a machine that dies at any write of an opening has
// all channels or none, and nothing is on the chain; abandoned, the coins are
// free.
func TestOpenManyThroughCrashes(t *testing.T) {
	for at := 1; at <= 5; at++ {
		for _, after := range []bool{false, true} {
			w := newWorld(t)
			whole := w.balance(w.payer)
			rs := w.requests(3)
			w.payer.stop() // by hand from here: the machine does nothing else
			m, err := manager.New(t.Context(), w.payer.cfg)
			if err != nil {
				t.Fatal(err)
			}
			dead := w.payer.store.DieAt(at, after)
			params, _, err := m.OpenMany(t.Context(), rs...)
			if !dead() && err != nil {
				t.Fatal(err)
			}
			if err == nil {
				id, _ := params[2].ID()
				if err := m.Abandon(t.Context(), id); err != nil && !dead() {
					t.Fatal(err)
				}
			}
			w.payer.crash()
			phases := map[settle.Phase]int{}
			for _, s := range w.payer.m.List() {
				phases[s.Phase]++
			}
			open, gone := phases[settle.Opening], phases[settle.Abandoned]
			if open != 0 && open != 3 || gone != 0 && gone != 3 || open+gone > 3 {
				t.Fatalf("died at write %d (after it: %v): %d channels open, %d abandoned, want all or none", at, after, open, gone)
			}
			if len(w.ledger.Pool()) != 0 {
				t.Fatal("a funding that nobody announced is on its way")
			}
			ids, err := w.payer.m.Unannounced(t.Context())
			if err != nil || len(ids) != open {
				t.Fatalf("got %d channels to abandon, %v, want %d", len(ids), err, open)
			}
			for _, id := range ids { // the first takes the others along
				if err := w.payer.m.Abandon(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.balance(w.payer); got != whole {
				t.Errorf("died at write %d: %d units are free, want %d", at, got, whole)
			}
		}
	}
}

// TestRestoreMany: from the phrase alone, each channel of a transaction is
// found, also after a restart, and refunded; no index of theirs is used again.
func TestRestoreMany(t *testing.T) {
	w := newWorld(t)
	ids, _ := w.openMany(4)
	if err := w.payer.m.Announce(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(4)
	w.payee.until(ids[3], "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.settled()
	w.payer.stop()
	n := w.anew(w.payer)
	found := n.found(t, 5)
	n.crash()
	again := n.found(t, 5)
	seen := map[settle.Outpoint]pktcloud.Amount{}
	for _, r := range append(found, again...) {
		seen[r.Funding] = r.Capacity
	}
	if len(seen) != 5 {
		t.Fatalf("got %d channels, want 5: %v", len(seen), seen)
	}
	detail := detailOf(t, w.payee)
	script, err := n.wallet.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ledger.Mint(script, 30_000_000)
	_, funding, err := n.m.Open(t.Context(), manager.OpenRequest{
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, MinDepth: 1, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := indexOf(t, n, funding); got != 5 {
		t.Errorf("a new channel has the index %d, want 5: 0 to 4 are used", got)
	}
	w.payee.stop()
	w.ledger.Mine(lifetime)
	eventually(t, "five refunds", func() bool { return len(w.ledger.Pool()) == 5 })
}

// TestDepthByAmount: the more money, the deeper the payee wants its funding.
func TestDepthByAmount(t *testing.T) {
	w := newWorld(t)
	w.payee.stop()
	w.payee.cfg.Depth = settle.Depths{Least: 1, Step: 2_000_000}
	w.payee.start()
	for _, c := range []struct {
		capacity pktcloud.Amount
		depth    uint64
		want     error
	}{
		{1_999_999, 0, settle.ErrParams},
		{1_999_999, 1, nil},
		{2_000_000, 1, settle.ErrParams},
		{2_000_000, 2, nil},
		{9_999_999, 4, settle.ErrParams},
		{9_999_999, 5, nil},
	} {
		params, funding, err := w.payer.m.Open(t.Context(), manager.OpenRequest{
			Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detailOf(t, w.payee), Capacity: c.capacity, MinDepth: c.depth, LifetimeBlocks: lifetime,
		})
		if err != nil {
			t.Fatal(err)
		}
		id, err := w.payee.m.Accept(t.Context(), params, funding)
		if !errors.Is(err, c.want) {
			t.Errorf("%d units at a depth of %d: got %v, want %v", uint64(c.capacity), c.depth, err, c.want)
		}
		if id, e := params.ID(); e != nil || w.payer.m.Abandon(t.Context(), id) != nil {
			t.Fatal("not abandoned")
		}
		if err != nil {
			continue
		}
		if _, err = w.payee.m.Status(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// TestAbandonedAgain: a channel that is abandoned once more, as after a restart of
// the lease that wanted it, does not free coins that another one has by now.
func TestAbandonedAgain(t *testing.T) {
	w := newWorld(t)
	open := func() (pktcloud.ID, []byte) {
		r := w.requests(1)[0]
		r.Capacity = 25_000_000 // one coin each
		p, funding, err := w.payer.m.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		id, err := p.ID()
		if err != nil {
			t.Fatal(err)
		}
		return id, funding
	}
	first, _ := open()
	if err := w.payer.m.Abandon(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second, _ := open()
	third, _ := open()
	if err := w.payer.m.Abandon(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if n := w.payer.wallet.Reserved(); n != 2 {
		t.Errorf("got %d coins reserved for two channels, want 2", n)
	}
	for _, id := range []pktcloud.ID{second, third} {
		if err := w.payer.m.Announce(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// TestManyModel opens random runs, announces or abandons them, crashes the payer
// in between, and looks at the whole: what one transaction funds shares its fate
// until it is on the chain, and not one unit is lost after all is refunded.
func TestManyModel(t *testing.T) {
	n := network(t)
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue { // each history searches a chain
		if err := f.Value.Set("12"); err != nil {
			t.Fatal(err)
		}
		defer f.Value.Set(f.DefValue)
	}
	rapid.Check(t, func(t *rapid.T) {
		m := newLife(t, n, newCensus())
		type run struct {
			ids       []pktcloud.ID
			announced bool
			abandoned bool
		}
		var runs []*run
		ctx := context.Background()
		for _, c := range m.channels {
			runs = append(runs, &run{ids: []pktcloud.ID{c.id}, announced: true})
			m.must(m.payer.m.Announce(ctx, c.id))
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				detail, err := m.payee.m.PayeeDetail(ctx)
				m.must(err)
				var rs []manager.OpenRequest
				for range rapid.IntRange(1, 5).Draw(t, "channels") {
					rs = append(rs, manager.OpenRequest{
						Payee: m.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, MinDepth: machineDepth, LifetimeBlocks: 60,
						Capacity: pktcloud.Amount(rapid.IntRange(100_000, 1_000_000).Draw(t, "capacity")),
					})
				}
				params, funding, err := m.payer.m.OpenMany(ctx, rs...)
				if errors.Is(err, settletest.ErrFunds) {
					t.Skip("no coins")
				}
				m.must(err)
				r := &run{}
				for _, p := range params {
					id, err := m.payee.m.Accept(ctx, p, funding)
					m.must(err)
					r.ids = append(r.ids, id)
				}
				runs = append(runs, r)
			},
			"announce": func(t *rapid.T) {
				r := rapid.SampledFrom(runs).Draw(t, "run")
				err := m.payer.m.Announce(ctx, rapid.SampledFrom(r.ids).Draw(t, "channel"))
				if (err == nil) == r.abandoned {
					t.Fatalf("abandoned %v, got %v", r.abandoned, err)
				}
				r.announced = r.announced || !r.abandoned
			},
			"abandon": func(t *rapid.T) {
				r := rapid.SampledFrom(runs).Draw(t, "run")
				err := m.payer.m.Abandon(ctx, rapid.SampledFrom(r.ids).Draw(t, "channel"))
				if (err == nil) == r.announced {
					t.Fatalf("announced %v, got %v", r.announced, err)
				}
				r.abandoned = r.abandoned || !r.announced
			},
			"block": func(*rapid.T) { m.t = t; m.mined(1, 0) },
			"crash": func(*rapid.T) { m.t = t; m.restart(m.payer) },
			"": func(t *rapid.T) {
				for _, r := range runs {
					for _, id := range r.ids {
						st, err := m.payer.m.Status(ctx, id)
						m.must(err)
						if st.Announced != r.announced || (st.Phase == settle.Abandoned) != r.abandoned {
							t.Fatalf("a channel of a run (announced %v, abandoned %v) is %s, announced %v", r.announced, r.abandoned, st.Phase, st.Announced)
						}
					}
				}
			},
		})
		m.mined(4, 0) // what was announced is mined, deep enough to be final
		m.mined(4, 0)
		found := m.actor(n, "payer") // the phrase alone
		found.store = settletest.NewStore()
		found.cfg.Store = found.store
		m.start(found)
		stop, cancel := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- found.m.Run(stop) }()
		defer func() { cancel(); m.must(<-done) }()
		want := 0
		for _, r := range runs {
			if r.announced {
				want += len(r.ids)
			}
		}
		for searched := false; !searched; _, searched = found.m.Searched() {
			time.Sleep(time.Millisecond)
		}
		if got := len(found.m.Restored()); got != want {
			t.Fatalf("the phrase found %d channels, want %d", got, want)
		}
	})
}
