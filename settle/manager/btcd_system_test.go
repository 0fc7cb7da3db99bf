//go:build system

package manager_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/btcdtest"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// party is one side with a wallet of its own on the real node.
type party struct {
	m      *manager.Manager
	ledger settle.Ledger
	wallet *wallet.Wallet
	device pktcloud.PublicKey
	stop   func()
}

func newParty(t *testing.T, node *btcdtest.Node, seed byte) party {
	t.Helper()
	return newDevice(t, node, seed, seed)
}

// newDevice is a party on a machine of its own, with nothing but the seed.
func newDevice(t *testing.T, node *btcdtest.Node, seed, machine byte) party {
	t.Helper()
	ctx := t.Context()
	ledger, err := node.Driver()
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.Repeat([]byte{seed}, wallet.SeedBytes)
	store := settletest.NewStore()
	w, err := wallet.Open(ctx, secret, wallet.Config{Network: node.Network, Ledger: ledger, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pktchain.NewKeychain(node.Network, secret)
	if err != nil {
		t.Fatal(err)
	}
	device := pktcloud.NewPrivateKey([32]byte{machine})
	m, err := manager.New(ctx, manager.Config{
		Network: node.Network, Ledger: ledger, Store: store, Wallet: w, Keychain: keys, DeviceKey: device, Reserve: reserve,
	})
	if err != nil {
		t.Fatal(err)
	}
	running, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := m.Run(running); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(stop)
	return party{m: m, ledger: ledger, wallet: w, device: device.Public(), stop: stop}
}

func (p party) until(t *testing.T, id pktcloud.ID, what string, ok func(manager.Status) bool) manager.Status {
	t.Helper()
	var st manager.Status
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if st, err = p.m.Status(t.Context(), id); err == nil && ok(st) {
			return st
		}
	}
	t.Fatalf("no %s within two minutes: %s at height %d, depth %d (%v)", what, st.Phase, st.Height, st.Depth, err)
	return st
}

func phase(want settle.Phase) func(manager.Status) bool {
	return func(s manager.Status) bool { return s.Phase == want }
}

// opened makes a channel that both sides see as settled on the chain.
func opened(t *testing.T, node *btcdtest.Node, payer, payee party) pktcloud.ID {
	t.Helper()
	ctx := t.Context()
	detail, err := payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	params, funding, err := payer.m.Open(ctx, manager.OpenRequest{
		Payee: payee.device, PayeeDetail: detail, Capacity: capacity, Unconfirmed: 50_000, MinDepth: 2, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := payee.m.Accept(ctx, params, funding)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []party{payee, payer} {
		if err := p.m.Announce(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	mine(t, node, 2)
	payer.until(t, id, "open channel", phase(settle.Open))
	payee.until(t, id, "open channel", phase(settle.Open))
	return id
}

func mine(t *testing.T, node *btcdtest.Node, blocks int) {
	t.Helper()
	if err := node.Mine(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
}

func paid(t *testing.T, payer, payee party, id pktcloud.ID, units pktcloud.Amount) {
	t.Helper()
	v, err := payer.m.Pay(t.Context(), id, entry("a", units))
	if err != nil {
		t.Fatal(err)
	}
	if err := payee.m.Receive(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

// TestChannelLifeOverBtcd runs every way that a channel can end on a real btcd
// under standard policy, through the JSON-RPC driver.
func TestChannelLifeOverBtcd(t *testing.T) {
	node, err := btcdtest.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	payer, payee := newParty(t, node, 1), newParty(t, node, 2)
	for range 3 {
		script, err := payer.wallet.ReceiveScript(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Fund(t.Context(), script, 2*capacity); err != nil {
			t.Fatal(err)
		}
	}
	mine(t, node, 1)

	t.Run("cooperative close", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		paid(t, payer, payee, id, 40_000)
		paid(t, payer, payee, id, 123_457)
		offer, err := payer.m.OfferClose(t.Context(), id, 123_457)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := payee.m.CompleteClose(t.Context(), id, offer); err != nil {
			t.Fatal(err)
		}
		mine(t, node, 2)
		payer.until(t, id, "close", phase(settle.Closed))
		if st := payee.until(t, id, "close", phase(settle.Closed)); st.Settled != 123_457 {
			t.Errorf("the chain paid %d units, want 123457", uint64(st.Settled))
		}
	})
	t.Run("claim before expiry", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		paid(t, payer, payee, id, 77_000)
		mine(t, node, lifetime-2*144)
		payee.until(t, id, "claim", func(s manager.Status) bool { return endOf(t, payee.ledger, node.Network, s) != [32]byte{} })
		mine(t, node, 2)
		st := payee.until(t, id, "end", phase(settle.Closed))
		if fee := 77_000 + reserve - st.Settled; fee < 180 || fee > 1_000 {
			t.Errorf("the chain paid %d units, want 77000 and the reserve less a small fee", uint64(st.Settled))
		}
	})
	t.Run("refund after expiry", func(t *testing.T) {
		id := opened(t, node, payer, payee) // nothing was ever paid
		mine(t, node, lifetime+1)
		payer.until(t, id, "refund on its way", func(s manager.Status) bool { return endOf(t, payer.ledger, node.Network, s) != [32]byte{} })
		mine(t, node, 2)
		payer.until(t, id, "refund", phase(settle.Refunded))
	})
	t.Run("restore from the phrase", func(t *testing.T) { restoreOverBtcd(t, node, payer, payee) })
	b, err := payee.wallet.Balance(t.Context())
	if err != nil || b.Confirmed < 123_457+77_000 {
		t.Errorf("the payee's wallet has %d units (%v), want what both closes paid", uint64(b.Confirmed), err)
	}
}

// restoreOverBtcd loses the payer's machine with two open channels, one of them
// paid from, while the payee withholds everything. From the seed alone a new
// machine gets all of it back, also through a reorganisation.
func restoreOverBtcd(t *testing.T, node *btcdtest.Node, payer, payee party) {
	ctx := t.Context()
	for range 2 {
		script, err := payer.wallet.ReceiveScript(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Fund(ctx, script, 2*capacity); err != nil {
			t.Fatal(err)
		}
	}
	mine(t, node, 1)
	id := opened(t, node, payer, payee)
	paid(t, payer, payee, id, 60_000)
	opened(t, node, payer, payee)
	before, err := payer.wallet.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	payer.stop()
	payee.stop()
	again := newDevice(t, node, 1, 3)
	open := func() (n int) {
		for _, r := range again.m.Restored() {
			if r.ClosingTxID == ([32]byte{}) {
				n++
			}
		}
		return n
	}
	eventually(t, "two open channels", func() bool { _, done := again.m.Searched(); return done && open() == 2 })
	if err := again.wallet.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	if err := node.Invalidate(ctx, 1); err != nil {
		t.Fatal(err)
	}
	mine(t, node, lifetime+2)
	eventually(t, "refunds", func() bool { return open() == 0 })
	mine(t, node, 2)
	eventually(t, "refunds in a block", func() bool {
		for _, r := range again.m.Restored() {
			if r.ClosingDepth == 0 {
				return false
			}
		}
		return true
	})
	after, err := again.wallet.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if lost := before.Confirmed + 2*capacity - after.Confirmed; lost > 2_000 {
		t.Errorf("%d units before and %d in channels, %d after: %d were lost, want two fees", uint64(before.Confirmed), 2*capacity, uint64(after.Confirmed), uint64(lost))
	}
}
