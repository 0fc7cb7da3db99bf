package containertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// faulty is a twin of which single calls are replaced. It goes on being so when
// it is opened again.
type faulty struct {
	container.Runtime
	f *Fixture

	pullFunc   func(ctx context.Context, ref string, o container.PullOptions) (container.Image, error)
	startFunc  func(ctx context.Context, s container.Spec) error
	statusFunc func(ctx context.Context, id string) (container.Status, error)
	listFunc   func(ctx context.Context) ([]container.Status, error)
	usageFunc  func(ctx context.Context, id string) (container.Usage, error)
	pauseFunc  func(ctx context.Context, id string) error
	resumeFunc func(ctx context.Context, id string) error
	updateFunc func(ctx context.Context, id string, l container.Limits) error
	signalFunc func(ctx context.Context, id string, s container.Signal) error
	stopFunc   func(ctx context.Context, id string, grace time.Duration) error
	execFunc   func(ctx context.Context, id string, e container.ExecSpec) (int, error)
	logsFunc   func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error)
	dialFunc   func(ctx context.Context, id string, port uint16) (net.Conn, error)
	destroyFn  func(ctx context.Context, id string) error
}

func newFaulty(twin *Twin, f *Fixture) *faulty {
	x := &faulty{Runtime: twin, f: f}
	x.pullFunc, x.startFunc, x.statusFunc, x.listFunc, x.usageFunc = twin.Pull, twin.Start, twin.Status, twin.List, twin.Usage
	x.pauseFunc, x.resumeFunc, x.updateFunc, x.signalFunc, x.stopFunc = twin.Pause, twin.Resume, twin.Update, twin.Signal, twin.Stop
	x.execFunc, x.logsFunc, x.dialFunc, x.destroyFn = twin.Exec, twin.Logs, twin.Dial, twin.Destroy
	reopen := f.Reopen
	f.Reopen = func(meanwhile func()) (container.Runtime, error) {
		_, err := reopen(meanwhile)
		return x, err
	}
	return x
}

func (x *faulty) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	return x.pullFunc(ctx, ref, o)
}
func (x *faulty) Start(ctx context.Context, s container.Spec) error { return x.startFunc(ctx, s) }
func (x *faulty) Status(ctx context.Context, id string) (container.Status, error) {
	return x.statusFunc(ctx, id)
}
func (x *faulty) List(ctx context.Context) ([]container.Status, error) { return x.listFunc(ctx) }
func (x *faulty) Usage(ctx context.Context, id string) (container.Usage, error) {
	return x.usageFunc(ctx, id)
}
func (x *faulty) Pause(ctx context.Context, id string) error  { return x.pauseFunc(ctx, id) }
func (x *faulty) Resume(ctx context.Context, id string) error { return x.resumeFunc(ctx, id) }
func (x *faulty) Update(ctx context.Context, id string, l container.Limits) error {
	return x.updateFunc(ctx, id, l)
}

func (x *faulty) Signal(ctx context.Context, id string, s container.Signal) error {
	return x.signalFunc(ctx, id, s)
}

func (x *faulty) Stop(ctx context.Context, id string, grace time.Duration) error {
	return x.stopFunc(ctx, id, grace)
}

func (x *faulty) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	return x.execFunc(ctx, id, e)
}

func (x *faulty) Logs(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
	return x.logsFunc(ctx, id, o)
}

func (x *faulty) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	return x.dialFunc(ctx, id, port)
}
func (x *faulty) Destroy(ctx context.Context, id string) error { return x.destroyFn(ctx, id) }

// state is what the twin says, whatever the fault.
func (x *faulty) state(id string) container.State {
	s, _ := x.Runtime.Status(context.Background(), id)
	return s.State
}

// lazy pauses and resumes nothing.
func (x *faulty) lazy(ctx context.Context, id string) error {
	_, err := x.Runtime.Status(ctx, id)
	return err
}

// stopping is a Stop made of the other calls, for faults in it.
func (x *faulty) stopping(ctx context.Context, id string, grace time.Duration, s container.Signal) error {
	if err := x.Runtime.Signal(ctx, id, s); err != nil {
		return x.Runtime.Stop(ctx, id, grace)
	}
	_ = x.Runtime.Resume(ctx, id)
	for deadline := time.Now().Add(grace); x.state(id) == container.Running; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return x.Runtime.Stop(ctx, id, 0)
		}
	}
	return nil
}

