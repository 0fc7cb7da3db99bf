package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
)

// flaky is a chain that takes no transactions while it is down.
type flaky struct {
	*devnet.Chain
	down atomic.Bool
}

func (f *flaky) Broadcast(ctx context.Context, raw []byte) error {
	if f.down.Load() {
		return settle.ErrLedgerUnavailable
	}
	return f.Chain.Broadcast(ctx, raw)
}

// walletWorld is one node with money, on a chain that can be down.
func walletWorld(t *testing.T, c node.Config) (*world, *running, *flaky) {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.chain, err = devnet.Open(t.TempDir(), devnet.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.check(w.chain.Close()) })
	chain := &flaky{Chain: w.chain}
	c.Ledger = chain
	if c.Dir == "" {
		c.Dir = w.init("payer")
	}
	n := w.start(c)
	w.fund(n, 5*pktcloud.UnitsPerPKT)
	return w, n, chain
}

// TestPayWhileDown shows [API-20]: a payment that is stored is made, once.
func TestPayWhileDown(t *testing.T) {
	w, n, chain := walletWorld(t, node.Config{})
	ctx := t.Context()
	to, err := n.WalletAddress(ctx, service.AddressRequest{})
	w.check(err)
	r := service.PaymentRequest{Address: to.Address, Amount: pktcloud.UnitsPerPKT, MaxFee: 1000, Once: "w", Label: "slow"}
	plan, err := n.WalletPlan(ctx, r)
	if err != nil || plan.Amount != r.Amount || plan.Fee == 0 || len(plan.Coins) != 1 {
		t.Fatalf("plan: %+v, %v", plan, err)
	}
	chain.down.Store(true)
	first, err := n.WalletSend(ctx, r)
	if err != nil || !first.Stored || len(first.TxID) != 64 {
		t.Fatalf("while the chain is down: got %+v, %v; want it stored", first, err)
	}
	if again, err := n.WalletSend(ctx, r); err != nil || again.TxID != first.TxID {
		t.Errorf("again: got %+v, %v; want %s", again, err, first.TxID)
	}
	moves, err := n.WalletHistory(ctx, service.HistoryQuery{TxID: first.TxID})
	if err != nil || len(moves) != 1 || moves[0].Label != "slow" || moves[0].Kind != service.KindMoved || moves[0].Fee != plan.Fee {
		t.Errorf("history: got %+v, %v", moves, err)
	}
	chain.down.Store(false)
	n.stop()
	n = w.start(n.config) // which offers it again at once
	w.until("the payment is in the mempool", func() bool {
		coins, err := n.WalletCoins(ctx, service.CoinQuery{})
		w.check(err)
		return slices.ContainsFunc(coins, func(c service.Coin) bool { return strings.HasPrefix(c.Coin, first.TxID) })
	})
}

