package services

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

const (
	inboxSize  = 64
	retryDelay = time.Second // after a failure of the store or the machine
	// A container is looked at often after its start, and then less.
	firstPoll = 10 * time.Millisecond
	maxPoll   = time.Second
	pollLimit = 10 * time.Second
)

// runner runs one set: one goroutine, fed by one channel of functions, owns all
// but what others may see. Of set all but the sizes is always so.
type runner struct {
	m     *Manager
	set   Set
	inbox chan func()
	gone  chan struct{} // closed when nothing is left

	saved   []byte  // the state as it is in the store
	pending []Event // those that the store did not take, oldest first
	works   []*work // one a service
	idle    []chan<- error
	change  *sizing // nil: none is under way
	ended   bool    // of run
	use     meter

	mu      sync.Mutex
	state   State
	present Set           // set, with the sizes that a container gets now
	most    Set           // with what it may have of the machine
	changed chan struct{} // closed and replaced at each change
}

// work is what is under way for one service: one thing at a time, besides a
// look at its health.
type work struct {
	queue   []Action
	cancel  context.CancelFunc // of what is under way; nil: nothing is
	looking bool
	every   time.Duration
	poll    time.Time
	failed  error // the last pause, if it failed
}

func newRunner(m *Manager, set Set) *runner {
	r := &runner{
		m: m, set: set, inbox: make(chan func(), inboxSize), gone: make(chan struct{}),
		state: NewState(set, time.Now()), present: set, most: set, changed: make(chan struct{}),
	}
	for range set.Services {
		r.works = append(r.works, &work{every: firstPoll})
	}
	r.use.histories, r.use.saved = make([]history, len(set.Services)), make([][]byte, len(set.Services))
	return r
}

// run is the set's goroutine.
func (r *runner) run(ctx context.Context) {
	r.perform(ctx, r.state.Recover())
	if r.change != nil {
		r.tell(ctx)
	}
	r.advance(ctx, Tick{})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !r.ended {
		select {
		case <-ctx.Done():
			return
		case f := <-r.inbox:
			f()
		case <-timer.C:
			r.advance(ctx, Tick{})
			r.pollDue(ctx)
			r.tryAgain()
		}
		timer.Reset(r.wait())
		if r.state.Ended() && len(r.pending) == 0 && !r.busy() {
			r.finish(ctx)
		}
	}
}

// tryAgain does what of a change has failed.
func (r *runner) tryAgain() {
	if c := r.change; c != nil && c.again != nil {
		again := c.again
		c.again = nil
		again()
	}
}

// busy reports whether anything is under way: volumes may be, after the end.
func (r *runner) busy() bool {
	return r.change != nil || slices.ContainsFunc(r.works, func(w *work) bool { return w.cancel != nil })
}

// finish removes the volumes, which no container has any more, and then the set
// itself: until they are gone it is there to try again [SERVICE-30].
func (r *runner) finish(ctx context.Context) {
	r.endUse()
	if err := r.removeVolumes(ctx); err != nil {
		r.m.cfg.Log.Warn("services: removing the volumes of a set", "set", r.set.ID, "error", err)
		return
	}
	if err := r.m.forget(ctx, r); err != nil {
		r.m.cfg.Log.Warn("services: forgetting a set", "set", r.set.ID, "error", err)
		return // again at the next tick
	}
	r.ended = true
	for _, done := range r.idle {
		done <- nil
	}
	close(r.gone)
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
}

// post hands a function to the set's goroutine.
func (r *runner) post(f func()) bool {
	select {
	case r.inbox <- f:
		return true
	case <-r.gone:
	case <-r.m.stopped:
	}
	return false
}

// call is post, and waits for an answer.
func (r *runner) call(ctx context.Context, done <-chan error, f func()) error {
	if r.post(f) {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-r.gone:
		case <-r.m.stopped:
			return errStopped
		}
	}
	select {
	case <-r.gone:
		return &container.Error{Code: container.CodeNotFound, Detail: r.set.ID}
	default:
		return errStopped
	}
}

// wait returns how long the goroutine may sleep.
func (r *runner) wait() time.Duration {
	if len(r.pending) > 0 {
		return retryDelay
	}
	now := time.Now()
	next := now.Add(maxPoll)
	if at := r.state.Next(); !at.IsZero() {
		next = earlier(next, at)
	}
	for i, w := range r.works {
		if w.cancel == nil && r.state.Services[i].Phase == Running {
			next = earlier(next, w.poll)
		}
	}
	return max(next.Sub(now), time.Millisecond)
}

// step takes an event in the set's goroutine.
func (r *runner) step(e Event) { r.advance(r.m.ctx, e) }

