package pktchain_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// remake alters a fixture's funding, signs it anew, and names the output at an
// index as the channel's. Coins are what its inputs spend: P2WPKH of "coin"
// where nil.
func (f fixture) remake(t testing.TB, at uint32, coins map[wire.OutPoint]*wire.TxOut, alter func(tx *wire.MsgTx)) fixture {
	t.Helper()
	tx := decode(t, encode(f.funding))
	alter(tx)
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	for _, in := range tx.TxIn {
		prev := f.prev
		if coins[in.PreviousOutPoint] != nil {
			prev = coins[in.PreviousOutPoint]
		}
		fetch.AddPrevOut(in.PreviousOutPoint, prev)
	}
	key, coinScript := coin("coin")
	hashes := txscript.NewTxSigHashes(tx, fetch)
	for i, in := range tx.TxIn {
		prev := fetch.FetchPrevOutput(in.PreviousOutPoint)
		var err error
		switch {
		case bytes.Equal(prev.PkScript, coinScript):
			in.Witness, err = txscript.WitnessSignature(tx, hashes, i, prev.Value, coinScript, txscript.SigHashAll, key, true)
		case txscript.IsPayToTaproot(prev.PkScript):
			in.Witness, err = txscript.TaprootWitnessSignature(tx, hashes, i, prev.Value, prev.PkScript, txscript.SigHashDefault, key)
		default:
			in.Witness = wire.TxWitness{{txscript.OP_TRUE}}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.funding = tx
	d := f.channel.Detail
	d.Funding = settle.Outpoint{TxID: tx.TxHash(), Index: at}
	if int(at) < len(tx.TxOut) && tx.TxOut[at].Value > 0 {
		f.params.Capacity = pktcloud.Amount(tx.TxOut[at].Value)
	}
	return f.with(t, d)
}

// with puts another detail in the place of the fixture's.
func (f fixture) with(t testing.TB, d pktchain.Detail) fixture {
	t.Helper()
	var err error
	if f.params.Detail, err = d.Encode(); err != nil {
		t.Fatal(err)
	}
	if f.channel, err = pktchain.ChannelOf(network(t), f.params); err != nil {
		t.Fatal(err)
	}
	if f.signer, err = f.payer.Signer(f.channel, f.plan.Index); err != nil {
		t.Fatal(err)
	}
	return f
}

// from answers for the coins of remake.
func (f fixture) from(coins map[wire.OutPoint]*wire.TxOut) func(settle.Outpoint) (settle.Output, error) {
	return func(at settle.Outpoint) (settle.Output, error) {
		prev := coins[wire.OutPoint{Hash: at.TxID, Index: at.Index}]
		if prev == nil {
			return f.output(at)
		}
		return settle.Output{Known: true, Depth: 1, Amount: pktcloud.Amount(prev.Value), Script: prev.PkScript}, nil
	}
}

// TestSecondOutput: a channel whose funding output is not the first.
func TestSecondOutput(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil).remake(t, 1, nil, func(tx *wire.MsgTx) {
		tx.TxOut[0], tx.TxOut[1] = tx.TxOut[1], tx.TxOut[0]
	})
	if err := f.channel.CheckFunding(encode(f.funding), f.output); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.channel.PkScript(), f.funding.TxOut[1].PkScript) {
		t.Error("the channel names another output script")
	}
	raw, err := f.payee.Claim(f.channel, 4, f.voucher(t, 1_000_000), 300)
	if err != nil {
		t.Fatal(err)
	}
	if at := decode(t, raw).TxIn[0].PreviousOutPoint; at.Index != 1 || at.Hash != f.funding.TxHash() {
		t.Errorf("the claim spends %v", at)
	}
	if end, err := f.channel.EndOf(raw); err != nil || end.Fee != 300 {
		t.Errorf("got %+v, %v", end, err)
	}
}

// TestExactFees: the last fee and the last output that pass, and the next.
func TestExactFees(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	if got, want := f.channel.CloseFee(7_000), f.channel.ClaimFee(7_000); got != want || got < 7*150 {
		t.Errorf("a close pays %d, a claim %d", got, want)
	}
	least := f.channel.CloseFee(0)
	for fee, want := range map[pktcloud.Amount]settle.Code{least: 0, least - 1: settle.ErrFee} {
		if _, err := f.signer.SignClose(1_000_000, fee); (err == nil) != (want == 0) {
			t.Errorf("a close at %d: got %v", fee, err)
		}
	}
	_, err := f.signer.SignClose(0, capacity)
	wantCode(t, err, settle.ErrClose) // pays nobody
	least = f.channel.RefundFee(0)
	for fee, want := range map[pktcloud.Amount]settle.Code{
		least: 0, least - 1: settle.ErrFee, capacity - 294: 0, capacity - 293: settle.ErrFee,
	} {
		if _, err := f.payer.RefundLadder(f.channel, f.plan.Index, []pktcloud.Amount{fee}); (err == nil) != (want == 0) {
			t.Errorf("a refund at %d: got %v", fee, err)
		} else if err != nil {
			wantCode(t, err, want)
		}
	}
}

