package node_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// TestPortIsKept starts a node again and again: without Listen it stays where
// the other sides of its leases know it, as long as nobody else is there.
func TestPortIsKept(t *testing.T) {
	w, log := newWorld(t), new(lines)
	c := node.Config{Dir: w.init("again"), Ledger: w.chain, Log: slog.New(slog.NewTextHandler(log, nil))}
	again := func(c node.Config) string {
		t.Helper()
		r := w.start(c)
		info, err := r.Info(t.Context())
		w.check(err)
		r.stop()
		if len(info.Addresses) != 1 {
			t.Fatalf("got addresses %v, want one", info.Addresses)
		}
		return info.Addresses[0]
	}
	first := again(c)
	if got := again(c); got != first {
		t.Fatalf("started again: got %s, want %s", got, first)
	}

	given := c
	given.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	if got := again(given); got == first {
		t.Fatalf("with Listen: got %s, the port that was kept", got)
	}
	if got := again(c); got != first {
		t.Fatalf("after a start with Listen: got %s, want %s", got, first)
	}

	port := strings.Split(first, "/")[4]
	// Another node is the hardest case: the kernel would let both listen there.
	other := w.start(node.Config{Dir: w.init("other"), Ledger: w.chain, Listen: []string{"/ip4/127.0.0.1/tcp/" + port}})
	second := again(c)
	other.stop()
	if slices.Contains(strings.Split(second, "/"), port) || !log.has("another program has the port") {
		t.Fatalf("beside another program: got %s and a warning %t, want another port and a warning", second, log.has("another program"))
	}
	if got := again(c); got != second {
		t.Fatalf("after that: got %s, want %s", got, second)
	}
}
