package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Memory is the twin of [Store] that forgets. The zero value is empty and
// ready.
type Memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

// Apply behaves as [Store.Apply].
func (m *Memory) Apply(ctx context.Context, puts []Put) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, p := range puts {
		if err := checkPut(p); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	for _, p := range puts {
		if p.Value == nil {
			delete(m.values, p.Key)
		} else {
			m.values[p.Key] = slices.Clone(p.Value)
		}
	}
	return nil
}

// Load behaves as [Store.Load].
func (m *Memory) Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	m.mu.Lock()
	state := maps.Clone(m.values)
	m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(state)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(key, append([]byte{}, state[key]...)); err != nil {
			return err
		}
	}
	return nil
}
