package settle_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func (stubRail) VerifyLate(p settle.Params, total pktcloud.Amount, proof []byte) error {
	if string(proof) != string(stubProof(p, total+1)) {
		return settle.Refuse(settle.ErrProof, "stub late proof")
	}
	return nil
}

func lateProof(c settle.Channel, total pktcloud.Amount) settle.LateProof {
	return settle.LateProof{Version: settle.LateProofVersion, Channel: c.ID, Total: total, Signature: stubProof(c.Params, total+1)}
}

// bothPaid is a channel from both sides after one voucher.
func bothPaid(t testing.TB, units pktcloud.Amount) (payer, payee settle.Channel) {
	t.Helper()
	payer, v := pay(t, settledChannel(t, settle.Payer), entry(1, units))
	payee, err := settledChannel(t, settle.Payee).Accept(v, stubRail{})
	if err != nil {
		t.Fatal(err)
	}
	return payer, payee
}

func TestLateHeight(t *testing.T) {
	if p := params(); p.LateHeight() != 1_000-144 || p.LateHeight() != p.Deadline()+p.MarginBlocks {
		t.Errorf("got %d, want a margin between the deadline %d and the expiry", p.LateHeight(), p.Deadline())
	}
}

func TestLate(t *testing.T) {
	payer, payee := bothPaid(t, 5_000)
	l, err := payer.Late()
	if err != nil || l.Total != 5_000 || l.Channel != payer.ID || l.Version != settle.LateProofVersion {
		t.Errorf("got %+v, %v, want the latest voucher's total", l, err)
	}
	opening, _ := pay(t, channel(t, settle.Payer), entry(1, 900))
	if l, err := opening.Late(); opening.Phase != settle.Opening || err != nil || l.Total != 900 {
		t.Errorf("before the funding has depth: got %+v, %v, want a proof", l, err)
	}
	_, err = payee.Late()
	wantCode(t, err, settle.ErrRole)
	_, err = settledChannel(t, settle.Payer).Late()
	wantCode(t, err, settle.ErrClose)
	_, err = payer.At(payer.Params.Deadline()).Late()
	wantCode(t, err, settle.ErrLate)
	closing, err := payer.OfferClose(offer(payer.Params, 5_000, 300))
	if err != nil {
		t.Fatal(err)
	}
	_, err = closing.Late()
	wantCode(t, err, settle.ErrClosed)
}

// TestLateProofEdges shows the limits of the record to the unit.
func TestLateProofEdges(t *testing.T) {
	ext := func(n int) map[string][]byte {
		m := map[string][]byte{}
		for i := range n {
			m[string(rune('a'+i))] = nil
		}
		return m
	}
	good := lateProof(settledChannel(t, settle.Payee), 1)
	for name, mutate := range map[string]func(l *settle.LateProof){
		"one unit":              func(*settle.LateProof) {},
		"the largest amount":    func(l *settle.LateProof) { l.Total = pktcloud.MaxAmount },
		"the longest signature": func(l *settle.LateProof) { l.Signature = make([]byte, settle.MaxProofBytes) },
		"the most extensions":   func(l *settle.LateProof) { l.Ext = ext(settle.MaxExt) },
	} {
		l := good
		if mutate(&l); l.Validate() != nil {
			t.Errorf("%s: %v", name, l.Validate())
		}
	}
	for name, mutate := range map[string]func(l *settle.LateProof){
		"no unit":                   func(l *settle.LateProof) { l.Total = 0 },
		"a unit too many":           func(l *settle.LateProof) { l.Total = pktcloud.MaxAmount + 1 },
		"no signature":              func(l *settle.LateProof) { l.Signature = nil },
		"a byte too many":           func(l *settle.LateProof) { l.Signature = make([]byte, settle.MaxProofBytes+1) },
		"an extension too many":     func(l *settle.LateProof) { l.Ext = ext(settle.MaxExt + 1) },
		"a version before":          func(l *settle.LateProof) { l.Version-- },
		"a version not yet written": func(l *settle.LateProof) { l.Version++ },
	} {
		t.Run(name, func(t *testing.T) {
			l := good
			mutate(&l)
			wantCode(t, l.Validate(), settle.ErrMalformed)
		})
	}
	_, err := settle.ParseLateProof([]byte{0xff})
	wantCode(t, err, settle.ErrMalformed)
}

