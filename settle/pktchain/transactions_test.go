package pktchain_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

func TestClaim(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	v := f.voucher(t, 1_000_000)
	if err := f.channel.VerifyVoucher(v.Total, v.Proof); err != nil {
		t.Fatal(err)
	}
	floor := f.channel.ClaimFee(0)
	for _, fee := range []pktcloud.Amount{floor, 300, 5_000, 250_000, 1_000_000 + reserve - 294} {
		raw, err := f.payee.Claim(f.channel, 4, v, fee)
		if err != nil {
			t.Fatalf("fee %d: %v", uint64(fee), err)
		}
		tx := decode(t, raw)
		if err := f.standard(tx); err != nil {
			t.Errorf("fee %d: %v", uint64(fee), err)
		}
		if tx.TxOut[0].Value != capacity-1_000_000-reserve || !bytes.Equal(tx.TxOut[0].PkScript, f.plan.PayerScript) {
			t.Errorf("fee %d: the payer gets %d units", uint64(fee), tx.TxOut[0].Value)
		}
		if vsize(tx) > int(floor) {
			t.Errorf("got %d virtual bytes, the least fee is %d", vsize(tx), floor)
		}
		end, err := f.channel.EndOf(raw)
		if err != nil || end.Refund || end.Payee != 1_000_000+reserve-fee || end.Fee != fee || end.TxID != tx.TxHash() {
			t.Errorf("got %+v, %v", end, err)
		}
	}
	_, err := f.payee.Claim(f.channel, 4, v, floor-1)
	wantCode(t, err, settle.ErrFee)
	_, err = f.payee.Claim(f.channel, 4, v, 1_000_000+reserve-293)
	wantCode(t, err, settle.ErrDust)
	_, err = f.payee.Claim(f.channel, 5, v, 300)
	wantCode(t, err, settle.ErrProof)
	other := v
	other.Total++
	_, err = f.payee.Claim(f.channel, 4, other, 300)
	wantCode(t, err, settle.ErrProof)
	for _, total := range []pktcloud.Amount{0, f.params.Spendable() + 1, 1 << 63} {
		_, err = f.signer.SignVoucher(total)
		wantCode(t, err, settle.ErrCapacity)
		wantCode(t, f.channel.VerifyVoucher(total, v.Proof), settle.ErrCapacity)
	}
}

// A payee that changes what the payer signed gets nothing; what the payer left
// open is the payee's.
func TestClaimBindsThePayersPart(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	v := f.voucher(t, 1_000_000)
	raw, err := f.payee.Claim(f.channel, 4, v, 400)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(tx *wire.MsgTx)
		passes bool
	}{
		{"nothing", func(*wire.MsgTx) {}, true},
		{"another payee output", func(tx *wire.MsgTx) { tx.TxOut[1].PkScript = script("elsewhere") }, true},
		{"a lower payee output", func(tx *wire.MsgTx) { tx.TxOut[1].Value -= 700 }, true},
		{"a third output", func(tx *wire.MsgTx) {
			tx.TxOut[1].Value -= 10_000
			tx.AddTxOut(wire.NewTxOut(9_000, script("elsewhere")))
		}, true},
		{"a cut payer output", func(tx *wire.MsgTx) { tx.TxOut[0].Value -= 1_000; tx.TxOut[1].Value += 1_000 }, false},
		{"a raised payer output", func(tx *wire.MsgTx) { tx.TxOut[0].Value++ }, false},
		{"another payer script", func(tx *wire.MsgTx) { tx.TxOut[0].PkScript = script("elsewhere") }, false},
		{"no payer output", func(tx *wire.MsgTx) { tx.TxOut = tx.TxOut[1:] }, false},
		{"outputs exchanged", func(tx *wire.MsgTx) { tx.TxOut[0], tx.TxOut[1] = tx.TxOut[1], tx.TxOut[0] }, false},
		{"a final sequence", func(tx *wire.MsgTx) { tx.TxIn[0].Sequence = wire.MaxTxInSequenceNum }, false},
		{"a lock time", func(tx *wire.MsgTx) { tx.LockTime = 1 }, false},
		{"a second input", func(tx *wire.MsgTx) { tx.AddTxIn(&wire.TxIn{Sequence: 0xfffffffd}) }, false},
		{"version 1", func(tx *wire.MsgTx) { tx.Version = 1 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx := decode(t, raw)
			c.change(tx)
			f.signPayee(t, tx)
			if err := f.standard(tx); (err == nil) != c.passes {
				t.Errorf("got %v, want it to pass: %v", err, c.passes)
			}
		})
	}
}

