package manager_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// TestCrashAtEveryWrite kills one side at its nth write, for every n of a whole
// life, and lets both go on: the payee gets exactly what was agreed, and no
// voucher that was acknowledged is lost.
func TestCrashAtEveryWrite(t *testing.T) {
	for _, role := range []settle.Role{settle.Payer, settle.Payee} {
		for _, after := range []bool{false, true} {
			for n := 1; ; n++ {
				if hit := crashingLife(t, role, n, after); !hit {
					t.Logf("%s, after the write %v: %d writes", role, after, n-1)
					if n < 8 {
						t.Errorf("%s: got a life of %d writes, want more", role, n-1)
					}
					break
				}
			}
		}
	}
}

// crashingLife runs a channel's life, with a crash at a side's nth write, and
// reports whether it came to that.
func crashingLife(t *testing.T, role settle.Role, n int, after bool) bool {
	t.Helper()
	w := newWorld(t)
	ctx := t.Context()
	victim := w.payer
	if role == settle.Payee {
		victim = w.payee
	}
	defer w.payer.stop()
	defer w.payee.stop()
	dead := victim.store.DieAt(n, after)
	// do repeats a step over a crash of the victim.
	do := func(what string, step func() error) {
		t.Helper()
		err := step()
		for tries := 0; errors.Is(err, settletest.ErrStore) && tries < 3; tries++ {
			victim.crash()
			err = step()
		}
		if err != nil {
			t.Fatalf("%s write %d, after it %v: %s: %v", role, n, after, what, err)
		}
	}
	var detail, funding []byte
	var params settle.Params
	var id pktcloud.ID
	var err error
	do("payee detail", func() error { detail, err = w.payee.m.PayeeDetail(ctx); return err })
	do("open", func() error {
		params, funding, err = w.payer.m.Open(ctx, manager.OpenRequest{
			Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity,
			Unconfirmed: 50_000, MinDepth: 1, LifetimeBlocks: lifetime,
		})
		return err
	})
	do("accept", func() error { id, err = w.payee.m.Accept(ctx, params, funding); return err })
	do("announce", func() error { return w.payee.m.Announce(ctx, id) })
	do("announce again", func() error { return w.payer.m.Announce(ctx, id) })
	for sum := pktcloud.Amount(10_000); sum <= 40_000; sum += 10_000 {
		var v pktcloud.Signed[settle.Voucher]
		do("pay", func() error { v, err = w.payer.m.Pay(ctx, id, entry("a", sum)); return err })
		do("receive", func() error { return w.payee.m.Receive(ctx, v) })
		if dead() && sum == 20_000 {
			victim.crash()
		}
		if latest, _ := w.payee.m.Latest(id); latest.Body.Total != sum {
			t.Errorf("%s write %d: the payee holds %d units after acknowledging %d", role, n, uint64(latest.Body.Total), uint64(sum))
		}
	}
	var offer settle.CloseOffer
	do("offer close", func() error { offer, err = w.payer.m.OfferClose(ctx, id, 42_000); return err })
	do("complete close", func() error { _, err = w.payee.m.CompleteClose(ctx, id, offer); return err })
	w.ledger.Mine(1)
	restarted := false
	for _, s := range []*side{w.payer, w.payee} {
		st := s.until(id, "closed", func(st manager.Status) bool {
			if dead() && !restarted { // Run met the write
				restarted = true
				victim.crash()
			}
			return st.Phase == settle.Closed
		})
		if st.Settled != 42_000 {
			t.Errorf("%s write %d: %s sees %d units settled, want 42000", role, n, s.name, uint64(st.Settled))
		}
	}
	if got := w.balance(w.payee); got != 42_000 {
		t.Errorf("%s write %d: the payee has %d units, want 42000", role, n, uint64(got))
	}
	return dead()
}

// A payer that died between opening a channel and using it finds the channel
// again, and its coins once it abandons it.
func TestUnannouncedAfterCrash(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.open(nil)
	w.payer.crash()
	ids, err := w.payer.m.Unannounced(ctx)
	if err != nil || !slices.Equal(ids, []pktcloud.ID{id}) {
		t.Fatalf("unannounced: got %v, %v, want the channel", ids, err)
	}
	if err := w.payer.m.Abandon(ctx, id); err != nil {
		t.Fatal(err)
	}
	if ids, err := w.payer.m.Unannounced(ctx); err != nil || len(ids) != 0 {
		t.Errorf("after abandoning it: got %v, %v, want none", ids, err)
	}
	if err := w.payer.m.Announce(ctx, w.open(nil)); err != nil {
		t.Fatal(err)
	}
	if ids, err := w.payer.m.Unannounced(ctx); err != nil || len(ids) != 0 {
		t.Errorf("with an announced channel: got %v, %v, want none", ids, err)
	}
}