// edited changes a whole log; it cannot follow.
func (x *faulty) edited(edit func(lines [][]byte) [][]byte) {
	x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
		r, err := x.Runtime.Logs(ctx, id, o)
		if err != nil || o.Follow {
			return r, err
		}
		b, err := io.ReadAll(r)
		return io.NopCloser(bytes.NewReader(bytes.Join(edit(slices.Collect(bytes.Lines(b))), nil))), err
	}
}

// counted changes what Usage says of one that runs.
func (x *faulty) counted(change func(*container.Usage)) {
	x.usageFunc = func(ctx context.Context, id string) (container.Usage, error) {
		u, err := x.Runtime.Usage(ctx, id)
		change(&u)
		return u, err
	}
}

// told changes what Status says.
func (x *faulty) told(change func(*container.Status)) {
	x.statusFunc = func(ctx context.Context, id string) (container.Status, error) {
		s, err := x.Runtime.Status(ctx, id)
		change(&s)
		return s, err
	}
}

// onlyOnce makes the second call at a time fail.
func onlyOnce() (enter func() error, leave func()) {
	var inside atomic.Int32
	return func() error {
			if inside.Add(1) > 1 {
				return fail(container.CodeConflict, "one at a time")
			}
			time.Sleep(time.Millisecond)
			return nil
		}, func() {
			inside.Add(-1)
		}
}

func nilFor(code container.Code, err error) error {
	if errors.Is(err, code) {
		return nil
	}
	return err
}

// violations are broken runtimes by the promise that each breaks. A promise may
// have several.
var violations = map[string][]func(x *faulty){
	"pull": {func(x *faulty) {
		x.pullFunc = func(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
			img, err := x.Inspect(ctx, ref, o) // and leaves it where it is
			return img, err
		}
	}},
	"pull-idempotent": {func(x *faulty) {
		seen := map[string]bool{}
		x.pullFunc = func(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
			if seen[ref] {
				return container.Image{}, fail(container.CodeConflict, ref)
			}
			seen[ref] = true
			return x.Runtime.Pull(ctx, ref, o)
		}
	}},
	"pull-verifies": {func(x *faulty) {
		x.pullFunc = func(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
			img, err := x.Runtime.Pull(ctx, ref, o)
			return img, nilFor(container.CodeDigestMismatch, err)
		}
	}},
	"pull-atomic": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			if s.Image == x.f.BadDigest {
				return nil
			}
			return x.Runtime.Start(ctx, s)
		}
	}},
	"pull-bytes": {func(x *faulty) {
		x.pullFunc = func(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
			o.MaxBytes = 0
			return x.Runtime.Pull(ctx, ref, o)
		}
	}},
	"pull-progress": {func(x *faulty) {
		x.pullFunc = func(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
			o.Progress = nil
			return x.Runtime.Pull(ctx, ref, o)
		}
	}},
	"start": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			if s.ID == serving {
				s.Args = x.f.Exit(0)
			}
			return x.Runtime.Start(ctx, s)
		}
	}},
	"status": {
		func(x *faulty) { x.told(func(s *container.Status) { s.Image = "" }) },
		func(x *faulty) { x.told(func(s *container.Status) { s.StartedAt = time.Time{} }) },
		func(x *faulty) { x.told(func(s *container.Status) { s.Limits = container.Limits{} }) },
	},
	"start-idempotent": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			if x.state(s.ID) == container.Running {
				return fail(container.CodeConflict, s.ID)
			}
			return x.Runtime.Start(ctx, s)
		}
	}},
	"start-conflict": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			return nilFor(container.CodeConflict, x.Runtime.Start(ctx, s))
		}
	}},
	"start-entrypoint": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			s.Entrypoint = false
			return x.Runtime.Start(ctx, s)
		}
	}, func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			s.Entrypoint = true
			return x.Runtime.Start(ctx, s)
		}
	}},
	"failure-changes-nothing": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			err := x.Runtime.Start(ctx, s)
			if errors.Is(err, container.CodeConflict) {
				_ = x.Runtime.Pause(ctx, s.ID)
			}
			return err
		}
	}},
	"failed-start": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			err := x.Runtime.Start(ctx, s)
			if errors.Is(err, container.CodeProgram) {
				s.Args = x.f.Exit(0)
				_ = x.Runtime.Start(ctx, s)
			}
			return err
		}
	}},
	"start-interrupted": {func(x *faulty) {
		half := map[string]bool{}
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			if half[s.ID] {
				return fail(container.CodeConflict, s.ID)
			}
			err := x.Runtime.Start(ctx, s)
			half[s.ID] = err != nil && ctx.Err() != nil
			return err
		}
	}},
	"start-after-exit": {func(x *faulty) {
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			if x.state(s.ID) == container.Exited {
				_ = x.Runtime.Destroy(ctx, s.ID)
			}
			return x.Runtime.Start(ctx, s)
		}
	}},
	"typed-errors": {func(x *faulty) {
		x.pauseFunc = func(ctx context.Context, id string) error {
			if err := x.Runtime.Pause(ctx, id); errors.Is(err, container.CodeNotFound) {
				return container.CodeNotFound
			} else {
				return err
			}
		}
	}},
	"not-found": {func(x *faulty) {
		x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
			r, err := x.Runtime.Logs(ctx, id, o)
			if errors.Is(err, container.CodeNotFound) {
				return io.NopCloser(strings.NewReader("")), nil
			}
			return r, err
		}
	}, func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			if err := x.Runtime.Stop(ctx, id, grace); !errors.Is(err, container.CodeNotFound) {
				return err
			}
			return fail(container.CodeNotRunning, id)
		}
	}},
	"list": {func(x *faulty) {
		x.listFunc = func(ctx context.Context) ([]container.Status, error) {
			all, err := x.Runtime.List(ctx)
			return slices.DeleteFunc(all, func(s container.Status) bool { return s.State == container.Exited }), err
		}
	}},
	"list-order": {func(x *faulty) {
		x.listFunc = func(ctx context.Context) ([]container.Status, error) {
			all, err := x.Runtime.List(ctx)
			slices.Reverse(all)
			return all, err
		}
	}},
	"dial": {func(x *faulty) {
		x.dialFunc = func(ctx context.Context, id string, port uint16) (net.Conn, error) {
			c, err := x.Runtime.Dial(ctx, id, port)
			if err != nil {
				return nil, err
			}
			_ = c.Close()
			mine, theirs := net.Pipe()
			_ = theirs.Close()
			return mine, nil
		}
	}},
	"dial-refused": {func(x *faulty) {
		x.dialFunc = func(ctx context.Context, id string, port uint16) (net.Conn, error) {
			c, err := x.Runtime.Dial(ctx, id, port)
			if errors.Is(err, container.CodePortRefused) {
				err = fail(container.CodeRuntime, id)
			}
			return c, err
		}
	}},
}