// TestEndOfRefuses: transactions that a lying ledger could name.
func TestEndOfRefuses(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	good, err := f.payee.Claim(f.channel, 4, f.voucher(t, 1_000_000), 300)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(tx *wire.MsgTx)
	}{
		{"a second input", func(tx *wire.MsgTx) { tx.AddTxIn(&wire.TxIn{Sequence: 1}) }},
		{"another transaction's output", func(tx *wire.MsgTx) { tx.TxIn[0].PreviousOutPoint.Hash[0] ^= 1 }},
		{"another output", func(tx *wire.MsgTx) { tx.TxIn[0].PreviousOutPoint.Index++ }},
		{"one witness item", func(tx *wire.MsgTx) { tx.TxIn[0].Witness = tx.TxIn[0].Witness[4:] }},
		{"another script", func(tx *wire.MsgTx) { tx.TxIn[0].Witness[4] = []byte{txscript.OP_TRUE} }},
		{"one unit too much", func(tx *wire.MsgTx) { tx.TxOut[1].Value += 301 }},
		{"a negative output", func(tx *wire.MsgTx) { tx.TxOut[1].Value = -1 }},
		{"a sum beyond 64 bits", func(tx *wire.MsgTx) {
			for range 4 {
				tx.AddTxOut(wire.NewTxOut(1<<62, f.plan.PayerScript))
			}
		}},
	} {
		tx := decode(t, good)
		c.change(tx)
		end, err := f.channel.EndOf(encode(tx))
		wantCode(t, err, settle.ErrFunding)
		if end != (pktchain.End{}) {
			t.Errorf("%s: got %+v besides the error", c.name, end)
		}
	}
	tx := decode(t, good)
	tx.TxIn = nil
	end, err := f.channel.EndOf(good[:len(good)-1])
	wantCode(t, err, settle.ErrMalformed)
	if end != (pktchain.End{}) {
		t.Errorf("got %+v besides the error", end)
	}
	tx = decode(t, good)
	tx.TxOut[1].Value += 300 // a miner's own claim without a fee
	tx.AddTxOut(wire.NewTxOut(0, script("a stranger")))
	if end, err := f.channel.EndOf(encode(tx)); err != nil || end.Fee != 0 || end.Payee != 1_000_000+reserve || end.Payer != capacity-1_000_000-reserve {
		t.Errorf("no fee: got %+v, %v", end, err)
	}
	tx.TxIn[0].Witness = tx.TxIn[0].Witness[3:] // two items: what a refund would show at least
	if end, err := f.channel.EndOf(encode(tx)); err != nil || end.Refund {
		t.Errorf("two witness items: got %+v, %v", end, err)
	}
}

