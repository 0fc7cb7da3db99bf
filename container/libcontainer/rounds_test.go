//go:build (system || soak) && linux && cgo && amd64

package libcontainer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// rounds are few for make test-system; make soak has many more. The variable
// PKTCLOUD_ROUNDS says how many, and PKTCLOUD_SEED repeats a run.
var rounds = 30

// TestRandomLives makes containers of all kinds, and ends them in all ways at
// any moment: by themselves, by signals, Stop and Destroy, by a Start that is
// given up, and by the death of their monitor. Again and again it looks for
// what is left on the machine and in this process.
func TestRandomLives(t *testing.T) {
	var w *world
	t.Cleanup(func() {
		if t.Failed() && w != nil {
			w.rescue()
		}
	})
	w = newWorld(t)
	seed := uint64(time.Now().UnixNano())
	for name, set := range map[string]func(uint64){
		"PKTCLOUD_ROUNDS": func(n uint64) { rounds = int(n) },
		"PKTCLOUD_SEED":   func(n uint64) { seed = n },
	} {
		if v := os.Getenv(name); v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			set(n)
		}
	}
	t.Logf("PKTCLOUD_SEED=%d", seed)
	const workers, between = 3, 5
	// What is opened once is open from now on.
	w.Start(w.Spec("warm-up", "sleep", "1000"))
	w.fresh()
	before := w.settled(inside{})
	ways := map[string]int{}
	for round := 0; round < rounds; {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for worker := range workers {
			random := rand.New(rand.NewPCG(seed, uint64(round*workers+worker)))
			wg.Go(func() {
				for i := range between {
					way, err := w.life(fmt.Sprintf("life-%d-%d", worker, i%2), random)
					mu.Lock()
					ways[way]++
					mu.Unlock()
					if err != nil {
						t.Errorf("after %d rounds, %s: %v", round, way, err)
					}
				}
			})
		}
		wg.Wait()
		round += workers * between
		w.fresh()
		if t.Failed() {
			t.FailNow() // what is left is known
		}
		if after := w.settled(before); after.beyond(before) {
			t.Fatalf("after %d rounds this process has %+v, before them %+v", round, after, before)
		}
	}
	t.Logf("%d rounds: %v; this process has %+v", rounds, ways, before)
}

// fresh destroys all, looks for what is left, and opens the runtime anew.
func (w *world) fresh() {
	w.T.Helper()
	w.DestroyAll()
	if err := w.RT.Close(); err != nil {
		w.T.Fatal(err)
	}
	w.CheckClean()
	w.Open()
}

// life is one container's. Whatever happens to it, Destroy ends it, or the last
// one does.
func (w *world) life(id string, random *rand.Rand) (way string, err error) {
	ctx := context.Background()
	scripts := []string{
		"exit 3", "exec sleep 1000", "trap 'exit 4' TERM; while :; do sleep 0.02; done", "while :; do echo flood flood flood; done",
		"sleep 1000 & sleep 1000 & wait", "dd if=/dev/zero of=/dev/null bs=200M count=1", "dd if=/dev/zero of=/big bs=64k; exec sleep 1000",
		"echo held > /dev/shm/x; exec nc -ll -p 80 -e cat", "i=0; while [ $i -lt 99 ]; do sleep 9 & i=$((i+1)); done", "nowhere",
	}
	script := random.IntN(len(scripts))
	spec := w.Spec(id, boxtest.Sh(scripts[script])...)
	if scripts[script] == "nowhere" {
		spec.Args = []string{"/nowhere"}
	}
	if random.IntN(5) == 0 {
		brief, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(150))*time.Millisecond)
		defer cancel()
		err = w.RT.Start(brief, spec)
	} else {
		err = w.RT.Start(ctx, spec)
	}
	switch {
	case errors.Is(err, container.CodeConflict): // an earlier one of this id was left
		return "taken", w.RT.Destroy(ctx, id)
	case err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, container.CodeProgram):
		return "start", err
	}
	time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
	l := limits
	l.MilliCPU += uint64(random.IntN(500))
	l.Pids = uint64(8 + random.IntN(90))
	end := []struct {
		name string
		run  func() error
	}{
		{"destroy", func() error { return nil }},
		{"stop", func() error { return w.RT.Stop(ctx, id, time.Duration(random.IntN(80))*time.Millisecond) }},
		{"kill", func() error { return w.RT.Signal(ctx, id, container.SIGKILL) }},
		{"term", func() error { return w.RT.Signal(ctx, id, container.SIGTERM) }},
		{"pause", func() error { return w.RT.Pause(ctx, id) }},
		{"crash", func() error { return w.killMonitor(id) }},
		{"pause and crash", func() error { return errors.Join(w.RT.Pause(ctx, id), w.killMonitor(id)) }},
		{"update", func() error { return w.RT.Update(ctx, id, l) }},
		{"exec", func() error {
			brief, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(150))*time.Millisecond)
			defer cancel()
			_, err := w.RT.Exec(brief, id, container.ExecSpec{Args: boxtest.Sh("sleep 0.05"), Stdout: &bytes.Buffer{}})
			return err
		}},
		{"dial", func() error {
			c, err := w.RT.Dial(ctx, id, 80)
			if err == nil {
				_ = c.Close()
			}
			return err
		}},
		{"leave", nil},
	}[random.IntN(11)]
	if end.run == nil {
		return end.name, nil
	}
	err = end.run()
	if known(err) {
		err = nil
	}
	return end.name, errors.Join(err, w.RT.Destroy(ctx, id))
}

