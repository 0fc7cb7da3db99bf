//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// TestIsolation looks at a container from the inside.
func TestIsolation(t *testing.T) {
	w := newWorld(t)
	const id = "inside"
	w.Start(w.Spec(id, boxtest.Sh("cat /proc/self/status; exec sleep 1707")...))
	w.AwaitLog(id, "nonvoluntary")
	own := w.Logs(id)
	for _, want := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(own, want) {
			t.Errorf("the first process: no %q in its status:\n%s", want, own)
		}
		w.Has(id, "an exec'd process", want, "cat", "/proc/self/status")
	}
	boxtest.Isolated(w.World, id)
	w.Fails(id, "masked paths", "grep", "-q", ".", "/proc/kcore")
	w.Fails(id, "read-only paths", "sh", "-c", "echo 1 > /proc/sys/vm/drop_caches")
	w.Has(id, "devices", "full\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n", "sh", "-c", "ls /dev | grep -v '^core\\|^fd$'")
	if left := w.Traces(); len(left) < 4 {
		t.Errorf("the search for traces finds only %v of a running container", left)
	}
	if uid := w.hostUID("sleep\x001707"); uid < 0x70000000 {
		t.Errorf("the container's root is %d on the host, want a shifted id", uid)
	}
}

// hostUID finds a process by its command line and returns its user.
func (w *world) hostUID(cmdline string) int {
	w.T.Helper()
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.hostPID(cmdline)))
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Uid:" {
			uid, _ := strconv.Atoi(f[1])
			return uid
		}
	}
	w.T.Fatalf("process %q has no user", cmdline)
	return 0
}

// TestOwnIDs shows that two containers never share ids, that a runtime opened
// again remembers, that two runtimes of one machine know of each other, and that
// a destroyed container's ids are free.
func TestOwnIDs(t *testing.T) {
	w := newWorld(t)
	w.Config.IDs = filepath.Join(w.Dir, "ids") // what is freed nobody else takes
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	w.Open()
	w.Start(w.Spec("a", "sleep", "2001"))
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	w.Open()
	w.Start(w.Spec("b", "sleep", "2002"))
	a, b := w.hostUID("sleep\x002001"), w.hostUID("sleep\x002002")
	other, err := libcontainer.New(libcontainer.Config{Dir: w.otherDir(), Images: w.Store, IDs: w.Config.IDs})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	defer other.Destroy(context.Background(), "c")
	if err := other.Start(t.Context(), w.Spec("c", "sleep", "2003")); err != nil {
		t.Fatal(err)
	}
	c := w.hostUID("sleep\x002003")
	if a == b || b == c || a == c || a%65536 != 0 || b%65536 != 0 || c%65536 != 0 {
		t.Errorf("got root %d, %d and %d", a, b, c)
	}
	if err := w.RT.Destroy(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := other.Destroy(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	// Its own range a container of the same name might have had again anyway.
	defer other.Destroy(context.Background(), "d")
	if err := other.Start(t.Context(), w.Spec("d", "sleep", "2004")); err != nil {
		t.Fatal(err)
	}
	if got := w.hostUID("sleep\x002004"); got == b || got > max(a, c) {
		t.Errorf("got root %d, want one that was freed: %d or %d", got, a, c)
	}
}

func TestUser(t *testing.T) { boxtest.User(newWorld(t).World) }

func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.Part("memory", func() {
		// dd takes a buffer of the block's size and fills it.
		hungry := []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}
		w.Start(w.Spec("memory", hungry...))
		if s := w.Await("memory", boxtest.Exited); !s.OOMKilled || s.ExitCode != 128+9 {
			w.T.Errorf("got %+v, want it killed for memory", s)
		}
		w.Start(w.Spec("guest-memory", "sleep", "1000"))
		if s := w.Status("guest-memory"); s.OOMKilled || s.State != container.Running {
			w.T.Errorf("before: got %+v", s)
		}
		if _, code := w.Exec("guest-memory", hungry...); code != 128+9 {
			w.T.Errorf("an executed program beyond the memory limit: got exit code %d, want 137", code)
		}
		if s := w.Status("guest-memory"); !s.OOMKilled || s.State != container.Running {
			w.T.Errorf("after an executed program was killed for memory: got %+v, want that told of the running container", s)
		}
	})
	w.Part("pids", func() { boxtest.PidsLimit(w.World) })
	w.Part("disk", func() { boxtest.DiskLimit(w.World) })
	w.Part("cpu", func() { boxtest.CPULimit(w.World, 100) })
}

// TestFullDisk uses containers when the machine's disk is full [CONTAINER-97].
func TestFullDisk(t *testing.T) {
	boxtest.FullDisk(newWorldIn(t, boxtest.OnFileSystem(t, "ext4", 256<<20)).World)
}

// TestFrozenFromOutside freezes a control group behind the runtime's back.
func TestFrozenFromOutside(t *testing.T) {
	w := newWorld(t)
	w.Start(w.Spec("frozen", boxtest.Sh("exec nc -ll -p 80 -e echo hello")...))
	files, _ := filepath.Glob("/sys/fs/cgroup/freezer" + w.Group() + "/frozen/freezer.state")
	words := [2]string{"FROZEN", "THAWED"}
	if len(files) == 0 {
		files, _ = filepath.Glob("/sys/fs/cgroup" + w.Group() + "/frozen/cgroup.freeze")
		words = [2]string{"1", "0"}
	}
	if len(files) != 1 {
		t.Fatalf("got control groups %v, want one", files)
	}
	for i, want := range []container.State{container.Paused, container.Running} {
		if err := os.WriteFile(files[0], []byte(words[i]), 0); err != nil {
			t.Fatal(err)
		}
		w.Await("frozen", func(s container.Status) bool { return s.State == want })
	}
	if err := os.WriteFile(files[0], []byte(words[0]), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.RT.Resume(t.Context(), "frozen"); err != nil {
		t.Error(err)
	}
	w.Await("frozen", func(s container.Status) bool { return s.State == container.Running })
}

func TestTerminal(t *testing.T) { boxtest.Terminal(newWorld(t).World) }

// TestDialHTTPD fetches a page from a server inside.
func TestDialHTTPD(t *testing.T) {
	w := newWorld(t)
	w.Start(w.Spec("web", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"))
	var got []byte
	for deadline := time.Now().Add(boxtest.Patience); time.Now().Before(deadline) && len(got) == 0; time.Sleep(5 * time.Millisecond) {
		c, err := w.RT.Dial(t.Context(), "web", 8080)
		if err != nil {
			continue
		}
		_, _ = io.WriteString(c, "GET /index HTTP/1.0\r\n\r\n")
		got, _ = io.ReadAll(c)
		_ = c.Close()
	}
	if !strings.HasSuffix(string(got), "a page\n") {
		t.Errorf("got %q, want the page", got)
	}
}

// TestLogRotation writes more than is kept.
func TestLogRotation(t *testing.T) {
	w := newWorld(t)
	w.Config.LogBytes = 64 << 10
	w.Reopen()
	w.Start(w.Spec("log", boxtest.Sh("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done")...))
	w.Await("log", boxtest.Exited)
	got := w.Logs("log")
	if len(got) > 64<<10 || len(got) < 24<<10 || !strings.HasSuffix(got, "stdout line 4999\n") {
		t.Errorf("kept %d bytes, ending in %q", len(got), got[max(0, len(got)-60):])
	}
}
