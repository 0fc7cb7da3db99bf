package pktchain_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// plans are n plans whose note names them all.
func plans(t testing.TB, n int) []pktchain.Plan {
	t.Helper()
	key, err := keychain(t, "payee").PayeeKey(4)
	if err != nil {
		t.Fatal(err)
	}
	var all []pktchain.Plan
	for i := range n {
		all = append(all, pktchain.Plan{
			Index: 7 + uint32(i), Expiry: expiry, Capacity: capacity + pktcloud.Amount(i), PayerScript: script("payer out"),
			Payee: pktchain.PayeeDetail{Version: pktchain.PayeeDetailVersion, Key: key, Script: script("payee out")},
		})
	}
	return all
}

// fundMany is a signed transaction that funds the plans.
func fundMany(t testing.TB, all []pktchain.Plan) (tx *wire.MsgTx, prev *wire.TxOut) {
	t.Helper()
	outputs, err := keychain(t, "payer").FundingOutputs(all...)
	if err != nil {
		t.Fatal(err)
	}
	coinKey, coinScript := coin("coin")
	prev = wire.NewTxOut(int64(len(all))*(capacity+1_000)+10_000, coinScript)
	tx = wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: sha256.Sum256([]byte("before"))}, Sequence: 0xfffffffe})
	for _, o := range outputs {
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
	}
	fetch := txscript.NewCannedPrevOutputFetcher(prev.PkScript, prev.Value)
	tx.TxIn[0].Witness, err = txscript.WitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, prev.Value, coinScript, txscript.SigHashAll, coinKey, true)
	if err != nil {
		t.Fatal(err)
	}
	return tx, prev
}

// TestOneFundingForMany: the phrase rebuilds each channel of a transaction, and
// the payee of each finds it in order.
func TestOneFundingForMany(t *testing.T) {
	for _, n := range []int{1, 2, 3, pktchain.MaxRun} {
		all := plans(t, n)
		tx, prev := fundMany(t, all)
		f := fixture{payer: keychain(t, "payer"), payee: keychain(t, "payee"), funding: tx, prev: prev}
		found, err := f.payer.RestoreAll(encode(tx), pktchain.RefundKeys{})
		if err != nil || len(found) != n {
			t.Fatalf("got %d channels, %v, want %d", len(found), err, n)
		}
		scripts := 0
		for i, r := range found {
			if r.Index != all[i].Index || r.Capacity != all[i].Capacity || r.Expiry != expiry || r.Detail.Funding.Index != uint32(i) {
				t.Errorf("channel %d of %d: got %+v", i, n, r)
			}
			d, err := f.payer.DetailOf(all[i], encode(tx))
			if err != nil {
				t.Fatal(err)
			}
			p := settle.Params{
				Version: settle.ParamsVersion, Rail: network(t).Rail, Payer: payerDevice.Public(), Payee: payeeDevice.Public(),
				Capacity: all[i].Capacity, Reserve: reserve, MinChange: 294, ExpiryHeight: expiry, MarginBlocks: 144, MinDepth: 3,
			}
			if p.Detail, err = d.Encode(); err != nil {
				t.Fatal(err)
			}
			c, err := pktchain.ChannelOf(network(t), p)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.CheckFunding(encode(tx), f.output); err != nil {
				t.Errorf("channel %d of %d: %v", i, n, err)
			}
			refund(t, f, r, tx.TxOut[i])
		}
		for _, out := range tx.TxOut {
			if f.payer.IsNote(out.PkScript) {
				scripts++
				if size := len(out.PkScript) - 2; size > 80 || size != pktchain.SealedBytes && size != pktchain.SealedRunBytes {
					t.Errorf("a note of %d bytes", size)
				}
			}
		}
		if scripts != 1 {
			t.Errorf("got %d notes, nodes relay one", scripts)
		}
	}
}

// refund spends a restored channel's output.
func refund(t *testing.T, f fixture, r pktchain.Restored, out *wire.TxOut) {
	t.Helper()
	c, err := r.Channel(network(t), script("new wallet"))
	if err != nil {
		t.Fatal(err)
	}
	ladder, err := f.payer.RefundLadder(c, r.Index, []pktcloud.Amount{400})
	if err != nil {
		t.Fatal(err)
	}
	fetch := txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value)
	tx := decode(t, ladder[0])
	vm, err := txscript.NewEngine(out.PkScript, tx, 0, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetch), out.Value, fetch)
	if err == nil {
		err = vm.Execute()
	}
	if err != nil {
		t.Errorf("the refund of channel %d: %v", r.Index, err)
	}
}

