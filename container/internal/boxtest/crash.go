//go:build linux && cgo && amd64

package boxtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// nodeEnv makes a test binary the node that [World.Node] runs: it starts the
// containers named in it, over the directory before the colon, and waits for its
// death.
const nodeEnv = "PKTCLOUD_TEST_NODE"

const ticks = "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.05; done"

// NodeProcess is the whole of a TestNodeProcess, which each package with a test
// of killed nodes must have.
func NodeProcess(t *testing.T, k Kind) {
	dir, ids, ok := strings.Cut(os.Getenv(nodeEnv), ":")
	if !ok {
		return // it is a part of other tests
	}
	w := Join(t, k, dir)
	fmt.Println("node: ready")
	for id := range strings.SplitSeq(ids, ",") {
		script := ticks
		if strings.HasPrefix(id, "short") {
			script = "sleep 1; echo bye; exit 9"
		}
		w.Start(w.Spec(id, Sh(script)...))
	}
	fmt.Println("node: started")
	select {}
}

// Node runs TestNodeProcess, kills it some time after it has printed a line, and
// opens the runtime anew.
func (w *World) Node(ids, line string, after time.Duration) {
	w.T.Helper()
	w.CloseAll()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNodeProcess$")
	cmd.Env = append(os.Environ(), nodeEnv+"="+w.Dir+":"+ids)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.T.Fatal(err)
	}
	seen := false
	for lines := bufio.NewScanner(out); !seen && lines.Scan(); {
		seen = lines.Text() == "node: "+line
		if !seen && !strings.HasPrefix(lines.Text(), "node:") {
			w.T.Log(lines.Text())
		}
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !seen {
		w.T.Fatal("the node did not get far enough")
	}
	w.OpenAll()
}

// NodeKilled kills the node. Its containers run on, and the next node has their
// exit codes and what they wrote meanwhile.
func NodeKilled(w *World) {
	w.T.Helper()
	w.Node("long,short", "started", 0)
	for deadline := time.Now().Add(Patience); len(w.Standbys()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.T.Fatalf("processes %d stand by for a node that is dead", w.Standbys())
		}
	}
	if s := w.Status("long"); s.State != container.Running {
		w.T.Fatalf("got %+v, want it to run on", s)
	}
	before := strings.Count(w.Logs("long"), "tick")
	if s := w.Await("short", Exited); s.ExitCode != 9 || !strings.Contains(w.Logs("short"), "stdout bye\n") {
		w.T.Errorf("got %+v and %q, want exit 9", s, w.Logs("short"))
	}
	w.Await("long", func(container.Status) bool { return strings.Count(w.Logs("long"), "tick") > before+5 })
	if got, code := w.Exec("long", "echo", "here"); code != 0 || got != "here\n" {
		w.T.Errorf("exec through the old monitor: got %d, %q", code, got)
	}
	if err := w.RT.Start(w.T.Context(), w.Spec("long", Sh("other")...)); !errors.Is(err, container.CodeConflict) {
		w.T.Errorf("another spec: got %v, want %q", err, string(container.CodeConflict))
	}
}

// NodeKilledWhileStarting kills the node at many moments of a Start, a step
// apart. The same Start then succeeds, whatever there was.
func NodeKilledWhileStarting(w *World, step time.Duration) {
	w.T.Helper()
	for i := range 8 {
		id, after := fmt.Sprintf("half-%d", i), time.Duration(i)*step
		w.Node(id, "ready", after)
		if s, err := w.RT.Status(w.T.Context(), id); err == nil {
			w.T.Logf("after %v: %s", after, s.State)
		}
		w.Start(w.Spec(id, Sh(ticks)...))
		w.Await(id, func(s container.Status) bool { return s.State == container.Running })
		if err := w.RT.Destroy(w.T.Context(), id); err != nil {
			w.T.Error(err)
		}
	}
}

// MonitorKilled kills the monitor itself. The container ends with it, says so,
// and leaves nothing after Destroy; of one that was not paused no process
// outlives its monitor, even where there is no node that would end it.
func MonitorKilled(w *World) {
	w.T.Helper()
	for _, paused := range []bool{true, false} {
		w.Start(w.Spec("orphan", Sh("sleep 3001 & exec sleep 3002")...))
		if len(w.GroupProcesses("orphan")) == 0 {
			w.T.Fatal("found no processes of the container")
		}
		if paused {
			if err := w.RT.Pause(w.T.Context(), "orphan"); err != nil {
				w.T.Fatal(err)
			}
		}
		if !paused {
			if err := w.RT.Close(); err != nil {
				w.T.Fatal(err)
			}
		}
		if err := unix.Kill(w.Monitor("orphan"), unix.SIGKILL); err != nil {
			w.T.Fatal(err)
		}
		if !paused {
			left := w.outlives("orphan")
			w.Open()
			if len(left) > 0 {
				w.T.Errorf("the container's processes %d outlive their monitor", left)
			}
		}
		if s := w.Await("orphan", Exited); s.ExitCode != -1 {
			w.T.Errorf("got %+v, want a lost exit code", s)
		}
		if err := w.RT.Destroy(w.T.Context(), "orphan"); err != nil {
			w.T.Error(err)
		}
	}
}

// outlives waits until a container has no process, and returns those that it
// has still when that took too long.
func (w *World) outlives(id string) []int {
	w.T.Helper()
	for deadline := time.Now().Add(Patience / 4); ; time.Sleep(5 * time.Millisecond) {
		left := w.GroupProcesses(id)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// StartCancelled gives a Start up at many moments, a step apart. It leaves
// nothing.
func StartCancelled(w *World, step time.Duration) {
	w.T.Helper()
	for i := range 6 {
		ctx, cancel := context.WithTimeout(w.T.Context(), time.Duration(i)*step)
		err := w.RT.Start(ctx, w.Spec("given-up", "sleep", "1000"))
		cancel()
		_, serr := w.RT.Status(w.T.Context(), "given-up")
		if err == nil {
			if err := w.RT.Destroy(w.T.Context(), "given-up"); err != nil {
				w.T.Error(err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(serr, container.CodeNotFound) {
			w.T.Errorf("got %v, and then %v", err, serr)
		}
	}
}