// signPayee replaces the payee's signature by a new one over the whole.
func (f fixture) signPayee(t *testing.T, tx *wire.MsgTx) {
	t.Helper()
	key := payeePrivateKey(t, 4)
	out := f.funding.TxOut[0]
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	for _, in := range tx.TxIn {
		fetch.AddPrevOut(in.PreviousOutPoint, out)
	}
	sig, err := txscript.RawTxInWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, out.Value, f.channel.Script(), txscript.SigHashAll, key)
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness[1] = sig
}

// payeePrivateKey derives a payee key by the path in the specification.
func payeePrivateKey(t *testing.T, index uint32) *btcec.PrivateKey {
	t.Helper()
	return derive(t, seedOf("payee"), 390, 1, 2, index)
}

func TestVoucherProofIsStrict(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	v := f.voucher(t, 1_000_000)
	for name, change := range map[string]func(sig []byte) []byte{
		"empty":          func([]byte) []byte { return nil },
		"only a type":    func([]byte) []byte { return []byte{3} },
		"type ALL":       func(s []byte) []byte { s[len(s)-1] = 1; return s },
		"ANYONECANPAY":   func(s []byte) []byte { s[len(s)-1] |= 0x80; return s },
		"cut":            func(s []byte) []byte { return append(s[:len(s)-2], 3) },
		"long":           func(s []byte) []byte { return append(s[:len(s)-1], 0, 3) },
		"a changed R":    func(s []byte) []byte { s[8] ^= 1; return s },
		"a changed S":    func(s []byte) []byte { s[len(s)-4] ^= 1; return s },
		"a high S":       highS,
		"an outer tag":   func(s []byte) []byte { s[0] = 0x31; return s },
		"a huge length":  func(s []byte) []byte { s[1] = 0xff; return s },
		"a zero padding": padR,
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, f.channel.VerifyVoucher(v.Total, change(slices.Clone(v.Proof))), settle.ErrProof)
		})
	}
	all, err := f.signer.SignClose(1_000_000, 300)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, f.channel.VerifyVoucher(v.Total, all), settle.ErrProof)
	if again := f.voucher(t, 1_000_000); !bytes.Equal(again.Proof, v.Proof) {
		t.Error("the same voucher signed again: got another signature")
	}
}

func TestCooperativeClose(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	for _, c := range []struct {
		final, fee pktcloud.Amount
		outputs    []int64
		want       settle.Code
	}{
		{1_000_000, 360, []int64{capacity - 1_000_360, 1_000_000}, 0},
		{294, 360, []int64{capacity - 294 - 360, 294}, 0},
		{0, 360, []int64{capacity - 360}, 0},
		{capacity - 400, 400, []int64{capacity - 400}, 0},
		{capacity - 400 - 294, 400, []int64{294, capacity - 694}, 0},
		{293, 360, nil, settle.ErrDust},
		{capacity - 400 - 293, 400, nil, settle.ErrDust},
		{capacity - 400, 401, nil, settle.ErrClose},
		{1_000_000, 179, nil, settle.ErrFee},
		{pktcloud.MaxAmount, pktcloud.MaxAmount, nil, settle.ErrClose},
	} {
		t.Run(fmt.Sprint(uint64(c.final), "+", uint64(c.fee)), func(t *testing.T) {
			if c.want != 0 {
				_, err := f.signer.SignClose(c.final, c.fee)
				wantCode(t, err, c.want)
				o := settle.CloseOffer{Version: 1, Final: c.final, Fee: c.fee, Signature: []byte{1}}
				wantCode(t, f.channel.VerifyClose(o), c.want)
				return
			}
			o := f.offer(t, c.final, c.fee)
			if err := f.channel.VerifyClose(o); err != nil {
				t.Fatal(err)
			}
			raw, err := f.payee.CompleteClose(f.channel, 4, o)
			if err != nil {
				t.Fatal(err)
			}
			tx := decode(t, raw)
			if err := f.standard(tx); err != nil {
				t.Error(err)
			}
			var got []int64
			for _, out := range tx.TxOut {
				got = append(got, out.Value)
			}
			if !slices.Equal(got, c.outputs) {
				t.Errorf("got outputs %v, want %v", got, c.outputs)
			}
			if end, err := f.channel.EndOf(raw); err != nil || end.Payee != c.final || end.Fee != c.fee {
				t.Errorf("got %+v, %v", end, err)
			}
			tx.TxOut[0].Value--
			f.signPayee(t, tx)
			if err := f.standard(tx); err == nil {
				t.Error("a close whose outputs were changed passes")
			}
			o.Final++
			if err := f.channel.VerifyClose(o); err == nil {
				t.Error("a close offer with another final verifies")
			}
		})
	}
}

