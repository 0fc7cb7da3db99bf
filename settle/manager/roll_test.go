package manager_test

import (
	"bytes"
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// roll lets both agree on a roll, and returns the successor.
func (w *world) roll(id pktcloud.ID, r manager.RollRequest) pktcloud.ID {
	w.t.Helper()
	ctx := w.t.Context()
	o, err := w.payer.m.Roll(ctx, id, r)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := w.payee.m.AcceptRoll(ctx, o)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.payer.m.CompleteRoll(ctx, id, raw); err != nil {
		w.t.Fatal(err)
	}
	to, err := o.Successor.ID()
	if err != nil {
		w.t.Fatal(err)
	}
	return to
}

// payRolling pays over both channels of a roll.
func (w *world) payRolling(to pktcloud.ID, lease string, units pktcloud.Amount) manager.RollPayment {
	w.t.Helper()
	p, err := w.payer.m.PayRolling(w.t.Context(), to, entry(lease, units))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.payee.m.ReceiveRolling(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// both waits until both sides see a phase.
func (w *world) both(id pktcloud.ID, p settle.Phase) (st manager.Status) {
	w.t.Helper()
	for _, s := range []*side{w.payer, w.payee} {
		st = s.until(id, p.String(), func(st manager.Status) bool { return st.Phase == p })
	}
	return st
}

// closed ends a channel together, and returns the closing fee.
func (w *world) closed(id pktcloud.ID, final pktcloud.Amount) pktcloud.Amount {
	w.t.Helper()
	ctx := w.t.Context()
	offer, err := w.payer.m.OfferClose(ctx, id, final)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.payee.m.CompleteClose(ctx, id, offer); err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Mine(4)
	w.both(id, settle.Closed)
	return offer.Fee
}

// A top-up and an extension, with both sides restarted on the way, and every unit
// accounted for.
func TestRoll(t *testing.T) {
	for _, c := range []struct {
		name    string
		request manager.RollRequest
	}{
		{"top-up", manager.RollRequest{Capacity: 2 * capacity}},
		{"extension", manager.RollRequest{LifetimeBlocks: 2 * lifetime}},
		{"both, at more depth", manager.RollRequest{Capacity: 2 * capacity, LifetimeBlocks: 2 * lifetime, MinDepth: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			ctx := t.Context()
			id := w.settled()
			w.pay(id, "a", 60_000)
			w.pay(id, "b", 70_000)
			to := w.roll(id, c.request)
			w.payer.crash()
			w.payee.crash()
			w.both(id, settle.Rolling)
			p := w.payRolling(to, "a", 100_000)
			if p.From.Body.Total != 170_000 || p.To.Body.Total != 170_000 {
				t.Errorf("got vouchers of %d and %d units, want 170000 each", uint64(p.From.Body.Total), uint64(p.To.Body.Total))
			}
			if again := w.payRolling(to, "a", 100_000); again.To.Sig != p.To.Sig || again.From.Sig != p.From.Sig {
				t.Error("the same entry again: got other vouchers")
			}
			_, err := w.payer.m.Pay(ctx, id, entry("a", 110_000))
			code(t, "pay over the predecessor alone", err, settle.ErrRolling)
			_, err = w.payer.m.Pay(ctx, to, entry("a", 110_000))
			code(t, "pay over the successor alone", err, settle.ErrRolling)
			_, err = w.payer.m.OfferClose(ctx, id, 200_000)
			code(t, "close the predecessor", err, settle.ErrRolling)
			code(t, "abandon the successor", w.payer.m.Abandon(ctx, to), settle.ErrClosed)
			code(t, "withdraw what was accepted", w.payer.m.WithdrawRoll(ctx, id), settle.ErrClosed)
			w.ledger.Mine(2)
			if c.request.MinDepth > 2 {
				w.payRolling(to, "a", 105_000)
				w.ledger.Mine(2)
			}
			w.both(id, settle.Rolled)
			st := w.both(to, settle.Open)
			if _, err := w.payer.m.PayRolling(ctx, id, entry("a", 120_000)); !errors.Is(err, settle.ErrUnknown) {
				t.Errorf("pay over the predecessor: got %v", err)
			}
			w.pay(to, "a", 120_000)
			p, err = w.payer.m.PayRolling(ctx, to, entry("a", 130_000))
			if err != nil || p.To.Body.Total != 200_000 {
				t.Fatalf("after the roll: got %d units, %v", uint64(p.To.Body.Total), err)
			}
			if err := w.payee.m.ReceiveRolling(ctx, p); err != nil {
				t.Fatal(err)
			}
			want := c.request.Capacity
			if want == 0 {
				want = capacity - 3_000 // the fee
			}
			if st.Params.Capacity+1_000 < want || st.Params.Capacity > max(want, capacity) || c.request.Capacity > 0 && st.Params.Capacity != want {
				t.Errorf("got a capacity of %d units, want %d", uint64(st.Params.Capacity), uint64(want))
			}
			fee := w.closed(to, 200_000)
			if got := w.balance(w.payee); got != 200_000 {
				t.Errorf("the payee's wallet: got %d units, want 200000", uint64(got))
			}
			if lost := 60_000_000 - w.balance(w.payer) - 200_000 - fee; lost > 20_000 {
				t.Errorf("%d units are missing beyond payment and closing fee", uint64(lost))
			}
		})
	}
}

// The predecessor is used up: what exceeds it counts as unconfirmed.
func TestRollOfAUsedUpChannel(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	most := settle.Params{Capacity: capacity, Reserve: reserve, MinChange: 294}.Spendable()
	w.pay(id, "a", most-10_000)
	to := w.roll(id, manager.RollRequest{Capacity: 2 * capacity})
	p := w.payRolling(to, "a", most+50_000)
	if p.From.Body.Total != most || p.To.Body.Total != most+50_000 {
		t.Errorf("got vouchers of %d and %d units", uint64(p.From.Body.Total), uint64(p.To.Body.Total))
	}
	_, err := w.payer.m.PayRolling(ctx, to, entry("a", most+50_001))
	code(t, "more than is trusted unconfirmed", err, settle.ErrUnconfirmed)
	w.ledger.Mine(2)
	w.both(to, settle.Open)
	w.pay(to, "a", most+500_000)
	w.closed(to, most+500_000)
}

// Dead at every write of a life with a roll: everything that was acknowledged
// counts, and the channel ends as agreed.
func TestRollCrashAtEveryWrite(t *testing.T) {
	for _, role := range []settle.Role{settle.Payer, settle.Payee} {
		for _, after := range []bool{false, true} {
			for n := 1; ; n++ {
				if !crashingRoll(t, role, n, after) {
					if n < 5 {
						t.Errorf("%s: got a roll of %d writes, want more", role, n-1)
					}
					break
				}
			}
		}
	}
}

func crashingRoll(t *testing.T, role settle.Role, n int, after bool) bool {
	t.Helper()
	w := newWorld(t)
	ctx := t.Context()
	defer w.payer.stop()
	defer w.payee.stop()
	id := w.settled()
	w.pay(id, "a", 60_000)
	victim := w.payer
	if role == settle.Payee {
		victim = w.payee
	}
	dead := victim.store.DieAt(n, after)
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
	var o settle.RollOffer
	var raw []byte
	var err error
	do("roll", func() error {
		o, err = w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity, LifetimeBlocks: 2 * lifetime})
		return err
	})
	do("accept", func() error { raw, err = w.payee.m.AcceptRoll(ctx, o); return err })
	do("complete", func() error { return w.payer.m.CompleteRoll(ctx, id, raw) })
	to, err := o.Successor.ID()
	if err != nil {
		t.Fatal(err)
	}
	for sum := pktcloud.Amount(70_000); sum <= 90_000; sum += 10_000 {
		var p manager.RollPayment
		do("pay", func() error { p, err = w.payer.m.PayRolling(ctx, to, entry("a", sum)); return err })
		do("receive", func() error { return w.payee.m.ReceiveRolling(ctx, p) })
		for _, held := range []pktcloud.ID{id, to} {
			if latest, _ := w.payee.m.Latest(held); latest.Body.Total != sum {
				t.Errorf("%s write %d: the payee holds %d units after acknowledging %d", role, n, uint64(latest.Body.Total), uint64(sum))
			}
		}
	}
	w.ledger.Mine(2)
	restarted := false
	phase := func(want settle.Phase) func(manager.Status) bool {
		return func(st manager.Status) bool {
			if dead() && !restarted { // Run met the write
				restarted = true
				victim.crash()
			}
			return st.Phase == want
		}
	}
	for _, s := range []*side{w.payer, w.payee} {
		s.until(id, "rolled", phase(settle.Rolled))
		s.until(to, "open", phase(settle.Open))
	}
	var offer settle.CloseOffer
	do("offer close", func() error { offer, err = w.payer.m.OfferClose(ctx, to, 90_000); return err })
	do("complete close", func() error { _, err = w.payee.m.CompleteClose(ctx, to, offer); return err })
	w.ledger.Mine(2)
	for _, s := range []*side{w.payer, w.payee} {
		s.until(to, "closed", phase(settle.Closed))
	}
	if got := w.balance(w.payee); got != 90_000 {
		t.Errorf("%s write %d: the payee has %d units, want 90000", role, n, uint64(got))
	}
	return dead()
}

func TestRollRefuses(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	for _, c := range []struct {
		name    string
		request manager.RollRequest
		want    settle.Code
	}{
		{"less than there is", manager.RollRequest{Capacity: capacity - 1}, settle.ErrParams},
		{"an expiry before the channel's", manager.RollRequest{LifetimeBlocks: lifetime / 2}, settle.ErrParams},
		{"more depth than time", manager.RollRequest{MinDepth: 900}, settle.ErrLate},
	} {
		_, err := w.payer.m.Roll(ctx, id, c.request)
		code(t, c.name, err, c.want)
	}
	_, err := w.payee.m.Roll(ctx, id, manager.RollRequest{})
	code(t, "a roll by the payee", err, settle.ErrRole)
	_, err = w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 10 * capacity})
	if !errors.Is(err, settletest.ErrFunds) {
		t.Errorf("more than the wallet has: got %v", err)
	}
	code(t, "complete without a roll", w.payer.m.CompleteRoll(ctx, id, []byte{1}), settle.ErrUnknown)
	if n := w.payer.wallet.Reserved(); n != 1 {
		t.Errorf("%d coins are reserved after refusals, want the funding's", n)
	}
	w.pay(id, "a", 60_000)
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.payer.m.AcceptRoll(ctx, o)
	code(t, "accept by the payer", err, settle.ErrRole)
	for _, c := range []struct {
		name  string
		spoil func(o *settle.RollOffer)
		want  settle.Code
	}{
		{"an unknown channel", func(o *settle.RollOffer) { o.Channel = pktcloud.ID{7} }, settle.ErrUnknown},
		{"no transaction", func(o *settle.RollOffer) { o.Tx = nil }, settle.ErrMalformed},
		{"another signature", func(o *settle.RollOffer) { o.Signature = append([]byte{}, o.Signature[:len(o.Signature)-1]...) }, settle.ErrProof},
		{"no first voucher", func(o *settle.RollOffer) { o.First = pktcloud.Signed[settle.Voucher]{} }, settle.ErrRoll},
		{"another late proof", func(o *settle.RollOffer) { o.Late = o.Signature }, settle.ErrProof},
		{"another depth", func(o *settle.RollOffer) { o.Successor.MinDepth++ }, settle.ErrChannel},
		{"a higher unconfirmed limit", func(o *settle.RollOffer) { o.Successor.Unconfirmed++ }, settle.ErrParams},
		{"another reserve", func(o *settle.RollOffer) { o.Successor.Reserve-- }, settle.ErrParams},
	} {
		bad := o
		c.spoil(&bad)
		_, err := w.payee.m.AcceptRoll(ctx, bad)
		code(t, c.name, err, c.want)
	}
	w.ledger.SetDown(true)
	if _, err := w.payee.m.AcceptRoll(ctx, o); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("with the chain out of sight: got %v", err)
	}
	w.ledger.SetDown(false)
	if st, err := w.payee.m.Status(ctx, id); err != nil || st.Phase != settle.Open {
		t.Errorf("after refusals: got %s, %v, want open", st.Phase, err)
	}
	raw, err := w.payee.m.AcceptRoll(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.payee.m.AcceptRoll(ctx, o); err != nil || !bytes.Equal(raw, again) {
		t.Errorf("the same offer again: got %x, %v", again, err)
	}
	other := o
	other.Ext = map[string][]byte{"x": nil}
	_, err = w.payee.m.AcceptRoll(ctx, other)
	code(t, "another offer", err, settle.ErrRolling)
	code(t, "an answer without signature", w.payer.m.CompleteRoll(ctx, id, o.Tx), settle.ErrProof)
	code(t, "another transaction", w.payer.m.CompleteRoll(ctx, id, w.ledger.Pool()[0][:8]), settle.ErrMalformed)
}

