package manager_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

const margin = manager.DefaultMarginBlocks

// depositing is a world whose payee wants a deposit every some units.
func depositing(t *testing.T, every pktcloud.Amount) *world {
	w := newWorld(t)
	w.payee.cfg.DepositEvery = every
	w.payee.crash()
	return w
}

// late passes a late proof from payer to payee.
func (w *world) late(id pktcloud.ID) {
	w.t.Helper()
	l, err := w.payer.m.LateProof(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.payee.m.TakeLate(w.t.Context(), l); err != nil {
		w.t.Fatal(err)
	}
}

// parcel is the one parcel of a side.
func (s *side) parcel() manager.Parcel {
	s.t.Helper()
	list, err := s.m.Parcels(s.t.Context())
	if err != nil || len(list) != 1 {
		s.t.Fatalf("%s: got %d parcels, %v, want 1", s.name, len(list), err)
	}
	return list[0]
}

func txOf(t testing.TB, raw []byte) *wire.MsgTx {
	t.Helper()
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return tx
}

func sameParcel(a, b manager.Parcel) bool {
	return bytes.Equal(a.Owner, b.Owner) && bytes.Equal(bytes.Join(a.Txs, nil), bytes.Join(b.Txs, nil))
}

// The payer proves its latest voucher's total when asked, the payee asks every
// so many units, and what towers should hold follows, also after a crash.
func TestLateProofs(t *testing.T) {
	w := depositing(t, 100_000)
	ctx := t.Context()
	id := w.open(nil)
	if err := w.payer.m.Announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	w.pay(id, "a", 40_000)
	_, err := w.payee.m.LateProof(ctx, id)
	code(t, "the payee gives a late proof", err, settle.ErrRole)
	w.ledger.Mine(2)
	w.payer.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.payee.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.pay(id, "a", 99_999)
	if ids := w.payee.m.WantLate(); len(ids) != 0 {
		t.Error("a late proof is wanted one unit too soon")
	}
	w.pay(id, "a", 250_000)
	if ids := w.payee.m.WantLate(); len(ids) != 1 || ids[0] != id {
		t.Errorf("got %v wanted, want the channel", ids)
	}
	if ids := w.payer.m.WantLate(); len(ids) != 0 {
		t.Error("the payer wants a late proof")
	}
	l, err := w.payer.m.LateProof(ctx, id)
	if err != nil || l.Total != 250_000 {
		t.Fatalf("got %+v, %v", l, err)
	}
	w.pay(id, "b", 10_000) // overtakes it
	if err := w.payee.m.TakeLate(ctx, l); err != nil {
		t.Fatal(err)
	}
	if ids := w.payee.m.WantLate(); len(ids) != 0 {
		t.Error("another late proof is wanted right after one")
	}
	first := w.payee.parcel()
	if len(first.Txs) < 2 || txOf(t, first.Txs[0]).LockTime != uint32(mustParams(t, w, id).LateHeight()) {
		t.Errorf("got %d levels, lock time %d", len(first.Txs), txOf(t, first.Txs[0]).LockTime)
	}
	w.payee.crash()
	w.payee.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	if !sameParcel(first, w.payee.parcel()) {
		t.Error("after a crash: got another parcel, want the same bytes")
	}
	if err := w.payee.m.TakeLate(ctx, l); err != nil || !sameParcel(first, w.payee.parcel()) {
		t.Errorf("the same late proof again: got %v or another parcel", err)
	}
	w.pay(id, "b", 200_000)
	w.late(id)
	second := w.payee.parcel()
	chain := mustChain(t, w, id)
	newest, err := chain.LevelOf(second.Txs[0])
	if err != nil || len(second.Txs) != 1 {
		t.Fatalf("got %d levels, %v, want 1", len(second.Txs), err)
	}
	for _, raw := range first.Txs {
		if old, err := chain.LevelOf(raw); err != nil || !newest.Beats(old, network(t)) {
			t.Errorf("the second deposit's %+v does not beat %+v (%v)", newest, old, err)
		}
	}
	code(t, "an older late proof", w.payee.m.TakeLate(ctx, l), settle.ErrFell)
	l.Signature[9] ^= 1
	l.Total = 450_000
	code(t, "a foreign late proof", w.payee.m.TakeLate(ctx, l), settle.ErrProof)
	if _, err := w.payer.m.OfferClose(ctx, id, 450_000); err != nil {
		t.Fatal(err)
	}
	_, err = w.payer.m.LateProof(ctx, id)
	code(t, "a late proof after a close", err, settle.ErrClosed)
}

// Fees and proof are durable before anything is given to a tower.
func TestTakeLateIsDurable(t *testing.T) {
	w := depositing(t, 1)
	id := w.settled()
	w.pay(id, "a", 250_000)
	l, err := w.payer.m.LateProof(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.payee.store.FailWhen(func(int) bool { return true })
	if err := w.payee.m.TakeLate(t.Context(), l); !errors.Is(err, settletest.ErrStore) {
		t.Errorf("got %v, want the store's error", err)
	}
	if list, err := w.payee.m.Parcels(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %d parcels of what is not stored, %v", len(list), err)
	}
	if len(w.payee.m.WantLate()) != 1 {
		t.Error("the late proof is not wanted any more, although it was not kept")
	}
	w.payee.store.FailWhen(nil)
}

// The payer's parcel is its refund ladder, the same each time.
func TestRefundParcel(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	p := w.payer.parcel()
	for _, raw := range p.Txs {
		if tx := txOf(t, raw); tx.LockTime != uint32(mustParams(t, w, id).ExpiryHeight) || len(tx.TxOut) != 1 {
			t.Errorf("got lock time %d and %d outputs", tx.LockTime, len(tx.TxOut))
		}
	}
	w.ledger.SetFeeRate(9_000)
	w.payer.crash()
	w.payer.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	if !sameParcel(p, w.payer.parcel()) {
		t.Error("after a crash: got another ladder")
	}
	if list, err := w.payee.m.Parcels(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the payee without a late proof: got %d parcels, %v", len(list), err)
	}
}

func mustParams(t *testing.T, w *world, id pktcloud.ID) settle.Params {
	t.Helper()
	st, err := w.payee.m.Status(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return st.Params
}

// keeper is a tower that runs over the world's ledger.
func (w *world) keeper(key byte) *tower.Tower {
	w.t.Helper()
	tw, err := tower.New(w.t.Context(), tower.Config{Network: network(w.t), Ledger: w.ledger, Store: settletest.NewStore(), Key: pktcloud.NewPrivateKey([32]byte{key})})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := tw.Run(ctx); err != nil {
			w.t.Errorf("tower: %v", err)
		}
	})
	w.t.Cleanup(func() { cancel(); wait.Wait() })
	return tw
}

// give deposits a side's parcels at a tower.
func (s *side) give(tw *tower.Tower) {
	s.t.Helper()
	key, err := s.cfg.Keychain.TowerKey()
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := s.m.Parcels(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range list {
		d, err := tower.Seal(key, s.cfg.Network, p.Owner, p.Txs)
		if err != nil {
			s.t.Fatal(err)
		}
		b, err := d.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := tw.Accept(s.t.Context(), b); err != nil {
			s.t.Fatal(err)
		}
	}
}

// The owner is away from before the deadline until after expiry; the payer
// waits for its refund and gets none: the tower was first.
func TestOwnerIsAway(t *testing.T) {
	w := depositing(t, 50_000)
	id := w.settled()
	w.pay(id, "a", 700_000)
	w.late(id)
	tw := w.keeper(9)
	w.payee.give(tw)
	p := w.payee.parcel()
	w.payee.stop()
	w.ledger.Mine(lifetime - 2*margin) // past the deadline
	w.ledger.Mine(margin)              // the late height: the tower sends
	w.payer.until(id, "late claim", func(manager.Status) bool { return len(w.ledger.Pool()) == 1 })
	w.ledger.Mine(margin + 20) // past expiry
	w.payee.start()
	want := txOf(t, p.Txs[0])
	for _, s := range []*side{w.payer, w.payee} {
		st := s.until(id, "end", func(s manager.Status) bool { return s.Phase == settle.Closed })
		if st.ClosingTxID != want.TxHash() || st.Settled != pktcloud.Amount(want.TxOut[1].Value) || st.Settled < 700_000 {
			t.Errorf("%s: got %d units by %x, want %d by the tower's %v", s.name, uint64(st.Settled), st.ClosingTxID, want.TxOut[1].Value, want.TxHash())
		}
	}
}

// Without a deposit the refund wins: what the tower is for.
func TestOwnerIsAwayWithoutTower(t *testing.T) {
	w := depositing(t, 50_000)
	id := w.settled()
	w.pay(id, "a", 700_000)
	w.payee.stop()
	w.ledger.Mine(lifetime + 1)
	w.payer.until(id, "refund", func(s manager.Status) bool { return w.endOf(s) != [32]byte{} })
	w.ledger.Mine(3)
	w.payer.until(id, "refund", func(s manager.Status) bool { return s.Phase == settle.Refunded })
}

// A payee that comes back after the late height finds an old deposit of its own
// in the mempool and claims its newest voucher over it, at once [SETTLE-89].
func TestClaimAboveDeposits(t *testing.T) {
	w := depositing(t, 50_000)
	id := w.settled()
	w.pay(id, "a", 300_000)
	w.late(id)
	old := w.payee.parcel()
	w.pay(id, "a", 900_000)
	w.late(id)
	w.pay(id, "a", 940_000) // never deposited
	w.payee.stop()
	w.ledger.Mine(lifetime - margin)
	if err := w.ledger.Broadcast(t.Context(), old.Txs[len(old.Txs)-1]); err != nil {
		t.Fatal(err)
	}
	w.payee.start()
	w.payee.until(id, "claim", func(manager.Status) bool {
		pool := w.ledger.Pool()
		return len(pool) == 1 && !bytes.Equal(pool[0], old.Txs[len(old.Txs)-1])
	})
	w.ledger.Mine(3)
	st := w.payee.until(id, "end", func(s manager.Status) bool { return s.Phase == settle.Closed })
	if st.Settled < 900_000 {
		t.Errorf("got %d units, want those of the newest voucher less a fee", uint64(st.Settled))
	}
}

func mustChain(t *testing.T, w *world, id pktcloud.ID) pktchain.Channel {
	t.Helper()
	c, err := pktchain.ChannelOf(network(t), mustParams(t, w, id))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