// advance takes an event: the new state is durable before anything is done
// [SERVICE-4]. What the store does not take now it is given again; meanwhile
// nothing else is taken, but what is to stand still stands still.
func (r *runner) advance(ctx context.Context, e Event) {
	if _, tick := e.(Tick); !tick || len(r.pending) == 0 {
		r.pending = append(r.pending, e)
	}
	for len(r.pending) > 0 {
		next, actions := r.state.Step(r.set, r.pending[0], time.Now())
		if err := r.save(ctx, next); err != nil {
			r.m.cfg.Log.Warn("services: the store takes nothing", "set", r.set.ID, "error", err)
			if _, freeze := e.(Freeze); freeze {
				_, actions = r.state.Step(r.set, e, time.Now())
				r.perform(ctx, slices.DeleteFunc(actions, func(a Action) bool { return a.Do != DoPause }))
			}
			return
		}
		r.pending = r.pending[1:]
		r.perform(ctx, actions)
	}
}

// save makes a state durable and then the present one.
func (r *runner) save(ctx context.Context, next State) error {
	b, err := json.Marshal(next.durable())
	if err != nil {
		return err
	}
	if !bytes.Equal(b, r.saved) {
		if err := r.m.cfg.Store.Apply(ctx, []Put{{Key: keyState + r.set.ID, Value: b}}); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.state.shows(next) {
		close(r.changed)
		r.changed = make(chan struct{})
	}
	r.saved, r.state = b, next
	return nil
}

// end begins the end of the set; what is being started is given up.
func (r *runner) end() {
	for i, w := range r.works {
		if w.cancel != nil && (r.state.Making || r.state.Services[i].Phase == Starting) {
			w.cancel()
		}
	}
	r.step(End{})
}

// perform puts actions in their services' queues.
func (r *runner) perform(ctx context.Context, actions []Action) {
	for _, a := range actions {
		w := r.works[a.Service]
		if a.Do == DoLook {
			r.look(ctx, a)
			continue
		}
		w.queue = append(w.queue, a)
		r.dispatch(ctx, a.Service)
	}
}

// dispatch begins the next thing that is to be done for a service.
func (r *runner) dispatch(ctx context.Context, i int) {
	w := r.works[i]
	if w.cancel != nil || len(w.queue) == 0 {
		r.tellIdle()
		return
	}
	a := w.queue[0]
	w.queue = w.queue[1:]
	if a.Do == DoStart {
		w.every = firstPoll
	}
	plain := r.state.Frozen || r.state.Ending && r.set.Services[i].StopGrace == 0
	r.background(ctx, w, func(ctx context.Context) Event { return r.do(ctx, a, plain) }, i)
}

// background runs one thing for a service beside the goroutine, and takes its
// answer in it.
func (r *runner) background(ctx context.Context, w *work, f func(context.Context) Event, i int) {
	own, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	r.m.wg.Go(func() {
		e := f(own)
		r.post(func() {
			cancel()
			w.cancel = nil
			w.poll = time.Now().Add(w.every)
			w.every = min(2*w.every, maxPoll)
			if e != nil {
				r.advance(ctx, e)
			}
			r.dispatch(ctx, i)
		})
	})
}

// pollDue looks at the containers whose turn it is.
func (r *runner) pollDue(ctx context.Context) {
	if len(r.pending) > 0 {
		return
	}
	now := time.Now()
	for i, w := range r.works {
		v := r.state.Services[i]
		switch {
		case w.cancel != nil || v.Phase != Running:
		case r.state.Frozen && w.failed != nil:
			r.perform(ctx, []Action{{DoPause, i, v.Run}})
		case !now.Before(w.poll):
			r.background(ctx, w, func(ctx context.Context) Event { return r.observe(ctx, i, v.Run) }, i)
		}
	}
}

func (r *runner) look(ctx context.Context, a Action) {
	w := r.works[a.Service]
	if w.looking {
		return
	}
	w.looking = true
	r.m.wg.Go(func() {
		e := r.check(ctx, a)
		r.post(func() {
			w.looking = false
			if ctx.Err() == nil {
				r.advance(ctx, e)
			}
		})
	})
}

// whenIdle answers once nothing is under way: nil, or why something does not
// stand still.
func (r *runner) whenIdle(done chan<- error) {
	r.idle = append(r.idle, done)
	r.tellIdle()
}

func (r *runner) tellIdle() {
	var failed error
	for _, w := range r.works {
		if w.cancel != nil || len(w.queue) > 0 {
			return
		}
		failed = errors.Join(failed, w.failed)
	}
	for _, done := range r.idle {
		done <- failed
	}
	r.idle = nil
}
