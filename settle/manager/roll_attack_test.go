package manager_test

import (
	"errors"
	"net"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// TestRollInTheMempool: a roll can be replaced until it is in a block, so not even a
// channel that asks for no depth takes its successor for settled before [ROLL-6].
func TestRollInTheMempool(t *testing.T) {
	w := newWorld(t)
	id := w.open(func(r *manager.OpenRequest) { r.MinDepth = 0 })
	if err := w.payer.m.Announce(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(2)
	w.both(id, settle.Open)
	w.pay(id, "a", 60_000)
	to := w.roll(id, manager.RollRequest{Capacity: 2 * capacity})
	w.ledger.MineFull(1, 20_000) // without the roll
	w.payee.until(to, "the roll is seen", func(s manager.Status) bool { return s.Funded })
	w.payer.until(to, "the roll is seen", func(s manager.Status) bool { return s.Funded })
	p, err := w.payer.m.PayRolling(t.Context(), to, entry("a", 18_000_000))
	if err == nil {
		err = w.payee.m.ReceiveRolling(t.Context(), p)
	}
	code(t, "far more than the predecessor's word", err, settle.ErrUnconfirmed)
}

// TestAcceptLongParams: what the payee could not read again it does not take.
func TestAcceptLongParams(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	detail, err := w.payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, funding, err := w.payer.m.Open(ctx, manager.OpenRequest{
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, Unconfirmed: 50_000, MinDepth: 2, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Ext = map[string][]byte{"x": make([]byte, settle.MaxParamsBytes)}
	_, err = w.payee.m.Accept(ctx, p, funding)
	code(t, "parameters beyond their limit", err, settle.ErrParams)
	w.payee.crash()
}

// TestRollStaleRefusal: a refusal that comes late takes back the offer that it is
// of, and none that was made since [ROLL-10].
func TestRollStaleRefusal(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 60_000)
	w.offered(id, manager.RollRequest{Capacity: 2 * capacity})
	here, there := net.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := w.payer.m.AskRoll(ctx, here, id)
		first <- err
	}()
	if _, err := wire.ReadFrame(there, manager.MaxRollAskBytes); err != nil {
		t.Fatal(err)
	}
	if err := w.payer.m.WithdrawRoll(ctx, id); err != nil {
		t.Fatal(err)
	}
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: capacity + 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := w.payee.m.AcceptRoll(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	refusal, err := manager.RefusalBytes(settle.Refuse(settle.ErrParams, "no"))
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.WriteFrame(there, refusal); err != nil {
		t.Fatal(err)
	}
	code(t, "the late refusal", <-first, settle.ErrParams)
	if err := w.payer.m.CompleteRoll(ctx, id, raw); err != nil {
		t.Errorf("the other offer's answer: got %v, want it taken", err)
	}
}

// TestRollAnsweredOnAFullDisk: an answer that could not be kept is taken the next
// time [ROLL-12].
func TestRollAnsweredOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 60_000)
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := w.payee.m.AcceptRoll(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	w.payer.store.FailWhen(func(int) bool { return true })
	if err := w.payer.m.CompleteRoll(ctx, id, raw); err == nil {
		t.Fatal("an answer was taken that the disk did not")
	}
	w.payer.store.FailWhen(nil)
	if len(w.payer.m.Successors(id)) != 0 {
		t.Error("the payer pays on over a roll whose answer it has not kept")
	}
	if err := w.payer.m.CompleteRoll(ctx, id, raw); err != nil || len(w.payer.m.Successors(id)) != 1 {
		t.Errorf("the answer again: got %v and %d successors, want 1", err, len(w.payer.m.Successors(id)))
	}
}

// TestRollsReorganisedAway: two rolls in a row are taken back and the first one's
// coin goes elsewhere. Neither successor can be any more [ROLL-9].
func TestRollsReorganisedAway(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 60_000)
	o, err := w.payer.m.Roll(t.Context(), id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := w.spendAgain(o.Tx)
	b := w.roll(id, manager.RollRequest{})
	w.ledger.Mine(2)
	w.both(id, settle.Rolled)
	w.both(b, settle.Open)
	c := w.roll(b, manager.RollRequest{Capacity: 2*capacity + 5_000_000})
	w.payRolling(c, "a", 100_000)
	w.ledger.Reorg(2)
	if err := w.ledger.Broadcast(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(1)
	w.both(id, settle.Rolling)
	w.ledger.Mine(lifetime - 2*144)
	w.payee.until(id, "the claim", func(st manager.Status) bool { return w.endOf(st) != [32]byte{} })
	w.ledger.Mine(3)
	w.both(id, settle.Closed)
	w.ledger.Mine(3)
	for _, successor := range []pktcloud.ID{b, c} {
		w.payer.until(successor, "the successor is given up", func(st manager.Status) bool { return st.Phase == settle.Abandoned })
	}
}

// TestRollsJudgedAtOnce: a peer cannot keep more than a few processors busy with
// rolls that it never means [ROLL-35].
func TestRollsJudgedAtOnce(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	o, err := w.payer.m.Roll(t.Context(), id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	free := w.payee.m.JudgeRolls()
	_, err = w.payee.m.AcceptRoll(t.Context(), o)
	code(t, "while others are judged", err, settle.ErrBusy)
	free()
	if _, err := w.payee.m.AcceptRoll(t.Context(), o); err != nil && !errors.Is(err, settle.ErrRolling) {
		t.Errorf("afterwards: got %v, want it accepted", err)
	}
}
