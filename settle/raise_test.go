package settle_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// TestRaise shows [SETTLE-28] and [SETTLE-36]: what becomes of a claim that no
// block ever takes, from the deadline 712 to long after the expiry 1000.
func TestRaise(t *testing.T) {
	const part, deadline, expiry, margin = 1_000_000, 712, 1000, 144
	r := settle.Raise{Fee: 400, Made: deadline, Market: 400, Step: 200, Part: part, Last: expiry, Margin: margin}
	steps := 0
	for height := uint64(deadline); height < expiry+50; height++ {
		limit := r.Limit(height)
		fee, ok := r.Next(height)
		if !ok {
			fee = r.Fee
		}
		switch {
		case limit > part || height < expiry-margin && limit != part/settle.FeeShare || height >= expiry && limit != part:
			t.Fatalf("height %d: got a limit of %d units", height, uint64(limit))
		case fee > limit || fee > 2*r.Fee:
			t.Fatalf("height %d: got a fee of %d units after %d, limit %d", height, uint64(fee), uint64(r.Fee), uint64(limit))
		case ok && (height < r.Made+settle.RaiseBlocks || fee < r.Fee+r.Step):
			t.Fatalf("height %d: got %d units after %d at height %d", height, uint64(fee), uint64(r.Fee), r.Made)
		}
		if ok {
			r.Fee, r.Made = fee, height
			steps++
		}
		switch height {
		case expiry - margin: // held for long
			if r.Fee != part/settle.FeeShare || steps != 8 {
				t.Errorf("height %d: got %d units after %d steps, want a tenth of the part after 8", height, uint64(r.Fee), steps)
			}
		case expiry - margin/2:
			if r.Fee < part/2 || r.Fee > part*6/10 {
				t.Errorf("height %d: got %d units, want about half the part", height, uint64(r.Fee))
			}
		}
	}
	if r.Fee != part {
		t.Errorf("past expiry: got %d units, want all of the part", uint64(r.Fee))
	}
}

func TestRaiseLimits(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    settle.Raise
		want pktcloud.Amount // of the limit long before the end
		fee  pktcloud.Amount // of the next; 0 for none
	}{
		{"the ledger asks for more than a share", settle.Raise{Fee: 400, Market: 3_000, Step: 200, Part: 10_000, Last: 1000, Margin: 9}, 3_000, 3_000},
		{"the ledger asks for more than all", settle.Raise{Fee: 400, Market: 30_000, Step: 200, Part: 10_000, Last: 1000, Margin: 9}, 10_000, 10_000},
		{"twice is above the share", settle.Raise{Fee: 700, Market: 400, Step: 200, Part: 10_000, Last: 1000, Margin: 9}, 1_000, 1_000},
		{"too small a step", settle.Raise{Fee: 900, Market: 400, Step: 200, Part: 10_000, Last: 1000, Margin: 9}, 1_000, 0},
		{"paid more than the limit", settle.Raise{Fee: 5_000, Market: 400, Step: 200, Part: 10_000, Last: 1000, Margin: 9}, 1_000, 0},
		{"a refund", settle.Raise{Fee: 400, Market: 400, Step: 200, Part: 10_000}, 1_000, 800},
		{"a part that is not worth its fee", settle.Raise{Fee: 400, Market: 400, Step: 200, Part: 300}, 300, 0},
		{"the most there can be", settle.Raise{Fee: pktcloud.MaxAmount / 20, Step: 200, Part: pktcloud.MaxAmount, Last: 1000, Margin: 9}, pktcloud.MaxAmount / 10, pktcloud.MaxAmount / 20 * 2},
	} {
		if got := tt.r.Limit(100); got != tt.want {
			t.Errorf("%s: got a limit of %d units, want %d", tt.name, uint64(got), uint64(tt.want))
		}
		fee, ok := tt.r.Next(100)
		if !ok {
			fee = 0
		}
		if fee != tt.fee {
			t.Errorf("%s: got %d units, want %d", tt.name, uint64(fee), uint64(tt.fee))
		}
	}
}
