package manager_test

import (
	"errors"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// A store that fails loses nothing that was acknowledged, and nothing half.
func TestStoreFails(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 100_000)
	w.payer.store.FailWhen(func(int) bool { return true })
	if _, err := w.payer.m.Pay(ctx, id, entry("a", 110_000)); !errors.Is(err, settletest.ErrStore) {
		t.Fatalf("got %v, want the store's error", err)
	}
	if v, _ := w.payer.m.Latest(id); v.Body.Total != 100_000 {
		t.Errorf("after a failed write: got %d units paid, want 100000", uint64(v.Body.Total))
	}
	w.payer.store.FailWhen(nil)
	v, err := w.payer.m.Pay(ctx, id, entry("a", 110_000))
	if err != nil {
		t.Fatal(err)
	}
	w.payee.store.FailWhen(func(int) bool { return true })
	if err := w.payee.m.Receive(ctx, v); !errors.Is(err, settletest.ErrStore) {
		t.Fatalf("got %v, want the store's error", err)
	}
	if v, _ := w.payee.m.Latest(id); v.Body.Total != 100_000 {
		t.Errorf("after a failed write: got %d units accepted, want 100000", uint64(v.Body.Total))
	}
	w.payee.store.FailWhen(nil)
	if err := w.payee.m.Receive(ctx, v); err != nil {
		t.Fatal(err)
	}
	n := w.payee.store.Applies()
	if err := w.payee.m.Receive(ctx, v); err != nil || w.payee.store.Applies() != n {
		t.Errorf("the same voucher again: got %v and %d writes, want none", err, w.payee.store.Applies()-n)
	}
}

// A voucher that was acknowledged is there after a crash, on both sides.
func TestReceiveIsDurable(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	v := w.pay(id, "a", 100_000)
	w.payer.crash()
	w.payee.crash()
	for _, s := range []*side{w.payer, w.payee} {
		if got, ok := s.m.Latest(id); !ok || got.Sig != v.Sig {
			t.Errorf("%s: after a crash: got %d units, want 100000", s.name, uint64(got.Body.Total))
		}
	}
}

// A damaged store is said to be one, and not run on.
func TestDamagedStore(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.payee.stop()
	damaged := w.payee.store.Clone()
	if err := damaged.Apply(t.Context(), []manager.Put{{Key: "settle/state/" + id.Hex(), Value: []byte{0xa0}}}); err != nil {
		t.Fatal(err)
	}
	cfg := w.payee.cfg
	cfg.Store = damaged
	if _, err := manager.New(t.Context(), cfg); err == nil {
		t.Error("a manager runs on a damaged store")
	}
	if err := damaged.Apply(t.Context(), []manager.Put{{Key: "settle/state/" + id.Hex()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.New(t.Context(), cfg); err == nil {
		t.Error("a manager runs on a store that lost a channel's state")
	}
}
