package manager_test

import (
	"errors"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// anew is a side that has nothing but its phrase: an empty store, a wallet that
// begins again, another device.
func (w *world) anew(s *side) *side {
	w.t.Helper()
	n := &side{t: w.t, name: s.name + " anew", cfg: s.cfg, wallet: settletest.NewWallet(network(w.t), w.ledger, s.name), store: settletest.NewStore()}
	n.cfg.Store, n.cfg.Wallet, n.cfg.DeviceKey = n.store, n.wallet, pktcloud.NewPrivateKey([32]byte{99})
	n.start()
	w.t.Cleanup(func() { n.stop() })
	return n
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("no %s within two minutes", what)
}

// found waits for channels that the phrase alone brings back.
func (s *side) found(t *testing.T, count int) []manager.Restored {
	t.Helper()
	eventually(t, "restored channels", func() bool {
		_, done := s.m.Searched()
		return done && len(s.m.Restored()) == count
	})
	return s.m.Restored()
}

func indexOf(t *testing.T, s *side, funding []byte) uint32 {
	t.Helper()
	r, err := s.cfg.Keychain.Restore(funding, pktchain.RefundKeys{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Index
}

// TestRestore: from the phrase alone on an empty store, every channel is found
// and refunded, also with payees that stay silent, through crashes at any write.
func TestRestore(t *testing.T) {
	w := newWorld(t)
	first := w.settled()
	w.settled() // was never paid
	w.pay(first, "a", 40_000)
	w.payee.stop() // withholds everything
	w.payer.stop() // and the payer's machine is gone
	n := w.anew(w.payer)
	for _, r := range n.found(t, 2) {
		if r.Other || r.Adopted || r.Capacity != capacity || r.Expiry == 0 {
			t.Errorf("restored: got %+v", r)
		}
	}
	n.crash() // and knows them without another search
	n.found(t, 2)
	w.ledger.Mine(lifetime)
	for round := range 2 {
		eventually(t, "refunds", func() bool { return len(w.ledger.Pool()) == 2*(1-round) })
		n.crash()
		w.ledger.Mine(1)
	}
	eventually(t, "refunds in a block", func() bool {
		for _, r := range n.m.Restored() {
			if !r.Refunded || r.ClosingDepth == 0 {
				return false
			}
		}
		return len(n.m.Restored()) == 2
	})
	if got := w.balance(n); got < 2*capacity-2_000 || got >= 2*capacity {
		t.Errorf("came back: %d units of %d, want all but two fees", uint64(got), 2*capacity)
	}
	w.ledger.Mine(settle.ReorgMargin)
	eventually(t, "rest", func() bool {
		for _, r := range n.m.Restored() {
			if !r.Done() {
				return false
			}
		}
		return true
	})
}

func detailOf(t *testing.T, s *side) []byte {
	t.Helper()
	d, err := s.m.PayeeDetail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRestoreThroughCrashes: a machine that dies at any write of a restore finds
// and refunds everything all the same.
func TestRestoreThroughCrashes(t *testing.T) {
	for at := 1; at <= 8; at++ {
		for _, after := range []bool{false, true} {
			w := newWorld(t)
			w.settled()
			w.payer.stop()
			w.payee.stop()
			n := w.anew(w.payer)
			n.stop()
			n.store = settletest.NewStore()
			n.cfg.Store = n.store
			dead := n.store.DieAt(at, after)
			n.start()
			w.ledger.Mine(lifetime)
			eventually(t, "crash or refund", func() bool { return dead() || len(w.ledger.Pool()) == 1 })
			n.crash()
			n.found(t, 1)
			eventually(t, "refund", func() bool { return len(w.ledger.Pool()) == 1 })
			n.stop()
		}
	}
}

// TestRestoreTakesFreshIndexes: no index of an earlier store is used again.
func TestRestoreTakesFreshIndexes(t *testing.T) {
	w := newWorld(t)
	w.settled()
	w.settled()
	w.payer.stop()
	n := w.anew(w.payer)
	script, err := n.wallet.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ledger.Mint(script, 30_000_000)
	_, funding, err := n.m.Open(t.Context(), manager.OpenRequest{ // at once: it waits for the search
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detailOf(t, w.payee), Capacity: capacity, MinDepth: 1, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := indexOf(t, n, funding); got != 2 {
		t.Errorf("index %d of a channel after two, want 2", got)
	}
}

// TestRestoreBirthday: nothing is looked for below the birthday, less the
// margin for reorganisations.
func TestRestoreBirthday(t *testing.T) {
	w := newWorld(t)
	w.settled()
	w.payer.stop()
	w.ledger.Mine(2 * settle.ReorgMargin)
	for _, birthday := range []uint64{1 << 40, 2 * settle.ReorgMargin} {
		n := w.side("payer")
		n.stop()
		n.cfg.Store, n.cfg.Birthday = settletest.NewStore(), birthday
		n.start()
		n.found(t, 0)
		n.stop()
	}
}

// TestAdopt: a payee that shows the latest voucher gets a close at once; it
// cannot have more than that, nor send the payer's part elsewhere.
func TestAdopt(t *testing.T) {
	w := newWorld(t)
	id, other := w.settled(), w.settled()
	low := w.pay(id, "a", 10_000)
	high := w.pay(id, "a", 70_000)
	foreign := w.pay(other, "a", 90_000)
	st, err := w.payee.m.Status(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.payer.stop()
	n := w.anew(w.payer)
	n.found(t, 2)
	stolen := st.Params
	d, err := pktchain.ParseDetail(stolen.Detail)
	if err != nil {
		t.Fatal(err)
	}
	d.PayerScript = append([]byte{0, 20}, make([]byte, 20)...)
	if stolen.Detail, err = d.Encode(); err != nil {
		t.Fatal(err)
	}
	moved := reseal(t, w.payer, high, stolen)
	d, err = pktchain.ParseDetail(st.Params.Detail)
	if err != nil {
		t.Fatal(err)
	}
	d.Funding.Index++
	elsewhere := st.Params
	if elsewhere.Detail, err = d.Encode(); err != nil {
		t.Fatal(err)
	}
	larger := st.Params
	larger.Capacity++
	cheap := st.Params
	cheap.Reserve--
	for _, c := range []struct {
		name string
		p    settle.Params
		v    pktcloud.Signed[settle.Voucher]
		want error
	}{
		{"a voucher of another channel", st.Params, foreign, settle.ErrChannel},
		{"another script for the payer's part", stolen, moved, settle.ErrProof},
		{"another capacity", larger, high, settle.ErrParams},
		{"another reserve", cheap, reseal(t, w.payer, high, cheap), settle.ErrProof},
		{"a channel that the phrase did not fund", elsewhere, high, settle.ErrUnknown},
		{"no voucher", st.Params, pktcloud.Signed[settle.Voucher]{}, settle.ErrMalformed},
	} {
		if _, err := n.m.Adopt(t.Context(), c.p, c.v); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if got := len(n.m.List()); got != 0 {
		t.Fatalf("refused vouchers left %d channels", got)
	}
	for _, v := range []pktcloud.Signed[settle.Voucher]{low, high, low} {
		if got, err := n.m.Adopt(t.Context(), st.Params, v); err != nil || got != id {
			t.Fatalf("adopt: %v, %v", got, err)
		}
	}
	n.crash()
	if v, ok := n.m.Latest(id); !ok || v.Body.Total != 70_000 {
		t.Errorf("adopted: %d units, %v; want 70000", uint64(v.Body.Total), ok)
	}
	if _, err := n.m.Pay(t.Context(), id, entry("a", 80_000)); !errors.Is(err, settle.ErrClosed) {
		t.Errorf("pay over an adopted channel: got %v, want ErrClosed", err)
	}
	offer, err := n.m.OfferClose(t.Context(), id, 70_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.payee.m.CompleteClose(t.Context(), id, offer); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(2)
	n.until(id, "close", func(s manager.Status) bool { return s.Phase == settle.Closed && s.Settled == 70_000 })
}

// reseal signs a voucher for other parameters, as a hostile payee cannot: with
// the payer's device, but the proof of the old ones.
func reseal(t *testing.T, payer *side, v pktcloud.Signed[settle.Voucher], p settle.Params) pktcloud.Signed[settle.Voucher] {
	t.Helper()
	body := v.Body
	var err error
	if body.Channel, err = p.ID(); err != nil {
		t.Fatal(err)
	}
	s, err := pktcloud.Seal(payer.cfg.DeviceKey, body)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTwoMachines: a machine notices that another one uses its phrase, says so,
// and takes indexes above the other's.
func TestTwoMachines(t *testing.T) {
	w := newWorld(t)
	twin := w.anew(w.payer)
	twin.found(t, 0)
	w.settled()
	w.settled()
	for _, r := range twin.found(t, 2) {
		if !r.Other {
			t.Errorf("not noticed as another machine's: %+v", r)
		}
	}
	if got := w.payer.found(t, 0); len(got) != 0 {
		t.Errorf("its own channels: %+v", got)
	}
	script, err := twin.wallet.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ledger.Mint(script, 30_000_000)
	_, funding, err := twin.m.Open(t.Context(), manager.OpenRequest{
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detailOf(t, w.payee), Capacity: capacity, MinDepth: 1, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := indexOf(t, twin, funding); got != 2 {
		t.Errorf("index %d, want 2, above the other machine's", got)
	}
	w.payer.stop() // the other machine is lost in the end
	w.ledger.Mine(lifetime)
	time.Sleep(50 * time.Millisecond)
	if got := len(w.ledger.Pool()); got != 0 {
		t.Errorf("%d refunds at the expiry, want a grace for the other machine", got)
	}
	w.ledger.Mine(12)
	eventually(t, "refunds after the grace", func() bool { return len(w.ledger.Pool()) == 2 })
}

// TestRestoreSurvivesReorg: what a reorganisation took from the chain is
// brought back by the restored store.
func TestRestoreSurvivesReorg(t *testing.T) {
	w := newWorld(t)
	w.settled()
	w.payer.stop()
	w.payee.stop()
	n := w.anew(w.payer)
	at := n.found(t, 1)[0].Funding
	w.ledger.Reorg(3)
	eventually(t, "the funding in the mempool", func() bool { return len(w.ledger.Pool()) == 1 })
	w.ledger.Mine(1)
	if out, err := w.ledger.Output(t.Context(), at); err != nil || out.Depth != 1 {
		t.Errorf("the funding: depth %d, %v", out.Depth, err)
	}
	n.found(t, 1)
}
