package wallet_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// benchCoins is how many coins the wallet of the benchmarks has.
const benchCoins = 100_000

// viewLedger is a driver without a node: what a driver keeps of a chain, fed by
// the benchmark.
type viewLedger struct {
	settle.Ledger // nil: what is not asked here
	view          *chainview.View
	blocks        uint64
}

func (l *viewLedger) Tip(context.Context) (settle.Tip, error) { return l.view.Tip(), nil }

func (l *viewLedger) FeeRate(context.Context) (pktcloud.Amount, error) { return settle.RelayFloor, nil }

func (l *viewLedger) Follow(_ context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	for _, s := range added {
		l.view.WatchScript(s)
	}
	return l.view.Follow(since, added), nil
}

// block adds one with a transaction for every output.
func (l *viewLedger) block(outs ...*wire.TxOut) {
	l.blocks++
	b := chainview.Block{Height: l.blocks, Hash: chainhash.HashH(binary.BigEndian.AppendUint64(nil, l.blocks)), Time: int64(l.blocks)}
	for i, out := range append([]*wire.TxOut{wire.NewTxOut(1, nil)}, outs...) {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: b.Hash, Index: uint32(i)}})
		tx.AddTxOut(out)
		b.Txs = append(b.Txs, tx)
	}
	l.view.Connect(b)
}

// bigWallet has benchCoins coins on a thousand addresses, in transactions of
// their own, all confirmed.
func bigWallet(b *testing.B) (*wallet.Wallet, *viewLedger, []byte) {
	b.Helper()
	l := &viewLedger{view: chainview.New(false)}
	l.block()
	store := settletest.NewStore()
	if err := store.Apply(b.Context(), []wallet.Put{{Key: "wallet/next/0", Value: []byte("1000")}}); err != nil {
		b.Fatal(err)
	}
	w, err := wallet.Open(b.Context(), seed(1), wallet.Config{Network: network(b, "pkt"), Ledger: l, Store: store})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.Balance(b.Context()); err != nil { // names the addresses
		b.Fatal(err)
	}
	var outs []*wire.TxOut
	var script []byte
	for i := range 1000 {
		script = w.ScriptAt(uint32(i))
		for j := range benchCoins / 1000 {
			outs = append(outs, wire.NewTxOut(int64(1000+i*7919%5003*100+j), script))
		}
	}
	l.block(outs...)
	balance, err := w.Balance(b.Context())
	if err != nil || balance.Confirmed == 0 {
		b.Fatal(balance, err)
	}
	return w, l, script
}

// BenchmarkBalance asks for the balance of 100,000 coins: nothing changed, and
// right after a block that pays the wallet.
func BenchmarkBalance(b *testing.B) {
	w, l, script := bigWallet(b)
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.Balance(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("after a block", func(b *testing.B) {
		for b.Loop() {
			l.block(wire.NewTxOut(5000, script))
			if _, err := w.Balance(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSelect plans a payment from 100,000 coins: one that a single coin
// covers, and the largest that fits into a transaction.
func BenchmarkSelect(b *testing.B) {
	w, _, _ := bigWallet(b)
	to := append([]byte{0, 20}, make([]byte, 20)...)
	for _, c := range []struct {
		name  string
		coins int
		units pktcloud.Amount
	}{{"1 coin", 1, 100_000}, {"400 coins", 400, 150_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				p, err := w.Plan(b.Context(), pay(to, c.units))
				if err != nil || c.coins == 1 && len(p.Inputs) != 1 || c.coins > 1 && len(p.Inputs) < 300 {
					b.Fatal(len(p.Inputs), err)
				}
			}
		})
	}
}

// BenchmarkFirstLook is what a restart costs: 100,000 coins read from a driver
// that knows them.
func BenchmarkFirstLook(b *testing.B) {
	_, l, _ := bigWallet(b)
	for b.Loop() {
		store := settletest.NewStore()
		if err := store.Apply(b.Context(), []wallet.Put{{Key: "wallet/next/0", Value: []byte("1000")}}); err != nil {
			b.Fatal(err)
		}
		w, err := wallet.Open(b.Context(), seed(1), wallet.Config{Network: network(b, "pkt"), Ledger: l, Store: store})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Balance(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
