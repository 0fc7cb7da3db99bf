package wallet_test

import (
	"context"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// minder is a chain that can be out of reach, and minds what it was told to
// look for.
type minder struct {
	*devnet.Chain
	down bool
	from []uint64 // of each script that was named
}

func (m *minder) Tip(ctx context.Context) (settle.Tip, error) {
	if m.down {
		return settle.Tip{}, settle.ErrLedgerUnavailable
	}
	return m.Chain.Tip(ctx)
}

func (m *minder) Watch(list ...settle.Watch) {
	for _, w := range list {
		m.from = append(m.from, w.From)
	}
}

// TestBirthday shows [WALLET-8] and [WALLET-9]. The chain is at height 130.
func TestBirthday(t *testing.T) {
	c := chain(t)
	for _, tt := range []struct {
		name string
		used bool // the store is from before wallets had birthdays
		cfg  wallet.Config
		down bool // when the wallet is opened
		late bool // the chain is back before the first address
		want uint64
	}{
		{name: "new", cfg: wallet.Config{New: true}, want: 30},
		{name: "new, seen late", cfg: wallet.Config{New: true}, down: true, late: true, want: 30},
		{name: "new, not seen before the first address", cfg: wallet.Config{New: true}, down: true, want: 0},
		{name: "restored", cfg: wallet.Config{}, want: 0},
		{name: "restored from a height", cfg: wallet.Config{Birthday: 70}, want: 70},
		{name: "an old store", used: true, cfg: wallet.Config{New: true, Birthday: 70}, want: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := settletest.NewStore()
			if tt.used {
				if err := store.Apply(t.Context(), []wallet.Put{{Key: "wallet/next/0", Value: []byte("3")}}); err != nil {
					t.Fatal(err)
				}
			}
			m := &minder{Chain: c, down: tt.down}
			tt.cfg.Network, tt.cfg.Ledger, tt.cfg.Store = network(t, "pkt-devnet"), m, store
			w, err := wallet.Open(t.Context(), seed(9), tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			m.down = m.down && !tt.late
			if _, err := w.ReceiveScript(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.down = false
			if _, err := w.Balance(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, known := w.Birthday(); got != tt.want || !known {
				t.Errorf("got %d, %t, want %d", got, known, tt.want)
			}
			// What the store has counts, whatever is said later.
			m.from = nil
			tt.cfg.New, tt.cfg.Birthday = true, 99
			if w, err = wallet.Open(t.Context(), seed(9), tt.cfg); err != nil {
				t.Fatal(err)
			}
			if got, _ := w.Birthday(); got != tt.want {
				t.Errorf("opened again: got %d, want %d", got, tt.want)
			}
			if len(m.from) < 2*wallet.GapLimit {
				t.Errorf("got %d scripts named at the opening, want those given out and as many again as a gap has, on both chains", len(m.from))
			}
			for _, from := range m.from {
				if from != tt.want {
					t.Fatalf("a script is looked for from %d on, want %d", from, tt.want)
				}
			}
		})
	}
}

// Addresses given out while the wallet runs are looked for from then on, not
// from the birthday, and those looked ahead are named before they are given out.
func TestWatchAhead(t *testing.T) {
	m := &minder{Chain: chain(t)}
	w := open(t, seed(9), m, settletest.NewStore())
	if _, err := w.Balance(t.Context()); err != nil {
		t.Fatal(err)
	}
	named := len(m.from)
	if _, err := m.Mine(70, nil); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := w.ReceiveScript(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Balance(t.Context()); err != nil {
		t.Fatal(err)
	}
	if added := m.from[named:]; len(added) != 5 {
		t.Errorf("got %d more scripts named for 5 addresses, want 5", len(added))
	}
	for _, from := range m.from[named:] {
		if want := settle.Birthday(130); from != want {
			t.Errorf("got a search from %d on, want from %d: the wallet saw the chain at 130", from, want)
		}
	}
}

// A test chain that was thrown away begins at the bottom again: the wallet finds
// its coins there, although its birthday lies higher.
func TestChainBeginsAnew(t *testing.T) {
	store := settletest.NewStore()
	first := chain(t)
	if _, err := first.Mine(400, nil); err != nil {
		t.Fatal(err)
	}
	cfg := wallet.Config{Network: network(t, "pkt-devnet"), Ledger: first, Store: store, New: true}
	w, err := wallet.Open(t.Context(), seed(9), cfg)
	if err != nil {
		t.Fatal(err)
	}
	script, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := &minder{Chain: chain(t)}
	if _, err := m.Faucet(t.Context(), script, coin); err != nil {
		t.Fatal(err)
	}
	cfg.Ledger = m
	for range 2 {
		if w, err = wallet.Open(t.Context(), seed(9), cfg); err != nil {
			t.Fatal(err)
		}
		wantBalance(t, w, wallet.Balance{Confirmed: coin})
		if got, from := m.from[len(m.from)-1], uint64(0); got != from {
			t.Errorf("got a search from %d on, want from %d", got, from)
		}
	}
}
