//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// TestLimitsAreTrue hits each limit, and finds it reported.
func TestLimitsAreTrue(t *testing.T) {
	w := newWorld(t)
	const rate = 4 << 20
	w.Config.IOBytesPerSecond = rate
	w.Reopen()
	defer func() { w.T = t }()
	t.Run("cpu", func(t *testing.T) {
		w.T = t
		s := w.Spec("cpu", boxtest.Sh("while :; do :; done")...)
		s.Limits.MilliCPU = 500
		w.Start(s)
		// Half a processor for ten seconds, or longer where others have the rest.
		w.CompareCPU("cpu", 500, func(n boxtest.CPUCounters) bool { return n.Used >= 5*time.Second })
	})
	t.Run("memory", func(t *testing.T) {
		w.T = t
		w.Start(w.Spec("memory", "sleep", "1000"))
		if _, code := w.Exec("memory", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"); code != 128+9 {
			t.Errorf("got exit code %d, want 137", code)
		}
		const over = 1 << 20 // the kernel gives one that is dying, and itself, a few pages beyond a limit
		if u := w.Usage("memory"); u.OOMKills != 1 || u.Hits.Memory == 0 || u.MemoryPeakBytes > limits.MemoryBytes+over || u.MemoryPeakBytes < limits.MemoryBytes*9/10 {
			t.Errorf("got %+v, want one kill at %d bytes", u, limits.MemoryBytes)
		}
	})
	t.Run("pids", func(t *testing.T) {
		w.T = t
		w.Start(w.Spec("pids", boxtest.Sh("i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done")...))
		w.Await("pids", boxtest.Exited)
		if u := w.Usage("pids"); u.Hits.Pids == 0 || u.PidsPeak != limits.Pids {
			t.Errorf("got %+v, want %d processes, and one more refused", u, limits.Pids)
		}
	})
	t.Run("disk", func(t *testing.T) {
		w.T = t
		w.Start(w.Spec("disk", "sleep", "1000"))
		w.Exec("disk", "dd", "if=/dev/zero", "of=/big", "bs=64k")
		if u := w.Usage("disk"); u.Hits.Disk != 1 || u.DiskBytes < u.DiskSizeBytes-128<<10 || u.DiskSizeBytes > limits.DiskBytes || u.DiskSizeBytes < limits.DiskBytes*8/10 {
			t.Errorf("got %+v, want the disk full", u)
		}
		w.Exec("disk", "rm", "/big")
		w.AwaitUsage("disk", func(u container.Usage) bool { return u.DiskBytes < u.DiskSizeBytes/2 })
		w.Exec("disk", "dd", "if=/dev/zero", "of=/big", "bs=64k")
		if u := w.Usage("disk"); u.Hits.Disk != 2 {
			t.Errorf("got %+v, want it full a second time", u)
		}
	})
	t.Run("io", func(t *testing.T) {
		w.T = t
		w.Start(w.Spec("io", boxtest.Sh("dd if=/dev/zero of=/big bs=256k count=48 oflag=direct; exec sleep 1000")...))
		u := w.AwaitUsage("io", func(u container.Usage) bool { return u.WrittenBytes >= 12<<20 })
		st, err := w.RT.Status(t.Context(), "io")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(st.StartedAt); u.WrittenBytes > 13<<20 || took < 2*time.Second {
			t.Errorf("%d bytes written in %v, want 12 MiB at %d a second", u.WrittenBytes, took, rate)
		}
		if u.Hits.IO == 0 {
			t.Errorf("got %+v, want the bound reported", u)
		}
	})
}

