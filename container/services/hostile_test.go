package services_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

// TestChecksWriteNothing: a program that is healthy and unhealthy by turns, and
// says something else each time, does not have the disk written [SERVICE-34].
func TestChecksWriteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		h := http
		h.Interval, h.Retries = time.Second, 1
		v := checked(program(plain("it"), "serve", "it"), h)
		v.Restart.Policy = services.Never
		l.begin(v)
		l.await("healthy", func(s services.Status) bool { return s.Services[0].Health == services.HealthHealthy })
		l.disk.mu.Lock()
		before := l.disk.writes
		l.disk.mu.Unlock()
		for i := range 20 {
			l.broken.Store(i%2 == 0)
			want := services.HealthHealthy
			if i%2 == 0 {
				want = services.HealthUnhealthy
			}
			l.await(want, func(s services.Status) bool { return s.Services[0].Health == want })
		}
		l.disk.mu.Lock()
		defer l.disk.mu.Unlock()
		if got := l.disk.writes - before; got != 0 {
			t.Errorf("got %d writes for 20 changes of health, want none", got)
		}
	})
}

// TestLongRunEndsRow: also a run that was ended for its health is stable if it
// was long enough [SERVICE-8].
func TestLongRunEndsRow(t *testing.T) {
	for _, c := range []struct {
		ran  time.Duration
		want uint64
	}{{services.StableAfter / 2, 2}, {2 * services.StableAfter, 1}} {
		h := tcp
		h.Retries = 1
		s := begin(t, checked(plain("it"), h))
		for run := range 2 {
			s.see(0, services.Up, 0)
			s.look(0, true)
			if run == 1 {
				s.pass(c.ran)
			}
			s.look(0, false)
			s.want(services.Stopping)
			s.see(0, services.Removed, 0)
			s.want(services.Backoff)
			if run == 0 {
				s.pass(time.Second)
			}
		}
		if got := s.state.Services[0].InRow; got != c.want {
			t.Errorf("after a run of %s: got %d in a row, want %d", c.ran, got, c.want)
		}
	}
}

// loud is a runtime with an endless log.
type loud struct {
	container.Runtime

	read int
}

func (l *loud) Logs(context.Context, string, container.LogOptions) (io.ReadCloser, error) {
	return io.NopCloser(&loudLog{l: l}), nil
}

type loudLog struct {
	l     *loud
	lines int
	left  []byte
}

const loudBytes = 8 << 20

func (r *loudLog) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if r.lines*1000 > loudBytes {
			return 0, io.EOF
		}
		r.left = container.AppendLogLine(nil, container.LogLine{
			Time: time.Unix(int64(r.lines), 0), Stream: container.Stdout, Text: fmt.Appendf(nil, "%d %s", r.lines, strings.Repeat("x", 1000)),
		})
		r.lines++
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	r.l.read += n
	return n, nil
}

// TestLogsAreStreamed: a node holds no more of a log than it is asked for, and
// of the end of one a bounded part [SERVICE-35].
func TestLogsAreStreamed(t *testing.T) {
	l := newLab(t)
	defer l.close()
	rt := &loud{Runtime: l.twin}
	m, err := services.New(t.Context(), services.Config{Runtime: rt, Store: &disk{values: map[string][]byte{}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	defer func() { stop(); <-done }()
	set := setOf(program(plain("one"), "serve", "one"), program(plain("two"), "serve", "two"))
	if err := m.Begin(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Await(t.Context(), "set", phases(services.Running, services.Running)); err != nil {
		t.Fatal(err)
	}
	for _, follow := range []bool{false, true} {
		rt.read = 0
		r, err := m.Logs(t.Context(), "set", services.LogOptions{LogOptions: container.LogOptions{Follow: follow}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10_000)); err != nil {
			t.Error(err)
		}
		if rt.read > 20*container.MaxLogLine {
			t.Errorf("follow %v: %d bytes were read for 10,000", follow, rt.read)
		}
		r.Close()
	}
	r, err := m.Logs(t.Context(), "set", services.LogOptions{LogOptions: container.LogOptions{Tail: container.MaxTail}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || len(b) > container.MaxTailBytes || len(b) < container.MaxTailBytes/2 {
		t.Errorf("got %d bytes, %v, want nearly %d", len(b), err, container.MaxTailBytes)
	}
	if lines := bytes.Split(b, []byte("\n")); !bytes.Contains(lines[len(lines)-2], fmt.Appendf(nil, "two | %d ", loudBytes/1000)) {
		t.Errorf("the last line is %.60q", lines[len(lines)-2])
	}
}