// Inspect is the twin's.
func (x *faulty) Inspect(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	return x.Runtime.(*Twin).Inspect(ctx, ref, o)
}

func init() {
	maps.Copy(violations, execViolations)
	maps.Copy(violations, lifeViolations)
	maps.Copy(violations, logViolations)
}

// logViolations are those of logs.
var logViolations = map[string][]func(x *faulty){
	"logs": {func(x *faulty) {
		x.edited(func(lines [][]byte) [][]byte {
			for i, l := range lines {
				if bytes.Contains(l, []byte(" stderr ")) { // all in one stream
					lines[i] = bytes.Replace(l, []byte(" stderr "), []byte(" stdout "), 1)
				}
			}
			return lines
		})
	}},
	"logs-order": {func(x *faulty) {
		x.edited(func(lines [][]byte) [][]byte { slices.Reverse(lines); return lines })
	}},
	"logs-end": {func(x *faulty) {
		x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
			// Beside what the checks before this one look for.
			o.Follow = o.Follow || id == serving && strings.Contains(caller(), "logsEnd")
			return x.Runtime.Logs(ctx, id, o)
		}
	}},
	"logs-follow": {
		func(x *faulty) {
			x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
				o.Follow = o.Follow && !strings.Contains(caller(), "logsFollow")
				return x.Runtime.Logs(ctx, id, o)
			}
		},
		func(x *faulty) { // does not notice the end
			x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
				r, err := x.Runtime.Logs(ctx, id, o)
				if err != nil || !o.Follow || !strings.Contains(caller(), "logsFollow") {
					return r, err
				}
				return endless{r, ctx}, nil
			}
		},
	},
	"logs-ctx": {func(x *faulty) {
		x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
			return x.Runtime.Logs(context.WithoutCancel(ctx), id, o)
		}
	}},
	"logs-since": {func(x *faulty) {
		x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
			if !o.Since.IsZero() {
				o.Since = o.Since.Add(1)
			}
			return x.Runtime.Logs(ctx, id, o)
		}
	}, func(x *faulty) {
		x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
			o.Since = time.Time{}
			return x.Runtime.Logs(ctx, id, o)
		}
	}},
	"logs-tail": {func(x *faulty) {
		x.logsFunc = func(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
			o.Tail = 0
			return x.Runtime.Logs(ctx, id, o)
		}
	}},
}