func TestCheckLate(t *testing.T) {
	payer, payee := bothPaid(t, 5_000)
	good := lateProof(payee, 5_000)
	if err := payee.CheckLate(good, 5_000, stubRail{}); err != nil {
		t.Errorf("the latest total again: %v", err)
	}
	if err := payee.CheckLate(lateProof(payee, 4_000), 3_000, stubRail{}); err != nil {
		t.Errorf("a proof that a voucher overtook: %v", err)
	}
	claimed, err := payee.Claim()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		c    settle.Channel
		l    settle.LateProof
		last pktcloud.Amount
		want settle.Code
	}{
		{"by the payer", payer, good, 0, settle.ErrRole},
		{"malformed", payee, lateProof(payee, 0), 0, settle.ErrMalformed},
		{"another channel", payee, settle.LateProof{Version: 1, Channel: lease(1), Total: 5_000, Signature: []byte{1}}, 0, settle.ErrChannel},
		{"less than the last", payee, lateProof(payee, 4_000), 4_001, settle.ErrFell},
		{"more than was paid", payee, lateProof(payee, 5_001), 0, settle.ErrCapacity},
		{"another total's proof", payee, settle.LateProof{Version: 1, Channel: payee.ID, Total: 5_000, Signature: stubProof(payee.Params, 5_000)}, 0, settle.ErrProof},
		{"after a claim", claimed, good, 0, settle.ErrClosed},
		{"at the deadline", payee.At(payee.Params.Deadline()), good, 0, settle.ErrLate},
		{"without a voucher", settledChannel(t, settle.Payee), good, 0, settle.ErrClose},
	} {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, tt.c.CheckLate(tt.l, tt.last, stubRail{}), tt.want) })
	}
}

// What would be lost with all towers in hostile hands stays below every, as
// long as each proof that is due arrives.
func TestLateDue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		every := pktcloud.Amount(rapid.IntRange(0, 5_000).Draw(rt, "every"))
		c := settledChannel(t, settle.Payer)
		payee := settledChannel(t, settle.Payee)
		var last, paid pktcloud.Amount
		for range rapid.IntRange(1, 10).Draw(rt, "vouchers") {
			paid += pktcloud.Amount(rapid.IntRange(1, 4_000).Draw(rt, "more"))
			next, v := pay(t, c, entry(1, paid))
			c = next
			var err error
			if payee, err = payee.Accept(v, stubRail{}); err != nil {
				rt.Fatal(err)
			}
			if payee.LateDue(last, every) {
				last = paid
			}
			if every == 0 && last != 0 {
				rt.Fatal("a deposit without wanting any")
			}
			if every > 0 && paid-last >= every {
				rt.Fatalf("%d units after the last deposit of %d, every %d", uint64(paid-last), uint64(last), uint64(every))
			}
		}
		if payee.At(payee.Params.Deadline()).LateDue(0, 1) || c.LateDue(0, 1) {
			rt.Fatal("due at the deadline, or to the payer")
		}
	})
	if _, payee := bothPaid(t, 500); payee.LateDue(0, 501) || payee.LateDue(1, 500) || !payee.LateDue(0, 500) {
		t.Error("due before so many units were paid, or not when they were")
	}
	if _, payee := bothPaid(t, 500); payee.Observe(settle.Observation{Height: 111, Funded: true, Depth: 2}).LateDue(0, 1) {
		t.Error("due before the funding is deep")
	}
}

func FuzzParseLateProof(f *testing.F) {
	seed(f, "late-proof-")
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := settle.ParseLateProof(data)
		if err != nil {
			return
		}
		if again, err := l.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}
