package manager_test

import (
	"bytes"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// The payer takes the roll's coin elsewhere: the payee claims the predecessor
// before its deadline, over whatever the mempool holds, and loses what it trusted
// unconfirmed at most.
func TestRollDoubleSpent(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	most := settle.Params{Capacity: capacity, Reserve: reserve, MinChange: 294}.Spendable()
	w.pay(id, "a", most)
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := w.spendAgain(o.Tx)
	to := w.roll(id, manager.RollRequest{})
	w.payRolling(to, "a", most+40_000)
	if err := w.ledger.Broadcast(ctx, elsewhere); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(1)
	w.ledger.Mine(lifetime - 2*144)
	w.payee.until(id, "claim", func(st manager.Status) bool { return st.ClosingDepth == 0 && w.endOf(st) != [32]byte{} })
	w.ledger.Mine(2)
	st := w.both(id, settle.Closed)
	if lost := most + 40_000 - st.Settled; lost > 40_000 {
		t.Errorf("the payee lost %d units, it trusted 40000", uint64(lost))
	}
	w.both(to, settle.Abandoned)
	_, err = w.payer.m.PayRolling(ctx, to, entry("a", most+45_000))
	code(t, "pay over a roll that failed", err, settle.ErrClosed)
}

// spendAgain returns a payment of a roll's coin to its owner, at a high fee.
func (w *world) spendAgain(roll []byte) []byte {
	w.t.Helper()
	ctx := w.t.Context()
	if err := w.payer.wallet.Release(ctx, roll); err != nil {
		w.t.Fatal(err)
	}
	script, err := w.payer.wallet.ReceiveScript(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := w.payer.wallet.Fund(ctx, []settle.Payment{{Script: script, Amount: 45_000_000}}, 50_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// Blocks are full and the roll pays too little for them: at the deadline the
// payee's claim takes its place in the mempool at once.
func TestRollStuck(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 400_000)
	to := w.roll(id, manager.RollRequest{LifetimeBlocks: 2 * lifetime})
	w.payRolling(to, "a", 410_000)
	roll := w.ledger.Pool()[0]
	deadline := w.payee.until(id, "status", func(manager.Status) bool { return true }).Params.Deadline()
	tip, err := w.ledger.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ledger.MineFull(int(deadline-tip.Height)-1, 20_000) // nobody claims yet
	if pool := w.ledger.Pool(); len(pool) != 1 || !bytes.Equal(pool[0], roll) {
		t.Fatalf("the roll did not wait for room")
	}
	w.ledger.MineFull(1, 20_000)
	eventually(t, "the claim in the roll's place", func() bool {
		pool := w.ledger.Pool()
		return len(pool) == 1 && !bytes.Equal(pool[0], roll)
	})
	w.ledger.Mine(2)
	st := w.both(id, settle.Closed)
	if lost := 410_000 + reserve - st.Settled; lost > 20_000 {
		t.Errorf("the claim's fee took %d units", uint64(lost))
	}
	w.both(to, settle.Abandoned)
}

// A roll that is mined and taken back, deeper than agreed: both channels go on,
// and the predecessor is claimed when the roll does not come again.
func TestRollReorganised(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 400_000)
	to := w.roll(id, manager.RollRequest{LifetimeBlocks: 2 * lifetime})
	w.ledger.Mine(2)
	w.both(id, settle.Rolled)
	w.both(to, settle.Open)
	w.pay(to, "a", 410_000)
	w.ledger.Reorg(2)
	w.both(id, settle.Rolling)
	w.both(to, settle.Opening)
	w.payRolling(to, "a", 420_000)
	w.ledger.Mine(2) // both broadcast it again
	w.both(id, settle.Rolled)
	w.both(to, settle.Open)
	w.closed(to, 420_000)
}

// A reorganisation deeper than agreed, and the roll's coin is gone: the payee has
// the predecessor's word, and loses what was paid since.
func TestRollTakenBackDeep(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 400_000)
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity, LifetimeBlocks: 2 * lifetime})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := w.spendAgain(o.Tx)
	to := w.roll(id, manager.RollRequest{})
	w.payRolling(to, "a", 450_000)
	w.ledger.Mine(2)
	w.both(id, settle.Rolled)
	w.both(to, settle.Open)
	w.pay(to, "a", 550_000)
	w.payer.crash()
	w.payee.crash()
	w.ledger.Reorg(2)
	if err := w.ledger.Broadcast(ctx, elsewhere); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(1)
	w.both(id, settle.Rolling)
	_, err = w.payer.m.PayRolling(ctx, to, entry("b", 1_000_000))
	code(t, "pay on", err, settle.ErrUnconfirmed)
	w.ledger.Mine(lifetime - 2*144)
	w.payee.until(id, "claim", func(st manager.Status) bool { return st.ClosingDepth == 0 && w.endOf(st) != [32]byte{} })
	w.ledger.Mine(2)
	if st := w.both(id, settle.Closed); st.Settled+10_000 < 450_000+reserve {
		t.Errorf("got %d units, want the 450000 that both channels paid", uint64(st.Settled))
	}
	w.both(to, settle.Abandoned)
}

// Either side alone brings the roll to a chain that forgot it, also after a
// restart; the payer learns it from the chain when no answer came.
func TestRollRebroadcast(t *testing.T) {
	for _, alone := range []settle.Role{settle.Payer, settle.Payee} {
		w := newWorld(t)
		ctx := t.Context()
		id := w.settled()
		w.pay(id, "a", 60_000)
		o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := w.payee.m.AcceptRoll(ctx, o) // and the answer is lost
		if err != nil {
			t.Fatal(err)
		}
		w.ledger.Mine(1)
		for _, s := range []*side{w.payer, w.payee} {
			s.until(id, "roll", func(st manager.Status) bool { return st.ClosingDepth == 1 })
		}
		gone, here := w.payee, w.payer
		if alone == settle.Payee {
			gone, here = here, gone
		}
		gone.stop()
		here.crash()
		w.ledger.Reorg(1)
		eventually(t, "the roll", func() bool {
			pool := w.ledger.Pool()
			return len(pool) == 1 && bytes.Equal(pool[0], raw)
		})
	}
}
