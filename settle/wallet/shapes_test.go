package wallet_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// shapeVectors are the transactions that a wallet makes, with the digest that
// each input signs.
func shapeVectors(t *testing.T) []vector.Case {
	t.Helper()
	n := network(t, "pkt")
	channel := append([]byte{txscript.OP_0, 32}, bytes.Repeat([]byte{0x33}, 32)...)
	note := append([]byte{txscript.OP_RETURN, 4}, "note"...)
	send := func(r wallet.SendRequest) func(w *wallet.Wallet) error {
		return func(w *wallet.Wallet) error { _, err := w.Send(t.Context(), r); return err }
	}
	all := pay(stranger, 0)
	all.All = true
	var cases []vector.Case
	for _, s := range []struct {
		name, about, wif string
		do               func(w *wallet.Wallet, l *settletest.Ledger) error
	}{
		{"payment", "a payment with change", "", func(w *wallet.Wallet, _ *settletest.Ledger) error { return send(pay(stranger, 1_500_000))(w) }},
		{"payment-all", "a payment of all coins", "", func(w *wallet.Wallet, _ *settletest.Ledger) error { return send(all)(w) }},
		{"replacement", "the same payment at a higher fee", "", func(w *wallet.Wallet, _ *settletest.Ledger) error {
			old, err := w.Send(t.Context(), pay(stranger, 1_500_000))
			if err == nil {
				_, err = w.Replace(t.Context(), old, 0, coin)
			}
			return err
		}},
		{"funding", "the funding of a channel: nobody may replace it", "", func(w *wallet.Wallet, l *settletest.Ledger) error {
			raw, err := w.Fund(t.Context(), []settle.Payment{{Script: channel, Amount: 500_000}, {Script: note}}, 10_000)
			if err == nil {
				err = l.Broadcast(t.Context(), raw)
			}
			return err
		}},
		{"sweep-compressed", "what a key from elsewhere holds in three forms, one of which signs in the way before segregated witness", wif(0xe0, append(bytes.Clone(key1), 1)), nil},
		{"sweep-uncompressed", "what an old key holds", wif(0xe0, key1), nil},
	} {
		l := settletest.NewLedger(n)
		w, err := wallet.Open(t.Context(), seed(71), wallet.Config{Network: n, Ledger: l, Store: settletest.NewStore()})
		if err != nil {
			t.Fatal(err)
		}
		c := vector.New("tx-"+s.name, "ok", s.about).With("network", n.Rail)
		if s.wif == "" {
			c = c.With("seed", seed(71))
			for _, units := range []pktcloud.Amount{1_000_000, 2_000_000} {
				script, err := w.ReceiveScript(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				l.Mint(script, units)
			}
			err = s.do(w, l)
		} else {
			c = c.With("wif", s.wif)
			key, e := wallet.ParseKey(n, s.wif)
			if e != nil {
				t.Fatal(e)
			}
			for _, script := range key.Scripts() {
				l.Mint(script, 1_000_000)
			}
			_, err = w.Sweep(t.Context(), key, 0, coin)
		}
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		cases = append(cases, withTx(t, c, l))
	}
	return cases
}

// withTx adds the one transaction in a ledger's mempool, and the coins that it
// spends with the digests that their owner signs.
func withTx(t *testing.T, c vector.Case, l *settletest.Ledger) vector.Case {
	t.Helper()
	pool := l.Pool()
	if len(pool) != 1 {
		t.Fatalf("%s: got %d transactions, want 1", c.Name, len(pool))
	}
	tx := decode(t, pool[0])
	prevs := map[wire.OutPoint]*wire.TxOut{}
	for _, in := range tx.TxIn {
		at := in.PreviousOutPoint
		out, err := l.Output(t.Context(), settle.Outpoint{TxID: at.Hash, Index: at.Index})
		if err != nil || !out.Known {
			t.Fatalf("%s: input %v: %v", c.Name, at, err)
		}
		prevs[at] = wire.NewTxOut(int64(out.Amount), out.Script)
		c = c.With("coin", fmt.Sprintf("%d %x", uint64(out.Amount), out.Script))
	}
	for i := range tx.TxIn {
		c = c.With("sighash", sighash(t, tx, i, prevs))
	}
	return c.With("transaction", pool[0])
}

// sighash is what an input signs.
func sighash(t *testing.T, tx *wire.MsgTx, i int, prevs map[wire.OutPoint]*wire.TxOut) []byte {
	t.Helper()
	prev := prevs[tx.TxIn[i].PreviousOutPoint]
	if txscript.IsPayToPubKeyHash(prev.PkScript) {
		digest, err := txscript.CalcSignatureHash(prev.PkScript, txscript.SigHashAll, tx, i)
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	script := prev.PkScript
	if in := tx.TxIn[i].SignatureScript; len(in) > 0 {
		script = in[1:] // of P2SH, the program that it stands for
	}
	fetch := txscript.NewMultiPrevOutFetcher(prevs)
	digest, err := txscript.CalcWitnessSigHash(script, txscript.NewTxSigHashes(tx, fetch), txscript.SigHashAll, tx, i, prev.Value)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// testShape asks btcd's script engine, under standard rules, whether the file's
// transaction may spend the file's coins.
func testShape(t *testing.T, c vector.Case) {
	t.Helper()
	tx := decode(t, c.Bytes("transaction"))
	prevs := map[wire.OutPoint]*wire.TxOut{}
	var digests []string
	for _, l := range c.Lines {
		switch l.Key {
		case "coin":
			units, script, _ := strings.Cut(l.Value, " ")
			b, err := hex.DecodeString(script)
			if err != nil || len(prevs) >= len(tx.TxIn) {
				t.Fatalf("coin %q: %v", l.Value, err)
			}
			prevs[tx.TxIn[len(prevs)].PreviousOutPoint] = wire.NewTxOut(int64(amountOf(t, units)), b)
		case "sighash":
			digests = append(digests, l.Value)
		}
	}
	if len(prevs) != len(tx.TxIn) || len(digests) != len(tx.TxIn) {
		t.Fatalf("got %d coins and %d digests for %d inputs", len(prevs), len(digests), len(tx.TxIn))
	}
	fetch := txscript.NewMultiPrevOutFetcher(prevs)
	for i, in := range tx.TxIn {
		prev := prevs[in.PreviousOutPoint]
		vm, err := txscript.NewEngine(prev.PkScript, tx, i, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetch), prev.Value, fetch)
		if err == nil {
			err = vm.Execute()
		}
		if err != nil {
			t.Errorf("input %d: %v", i, err)
		}
		if got := hex.EncodeToString(sighash(t, tx, i, prevs)); got != digests[i] {
			t.Errorf("input %d: got the digest %s, want %s", i, got, digests[i])
		}
		if final := in.Sequence == wire.MaxTxInSequenceNum-1; final != (c.Name == "tx-funding") {
			t.Errorf("input %d: got the sequence %x", i, in.Sequence)
		}
	}
}
