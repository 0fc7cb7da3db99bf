package services

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

const (
	keyUse = "services/use/"
	// saveEvery is how often what services used is made durable: so much of it
	// is lost when the process is killed [SESSION-39].
	saveEvery = 5 * time.Minute
	saveLimit = 5 * time.Second
	lookLimit = 3 * time.Second
)

// meter keeps what the services of a set use.
type meter struct {
	mu        sync.Mutex // guards histories and what is in them
	histories []history  // one a service

	store sync.Mutex // guards the rest; taken before mu
	saved [][]byte   // as they are in the store
	over  bool       // nothing is stored any more
}

func useKey(set, service string) string { return keyUse + set + "/" + service }

// loadUse reads what is kept of all sets. What cannot be read is begun anew: it
// is worth less than the services.
func (m *Manager) loadUse(ctx context.Context) error {
	return m.cfg.Store.Load(ctx, keyUse, func(key string, value []byte) error {
		id, service, _ := strings.Cut(strings.TrimPrefix(key, keyUse), "/")
		r := m.sets[id]
		if r == nil {
			return nil
		}
		i := r.set.index(service)
		var h history
		if i < 0 || json.Unmarshal(value, &h) != nil || h.Recent.check(RecentPoints) != nil || h.Life.check(LifePoints) != nil {
			m.cfg.Log.Warn("services: what a service used cannot be read, and begins anew", "set", id, "service", service)
			return nil
		}
		r.use.histories[i], r.use.saved[i] = h, value
		return nil
	})
}

// measure looks at each running service once in [RecentStep] until the set is
// gone or ctx ends.
func (r *runner) measure(ctx context.Context) {
	saved := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		timer.Reset(now.Truncate(RecentStep).Add(RecentStep).Sub(now))
		select {
		case <-timer.C:
		case <-r.gone:
			return
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
			defer cancel()
			r.saveUse(ctx)
			return
		}
		s, _ := r.status()
		for i, v := range s.Services {
			if v.Phase == Running {
				r.lookAt(ctx, i, v.Run)
			}
		}
		if time.Since(saved) >= saveEvery {
			saved = time.Now()
			r.saveUse(ctx)
		}
	}
}

// lookAt takes what a container has used. Of an error nothing is concluded.
func (r *runner) lookAt(ctx context.Context, service int, run uint64) {
	if r.use.knows(service, run) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	id := Container(r.set.ID, r.set.Services[service].Name, run)
	st, err := r.m.cfg.Runtime.Status(ctx, id)
	if err != nil || st.StartedAt.IsZero() {
		return
	}
	u, err := r.m.cfg.Runtime.Usage(ctx, id)
	if err != nil {
		return
	}
	l := look{run: run, began: st.StartedAt, at: time.Now(), usage: u, network: st.Network}
	if st.State == container.Exited && !st.FinishedAt.IsZero() {
		l.over, l.at = true, st.FinishedAt
	}
	r.use.mu.Lock()
	defer r.use.mu.Unlock()
	r.use.histories[service].take(l)
}

// knows reports whether all is known of what a run used.
func (m *meter) knows(service int, run uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.histories[service]
	return h.Run > run || h.Run == run && h.Over
}

// saveUse makes durable what changed. What the store does not take now it is
// given the next time.
func (r *runner) saveUse(ctx context.Context) {
	r.use.store.Lock()
	defer r.use.store.Unlock()
	if r.use.over {
		return
	}
	var puts []Put
	r.use.mu.Lock()
	now := make([][]byte, len(r.use.histories))
	for i := range r.use.histories {
		b, err := json.Marshal(r.use.histories[i])
		if err == nil && r.use.histories[i].Run > 0 && !bytes.Equal(b, r.use.saved[i]) {
			puts = append(puts, Put{Key: useKey(r.set.ID, r.set.Services[i].Name), Value: b})
		}
		now[i] = b
	}
	r.use.mu.Unlock()
	if len(puts) == 0 {
		return
	}
	if err := r.m.cfg.Store.Apply(ctx, puts); err != nil {
		r.m.cfg.Log.Warn("services: what services used could not be stored", "set", r.set.ID, "error", err)
		return
	}
	r.use.saved = now
}

// endUse stores nothing from now on.
func (r *runner) endUse() {
	r.use.store.Lock()
	defer r.use.store.Unlock()
	r.use.over = true
}

// Metrics is what a service has used over time.
type Metrics struct {
	Service string
	// Run is the present or last container, 0 for none yet. Hits are those of
	// its limits, OOMKills its processes that were killed for memory.
	Run      uint64
	Hits     container.Hits
	OOMKills uint64
	// Recent is the last two hours in small steps, Life all since the set began
	// in steps that grow with it.
	Recent, Life Series
}

// Metrics returns what a service of a set has used or, for "", what each has, in
// the set's order. [container.CodeNotFound] when there is no such set or
// service.
func (m *Manager) Metrics(id, service string) ([]Metrics, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	r.use.mu.Lock()
	defer r.use.mu.Unlock()
	var out []Metrics
	for i, v := range r.set.Services {
		if service != "" && service != v.Name {
			continue
		}
		h := r.use.histories[i]
		h.Recent.Points, h.Life.Points = slices.Clone(h.Recent.Points), slices.Clone(h.Life.Points)
		out = append(out, Metrics{Service: v.Name, Run: h.Run, Hits: h.Hits, OOMKills: h.OOMKills, Recent: h.Recent, Life: h.Life})
	}
	if len(out) == 0 {
		return nil, &container.Error{Code: container.CodeNotFound, Detail: "service " + service}
	}
	return out, nil
}

// forgetUse is what takes the kept use of a set out of the store.
func (r *runner) forgetUse() []Put {
	var puts []Put
	for _, v := range r.set.Services {
		puts = append(puts, Put{Key: useKey(r.set.ID, v.Name)})
	}
	return puts
}

var errUse = errors.New("services: a series breaks its limits")

// check states what always holds of a series.
func (s Series) check(most int) error {
	if len(s.Points) > most || len(s.Points) > 0 && (s.Step < time.Second || s.Step%time.Second != 0 || s.First < 0) {
		return errUse
	}
	for _, p := range s.Points {
		if p.Seen > uint64(s.Step.Milliseconds()) || p.Seen == 0 && p != (Point{}) {
			return errUse
		}
	}
	return nil
}