func TestRefund(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	fees := []pktcloud.Amount{f.channel.RefundFee(0), 500, 5_000, 100_000}
	ladder, err := f.payer.RefundLadder(f.channel, 7, fees)
	if err != nil {
		t.Fatal(err)
	}
	for i, raw := range ladder {
		tx := decode(t, raw)
		if err := f.standard(tx); err != nil {
			t.Error(err)
		}
		end, err := f.channel.EndOf(raw)
		if err != nil || !end.Refund || end.Payer != capacity-fees[i] || end.Payee != 0 || tx.LockTime != expiry {
			t.Errorf("got %+v, lock time %d, %v", end, tx.LockTime, err)
		}
	}
	for name, change := range map[string]func(tx *wire.MsgTx){
		"an earlier lock":  func(tx *wire.MsgTx) { tx.LockTime = expiry - 1 },
		"no lock":          func(tx *wire.MsgTx) { tx.LockTime = 0 },
		"a final sequence": func(tx *wire.MsgTx) { tx.TxIn[0].Sequence = wire.MaxTxInSequenceNum },
	} {
		t.Run(name, func(t *testing.T) {
			tx := decode(t, ladder[1])
			change(tx)
			f.signRefund(t, tx, derive(t, seedOf("payer"), 390, 1, 1, 7))
			if err := f.standard(tx); err == nil {
				t.Error("the refund passes")
			}
		})
	}
	tx := decode(t, ladder[1])
	f.signRefund(t, tx, derive(t, seedOf("payer"), 390, 1, 1, 7))
	if err := f.standard(tx); err != nil {
		t.Errorf("signed again: %v", err)
	}
	f.signRefund(t, tx, derive(t, seedOf("payer"), 390, 1, 0, 7)) // the spender's key
	if err := f.standard(tx); err == nil {
		t.Error("the spender takes the refund")
	}
	_, err = f.payer.SignRefund(f.channel, 7, f.channel.RefundFee(0)-1)
	wantCode(t, err, settle.ErrFee)
	_, err = f.payer.SignRefund(f.channel, 7, capacity)
	wantCode(t, err, settle.ErrFee)
	_, err = f.payer.RefundLadder(f.channel, 8, fees)
	wantCode(t, err, settle.ErrProof)
}

func (f fixture) signRefund(t *testing.T, tx *wire.MsgTx, key *btcec.PrivateKey) {
	t.Helper()
	out := f.funding.TxOut[0]
	fetch := txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value)
	sig, err := txscript.RawTxInWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, out.Value, f.channel.Script(), txscript.SigHashAll, key)
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness[0] = sig
}

func multiKeys(t testing.TB) pktchain.RefundKeys {
	t.Helper()
	refund := pktchain.RefundKeys{Required: 2}
	for _, name := range []string{"a", "b", "c"} {
		key, err := keychain(t, name).RefundKey(0)
		if err != nil {
			t.Fatal(err)
		}
		refund.Keys = append(refund.Keys, key)
	}
	return refund
}