// TestFundingShapes: fundings that the rules allow, and their neighbours.
func TestFundingShapes(t *testing.T) {
	base := fund(t, pktchain.RefundKeys{}, nil)
	key, coinScript := coin("coin")
	other := wire.OutPoint{Hash: sha256.Sum256([]byte("another")), Index: 3}
	add := func(tx *wire.MsgTx, at wire.OutPoint) {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: 0xffffffff})
	}
	many := func(n int) (map[wire.OutPoint]*wire.TxOut, func(tx *wire.MsgTx)) {
		coins := map[wire.OutPoint]*wire.TxOut{}
		for i := range n - 1 {
			coins[wire.OutPoint{Hash: other.Hash, Index: uint32(i)}] = wire.NewTxOut(20_000, coinScript)
		}
		return coins, func(tx *wire.MsgTx) {
			for i := range n - 1 {
				add(tx, wire.OutPoint{Hash: other.Hash, Index: uint32(i)})
			}
		}
	}
	witnessScript := sha256.Sum256([]byte{txscript.OP_TRUE})
	taproot, err := txscript.PayToTaprootScript(txscript.ComputeTaprootKeyNoScript(key.PubKey()))
	if err != nil {
		t.Fatal(err)
	}
	mostCoins, most := many(pktchain.MaxFundingInputs)
	moreCoins, more := many(pktchain.MaxFundingInputs + 1)
	one := func(script []byte) map[wire.OutPoint]*wire.TxOut {
		return map[wire.OutPoint]*wire.TxOut{other: wire.NewTxOut(20_000, script)}
	}
	for _, c := range []struct {
		name  string
		want  settle.Code // 0 for none
		at    uint32
		coins map[wire.OutPoint]*wire.TxOut
		alter func(tx *wire.MsgTx)
	}{
		{"version 1", 0, 0, nil, func(tx *wire.MsgTx) { tx.Version = 1 }},
		{"version 0", settle.ErrFunding, 0, nil, func(tx *wire.MsgTx) { tx.Version = 0 }},
		{"version 3", settle.ErrFunding, 0, nil, func(tx *wire.MsgTx) { tx.Version = 3 }},
		{"lock time 1", settle.ErrFunding, 0, nil, func(tx *wire.MsgTx) { tx.LockTime = 1 }},
		{"a last sequence", 0, 0, nil, func(tx *wire.MsgTx) { tx.TxIn[0].Sequence = 0xffffffff }},
		{"an output that there is not", settle.ErrFunding, 3, nil, func(*wire.MsgTx) {}},
		{"a second coin", 0, 0, one(coinScript), func(tx *wire.MsgTx) { add(tx, other) }},
		{"a P2WSH coin", settle.ErrFunding, 0, one(append([]byte{0, 32}, witnessScript[:]...)), func(tx *wire.MsgTx) { add(tx, other) }},
		{"a taproot coin", settle.ErrFunding, 0, one(taproot), func(tx *wire.MsgTx) { add(tx, other) }},
		{"most inputs", 0, 0, mostCoins, most},
		{"more inputs", settle.ErrFunding, 0, moreCoins, more},
		{"an input twice", settle.ErrFunding, 0, one(coinScript), func(tx *wire.MsgTx) { add(tx, other); add(tx, other) }},
		{"more than there is", settle.ErrFunding, 0, map[wire.OutPoint]*wire.TxOut{other: wire.NewTxOut(int64(pktcloud.MaxAmount), coinScript)}, func(tx *wire.MsgTx) { add(tx, other) }},
		{"an output of nothing", 0, 0, one(coinScript), func(tx *wire.MsgTx) { add(tx, other); tx.AddTxOut(wire.NewTxOut(0, coinScript)) }},
		{"a negative output", settle.ErrFunding, 0, one(coinScript), func(tx *wire.MsgTx) { add(tx, other); tx.AddTxOut(wire.NewTxOut(-5, coinScript)) }},
		{"an output beyond 63 bits", settle.ErrFunding, 0, nil, func(tx *wire.MsgTx) { tx.TxOut[2].Value = -1 << 63 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := base.remake(t, c.at, c.coins, c.alter)
			err := f.channel.CheckFunding(encode(f.funding), f.from(c.coins))
			if c.want == 0 && err != nil {
				t.Errorf("got %v, want none", err)
			}
			if c.want != 0 {
				wantCode(t, err, c.want)
			}
		})
	}
}

// TestFundingFee: the least fee passes, one unit less does not.
func TestFundingFee(t *testing.T) {
	base := fund(t, pktchain.RefundKeys{}, nil)
	rest := base.prev.Value - capacity - base.funding.TxOut[1].Value
	exact, short := 0, 0
	for fee := int64(10 * (vsize(base.funding) - 2)); fee < int64(10*(vsize(base.funding)+2)); fee++ {
		f := base.remake(t, 0, nil, func(tx *wire.MsgTx) { tx.TxOut[2].Value = rest - fee })
		least := int64(pktchain.Fee(uint64(vsize(f.funding)), 10*settle.RelayFloor)) // a signature may be a byte shorter
		err := f.channel.CheckFunding(encode(f.funding), f.output)
		switch {
		case fee >= least && err != nil:
			t.Errorf("a fee of %d units where %d are the least: %v", fee, least, err)
		case fee < least:
			wantCode(t, err, settle.ErrFee)
		}
		if fee == least {
			exact++
		}
		if fee == least-1 {
			short++
		}
	}
	if exact == 0 || short == 0 {
		t.Errorf("got %d fees that just suffice and %d that just do not, want some of both", exact, short)
	}
}

