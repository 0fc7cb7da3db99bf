package wallet_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

var _ manager.Wallet = (*wallet.Wallet)(nil)

const coin = 1 << 30

func network(t testing.TB, rail string) pktchain.Network {
	t.Helper()
	n, ok := pktchain.NetworkOf(rail)
	if !ok {
		t.Fatalf("no network %s", rail)
	}
	return n
}

func seed(b byte) []byte { return bytes.Repeat([]byte{b}, wallet.SeedBytes) }

func chain(t *testing.T) *devnet.Chain {
	t.Helper()
	c, err := devnet.Open(t.TempDir(), devnet.Config{InitialBlocks: 130})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func open(t *testing.T, seed []byte, ledger settle.Ledger, store wallet.Store) *wallet.Wallet {
	t.Helper()
	w, err := wallet.Open(t.Context(), seed, wallet.Config{Network: network(t, "pkt-devnet"), Ledger: ledger, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// give pays the wallet from the faucet.
func give(t *testing.T, c *devnet.Chain, w *wallet.Wallet, units pktcloud.Amount) {
	t.Helper()
	script, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Faucet(t.Context(), script, units); err != nil {
		t.Fatal(err)
	}
}

func wantBalance(t *testing.T, w *wallet.Wallet, want wallet.Balance) {
	t.Helper()
	got, err := w.Balance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("balance: got %+v, want %+v", got, want)
	}
}

func decode(t *testing.T, raw []byte) *wire.MsgTx {
	t.Helper()
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return tx
}

// pay is a payment at the ledger's rate.
func pay(script []byte, amount pktcloud.Amount) wallet.SendRequest {
	return wallet.SendRequest{To: settle.Payment{Script: script, Amount: amount}, MaxFee: coin}
}

// feeOf is what a transaction leaves to the miner, inputs looked up on the chain.
func feeOf(t *testing.T, l settle.Ledger, tx *wire.MsgTx) (fee int64) {
	t.Helper()
	for _, in := range tx.TxIn {
		out, err := l.Output(t.Context(), settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index})
		if err != nil || !out.Known {
			t.Fatalf("input: got %+v, %v", out, err)
		}
		fee += int64(out.Amount)
	}
	for _, out := range tx.TxOut {
		fee -= out.Value
	}
	return fee
}

func TestFund(t *testing.T) {
	c := chain(t)
	w := open(t, seed(1), c, settletest.NewStore())
	for range 3 {
		give(t, c, w, coin)
	}
	outputs := []settle.Payment{
		{Script: append([]byte{0, 32}, make([]byte, 32)...), Amount: coin + 5},
		{Script: []byte{txscript.OP_RETURN, 2, 7, 7}},
	}
	raw, err := w.Fund(t.Context(), outputs, 1)
	if err != nil {
		t.Fatal(err)
	}
	tx := decode(t, raw)
	for i, o := range outputs {
		if tx.TxOut[i].Value != int64(o.Amount) || !bytes.Equal(tx.TxOut[i].PkScript, o.Script) {
			t.Errorf("output %d: got %+v, want %+v", i, tx.TxOut[i], o)
		}
	}
	if len(tx.TxIn) != 2 || len(tx.TxOut) != 3 {
		t.Errorf("got %d inputs and %d outputs, want 2 and 3", len(tx.TxIn), len(tx.TxOut))
	}
	for i, in := range tx.TxIn {
		if in.Sequence != 0xfffffffe {
			t.Errorf("input %d: got sequence %x", i, in.Sequence)
		}
	}
	size := int64(3*tx.SerializeSizeStripped()+tx.SerializeSize()+3) / 4
	if fee := feeOf(t, c, tx); fee < 10*size || fee > 10*(size+4) {
		t.Errorf("fee: got %d for %d virtual bytes, want ten units each", fee, size)
	}
	wantBalance(t, w, wallet.Balance{Confirmed: coin, Reserved: 2 * coin})
	// The reserved coins are not there for another channel.
	if _, err := w.Fund(t.Context(), outputs, 1); !errors.Is(err, wallet.ErrFunds) {
		t.Errorf("second fund: got %v, want ErrFunds", err)
	}
	for range 2 {
		if err := w.Release(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	wantBalance(t, w, wallet.Balance{Confirmed: 3 * coin})
	if err := w.Reserve(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	if err := c.Broadcast(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	changed := pktcloud.Amount(tx.TxOut[2].Value)
	wantBalance(t, w, wallet.Balance{Confirmed: coin, Unconfirmed: changed})
	// Change that is not confirmed funds no channel.
	if _, err := w.Fund(t.Context(), outputs, 1); !errors.Is(err, wallet.ErrFunds) {
		t.Errorf("fund from unconfirmed change: got %v, want ErrFunds", err)
	}
	if _, err := c.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, w, wallet.Balance{Confirmed: coin + changed})
}

func TestFundRefuses(t *testing.T) {
	c := chain(t)
	w := open(t, seed(2), c, settletest.NewStore())
	give(t, c, w, coin)
	p2wpkh := append([]byte{0, 20}, make([]byte, 20)...)
	for _, tt := range []struct {
		name string
		out  []settle.Payment
		want error
	}{
		{"nothing", nil, settle.ErrMalformed},
		{"dust", []settle.Payment{{Script: p2wpkh, Amount: 293}}, settle.ErrDust},
		{"no script", []settle.Payment{{Amount: 1000}}, settle.ErrMalformed},
		{"taproot", []settle.Payment{{Script: append([]byte{0x51, 32}, make([]byte, 32)...), Amount: 1000}}, settle.ErrMalformed},
		{"money into data", []settle.Payment{{Script: []byte{txscript.OP_RETURN}, Amount: 1000}}, settle.ErrMalformed},
		{"all of it, without a fee", []settle.Payment{{Script: p2wpkh, Amount: coin}}, wallet.ErrFunds},
		{"beyond the maximum", []settle.Payment{{Script: p2wpkh, Amount: pktcloud.MaxAmount}, {Script: p2wpkh, Amount: 1000}}, pktcloud.ErrAmountRange},
	} {
		if _, err := w.Fund(t.Context(), tt.out, 0); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	wantBalance(t, w, wallet.Balance{Confirmed: coin})
	// Change below dust goes to the fee.
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: p2wpkh, Amount: coin - 1400}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if tx := decode(t, raw); len(tx.TxOut) != 1 || feeOf(t, c, tx) != 1400 {
		t.Errorf("got %d outputs and a fee of %d, want one and 1400", len(tx.TxOut), feeOf(t, c, tx))
	}
}

func TestSend(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(3), c, store)
	other := open(t, seed(4), c, settletest.NewStore())
	give(t, c, w, 10*coin)
	address, err := other.NewAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	to, err := w.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	// Twice: the second spends the first's change before it is confirmed.
	for range 2 {
		if _, err := w.Send(t.Context(), pay(to, 3*coin)); err != nil {
			t.Fatal(err)
		}
	}
	wantBalance(t, other, wallet.Balance{Unconfirmed: 6 * coin})
	if _, err := c.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, other, wallet.Balance{Confirmed: 6 * coin})
	if err := w.Rebroadcast(t.Context()); err != nil {
		t.Errorf("rebroadcast of a mined payment: %v", err)
	}
	if n := sent(t, store); n != 2 {
		t.Errorf("payments under way: got %d, want 2", n)
	}
	if _, err := c.Mine(wallet.SettledDepth, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Rebroadcast(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := sent(t, store); n != 0 {
		t.Errorf("settled payments: got %d still under way", n)
	}
}

func sent(t *testing.T, store *settletest.Store) (n int) {
	t.Helper()
	err := store.Load(t.Context(), "wallet/sent/", func(string, []byte) error {
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// deaf is a ledger that cannot broadcast while down.
type deaf struct {
	*devnet.Chain
	down bool
}

func (d *deaf) Broadcast(ctx context.Context, raw []byte) error {
	if d.down {
		return settle.ErrLedgerUnavailable
	}
	return d.Chain.Broadcast(ctx, raw)
}

// A payment made while the chain is out of reach survives a restart, keeps its
// coins, and goes out once, later.
func TestSendWhileDown(t *testing.T) {
	c := chain(t)
	ledger := &deaf{Chain: c, down: true}
	store := settletest.NewStore()
	w := open(t, seed(5), ledger, store)
	give(t, c, w, 5*coin)
	to := append([]byte{0, 20}, bytes.Repeat([]byte{9}, 20)...)
	txid, err := w.Send(t.Context(), pay(to, coin))
	if !errors.Is(err, settle.ErrLedgerUnavailable) || txid == [32]byte{} {
		t.Fatalf("send: got %x, %v; want an id and ErrLedgerUnavailable", txid, err)
	}
	w = open(t, seed(5), ledger, store) // restarted
	wantBalance(t, w, wallet.Balance{Reserved: 5 * coin})
	ledger.down = false
	if err := w.Rebroadcast(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := c.Output(t.Context(), settle.Outpoint{TxID: txid})
	if err != nil || !out.Known || out.Amount != coin {
		t.Errorf("payment: got %+v, %v", out, err)
	}
}

// An address index is durable before its address is known to anybody.
func TestIndexDurableFirst(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(6), c, store)
	seen := map[string]bool{}
	for range 5 {
		a, err := w.NewAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if seen[a] {
			t.Errorf("address %s given out twice", a)
		}
		seen[a] = true
		store = store.Clone() // a crash right after
		w = open(t, seed(6), c, store)
	}
	store.FailWhen(func(int) bool { return true })
	w = open(t, seed(6), c, store)
	if a, err := w.NewAddress(t.Context()); err == nil {
		t.Errorf("got address %s though nothing could be stored", a)
	}
}

// The phrase alone finds every coin, however many addresses were asked for and
// never used.
func TestRestore(t *testing.T) {
	c := chain(t)
	w := open(t, seed(7), c, settletest.NewStore())
	var want pktcloud.Amount
	for i := range 100 {
		script, err := w.ReceiveScript(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i%33 == 32 {
			if _, err := c.Faucet(t.Context(), script, coin); err != nil {
				t.Fatal(err)
			}
			want += coin
		}
	}
	// A used address whose coin is gone still counts as used.
	if _, err := w.Send(t.Context(), pay(append([]byte{0, 20}, make([]byte, 20)...), coin)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	before, err := w.Balance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.Confirmed == 0 || before.Confirmed >= want-coin {
		t.Fatalf("balance before: got %+v of %d", before, want)
	}
	again := open(t, seed(7), c, settletest.NewStore())
	wantBalance(t, again, wallet.Balance{})
	for range 2 {
		if err := again.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantBalance(t, again, before)
	}
}

// TestRecallAddress: an address that a lost store gave out is watched again once
// it is named, also after a restart; a foreign one changes nothing.
func TestRecallAddress(t *testing.T) {
	c := chain(t)
	lost := open(t, seed(7), c, settletest.NewStore())
	var script []byte
	for range wallet.GapLimit {
		var err error
		if script, err = lost.ReceiveScript(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	store := settletest.NewStore()
	w := open(t, seed(7), c, store)
	if err := w.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	foreign := append([]byte{0, 20}, make([]byte, 20)...)
	for _, s := range [][]byte{foreign, script, script, foreign} {
		if err := w.Recall(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Faucet(t.Context(), script, coin); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, w, wallet.Balance{Confirmed: coin})
	wantBalance(t, open(t, seed(7), c, store), wallet.Balance{Confirmed: coin})
}

func TestOpenRefusesSeed(t *testing.T) {
	_, err := wallet.Open(t.Context(), make([]byte, 32), wallet.Config{Network: network(t, "pkt"), Store: settletest.NewStore()})
	if !errors.Is(err, settle.ErrMalformed) {
		t.Errorf("got %v, want ErrMalformed", err)
	}
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
