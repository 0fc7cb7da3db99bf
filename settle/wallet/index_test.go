package wallet_test

import (
	"context"
	"reflect"
	"slices"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
	"pgregory.net/rapid"
)

// plain hides what a ledger can do besides: the wallet then asks it for all
// coins each time.
type plain struct{ settle.Ledger }

// indexMachine does at random what happens to a wallet, and compares the one
// that follows the chain with one that asks for everything.
type indexMachine struct {
	*testing.T
	chain *devnet.Chain
	store *settletest.Store
	w     *wallet.Wallet
	seed  []byte
	other []byte
}

func (m *indexMachine) must(err error) {
	if err != nil {
		m.Fatal(err)
	}
}

func (m *indexMachine) Receive(t *rapid.T) {
	script, err := m.w.ReceiveScript(m.Context())
	m.must(err)
	_, err = m.chain.Faucet(m.Context(), script, pktcloud.Amount(rapid.Uint32Range(5000, 1<<31).Draw(t, "units")))
	m.must(err)
}

func (m *indexMachine) Mined(*rapid.T) { // a reward, which must mature
	script, err := m.w.ReceiveScript(m.Context())
	m.must(err)
	_, err = m.chain.Mine(1, script)
	m.must(err)
}

func (m *indexMachine) Send(t *rapid.T) {
	b, err := m.w.Balance(m.Context())
	m.must(err)
	to := m.other
	if rapid.Bool().Draw(t, "to itself") {
		to, err = m.w.ReceiveScript(m.Context())
		m.must(err)
	}
	_, _ = m.w.Send(m.Context(), pay(to, b.Confirmed/pktcloud.Amount(rapid.IntRange(1, 6).Draw(t, "part"))+400)) // often too much
}

func (m *indexMachine) Replace(*rapid.T) {
	history, err := m.w.History(m.Context())
	m.must(err)
	for _, e := range history {
		if e.Replaceable {
			_, _ = m.w.Replace(m.Context(), e.TxID, 0, coin)
			return
		}
	}
}

func (m *indexMachine) Fund(t *rapid.T) {
	raw, err := m.w.Fund(m.Context(), []settle.Payment{{Script: m.other, Amount: 5000}}, 0)
	if err != nil {
		return
	}
	if rapid.Bool().Draw(t, "release") {
		m.must(m.w.Release(m.Context(), raw))
	} else if rapid.Bool().Draw(t, "broadcast") {
		_ = m.chain.Broadcast(m.Context(), raw)
	}
}

func (m *indexMachine) Freeze(t *rapid.T) {
	coins, err := m.w.Coins(m.Context())
	m.must(err)
	if len(coins) > 0 {
		c := rapid.SampledFrom(coins).Draw(t, "coin")
		m.must(m.w.Freeze(m.Context(), c.At, !c.Frozen))
	}
}

func (m *indexMachine) Mine(t *rapid.T) {
	_, err := m.chain.Mine(rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "blocks"), nil)
	m.must(err)
}

func (m *indexMachine) Reorganise(t *rapid.T) {
	n := rapid.IntRange(1, 6).Draw(t, "blocks")
	m.must(m.chain.Invalidate(n))
	if rapid.Bool().Draw(t, "go on") {
		_, err := m.chain.Mine(n+1, nil)
		m.must(err)
	}
}

func (m *indexMachine) Account(*rapid.T) {
	if _, err := m.w.AddAccount(m.Context(), "more"); err == nil {
		_, err := m.w.NewAddressOf(m.Context(), 1)
		m.must(err)
	}
}

