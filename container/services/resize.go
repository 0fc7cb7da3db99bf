package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Sizes is what of a set may change while it goes on: the limits of services,
// and the sizes of volumes in bytes, by name. What is not named stays.
type Sizes struct {
	Limits  map[string]container.Limits
	Volumes map[string]uint64
}

// Resize changes the sizes of a set while its services go on, all of them or
// none, and returns once they hold: for what runs, and for what is started
// later. Where one is refused the others are as they were, other than disks and
// volumes that have grown already: they do not shrink. [Manager.Sets] tells
// what holds. When ctx ends first, or the process, the change is made all the
// same, or taken back.
//
// [container.CodeDoesNotFit] when a service uses more than a new limit,
// [container.CodeVolumeConflict] for a smaller volume, [container.CodeDiskFull];
// [container.CodeNotFound] when there is no such set or service,
// [container.CodeNoVolume] no such volume, and [container.CodeNotRunning] while
// the set is being made, ended, or resized already.
func (m *Manager) Resize(ctx context.Context, id string, to Sizes) error {
	r, err := m.find(id)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	return r.call(ctx, done, func() {
		if err := r.resize(m.ctx, to, done); err != nil {
			done <- err
		}
	})
}

// resized returns the set with other sizes.
func (s Set) resized(to Sizes) (Set, error) {
	s.Services, s.Volumes = slices.Clone(s.Services), slices.Clone(s.Volumes)
	for name, l := range to.Limits {
		i := s.index(name)
		if i < 0 {
			return s, &container.Error{Code: container.CodeNotFound, Detail: "service " + name}
		}
		s.Services[i].Limits = l
	}
	for name, size := range to.Volumes {
		i := slices.IndexFunc(s.Volumes, func(v Volume) bool { return v.Name == name })
		if i < 0 {
			return s, &container.Error{Code: container.CodeNoVolume, Detail: name}
		}
		if size < s.Volumes[i].SizeBytes {
			return s, &container.Error{Code: container.CodeVolumeConflict, Detail: name}
		}
		s.Volumes[i].SizeBytes = size
	}
	return s, s.Validate()
}

// larger returns a set with the larger of two sizes each: what both need.
func (s Set) larger(o Set) Set {
	s.Services, s.Volumes = slices.Clone(s.Services), slices.Clone(s.Volumes)
	for i := range s.Services {
		a, b := &s.Services[i].Limits, o.Services[i].Limits
		a.MilliCPU, a.MemoryBytes = max(a.MilliCPU, b.MilliCPU), max(a.MemoryBytes, b.MemoryBytes)
		a.DiskBytes, a.Pids = max(a.DiskBytes, b.DiskBytes), max(a.Pids, b.Pids)
	}
	for i := range s.Volumes {
		s.Volumes[i].SizeBytes = max(s.Volumes[i].SizeBytes, o.Volumes[i].SizeBytes)
	}
	return s
}

// sizing is a change of sizes under way. It is in the store, so that it is gone
// on with after a crash, from its beginning: all that it does is idempotent.
type sizing struct {
	before, next Set
	most         Set          // no more than so is in use until the end
	services     []int        // whose limits change
	disks        []uint64     // by service, as large as they have been made
	waits        int          // containers that are being told
	fault        error        // of one of them
	refused      error        // why next is what it was before, nil if it is not
	again        func()       // to do once more after a failure
	done         chan<- error // nil: nobody waits
}

func newSizing(before, next Set) *sizing {
	c := &sizing{before: before, next: next, most: before.larger(next), disks: make([]uint64, len(before.Services))}
	for i, v := range before.Services {
		if v.Limits != next.Services[i].Limits {
			c.services = append(c.services, i)
		}
	}
	return c
}

// sizes is the set with the sizes that a container gets now.
func (r *runner) sizes() Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.present
}

// holds is the set with the sizes that it has of the machine: of a change that
// is under way, what both need.
func (r *runner) holds() Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

func (r *runner) setSizes(present, most Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present, r.most = present, most
}

// resize begins a change, in the set's goroutine. Unless it returns an error,
// done hears of the end.
func (r *runner) resize(ctx context.Context, to Sizes, done chan<- error) error {
	before := r.sizes()
	next, err := before.resized(to)
	switch {
	case err != nil:
		return err
	case r.state.Ending, r.state.Making, r.change != nil:
		return &container.Error{Code: container.CodeNotRunning, Detail: "the set is being made, ended or resized"}
	}
	c := newSizing(before, next)
	if len(c.services) == 0 && slices.Equal(before.Volumes, next.Volumes) {
		done <- nil
		return nil
	}
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := r.m.cfg.Store.Apply(ctx, []Put{{Key: keySize + r.set.ID, Value: b}}); err != nil {
		return err
	}
	c.done, r.change = done, c
	r.tell(ctx)
	return nil
}