func TestRefundByTwoOfThree(t *testing.T) {
	f := fund(t, multiKeys(t), nil)
	fee := f.channel.RefundFee(0)
	sign := func(name string) []byte {
		sig, err := keychain(t, name).SignRefund(f.channel, 0, fee)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	raw, err := f.channel.Refund(fee, [][]byte{sign("a"), sign("c")})
	if err != nil {
		t.Fatal(err)
	}
	if tx := decode(t, raw); f.standard(tx) != nil || vsize(tx) > int(fee) {
		t.Errorf("got %v, %d virtual bytes for a fee of %d", f.standard(tx), vsize(tx), fee)
	}
	if end, err := f.channel.EndOf(raw); err != nil || !end.Refund {
		t.Errorf("got %+v, %v", end, err)
	}
	for name, sigs := range map[string][][]byte{
		"one":         {sign("a")},
		"one twice":   {sign("a"), sign("a")},
		"wrong order": {sign("c"), sign("a")},
		"three":       {sign("a"), sign("b"), sign("c")},
	} {
		_, err := f.channel.Refund(fee, sigs)
		if err == nil {
			t.Errorf("%s: the refund passes", name)
		}
	}
	// The payee's claim works on this script too.
	if _, err := f.payee.Claim(f.channel, 4, f.voucher(t, 50_000), 400); err != nil {
		t.Error(err)
	}
}

func TestCheckFunding(t *testing.T) {
	good := fund(t, pktchain.RefundKeys{}, nil)
	if err := good.channel.CheckFunding(encode(good.funding), good.output); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		want  settle.Code
		alter func(tx *wire.MsgTx, p *settle.Params)
	}{
		{"less than the capacity", settle.ErrFunding, func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[0].Value-- }},
		{"more than the capacity", settle.ErrFunding, func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[0].Value++ }},
		{"another expiry", settle.ErrFunding, func(_ *wire.MsgTx, p *settle.Params) { p.ExpiryHeight-- }},
		{"signals replacement", settle.ErrFunding, func(tx *wire.MsgTx, _ *settle.Params) { tx.TxIn[0].Sequence = 0xfffffffd }},
		{"a lock time", settle.ErrFunding, func(tx *wire.MsgTx, _ *settle.Params) { tx.LockTime = 100 }},
		{"version 3", settle.ErrFunding, func(tx *wire.MsgTx, _ *settle.Params) { tx.Version = 3 }},
		{"a low fee", settle.ErrFee, func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[2].Value += 500 }},
		{"more out than in", settle.ErrFunding, func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[2].Value += 50_000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fund(t, pktchain.RefundKeys{}, c.alter)
			wantCode(t, f.channel.CheckFunding(encode(f.funding), f.output), c.want)
		})
	}
	for _, c := range []struct {
		name   string
		change func(o *settle.Output)
	}{
		{"an unknown input", func(o *settle.Output) { o.Known = false }},
		{"an unconfirmed input", func(o *settle.Output) { o.Depth = 0 }},
		{"a spent input", func(o *settle.Output) { o.Spend = &settle.Spend{} }},
		{"a legacy input", func(o *settle.Output) { o.Script = append([]byte{0xa9, 20}, append(o.Script[2:22:22], 0x87)...) }},
		{"a wrong amount", func(o *settle.Output) { o.Amount++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantCode(t, good.channel.CheckFunding(encode(good.funding), func(at settle.Outpoint) (settle.Output, error) {
				o, err := good.output(at)
				c.change(&o)
				return o, err
			}), settle.ErrFunding)
		})
	}
	spent := func(at settle.Outpoint) (settle.Output, error) {
		o, err := good.output(at)
		o.Spend = &settle.Spend{TxID: good.funding.TxHash()}
		return o, err
	}
	if err := good.channel.CheckFunding(encode(good.funding), spent); err != nil {
		t.Errorf("broadcast already: %v", err)
	}
	for name, change := range map[string]func(tx *wire.MsgTx){
		"no witness":         func(tx *wire.MsgTx) { tx.TxIn[0].Witness = nil },
		"a broken signature": func(tx *wire.MsgTx) { tx.TxIn[0].Witness[0][10] ^= 1 },
		"another id":         func(tx *wire.MsgTx) { tx.TxOut[2].Value-- },
		"a signature script": func(tx *wire.MsgTx) { tx.TxIn[0].SignatureScript = []byte{0x51} },
	} {
		t.Run(name, func(t *testing.T) {
			tx := decode(t, encode(good.funding))
			change(tx)
			wantCode(t, good.channel.CheckFunding(encode(tx), good.output), settle.ErrFunding)
		})
	}
	wantCode(t, good.channel.CheckFunding(append(encode(good.funding), 0), good.output), settle.ErrMalformed)
	wantCode(t, good.channel.CheckFunding(make([]byte, pktchain.MaxFundingBytes+1), good.output), settle.ErrFunding)
	err := good.channel.CheckFunding(encode(good.funding), func(settle.Outpoint) (settle.Output, error) {
		return settle.Output{}, settle.ErrLedgerUnavailable
	})
	if err != settle.ErrLedgerUnavailable { //nolint:errorlint // passed through as it is
		t.Errorf("got %v, want the ledger's error", err)
	}
}

