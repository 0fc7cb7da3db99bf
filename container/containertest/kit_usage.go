package containertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

func (k *kit) usage(ctx context.Context) error {
	if err := k.begin(ctx, trapped, k.f.Hold(k.held()), "holding"); err != nil {
		return err
	}
	// So little that a program reaches it on a busy machine too.
	slow := k.f.Limits
	slow.MilliCPU = 100
	for _, run := range []func() error{
		func() error { return k.rt.Update(ctx, trapped, slow) },
		func() error { _, err := k.rt.Exec(ctx, trapped, container.ExecSpec{Args: k.f.Spin}); return err },
		func() error { return k.rt.Update(ctx, trapped, k.f.Limits) },
		func() error { _, err := k.rt.Exec(ctx, trapped, container.ExecSpec{Args: k.f.Fork}); return err },
	} {
		if err := run(); err != nil {
			return err
		}
	}
	var before container.Usage
	if err := until(patience, func() (err error) { // Fork's processes end
		before, err = k.rt.Usage(ctx, trapped)
		if err == nil && before.Pids > k.f.Limits.Pids/2 {
			err = fmt.Errorf("%d processes run on", before.Pids)
		}
		return err
	}); err != nil {
		return err
	}
	if _, err := k.rt.Exec(ctx, trapped, container.ExecSpec{Args: k.f.Fill}); err != nil {
		return err
	}
	u, err := k.rt.Usage(ctx, trapped)
	if err != nil {
		return err
	}
	limits := k.f.Limits
	pids, peak, most := uint64(1), max(u.Pids, before.PidsPeak, 2), limits.Pids+entering
	if k.f.OwnPids {
		pids, peak, most = 0, 0, 0
	}
	for _, c := range []struct {
		name           string
		got, min, most uint64
	}{
		{"CPUTime", uint64(u.CPUTime), uint64(before.CPUTime), 1 << 62},
		{"CPUTime at all", uint64(before.CPUTime), 1, 1 << 62},
		{"MemoryBytes", before.MemoryBytes, k.held(), limits.MemoryBytes},
		{"MemoryPeakBytes", u.MemoryPeakBytes, max(before.MemoryBytes, u.MemoryBytes), limits.MemoryBytes},
		{"Pids", u.Pids, pids, most},
		{"PidsPeak", u.PidsPeak, peak, most},
		{"DiskBytes", u.DiskBytes, before.DiskBytes + limits.DiskBytes/2, limits.DiskBytes},
		{"DiskSizeBytes", u.DiskSizeBytes, u.DiskBytes, limits.DiskBytes},
		{"WrittenBytes", u.WrittenBytes, limits.DiskBytes / 2, 1 << 62},
	} {
		if c.got < c.min || c.got > c.most {
			return fmt.Errorf("%s: got %d, want %d to %d", c.name, c.got, c.min, c.most)
		}
	}
	return nil
}

func (k *kit) usageHits(ctx context.Context) error {
	if code, err := k.rt.Exec(ctx, trapped, container.ExecSpec{Args: k.f.Exhaust}); err != nil || code == 0 {
		return fmt.Errorf("taking too much memory: got %d, %w", code, err)
	}
	u, err := k.rt.Usage(ctx, trapped)
	if err != nil {
		return err
	}
	for name, n := range map[string]uint64{
		"CPU": u.Hits.CPU, "Memory": u.Hits.Memory, "Pids": u.Hits.Pids, "Disk": u.Hits.Disk, "OOMKills": u.OOMKills,
	} {
		if n == 0 {
			return fmt.Errorf("%s: got 0, in %+v", name, u)
		}
	}
	return nil
}

func (k *kit) usageStays(ctx context.Context) error {
	before, err := k.rt.Usage(ctx, trapped)
	if err != nil {
		return err
	}
	if err := k.rt.Stop(ctx, trapped, 0); err != nil {
		return err
	}
	if _, err := k.exited(ctx, trapped); err != nil {
		return err
	}
	var last [2]container.Usage
	for i := range last {
		if last[i], err = k.rt.Usage(ctx, trapped); err != nil {
			return err
		}
	}
	if !reflect.DeepEqual(last[0], last[1]) || last[0].CPUTime < before.CPUTime || last[0].Hits.Pids < before.Hits.Pids || last[0].PidsPeak < before.PidsPeak {
		return fmt.Errorf("got %+v, and then %+v; before the end %+v", last[0], last[1], before)
	}
	return k.rt.Destroy(ctx, trapped)
}

