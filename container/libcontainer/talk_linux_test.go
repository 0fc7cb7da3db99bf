//go:build linux && cgo && amd64

package libcontainer

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// givenUp is a context that ends as soon as somebody wants to be told of it.
type givenUp struct {
	context.Context
	done  chan struct{}
	asked atomic.Bool
}

func (g *givenUp) Done() <-chan struct{} { return g.done }

// Err is nil before somebody asked.
func (g *givenUp) Err() error {
	if g.asked.Load() {
		return context.Canceled
	}
	return nil
}

// AfterFunc begins f beside whoever asked.
func (g *givenUp) AfterFunc(f func()) (stop func() bool) {
	g.asked.Store(true)
	go f()
	return func() bool { return false }
}

// TestCallGivenUp gives a request up that cannot be sent, in the same moment: both
// are at its connection.
func TestCallGivenUp(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 300 {
		ctx := &givenUp{Context: t.Context(), done: make(chan struct{})}
		if _, _, err := call(ctx, dir, func() {}); err == nil || !ctx.asked.Load() { // no JSON
			t.Fatalf("got %v from what cannot be sent", err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}
