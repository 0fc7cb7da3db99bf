package leasetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/pkt-cash/pkt-cloud/lease/peer"
)

// ErrDown is what a Store that was told to fail answers.
var ErrDown = errors.New("leasetest: the store is down")

// Store is a peer.Store in memory. The zero value is empty and ready. It may be
// used from several goroutines at once.
type Store struct {
	mu     sync.Mutex
	values map[string][]byte
	down   bool

	counting bool
	left     int // applies until it goes down, if counting
}

// Apply implements peer.Store.
func (s *Store) Apply(ctx context.Context, puts []peer.Put) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counting && s.left == 0 {
		s.down = true
	}
	if s.down {
		return ErrDown
	}
	s.left--
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	for _, p := range puts {
		if p.Value == nil {
			delete(s.values, p.Key)
			continue
		}
		s.values[p.Key] = bytes.Clone(p.Value)
	}
	return nil
}

// Load implements peer.Store.
func (s *Store) Load(_ context.Context, prefix string, fn func(key string, value []byte) error) error {
	s.mu.Lock()
	values := maps.Clone(s.values)
	s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		if err := fn(k, bytes.Clone(values[k])); err != nil {
			return err
		}
	}
	return nil
}

// Down makes every Apply fail, or ends that: what a process writes after it
// was killed.
func (s *Store) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.counting = down, false
}

// DownAfter makes every Apply after the next n fail, until Down(false).
func (s *Store) DownAfter(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.counting = n, true
}
