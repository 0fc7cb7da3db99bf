package services

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Put is one change of a [Store]. A nil value deletes the key.
type Put = struct {
	Key   string
	Value []byte
}

// Store keeps what must survive a crash. Keys of this package begin with
// "services/". Apply may be called from several goroutines at once.
type Store interface {
	// Apply makes all puts durable, all or none, before it returns.
	Apply(ctx context.Context, puts []Put) error
	// Load calls fn for each key with the prefix, in ascending order of key.
	Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
}

// Config is what a [Manager] works with. Runtime and Store are required.
type Config struct {
	Runtime container.Runtime
	Store   Store
	// Fetch brings an image of a set back that the runtime has let go of. Nil:
	// what is gone is gone.
	Fetch func(ctx context.Context, set, ref, digest string) error
	// EndLimit is how long Run waits, once its context has ended, for sets that
	// are being ended: nobody else would remove them. The others go on.
	EndLimit time.Duration
	Log      *slog.Logger // nil: none
}

// Manager runs sets. Its methods may be called from several goroutines at once.
type Manager struct {
	cfg   Config
	tails chan struct{} // one an end of a log that is being gathered

	mu      sync.Mutex // guards the rest
	sets    map[string]*runner
	ctx     context.Context // of Run; nil before
	wg      sync.WaitGroup
	leaving bool          // no set begins any more
	stopped chan struct{} // closed after Run
}

// maxTails are the ends of logs that are gathered at once, each in the memory of
// the node.
const maxTails = 8

var errStopped = errors.New("services: the manager has stopped")

