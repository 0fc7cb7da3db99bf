//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// nodeEnv makes this test binary the "node" of TestNodeKilled: it starts the
// containers named in it, over the directory before the colon, and waits for
// its death.
const nodeEnv = "PKTCLOUD_TEST_NODE"

func TestNodeProcess(t *testing.T) {
	dir, ids, ok := strings.Cut(os.Getenv(nodeEnv), ":")
	if !ok {
		return // it is a part of TestNodeKilled
	}
	store, err := image.Open(image.Config{Dir: filepath.Join(dir, "images"), Local: true})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := libcontainer.New(libcontainer.Config{Dir: filepath.Join(dir, "run"), Images: store})
	if err != nil {
		t.Fatal(err)
	}
	img, err := rt.Pull(t.Context(), "oci:"+filepath.Join(dir, "layout"), container.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("node: ready")
	for id := range strings.SplitSeq(ids, ",") {
		script := "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.05; done"
		if strings.HasPrefix(id, "short") {
			script = "sleep 1; echo bye; exit 9"
		}
		if err := rt.Start(t.Context(), container.Spec{ID: id, Image: img.Digest, Args: sh(script), Limits: limits}); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("node: started")
	select {}
}

// node runs TestNodeProcess, kills it some time after it has printed a line,
// and opens the runtime anew.
func (w *world) node(ids, line string, after time.Duration) {
	w.t.Helper()
	if err := errors.Join(w.rt.Close(), w.store.Close()); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNodeProcess$")
	cmd.Env = append(os.Environ(), nodeEnv+"="+w.dir+":"+ids)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	seen := false
	for lines := bufio.NewScanner(out); !seen && lines.Scan(); {
		seen = lines.Text() == "node: "+line
		if !seen && !strings.HasPrefix(lines.Text(), "node:") {
			w.t.Log(lines.Text())
		}
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !seen {
		w.t.Fatal("the node did not get far enough")
	}
	if w.store, err = image.Open(image.Config{Dir: filepath.Join(w.dir, "images"), Local: true}); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// TestNodeKilled kills the node. Its containers run on, and the next node has
// their exit codes and what they wrote meanwhile.
func TestNodeKilled(t *testing.T) {
	w := newWorld(t)
	w.node("long,short", "started", 0)
	if s := w.await("long", func(s container.Status) bool { return true }); s.State != container.Running {
		t.Fatalf("got %+v, want it to run on", s)
	}
	before := strings.Count(w.logs("long"), "tick")
	if s := w.await("short", exited); s.ExitCode != 9 || !strings.Contains(w.logs("short"), "stdout bye\n") {
		t.Errorf("got %+v and %q, want exit 9", s, w.logs("short"))
	}
	w.await("long", func(container.Status) bool { return strings.Count(w.logs("long"), "tick") > before+5 })
	if got, code := w.exec("long", "echo", "here"); code != 0 || got != "here\n" {
		t.Errorf("exec through the old monitor: got %d, %q", code, got)
	}
	if err := w.rt.Start(t.Context(), container.Spec{ID: "long", Image: w.image.Digest, Args: sh("other"), Limits: limits}); !errors.Is(err, container.CodeConflict) {
		t.Errorf("another spec: got %v, want %q", err, string(container.CodeConflict))
	}
}

// TestNodeKilledWhileStarting kills the node at many moments of a Start. The
// same Start then succeeds, whatever there was.
func TestNodeKilledWhileStarting(t *testing.T) {
	w := newWorld(t)
	for i := range 8 {
		id := fmt.Sprintf("half-%d", i)
		w.node(id, "ready", time.Duration(i)*12*time.Millisecond)
		if s, err := w.rt.Status(t.Context(), id); err == nil {
			t.Logf("after %d ms: %s", 12*i, s.State)
		}
		script := "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.05; done"
		w.start(w.spec(id, sh(script)...))
		w.await(id, func(s container.Status) bool { return s.State == container.Running })
		if err := w.rt.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// TestMonitorKilled kills the monitor itself. The container ends with it, says
// so, and leaves nothing after Destroy.
func TestMonitorKilled(t *testing.T) {
	w := newWorld(t)
	w.start(w.spec("orphan", sh("sleep 3001 & exec sleep 3002")...))
	var pid int
	b, err := os.ReadFile(filepath.Join(w.dir, "run", "boxes", "orphan", "alive"))
	if err == nil {
		_, err = fmt.Sscan(string(b), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.rt.Pause(t.Context(), "orphan"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := w.await("orphan", exited); s.ExitCode != -1 {
		t.Errorf("got %+v, want a lost exit code", s)
	}
	if err := w.rt.Destroy(t.Context(), "orphan"); err != nil {
		t.Error(err)
	}
	// Without a pause the container's processes end by themselves.
	w.start(w.spec("orphan", sh("sleep 3001 & exec sleep 3002")...))
	b, err = os.ReadFile(filepath.Join(w.dir, "run", "boxes", "orphan", "alive"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for running("sleep\x003001") || running("sleep\x003002") {
		if time.Now().After(deadline) {
			t.Fatal("the container's processes outlive their monitor")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func running(cmdline string) bool {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, _ := os.ReadFile(p); strings.HasPrefix(string(b), cmdline) {
			return true
		}
	}
	return false
}

// TestStartCancelled shows that a Start which is given up leaves nothing.
func TestStartCancelled(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*8*time.Millisecond)
		err := w.rt.Start(ctx, w.spec("given-up", "sleep", "1000"))
		cancel()
		_, serr := w.rt.Status(t.Context(), "given-up")
		if err == nil {
			if err := w.rt.Destroy(t.Context(), "given-up"); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(serr, container.CodeNotFound) {
			t.Errorf("got %v, and then %v", err, serr)
		}
	}
}

// TestTwoRuntimes shows that a directory has one runtime at a time.
func TestTwoRuntimes(t *testing.T) {
	w := newWorld(t)
	if _, err := libcontainer.New(libcontainer.Config{Dir: filepath.Join(w.dir, "run"), Images: w.store}); !errors.Is(err, container.CodeInUse) {
		t.Errorf("got %v, want %q", err, string(container.CodeInUse))
	}
}

// TestStartTime measures what a tenant waits for.
func TestStartTime(t *testing.T) {
	w := newWorld(t)
	var starts, stops []time.Duration
	for i := range 20 {
		id := fmt.Sprintf("timed-%d", i)
		begun := time.Now()
		w.start(w.spec(id, "sleep", "1000"))
		starts = append(starts, time.Since(begun))
		begun = time.Now()
		if err := w.rt.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		stops = append(stops, time.Since(begun))
	}
	t.Logf("Start: min %v, median %v; Destroy: min %v, median %v", low(starts), middle(starts), low(stops), middle(stops))
	if middle(starts) > time.Second {
		t.Errorf("a start takes %v", middle(starts))
	}
}

func low(d []time.Duration) time.Duration { return slices.Min(d) }

func middle(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}
