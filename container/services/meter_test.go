package services_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

// busy is a machine on which each container uses half a core and 8 MiB, and is
// refused a process once a minute.
type busy struct{ *containertest.Twin }

func (b busy) Usage(ctx context.Context, id string) (container.Usage, error) {
	st, err := b.Status(ctx, id)
	if err != nil {
		return container.Usage{}, err
	}
	ran := time.Since(st.StartedAt)
	if !st.FinishedAt.IsZero() {
		ran = st.FinishedAt.Sub(st.StartedAt)
	}
	return container.Usage{CPUTime: ran / 2, ThrottledTime: ran / 4, MemoryBytes: 8 << 20, MemoryPeakBytes: 8 << 20, Hits: container.Hits{Pids: uint64(ran / time.Minute)}}, nil
}

func (l *lab) metrics(service string) services.Metrics {
	l.t.Helper()
	all, err := l.m.Metrics("set", service)
	if err != nil || len(all) != 1 || all[0].Service != service {
		l.t.Fatalf("got %+v, %v", all, err)
	}
	return all[0]
}

// TestMetrics: each service's use is kept over restarts of the service and of
// the node, the time without a node is a gap, and nothing stays of a set that is
// gone [SESSION-36] [SESSION-37] [SESSION-39].
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.die()
		l.runtime = busy{l.twin}
		l.live()
		l.begin(program(plain("it"), "serve", "it"), program(job("once"), "exit", "once"))
		l.await("both ran", phases(services.Running, services.Done))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		m := l.metrics("it")
		var cpu, seen uint64
		for _, p := range m.Recent.Points {
			cpu, seen = cpu+p.CPU, seen+p.Seen
			if p.Seen != 0 && p.MemoryBytes != 8<<20 {
				t.Fatalf("got %+v, want 8 MiB", p)
			}
		}
		if n := len(m.Recent.Points); n < 60 || n > 61 || seen < 590_000 || seen > 600_100 || cpu < seen/2-10 || cpu > seen/2+10 || m.Hits.Pids < 9 {
			t.Errorf("got %d ms used in %d ms of %d points and %+v, want half a core for ten minutes", cpu, seen, n, m.Hits)
		}
		if all, err := l.m.Metrics("set", ""); err != nil || len(all) != 2 || all[1].Service != "once" || all[1].Run != 1 {
			t.Errorf("got %+v, %v of all services", all, err)
		}

		// The node ends, and comes back after a quarter of an hour.
		l.die()
		time.Sleep(15 * time.Minute)
		l.live()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		again := l.metrics("it")
		gaps := 0
		for i, p := range again.Recent.Points {
			if p.Seen == 0 {
				gaps++
			} else if p.CPU > p.Seen/2+10 {
				t.Errorf("point %d has %+v: what was used in the gap is shown beside it", i, p)
			}
		}
		if n := len(again.Recent.Points); again.Recent.First != m.Recent.First || n < 179 || n > 181 || gaps < 88 || gaps > 92 {
			t.Errorf("got %d points of which %d are gaps, want 180 and 90", n, gaps)
		}

		// A node that is killed now has lost minutes, not hours.
		stored := func() int {
			l.disk.mu.Lock()
			defer l.disk.mu.Unlock()
			return strings.Count(string(l.disk.values["services/use/set/it"]), `"s":`)
		}
		before := stored()
		time.Sleep(6 * time.Minute)
		if now := stored(); now < before+30 {
			t.Errorf("got %d points stored after six minutes, %d before", now, before)
		}
		l.die()
		l.disk.values["services/use/set/it"] = []byte(`{"Run":1,"Recent":{"Step":0,"Points":[{"s":5}]}}`)
		l.live()
		if m := l.metrics("it"); m.Run > 1 || len(m.Recent.Points) > 1 {
			t.Errorf("got %+v from what cannot be read, want a new beginning", m)
		}
		if _, err := l.m.Metrics("set", "none"); !errors.Is(err, container.CodeNotFound) {
			t.Errorf("got %v, want %s", err, container.CodeNotFound)
		}
		if err := l.m.End(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for k := range l.disk.values {
			t.Errorf("%s is left", k)
		}
	})
}
