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

func TestSearchFrom(t *testing.T) {
	for _, c := range []struct {
		name    string
		after   uint64
		onChain bool
		want    uint64
	}{
		{"the first time", 0, false, 1},
		{"the next block", 7, true, 8},
		{"a block of another branch", settle.ReorgMargin + 7, false, 7},
		{"a low block of another branch", settle.ReorgMargin - 7, false, 1},
	} {
		if got := settle.SearchFrom(settle.Tip{Height: c.after}, c.onChain); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