// tell gives the containers of the services that change the limits that are
// wanted.
func (r *runner) tell(ctx context.Context) {
	c := r.change
	r.setSizes(c.next, c.most)
	var actions []Action
	for _, i := range c.services {
		if run := r.state.Services[i].Run; run > 0 {
			actions = append(actions, Action{DoLimit, i, run})
		}
	}
	c.waits, c.fault = len(actions), nil
	r.perform(ctx, actions)
	if c.waits == 0 {
		r.told(ctx)
	}
}

// limit tells one container, beside the set's goroutine.
func (r *runner) limit(ctx context.Context, a Action, id string) {
	l := r.sizes().Services[a.Service].Limits
	err := r.m.cfg.Runtime.Update(ctx, id, l)
	if errors.Is(err, container.CodeNotRunning) || errors.Is(err, container.CodeNotFound) {
		err = nil // its next run has them
	}
	r.post(func() {
		c := r.change
		if c == nil {
			return
		}
		if err == nil {
			c.disks[a.Service] = l.DiskBytes
		} else if c.fault == nil {
			c.fault = fmt.Errorf("service %s: %w", r.set.Services[a.Service].Name, err)
		}
		if c.waits--; c.waits == 0 {
			r.told(r.m.ctx)
		}
	})
}

// told goes on once all containers have answered.
func (r *runner) told(ctx context.Context) {
	c := r.change
	switch {
	case c.fault != nil && c.refused != nil: // they held a moment ago: the machine is at fault
		r.m.cfg.Log.Warn("services: limits could not be taken back", "set", r.set.ID, "error", c.fault)
		c.again = func() { r.tell(ctx) }
	case c.fault != nil:
		r.takeBack(ctx, c.fault, c.before.Volumes)
	case c.refused == nil && !slices.Equal(c.before.Volumes, c.next.Volumes):
		r.m.wg.Go(func() {
			volumes, err := r.grow(ctx, c.before, c.next)
			r.post(func() {
				if err != nil {
					r.takeBack(ctx, err, volumes)
					return
				}
				r.commit(ctx)
			})
		})
	default:
		r.commit(ctx)
	}
}

// grow makes the volumes larger. Where it fails it returns how large they are.
func (r *runner) grow(ctx context.Context, before, next Set) ([]Volume, error) {
	runtime := r.m.cfg.Runtime.(container.Volumes) //nolint:forcetypeassert // Begin saw to it
	var more uint64
	for i, v := range next.Volumes {
		more += v.SizeBytes - before.Volumes[i].SizeBytes
	}
	err := runtime.CheckVolumes(ctx, more)
	for i := range next.Volumes {
		if err == nil {
			err = runtime.GrowVolume(ctx, next.volume(i))
		}
	}
	if err == nil {
		return next.Volumes, nil
	}
	have, lerr := runtime.Volumes(ctx, r.set.ID)
	if lerr != nil {
		return next.Volumes, errors.Join(err, lerr) // so large they are at most
	}
	out := slices.Clone(before.Volumes)
	for _, h := range have {
		for i, v := range out {
			if v.Name == h.Name {
				out[i].SizeBytes = max(v.SizeBytes, h.SizeBytes)
			}
		}
	}
	return out, err
}

// takeBack makes everything as it was, but for what has grown on a disk.
func (r *runner) takeBack(ctx context.Context, why error, volumes []Volume) {
	c := r.change
	c.next = c.before
	c.next.Services, c.next.Volumes = slices.Clone(c.before.Services), volumes
	for i, disk := range c.disks {
		l := &c.next.Services[i].Limits
		l.DiskBytes = max(l.DiskBytes, disk)
	}
	c.refused = why
	r.tell(ctx)
}

// commit makes the end of a change durable.
func (r *runner) commit(ctx context.Context) {
	c := r.change
	b, err := json.Marshal(c.next)
	if err == nil {
		err = r.m.cfg.Store.Apply(ctx, []Put{{Key: keySet + r.set.ID, Value: b}, {Key: keySize + r.set.ID}})
	}
	if err != nil {
		r.m.cfg.Log.Warn("services: the store takes nothing", "set", r.set.ID, "error", err)
		c.again = func() { r.commit(ctx) }
		return
	}
	r.change = nil
	r.setSizes(c.next, c.next)
	if c.done != nil {
		c.done <- c.refused
	}
}
