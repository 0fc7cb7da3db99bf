package manager_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// deposited pays a total and returns what the payee deposits of it.
func (w *world) deposited(id pktcloud.ID, total pktcloud.Amount) manager.Parcel {
	w.t.Helper()
	w.pay(id, "a", total)
	w.late(id)
	list, err := w.payee.m.Parcels(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	chain := mustChain(w.t.(*testing.T), w, id)
	for _, p := range list {
		if e, err := pktchain.ReadEnding(w.net, p.Txs[0]); err == nil && e.Funding == chain.Detail.Funding {
			return p
		}
	}
	w.t.Fatal("no parcel of the channel")
	return manager.Parcel{}
}

func (s *side) recall(t *testing.T, parcels ...manager.Parcel) {
	t.Helper()
	if err := s.recalls(t, parcels...); err != nil {
		t.Fatal(err)
	}
}

// recalls is recall that may be refused.
func (s *side) recalls(t *testing.T, parcels ...manager.Parcel) error {
	t.Helper()
	bad, err := s.m.Recall(t.Context(), parcels)
	return errors.Join(append(bad, err)...)
}

// one is the side's only restored channel.
func (s *side) one(t *testing.T) manager.Restored {
	t.Helper()
	list := s.m.Restored()
	if len(list) != 1 {
		t.Fatalf("%s: got %d restored channels, want 1", s.name, len(list))
	}
	return list[0]
}

// mineTo mines up to a height and waits until the side has seen it.
func (w *world) mineTo(height uint64) {
	w.t.Helper()
	tip, err := w.ledger.Tip(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Mine(int(height - tip.Height))
}

// TestRecall: a payee that lost everything but its phrase has its channels back
// from what towers keep, and claims them by itself with the payer withholding
// everything. It loses what followed the last deposit, and no more.
func TestRecall(t *testing.T) {
	w := depositing(t, 1)
	id, small := w.settled(), w.settled()
	first := w.deposited(id, 100_000) // a ladder
	second := w.deposited(id, 700_000)
	single := w.deposited(small, 60_000)
	w.pay(id, "a", 740_000) // never deposited
	w.payer.stop()
	w.payee.stop()
	n := w.anew(w.payee)
	n.recall(t, first, single, second, first, single) // towers that disagree, in any order
	var late uint64
	for _, r := range n.m.Restored() {
		if r.Role != settle.Payee || r.Other || r.Adopted || r.Capacity != capacity || r.From != r.Expiry-margin {
			t.Errorf("taken back: got %+v", r)
		}
		late = max(late, r.From)
	}
	claims := func() (list []pktcloud.Amount) {
		for _, r := range n.m.Restored() {
			list = append(list, r.Claim)
		}
		slices.Sort(list)
		return list
	}
	if got := claims(); !slices.Equal(got, []pktcloud.Amount{60_000 + reserve, 700_000 + reserve}) {
		t.Errorf("claims: got %v, want both channels' last deposits with the reserve", got)
	}
	n.crash()
	if got := claims(); len(got) != 2 {
		t.Fatalf("after a crash: got %v", got)
	}
	w.mineTo(late - 10)
	n.crash()
	eventually(t, "sight of the chain", func() bool { _, done := n.m.Searched(); return done })
	if got := len(w.ledger.Pool()); got != 0 {
		t.Errorf("%d claims before the late height", got)
	}
	w.mineTo(late)
	eventually(t, "late claims", func() bool { return len(w.ledger.Pool()) == 2 })
	if pool := w.ledger.Pool(); !slices.ContainsFunc(pool, func(raw []byte) bool { return bytes.Equal(raw, second.Txs[0]) }) {
		t.Error("the claim is not the one that was deposited, which towers send too")
	}
	n.crash()
	w.ledger.Mine(1)
	eventually(t, "claims in a block", func() bool {
		return !slices.ContainsFunc(n.m.Restored(), func(r manager.Restored) bool { return r.ClosingDepth == 0 })
	})
	var earned pktcloud.Amount
	for _, r := range n.m.Restored() {
		if r.Refunded || r.ClosingTxID == ([32]byte{}) {
			t.Errorf("ended: got %+v", r)
		}
		earned += r.Returned
	}
	if earned < 760_000 {
		t.Errorf("got %d units of 800000 paid, want at least the 760000 that were deposited", uint64(earned))
	}
	w.ledger.Mine(settle.ReorgMargin)
	eventually(t, "rest", func() bool {
		return !slices.ContainsFunc(n.m.Restored(), func(r manager.Restored) bool { return !r.Done() })
	})
	n.crash()
	if got := claims(); len(got) != 2 {
		t.Errorf("at rest after a crash: got %v", got)
	}
}

// TestRecallThroughCrashes: a machine that dies at any write while it takes a
// channel back, or claims it, claims it all the same.
func TestRecallThroughCrashes(t *testing.T) {
	for at := 1; at <= 8; at++ {
		for _, after := range []bool{false, true} {
			w := depositing(t, 1)
			p := w.deposited(w.settled(), 100_000)
			w.payer.stop()
			w.payee.stop()
			n := w.anew(w.payee)
			n.stop()
			n.store = settletest.NewStore()
			n.cfg.Store = n.store
			dead := n.store.DieAt(at, after)
			n.start()
			_ = n.recalls(t, p)
			w.ledger.Mine(lifetime - margin)
			eventually(t, "crash or claim", func() bool { return dead() || len(w.ledger.Pool()) == 1 })
			n.crash()
			n.recall(t, p) // towers are asked at each start
			eventually(t, "claim", func() bool { return len(w.ledger.Pool()) == 1 })
			n.stop()
		}
	}
}

// TestRecallIsDurable: what Recall reports as done is in the store.
func TestRecallIsDurable(t *testing.T) {
	w := depositing(t, 1)
	p := w.deposited(w.settled(), 100_000)
	w.payee.stop()
	n := w.anew(w.payee)
	n.found(t, 0)
	n.store.FailWhen(func(int) bool { return true })
	if err := n.recalls(t, p); err == nil {
		t.Error("a store that fails: got no error")
	}
	if got := len(n.m.Restored()); got != 0 {
		t.Errorf("%d channels are shown that are not stored", got)
	}
	n.store.FailWhen(nil)
	n.recall(t, p)
	detail, err := pktchain.ParsePayeeDetail(detailOf(t, n))
	if err != nil {
		t.Fatal(err)
	}
	used, err := pktchain.ReadEnding(w.net, p.Txs[0])
	if err != nil {
		t.Fatal(err)
	}
	if again, err := n.cfg.Keychain.PayeeKey(0); err != nil || bytes.Equal(detail.Key, again) {
		t.Errorf("the key of a channel that came back (%v) is handed out again (%v)", used.Funding, err)
	}
}

// TestRecallRefuses: whatever a hostile tower answers changes nothing.
func TestRecallRefuses(t *testing.T) {
	w := depositing(t, 1)
	id, ended := w.settled(), w.settled()
	good := w.deposited(id, 100_000)
	other := w.deposited(ended, 300_000)
	foreign := w.payer.parcels(t)[0]
	offer, err := w.payer.m.OfferClose(t.Context(), ended, 300_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.payee.m.CompleteClose(t.Context(), ended, offer); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(1)
	stranger := w.side("stranger")
	n := w.anew(w.payee)
	altered := func(change func(raw []byte)) manager.Parcel {
		p := manager.Parcel{Owner: good.Owner, Txs: [][]byte{bytes.Clone(good.Txs[0])}}
		change(p.Txs[0])
		return p
	}
	late := txOf(t, good.Txs[0])
	at := bytes.Index(good.Txs[0], late.TxOut[0].PkScript)
	for _, c := range []struct {
		name string
		p    manager.Parcel
		want settle.Code // zero: nothing is said
	}{
		{"nothing", manager.Parcel{Owner: good.Owner}, settle.ErrMalformed},
		{"no transaction", manager.Parcel{Owner: good.Owner, Txs: [][]byte{{1, 2}}}, settle.ErrMalformed},
		{"a client that the owner did not name", manager.Parcel{Owner: other.Owner, Txs: good.Txs}, settle.ErrProof},
		{"a smaller payer's part", altered(func(raw []byte) { raw[at-9] ^= 1 }), settle.ErrProof},
		{"a changed lock time", altered(func(raw []byte) { raw[len(raw)-4]-- }), settle.ErrProof},
		{"levels upside down", manager.Parcel{Owner: good.Owner, Txs: [][]byte{good.Txs[1], good.Txs[0]}}, settle.ErrFee},
		{"levels of two totals", manager.Parcel{Owner: good.Owner, Txs: [][]byte{good.Txs[0], other.Txs[0]}}, settle.ErrFunding},
		{"a channel that has ended", other, 0},
		{"a refund", foreign, settle.ErrProof},
	} {
		err := n.recalls(t, c.p)
		if c.want != 0 {
			code(t, c.name, err, c.want)
		} else if err != nil {
			t.Errorf("%s: got %v, want nothing", c.name, err)
		}
	}
	if err := stranger.recalls(t, good); err == nil {
		t.Error("another phrase took the channel")
	}
	if a, b := len(n.m.Restored()), len(stranger.m.Restored()); a != 0 || b != 0 {
		t.Fatalf("refused deposits left %d and %d channels", a, b)
	}
	err = n.recalls(t, altered(func(raw []byte) { raw[0] = 1 }), good) // one bad does not hide a good one
	code(t, "a version 1", err, settle.ErrMalformed)
	if n.one(t).Claim != 100_000+reserve {
		t.Error("a bad deposit before it hid a good one")
	}
	w.payer.recall(t, foreign)
	if list := w.payer.m.Restored(); len(list) != 0 {
		t.Errorf("the payer's own refund: got %+v", list)
	}
	w.ledger.SetDown(true)
	if err := n.recalls(t, good); err == nil {
		t.Error("a chain out of reach: got no error")
	}
	w.ledger.SetDown(false)
}

func (s *side) parcels(t *testing.T) []manager.Parcel {
	t.Helper()
	list, err := s.m.Parcels(t.Context())
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: got %d parcels, %v", s.name, len(list), err)
	}
	return list
}

// TestRecallOutbids: an older deposit in wrong hands is in the mempool first and
// gains nothing; a tower that answers late, with a newer deposit, is heard; and
// blocks that are full make the claim pay more.
func TestRecallOutbids(t *testing.T) {
	w := depositing(t, 1)
	id := w.settled()
	old := w.deposited(id, 100_000)
	newer := w.deposited(id, 400_000)
	newest := w.deposited(id, 900_000)
	late := mustParams(t, w, id).LateHeight()
	w.payer.stop()
	w.payee.stop()
	n := w.anew(w.payee)
	n.recall(t, newer)
	w.mineTo(late)
	pooled := func(what string, raw []byte) {
		t.Helper()
		eventually(t, what, func() bool { p := w.ledger.Pool(); return len(p) == 1 && bytes.Equal(p[0], raw) })
	}
	pooled("claim", newer.Txs[0])
	for _, raw := range old.Txs {
		if err := w.ledger.Broadcast(t.Context(), raw); err == nil {
			t.Error("an older deposit replaced the claim")
		}
	}
	w.ledger.SetFeeRate(40_000)
	for range settle.RaiseBlocks {
		w.ledger.MineFull(1, 1_000_000)
	}
	eventually(t, "a raised claim", func() bool { p := w.ledger.Pool(); return len(p) == 1 && !bytes.Equal(p[0], newer.Txs[0]) })
	raised := w.ledger.Pool()[0]
	n.crash()
	n.recall(t, newest) // another tower is back
	w.ledger.MineFull(1, 1_000_000)
	eventually(t, "the newest claim over it", func() bool {
		p := w.ledger.Pool()
		return len(p) == 1 && !bytes.Equal(p[0], raised) && txOf(t, p[0]).TxOut[0].Value == capacity-900_000-reserve
	})
	w.ledger.Mine(1)
	eventually(t, "a claim in a block", func() bool { return n.one(t).ClosingDepth > 0 })
	if got := n.one(t).Returned; got < 860_000 {
		t.Errorf("got %d units, want the newest deposit's less a fee", uint64(got))
	}
}

// TestRecallOfAnOldStore: a store that was brought back from an old copy claims
// what a tower knows to be paid since, and not its own old voucher.
func TestRecallOfAnOldStore(t *testing.T) {
	w := depositing(t, 1)
	id := w.settled()
	w.deposited(id, 100_000)
	copied := w.payee.store.Clone()
	p := w.deposited(id, 800_000)
	w.payee.recall(t, p) // what a store has itself
	if got := len(w.payee.m.Restored()); got != 0 {
		t.Errorf("a store that knows all took %d channels back", got)
	}
	params := mustParams(t, w, id)
	w.payer.stop()
	w.payee.stop()
	w.payee.store, w.payee.cfg.Store = copied, copied
	w.payee.start()
	w.payee.recall(t, p)
	w.mineTo(params.Deadline() + 1)
	w.payee.crash()
	w.payee.until(id, "sight", func(s manager.Status) bool { return s.Height > params.Deadline() })
	eventually(t, "sight of the chain", func() bool { _, done := w.payee.m.Searched(); return done })
	if got := len(w.ledger.Pool()); got != 0 {
		t.Error("the old voucher was claimed")
	}
	w.mineTo(params.LateHeight())
	eventually(t, "the late claim", func() bool { pool := w.ledger.Pool(); return len(pool) == 1 && bytes.Equal(pool[0], p.Txs[0]) })
	w.ledger.Mine(2)
	st := w.payee.until(id, "end", func(s manager.Status) bool { return s.Phase == settle.Closed })
	if want := pktcloud.Amount(txOf(t, p.Txs[0]).TxOut[1].Value); st.Settled != want || want < 790_000 {
		t.Errorf("got %d units, want the %d of the deposit", uint64(st.Settled), uint64(want))
	}
}

// TestTwoPayees: a machine notices by a tower that another one earns with its
// phrase, and leaves that one time to claim.
func TestTwoPayees(t *testing.T) {
	w := depositing(t, 1)
	twin := w.anew(w.payee)
	twin.found(t, 0)
	id := w.settled()
	p := w.deposited(id, 100_000)
	late := mustParams(t, w, id).LateHeight()
	if twin.m.OtherMachine() {
		t.Error("another machine before it was seen")
	}
	twin.recall(t, p)
	if r := twin.one(t); !r.Other || !twin.m.OtherMachine() {
		t.Errorf("not noticed as another machine's: %+v", r)
	}
	w.payee.recall(t, p)
	if w.payee.m.OtherMachine() || len(w.payee.m.Restored()) != 0 {
		t.Error("its own channel is another machine's")
	}
	if len(twin.m.Lost()) != 0 {
		t.Error("it asks for the channel of another machine")
	}
	w.payee.stop() // the other machine is lost in the end
	w.payer.stop()
	w.mineTo(late + 11)
	twin.crash()
	eventually(t, "sight of the chain", func() bool { h, done := twin.m.Searched(); return done && h == late+11 })
	if got := len(w.ledger.Pool()); got != 0 {
		t.Errorf("%d claims at the late height, want a grace for the other machine", got)
	}
	w.ledger.Mine(1)
	eventually(t, "claim after the grace", func() bool { return len(w.ledger.Pool()) == 1 })
}

// TestRecallSurvivesReorg: a claim that a reorganisation took is brought back,
// and one that is not there any more.
func TestRecallSurvivesReorg(t *testing.T) {
	w := depositing(t, 1)
	id := w.settled()
	p := w.deposited(id, 100_000)
	late := mustParams(t, w, id).LateHeight()
	w.payer.stop()
	w.payee.stop()
	n := w.anew(w.payee)
	n.recall(t, p)
	w.mineTo(late)
	eventually(t, "claim", func() bool { return len(w.ledger.Pool()) == 1 })
	w.ledger.Mine(3)
	eventually(t, "a claim in a block", func() bool { return n.one(t).ClosingDepth == 3 })
	w.ledger.Reorg(3)
	eventually(t, "the claim again", func() bool { return n.one(t).ClosingDepth == 0 && len(w.ledger.Pool()) == 1 })
}