// TestLifeOnDevnet runs a close before the funding is mined, a claim at will and
// a claim by the deadline over btcd's consensus and mempool, with real wallets.
func TestLifeOnDevnet(t *testing.T) {
	ctx := t.Context()
	chain, err := devnet.Open(t.TempDir(), devnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Close()
	n := network(t)
	wallets := map[string]*wallet.Wallet{}
	begin := func(name string, device byte) *manager.Manager {
		w, err := wallet.Open(ctx, seedOf(name), wallet.Config{Network: n, Ledger: chain, Store: settletest.NewStore()})
		if err != nil {
			t.Fatal(err)
		}
		wallets[name] = w
		keys, err := pktchain.NewKeychain(n, seedOf(name))
		if err != nil {
			t.Fatal(err)
		}
		m, err := manager.New(ctx, manager.Config{
			Network: n, Ledger: chain, Store: settletest.NewStore(), Wallet: w, Keychain: keys,
			DeviceKey: pktcloud.NewPrivateKey([32]byte{device}), Reserve: reserve,
		})
		if err != nil {
			t.Fatal(err)
		}
		run, cancel := context.WithCancel(ctx)
		var wait sync.WaitGroup
		wait.Go(func() { _ = m.Run(run) })
		t.Cleanup(func() { cancel(); wait.Wait() })
		return m
	}
	payer, payee := begin("payer", 1), begin("payee", 2)
	script, err := wallets["payer"].ReceiveScript(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := chain.Faucet(ctx, script, 20_000_000); err != nil {
			t.Fatal(err)
		}
	}
	mine := func(blocks int) {
		t.Helper()
		if _, err := chain.Mine(blocks, nil); err != nil {
			t.Fatal(err)
		}
	}
	open := func() pktcloud.ID {
		detail, err := payee.PayeeDetail(ctx)
		if err != nil {
			t.Fatal(err)
		}
		params, funding, err := payer.Open(ctx, manager.OpenRequest{
			Payee: pktcloud.NewPrivateKey([32]byte{2}).Public(), PayeeDetail: detail, Capacity: capacity,
			Unconfirmed: 50_000, MinDepth: 1, LifetimeBlocks: 400,
		})
		if err != nil {
			t.Fatal(err)
		}
		id, err := payee.Accept(ctx, params, funding)
		if err != nil {
			t.Fatal(err)
		}
		if err := payee.Announce(ctx, id); err != nil {
			t.Fatal(err)
		}
		v, err := payer.Pay(ctx, id, entry("lease", 40_000))
		if err != nil {
			t.Fatal(err)
		}
		if err := payee.Receive(ctx, v); err != nil {
			t.Fatal(err)
		}
		return id
	}
	until := func(m *manager.Manager, id pktcloud.ID, phase settle.Phase) manager.Status {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if st, err := m.Status(ctx, id); err == nil && st.Phase == phase {
				return st
			}
		}
		st, err := m.Status(ctx, id)
		t.Fatalf("got %s at height %d, %v; want %s", st.Phase, st.Height, err, phase)
		return st
	}

	closed, claimed, late := open(), open(), open()
	offer, err := payer.OfferClose(ctx, closed, 45_000) // the funding is not mined yet
	if err != nil {
		t.Fatal(err)
	}
	if _, err := payee.CompleteClose(ctx, closed, offer); err != nil {
		t.Fatal(err)
	}
	mine(1)
	if st := until(payee, closed, settle.Closed); st.Settled != 45_000 {
		t.Errorf("close: got %d units, want 45000", uint64(st.Settled))
	}
	if _, err := payee.Claim(ctx, claimed); err != nil {
		t.Fatal(err)
	}
	mine(1)
	st := until(payer, claimed, settle.Closed)
	if st.Settled < 40_000+reserve-1_000 || st.Settled >= 40_000+reserve {
		t.Errorf("claim: got %d units, want 40000 and the reserve less a small fee", uint64(st.Settled))
	}
	// The third is claimed by the payee's deadline, by itself.
	st = until(payee, late, settle.Open)
	mine(int(st.Params.Deadline() - st.Height))
	terms, err := pktchain.ChannelOf(n, st.Params)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "claim in the mempool", func() bool {
		out, err := chain.Output(ctx, terms.Detail.Funding)
		return err == nil && out.Spend != nil
	})
	mine(1)
	until(payer, late, settle.Closed)
	balance, err := wallets["payee"].Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := 45_000 + 2*st.Settled; balance.Confirmed < 45_000+2*40_000 {
		t.Errorf("the payee's wallet: got %d units, want about %d", uint64(balance.Confirmed), uint64(want))
	}
}

func seedOf(name string) []byte {
	seed := fmt.Appendf(nil, "%-64s", name)
	return seed[:64]
}
