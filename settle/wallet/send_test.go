package wallet_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/chainhash/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// stranger is a script of nobody here.
var stranger = append([]byte{0, 20}, bytes.Repeat([]byte{9}, 20)...)

// What a plan says is what a payment does.
func TestPlan(t *testing.T) {
	c := chain(t)
	var w *wallet.Wallet
	for i, tt := range []struct {
		name   string
		change func(*wallet.SendRequest)
		inputs int
		back   bool
	}{
		{"one coin", func(*wallet.SendRequest) {}, 1, true},
		{"a higher rate", func(r *wallet.SendRequest) { r.FeeRate = 20_000 }, 1, true},
		{"two coins", func(r *wallet.SendRequest) { r.To.Amount = coin + 7 }, 2, true},
		{"all of it", func(r *wallet.SendRequest) { r.All = true }, 3, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w = open(t, seed(byte(30+i)), c, settletest.NewStore())
			for range 3 {
				give(t, c, w, coin)
			}
			r := pay(stranger, coin/2)
			tt.change(&r)
			p, err := w.Plan(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Inputs) != tt.inputs || (p.Change > 0) != tt.back || p.Left != 3*coin-p.Amount-p.Fee || pktcloud.Amount(tt.inputs*coin) != p.Amount+p.Fee+p.Change {
				t.Errorf("got %+v", p)
			}
			if rate := max(r.FeeRate, settle.RelayFloor); p.Fee != (pktcloud.Amount(p.VBytes)*rate+999)/1000 {
				t.Errorf("got a fee of %d for %d virtual bytes at %d", uint64(p.Fee), p.VBytes, uint64(rate))
			}
			// The limit on the fee is the caller's word.
			r.MaxFee = p.Fee - 1
			if _, err := w.Send(t.Context(), r); !errors.Is(err, wallet.ErrFee) {
				t.Errorf("with a limit below the fee: got %v, want ErrFee", err)
			}
			r.MaxFee = p.Fee
			txid, err := w.Send(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			history, err := w.History(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			e := history[0]
			if e.TxID != txid || e.Sent != p.Amount || e.Fee != p.Fee || e.Received != 0 || e.Depth != 0 || !e.Replaceable || len(e.Outputs) != 1 || !bytes.Equal(e.Outputs[0].Script, stranger) {
				t.Errorf("history: got %+v", e)
			}
		})
	}
	give(t, c, w, coin)
	if _, err := w.Send(t.Context(), wallet.SendRequest{To: settle.Payment{Script: stranger, Amount: 5000}}); !errors.Is(err, wallet.ErrFee) {
		t.Errorf("without a limit on the fee: got %v, want ErrFee", err)
	}
	r := pay(stranger, 5000)
	r.FeeRate = wallet.MaxFeeRate + 1
	if _, err := w.Plan(t.Context(), r); !errors.Is(err, settle.ErrFee) {
		t.Errorf("an absurd rate: got %v, want settle.ErrFee", err)
	}
}

// A payment that is asked for twice with one word is made once, also after a
// restart.
func TestOnce(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(40), c, store)
	give(t, c, w, 5*coin)
	r := pay(stranger, coin)
	r.Once, r.Label = "form 7", "rent"
	first, err := w.Send(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := w.Send(t.Context(), r)
		if err != nil || again != first {
			t.Errorf("again: got %x, %v; want %x", again, err, first)
		}
		w = open(t, seed(40), c, store)
	}
	r.To.Amount++
	if _, err := w.Send(t.Context(), r); !errors.Is(err, settle.ErrMalformed) {
		t.Errorf("another payment with the word: got %v, want ErrMalformed", err)
	}
	history, err := w.History(t.Context())
	if err != nil || len(history) != 2 || history[0].Label != "rent" {
		t.Errorf("got %+v, %v; want the payment and the gift", history, err)
	}
}