// TestSignatureScript: an input whose witness is in order and whose id still
// could change.
func TestSignatureScript(t *testing.T) {
	base := fund(t, pktchain.RefundKeys{}, nil)
	for name, change := range map[string]func(in *wire.TxIn){
		"a signature script": func(in *wire.TxIn) { in.SignatureScript = []byte{txscript.OP_TRUE} },
		"no witness":         func(in *wire.TxIn) { in.Witness = nil },
	} {
		tx := decode(t, encode(base.funding))
		change(tx.TxIn[0])
		d := base.channel.Detail
		d.Funding.TxID = tx.TxHash()
		f := base.with(t, d)
		err := f.channel.CheckFunding(encode(tx), func(settle.Outpoint) (settle.Output, error) {
			t.Errorf("%s: the ledger was asked", name) // judged by what the transaction shows
			return base.output(settle.Outpoint{})
		})
		wantCode(t, err, settle.ErrFunding)
	}
}

// TestDetailLimits: a detail's rules, one at a time.
func TestDetailLimits(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	ext := func(n int) map[string][]byte {
		m := map[string][]byte{}
		for i := range n {
			m[fmt.Sprint(i)] = []byte{1}
		}
		return m
	}
	keys := func(n int) (all [][]byte) {
		for i := range n {
			secret := sha256.Sum256([]byte{byte(i)})
			_, pub := btcec.PrivKeyFromBytes(secret[:])
			all = append(all, pub.SerializeCompressed())
		}
		return all
	}
	uncompressed := func() []byte {
		pub, err := btcec.ParsePubKey(f.channel.Detail.Payee)
		if err != nil {
			t.Fatal(err)
		}
		return pub.SerializeUncompressed()
	}
	offCurve := append([]byte{2}, make([]byte, 32)...)
	for _, c := range []struct {
		name   string
		ok     bool
		change func(d *pktchain.Detail)
	}{
		{"version", false, func(d *pktchain.Detail) { d.Version = 2 }},
		{"ext", true, func(d *pktchain.Detail) { d.Ext = ext(settle.MaxExt) }},
		{"much ext", false, func(d *pktchain.Detail) { d.Ext = ext(settle.MaxExt + 1) }},
		{"payee off the curve", false, func(d *pktchain.Detail) { d.Payee = offCurve }},
		{"spender off the curve", false, func(d *pktchain.Detail) { d.Spender = offCurve }},
		{"refund off the curve", false, func(d *pktchain.Detail) { d.Refund.Keys = [][]byte{offCurve} }},
		{"uncompressed", false, func(d *pktchain.Detail) { d.Payee = uncompressed() }},
		{"most refund keys", true, func(d *pktchain.Detail) { d.Refund = pktchain.RefundKeys{Required: 7, Keys: keys(7)} }},
		{"more refund keys", false, func(d *pktchain.Detail) { d.Refund = pktchain.RefundKeys{Required: 7, Keys: keys(8)} }},
		{"none required", false, func(d *pktchain.Detail) { d.Refund = pktchain.RefundKeys{Required: 0, Keys: keys(2)} }},
		{"more required than keys", false, func(d *pktchain.Detail) { d.Refund = pktchain.RefundKeys{Required: 3, Keys: keys(2)} }},
		{"a refund key twice", false, func(d *pktchain.Detail) {
			d.Refund = pktchain.RefundKeys{Required: 1, Keys: append(keys(2), keys(1)...)}
		}},
		{"the spender is the payee", false, func(d *pktchain.Detail) { d.Spender = d.Payee }},
		{"the spender takes the refund", false, func(d *pktchain.Detail) { d.Refund = pktchain.RefundKeys{Required: 1, Keys: [][]byte{d.Spender}} }},
		{"the payer's script", false, func(d *pktchain.Detail) { d.PayerScript = []byte{txscript.OP_TRUE} }},
		{"the payee's script", false, func(d *pktchain.Detail) { d.PayeeScript = []byte{txscript.OP_TRUE} }},
		{"one script", false, func(d *pktchain.Detail) { d.PayeeScript = d.PayerScript }},
	} {
		d := f.channel.Detail
		c.change(&d)
		err := d.Validate()
		switch {
		case c.ok && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !c.ok && err == nil:
			t.Errorf("%s: no error", c.name)
		case !c.ok:
			wantCode(t, err, settle.ErrMalformed)
		}
	}
	payee := f.plan.Payee
	payee.Ext = ext(settle.MaxExt)
	if err := payee.Validate(); err != nil {
		t.Errorf("a payee detail's extensions: %v", err)
	}
	payee.Ext = ext(settle.MaxExt + 1)
	wantCode(t, payee.Validate(), settle.ErrMalformed)
	if got, err := pktchain.ParsePayeeDetail([]byte{0xa0}); err == nil || !reflect.DeepEqual(got, pktchain.PayeeDetail{}) {
		t.Errorf("got %+v, %v", got, err)
	} else {
		wantCode(t, err, settle.ErrMalformed)
	}
}

