package settle_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
)

func TestSearching(t *testing.T) {
	err := error(&settle.Searching{Next: 7, End: 90, Cause: context.Canceled})
	if !errors.Is(err, settle.ErrLedgerUnavailable) || !errors.Is(err, context.Canceled) || errors.Is(err, settle.ErrRejected) {
		t.Errorf("got %v, want unavailable, with its cause", err)
	}
	if text := err.Error(); !strings.Contains(text, "block 7 of 90") || !strings.Contains(text, "canceled") {
		t.Errorf("got %q, want how far it is and why it ended", text)
	}
}

// TestSearchFrom shows where a search goes on [LEDGER-18].
func TestSearchFrom(t *testing.T) {
	for _, tt := range []struct {
		name    string
		height  uint64
		onChain bool
		want    uint64
	}{
		{"above a block of the best chain", 500, true, 501},
		{"above the first", 1, true, 2},
		{"after a block that went", 500, false, 500 - settle.ReorgMargin},
		{"after one barely above the margin", settle.ReorgMargin + 2, false, 2},
		{"after one at the margin", settle.ReorgMargin, false, 1},
		{"after one below the margin", settle.ReorgMargin - 1, false, 1},
		{"from nothing", 0, false, 1},
	} {
		if got := settle.SearchFrom(settle.Tip{Height: tt.height}, tt.onChain); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