// New returns a manager that knows all sets of the store. Nothing is done for
// them before [Manager.Run].
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Runtime == nil || cfg.Store == nil {
		return nil, errors.New("services: a manager needs a runtime and a store")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{cfg: cfg, tails: make(chan struct{}, maxTails), sets: map[string]*runner{}, stopped: make(chan struct{})}
	err := cfg.Store.Load(ctx, keySet, func(key string, value []byte) error {
		var set Set
		if err := json.Unmarshal(value, &set); err != nil {
			return fmt.Errorf("stored %s: %w", key, err)
		}
		m.sets[set.ID] = newRunner(m, set)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = cfg.Store.Load(ctx, keyState, func(key string, value []byte) error {
		r := m.sets[strings.TrimPrefix(key, keyState)]
		if r == nil {
			return nil
		}
		var st State
		if err := json.Unmarshal(value, &st); err != nil {
			return fmt.Errorf("stored %s: %w", key, err)
		}
		if err := st.Check(r.set); err != nil {
			return fmt.Errorf("stored %s: %w", key, err)
		}
		r.state, r.saved = st, value
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := m.loadSizes(ctx); err != nil {
		return nil, err
	}
	return m, m.loadUse(ctx)
}

// loadSizes reads the changes that were under way.
func (m *Manager) loadSizes(ctx context.Context) error {
	return m.cfg.Store.Load(ctx, keySize, func(key string, value []byte) error {
		r := m.sets[strings.TrimPrefix(key, keySize)]
		if r == nil {
			return nil
		}
		var next Set
		if err := json.Unmarshal(value, &next); err != nil {
			return fmt.Errorf("stored %s: %w", key, err)
		}
		r.change = newSizing(r.set, next)
		r.setSizes(next, r.change.most)
		return nil
	})
}

// Keys of the store.
const (
	keySet   = "services/set/"
	keyState = "services/state/"
	keySize  = "services/size/" // of a change of sizes that is under way
	keyLog   = "services/log/"
)

// Run runs all sets until ctx ends, and returns once everything of its own has
// ended. The containers go on, but those of sets that are being ended, for which
// it waits [Config.EndLimit]. It is called once.
func (m *Manager) Run(ctx context.Context) error {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	m.mu.Lock()
	m.ctx = own
	for _, r := range m.sets {
		m.begun(r)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.leaving = true
	sets := slices.Collect(maps.Values(m.sets))
	m.mu.Unlock()
	limit, cancel := context.WithTimeout(own, m.cfg.EndLimit)
	defer cancel()
	for _, r := range sets {
		if r.ending() {
			select {
			case <-r.gone:
			case <-limit.Done():
			}
		}
	}
	stop()
	m.mu.Lock()
	close(m.stopped)
	m.mu.Unlock()
	m.wg.Wait()
	return ctx.Err()
}

// begun begins the goroutines of a set.
func (m *Manager) begun(r *runner) {
	ctx := m.ctx
	m.wg.Go(func() { r.run(ctx) })
	m.wg.Go(func() { r.measure(ctx) })
}

// Ending returns how many sets are being ended.
func (m *Manager) Ending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, r := range m.sets {
		if r.ending() {
			n++
		}
	}
	return n
}

// Begin makes a set run, and returns once that is durable: nothing has been
// started yet. It is idempotent: nil for a set that is known already and equal,
// whatever it does now, and [container.CodeConflict] for another of that id.
func (m *Manager) Begin(ctx context.Context, set Set) error {
	if err := set.Validate(); err != nil {
		return err
	}
	if _, ok := m.cfg.Runtime.(container.Volumes); !ok && len(set.Volumes) > 0 {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "this runtime has no volumes"}
	}
	b, err := json.Marshal(set)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.sets[set.ID]; old != nil {
		if known, _ := json.Marshal(old.sizes()); !bytes.Equal(known, b) {
			return &container.Error{Code: container.CodeConflict, Detail: set.ID}
		}
		return nil
	}
	if m.leaving {
		return errStopped
	}
	r := newRunner(m, set)
	if r.saved, err = json.Marshal(r.state); err != nil {
		return err
	}
	if err := m.cfg.Store.Apply(ctx, []Put{{Key: keySet + set.ID, Value: b}, {Key: keyState + set.ID, Value: r.saved}}); err != nil {
		return err
	}
	m.sets[set.ID] = r
	if m.ctx != nil {
		m.begun(r)
	}
	return nil
}

func (m *Manager) find(id string) (*runner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.sets[id]; r != nil {
		return r, nil
	}
	return nil, &container.Error{Code: container.CodeNotFound, Detail: id}
}

// Freeze stops all processes of a set where they are, and returns once they
// stand still; also while the store takes nothing. Thaw lets them go on. Both
// are idempotent, [container.CodeNotFound] for no such set.
func (m *Manager) Freeze(ctx context.Context, id string) error { return m.ask(ctx, id, Freeze{}) }

// Thaw undoes Freeze.
func (m *Manager) Thaw(ctx context.Context, id string) error { return m.ask(ctx, id, Thaw{}) }

func (m *Manager) ask(ctx context.Context, id string, e Event) error {
	r, err := m.find(id)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	return r.call(ctx, done, func() {
		r.step(e)
		r.whenIdle(done)
	})
}

// End removes a set and all that belongs to it, and returns once nothing is
// left. It is idempotent, and nil when there is no such set. When ctx ends
// first the removing goes on.
func (m *Manager) End(ctx context.Context, id string) error {
	r, err := m.find(id)
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	r.post(func() { r.end() })
	select {
	case <-r.gone:
		return nil
	case <-m.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget drops a set of which nothing is left.
func (m *Manager) forget(ctx context.Context, r *runner) error {
	puts := append(r.forgetUse(), Put{Key: keySet + r.set.ID}, Put{Key: keyState + r.set.ID})
	err := m.cfg.Store.Load(ctx, keyLog+r.set.ID+"/", func(key string, _ []byte) error {
		puts = append(puts, Put{Key: key})
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.cfg.Store.Apply(ctx, puts); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sets, r.set.ID)
	return nil
}

// Sets returns all sets, those that are being ended too, ordered by id: what a
// set has of the machine it has until it is not among them.
func (m *Manager) Sets() []Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Set
	for _, id := range slices.Sorted(maps.Keys(m.sets)) {
		out = append(out, m.sets[id].holds())
	}
	return out
}

// Status is how a set stands.
type Status struct {
	ID      string
	Frozen  bool
	Outcome Outcome
	Why     string // when it does not go on
	// Services are in the set's order.
	Services []ServiceStatus
}

// ServiceStatus is how a service stands.
type ServiceStatus struct {
	Name    string
	Job     bool
	Looping bool
	// Container is the id of the present or last container, "" for none yet.
	Container string
	// Publish are the ports that lead to it.
	Publish []container.PublishedPort
	ServiceState
}

// Status reports on a set, [container.CodeNotFound] when there is none. It asks
// nobody, and is cheap.
func (m *Manager) Status(id string) (Status, error) {
	r, err := m.find(id)
	if err != nil {
		return Status{}, err
	}
	s, _ := r.status()
	return s, nil
}

// Await returns once ok holds for a set's status.
func (m *Manager) Await(ctx context.Context, id string, ok func(Status) bool) (Status, error) {
	for {
		r, err := m.find(id)
		if err != nil {
			return Status{}, err
		}
		s, changed := r.status()
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, ctx.Err()
		case <-m.stopped:
			return s, errStopped
		}
	}
}

// Container returns the id of a service's present container:
// [container.CodeNotFound] when there is no such set or service, and
// [container.CodeNotRunning] for one that has not been started yet.
func (m *Manager) Container(id, service string) (string, error) {
	s, err := m.Status(id)
	if err != nil {
		return "", err
	}
	for _, v := range s.Services {
		if v.Name == service && v.Container == "" {
			return "", &container.Error{Code: container.CodeNotRunning, Detail: service}
		}
		if v.Name == service {
			return v.Container, nil
		}
	}
	return "", &container.Error{Code: container.CodeNotFound, Detail: "service " + service}
}

func (r *runner) ending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Ending
}

func (r *runner) status() (Status, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{ID: r.set.ID, Frozen: r.state.Frozen}
	s.Outcome, s.Why = r.state.Outcome(r.set)
	for i, v := range r.state.Services {
		spec := r.set.Services[i]
		out := ServiceStatus{Name: spec.Name, Job: spec.Job, Looping: v.Looping(time.Now()), Publish: spec.Network.Publish, ServiceState: v}
		if v.Run > 0 {
			out.Container = Container(r.set.ID, spec.Name, v.Run)
		}
		s.Services = append(s.Services, out)
	}
	return s, r.changed
}
