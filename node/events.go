package node

import (
	"context"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// eventQueue is how many events a slow listener may be behind before it misses
// some.
const eventQueue = 256

// hub hands events to all who listen.
type hub struct {
	mu        sync.Mutex // guards all below
	sequence  uint64
	listeners map[chan service.Event]struct{}
}

func (h *hub) tell(kind, lease, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sequence++
	e := service.Event{Sequence: h.sequence, Time: time.Now().UnixMilli(), Kind: kind, Lease: lease, Text: text}
	for ch := range h.listeners {
		select {
		case ch <- e:
		default: // it misses this one; the sequence shows that
		}
	}
}

// Events calls fn for what happens from now on.
func (n *Node) Events(ctx context.Context, fn func(service.Event) error) error {
	ch := make(chan service.Event, eventQueue)
	h := &n.hub
	h.mu.Lock()
	if h.listeners == nil {
		h.listeners = map[chan service.Event]struct{}{}
	}
	h.listeners[ch] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.listeners, ch)
		h.mu.Unlock()
	}()
	for {
		select {
		case e := <-ch:
			if err := fn(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
