//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// parentOf returns a process's parent.
func parentOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "PPid:")
	return strings.Fields(rest)[0]
}

// TestStandby shows what stands by for monitors to come: one process, which has
// nothing of the containers that run, and can end at any time. Monitors are their
// runtime's children all the same.
func TestStandby(t *testing.T) {
	w := newWorld(t)
	if got := w.Standbys(); len(got) != 0 {
		t.Errorf("before the first start: got %d", got)
	}
	var all sync.WaitGroup
	for _, id := range []string{"one", "two", "three"} {
		all.Go(func() { w.Start(w.Spec(id, "sleep", "1000")) })
	}
	all.Wait()
	first := w.Standbys()
	if len(first) != 1 {
		t.Fatalf("after three starts: got %d, want one", first)
	}
	for _, id := range []string{"one", "two", "three"} {
		monitors := boxtest.CommandLines("pktcloud-monitor\x00"+w.Box(id)+"\x00", "")
		if len(monitors) != 1 {
			t.Fatalf("%s: got %d monitors, want one", id, len(monitors))
		}
		for pid := range monitors {
			if got, want := parentOf(t, pid), fmt.Sprint(os.Getpid()); got != want {
				t.Errorf("%s: got parent %s, want %s", id, got, want)
			}
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", first[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", first[0], f.Name()))
		if ours, _ := os.Readlink("/proc/self/fd/" + f.Name()); ours == to {
			continue // what this process was given when it began
		}
		if err == nil && to != os.DevNull && !strings.HasPrefix(to, "socket:") {
			t.Errorf("it has %s open as %s", to, f.Name())
		}
	}

	// Killed, it takes nothing with it, and another comes.
	if err := unix.Kill(first[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.Start(w.Spec("four", "sleep", "1000"))
	if got := w.Standbys(); len(got) != 1 || got[0] == first[0] {
		t.Errorf("after its death: got %d, want another than %d", got, first[0])
	}
	for _, id := range []string{"one", "two", "three", "four"} {
		if s, err := w.RT.Status(t.Context(), id); err != nil || s.State != container.Running {
			t.Errorf("%s: got %v, %v; want it to run", id, s.State, err)
		}
	}
	w.Reopen()
	if got := w.Standbys(); len(got) != 0 {
		t.Errorf("after the runtime: got %d", got)
	}
}

// TestStandbySignalled starts containers while this process gets signals all the
// time, such as Go's runtime sends itself: they end no wait for the standby.
func TestStandbySignalled(t *testing.T) {
	w := newWorld(t)
	end, ended := make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() { close(end); <-ended })
	defer stop()
	go func() {
		defer close(ended)
		for {
			tasks, _ := os.ReadDir("/proc/self/task")
			for _, task := range tasks {
				if tid, err := strconv.Atoi(task.Name()); err == nil {
					_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
				}
			}
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	for i := range 8 {
		w.Start(w.Spec(fmt.Sprint("signalled-", i), "true"))
	}
	stop()
	if got := w.Standbys(); len(got) != 1 {
		t.Errorf("got %d processes that stand by, want one", len(got))
	}
}

// TestTimers shows that programs have timers as exact as elsewhere, whatever those
// of their monitor are.
func TestTimers(t *testing.T) {
	w := newWorld(t)
	const want = "50000\n"
	w.Start(w.Spec("timers", boxtest.Sh("cat /proc/self/timerslack_ns; exec sleep 1000")...))
	w.Await("timers", func(container.Status) bool { return strings.Contains(w.Logs("timers"), "\n") })
	if got := w.Logs("timers"); !strings.HasSuffix(got, " "+want) {
		t.Errorf("the first program: got %q, want %q", got, want)
	}
	if got, code := w.Exec("timers", "cat", "/proc/self/timerslack_ns"); code != 0 || got != want {
		t.Errorf("another: got %d, %q; want %q", code, got, want)
	}
}