// TestOneNoteForAll: what one note cannot say is not funded by one transaction.
func TestOneNoteForAll(t *testing.T) {
	k := keychain(t, "payer")
	other, err := keychain(t, "payee").PayeeKey(5)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *pktchain.Plan){
		"another payee":      func(p *pktchain.Plan) { p.Payee.Key = other },
		"another expiry":     func(p *pktchain.Plan) { p.Expiry++ },
		"another refund":     func(p *pktchain.Plan) { p.Refund = multiKeys(t) },
		"an index left out":  func(p *pktchain.Plan) { p.Index++ },
		"the index again":    func(p *pktchain.Plan) { p.Index-- },
		"a key of no length": func(p *pktchain.Plan) { p.Payee.Key = nil },
	} {
		t.Run(name, func(t *testing.T) {
			all := plans(t, 2)
			change(&all[1])
			_, err := k.FundingOutputs(all...)
			wantCode(t, err, settle.ErrParams)
		})
	}
	_, err = k.FundingOutputs()
	wantCode(t, err, settle.ErrParams)
	_, err = k.FundingOutputs(plans(t, pktchain.MaxRun+1)...)
	wantCode(t, err, settle.ErrParams)
	more := plans(t, 2)
	for i := range more {
		more[i].Refund = multiKeys(t)
		if i == 1 {
			more[i].Refund.Required = 1
		}
	}
	_, err = k.FundingOutputs(more...)
	wantCode(t, err, settle.ErrParams)
	more[1].Refund = multiKeys(t)
	more[1].Refund.Keys[2] = more[0].Payee.Key
	_, err = k.FundingOutputs(more...) // as many keys, of as many, but others
	wantCode(t, err, settle.ErrParams)
	more[1].Refund = multiKeys(t)
	tx, _ := fundMany(t, more)
	found, err := k.RestoreAll(encode(tx), multiKeys(t))
	if err != nil || len(found) != 2 {
		t.Errorf("with foreign refund keys: got %d channels, %v, want 2", len(found), err)
	}
	_, err = k.RestoreAll(encode(tx), pktchain.RefundKeys{})
	wantCode(t, err, settle.ErrFunding)
}

// TestRestoreOfMany: Restore alone would hide the others; what a transaction
// lost of its channels does not hide the rest.
func TestRestoreOfMany(t *testing.T) {
	k := keychain(t, "payer")
	all := plans(t, 3)
	tx, _ := fundMany(t, all)
	_, err := k.Restore(encode(tx), pktchain.RefundKeys{})
	wantCode(t, err, settle.ErrFunding)
	one := decode(t, encode(tx))
	one.TxOut = append(one.TxOut[:1], one.TxOut[2:]...)
	found, err := k.RestoreAll(encode(one), pktchain.RefundKeys{})
	if err != nil || len(found) != 2 || found[1].Index != 9 || found[1].Detail.Funding.Index != 1 {
		t.Errorf("with one output gone: got %+v, %v, want the two others", found, err)
	}
	_, err = k.DetailOf(all[1], encode(one))
	wantCode(t, err, settle.ErrFunding)
	for name, change := range map[string]func(p *pktchain.Plan){
		"capacity": func(p *pktchain.Plan) { p.Capacity++ },
		"expiry":   func(p *pktchain.Plan) { p.Expiry++ },
		"index":    func(p *pktchain.Plan) { p.Index += 9 },
		"payee":    func(p *pktchain.Plan) { p.Payee.Key = bytes.Repeat([]byte{2}, 33) },
	} {
		p := all[0]
		change(&p)
		if _, err := k.DetailOf(p, encode(tx)); !errors.Is(err, settle.ErrFunding) {
			t.Errorf("another %s: got %v, want a refusal of the funding", name, err)
		}
	}
	for _, out := range tx.TxOut { // a script that says another length than it has
		if k.IsNote(out.PkScript) {
			bad := bytes.Clone(out.PkScript)
			bad[1]--
			if k.IsNote(bad) || k.IsNote(bad[:len(bad)-1]) || k.IsNote(append(bytes.Clone(out.PkScript), 0)) {
				t.Error("took a script for a note that is none")
			}
		}
	}
}

