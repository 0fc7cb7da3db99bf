package servicetest

import (
	"context"
	"strings"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// LeaseMetrics has a web service whose use rises and falls, with a gap of ten
// minutes, and a job that ran once.
func (t *Twin) LeaseMetrics(ctx context.Context, name string) ([]service.Metrics, error) {
	name, part, named := strings.Cut(name, "/")
	l, err := t.Lease(ctx, name)
	if err != nil {
		return nil, err
	}
	web := service.Metrics{
		Service: "web", Runs: 3, MilliCPU: 500, Memory: 128 << 20, Disk: 1 << 30,
		Hits:   service.MetricHits{CPU: 212, Memory: 3, OOM: 1},
		Recent: wave(l.Created, 10, 420), Life: wave(l.Created, 60, 70),
	}
	job := service.Metrics{Service: "migrate", Runs: 1, MilliCPU: 500, Memory: 128 << 20, Disk: 1 << 30, Recent: wave(l.Created, 10, 2), Life: wave(l.Created, 60, 1)}
	switch {
	case !named:
		return []service.Metrics{web, job}, nil
	case part == "web":
		return []service.Metrics{web}, nil
	case part == "migrate":
		return []service.Metrics{job}, nil
	}
	return nil, service.Errorf(service.CodeNotFound, "lease %s has no service %q", name, part)
}

// wave is a use that rises and falls in 20 minutes, at its limit for a while,
// and unknown for the fourth ten minutes.
func wave(begin int64, step uint64, n int) service.Uses {
	out := service.Uses{Begin: begin, Step: step, Points: []service.Use{}}
	for i := range n {
		at := uint64(i) * step
		if at/600 == 3 {
			out.Points = append(out.Points, service.Use{})
			continue
		}
		high := at % 1200
		if high > 600 {
			high = 1200 - high
		}
		milli := min(50+high, 500)
		p := service.Use{Seen: step * 1000, CPU: milli * step, Memory: 40<<20 + high*100_000, Disk: 90<<20 + at*5000, In: high * step * 200, Out: high * step * 900}
		if milli == 500 {
			p.Throttled, p.Hits = step*(high-400), 1
		}
		out.Points = append(out.Points, p)
	}
	return out
}
