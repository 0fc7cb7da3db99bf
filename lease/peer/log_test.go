package peer_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) lines(with string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, with) {
			out = append(out, line)
		}
	}
	return out
}

// TestLog: owners read of each lease when it was agreed, started and ended, in one
// line each, with whom, at what price, and why it ended.
func TestLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log lockedBuffer
	w.logs = func(side string) *slog.Logger { return slog.New(slog.NewTextHandler(&log, nil)).With("side", side) }
	w.stops[0]()
	w.stops[1]()
	w.startProvider("/ip4/127.0.0.1/tcp/0")
	w.offer = w.makeOffer()
	w.startTenant()
	r := w.patient()
	r.Manifest.Services[0].Env = []string{"PASSWORD=hunter2"}
	id := w.create(r)
	w.until("something is paid", func() bool {
		v, _ := w.tenant.Lease(id)
		return v.Paid > 0
	})
	w.closeAndCheck(id)
	for _, event := range []string{"lease agreed", "lease started", "lease ended"} {
		for i, side := range []string{"tenant", "provider"} {
			lines := log.lines(`level=INFO msg="` + event + `" side=` + side)
			if len(lines) != 1 {
				t.Errorf("%s: got %d lines of %q, want one: %q", side, len(lines), event, lines)
				continue
			}
			for _, want := range []string{"lease=" + id.String(), "peer=" + w.ids[1-i].Public().String(), `price="0.003352761 PKT an hour"`} {
				if !strings.Contains(lines[0], want) {
					t.Errorf("%s: %q lacks %q", side, lines[0], want)
				}
			}
			if event == "lease ended" && (!strings.Contains(lines[0], "reason=requested by=tenant") || !strings.Contains(lines[0], "paid=")) {
				t.Errorf("%s: %q does not say why it ended", side, lines[0])
			}
		}
	}
	if secret := log.lines("hunter2"); len(secret) > 0 {
		t.Errorf("the log has a secret: %q", secret)
	}
}
