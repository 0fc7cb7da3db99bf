package web

import (
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestCharts: a chart shows what was measured to scale, breaks at a gap and says
// so, and marks where a limit was hit.
func TestCharts(t *testing.T) {
	p := func(cpu, throttled uint64) service.Use {
		return service.Use{Seen: 10_000, CPU: cpu, Throttled: throttled, Memory: 1 << 20}
	}
	m := service.Metrics{
		Service: "web", Runs: 1, MilliCPU: 500, Memory: 4 << 20, Hits: service.MetricHits{Memory: 1200, OOM: 2},
		Recent: service.Uses{Begin: 1_800_000_000, Step: 10, Points: []service.Use{p(5400, 3), {}, p(0, 0), p(2700, 0)}},
	}
	u := drawn(m, true, false)
	if len(u.Charts) != 4 || u.Hits != "memory 1 200, killed for memory 2" || len(u.Rows) != 4 || !u.Rows[1].Gap || u.Rows[0].Processor != "0.54 cores" {
		t.Fatalf("got %+v", u)
	}
	c := u.Charts[0]
	// The top is 8 % above the most, 0.54 cores.
	if c.Lines[0].Line != "M0.0 7.4H250.0M500.0 100.0H750.0V53.7H1000.0" || c.Lines[0].Area != "M0.0 100V7.4H250.0V100ZM500.0 100V100.0H750.0V53.7H1000.0V100Z" || c.Limit != "14.3" {
		t.Errorf("got %+v, limit %s", c.Lines[0], c.Limit)
	}
	if len(c.Gaps) != 1 || c.Gaps[0] != (chartSpan{"250.0", "250.0"}) || len(c.Hits) != 1 || c.Hits[0] != (chartSpan{"0.0", "250.0"}) {
		t.Errorf("got gaps %+v and hits %+v", c.Gaps, c.Hits)
	}
	for _, want := range []string{"Processor of service web", "last 0.27 cores", "most 0.54 cores of 0.5 cores", "nothing is known", "limit was used up"} {
		if !strings.Contains(c.About, want) {
			t.Errorf("%q is not in what is said to those who do not see it: %q", want, c.About)
		}
	}
	if u := drawn(m, false, false); len(u.Charts) != 2 || u.Rows != nil {
		t.Errorf("one of several services has %d charts, want two", len(u.Charts))
	}
	if u := drawn(m, true, true); len(u.Charts) != 0 {
		t.Errorf("got %d charts of nothing", len(u.Charts))
	}
}

// TestChartsAreBounded: whatever a provider says, a chart has few points, and
// its numbers are within the picture.
func TestChartsAreBounded(t *testing.T) {
	m := service.Metrics{Service: "web", Runs: 1}
	const most = 1<<53 - 1
	for range 720 {
		m.Recent.Points = append(m.Recent.Points, service.Use{Seen: 1, CPU: most, Throttled: most, Memory: most, Disk: most, In: most, Out: most, Hits: most})
	}
	m.Recent.Step, m.Recent.Begin = 1<<30, 1<<40-1
	for _, c := range drawn(m, true, false).Charts {
		for _, l := range c.Lines {
			if strings.Count(l.Line, "H") > chartPoints || len(l.Area) > 4000 || strings.ContainsAny(l.Line, "NI-e") {
				t.Errorf("%s: got %d bytes: %.80s", c.Title, len(l.Line), l.Line)
			}
		}
	}
}

// TestNothingMeasured: what ended, or does not run, is not said to have its first
// numbers soon.
func TestNothingMeasured(t *testing.T) {
	p := metricsPart{Services: []useOf{{Name: "web"}, {Name: "job"}, {Name: "db"}, {Name: "new"}}}
	got := p.explain([]service.Standing{{Name: "job", State: "done"}, {Name: "web", State: "running"}, {Name: "db", State: "backoff"}}).Services
	for i, want := range []string{"Nothing was measured yet", "It ended before anything was measured", "It does not run now", "Nothing was measured yet"} {
		if !strings.HasPrefix(got[i].Empty, want) {
			t.Errorf("%s: got %q, want %q", got[i].Name, got[i].Empty, want)
		}
	}
	if p.Services[0].Empty != "" {
		t.Error("the part before was changed")
	}
}