func TestReplace(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(41), c, store)
	give(t, c, w, coin)
	give(t, c, w, coin)
	r := pay(stranger, coin/2)
	r.Label = "slow"
	old, err := w.Send(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Replace(t.Context(), old, 0, 1); !errors.Is(err, wallet.ErrFee) {
		t.Errorf("a limit of one unit: got %v, want ErrFee", err)
	}
	for range 2 { // with a rate that is too low, and again
		next, err := w.Replace(t.Context(), old, 0, coin)
		if err != nil {
			t.Fatal(err)
		}
		history, err := w.History(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e := history[0]; len(history) != 3 || e.TxID != next || e.Sent != coin/2 || e.Label != "slow" || !e.Replaceable {
			t.Fatalf("after the replacement: got %+v", history)
		}
		if _, err := w.Replace(t.Context(), old, 0, coin); !errors.Is(err, wallet.ErrReplace) {
			t.Errorf("the replaced one: got %v, want ErrReplace", err)
		}
		old = next
		w = open(t, seed(41), c, store)
	}
	// The change of a payment that another builds on stays as it is.
	if err := w.Freeze(t.Context(), freeCoin(t, w), true); err != nil {
		t.Fatal(err)
	}
	child, err := w.Send(t.Context(), pay(stranger, coin/8))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Replace(t.Context(), old, 0, coin); !errors.Is(err, wallet.ErrReplace) || !strings.Contains(err.Error(), chainhash.Hash(child).String()) {
		t.Errorf("a payment whose change is spent: got %v, want ErrReplace and %s", err, chainhash.Hash(child))
	}
	if _, err := c.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Replace(t.Context(), child, 0, coin); !errors.Is(err, wallet.ErrReplace) {
		t.Errorf("one in a block: got %v, want ErrReplace", err)
	}
	out, err := c.Output(t.Context(), settle.Outpoint{TxID: old})
	if err != nil || out.Depth != 1 || out.Amount != coin/2 {
		t.Errorf("the last replacement: got %+v, %v; want it mined", out, err)
	}
}

// freeCoin is a confirmed coin of the wallet.
func freeCoin(t *testing.T, w *wallet.Wallet) settle.Outpoint {
	t.Helper()
	coins, err := w.Coins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range coins {
		if c.Mature && !c.Reserved && !c.Frozen {
			return c.At
		}
	}
	t.Fatal("no free coin")
	return settle.Outpoint{}
}

// A channel's funding is never replaced: neither by the wallet nor, since it
// signals none, by anybody.
func TestFundingIsFinal(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(42), c, store)
	give(t, c, w, coin)
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: stranger, Amount: coin / 2}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Broadcast(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	txid := decode(t, raw).TxHash()
	for _, restarted := range []bool{false, true} {
		if restarted { // the manager reserves the coins of its channels again
			w = open(t, seed(42), c, store)
			if err := w.Reserve(t.Context(), raw); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Replace(t.Context(), txid, 50_000, coin); !errors.Is(err, wallet.ErrReplace) || !strings.Contains(err.Error(), "funds a channel") {
			t.Errorf("restarted %t: got %v, want ErrReplace that says why", restarted, err)
		}
	}
	history, err := w.History(t.Context())
	if err != nil || history[0].TxID != txid || history[0].Replaceable {
		t.Errorf("got %+v, %v; want the funding, not to be replaced", history, err)
	}
}

func TestCoinControl(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(43), c, store)
	for i := range pktcloud.Amount(3) {
		give(t, c, w, coin*(i+1))
	}
	coins, err := w.Coins(t.Context())
	if err != nil || len(coins) != 3 || coins[0].Amount != 3*coin {
		t.Fatalf("got %+v, %v", coins, err)
	}
	if err := w.Freeze(t.Context(), coins[0].At, true); err != nil {
		t.Fatal(err)
	}
	w = open(t, seed(43), c, store) // a frozen coin stays so
	wantBalance(t, w, wallet.Balance{Confirmed: 3 * coin, Frozen: 3 * coin})
	if _, err := w.Plan(t.Context(), pay(stranger, 4*coin)); !errors.Is(err, wallet.ErrFunds) {
		t.Errorf("a payment that needs the frozen coin: got %v, want ErrFunds", err)
	}
	small := pay(stranger, coin/2)
	small.From = []settle.Outpoint{coins[2].At, coins[1].At}
	p, err := w.Plan(t.Context(), small)
	if err != nil || len(p.Inputs) != 2 || p.Inputs[0] != coins[2].At {
		t.Errorf("two coins chosen: got %+v, %v", p, err)
	}
	for _, tt := range []struct {
		name string
		from []settle.Outpoint
	}{
		{"frozen", []settle.Outpoint{coins[0].At}},
		{"twice", []settle.Outpoint{coins[1].At, coins[1].At}},
		{"unknown", []settle.Outpoint{{TxID: [32]byte{1}}}},
	} {
		small.From = tt.from
		if _, err := w.Send(t.Context(), small); !errors.Is(err, wallet.ErrCoin) {
			t.Errorf("%s: got %v, want ErrCoin", tt.name, err)
		}
	}
	if err := w.Freeze(t.Context(), settle.Outpoint{TxID: [32]byte{1}}, true); !errors.Is(err, wallet.ErrCoin) {
		t.Errorf("freeze an unknown coin: got %v, want ErrCoin", err)
	}
	if err := w.Freeze(t.Context(), coins[0].At, false); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, w, wallet.Balance{Confirmed: 6 * coin})
}

