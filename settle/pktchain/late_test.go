package pktchain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

func (f fixture) late(t testing.TB, total pktcloud.Amount) settle.LateProof {
	t.Helper()
	id, err := f.params.ID()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := f.signer.SignLate(total)
	if err != nil {
		t.Fatal(err)
	}
	return settle.LateProof{Version: settle.LateProofVersion, Channel: id, Total: total, Signature: sig}
}

func (f fixture) lateClaims(t testing.TB, total pktcloud.Amount, fees ...pktcloud.Amount) [][]byte {
	t.Helper()
	raws, err := f.payee.LateClaims(f.channel, 4, f.late(t, total), fees)
	if err != nil {
		t.Fatal(err)
	}
	return raws
}

// funded is the funding output as a ledger knows it.
func (f fixture) funded() settle.Output {
	return settle.Output{Known: true, Depth: 3, Amount: capacity, Script: f.channel.PkScript()}
}

// One late proof serves every fee, never an early claim, and cuts nothing from
// the payer.
func TestLateClaims(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	l := f.late(t, 1_000_000)
	if again := f.late(t, 1_000_000); !slices.Equal(again.Signature, l.Signature) {
		t.Error("the same late proof again: got another signature")
	}
	if err := f.channel.VerifyLate(l.Total, l.Signature); err != nil {
		t.Fatal(err)
	}
	for _, raw := range f.lateClaims(t, 1_000_000, 200, 900, 250_000) {
		tx := decode(t, raw)
		if tx.LockTime != expiry-144 || tx.TxIn[0].Sequence != 0xfffffffd || tx.TxOut[0].Value != capacity-1_000_000-reserve {
			t.Errorf("got lock time %d, sequence %x, %d to the payer", tx.LockTime, tx.TxIn[0].Sequence, tx.TxOut[0].Value)
		}
		if err := f.standard(tx); err != nil {
			t.Errorf("standard scripts: %v", err)
		}
		for name, change := range map[string]func(*wire.MsgTx){
			"lock time":          func(tx *wire.MsgTx) { tx.LockTime-- },
			"the payer's output": func(tx *wire.MsgTx) { tx.TxOut[0].Value-- },
		} {
			other := tx.Copy()
			change(other)
			if f.standard(other) == nil {
				t.Errorf("a changed %s: got a valid transaction", name)
			}
		}
	}
	voucher := f.voucher(t, 1_000_000)
	wantCode(t, f.channel.VerifyLate(1_000_000, voucher.Proof), settle.ErrProof)
	wantCode(t, f.channel.VerifyVoucher(1_000_000, l.Signature), settle.ErrProof)
	_, err := f.payee.Claim(f.channel, 4, settle.Voucher{Total: 1_000_000, Proof: l.Signature}, 400)
	wantCode(t, err, settle.ErrProof)
	_, err = f.payee.LateClaims(f.channel, 4, l, []pktcloud.Amount{179})
	wantCode(t, err, settle.ErrFee)
	_, err = f.payee.LateClaims(f.channel, 4, l, []pktcloud.Amount{1_005_000 - 293})
	wantCode(t, err, settle.ErrDust)
	_, err = f.signer.SignLate(0)
	wantCode(t, err, settle.ErrCapacity)
}

