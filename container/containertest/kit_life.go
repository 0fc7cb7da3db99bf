package containertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// usr2 is what Trap answers with a line.
const usr2 container.Signal = 12

func (k *kit) signal(ctx context.Context) error {
	if err := k.begin(ctx, trapped, k.f.Trap, "ready"); err != nil {
		return err
	}
	if err := k.rt.Signal(ctx, trapped, usr2); err != nil {
		return err
	}
	return k.within(ctx, trapped, "usr2", 1)
}

// within is wrote, for what a faulty runtime would never do.
func (k *kit) within(ctx context.Context, id, line string, n int) error {
	return soon(line, func() error { return k.wrote(ctx, id, line, n) })
}

func (k *kit) signalPaused(ctx context.Context) error {
	if err := k.rt.Pause(ctx, trapped); err != nil {
		return err
	}
	if err := k.rt.Signal(ctx, trapped, usr2); err != nil {
		return err
	}
	if err := k.is(ctx, trapped, container.Paused); err != nil {
		return err
	}
	if err := k.rt.Resume(ctx, trapped); err != nil {
		return err
	}
	return k.within(ctx, trapped, "usr2", 2)
}

func (k *kit) signalUnhandled(ctx context.Context) error {
	const hangup container.Signal = 1
	if err := k.rt.Signal(ctx, trapped, hangup); err != nil {
		return err
	}
	if err := k.rt.Signal(ctx, trapped, usr2); err != nil {
		return err
	}
	return k.within(ctx, trapped, "usr2", 3) // and so it lives
}

func (k *kit) signalInvalid(ctx context.Context) error {
	return errors.Join(refused("signal 0", k.rt.Signal(ctx, trapped, 0), container.CodeInvalidSpec),
		refused("signal 65", k.rt.Signal(ctx, trapped, container.MaxSignal+1), container.CodeInvalidSpec))
}

func (k *kit) signalExited(ctx context.Context) error {
	return refused("Signal", k.rt.Signal(ctx, gone, container.SIGTERM), container.CodeNotRunning)
}

func (k *kit) signalKill(ctx context.Context) error {
	if err := k.rt.Pause(ctx, trapped); err != nil {
		return err
	}
	if err := k.rt.Signal(ctx, trapped, container.SIGKILL); err != nil {
		return err
	}
	if err := soon("SIGKILL", func() error { _, err := k.exited(ctx, trapped); return err }); err != nil {
		return err
	}
	return k.rt.Destroy(ctx, trapped)
}

func (k *kit) stopCtx(ctx context.Context) error {
	if err := k.begin(ctx, trapped, k.f.Serve, "serving"); err != nil {
		return err
	}
	brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := k.rt.Stop(brief, trapped, container.MaxStopGrace); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("got %w", err)
	}
	if err := k.is(ctx, trapped, container.Running); err != nil {
		return err
	}
	return k.rt.Destroy(ctx, trapped)
}

// stopped starts Trap, stops it, and wants an exit code.
func (k *kit) stopped(ctx context.Context, image string, before func(context.Context, string) error, want int) error {
	s := k.spec(trapped, k.f.Trap)
	s.Image = image
	if err := k.beginSpec(ctx, s, "ready"); err != nil {
		return err
	}
	if before != nil {
		if err := before(ctx, trapped); err != nil {
			return err
		}
	}
	if err := k.rt.Stop(ctx, trapped, patience); err != nil {
		return err
	}
	st, err := k.exited(ctx, trapped)
	if err == nil && st.ExitCode != want {
		err = fmt.Errorf("got %+v, want exit code %d", st, want)
	}
	return errors.Join(err, k.rt.Destroy(ctx, trapped))
}

func (k *kit) stop(ctx context.Context) error     { return k.stopped(ctx, k.quit.Digest, nil, 6) }
func (k *kit) stopTerm(ctx context.Context) error { return k.stopped(ctx, k.image.Digest, nil, 5) }
func (k *kit) stopThaws(ctx context.Context) error {
	return k.stopped(ctx, k.image.Digest, k.rt.Pause, 5)
}

func (k *kit) stopKill(ctx context.Context) error {
	if err := k.begin(ctx, trapped, k.f.Serve, "serving"); err != nil {
		return err
	}
	if err := soon("Stop", func() error { return k.rt.Stop(ctx, trapped, 50*time.Millisecond) }); err != nil {
		return err
	}
	if err := soon("the end", func() error { _, err := k.exited(ctx, trapped); return err }); err != nil {
		return err
	}
	return k.rt.Destroy(ctx, trapped)
}

func (k *kit) stopReturns(ctx context.Context) error {
	if err := k.begin(ctx, trapped, k.f.Trap, "ready"); err != nil {
		return err
	}
	if err := k.rt.Stop(ctx, trapped, patience); err != nil {
		return err
	}
	return k.is(ctx, trapped, container.Exited)
}

func (k *kit) stopExited(ctx context.Context) error {
	if err := k.rt.Stop(ctx, trapped, 0); err != nil {
		return err
	}
	st, err := k.rt.Status(ctx, trapped)
	if err == nil && st.ExitCode != 5 {
		err = fmt.Errorf("got %+v, want the exit code as it was", st)
	}
	return errors.Join(err, k.rt.Destroy(ctx, trapped))
}

func (k *kit) stopAlone(ctx context.Context) error {
	for try := 0; ; try++ {
		if err := k.begin(ctx, trapped, k.f.Serve, "serving"); err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- k.rt.Stop(ctx, trapped, container.MaxStopGrace) }()
		time.Sleep(50 * time.Millisecond)
		if err := soon("a call beside Stop", func() error {
			return errors.Join(k.rt.Pause(ctx, trapped), k.rt.Resume(ctx, trapped), k.rt.Destroy(ctx, trapped))
		}); err != nil {
			return err
		}
		err := soon("Stop of what was destroyed", func() error { return <-done })
		if try == 5 || !errors.Is(err, container.CodeNotFound) {
			return err
		} // it had not begun yet: this machine is slow
	}
}

