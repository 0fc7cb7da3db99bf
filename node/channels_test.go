package node

import (
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// TestChannelWords: each part of a channel's life has its sentence on each side,
// and the parts are done, now or ahead in their order.
func TestChannelWords(t *testing.T) {
	params := settle.Params{Capacity: 1 << 30, Reserve: 10_000, MinChange: 294, ExpiryHeight: 6000, MarginBlocks: 144, MinDepth: 3, Unconfirmed: 1 << 20}
	for _, tt := range []struct {
		name         string
		status       manager.Status
		payer, payee string
		states       string
	}{
		{"not agreed", manager.Status{Phase: settle.Opening}, "has not agreed yet", "has not been seen on the chain", "now ahead ahead ahead"},
		{"in the mempool", manager.Status{Phase: settle.Opening, Announced: true, Funded: true}, "the funding waits for a block, the provider asks for 3", "the funding waits for a block", "now ahead ahead ahead"},
		{"one block", manager.Status{Phase: settle.Opening, Announced: true, Funded: true, Depth: 1}, "has 1 confirmation, the provider asks for 3", "at most 0.0009765625 PKT", "now ahead ahead ahead"},
		{"open", manager.Status{Phase: settle.Open, Announced: true, Funded: true, Depth: 3, Height: 100}, "In use: payments pass", "In use: payments pass", "done now ahead ahead"},
		{"too late", manager.Status{Phase: settle.Open, Announced: true, Funded: true, Depth: 3, Height: 5712}, "the other side claims", "this node claims", "done now ahead ahead"},
		{"closing", manager.Status{Phase: settle.Closing, ClosingDepth: 2}, "Closing: the transaction that shares the money out has 2 confirmations.", "Closing", "done done now ahead"},
		{"closed", manager.Status{Phase: settle.Closed, End: pktchain.End{Payee: 1 << 29, Payer: 1 << 28}}, "0.5 PKT was paid, 0.25 PKT came back", "0.5 PKT came to the wallet", "done done done done"},
		{"refunded", manager.Status{Phase: settle.Refunded, End: pktchain.End{Refund: true, Payer: 1 << 28}}, "0.25 PKT came back", "took its money back", "done done done done"},
		{"abandoned", manager.Status{Phase: settle.Abandoned}, "nothing went to the chain", "the funding never came", "done done"},
		{"rolling", manager.Status{Phase: settle.Rolling, Into: pktcloud.ID{0xab, 0xcd}}, "goes on as channel abcd", "goes on as channel abcd", "done now ahead ahead"},
		{"goes on, not answered", manager.Status{Phase: settle.Opening, From: pktcloud.ID{0xab, 0xcd}}, "Waits for the provider's answer: channel abcd", "channel abcd", "now ahead ahead ahead"},
		{"goes on", manager.Status{Phase: settle.Opening, From: pktcloud.ID{0xab, 0xcd}, Announced: true, Funded: true, Depth: 1}, "channel abcd", "channel abcd0000 goes on as this one. The transaction has 1 confirmation, 3 are asked for", "now ahead ahead ahead"},
		{"rolled", manager.Status{Phase: settle.Rolled, Into: pktcloud.ID{0xab, 0xcd}}, "Went on as channel abcd", "Went on as channel abcd", "done done done done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.status.Params = params
			for role, want := range map[settle.Role]string{settle.Payer: tt.payer, settle.Payee: tt.payee} {
				w := words{Status: tt.status, payer: role == settle.Payer, blockTime: time.Minute}
				if got := w.now(); !strings.Contains(got, want) {
					t.Errorf("%s: got %q, want %q in it", role, got, want)
				}
				var states []string
				for _, s := range w.steps() {
					states = append(states, s.State)
					if s.Text == "" {
						t.Errorf("%s: %s has no text", role, s.Name)
					}
				}
				if got := strings.Join(states, " "); got != tt.states {
					t.Errorf("%s: got %q, want %q", role, got, tt.states)
				}
			}
		})
	}
	rolling := words{Status: manager.Status{Params: params, Phase: settle.Rolling, Into: pktcloud.ID{0xab, 0xcd}}, payer: true}.steps()
	if use, end := rolling[1], rolling[3]; !strings.Contains(use.Text, "signed for this channel and for the next") || !strings.Contains(end.Text, "goes on as channel abcd0000") ||
		strings.Contains(use.Text, "Nothing more") {
		t.Errorf("a channel that rolls says %q and %q", use.Text, end.Text)
	}
	w := words{Status: manager.Status{Params: params, Height: 100}, blockTime: time.Minute}
	for height, want := range map[uint64]string{90: "block 90", 130: "block 130, in about 30 minutes", 6000: "block 6000, in about 4 days", 700: "block 700, in about 10 hours"} {
		if got := w.until(height); got != want {
			t.Errorf("until %d: got %q, want %q", height, got, want)
		}
	}
	if got := channelLabels([]manager.Status{{ID: pktcloud.ID{1, 2, 3, 4, 5}}, {ID: pktcloud.ID{1, 2, 3, 4, 6}}}); len(got[pktcloud.ID{1, 2, 3, 4, 5}]) <= labelDigits {
		t.Errorf("two channels that begin alike share a label: %v", got)
	}
}

// TestRestoredWords: a channel that the phrase brought back has a sentence and
// its parts on each side, wherever it stands.
func TestRestoredWords(t *testing.T) {
	waiting := manager.Restored{Capacity: 1 << 30, Expiry: 6000, From: 5856, Height: 70, Claim: 1 << 29}
	ending, refunded, closed, other := waiting, waiting, waiting, waiting
	ending.ClosingTxID = [32]byte{1}
	refunded.ClosingTxID, refunded.ClosingDepth, refunded.Refunded, refunded.Returned = [32]byte{1}, 1, true, 1<<28
	closed.ClosingTxID, closed.ClosingDepth, closed.Returned = [32]byte{1}, 1, 1<<29
	other.Other = true
	for _, tt := range []struct {
		name         string
		r            manager.Restored
		payer, payee string
		phase        string
		states       string
	}{
		{"waiting", waiting, "returns to the wallet by itself from block 5856", "claims 0.5 PKT of it by itself", "restored", "done now ahead"},
		{"another machine's", other, "Another machine with your phrase", "Another machine with your phrase", "restored", "done now ahead"},
		{"on its way", ending, "waits for a block", "waits for a block", "closing", "done done now"},
		{"refunded", refunded, "0.25 PKT came back", "took its money back", "refunded", "done done done"},
		{"closed", closed, "Closed by who it paid", "0.5 PKT came to the wallet", "closed", "done done done"},
	} {
		for payer, want := range map[bool]string{true: tt.payer, false: tt.payee} {
			w := words{Status: manager.Status{Height: 100}, payer: payer, blockTime: time.Minute}
			if got := w.restored(tt.r); !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q in it", tt.name, got, want)
			}
			var states []string
			for _, s := range w.restoredSteps(tt.r) {
				if states = append(states, s.State); s.Text == "" {
					t.Errorf("%s: %s has no text", tt.name, s.Name)
				}
			}
			if got := strings.Join(states, " "); got != tt.states {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.states)
			}
		}
		if got := restoredPhase(tt.r); got != tt.phase {
			t.Errorf("%s: got phase %q, want %q", tt.name, got, tt.phase)
		}
	}
}
