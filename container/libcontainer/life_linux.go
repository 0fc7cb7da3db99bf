//go:build cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Requests about a container's life.
const (
	opSignal = "signal"
	opUpdate = "update"
	opUsage  = "usage"
)

// killPatience is how long the kernel may take to end what got SIGKILL.
const killPatience = 10 * time.Second

// Signal sends a signal to a container's first process.
func (r *Runtime) Signal(ctx context.Context, id string, s container.Signal) error {
	if !s.Valid() {
		return &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf("signal %d", s)}
	}
	defer r.hold(id)()
	_, err := r.ask(ctx, id, request{Op: opSignal, Signal: s})
	return err
}

// Update changes a container's limits.
func (r *Runtime) Update(ctx context.Context, id string, l container.Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	defer r.hold(id)()
	_, err := r.ask(ctx, id, request{Op: opUpdate, Limits: &l})
	return err
}

// Usage reports what a container uses.
func (r *Runtime) Usage(ctx context.Context, id string) (container.Usage, error) {
	dir, err := r.find(ctx, id)
	if err != nil {
		return container.Usage{}, err
	}
	out, err := r.ask(ctx, id, request{Op: opUsage})
	if err == nil && out.Usage != nil {
		return *out.Usage, nil
	}
	var end exited
	if ended, rerr := readJSON(dir, exitFile, &end); rerr == nil && ended {
		return end.Usage, nil
	}
	if s, serr := status(dir, id); serr == nil && s.State != container.Running && s.State != container.Paused {
		return container.Usage{}, nil // not begun, or lost
	}
	return container.Usage{}, err
}

// ask sends one request to a container's monitor and returns its one answer.
func (r *Runtime) ask(ctx context.Context, id string, q request) (reply, error) {
	dir, _, err := r.running(ctx, id)
	if err != nil {
		return reply{}, err
	}
	c, done, err := call(ctx, dir, q)
	if err != nil {
		return reply{}, r.lost(ctx, id, err)
	}
	defer done()
	var out reply
	files, err := receive(c, &out)
	closeAll(files)
	if err != nil {
		return reply{}, r.lost(ctx, id, err)
	}
	return out, out.err()
}

// Stop ends a container, if it can by the signal that its image names
// [CONTAINER-71].
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	if grace < 0 || grace > container.MaxStopGrace {
		return &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf("grace of %v, not 0 to %v", grace, container.MaxStopGrace)}
	}
	dir, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	var rec record
	if ok, err := readJSON(dir, recordFile, &rec); err != nil || !ok {
		return container.Wrap(container.CodeNotRunning, id, errors.Join(err, errors.New("it has not begun")))
	}
	for _, turn := range []struct {
		signal container.Signal
		wait   time.Duration
	}{{container.StopSignalOf(rec.Image), grace}, {container.SIGKILL, killPatience}} {
		ended, err := r.stopBy(ctx, id, turn.signal, turn.wait)
		if ended || err != nil {
			return err
		}
	}
	return &container.Error{Code: container.CodeRuntime, Detail: id + " does not end"}
}

// stopBy sends a signal and reports whether the container ended in time.
func (r *Runtime) stopBy(ctx context.Context, id string, s container.Signal, wait time.Duration) (bool, error) {
	err := r.Signal(ctx, id, s)
	if err == nil {
		err = r.Resume(ctx, id)
	}
	if err != nil && !errors.Is(err, container.CodeNotRunning) && !errors.Is(err, container.CodeNotFound) {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	st, err := r.Wait(limited, id)
	switch {
	case errors.Is(err, container.CodeNotFound), err == nil && st.State == container.Exited:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case limited.Err() != nil:
		return false, nil
	case err != nil:
		return false, err
	}
	return false, &container.Error{Code: container.CodeNotRunning, Detail: id}
}

// handleLife serves the requests of this file.
func (m *monitor) handleLife(c *net.UnixConn, r request) {
	var out reply
	var err error
	switch r.Op {
	case opSignal:
		err = m.signal(r.Signal)
	case opUpdate:
		if r.Limits != nil {
			err = m.update(*r.Limits)
		}
	case opUsage:
		u := m.meter.usage()
		out.Usage = &u
	default:
		err = &container.Error{Code: container.CodeRuntime, Detail: "the monitor is of another version and does not know " + r.Op}
	}
	if err != nil {
		out.Code, out.Detail = container.CodeRuntime, err.Error()
		if e := (*container.Error)(nil); errors.As(err, &e) {
			out.Code, out.Detail = e.Code, e.Detail
			if e.Err != nil {
				out.Detail += ": " + e.Err.Error()
			}
		}
	}
	_ = send(c, out)
}

// signal reaches the first process and no other that has its number after it.
func (m *monitor) signal(s container.Signal) error {
	if s == container.SIGKILL && !dying(m.meter.pid) { // else it is not ours that ends it
		m.killed.Store(true)
	}
	if m.engine != nil {
		return m.signalEngine(s)
	}
	err := unix.PidfdSendSignal(m.pidfd, unix.Signal(s), nil, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return &container.Error{Code: container.CodeNotRunning, Detail: m.rec.Spec.ID}
	case err == nil && s == container.SIGKILL:
		return m.cgroups.thaw()
	}
	return err
}

// openMeter begins to watch the first process.
func (m *monitor) openMeter(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("watch the first process: %w", err)
	}
	m.pidfd = fd
	m.meter, err = newMeter(m, pid)
	return err
}

// ending is the program's end as it is recorded.
func (m *monitor) ending(exit *exitStatus) exited {
	m.meter.close()
	u := m.meter.usage()
	end := exited{At: time.Now(), Code: exit.code, OOMKilled: u.OOMKills > 0, CPUTime: u.CPUTime, Usage: u}
	switch {
	case exit.code < 0:
		end.End = container.EndLost
	case exit.signal == 0:
		end.End = container.EndExit
	case exit.signal == syscall.SIGKILL && m.destroyed.Load():
		end.End = container.EndDestroyed
	case exit.signal == syscall.SIGKILL && !m.killed.Load() && m.meter.victim():
		end.End = container.EndOOM
	default:
		end.End = container.EndSignal
	}
	return end
}

// endOf is an end as it was recorded, also by a monitor that did not write why.
func (e exited) endOf() container.End {
	switch {
	case e.End != container.NotEnded:
		return e.End
	case e.Code < 0:
		return container.EndLost
	case e.OOMKilled && e.Code == 128+int(unix.SIGKILL):
		return container.EndOOM
	case e.Code > 128 && e.Code <= 128+container.MaxSignal:
		return container.EndSignal
	}
	return container.EndExit
}
