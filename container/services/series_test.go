package services

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestSeriesModel [SESSION-36] [SESSION-37]: whatever is looked at, and whenever,
// sums are those of what was seen, time that nobody looked at is a gap, and
// neither series outgrows its limit.
func TestSeriesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h history
		start := time.UnixMilli(1_800_000_000_123)
		l := look{run: 1, began: start, at: start}
		var cpu, seen uint64
		looked := []time.Time{} // pairs: begin and end of what was seen
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			from := l.at
			wait := time.Duration(rapid.SampledFrom([]int64{1, 137, 9_993, 10_000, 10_000, 29_999, 30_001, 400_000, 7_300_000, 90_000_000}).Draw(t, "wait")) * time.Millisecond
			used := time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "cpu ms")) * time.Millisecond
			fresh := rapid.IntRange(0, 9).Draw(t, "again") == 0
			l.at = l.at.Add(wait)
			if fresh {
				l.run++
				l.began, l.usage = from, container.Usage{}
			}
			lost := rapid.IntRange(0, 9).Draw(t, "counter back") == 0 && !fresh && l.usage.CPUTime > 0
			if lost {
				l.usage.CPUTime = 0
			} else {
				l.usage.CPUTime += used
			}
			l.usage.MemoryBytes = rapid.Uint64Range(1, 1<<40).Draw(t, "memory")
			h.take(l)
			if !lost && wait <= MaxBetween {
				cpu += uint64(used.Milliseconds())
				seen += uint64(wait.Milliseconds())
				looked = append(looked, from, l.at)
			}
		}
		for name, s := range map[string]Series{"recent": h.Recent, "life": h.Life} {
			most := map[string]int{"recent": RecentPoints, "life": LifePoints}[name]
			if err := s.check(most); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var sum, measured uint64
			for i, p := range s.Points {
				sum += p.CPU
				measured += p.Seen
				var want int64
				for k := 0; k < len(looked); k += 2 {
					a, b := later(looked[k], s.Begin(i)), earlier(looked[k+1], s.Begin(i+1))
					want += max(b.Sub(a).Milliseconds(), 0)
				}
				if p.Seen != uint64(want) {
					t.Fatalf("%s: point %d has %d ms seen, want %d", name, i, p.Seen, want)
				}
			}
			if name == "life" && (sum != cpu || measured != seen) {
				t.Fatalf("got %d ms used in %d ms, want %d in %d", sum, measured, cpu, seen)
			}
		}
		b, err := json.Marshal(h)
		var again history
		if err != nil || json.Unmarshal(b, &again) != nil || again.Recent.check(RecentPoints) != nil || again.At != h.At {
			t.Fatalf("got %v, want what was stored", err)
		}
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestSeriesOverALife: a year of looks is 360 points at most, and two hours are
// kept in steps of ten seconds.
func TestSeriesOverALife(t *testing.T) {
	var h history
	began := time.Unix(1_800_000_000, 0)
	l := look{run: 1, began: began, at: began}
	for range 3 * 24 * 360 {
		l.at = l.at.Add(RecentStep)
		l.usage.CPUTime += time.Second
		l.usage.MemoryBytes++
		h.take(l)
	}
	if len(h.Recent.Points) != RecentPoints || h.Recent.Step != RecentStep || h.Recent.Points[0].CPU != 1000 {
		t.Errorf("got %d points of %s, the first %+v", len(h.Recent.Points), h.Recent.Step, h.Recent.Points[0])
	}
	if n := len(h.Life.Points); n < LifePoints/2 || n > LifePoints || h.Life.Step != 16*time.Minute {
		t.Errorf("got %d points of %s for three days", n, h.Life.Step)
	}
	if p := h.Life.Points[5]; p.CPU != 16*60*1000/10 || p.Seen != 16*60*1000 {
		t.Errorf("got %+v, want a tenth of a core all the time", p)
	}
	// A clock that is set back by a year begins anew, and breaks nothing.
	for range 3 {
		l.at = l.at.Add(RecentStep).AddDate(-1, 0, 0)
		h.take(l)
		l.at = l.at.Add(RecentStep)
		l.usage.CPUTime += time.Second
		h.take(l)
	}
	if h.Recent.check(RecentPoints) != nil || len(h.Recent.Points) > 2 || h.Recent.Points[0].CPU == 0 {
		t.Errorf("got %d points after the clock was set back, want what was seen since", len(h.Recent.Points))
	}
}

// TestShortRun: of a job that ended before anybody looked the last numbers count.
func TestShortRun(t *testing.T) {
	var h history
	began := time.Unix(1_800_000_001, 0)
	end := look{
		run: 1, began: began, at: began.Add(3 * time.Second), over: true,
		usage: container.Usage{CPUTime: 2 * time.Second, MemoryPeakBytes: 5 << 20, OOMKills: 1, Hits: container.Hits{Memory: 7}},
	}
	for range 2 {
		h.take(end)
	}
	if len(h.Recent.Points) != 1 || h.Recent.Points[0] != (Point{Seen: 3000, CPU: 2000, MemoryBytes: 5 << 20, Hits: 7}) || h.OOMKills != 1 {
		t.Errorf("got %+v, want the one run once", h.Recent)
	}
	end.at = end.at.Add(time.Second)
	h.take(end)
	if h.Recent.Points[0].Seen != 3000 {
		t.Errorf("a run that is over goes on: %+v", h.Recent)
	}
	h.take(look{run: 2, began: end.at, at: end.at, over: true, usage: container.Usage{CPUTime: time.Millisecond}})
	if h.Run != 2 || h.Recent.Points[0].Seen != 3001 || h.Recent.Points[0].CPU != 2001 {
		t.Errorf("got %+v, want a run of no time seen", h.Recent)
	}
}