func levelOf(t testing.TB, c pktchain.Channel, raw []byte) pktchain.Level {
	t.Helper()
	l, err := c.LevelOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Every level of a deposit beats every level of all deposits before it, as the
// rules of replacement count, whatever the rates of the days.
func TestLateFees(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	rapid.Check(t, func(rt *rapid.T) {
		var above pktchain.Level
		total := pktcloud.Amount(rapid.IntRange(1, 200_000).Draw(rt, "first"))
		for range rapid.IntRange(1, 4).Draw(rt, "deposits") {
			rate := pktcloud.Amount(rapid.IntRange(0, 20_000).Draw(rt, "rate"))
			fees, err := f.channel.LateFees(total, rate, above)
			total += pktcloud.Amount(rapid.IntRange(0, 100_000).Draw(rt, "more"))
			if err != nil {
				if part := total + reserve; part > 2*(above.Fee+1000) && above.Fee > 0 {
					rt.Fatalf("a part of %d units is not worth more than %d: %v", part, above.Fee, err)
				}
				continue
			}
			if len(fees) > 1 && above.Fee > 0 {
				rt.Fatalf("got %d levels in a later deposit, want 1", len(fees))
			}
			for _, raw := range f.lateClaims(t, total, fees...) {
				level := levelOf(t, f.channel, raw)
				if above.Fee > 0 && !level.Beats(above, network(t)) {
					rt.Fatalf("got %+v, which does not beat %+v", level, above)
				}
				above = level
			}
		}
	})
	fees, err := f.channel.LateFees(1_000_000, 2_000, pktchain.Level{})
	if err != nil || fmt.Sprint(fees) != fmt.Sprint([]pktcloud.Amount{360, 1440, 5760, 23040}) {
		t.Errorf("got %d, %v", fees, err)
	}
	if fees, err = f.channel.LateFees(10_000, 2_000, pktchain.Level{}); err != nil || fees[len(fees)-1] != 15_000/4 {
		t.Errorf("a small total: got %d, %v, want a quarter of it at most", fees, err)
	}
	if _, err = f.channel.LateFees(100, 2_000, pktchain.Level{Fee: 5_000, VBytes: 180}); err == nil {
		t.Error("a fee beyond the payee's part: got no error")
	}
	if fees := f.channel.RefundFees(2_000); len(fees) != 4 || fees[0] < 260 || fees[3] != 64*fees[0] {
		t.Errorf("refund: got %d", fees)
	}
}

func TestBeats(t *testing.T) {
	n := network(t)
	old := pktchain.Level{Fee: 1000, VBytes: 180}
	for _, tt := range []struct {
		name string
		l    pktchain.Level
		want bool
	}{
		{"the same", old, false},
		{"one unit short of the step", pktchain.Level{Fee: 1179, VBytes: 180}, false},
		{"the step", pktchain.Level{Fee: 1180, VBytes: 180}, true},
		{"larger, less per byte", pktchain.Level{Fee: 1400, VBytes: 300}, false},
		{"beyond 64 bits", pktchain.Level{Fee: pktcloud.MaxAmount, VBytes: 1000}, true},
	} {
		if got := tt.l.Beats(old, n); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// refunds is a refund ladder of the fixture's payer.
func (f fixture) refunds(t testing.TB, fees ...pktcloud.Amount) [][]byte {
	t.Helper()
	raws, err := f.payer.RefundLadder(f.channel, 7, fees)
	if err != nil {
		t.Fatal(err)
	}
	return raws
}

func TestReadEnding(t *testing.T) {
	n := network(t)
	f := fund(t, pktchain.RefundKeys{}, nil)
	low, high := f.lateClaims(t, 1_000_000, 400, 2_000)[0], f.lateClaims(t, 1_000_000, 400, 2_000)[1]
	e, err := pktchain.ReadEnding(n, low)
	if err != nil {
		t.Fatal(err)
	}
	if e.Kind != pktchain.EndLate || e.LockHeight != expiry-144 || e.Expiry != expiry || e.ToPayer != capacity-1_000_000-reserve || e.Funding != f.channel.Detail.Funding {
		t.Errorf("got %+v", e)
	}
	level, err := e.Verify(n, f.funded())
	if err != nil || level != levelOf(t, f.channel, low) {
		t.Errorf("got %+v, %v", level, err)
	}
	other, err := pktchain.ReadEnding(n, high)
	if err != nil || !e.SameAs(other) {
		t.Errorf("another fee: got another ending (%v)", err)
	}
	if other, err = pktchain.ReadEnding(n, f.lateClaims(t, 1_000_001, 400)[0]); err != nil || e.SameAs(other) {
		t.Errorf("another total: got the same ending (%v)", err)
	}
	refund, err := pktchain.ReadEnding(n, f.refunds(t, 400)[0])
	if err != nil || refund.Kind != pktchain.EndRefund || refund.LockHeight != expiry || refund.ToPayer != capacity-400 {
		t.Fatalf("refund: got %+v, %v", refund, err)
	}
	if level, err := refund.Verify(n, f.funded()); err != nil || level.Fee != 400 {
		t.Errorf("refund: got %+v, %v", level, err)
	}
	wrong := f.funded()
	wrong.Amount--
	_, err = e.Verify(n, wrong)
	wantCode(t, err, settle.ErrProof)
	wrong = f.funded()
	wrong.Script = script("elsewhere")
	_, err = e.Verify(n, wrong)
	wantCode(t, err, settle.ErrFunding)
	multi := fund(t, multiKeys(t), nil)
	raw, err := multi.channel.Refund(600, sigsOf(t, multi, 600, "a", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if e, err = pktchain.ReadEnding(n, raw); err != nil {
		t.Fatal(err)
	}
	if _, err = e.Verify(n, multi.funded()); err != nil {
		t.Errorf("refund by two of three: %v", err)
	}
}

func sigsOf(t testing.TB, f fixture, fee pktcloud.Amount, names ...string) [][]byte {
	t.Helper()
	var sigs [][]byte
	for _, name := range names {
		sig, err := keychain(t, name).SignRefund(f.channel, 0, fee)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, sig)
	}
	return sigs
}

// Only the owner of an end names who may deposit it.
func TestTowerClient(t *testing.T) {
	n := network(t)
	f := fund(t, pktchain.RefundKeys{}, nil)
	key, err := f.payee.TowerKey()
	if err != nil {
		t.Fatal(err)
	}
	client := key.Public()
	for _, tt := range []struct {
		kind  pktchain.EndKind
		raw   []byte
		owner *pktchain.Keychain
		index uint32
	}{
		{pktchain.EndLate, f.lateClaims(t, 1_000_000, 400)[0], f.payee, 4},
		{pktchain.EndRefund, f.refunds(t, 400)[0], f.payer, 7},
	} {
		e, err := pktchain.ReadEnding(n, tt.raw)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := tt.owner.SignClient(f.channel, tt.kind, tt.index, client)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.VerifyClient(client, proof); err != nil {
			t.Errorf("%s: %v", tt.kind, err)
		}
		wantCode(t, e.VerifyClient(payerDevice.Public(), proof), settle.ErrProof)
		foreign, err := keychain(t, "stranger").SignClient(f.channel, tt.kind, tt.index, client)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, e.VerifyClient(client, foreign), settle.ErrProof)
	}
	if again, err := f.payee.TowerKey(); err != nil || again.Public() != client {
		t.Error("the tower key of one phrase: got two")
	}
	if other, err := f.payer.TowerKey(); err != nil || other.Public() == client {
		t.Error("the tower key of another phrase: got the same")
	}
}

// lateVectors are the vectors of late claims.
func lateVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	good := f.late(t, 1_000_000)
	cases := faults("late-proof-", func(l settle.LateProof) []byte { return mustEncode(t, l) }, func() settle.LateProof { return good }, []fault[settle.LateProof]{
		{"version", "malformed", "an unknown version", func(l *settle.LateProof) { l.Version = 2 }},
		{"nothing", "malformed", "a total of zero", func(l *settle.LateProof) { l.Total = 0 }},
		{"no-signature", "malformed", "no signature", func(l *settle.LateProof) { l.Signature = nil }},
		{"long-signature", "malformed", "a signature of 129 bytes", func(l *settle.LateProof) { l.Signature = make([]byte, 129) }},
	})
	claim := func(name, expect, about string, total pktcloud.Amount, sig []byte, fee pktcloud.Amount) vector.Case {
		c := vector.New("late-claim-"+name, expect, about).With("params", mustEncode(t, f.params)).With("payee-seed", seedOf("payee")).
			With("payee-index", 4).With("total", uint64(total)).With("proof", sig).With("fee", uint64(fee))
		if raws, err := f.payee.LateClaims(f.channel, 4, settle.LateProof{Total: total, Signature: sig}, []pktcloud.Amount{fee}); err == nil {
			c = c.With("sighash", sighash(t, f.channel, raws[0], txscript.SigHashSingle)).With("transaction", raws[0])
		}
		return c
	}
	return append(cases,
		claim("low-fee", "ok", "the least fee", 1_000_000, good.Signature, f.channel.ClaimFee(0)),
		claim("high-fee", "ok", "the same proof at a high fee", 1_000_000, good.Signature, 250_000),
		claim("below-floor", "fee", "a fee that nodes do not relay", 1_000_000, good.Signature, f.channel.ClaimFee(0)-1),
		claim("dust", "dust", "a fee that leaves dust to the payee", 1_000_000, good.Signature, 1_000_000+reserve-293),
		claim("other-total", "proof", "a proof of another total", 1_000_001, good.Signature, 400),
		claim("voucher", "proof", "a voucher's proof, which has no lock time", 1_000_000, f.voucher(t, 1_000_000).Proof, 400),
		claim("beyond", "capacity", "more than the channel pays", f.params.Spendable()+1, good.Signature, 400),
	)
}

// endingVectors are transactions as a tower reads them.
func endingVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	late, refund := f.lateClaims(t, 1_000_000, 400)[0], f.refunds(t, 400)[0]
	key, err := f.payee.TowerKey()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := f.payee.SignClient(f.channel, pktchain.EndLate, 4, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	ending := func(name, expect, about string, raw []byte, spoil func(tx *wire.MsgTx)) vector.Case {
		tx := decode(t, raw)
		if spoil != nil {
			spoil(tx)
		}
		return vector.New("ending-"+name, expect, about).With("rail", f.params.Rail).With("transaction", encode(tx)).
			With("amount", capacity).With("script", f.channel.PkScript())
	}
	client := func(name, expect, about string, key pktcloud.PublicKey, proof []byte) vector.Case {
		return ending("client-"+name, expect, about, late, nil).With("client", key.String()).With("client-proof", proof)
	}
	claim, err := f.payee.Claim(f.channel, 4, f.voucher(t, 1_000_000), 400)
	if err != nil {
		t.Fatal(err)
	}
	return []vector.Case{
		ending("late", "ok", "a late claim", late, nil),
		ending("refund", "ok", "a refund", refund, nil),
		ending("claim", "malformed", "a claim without lock time", claim, nil),
		ending("late-lock", "malformed", "a late claim with the lock time of a refund", late, func(tx *wire.MsgTx) { tx.LockTime = expiry }),
		ending("refund-lock", "malformed", "a refund with a later lock time", refund, func(tx *wire.MsgTx) { tx.LockTime++ }),
		ending("outputs", "malformed", "a third output", late, func(tx *wire.MsgTx) { tx.AddTxOut(wire.NewTxOut(1000, script("x"))) }),
		ending("data", "malformed", "an output that carries data", late, func(tx *wire.MsgTx) { tx.TxOut[1].PkScript = []byte{0x6a, 1, 7} }),
		ending("dust", "malformed", "dust", late, func(tx *wire.MsgTx) { tx.TxOut[1].Value = 10 }),
		ending("script", "malformed", "a script in another spelling", late, func(tx *wire.MsgTx) {
			w := tx.TxIn[0].Witness
			w[4] = append(slices.Clone(w[4]), 0x61)
		}),
		ending("sequence", "malformed", "an input that signals no replacement", late, func(tx *wire.MsgTx) { tx.TxIn[0].Sequence++ }),
		ending("version", "malformed", "version 1", late, func(tx *wire.MsgTx) { tx.Version = 1 }),
		ending("witness", "malformed", "a witness of neither kind", late, func(tx *wire.MsgTx) { tx.TxIn[0].Witness[3] = []byte{2} }),
		ending("signature", "proof", "a changed output", late, func(tx *wire.MsgTx) { tx.TxOut[1].Value-- }),
		ending("other-lock", "proof", "a late claim at a lock time that nobody signed", late, func(tx *wire.MsgTx) { tx.LockTime-- }),
		client("good", "ok", "the payee's key names the client", key.Public(), proof),
		client("other", "proof", "another client", payerDevice.Public(), proof),
	}
}

func runLate(t *testing.T, c vector.Case) error {
	if strings.HasPrefix(c.Name, "late-proof-") {
		_, err := settle.ParseLateProof(c.Bytes("bytes"))
		return err
	}
	ch := channelOf(t, c)
	l := settle.LateProof{Total: amount(t, c, "total"), Signature: c.Bytes("proof")}
	raws, err := keychainOf(t, ch.Network.Rail, c.Bytes("payee-seed")).LateClaims(ch, uint32(number(t, c, "payee-index")), l, []pktcloud.Amount{amount(t, c, "fee")})
	if err != nil {
		return err
	}
	same(t, "transaction", raws[0], c.Bytes("transaction"))
	same(t, "sighash", sighash(t, ch, raws[0], txscript.SigHashSingle), c.Bytes("sighash"))
	return ch.VerifyLate(l.Total, l.Signature)
}

func runEnding(t *testing.T, c vector.Case) error {
	n := networkOf(t, c.Value("rail"))
	e, err := pktchain.ReadEnding(n, c.Bytes("transaction"))
	if err != nil {
		return err
	}
	if _, err := e.Verify(n, settle.Output{Known: true, Amount: amount(t, c, "amount"), Script: c.Bytes("script")}); err != nil {
		return err
	}
	if c.Value("client") == "" {
		return nil
	}
	client, err := pktcloud.ParsePublicKey(c.Value("client"))
	if err != nil {
		t.Fatal(err)
	}
	return e.VerifyClient(client, c.Bytes("client-proof"))
}