func TestLabels(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(44), c, store)
	address, err := w.NewAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	script, err := w.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	txid, err := c.Faucet(t.Context(), script, coin)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.LabelAddress(t.Context(), address, "for rent"), w.LabelTx(t.Context(), txid, "Ünï 密")); err != nil {
		t.Fatal(err)
	}
	w = open(t, seed(44), c, store)
	coins, err := w.Coins(t.Context())
	if err != nil || coins[0].Label != "for rent" || w.Label(address) != "for rent" {
		t.Errorf("got %+v, %v", coins, err)
	}
	history, err := w.History(t.Context())
	if err != nil || history[0].Label != "Ünï 密" {
		t.Errorf("got %+v, %v", history, err)
	}
	for _, bad := range []string{strings.Repeat("x", wallet.MaxLabelBytes+1), "two\nlines", "\x00", "\xff"} {
		if err := w.LabelTx(t.Context(), txid, bad); !errors.Is(err, settle.ErrMalformed) {
			t.Errorf("label %q: got %v, want ErrMalformed", bad, err)
		}
	}
	if err := w.LabelAddress(t.Context(), "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "x"); !errors.Is(err, settle.ErrMalformed) {
		t.Errorf("another network's address: got %v, want ErrMalformed", err)
	}
	if err := w.LabelTx(t.Context(), txid, ""); err != nil {
		t.Fatal(err)
	}
	if history, err = w.History(t.Context()); err != nil || history[0].Label != "for rent" {
		t.Errorf("without a label of its own the payment has %+v, %v; want its address's", history, err)
	}
	if err := w.LabelAddress(t.Context(), address, ""); err != nil || w.Label(address) != "" {
		t.Errorf("a label taken away: got %q, %v", w.Label(address), err)
	}
}

// Accounts keep their money apart, and the phrase alone finds those that were
// used.
func TestAccounts(t *testing.T) {
	c := chain(t)
	store := settletest.NewStore()
	w := open(t, seed(45), c, store)
	if _, err := w.AddAccount(t.Context(), "early"); !errors.Is(err, settle.ErrMalformed) {
		t.Errorf("an account after one that was never paid: got %v, want ErrMalformed", err)
	}
	give(t, c, w, coin)
	n, err := w.AddAccount(t.Context(), "savings")
	if err != nil || n != 1 {
		t.Fatalf("got account %d, %v", n, err)
	}
	address, err := w.NewAddressOf(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	script, err := w.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Faucet(t.Context(), script, 2*coin); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		store *settletest.Store
		label string
	}{{"restarted", store, "savings"}, {"restored", settletest.NewStore(), ""}} {
		again := open(t, seed(45), c, tt.store)
		if err := again.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		accounts, err := again.Accounts(t.Context())
		if err != nil || len(accounts) != 2 || accounts[0].Balance.Confirmed != coin || accounts[1].Balance.Confirmed != 2*coin || accounts[1].Name != tt.label {
			t.Errorf("%s: got %+v, %v", tt.name, accounts, err)
		}
		wantBalance(t, again, wallet.Balance{Confirmed: 3 * coin})
	}
	r := pay(stranger, coin+5)
	if _, err := w.Send(t.Context(), r); !errors.Is(err, wallet.ErrFunds) {
		t.Errorf("account 0 paying with account 1's coins: got %v, want ErrFunds", err)
	}
	r.Account = 1
	if _, err := w.Send(t.Context(), r); err != nil {
		t.Error(err)
	}
	r.Account = 2
	if _, err := w.Send(t.Context(), r); !errors.Is(err, settle.ErrUnknown) {
		t.Errorf("an account that is not there: got %v, want ErrUnknown", err)
	}
}

