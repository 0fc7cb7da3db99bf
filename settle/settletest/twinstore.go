package settletest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
)

// ErrStore is what a Store answers when a test told it to fail.
var ErrStore = errors.New("the store twin was told to fail")

// Store is a durable map in memory, a manager.Store. A Clone is what a crash
// at this moment would leave.
type Store struct {
	mu      sync.Mutex
	data    map[string][]byte
	applies int
	before  func(apply int) bool
	after   func(apply int) bool
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{data: map[string][]byte{}} }

// FailWhen makes an Apply fail, with nothing stored, when fail returns true for
// its number, counted from 1. Nil ends it.
func (s *Store) FailWhen(fail func(apply int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = fail
}

// DieAt makes the machine die at the nth Apply from now on, before that write or
// right after it: its caller is told that it failed, and no later one succeeds.
// The function that it returns tells whether it came to that.
func (s *Store) DieAt(n int, after bool) (dead func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, died := s.applies+n, false
	s.before = func(apply int) bool {
		died = died || apply >= last
		return apply > last || apply == last && !after
	}
	s.after = func(apply int) bool { return apply == last }
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return died
	}
}

// Applies returns how often Apply was called.
func (s *Store) Applies() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applies
}

// Clone returns an independent copy.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := NewStore()
	for k, v := range s.data {
		c.data[k] = bytes.Clone(v)
	}
	return c
}

// Apply makes all puts durable, all or none.
func (s *Store) Apply(ctx context.Context, puts []struct {
	Key   string
	Value []byte
},
) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applies++
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.before != nil && s.before(s.applies) {
		return ErrStore
	}
	for _, p := range puts {
		if p.Value == nil {
			delete(s.data, p.Key)
			continue
		}
		s.data[p.Key] = bytes.Clone(p.Value)
	}
	if s.after != nil && s.after(s.applies) {
		return ErrStore
	}
	return nil
}

// Load calls fn for each key with the prefix, in ascending order of key.
func (s *Store) Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	c := s.Clone()
	for _, k := range slices.Sorted(maps.Keys(c.data)) {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(k, c.data[k]); err != nil {
			return err
		}
	}
	return nil
}