// TestRails: a rail that reads the parameters, and one that is of one channel.
func TestRails(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	v, o := f.voucher(t, 1_000_000), f.offer(t, 1_000_000, 360)
	broken := f.params
	broken.Detail = nil
	general := pktchain.Rail{Network: network(t)}
	wantCode(t, general.VerifyVoucher(broken, v.Total, v.Proof), settle.ErrMalformed)
	wantCode(t, general.VerifyClose(broken, o), settle.ErrMalformed)
	for name, r := range map[string]settle.Rail{"general": general, "of one channel": f.channel.Rail()} {
		if got := r.Name(); got != "pkt-devnet" {
			t.Errorf("%s: got the name %q", name, got)
		}
		if err := r.VerifyVoucher(f.params, v.Total, v.Proof); err != nil {
			t.Errorf("%s: voucher: %v", name, err)
		}
		wantCode(t, r.VerifyVoucher(f.params, v.Total+1, v.Proof), settle.ErrProof)
		if err := r.VerifyClose(f.params, o); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
		bad := o
		bad.Fee++
		wantCode(t, r.VerifyClose(f.params, bad), settle.ErrProof)
	}
}

// TestScriptLimits: heights only, and keys that fit.
func TestScriptLimits(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	d := f.channel.Detail
	for expiry, ok := range map[uint64]bool{0: false, 1: true, 499_999_999: true, 500_000_000: false} {
		if _, err := pktchain.FundingScript(d.Payee, d.Spender, expiry, d.Refund); (err == nil) != ok {
			t.Errorf("expiry %d: got %v", expiry, err)
		} else if !ok {
			wantCode(t, err, settle.ErrParams)
		}
	}
	_, err := pktchain.FundingScript(make([]byte, 600), d.Spender, 1, d.Refund)
	wantCode(t, err, settle.ErrParams)
}

// TestFundingEdges: refusals that come before others.
func TestFundingEdges(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	wantCode(t, f.channel.CheckFunding(make([]byte, pktchain.MaxFundingBytes), f.output), settle.ErrMalformed)
	d := f.channel.Detail
	d.Funding.TxID[0] ^= 1
	wantCode(t, f.with(t, d).channel.CheckFunding(encode(f.funding), f.output), settle.ErrFunding)
	free := f.remake(t, 0, nil, func(tx *wire.MsgTx) { // all that comes in goes out
		tx.TxOut[2].Value = f.prev.Value - capacity - tx.TxOut[1].Value
		tx.AddTxOut(wire.NewTxOut(0, script("nothing")))
	})
	wantCode(t, free.channel.CheckFunding(encode(free.funding), free.output), settle.ErrFee)
}

// TestKeychainRefuses: keys that there are not, and keys of other channels.
func TestKeychainRefuses(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	if f.payer.Network() != network(t) || fmt.Sprintf("%#v", f.payer) != f.payer.String() {
		t.Errorf("got %#v of %+v", f.payer, f.payer.Network())
	}
	for _, n := range []int{15, 65} {
		_, err := pktchain.NewKeychain(network(t), make([]byte, n))
		wantCode(t, err, settle.ErrMalformed)
	}
	const none = pktchain.MaxIndex + 1
	v, o := f.voucher(t, 1_000_000), f.offer(t, 1_000_000, 360)
	for name, call := range map[string]func() error{
		"key":    func() error { _, err := f.payer.PayeeKey(none); return err },
		"signer": func() error { _, err := f.payer.Signer(f.channel, none); return err },
		"claim":  func() error { _, err := f.payee.Claim(f.channel, none, v, 300); return err },
		"close":  func() error { _, err := f.payee.CompleteClose(f.channel, none, o); return err },
		"refund": func() error { _, err := f.payer.SignRefund(f.channel, none, 400); return err },
		"ladder": func() error { _, err := f.payer.RefundLadder(f.channel, none, []pktcloud.Amount{400}); return err },
	} {
		if err := call(); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			wantCode(t, err, settle.ErrMalformed)
		}
	}
	_, err := f.payer.Signer(f.channel, f.plan.Index+1)
	wantCode(t, err, settle.ErrParams)
	_, err = f.payee.Claim(f.channel, 4, settle.Voucher{Total: f.params.Spendable() + 1, Proof: v.Proof}, 300)
	wantCode(t, err, settle.ErrCapacity)
	_, err = f.payer.RefundLadder(f.channel, f.plan.Index, []pktcloud.Amount{1})
	wantCode(t, err, settle.ErrFee)
}