type endless struct {
	io.ReadCloser
	ctx context.Context
}

func (e endless) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		<-e.ctx.Done()
	}
	return n, err
}

// execViolations are those of Exec, Pause and of calls beside each other.
var execViolations = map[string][]func(x *faulty){
	"exec": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			e.Env = nil
			return x.Runtime.Exec(ctx, id, e)
		}
	}},
	"exec-code": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			code, err := x.Runtime.Exec(ctx, id, e)
			return min(code, 1), err
		}
	}},
	"exec-files": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			if e.Files && len(e.Args) == 0 {
				return 0, nil
			}
			return x.Runtime.Exec(ctx, id, e)
		}
	}},
	"exec-missing": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			code, err := x.Runtime.Exec(ctx, id, e)
			if code == 127 {
				code, err = -1, fail(container.CodeProgram, id)
			}
			return code, err
		}
	}},
	"exec-output": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			if out := e.Stdout; out != nil {
				e.Stdout = &short{w: out, left: 64 << 10}
			}
			return x.Runtime.Exec(ctx, id, e)
		}
	}},
	"exec-limits": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			if len(e.Args) > 0 && e.Args[0] == x.f.Exhaust[0] {
				return 0, nil
			}
			return x.Runtime.Exec(ctx, id, e)
		}
	}},
	"exec-ctx": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			return x.Runtime.Exec(context.WithoutCancel(ctx), id, e)
		}
	}, func(x *faulty) { // leaves the program
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			type result struct {
				code int
				err  error
			}
			done := make(chan result, 1)
			go func() {
				code, err := x.Runtime.Exec(context.WithoutCancel(ctx), id, e)
				done <- result{code, err}
			}()
			select {
			case r := <-done:
				return r.code, r.err
			case <-ctx.Done():
				return -1, ctx.Err()
			}
		}
	}},
	"no-waiting": {func(x *faulty) {
		var one sync.Mutex
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			one.Lock()
			defer one.Unlock()
			return x.Runtime.Exec(ctx, id, e)
		}
		x.destroyFn = func(ctx context.Context, id string) error {
			one.Lock()
			defer one.Unlock()
			return x.Runtime.Destroy(ctx, id)
		}
	}},
	"turns": {func(x *faulty) {
		enter, leave := onlyOnce()
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			defer leave()
			return cmp.Or(enter(), x.Runtime.Start(ctx, s))
		}
	}},
	"at-once": {func(x *faulty) {
		enter, leave := onlyOnce()
		x.destroyFn = func(ctx context.Context, id string) error {
			defer leave()
			return cmp.Or(enter(), x.Runtime.Destroy(ctx, id))
		}
	}},
	"pause": {
		func(x *faulty) { x.pauseFunc = x.lazy },
		func(x *faulty) { // says so, and does not
			x.pauseFunc = func(ctx context.Context, id string) error {
				if id != serving {
					return x.Runtime.Pause(ctx, id)
				}
				x.told(func(s *container.Status) { s.State = container.Paused })
				return nil
			}
		},
	},
	"exec-paused": {func(x *faulty) {
		x.execFunc = func(ctx context.Context, id string, e container.ExecSpec) (int, error) {
			if x.state(id) == container.Paused {
				return 0, nil
			}
			return x.Runtime.Exec(ctx, id, e)
		}
	}},
	"resume": {func(x *faulty) { x.resumeFunc = x.lazy }},
	"pause-idempotent": {func(x *faulty) {
		x.pauseFunc = func(ctx context.Context, id string) error {
			if x.state(id) == container.Paused {
				return fail(container.CodeNotRunning, id)
			}
			return x.Runtime.Pause(ctx, id)
		}
	}, func(x *faulty) {
		x.resumeFunc = func(ctx context.Context, id string) error {
			if x.state(id) == container.Running {
				return fail(container.CodeConflict, id)
			}
			return x.Runtime.Resume(ctx, id)
		}
	}},
	"pause-exited": {func(x *faulty) {
		x.pauseFunc = func(ctx context.Context, id string) error {
			return nilFor(container.CodeNotRunning, x.Runtime.Pause(ctx, id))
		}
	}, func(x *faulty) {
		x.resumeFunc = func(ctx context.Context, id string) error {
			return nilFor(container.CodeNotRunning, x.Runtime.Resume(ctx, id))
		}
	}},
}

type short struct {
	w    io.Writer
	left int
}

func (s *short) Write(p []byte) (int, error) {
	n := min(len(p), s.left)
	s.left -= n
	_, err := s.w.Write(p[:n])
	return len(p), err
}
