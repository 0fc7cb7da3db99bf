package manager_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// copied lets a stranger mine a transaction with the outputs of a channel's
// funding, note and all, of which the channel's has this amount; more outputs
// make it long.
func (w *world) copied(funding []byte, amount pktcloud.Amount, more int) {
	w.t.Helper()
	stranger := settletest.NewWallet(w.net, w.ledger, fmt.Sprintf("stranger %d %d", amount, more))
	script, err := stranger.ReceiveScript(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Mint(script, 2_000_000_000)
	tx := txOf(w.t, funding)
	outputs := []settle.Payment{{Script: tx.TxOut[0].PkScript, Amount: amount}, {Script: tx.TxOut[1].PkScript}}
	for range more {
		outputs = append(outputs, settle.Payment{Script: script, Amount: 1_000})
	}
	raw, err := stranger.Fund(w.t.Context(), outputs, 2_000)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.ledger.Broadcast(w.t.Context(), raw); err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Mine(1)
}

// funding is the transaction that funds the payer's only channel.
func (w *world) funding() []byte {
	w.t.Helper()
	list, _, err := w.ledger.Search(w.t.Context(), settle.Tip{}, w.payer.cfg.Keychain.IsNote)
	if err != nil || len(list) != 1 {
		w.t.Fatalf("got %d transactions with a note, %v, want 1", len(list), err)
	}
	return list[0].Raw
}

// lines counts what is logged.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func (l *lines) with(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.all {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// A note that a stranger copied from the chain is not kept when no channel can
// be behind it: the manager starts again, and does its other work in peace.
func TestCopiedNotes(t *testing.T) {
	for _, c := range []struct {
		name   string
		amount pktcloud.Amount
		more   int
		want   int
	}{
		{"too long for a funding", 50_000, 5_000, 0},
		{"not worth its refund", 350, 0, 0},
		{"a gift", 50_000, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.settled()
			var log lines
			w.payer.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			w.payer.crash()
			w.copied(w.funding(), c.amount, c.more)
			w.payer.searched(t, c.want)
			w.payer.crash()
			if r := w.payer.searched(t, c.want); c.want > 0 && (r[0].Capacity != c.amount || r[0].Other) {
				t.Errorf("got %+v", r[0])
			}
			if n := log.with("another machine"); n > 0 { // [SETTLE-66]
				t.Errorf("%d times told of another machine", n)
			}
			w.ledger.Mine(lifetime)
			w.payer.until(w.payer.m.List()[0].ID, "refund", func(s manager.Status) bool { return s.ClosingTxID != [32]byte{} })
			eventually(t, "refunds", func() bool { return len(w.ledger.Pool()) == 1+c.want })
		})
	}
}

// A restored channel whose refund the fee rate of today makes worthless waits
// for another day; it does not keep the channels from being looked after.
func TestRestoredBelowTheFee(t *testing.T) {
	w := newWorld(t)
	w.settled()
	w.payer.stop()
	w.copied(w.funding(), 5_000, 0)
	w.payee.stop()
	var log lines
	w.payer.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	w.payer.start()
	w.payer.searched(t, 1)
	w.ledger.SetFeeRate(100_000)
	w.ledger.Mine(lifetime)
	eventually(t, "a word", func() bool { return log.with("no fee is left") > 0 || log.with("not up to date") > 0 })
	if n := log.with("not up to date"); n > 0 {
		t.Errorf("%d times: the channels are not up to date", n)
	}
	eventually(t, "the channel's refund", func() bool { return len(w.ledger.Pool()) == 1 })
	w.ledger.SetFeeRate(2_000)
	w.ledger.Mine(1)
	eventually(t, "the other refund", func() bool { return len(w.ledger.Pool()) == 1 })
}

// searched waits until the payer searched to the best block.
func (s *side) searched(t *testing.T, count int) []manager.Restored {
	t.Helper()
	tip, err := s.cfg.Ledger.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "search", func() bool { height, done := s.m.Searched(); return done && height == tip.Height })
	if got := s.m.Restored(); len(got) != count {
		t.Fatalf("got %d restored channels, want %d", len(got), count)
	}
	return s.m.Restored()
}
