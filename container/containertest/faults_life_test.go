package containertest

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// lifeViolations are those of signals, limits, usage and ends.
var lifeViolations = map[string][]func(x *faulty){
	"signal": {func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			if s == usr2 && x.state(id) == container.Running {
				return nil
			}
			return x.Runtime.Signal(ctx, id, s)
		}
	}},
	"signal-paused": {func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			if s == usr2 && x.state(id) == container.Paused {
				return nil
			}
			return x.Runtime.Signal(ctx, id, s)
		}
	}, func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			if s == usr2 && x.state(id) == container.Paused {
				_ = x.Runtime.Resume(ctx, id)
			}
			return x.Runtime.Signal(ctx, id, s)
		}
	}},
	"signal-unhandled": {func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			if s == 1 {
				s = container.SIGKILL
			}
			return x.Runtime.Signal(ctx, id, s)
		}
	}},
	"signal-invalid": {func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			return nilFor(container.CodeInvalidSpec, x.Runtime.Signal(ctx, id, s))
		}
	}},
	"signal-exited": {func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			if strings.Contains(caller(), "signalExited") {
				return nilFor(container.CodeNotRunning, x.Runtime.Signal(ctx, id, s))
			}
			return x.Runtime.Signal(ctx, id, s)
		}
	}},
	"signal-kill-paused": {func(x *faulty) {
		x.signalFunc = func(ctx context.Context, id string, s container.Signal) error {
			if s == container.SIGKILL && x.state(id) == container.Paused {
				return nil
			}
			return x.Runtime.Signal(ctx, id, s)
		}
	}},
	"stop-ctx": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			err := x.Runtime.Stop(ctx, id, grace)
			if ctx.Err() != nil {
				_ = x.Runtime.Signal(context.WithoutCancel(ctx), id, container.SIGKILL)
				_ = x.Runtime.Stop(context.WithoutCancel(ctx), id, grace)
			}
			return err
		}
	}},
	"stop-term": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			if strings.Contains(caller(), "stopTerm") {
				return x.stopping(ctx, id, grace, container.SIGKILL)
			}
			return x.Runtime.Stop(ctx, id, grace)
		}
	}},
	"stop": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			return x.stopping(ctx, id, grace, container.SIGTERM)
		}
	}},
	"stop-kill": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			if !strings.Contains(caller(), "stopKill") {
				return x.Runtime.Stop(ctx, id, grace)
			}
			ctx2, cancel := context.WithTimeout(ctx, grace)
			defer cancel()
			err := x.Runtime.Stop(ctx2, id, container.MaxStopGrace)
			if ctx.Err() == nil && ctx2.Err() != nil {
				return nil
			}
			return err
		}
	}},
	"stop-thaws": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			if x.state(id) == container.Paused {
				return x.stopping(ctx, id, grace, container.SIGKILL)
			}
			return x.Runtime.Stop(ctx, id, grace)
		}
	}},
	"stop-returns": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			if !strings.Contains(caller(), "stopReturns") {
				return x.Runtime.Stop(ctx, id, grace)
			}
			time.AfterFunc(50*time.Millisecond, func() { _ = x.Runtime.Stop(ctx, id, grace) })
			return nil
		}
	}},
	"stop-exited": {func(x *faulty) {
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			if x.state(id) == container.Exited {
				return fail(container.CodeNotRunning, id)
			}
			return x.Runtime.Stop(ctx, id, grace)
		}
	}},
	"stop-alone": {func(x *faulty) {
		var one sync.Mutex
		x.stopFunc = func(ctx context.Context, id string, grace time.Duration) error {
			one.Lock()
			defer one.Unlock()
			return x.Runtime.Stop(ctx, id, grace)
		}
		x.destroyFn = func(ctx context.Context, id string) error {
			one.Lock()
			defer one.Unlock()
			return x.Runtime.Destroy(ctx, id)
		}
	}},
	"update": {
		func(x *faulty) {
			x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
				if id == trapped {
					return nil
				}
				return x.Runtime.Update(ctx, id, l)
			}
		},
		func(x *faulty) {
			x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
				if x.state(id) == container.Paused {
					return fail(container.CodeNotRunning, id)
				}
				return x.Runtime.Update(ctx, id, l)
			}
		},
		func(x *faulty) { // says so, and it does not hold
			x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
				if id != trapped {
					return x.Runtime.Update(ctx, id, l)
				}
				x.told(func(s *container.Status) {
					if s.ID == id {
						s.Limits = l
					}
				})
				return nil
			}
		},
	},
	"update-spec": {func(x *faulty) {
		first := map[string]container.Spec{}
		x.startFunc = func(ctx context.Context, s container.Spec) error {
			if s.ID != trapped {
				return x.Runtime.Start(ctx, s)
			}
			if old, ok := first[s.ID]; ok && old.Equal(s) && x.state(s.ID) == container.Running && strings.Contains(caller(), "updateSpec") {
				return nil
			}
			err := x.Runtime.Start(ctx, s)
			if err == nil {
				first[s.ID] = s
			}
			return err
		}
	}},
	"update-fit": {func(x *faulty) {
		x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
			if l.MemoryBytes == container.MinMemory {
				return nil
			}
			return x.Runtime.Update(ctx, id, l)
		}
	}, func(x *faulty) {
		x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
			if l.DiskBytes == container.MinDisk {
				return nil
			}
			return x.Runtime.Update(ctx, id, l)
		}
	}},
	"update-whole": {func(x *faulty) {
		x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
			err := x.Runtime.Update(ctx, id, l)
			if s, serr := x.Runtime.Status(ctx, id); serr == nil && err != nil && l.Validate() == nil {
				s.Limits.MilliCPU = l.MilliCPU
				_ = x.Runtime.Update(ctx, id, s.Limits)
			}
			return err
		}
	}, func(x *faulty) { // does not tell of it
		kept := map[string]container.Limits{}
		x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
			s, _ := x.Runtime.Status(ctx, id)
			err := x.Runtime.Update(ctx, id, l)
			if err != nil && l.Validate() == nil && l.Pids > s.Limits.Pids {
				kept[id] = s.Limits
				s.Limits.Pids = container.MaxPids
				_ = x.Runtime.Update(ctx, id, s.Limits)
			}
			return err
		}
		x.told(func(s *container.Status) {
			if l, ok := kept[s.ID]; ok {
				s.Limits = l
			}
		})
	}},
	"update-exited": {func(x *faulty) {
		x.updateFunc = func(ctx context.Context, id string, l container.Limits) error {
			if id == gone && strings.Contains(caller(), "updateExited") {
				return nil
			}
			return x.Runtime.Update(ctx, id, l)
		}
	}},
	"usage": {
		func(x *faulty) { x.counted(func(u *container.Usage) { u.CPUTime = 0 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.MemoryBytes /= 2 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.MemoryPeakBytes = 0 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.DiskBytes = 0 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.DiskSizeBytes = 0 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.WrittenBytes = 0 }) },
		func(x *faulty) {
			x.counted(func(u *container.Usage) {
				if strings.Contains(caller(), "usage") {
					u.PidsPeak = 0
				}
			})
		},
	},
	"usage-hits": {
		func(x *faulty) { x.counted(func(u *container.Usage) { u.Hits.CPU = 0 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.Hits.Memory = 0 }) },
		func(x *faulty) {
			x.counted(func(u *container.Usage) {
				if strings.Contains(caller(), "usageHits") {
					u.Hits.Pids = 0
				}
			})
		},
		func(x *faulty) { x.counted(func(u *container.Usage) { u.Hits.Disk = 0 }) },
		func(x *faulty) { x.counted(func(u *container.Usage) { u.OOMKills = 0 }) },
	},
	"usage-stays": {func(x *faulty) {
		x.usageFunc = func(ctx context.Context, id string) (container.Usage, error) {
			u, err := x.Runtime.Usage(ctx, id)
			if x.state(id) == container.Exited {
				u = container.Usage{}
			}
			return u, err
		}
	}},
	"end-exit": {func(x *faulty) {
		x.told(func(s *container.Status) {
			if s.ExitCode > 128 {
				s.End = container.EndSignal
			}
		})
	}},
	"end-signal": {func(x *faulty) {
		x.told(func(s *container.Status) {
			if s.End == container.EndSignal {
				s.End = container.EndOOM
			}
		})
	}},
	"end-oom": {func(x *faulty) {
		x.told(func(s *container.Status) {
			if s.End == container.EndOOM {
				s.End = container.EndSignal
			}
		})
	}, func(x *faulty) { x.told(func(s *container.Status) { s.OOMKilled = false }) }},
	"survives": {func(x *faulty) { // forgets what is not running
		reopened(x, func() {
			x.told(func(s *container.Status) {
				if s.State == container.Paused {
					s.State = container.Running
				}
			})
		})
	}, func(x *faulty) { // forgets what was updated
		reopened(x, func() {
			x.told(func(s *container.Status) { s.Limits = container.SmallLimits() })
		})
	}},
	"exit-code-known": {func(x *faulty) {
		reopened(x, func() {
			x.told(func(s *container.Status) {
				if s.End == container.EndExit && s.ExitCode == 9 {
					s.ExitCode, s.End = -1, container.EndLost
				}
			})
		})
	}},
	"destroy": {func(x *faulty) { // forgets it, and lets it run
		hidden := map[string]bool{}
		x.destroyFn = func(ctx context.Context, id string) error {
			if !strings.Contains(caller(), "destroy") {
				return x.Runtime.Destroy(ctx, id)
			}
			hidden[id] = true
			return nil
		}
		x.statusFunc = func(ctx context.Context, id string) (container.Status, error) {
			if hidden[id] {
				return container.Status{}, fail(container.CodeNotFound, id)
			}
			return x.Runtime.Status(ctx, id)
		}
	}},
	"destroy-idempotent": {func(x *faulty) {
		x.destroyFn = func(ctx context.Context, id string) error {
			if x.state(id) == 0 {
				return fail(container.CodeNotFound, id)
			}
			return x.Runtime.Destroy(ctx, id)
		}
	}},
	"destroy-removes": {func(x *faulty) {
		x.f.Left = func() []string { return []string{"/dev/loop7"} }
	}},
}

// reopened calls f when the runtime was opened again.
func reopened(x *faulty, f func()) {
	reopen := x.f.Reopen
	x.f.Reopen = func(meanwhile func()) (container.Runtime, error) {
		rt, err := reopen(meanwhile)
		f()
		return rt, err
	}
}

// caller names the functions of the kit that led here: a fault that many checks
// would meet is held back for the one that is to find it.
func caller() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	var names []string
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if strings.Contains(f.Function, "(*kit)") {
			names = append(names, f.Function)
		}
	}
	return strings.Join(names, " ")
}