// entering are what a runtime itself may have inside, while it brings a program
// there: the kernel refuses new processes, and not those that move in.
const entering = 16

// held is memory in use, and between the least limit and the kit's.
func (k *kit) held() uint64 { return (container.MinMemory + k.f.Limits.MemoryBytes/2) / 2 }

func (k *kit) update(ctx context.Context) error {
	if err := k.begin(ctx, trapped, k.f.Hold(k.held()), "holding"); err != nil {
		return err
	}
	for i, change := range []func(context.Context, string) error{k.rt.Resume, k.rt.Pause} {
		l := k.f.Limits
		l.MilliCPU, l.MemoryBytes = l.MilliCPU+100+uint64(i), l.MemoryBytes+8<<20
		if !k.f.OwnPids {
			l.Pids += uint64(i) + 1
		}
		if err := errors.Join(change(ctx, trapped), k.rt.Update(ctx, trapped, l)); err != nil {
			return err
		}
		if err := k.limits(ctx, l); err != nil {
			return err
		}
	}
	if err := k.rt.Resume(ctx, trapped); err != nil {
		return err
	}
	// What the program notices of it.
	l := k.f.Limits
	l.Pids = container.MinPids
	if k.f.OwnPids {
		return k.updateAllButPids(ctx)
	}
	if err := k.rt.Update(ctx, trapped, l); err != nil {
		return err
	}
	if err := k.fork(ctx); err != nil {
		return err
	}
	u, err := k.rt.Usage(ctx, trapped)
	if err == nil && (u.PidsPeak > l.Pids+entering || u.Hits.Pids == 0) {
		err = fmt.Errorf("got %+v, want at most %d processes, and more refused", u, l.Pids)
	}
	return err
}

// updateAllButPids leaves limits that are not the fixture's, too.
func (k *kit) updateAllButPids(ctx context.Context) error {
	l := k.f.Limits
	l.MilliCPU += 50
	more := l
	more.Pids++
	return errors.Join(k.rt.Update(ctx, trapped, l),
		refused("more processes", k.rt.Update(ctx, trapped, more), container.CodeMissingFeature), k.limits(ctx, l))
}

func (k *kit) limits(ctx context.Context, want container.Limits) error {
	st, err := k.rt.Status(ctx, trapped)
	if err == nil && st.Limits != want {
		err = fmt.Errorf("got limits %+v, want %+v", st.Limits, want)
	}
	return err
}

func (k *kit) updateSpec(ctx context.Context) error {
	st, err := k.rt.Status(ctx, trapped)
	if err != nil {
		return err
	}
	s := k.spec(trapped, k.f.Hold(k.held()))
	if err := refused("Start with the limits that were", k.rt.Start(ctx, s), container.CodeConflict); err != nil {
		return err
	}
	s.Limits = st.Limits
	return k.rt.Start(ctx, s)
}

func (k *kit) updateFit(ctx context.Context) error {
	st, err := k.rt.Status(ctx, trapped)
	if err != nil {
		return err
	}
	small, tight, invalid := st.Limits, st.Limits, st.Limits
	small.DiskBytes = container.MinDisk
	tight.MemoryBytes = container.MinMemory
	invalid.Pids = 0
	return errors.Join(
		refused("a smaller disk", k.rt.Update(ctx, trapped, small), container.CodeDoesNotFit),
		refused("less memory than is in use", k.rt.Update(ctx, trapped, tight), container.CodeDoesNotFit),
		refused("no limit", k.rt.Update(ctx, trapped, invalid), container.CodeInvalidSpec))
}

// updateWhole changes one limit that may be changed together with one that may
// not.
func (k *kit) updateWhole(ctx context.Context) error {
	st, err := k.rt.Status(ctx, trapped)
	if err != nil {
		return err
	}
	for _, fault := range []func(*container.Limits){
		func(l *container.Limits) { l.DiskBytes = container.MinDisk },
		func(l *container.Limits) { l.MemoryBytes = container.MinMemory },
	} {
		l := st.Limits
		l.MilliCPU += 50
		if !k.f.OwnPids {
			l.Pids += 50
		}
		fault(&l)
		if err := refused("Update", k.rt.Update(ctx, trapped, l), container.CodeDoesNotFit); err != nil {
			return err
		}
		if err := k.limits(ctx, st.Limits); err != nil {
			return err
		}
	}
	if k.f.OwnPids {
		return k.rt.Destroy(ctx, trapped)
	}
	// It holds, and is not only said.
	before, err := k.rt.Usage(ctx, trapped)
	if err != nil {
		return err
	}
	if err := k.fork(ctx); err != nil {
		return err
	}
	after, err := k.rt.Usage(ctx, trapped)
	if err == nil && (after.PidsPeak > st.Limits.Pids+entering || after.Hits.Pids <= before.Hits.Pids) {
		err = fmt.Errorf("got %+v, want no more than %d processes", after, st.Limits.Pids)
	}
	return errors.Join(err, k.rt.Destroy(ctx, trapped))
}

func (k *kit) updateExited(ctx context.Context) error {
	return refused("Update", k.rt.Update(ctx, gone, k.f.Limits), container.CodeNotRunning)
}

// fork runs Fork, which needs a process itself.
func (k *kit) fork(ctx context.Context) error {
	return until(patience, func() error {
		_, err := k.rt.Exec(ctx, trapped, container.ExecSpec{Args: k.f.Fork})
		return err
	})
}