// ended runs a program and wants an end.
func (k *kit) ended(ctx context.Context, args []string, then func(id string) error, code int, end container.End) error {
	if err := k.rt.Start(ctx, k.spec(trapped, args)); err != nil {
		return err
	}
	if then != nil {
		if err := then(trapped); err != nil {
			return err
		}
	}
	st, err := k.exited(ctx, trapped)
	if err == nil && (st.ExitCode != code || st.End != end || st.OOMKilled != (end == container.EndOOM) || st.FinishedAt.Before(st.StartedAt)) {
		err = fmt.Errorf("got %+v (%s), want exit code %d, %s", st, st.End, code, end)
	}
	return errors.Join(err, k.rt.Destroy(ctx, trapped))
}

func (k *kit) endExit(ctx context.Context) error {
	// 137 is what a shell says of a program that was killed, and no signal here.
	return errors.Join(k.ended(ctx, k.f.Exit(0), nil, 0, container.EndExit), k.ended(ctx, k.f.Exit(137), nil, 137, container.EndExit))
}

func (k *kit) endSignal(ctx context.Context) error {
	return k.ended(ctx, k.f.Serve, func(id string) error { return k.rt.Signal(ctx, id, container.SIGKILL) }, 137, container.EndSignal)
}

func (k *kit) endOOM(ctx context.Context) error {
	return k.ended(ctx, k.f.Exhaust, nil, 137, container.EndOOM)
}

// reopen makes the runtime's process die, and goes on with the next.
func (k *kit) reopen(meanwhile func()) (err error) {
	k.rt, err = k.f.Reopen(meanwhile)
	return err
}

func (k *kit) survives(ctx context.Context) error {
	l := k.f.Limits
	l.MilliCPU += 7
	if err := errors.Join(k.begin(ctx, trapped, k.f.Trap, "ready"), k.rt.Update(ctx, trapped, l), k.rt.Pause(ctx, trapped)); err != nil {
		return err
	}
	if err := k.reopen(func() {}); err != nil {
		return err
	}
	if err := errors.Join(k.unchanged(ctx), k.list3(ctx), k.limits(ctx, l), k.is(ctx, trapped, container.Paused)); err != nil {
		return err
	}
	if err := k.rt.Resume(ctx, trapped); err != nil {
		return err
	}
	if err := k.rt.Stop(ctx, trapped, patience); err != nil {
		return err
	}
	st, err := k.rt.Status(ctx, trapped)
	if err == nil && st.ExitCode != 5 {
		err = fmt.Errorf("got %+v, want it stopped", st)
	}
	return errors.Join(err, k.rt.Destroy(ctx, trapped))
}

func (k *kit) list3(ctx context.Context) error {
	all, err := k.rt.List(ctx)
	if err == nil && len(all) != 3 {
		err = fmt.Errorf("got %v, want %s, %s and %s", all, gone, serving, trapped)
	}
	return err
}

func (k *kit) exitKnown(ctx context.Context) error {
	if err := k.rt.Start(ctx, k.spec(trapped, k.f.Late(9))); err != nil {
		return err
	}
	if err := k.reopen(func() { _ = until(600*time.Millisecond, func() error { return errors.New("not yet") }) }); err != nil {
		return err
	}
	st, err := k.exited(ctx, trapped)
	if err == nil && (st.ExitCode != 9 || st.End != container.EndExit) {
		err = fmt.Errorf("got %+v, want exit code 9", st)
	}
	return errors.Join(err, k.rt.Destroy(ctx, trapped))
}

func (k *kit) destroy(ctx context.Context) error {
	r, err := k.rt.Logs(ctx, serving, container.LogOptions{Follow: true})
	if err != nil {
		return err
	}
	defer r.Close()
	// A paused container is destroyed like any other.
	if err := errors.Join(k.begin(ctx, trapped, k.f.Serve, "serving"), k.rt.Pause(ctx, trapped)); err != nil {
		return err
	}
	for _, id := range []string{gone, serving, trapped} {
		if err := k.rt.Destroy(ctx, id); err != nil {
			return err
		}
		_, err := k.rt.Status(ctx, id)
		if err := refused("Status after Destroy of "+id, err, container.CodeNotFound); err != nil {
			return err
		}
	}
	// Its log ends, since it does.
	return soon("the log of a destroyed container", func() error {
		var b [512]byte
		for {
			if _, err := r.Read(b[:]); err != nil {
				return nil
			}
		}
	})
}

func (k *kit) destroyAgain(ctx context.Context) error {
	return errors.Join(k.rt.Destroy(ctx, serving), k.rt.Destroy(ctx, "kit-none"))
}

func (k *kit) nothingLeft(ctx context.Context) error {
	if all, err := k.rt.List(ctx); err != nil || len(all) != 0 {
		return fmt.Errorf("got %v, %w; want none", all, err)
	}
	return until(patience/4, func() error {
		if left := k.f.Left(); len(left) > 0 {
			return fmt.Errorf("left behind: %q", left)
		}
		return nil
	})
}