// TestEnds shows that a container's end is told as it was.
func TestEnds(t *testing.T) {
	w := newWorld(t)
	hungry := []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}
	want := func(id string, end container.End, code int) {
		t.Helper()
		if s := w.Await(id, boxtest.Exited); s.End != end || s.ExitCode != code {
			t.Errorf("%s: got %s, %d, want %s, %d", id, s.End, s.ExitCode, end, code)
		}
	}
	w.Start(w.Spec("exit", boxtest.Sh("exit 137")...))
	want("exit", container.EndExit, 137)
	w.Start(w.Spec("oom", hungry...))
	want("oom", container.EndOOM, 137)

	// A program of it was killed for memory, and long after that a signal came
	// from elsewhere.
	w.Start(w.Spec("other", "sleep", "5001"))
	if _, code := w.Exec("other", hungry...); code != 137 {
		t.Fatalf("got exit code %d", code)
	}
	time.Sleep(2500 * time.Millisecond)
	if err := unix.Kill(w.hostPID("sleep\x005001"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want("other", container.EndSignal, 137)

	w.Start(w.Spec("abort", boxtest.Sh("trap - ABRT; exec sleep 5002")...))
	if err := w.RT.Signal(t.Context(), "abort", container.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want("abort", container.EndSignal, 137)

	w.Start(w.Spec("half", "sleep", "5003"))
	if err := w.RT.BeginDestroy(t.Context(), "half"); err != nil {
		t.Fatal(err)
	}
	want("half", container.EndDestroyed, 137)
}

// TestUpdate shows what the kernel was told, and what it was not told when a
// change was refused.
func TestUpdate(t *testing.T) {
	w := newWorld(t)
	const id = "update"
	w.Start(w.Spec(id, "sleep", "1000"))
	l := container.Limits{MilliCPU: 250, MemoryBytes: 32 << 20, DiskBytes: limits.DiskBytes, Pids: 20}
	if err := w.RT.Update(t.Context(), id, l); err != nil {
		t.Fatal(err)
	}
	told := func(milliCPU, memory, pids string) { t.Helper(); w.told(id, milliCPU, memory, pids) }
	told("250", "33554432", "20")
	if got, _ := w.Exec(id, "grep", "/dev/shm", "/proc/mounts"); !strings.Contains(got, "size=16384k") {
		t.Errorf("got %q, want /dev/shm to have half of the memory", got)
	}

	// Memory in use that cannot be freed.
	if _, code := w.Exec(id, "dd", "if=/dev/zero", "of=/dev/shm/held", "bs=1M", "count=14"); code != 0 {
		t.Fatal("could not fill /dev/shm")
	}
	small := l
	small.MemoryBytes, small.MilliCPU, small.Pids = 16<<20, 500, 40
	if err := w.RT.Update(t.Context(), id, small); !errors.Is(err, container.CodeDoesNotFit) {
		t.Errorf("less memory than is in use: got %v, want %q", err, string(container.CodeDoesNotFit))
	}
	told("250", "33554432", "20")
	if got, _ := w.Exec(id, "grep", "/dev/shm", "/proc/mounts"); !strings.Contains(got, "size=16384k") {
		t.Errorf("got %q, want /dev/shm as it was", got)
	}
	if s := w.Status(id); s.Limits != l || s.OOMKilled || s.State != container.Running {
		t.Errorf("got %+v, want it as it was", s)
	}

	// The cache of files is memory that can be freed.
	w.Exec(id, "rm", "/dev/shm/held")
	w.Exec(id, "dd", "if=/dev/zero", "of=/file", "bs=1M", "count=12")
	if err := w.RT.Update(t.Context(), id, small); err != nil {
		t.Errorf("less memory than files are kept in: %v", err)
	}
	told("500", "16777216", "40")
}

// told wants limits in the kernel.
func (w *world) told(id, milliCPU, memory, pids string) {
	w.T.Helper()
	type file struct{ controller, name, want string }
	want := []file{{"cpu", "cpu.max", milliCPU + "00 100000"}, {"memory", "memory.max", memory}, {"memory", "memory.high", "max"}, {"pids", "pids.max", pids}}
	if !cgroups.IsCgroup2UnifiedMode() {
		want = []file{{"cpu", "cpu.cfs_quota_us", milliCPU + "00"}, {"memory", "memory.limit_in_bytes", memory}, {"pids", "pids.max", pids}}
	}
	for _, f := range want {
		b, err := os.ReadFile(filepath.Join(w.groupDir(id, f.controller), f.name))
		if got := strings.TrimSpace(string(b)); got != f.want {
			w.T.Errorf("%s: got %q, %v, want %q", f.name, got, err, f.want)
		}
	}
}

// TestUpdateDisk lets a disk grow in use. Some machines' root may not: there all
// stays as it was.
func TestUpdateDisk(t *testing.T) {
	w := newWorld(t)
	const id = "grow"
	w.Start(w.Spec(id, "sleep", "1000"))
	before := w.Usage(id).DiskSizeBytes
	l := limits
	l.MilliCPU, l.DiskBytes = 700, 2*limits.DiskBytes
	err := w.RT.Update(t.Context(), id, l)
	s := w.Status(id)
	file, serr := os.Stat(filepath.Join(w.Dir, "run", "boxes", id, "disk.img"))
	if serr != nil {
		t.Fatal(serr)
	}
	if !boxtest.HasCapability(t, unix.CAP_SYS_RESOURCE) {
		if !errors.Is(err, container.CodeMissingFeature) || s.Limits != limits || uint64(file.Size()) != limits.DiskBytes || w.Usage(id).DiskSizeBytes != before {
			t.Errorf("got %v, %+v and a disk of %d bytes, want all as it was", err, s, file.Size())
		}
		w.told(id, "1000", "67108864", "64")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if after := w.Usage(id).DiskSizeBytes; after < before+limits.DiskBytes*9/10 || s.Limits != l {
		t.Errorf("got a disk of %d bytes, %+v, want %d more than %d", after, s, limits.DiskBytes, before)
	}
	if out, code := w.Exec(id, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=24"); code != 0 {
		t.Errorf("writing more than the disk had: %s", out)
	}
}

// TestMonitorHasTimeForOwner has a tenant ask for more connections than it may,
// again and again, to a port that answers none: the owner's requests are served
// all the same [CONTAINER-93].
func TestMonitorHasTimeForOwner(t *testing.T) {
	w := newWorld(t)
	w.Start(w.Spec("one", "busybox", "nc", "-l", "-p", "80"))
	for deadline := time.Now().Add(boxtest.Patience); ; time.Sleep(10 * time.Millisecond) {
		out, _ := w.Exec("one", "cat", "/proc/net/tcp", "/proc/net/tcp6")
		if strings.Contains(out, ":0050 ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not listen: %s", out)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := make(chan error, 1)
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := w.RT.Dial(ctx, "one", 80)
				if err == nil {
					<-ctx.Done()
					_ = c.Close()
					return
				}
				select {
				case refused <- err:
				default:
				}
			}
		})
	}
	for range 3 {
		<-refused // it has as many as it takes
		if err := w.RT.Signal(t.Context(), "one", container.Signal(unix.SIGCONT)); err != nil {
			t.Errorf("a signal: %v", err)
		}
		if _, err := w.RT.Usage(t.Context(), "one"); err != nil {
			t.Errorf("the usage: %v", err)
		}
	}
	cancel()
	wg.Wait()
}