// The payee refuses: the channel pays on as if nothing had been, and a payee that
// publishes the roll all the same has what it held then.
func TestRollWithdrawn(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 60_000)
	reserved := w.payer.wallet.Reserved()
	o, err := w.payer.m.Roll(ctx, id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	to, err := o.Successor.ID()
	if err != nil {
		t.Fatal(err)
	}
	code(t, "abandon the successor", w.payer.m.Abandon(ctx, to), settle.ErrRolling)
	code(t, "announce what the payee has not signed", w.payer.m.Announce(ctx, to), settle.ErrRolling)
	if ids, err := w.payer.m.Unannounced(ctx); err != nil || len(ids) != 0 {
		t.Errorf("got %v, %v to be abandoned, want none", ids, err)
	}
	for range 2 {
		if err := w.payer.m.WithdrawRoll(ctx, id); err != nil {
			t.Fatal(err)
		}
		w.payer.crash()
	}
	if n := w.payer.wallet.Reserved(); n > reserved+1 {
		t.Errorf("%d coins are reserved, want %d", n, reserved)
	}
	w.pay(id, "a", 160_000)
	if raw, err := w.payee.m.AcceptRoll(ctx, o); !errors.Is(err, settle.ErrRoll) {
		t.Errorf("an offer that payments overtook: got %x, %v", raw, err)
	}
	w.closed(id, 160_000)
}