// TestWalletRefusals: each with its code, and nothing is paid.
func TestWalletRefusals(t *testing.T) {
	w, n, _ := walletWorld(t, node.Config{})
	ctx := t.Context()
	before, err := n.WalletBalance(ctx)
	w.check(err)
	own, err := n.WalletAddress(ctx, service.AddressRequest{})
	w.check(err)
	pay := func(change func(*service.PaymentRequest)) func() error {
		return func() error {
			r := service.PaymentRequest{Address: own.Address, Amount: 1 << 20, MaxFee: 1 << 20}
			change(&r)
			_, err := n.WalletSend(ctx, r)
			return err
		}
	}
	for _, c := range []struct {
		name string
		call func() error
		want service.Code
		text string
	}{
		{"another network", pay(func(r *service.PaymentRequest) { r.Address = "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu" }), service.CodeInvalid, "an address of Bitcoin"},
		{"the token on Base", pay(func(r *service.PaymentRequest) { r.Address = "0x917F39Bb33B2483Dd19546b1E8D2f09ce481ee44" }), service.CodeInvalid, "Ethereum or Base"},
		{"no address", pay(func(r *service.PaymentRequest) { r.Address = "somebody" }), service.CodeInvalid, "is no address"},
		{"nothing", pay(func(r *service.PaymentRequest) { r.Amount = 0 }), service.CodeInvalid, "how much"},
		{"an amount and all", pay(func(r *service.PaymentRequest) { r.All = true }), service.CodeInvalid, "how much"},
		{"dust", pay(func(r *service.PaymentRequest) { r.Amount = 293 }), service.CodeInvalid, "294"},
		{"more than there is", pay(func(r *service.PaymentRequest) { r.Amount = pktcloud.MaxAmount }), service.CodeMoney, "not enough money"},
		{"no limit on the fee", pay(func(r *service.PaymentRequest) { r.MaxFee = 0 }), service.CodeMoney, "the limit is 0 PKT"},
		{"an absurd rate", pay(func(r *service.PaymentRequest) { r.FeeRate = 1 << 40 }), service.CodeInvalid, "at most"},
		{"no account", pay(func(r *service.PaymentRequest) { r.Account = 7 }), service.CodeNotFound, "no account 7"},
		{"no coin", pay(func(r *service.PaymentRequest) { r.Coins = []string{"x"} }), service.CodeInvalid, "is no coin"},
		{"an unknown coin", pay(func(r *service.PaymentRequest) { r.Coins = []string{strings.Repeat("0", 64) + ":0"} }), service.CodeConflict, "has none such"},
		{"a label of two lines", pay(func(r *service.PaymentRequest) { r.Label = "a\nb" }), service.CodeInvalid, "one line"},
		{"replace nothing", func() error {
			_, err := n.WalletReplace(ctx, service.ReplaceRequest{TxID: strings.Repeat("0", 64), MaxFee: 1000})
			return err
		}, service.CodeConflict, "waits for a block"},
		{"replace no id", func() error { _, err := n.WalletReplace(ctx, service.ReplaceRequest{TxID: "x"}); return err }, service.CodeInvalid, "64 hexadecimal digits"},
		{"label nothing", func() error { _, err := n.WalletLabel(ctx, service.LabelRequest{Label: "x"}); return err }, service.CodeInvalid, "either an address or a transaction"},
		{"a key of Bitcoin", func() error {
			_, err := n.WalletSweep(ctx, service.SweepRequest{Key: "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn"})
			return err
		}, service.CodeInvalid, "a key of Bitcoin"},
		{"no channel", func() error { _, err := n.Channel(ctx, "00"); return err }, service.CodeNotFound, "no channel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.call(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v (%s), want %s with %q", err, service.CodeOf(err), c.want, c.text)
			}
		})
	}
	if after, err := n.WalletBalance(ctx); err != nil || after != before {
		t.Errorf("got %+v, %v; want %+v as before", after, err, before)
	}
}

// TestLockAndPassword shows [API-21], and that the wallet locks itself.
func TestLockAndPassword(t *testing.T) {
	w, n, _ := walletWorld(t, node.Config{})
	ctx := t.Context()
	if _, err := n.WalletLock(ctx); !errors.Is(err, service.CodeConflict) || !strings.Contains(err.Error(), "guard nothing") {
		t.Errorf("lock an unattended keystore: got %v", err)
	}
	state, err := n.WalletPassword(ctx, service.PasswordRequest{New: "one"})
	if err != nil || state.Unattended {
		t.Fatalf("a first password: got %+v, %v", state, err)
	}
	if _, err := os.Stat(filepath.Join(n.config.Dir, "password")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old password still lies beside the keystore: %v", err)
	}
	n.stop()
	if _, err := node.Open(ctx, n.config); !errors.Is(err, service.CodeUnauthorized) {
		t.Errorf("open without the password: got %v", err)
	}
	c := n.config
	c.Password, c.LockAfter = "one", 100*time.Millisecond
	n = w.start(c)
	w.until("the wallet locks itself", func() bool {
		b, err := n.WalletBalance(ctx)
		w.check(err)
		return b.Locked && b.Spendable == 5*pktcloud.UnitsPerPKT
	})
	r := service.PaymentRequest{Amount: 1 << 20, MaxFee: 1000}
	if to, err := n.WalletAddress(ctx, service.AddressRequest{}); err != nil {
		t.Error(err)
	} else {
		r.Address = to.Address
	}
	if _, err := n.WalletSend(ctx, r); !errors.Is(err, service.CodeLocked) {
		t.Errorf("pay while locked: got %v", err)
	}
	for _, password := range []string{"", "two"} {
		if _, err := n.WalletUnlock(ctx, service.UnlockRequest{Password: password}); !errors.Is(err, service.CodeForbidden) {
			t.Errorf("password %q: got %v, want forbidden", password, err)
		}
	}
	if _, err := n.WalletPassword(ctx, service.PasswordRequest{Old: "two", New: "three"}); !errors.Is(err, service.CodeForbidden) {
		t.Errorf("change with a wrong password: got %v", err)
	}
	n.stop()
	c.LockAfter = 0 // so that it does not lock itself again before it has paid
	n = w.start(c)
	if _, err := n.WalletLock(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WalletSend(ctx, r); !errors.Is(err, service.CodeLocked) {
		t.Errorf("pay once locked by hand: got %v", err)
	}
	if _, err := n.WalletUnlock(ctx, service.UnlockRequest{Password: "one"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WalletSend(ctx, r); err != nil {
		t.Errorf("pay after unlocking: got %v", err)
	}
}
