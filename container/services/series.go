package services

import (
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// What is kept of a service's use [SESSION-36].
const (
	RecentStep   = 10 * time.Second
	RecentPoints = 720 // two hours
	LifeStep     = time.Minute
	LifePoints   = 360 // then two points become one
	// MaxBetween is the longest time between two looks that is no gap.
	MaxBetween = 3 * RecentStep
)

// Point is what a service used in one step of a [Series]: sums, but for memory
// and disk, which are the most that was seen.
type Point struct {
	// Seen is how many milliseconds of the step it ran and was looked at; 0: a gap.
	Seen uint64 `json:"s,omitempty"`
	// CPU and Throttled are milliseconds of processor time: used, and waited for
	// because the limit was used up.
	CPU         uint64 `json:"c,omitempty"`
	Throttled   uint64 `json:"t,omitempty"`
	MemoryBytes uint64 `json:"m,omitempty"`
	DiskBytes   uint64 `json:"d,omitempty"`
	// BytesIn and BytesOut passed between it and the world outside its lease.
	BytesIn  uint64 `json:"i,omitempty"`
	BytesOut uint64 `json:"o,omitempty"`
	// Hits is how often it hit a limit other than that of the processor.
	Hits uint64 `json:"h,omitempty"`
}

// Series is a use over time: points that follow one another without a break,
// each Step long. It is a value that grows to a fixed size and no further.
type Series struct {
	Step   time.Duration // whole seconds
	First  int64         // the first point begins First steps after the Unix epoch
	Points []Point
}

// Begin returns the moment at which a point begins.
func (s Series) Begin(point int) time.Time {
	return time.UnixMilli((s.First + int64(point)) * s.Step.Milliseconds())
}

// add spreads what was used from one moment to another, in Unix milliseconds,
// over the points between. The last points are in the series afterwards; the
// caller has made room for them.
func (s *Series) add(from, to int64, p Point) {
	step := s.Step.Milliseconds()
	if len(s.Points) == 0 {
		s.First = from / step
	}
	from = max(from, s.First*step)
	total := uint64(to - from)
	for at := from; at < to; {
		i := int(at/step - s.First)
		for len(s.Points) <= i {
			s.Points = append(s.Points, Point{})
		}
		end := min(to, (at/step+1)*step)
		a, b := uint64(at-from), uint64(end-from)
		part := func(v uint64) uint64 { return share(v, b, total) - share(v, a, total) }
		q := &s.Points[i]
		q.merge(Point{
			Seen: b - a, CPU: part(p.CPU), Throttled: part(p.Throttled), MemoryBytes: p.MemoryBytes, DiskBytes: p.DiskBytes,
			BytesIn: part(p.BytesIn), BytesOut: part(p.BytesOut), Hits: part(p.Hits),
		})
		q.Seen = min(q.Seen, uint64(step)) // the clock may have been set back
		at = end
	}
}

// share is v*n/of without its overflow, for n <= of below 2^32.
func share(v, n, of uint64) uint64 { return v/of*n + v%of*n/of }

func (p *Point) merge(o Point) {
	p.Seen += o.Seen
	p.CPU += o.CPU
	p.Throttled += o.Throttled
	p.MemoryBytes = max(p.MemoryBytes, o.MemoryBytes)
	p.DiskBytes = max(p.DiskBytes, o.DiskBytes)
	p.BytesIn += o.BytesIn
	p.BytesOut += o.BytesOut
	p.Hits += o.Hits
}

// drop makes room for a moment by letting go of the oldest points.
func (s *Series) drop(to int64, most int) {
	last := (to - 1) / s.Step.Milliseconds()
	if gone := last - s.First + 1 - int64(most); gone >= int64(len(s.Points)) {
		s.Points = nil
	} else if gone > 0 {
		s.Points = s.Points[gone:]
		s.First += gone
	}
}

// double makes room for a moment by doubling the step as often as that takes.
func (s *Series) double(to int64, most int) {
	for len(s.Points) > 0 && (to-1)/s.Step.Milliseconds()-s.First >= int64(most) {
		first := s.First / 2
		var merged []Point
		for i, p := range s.Points {
			k := int((s.First+int64(i))/2 - first)
			if k == len(merged) {
				merged = append(merged, Point{})
			}
			merged[k].merge(p)
		}
		s.Step, s.First, s.Points = 2*s.Step, first, merged
	}
}

// totals are a container's counters, which only grow, as they were at a look.
type totals struct {
	CPU, Throttled, BytesIn, BytesOut, Hits uint64
}

func totalsOf(u container.Usage, n container.NetworkStatus) totals {
	return totals{
		CPU: uint64(u.CPUTime.Milliseconds()), Throttled: uint64(u.ThrottledTime.Milliseconds()), BytesIn: n.BytesIn, BytesOut: n.BytesOut,
		Hits: u.Hits.Memory + u.Hits.Pids + u.Hits.Disk + u.Hits.IO + u.Hits.Network,
	}
}

// since is what was counted after was, and whether the counters grew.
func (t totals) since(was totals) (Point, bool) {
	ok := t.CPU >= was.CPU && t.Throttled >= was.Throttled && t.BytesIn >= was.BytesIn && t.BytesOut >= was.BytesOut && t.Hits >= was.Hits
	return Point{
		CPU: t.CPU - was.CPU, Throttled: t.Throttled - was.Throttled, BytesIn: t.BytesIn - was.BytesIn, BytesOut: t.BytesOut - was.BytesOut,
		Hits: t.Hits - was.Hits,
	}, ok
}

// look is a container as it was seen.
type look struct {
	run       uint64
	began, at time.Time // the container's start, and the moment of the look or of its end
	over      bool      // it has ended
	usage     container.Usage
	network   container.NetworkStatus
}

// history is what is kept of one service.
type history struct {
	Run      uint64 // that was looked at last
	At       int64  // Unix milliseconds of that look
	Over     bool   // it has ended: nothing more comes of this run
	Last     totals
	Hits     container.Hits // of this run
	OOMKills uint64
	Recent   Series
	Life     Series
}

// take adds a look [SESSION-37]. What was used between two looks that are too
// far apart, or between which the clock or a counter went back, is not spread
// over time that nobody looked at: it is left out, and the time is a gap.
func (h *history) take(l look) {
	if l.run < h.Run || l.run == h.Run && h.Over {
		return
	}
	from, was := h.At, h.Last
	if l.run > h.Run { // its counters began with it
		from, was = l.began.UnixMilli(), totals{}
	}
	now, at := totalsOf(l.usage, l.network), l.at.UnixMilli()
	if l.run > h.Run && from == at {
		from-- // it began and ended within a millisecond, and is to be seen all the same
	}
	used, ok := now.since(was)
	used.MemoryBytes, used.DiskBytes = l.usage.MemoryBytes, l.usage.DiskBytes
	if l.over && l.run > h.Run {
		used.MemoryBytes = max(used.MemoryBytes, l.usage.MemoryPeakBytes) // seen only now
	}
	h.Run, h.At, h.Last, h.Over, h.Hits, h.OOMKills = l.run, at, now, l.over, l.usage.Hits, l.usage.OOMKills
	if !ok || from >= at || at-from > MaxBetween.Milliseconds() || from <= 0 {
		return
	}
	for _, s := range []*Series{&h.Recent, &h.Life} {
		if len(s.Points) > 0 && at <= s.First*s.Step.Milliseconds() {
			*s = Series{} // the clock was set back by more than all that is kept
		}
	}
	if h.Recent.Step == 0 {
		h.Recent.Step = RecentStep
	}
	if h.Life.Step == 0 {
		h.Life.Step = LifeStep
	}
	h.Recent.drop(at, RecentPoints)
	h.Recent.add(from, at, used)
	h.Life.double(at, LifePoints)
	h.Life.add(from, at, used)
}
