//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// TestIsolation looks at a container from the inside.
func TestIsolation(t *testing.T) {
	w := newWorld(t)
	const id = "inside"
	w.Start(w.Spec(id, boxtest.Sh("cat /proc/self/status; exec sleep 1707")...))
	if got := w.kernel(id); got == machineKernel(t) {
		t.Errorf("the kernel inside is %q, the machine's", got)
	}
	w.AwaitLog(id, "Seccomp")
	if own := w.Logs(id); !strings.Contains(own, "Seccomp:\t2\n") {
		t.Errorf("the first process has no filter:\n%s", own)
	}
	boxtest.Isolated(w.World, id)
	w.Has(id, "capabilities", "CapEff:\t00000000000004fb\n", "cat", "/proc/self/status")
	w.Fails(id, "host paths in mounts", "grep", "-q", "engine", "/proc/mounts")
	w.Fails(id, "memory of the machine", "sh", "-c", "test $(free -m | grep Mem | (read a b c; echo $b)) -gt 130")
	w.checkIDs(id)
}

// kernel returns what the kernel inside says it is.
func (w *world) kernel(id string) string {
	w.T.Helper()
	got, _ := w.Exec(id, "cat", "/proc/sys/kernel/osrelease", "/proc/version")
	return got
}

func machineKernel(t *testing.T) string {
	t.Helper()
	a, err := os.ReadFile("/proc/sys/kernel/osrelease")
	b, err2 := os.ReadFile("/proc/version")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return string(a) + string(b)
}

// checkIDs sees that all processes of a container have ids of its own.
func (w *world) checkIDs(id string) {
	w.T.Helper()
	seen := 0
	for _, pid := range w.GroupProcesses(id) {
		st, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		seen++
		for _, field := range []string{"\nUid:\t0\t", "\nGid:\t0\t", "\nUid:\t65534\t"} {
			if strings.Contains(string(st), field) {
				w.T.Errorf("a process of the container has an id of the machine: %s", st)
			}
		}
	}
	if seen < 2 {
		w.T.Errorf("got %d processes in the container's control groups, want its kernel and what opens its files", seen)
	}
}

func TestUser(t *testing.T) { boxtest.User(newWorld(t).World) }

func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.Part("memory", func() {
		w.Start(w.Spec("memory", "dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"))
		if s := w.Await("memory", boxtest.Exited); !s.OOMKilled || s.ExitCode != 128+9 {
			w.T.Errorf("got %+v, want it killed for memory", s)
		}
	})
	w.Part("pids", func() {
		boxtest.PidsLimit(w.World)
		// As many as the limit are possible.
		w.Start(w.Spec("pids-fit", boxtest.Sh("i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done; echo all; sleep 1000")...))
		w.Await("pids-fit", func(s container.Status) bool {
			return s.State == container.Exited || strings.Contains(w.Logs("pids-fit"), "all")
		})
		if got := w.Logs("pids-fit"); strings.Contains(got, "fork") {
			w.T.Errorf("60 of 64 processes: got %q", got)
		}
	})
	w.Part("disk", func() { boxtest.DiskLimit(w.World) })
	w.Part("cpu", func() { boxtest.CPULimit(w.World, 200) })
}

// TestFullDisk uses containers when the machine's disk is full [CONTAINER-97].
func TestFullDisk(t *testing.T) {
	boxtest.FullDisk(boxtest.New(t, kind(t), boxtest.OnFileSystem(t, "ext4", 256<<20)))
}

func TestTerminal(t *testing.T) { boxtest.Terminal(newWorld(t).World) }