func (m *indexMachine) Check(*rapid.T) {
	store := m.store.Clone()
	other := open(m.T, m.seed, plain{m.chain}, store)
	want, err := other.Coins(m.Context())
	m.must(err)
	got, err := m.w.Coins(m.Context())
	m.must(err)
	history, err := m.w.History(m.Context())
	m.must(err)
	if slices.ContainsFunc(got, func(c wallet.Coin) bool { return c.Reserved }) { // those of channels are not stored
		for i := range got {
			got[i].Reserved = false
		}
		for i := range want {
			want[i].Reserved = false
		}
	}
	if !reflect.DeepEqual(got, want) {
		m.Fatalf("coins: got\n%+v\nwant\n%+v", got, want)
	}
	var sum, total pktcloud.Amount // what came, less what went, is what is there
	for _, e := range history {
		sum += e.Received - e.Sent - e.Fee
	}
	b, err := m.w.Balance(m.Context())
	m.must(err)
	total = b.Confirmed + b.Unconfirmed + b.Reserved + b.Frozen
	if sum != total {
		m.Fatalf("the history adds up to %d, the balance to %d: %+v", sum, total, history)
	}
}

// TestIndexModel shows [WALLET-50] and [WALLET-51]: after any history the index
// is what the ledger says, and the entries of the history add up to it.
func TestIndexModel(t *testing.T) {
	c, n := chain(t), byte(20)
	rapid.Check(t, func(r *rapid.T) {
		n++
		store := settletest.NewStore()
		m := &indexMachine{T: t, chain: c, seed: seed(n), store: store, other: append([]byte{0, 20}, make([]byte, 20)...)}
		m.w = open(t, m.seed, c, store)
		r.Repeat(rapid.StateMachineActions(m))
	})
}

// A transaction that moves under one that spends it, as in a reorganisation,
// comes back spent.
func TestParentMovesUnderItsChild(t *testing.T) {
	c := chain(t)
	w := open(t, seed(14), c, settletest.NewStore())
	give(t, c, w, coin)
	if _, err := w.Send(t.Context(), pay(append([]byte{0, 20}, make([]byte, 20)...), coin/4)); err != nil {
		t.Fatal(err)
	}
	before, err := w.Balance(t.Context())
	if err != nil || before.Confirmed != 0 || before.Unconfirmed == 0 {
		t.Fatalf("got %+v, %v, want the change alone", before, err)
	}
	if err := c.Invalidate(1); err != nil { // both wait for a block now
		t.Fatal(err)
	}
	wantBalance(t, w, before)
}

// A block's reward can be spent once it is CoinbaseMaturity deep.
func TestRewardMatures(t *testing.T) {
	c := chain(t)
	w := open(t, seed(13), c, settletest.NewStore())
	script, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mine(1, script); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		blocks int
		want   wallet.Balance
	}{
		{0, wallet.Balance{Unconfirmed: devnet.BlockReward}},
		{wallet.CoinbaseMaturity - 2, wallet.Balance{Unconfirmed: devnet.BlockReward}},
		{1, wallet.Balance{Confirmed: devnet.BlockReward}},
	} {
		if tt.blocks > 0 {
			if _, err := c.Mine(tt.blocks, nil); err != nil {
				t.Fatal(err)
			}
		}
		wantBalance(t, w, tt.want)
	}
}

// A ledger that forgot what it told, as after a deep reorganisation, is asked
// for everything again.
func TestIndexBeginsAgain(t *testing.T) {
	l := &forgetful{Chain: chain(t)}
	w := open(t, seed(12), l, settletest.NewStore())
	give(t, l.Chain, w, coin)
	wantBalance(t, w, wallet.Balance{Confirmed: coin})
	l.lost = true
	give(t, l.Chain, w, coin)
	wantBalance(t, w, wallet.Balance{Confirmed: 2 * coin})
	if l.lost {
		t.Error("the ledger was not asked from the beginning")
	}
}

// forgetful is a chain that lost its memory of changes.
type forgetful struct {
	*devnet.Chain
	lost bool
}

func (f *forgetful) Follow(ctx context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	if f.lost && since != 0 {
		return settle.Changes{Lost: true}, nil
	}
	f.lost = f.lost && since != 0
	return f.Chain.Follow(ctx, since, added)
}