// TestWorth: a channel whose claim would be dust, or all fee, is none.
func TestWorth(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	least := network(t).Dust(script("payee out")) + f.channel.ClaimFee(0)
	for _, c := range []struct {
		capacity, reserve pktcloud.Amount
		want              error
	}{
		{294 + least, 0, nil},
		{294 + least - 1, 0, settle.ErrDust},
		{294 + least, 100, nil}, // the reserve is the payee's too, in a claim
		{294 + least - 1, 100, settle.ErrDust},
	} {
		p := f.params
		p.Capacity, p.Reserve, p.Unconfirmed = c.capacity, c.reserve, 0
		_, err := pktchain.ChannelOf(network(t), p)
		planned := f.payer.Worth(p, f.plan)
		if !errors.Is(err, c.want) || !errors.Is(planned, c.want) {
			t.Errorf("capacity %d, reserve %d: got %v, planned %v, want %v", uint64(c.capacity), uint64(c.reserve), err, planned, c.want)
		}
	}
	p := f.params
	p.MinChange = 293
	wantCode(t, f.payer.Worth(p, f.plan), settle.ErrParams)
	bad := f.plan
	bad.Payee.Key = nil
	wantCode(t, f.payer.Worth(f.params, bad), settle.ErrMalformed)
}

// manyVectors are those of one transaction for several channels, of dust, and of
// the depth that an amount needs.
func manyVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	note := func(name, expect, about string, seed []byte) vector.Case {
		all := plans(t, 3)
		tx, _ := fundMany(t, all)
		c := vector.New("note-"+name, expect, about).With("rail", f.params.Rail).With("seed", seed).With("funding", encode(tx)).
			With("index", 7).With("expiry", expiry)
		found, err := f.payer.RestoreAll(encode(tx), pktchain.RefundKeys{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found {
			c = c.With("capacity", uint64(r.Capacity)).With("script", r.Script)
		}
		return c
	}
	channel := func(name, expect, about string, capacity pktcloud.Amount) vector.Case {
		p := f.params
		p.Capacity, p.Reserve, p.Unconfirmed = capacity, 0, 0
		return vector.New("channel-"+name, expect, about).With("params", mustEncode(t, p))
	}
	depth := func(name, about string, d settle.Depths, capacity pktcloud.Amount) vector.Case {
		return vector.New("depth-"+name, "ok", about).With("least", d.Least).With("step", uint64(d.Step)).With("capacity", uint64(capacity)).
			With("depth", d.For(capacity))
	}
	least := 294 + network(t).Dust(script("payee out")) + f.channel.ClaimFee(0)
	return []vector.Case{
		note("run", "ok", "the sealed note of a transaction that funds three channels: keys 7, 8 and 9", seedOf("payer")),
		note("run-stranger", "funding", "another seed opens nothing", seedOf("stranger")),
		channel("worth", "ok", "the smallest channel that is worth a claim", least),
		channel("dust", "dust", "a unit less: the payee's output of any claim would be dust", least-1),
		depth("none", "no rule", settle.Depths{}, 1<<40),
		depth("least", "less than a step", settle.Depths{Least: 2, Step: 1000}, 999),
		depth("steps", "one more for each full step", settle.Depths{Least: 2, Step: 1000}, 3000),
		depth("most", "steps ask for 100 at most", settle.Depths{Least: 2, Step: 1}, 1<<40),
		depth("least-only", "unless the least is more", settle.Depths{Least: 144, Step: 1}, 1<<40),
	}
}

func runChannel(t *testing.T, c vector.Case) error {
	p, err := settle.ParseParams(c.Bytes("params"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pktchain.ChannelOf(networkOf(t, p.Rail), p)
	return err
}

func runDepth(t *testing.T, c vector.Case) error {
	d := settle.Depths{Least: number(t, c, "least"), Step: amount(t, c, "step")}
	if got := d.For(amount(t, c, "capacity")); got != number(t, c, "depth") {
		t.Errorf("got %d, want %s", got, c.Value("depth"))
	}
	return nil
}
