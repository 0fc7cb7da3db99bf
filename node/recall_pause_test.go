package node

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// TestResumePause: only who has no such channel is left alone for long; who is busy
// or silent, or whose chain is, is asked again soon.
func TestResumePause(t *testing.T) {
	for _, c := range []struct {
		err  error
		want any
	}{
		{settle.Refuse(settle.ErrUnknown, "no such channel"), resumeAgain},
		{settle.Refuse(settle.ErrClose, "nothing was ever paid over the channel"), resumeAgain},
		{settle.Refuse(settle.ErrBusy, "the other side cannot answer now"), resumeSoon},
		{fmt.Errorf("the tip: %w", settle.ErrLedgerUnavailable), resumeSoon},
		{io.ErrUnexpectedEOF, resumeSoon},
		{errors.New("no connection"), resumeSoon},
	} {
		if got := resumePause(c.err); got != c.want {
			t.Errorf("%v: got %s, want %s", c.err, got, c.want)
		}
	}
}