func TestRestore(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	r, err := f.payer.Restore(encode(f.funding), pktchain.RefundKeys{})
	if err != nil {
		t.Fatal(err)
	}
	d := f.channel.Detail
	if r.Index != 7 || r.Expiry != expiry || r.Capacity != capacity || !bytes.Equal(r.Script, f.channel.Script()) ||
		r.Detail.Funding != d.Funding || !bytes.Equal(r.Detail.Spender, d.Spender) || !bytes.Equal(r.Detail.Payee, d.Payee) {
		t.Errorf("got %+v", r)
	}
	c, err := r.Channel(network(t), script("new wallet"))
	if err != nil {
		t.Fatal(err)
	}
	ladder, err := f.payer.RefundLadder(c, r.Index, []pktcloud.Amount{400})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.standard(decode(t, ladder[0])); err != nil {
		t.Errorf("the refund of a restored channel: %v", err)
	}
	for _, other := range []string{"payee", "stranger"} {
		_, err := keychain(t, other).Restore(encode(f.funding), pktchain.RefundKeys{})
		wantCode(t, err, settle.ErrFunding)
	}
	tx := decode(t, encode(f.funding))
	tx.TxOut[1].PkScript[20] ^= 1
	_, err = f.payer.Restore(encode(tx), pktchain.RefundKeys{})
	wantCode(t, err, settle.ErrFunding)

	m := fund(t, multiKeys(t), nil)
	if _, err := m.payer.Restore(encode(m.funding), multiKeys(t)); err != nil {
		t.Error(err)
	}
	_, err = m.payer.Restore(encode(m.funding), pktchain.RefundKeys{})
	wantCode(t, err, settle.ErrFunding)
	fewer := multiKeys(t)
	fewer.Required = 1
	_, err = m.payer.Restore(encode(m.funding), fewer)
	wantCode(t, err, settle.ErrFunding)
	if n := len(f.funding.TxOut[1].PkScript) - 2; n != pktchain.SealedBytes || n > 80 {
		t.Errorf("the sealed note has %d bytes", n)
	}
}

func TestMoneyKey(t *testing.T) {
	identity := pktcloud.IdentityKey(seedOf("payer")).Public()
	m, err := keychain(t, "payer").MoneyKey(identity)
	if err != nil {
		t.Fatal(err)
	}
	if err := pktchain.VerifyMoneyKey(m, identity); err != nil {
		t.Error(err)
	}
	wantCode(t, pktchain.VerifyMoneyKey(m, payeeDevice.Public()), settle.ErrProof)
	// Whoever knows [ID-6] and no code of this package can check it.
	sig, err := ecdsa.ParseDERSignature(m.Proof)
	if err != nil {
		t.Fatal(err)
	}
	key, err := btcec.ParsePubKey(m.Key)
	if err != nil {
		t.Fatal(err)
	}
	if digest := sha256.Sum256(pktcloud.MoneyProofInput(identity, m.Rail)); !sig.Verify(digest[:], key) {
		t.Error("the proof is not over what the account record's page says")
	}
	other, err := keychain(t, "payee").MoneyKey(identity)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m *pktcloud.MoneyKey){
		"another key":    func(m *pktcloud.MoneyKey) { m.Key = other.Key },
		"another rail":   func(m *pktcloud.MoneyKey) { m.Rail = "pkt" },
		"trailing bytes": func(m *pktcloud.MoneyKey) { m.Proof = append(slices.Clone(m.Proof), 1) },
	} {
		bad := m
		change(&bad)
		if err := pktchain.VerifyMoneyKey(bad, identity); err == nil {
			t.Errorf("%s: the money key verifies", name)
		}
	}
	m.Rail = "gold"
	wantCode(t, pktchain.VerifyMoneyKey(m, identity), settle.ErrMalformed)
}

func TestChannelOfRefuses(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	for name, change := range map[string]func(p *settle.Params){
		"another rail":        func(p *settle.Params) { p.Rail = "pkt" },
		"a dusty change":      func(p *settle.Params) { p.MinChange = 293 },
		"an expiry in time":   func(p *settle.Params) { p.ExpiryHeight = 500_000_000 },
		"params out of order": func(p *settle.Params) { p.Version = 0 },
	} {
		p := f.params
		change(&p)
		if _, err := pktchain.ChannelOf(network(t), p); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantCode(t, err, settle.ErrParams)
		}
	}
	p := f.params
	p.Detail = p.Detail[1:]
	_, err := pktchain.ChannelOf(network(t), p)
	wantCode(t, err, settle.ErrMalformed)
}