// TestExecKilled ends an executed program by its signal, and one that is given
// up is gone.
func TestExecKilled(t *testing.T) {
	w := newWorld(t)
	w.Start(w.Spec("host", "sleep", "1000"))
	if got, code := w.Exec("host", boxtest.Sh("kill -9 $$")...); code != 128+9 {
		t.Errorf("got %d, %q, want 137", code, got)
	}
	if got, code := w.Exec("host", boxtest.Sh("exit 128")...); code != 128 {
		t.Errorf("got %d, %q, want 128, which runsc has for itself, too", code, got)
	}
	if got, code := w.Exec("host", "/www/index"); code != 126 || !strings.Contains(got, "permission denied") {
		t.Errorf("a file that is no program: got %d, %q", code, got)
	}
	var none bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := w.RT.Exec(ctx, "host", container.ExecSpec{Args: []string{"sleep", "4242"}, Stdout: &none}); !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("got %v", err)
	}
	deadline := time.Now().Add(boxtest.Patience)
	for {
		got, _ := w.Exec("host", boxtest.Sh("grep -l '42[4]2' /proc/[0-9]*/cmdline 2>/dev/null | grep -c .")...)
		if strings.TrimSpace(got) == "0" || time.Now().After(deadline) {
			if strings.TrimSpace(got) != "0" {
				t.Errorf("an abandoned program is still there: %q", got)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestMaxExecs has as many executed programs as there may be, and one more.
func TestMaxExecs(t *testing.T) {
	w := newWorld(t)
	s := w.Spec("busy", "sleep", "1000")
	s.Limits.Pids = 200
	w.Start(s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, gvisor.MaxExecs)
	for range gvisor.MaxExecs {
		r, out := io.Pipe()
		go func() {
			_, err := w.RT.Exec(ctx, "busy", container.ExecSpec{Args: boxtest.Sh("echo here; exec sleep 1000"), Stdout: out})
			_ = out.Close()
			ended <- err
		}()
		if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, r) }()
	}
	if _, err := w.RT.Exec(ctx, "busy", container.ExecSpec{Args: []string{"true"}}); !errors.Is(err, container.CodeCapacity) {
		t.Errorf("one program more: got %v, want %q", err, string(container.CodeCapacity))
	}
	cancel()
	for range gvisor.MaxExecs {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	deadline := time.Now().Add(boxtest.Patience)
	for {
		code, err := w.RT.Exec(t.Context(), "busy", container.ExecSpec{Args: []string{"true"}})
		if err == nil && code == 0 {
			return
		}
		if !errors.Is(err, container.CodeCapacity) || time.Now().After(deadline) {
			t.Fatalf("after them: got %d, %v", code, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestTwoClasses has one runtime for both classes [CONTAINER-80].
func TestTwoClasses(t *testing.T) {
	w := &world{boxtest.New(t, bothKinds(t), t.TempDir())}
	for _, c := range []struct {
		class container.Class
		own   bool
	}{{"", false}, {container.ClassUserns, false}, {container.ClassGVisor, true}} {
		s := w.Spec("class-"+string(c.class)+"x", "sleep", "1000")
		s.Class = c.class
		w.Start(s)
		if got := w.kernel(s.ID); (got != machineKernel(t)) != c.own {
			t.Errorf("class %q: the kernel inside is %q", c.class, got)
		}
	}
	least := w.Spec("least", "sleep", "1000")
	least.Class, least.Limits.MemoryBytes = container.ClassGVisor, gvisor.MinMemoryBytes
	w.Start(least)
	if got, code := w.Exec("least", "echo", "here"); code != 0 || got != "here\n" {
		t.Errorf("with the least memory: got %d, %q", code, got)
	}
	small := w.Spec("small", "sleep", "1000")
	small.Class, small.Limits.MemoryBytes = container.ClassGVisor, 32<<20
	if err := w.RT.Start(t.Context(), small); !errors.Is(err, container.CodeInvalidSpec) {
		t.Errorf("less memory than its kernel takes: got %v", err)
	}
}

// TestMonitorProgram has a small program for monitors, which knows nothing of
// this class: its containers have the caller's.
func TestMonitorProgram(t *testing.T) {
	w := &world{boxtest.New(t, bothKinds(t), t.TempDir())}
	program := w.BuildMonitor()
	w.Config.Monitor = program
	w.Reopen()
	for _, c := range []container.Class{container.ClassUserns, container.ClassGVisor} {
		s := w.Spec(string(c), "sleep", "1000")
		s.Class = c
		w.Start(s)
		if got, code := w.Exec(s.ID, "echo", "here"); code != 0 || got != "here\n" {
			t.Errorf("class %s: got %d, %q", c, code, got)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/exe", w.Monitor(s.ID)))
		if err != nil || bytes.Equal(b, program) != (c == container.ClassUserns) {
			t.Errorf("class %s: the monitor has a program of %d bytes, %v; the small one has %d", c, len(b), err, len(program))
		}
	}
}
