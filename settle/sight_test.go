package settle_test

import (
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// TestSight shows [SETTLE-23] and [SETTLE-34].
func TestSight(t *testing.T) {
	const now = 1_800_000_000
	for _, tt := range []struct {
		name        string
		age, seen   int64 // of the best block, in seconds: by its own time, and since it was first seen
		answered    int64 // seconds since the last answer
		lost        bool
		pace        time.Duration
		want        uint64
		wantOutside bool
	}{
		{name: "fresh", age: 20, seen: 10, pace: time.Minute, want: 1000},
		{name: "slow", age: 1800, seen: 1790, pace: time.Minute, want: 1000},
		{name: "no progress", age: 1801, seen: 1795, pace: time.Minute, want: 1040, wantOutside: true},
		{name: "a node that reads the chain", age: 450_000, seen: 1, pace: time.Minute, want: 11_000, wantOutside: true},
		{name: "a block from the future that stands", age: -600, seen: 3600, pace: time.Minute, want: 1080, wantOutside: true},
		{name: "blocks on demand", age: 450_000, seen: 450_000, want: 1000},
		{name: "lost just now", age: 60, seen: 50, answered: 44, lost: true, pace: time.Minute, want: 1000, wantOutside: true},
		{name: "lost", age: 60, seen: 50, answered: 50, lost: true, pace: time.Minute, want: 1001, wantOutside: true},
		{name: "lost for long", age: 9000, seen: 8990, answered: 8000, lost: true, pace: time.Minute, want: 1200, wantOutside: true},
		{name: "lost, blocks on demand", age: 90_000, seen: 90_000, answered: 900, lost: true, want: 1020, wantOutside: true},
		{name: "a clock that was put back", age: -90_000, seen: -90_000, answered: -90_000, lost: true, pace: time.Minute, want: 1000, wantOutside: true},
	} {
		s := settle.Sight{Tip: settle.Tip{Height: 1000, Time: now - tt.age}, First: now - tt.seen, Last: now - tt.answered, Lost: tt.lost}
		if got, outside := s.Height(now, tt.pace), s.OutOfSight(now, tt.pace); got != tt.want || outside != tt.wantOutside {
			t.Errorf("%s: got height %d, out of sight %t, want %d, %t", tt.name, got, outside, tt.want, tt.wantOutside)
		}
	}
	if got := (settle.Sight{Lost: true}).Height(now, time.Minute); got != 0 {
		t.Errorf("never seen: got height %d, want 0", got)
	}
}

// A block that is seen again is not new, but any other is, also at its height.
func TestSee(t *testing.T) {
	a := settle.Tip{Height: 7, Hash: [32]byte{1}, Time: 50}
	b := settle.Tip{Height: 7, Hash: [32]byte{2}, Time: 51}
	s := settle.Sight{Lost: true}.See(a, 100).See(a, 200)
	if s.First != 100 || s.Last != 200 || s.Lost {
		t.Errorf("seen twice: got %+v", s)
	}
	if s = s.See(b, 300); s.First != 300 || s.Tip != b {
		t.Errorf("another block at the same height: got %+v", s)
	}
	// A store keeps no hash.
	if s = (settle.Sight{Tip: settle.Tip{Height: 7}, First: 100, Last: 100}).See(a, 200); s.First != 100 {
		t.Errorf("after a restart: got %+v", s)
	}
}