// A locked wallet shows and receives, and signs nothing.
func TestLock(t *testing.T) {
	c := chain(t)
	w := open(t, seed(46), c, settletest.NewStore())
	give(t, c, w, coin)
	for range 2 {
		w.Lock()
	}
	if !w.Locked() {
		t.Error("got not locked")
	}
	give(t, c, w, coin)
	wantBalance(t, w, wallet.Balance{Confirmed: 2 * coin})
	if _, err := w.Plan(t.Context(), pay(stranger, coin)); err != nil {
		t.Errorf("plan: %v", err)
	}
	if _, err := w.Send(t.Context(), pay(stranger, coin)); !errors.Is(err, wallet.ErrLocked) {
		t.Errorf("send: got %v, want ErrLocked", err)
	}
	if _, err := w.Fund(t.Context(), []settle.Payment{{Script: stranger, Amount: 5000}}, 0); !errors.Is(err, wallet.ErrLocked) {
		t.Errorf("fund: got %v, want ErrLocked", err)
	}
	if _, err := w.AddAccount(t.Context(), ""); !errors.Is(err, wallet.ErrLocked) {
		t.Errorf("new account: got %v, want ErrLocked", err)
	}
	if err := w.Unlock(seed(47)); !errors.Is(err, settle.ErrMalformed) || !w.Locked() {
		t.Errorf("another seed: got %v, want ErrMalformed", err)
	}
	if err := w.Unlock(seed(46)); err != nil || w.Locked() {
		t.Fatalf("unlock: %v", err)
	}
	if _, err := w.Send(t.Context(), pay(stranger, coin)); err != nil {
		t.Error(err)
	}
}

// A sweep takes what a key from elsewhere holds, in each form that keys had.
func TestSweep(t *testing.T) {
	c := chain(t)
	for _, tt := range []struct {
		name   string
		secret []byte
		forms  int
	}{
		{"compressed", append(bytes.Repeat([]byte{7}, 32), 1), 3},
		{"uncompressed", bytes.Repeat([]byte{7}, 32), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := open(t, seed(byte(50+tt.forms)), c, settletest.NewStore())
			key, err := wallet.ParseKey(w.Network(), base58.CheckEncode(tt.secret, w.Network().PrivateKey))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Sweep(t.Context(), key, 0, coin); !errors.Is(err, wallet.ErrFunds) {
				t.Errorf("an empty key: got %v, want ErrFunds", err)
			}
			for _, script := range key.Scripts() {
				if _, err := c.Faucet(t.Context(), script, coin); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(key.Scripts()); n != tt.forms {
				t.Errorf("got %d forms, want %d", n, tt.forms)
			}
			plan, err := w.PlanSweep(t.Context(), key, 0)
			if err != nil || plan.Coins != tt.forms || plan.More {
				t.Fatalf("plan: got %+v, %v", plan, err)
			}
			if _, err := w.Sweep(t.Context(), key, 0, plan.Fee-1); !errors.Is(err, wallet.ErrFee) {
				t.Errorf("a limit below the fee: got %v, want ErrFee", err)
			}
			s, err := w.Sweep(t.Context(), key, 0, plan.Fee)
			if err != nil || s.Amount+s.Fee != pktcloud.Amount(tt.forms*coin) {
				t.Fatalf("got %+v, %v", s, err)
			}
			if _, err := c.Mine(1, nil); err != nil {
				t.Fatal(err)
			}
			wantBalance(t, w, wallet.Balance{Confirmed: s.Amount})
			history, err := w.History(t.Context())
			if err != nil || history[0].Received != s.Amount || history[0].Label == "" {
				t.Errorf("got %+v, %v", history, err)
			}
		})
	}
}

// Without a ledger that tells transactions there is no history, rather than
// half of one.
func TestNoHistory(t *testing.T) {
	w := open(t, seed(48), plain{chain(t)}, settletest.NewStore())
	if _, err := w.History(t.Context()); !errors.Is(err, wallet.ErrNoHistory) {
		t.Errorf("got %v, want ErrNoHistory", err)
	}
}

// Amounts near the emission's end, which no float holds, are exact.
func TestLargeAmounts(t *testing.T) {
	l := settletest.NewLedger(network(t, "pkt"))
	w := open(t, seed(49), l, settletest.NewStore())
	script, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const huge = 6_000_000_000_000_000_001
	l.Mint(script, huge)
	p, err := w.Plan(t.Context(), pay(stranger, huge-1_000_003))
	if err != nil || p.Change+p.Fee != 1_000_003 {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := w.Send(t.Context(), pay(stranger, huge-1_000_003)); err != nil {
		t.Fatal(err)
	}
	l.Mine(1)
	wantBalance(t, w, wallet.Balance{Confirmed: p.Change})
}
