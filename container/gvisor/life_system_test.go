//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// TestEnds shows that an end is told as the kernel inside saw it.
func TestEnds(t *testing.T) {
	w := newWorld(t)
	want := func(id string, end container.End, code int) {
		t.Helper()
		if s := w.Await(id, boxtest.Exited); s.End != end || s.ExitCode != code {
			t.Errorf("%s: got %s, %d, want %s, %d", id, s.End, s.ExitCode, end, code)
		}
	}
	w.Start(w.Spec("exit", boxtest.Sh("exit 143")...))
	want("exit", container.EndExit, 143)

	// Not before runsc waits for it: see Ended.
	w.Start(w.Spec("itself", boxtest.Sh("until cat /end; do sleep 0.02; done; kill -TERM $$; exec sleep 1000")...))
	_, _ = w.RT.Exec(t.Context(), "itself", container.ExecSpec{Args: []string{"touch", "/end"}}) // whose own end nobody may see
	want("itself", container.EndSignal, 143)

	w.Start(w.Spec("unhandled", "sleep", "1000"))
	if err := w.RT.Signal(t.Context(), "unhandled", container.SIGTERM); err != nil {
		t.Fatal(err)
	}
	want("unhandled", container.EndSignal, 143)

	w.Start(w.Spec("kernel", "sleep", "1000"))
	if err := unix.Kill(w.kernelPID("kernel"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want("kernel", container.EndSignal, 137)

	// An executed program takes the container with it.
	w.Start(w.Spec("oom", "sleep", "1000"))
	_, _ = w.RT.Exec(t.Context(), "oom", container.ExecSpec{Args: []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"}})
	want("oom", container.EndOOM, 137)

	// What waits for a paused container does not keep it.
	w.Start(w.Spec("paused", "sleep", "1000"))
	if err := w.RT.Pause(t.Context(), "paused"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []container.Signal{12, 12, 10, container.SIGKILL} {
		if err := w.RT.Signal(t.Context(), "paused", s); err != nil {
			t.Fatal(err)
		}
	}
	want("paused", container.EndSignal, 137)
}

// kernelPID finds the kernel of a container among the machine's processes.
func (w *world) kernelPID(id string) int {
	w.T.Helper()
	kernels := boxtest.CommandLines("runsc-sandbox\x00", "")
	for _, pid := range w.GroupProcesses(id) {
		if kernels[pid] != "" {
			return pid
		}
	}
	w.T.Fatal("there is no kernel")
	return 0
}

// TestUpdate shows what a running container of the class can be given, and that
// what it cannot be given changes nothing.
func TestUpdate(t *testing.T) {
	w := newWorld(t)
	const id = "update"
	w.Start(w.Spec(id, boxtest.Sh("dd if=/dev/zero of=/dev/shm/held bs=1M count=60; exec sleep 1000")...))
	w.Await(id, func(s container.Status) bool { return s.MemoryBytes > 60<<20 })
	l := limits
	l.MilliCPU, l.MemoryBytes = 500, 160<<20
	if err := w.RT.Update(t.Context(), id, l); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*container.Limits)
		want   container.Code
	}{
		{"more processes", func(l *container.Limits) { l.Pids++ }, container.CodeMissingFeature},
		{"fewer processes", func(l *container.Limits) { l.Pids-- }, container.CodeMissingFeature},
		{"less memory than is in use", func(l *container.Limits) { l.MemoryBytes = gvisor.MinMemoryBytes }, container.CodeDoesNotFit},
		{"less memory than its kernel takes", func(l *container.Limits) { l.MemoryBytes = gvisor.MinMemoryBytes - 1 }, container.CodeDoesNotFit},
		{"a smaller disk", func(l *container.Limits) { l.DiskBytes -= 4 << 20 }, container.CodeDoesNotFit},
	} {
		fault := l
		fault.MilliCPU = 700
		c.change(&fault)
		if err := w.RT.Update(t.Context(), id, fault); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, string(c.want))
		}
		if s := w.Status(id); s.Limits != l || s.State != container.Running {
			t.Errorf("%s: got %+v, want it as it was", c.name, s)
		}
	}
	w.told(id, "160", "50000")
	// The new limit holds.
	if _, err := w.RT.Exec(t.Context(), id, container.ExecSpec{Args: []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"}}); err != nil {
		t.Log(err)
	}
	if s := w.Await(id, boxtest.Exited); s.End != container.EndOOM {
		t.Errorf("got %+v, want it killed for memory", s)
	}
}

// told wants limits in the kernel, in MiB and microseconds each 100 ms.
func (w *world) told(id, memory, quota string) {
	w.T.Helper()
	got := map[string]string{}
	for _, name := range []string{"memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max"} {
		for _, f := range w.GroupFiles("/" + id + "/" + name) {
			b, err := os.ReadFile(f)
			if err != nil {
				w.T.Fatal(err)
			}
			got[strings.SplitN(name, ".", 2)[0]] = strings.Fields(string(b))[0]
		}
	}
	if bytes := boxtest.Number(w.T, got["memory"]); bytes>>20 != boxtest.Number(w.T, memory) || got["cpu"] != quota {
		w.T.Errorf("the kernel has %v, want %s MiB and %s", got, memory, quota)
	}
}

// TestUpdateDisk lets a disk grow in use, where the machine can.
func TestUpdateDisk(t *testing.T) {
	w := newWorld(t)
	const id = "grow"
	w.Start(w.Spec(id, "sleep", "1000"))
	l := limits
	l.DiskBytes *= 2
	err := w.RT.Update(t.Context(), id, l)
	if errors.Is(err, container.CodeMissingFeature) && !boxtest.HasCapability(t, unix.CAP_SYS_RESOURCE) {
		if s := w.Status(id); s.Limits != limits {
			t.Errorf("refused, and got %+v", s.Limits)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, code := w.Exec(id, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=40"); code != 0 {
		t.Errorf("writing more than the disk had: %s", out)
	}
}

// TestUsage hits the limits that the machine keeps, and finds them reported.
func TestUsage(t *testing.T) {
	w := newWorld(t)
	const id = "usage"
	s := w.Spec(id, boxtest.Sh("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/big bs=64k; exec sleep 1000")...)
	s.Limits.MilliCPU = 100
	w.Start(s)
	w.AwaitUsage(id, func(u container.Usage) bool { return u.Hits.CPU > 0 && u.Hits.Disk > 0 && u.ThrottledTime > 0 })
	s.Limits.MilliCPU = 2000
	if err := w.RT.Update(t.Context(), id, s.Limits); err != nil {
		t.Fatal(err)
	}
	_, _ = w.RT.Exec(t.Context(), id, container.ExecSpec{Args: []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"}})
	w.Await(id, boxtest.Exited)
	u := w.Usage(id)
	const over = 1 << 20 // the kernel gives one that is dying, and itself, a few pages beyond a limit
	if u.OOMKills == 0 || u.Hits.Memory == 0 || u.Hits.Disk == 0 || u.CPUTime == 0 || u.MemoryPeakBytes > limits.MemoryBytes+over || u.MemoryPeakBytes < limits.MemoryBytes*8/10 {
		t.Errorf("got %+v after its end, want each limit hit", u)
	}
	if u.Pids != 0 || u.PidsPeak != 0 || u.Hits.Pids != 0 {
		t.Errorf("got %+v, want no processes of the machine counted", u)
	}
}