// known are refusals that a container's early end, or a full one, explains.
func known(err error) bool {
	for _, code := range []container.Code{container.CodeNotRunning, container.CodeNotFound, container.CodePortRefused, container.CodeDoesNotFit, container.CodeRuntime} {
		if errors.Is(err, code) {
			return true
		}
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// killMonitor is a crash of the process that holds a container.
func (w *world) killMonitor(id string) error {
	var pid int
	b, err := os.ReadFile(filepath.Join(w.Dir, "run", "boxes", id, "alive"))
	if err != nil {
		return &container.Error{Code: container.CodeNotFound}
	}
	if _, err := fmt.Sscan(string(b), &pid); err != nil || pid <= 1 {
		return nil
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !strings.Contains(string(cmdline), w.Dir) {
		return nil // it has ended
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	return nil
}

// inside is what this process holds.
type inside struct{ files, namespaces, mounts, children, goroutines int }

func (a inside) beyond(b inside) bool {
	return a.files > b.files || a.namespaces > b.namespaces || a.mounts > b.mounts || a.children > b.children || a.goroutines > b.goroutines
}

func (w *world) inside() inside {
	var n inside
	fds, _ := os.ReadDir("/proc/self/fd")
	n.files = len(fds)
	for _, f := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + f.Name())
		if kind, _, ok := strings.Cut(to, ":["); ok && strings.Contains("net mnt pid user uts ipc cgroup", kind) {
			n.namespaces++
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, w.Dir) || strings.Contains(line, " - nsfs ") {
			n.mounts++
		}
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		n.children += len(strings.Fields(string(b)))
	}
	n.goroutines = runtime.NumGoroutine()
	return n
}

// settled gives what ends by itself a moment: until no more is there than before
// or, where that is not known, until nothing changes. Other tests may have left
// something to this process.
func (w *world) settled(before inside) inside {
	var last inside
	same := 0
	for deadline := time.Now().Add(boxtest.Patience / 2); ; time.Sleep(20 * time.Millisecond) {
		n := w.inside()
		if same++; n != last {
			last, same = n, 0
		}
		done := before.files > 0 && !n.beyond(before) || before.files == 0 && same >= 25
		if done || time.Now().After(deadline) {
			return n
		}
	}
}

// rescue removes what a failed test has left on the machine, so that what leaks
// in a test of this test does not stay.
func (w *world) rescue() {
	if w.Dir == "" {
		return
	}
	for range 3 {
		for _, left := range w.Traces() {
			switch {
			case strings.HasPrefix(left, "/proc/"):
				if pid, err := strconv.Atoi(strings.Split(left, "/")[2]); err == nil && pid != os.Getpid() {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			case strings.HasPrefix(left, "/sys/block/"):
				if f, err := os.OpenFile("/dev/"+strings.Split(left, "/")[3], os.O_RDWR, 0); err == nil {
					_ = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
					_ = f.Close()
				}
			case strings.HasPrefix(left, "/sys/fs/cgroup/"):
				for _, group := range append(under(left), left) {
					_ = os.WriteFile(filepath.Join(group, "freezer.state"), []byte("THAWED"), 0)
					_ = os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte("0"), 0)
					_ = os.Remove(group)
				}
			default:
				_ = os.Remove(left)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func under(dir string) []string {
	all, _ := filepath.Glob(dir + "/*/")
	return all
}