// From the phrase alone: the successor comes back, and nobody waits for the
// predecessor.
func TestRollRestored(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 60_000)
	to := w.roll(id, manager.RollRequest{Capacity: 2 * capacity, LifetimeBlocks: lifetime + 100})
	w.ledger.Mine(2)
	st := w.both(to, settle.Open)
	w.payer.stop()
	w.payee.stop()
	w.payer.store = settletest.NewStore()
	w.payer.cfg.Store = w.payer.store
	w.payer.start()
	eventually(t, "the successor", func() bool {
		for _, r := range w.payer.m.Restored() {
			if r.Funding.TxID == st.FundingTxID && r.Capacity == st.Params.Capacity && r.Expiry == st.Params.ExpiryHeight {
				return len(w.payer.m.Restored()) == 2
			}
		}
		return false
	})
	w.ledger.Mine(lifetime + 120)
	eventually(t, "the refund", func() bool {
		w.ledger.Mine(1)
		for _, r := range w.payer.m.Restored() {
			if r.Funding.TxID == st.FundingTxID && r.Refunded && r.ClosingDepth > 0 {
				return r.Returned+1_000 > 2*capacity
			}
		}
		return false
	})
}

// A payee that deposits at towers has the successor's late claims before it
// signs, and hands them over from the roll's first block on.
func TestRollDeposits(t *testing.T) {
	w := newWorld(t)
	w.payee.stop()
	w.payee.cfg.DepositEvery = 10_000
	w.payee.start()
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 400_000)
	l, err := w.payer.m.LateProof(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.payee.m.TakeLate(ctx, l); err != nil {
		t.Fatal(err)
	}
	to := w.roll(id, manager.RollRequest{LifetimeBlocks: 2 * lifetime})
	w.payee.crash()
	count := func() int {
		list, err := w.payee.m.Parcels(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if n := count(); n != 1 {
		t.Errorf("before a block: got %d parcels, want the predecessor's", n)
	}
	w.ledger.Mine(1)
	w.payee.until(to, "block", func(st manager.Status) bool { return st.Depth == 1 })
	if n := count(); n != 2 {
		t.Errorf("with the roll in a block: got %d parcels, want both", n)
	}
	w.ledger.Mine(1)
	w.both(id, settle.Rolled)
	w.both(to, settle.Open)
	if n := count(); n != 1 {
		t.Errorf("after the roll: got %d parcels, want the successor's", n)
	}
}
