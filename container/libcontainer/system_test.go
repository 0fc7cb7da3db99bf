//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// These tests need root, cgroups, loop devices and /usr/bin/busybox (package
// busybox-static). Each ends by looking for what its runtime may have left on
// the machine.

const busybox = "/usr/bin/busybox"

// world is a runtime over a store that has one image.
type world struct {
	t     *testing.T
	dir   string
	ref   string
	image container.Image
	store *image.Store
	rt    *libcontainer.Runtime
}

var limits = container.SmallLimits()

// newWorld needs what the machine may not have, and says so.
func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs " + busybox + " of the package busybox-static")
	}
	w := &world{t: t, dir: t.TempDir()}
	layout := filepath.Join(w.dir, "layout")
	if err := image.WriteLayout(layout, busyboxImage(t)); err != nil {
		t.Fatal(err)
	}
	w.ref = "oci:" + layout
	var err error
	if w.store, err = image.Open(image.Config{Dir: filepath.Join(w.dir, "images"), Local: true}); err != nil {
		t.Fatal(err)
	}
	w.open()
	if w.image, err = w.rt.Pull(t.Context(), w.ref, container.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.destroyAll()
		if err := errors.Join(w.rt.Close(), w.store.Close()); err != nil {
			t.Error(err)
		}
		w.checkClean()
	})
	return w
}

func (w *world) open() {
	w.t.Helper()
	rt, err := libcontainer.New(libcontainer.Config{Dir: filepath.Join(w.dir, "run"), Images: w.store})
	if err != nil {
		w.t.Fatal(err)
	}
	w.rt = rt
}

func (w *world) destroyAll() {
	w.t.Helper()
	all, err := w.rt.List(context.Background())
	if err != nil {
		w.t.Error(err)
	}
	for _, s := range all {
		if err := w.rt.Destroy(context.Background(), s.ID); err != nil {
			w.t.Error(err)
		}
	}
}

func busyboxImage(t *testing.T) v1.Image {
	t.Helper()
	files := map[string]image.File{
		"/bin/busybox": {Source: busybox, Mode: 0o755},
		"/www/index":   {Data: []byte("a page\n")},
		"/etc/passwd":  {Data: []byte("root:x:0:0::/:/bin/sh\nweb:x:33:44::/www:/bin/sh\n")},
		"/etc/group":   {Data: []byte("root:x:0:\nweb:x:44:\nlogs:x:45:web\n")},
	}
	for name := range strings.FieldsSeq("sh cat echo nc sleep true unshare env id grep dd mount ls httpd stty chown mknod touch wget ip kill hostname") {
		files["/bin/"+name] = image.File{Link: "busybox"}
	}
	img, err := image.FromFiles(image.Build{Files: files, Args: []string{"sleep", "1000"}, Env: []string{"FROM=image"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func (w *world) spec(id string, args ...string) container.Spec {
	return container.Spec{ID: id, Image: w.image.Digest, Args: args, Limits: limits}
}

func (w *world) start(s container.Spec) {
	w.t.Helper()
	if err := w.rt.Start(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
}

// exec returns what a program wrote, and its exit code.
func (w *world) exec(id string, args ...string) (string, int) {
	w.t.Helper()
	var b bytes.Buffer
	code, err := w.rt.Exec(w.t.Context(), id, container.ExecSpec{Args: args, Stdout: &b, Stderr: &b})
	if err != nil {
		w.t.Fatal(err)
	}
	return b.String(), code
}

// await polls a container until it is as wanted.
func (w *world) await(id string, want func(container.Status) bool) container.Status {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		s, err := w.rt.Status(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		if want(s) {
			return s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("got %+v for too long", s)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func exited(s container.Status) bool { return s.State == container.Exited }

// traces are what this runtime's containers might leave on the machine, which
// others use too.
func (w *world) traces() []string {
	w.t.Helper()
	sum := sha256.Sum256([]byte(filepath.Join(w.dir, "run")))
	group := "/pktcloud-" + hex.EncodeToString(sum[:4])
	out, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
	more, _ := filepath.Glob("/sys/fs/cgroup" + group)
	out = append(out, more...)
	for _, pattern := range []string{"/sys/block/loop*/loop/backing_file", "/proc/[0-9]*/cmdline", "/proc/[0-9]*/cgroup", "/proc/[0-9]*/mountinfo"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			if b, _ := os.ReadFile(f); bytes.Contains(b, []byte(w.dir)) || bytes.Contains(b, []byte(group)) {
				out = append(out, f)
			}
		}
	}
	return out
}

// checkClean allows the kernel a moment.
func (w *world) checkClean() {
	w.t.Helper()
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := w.traces()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Errorf("left on the machine: %s", strings.Join(left, "\n"))
			return
		}
	}
}

func TestKit(t *testing.T) {
	w := newWorld(t)
	err := containertest.TestRuntime(w.rt, containertest.Fixture{
		Ref: w.ref, UnknownRef: "oci:/no/such/layout",
		Serve: sh("echo serving; exec nc -ll -p 8080 -e echo hello"), Port: 8080,
		Exit: func(code int) []string { return sh(fmt.Sprintf("echo out; echo err >&2; exit %d", code)) },
		Cat:  []string{"cat"}, Env: sh("echo $NAME"), Limits: limits,
	})
	if err != nil {
		t.Error(err)
	}
}

// TestIsolation looks at a container from the inside.
func TestIsolation(t *testing.T) {
	w := newWorld(t)
	const id = "inside"
	w.start(w.spec(id, sh("cat /proc/self/status; exec sleep 1707")...))
	has := func(rule, want string, args ...string) {
		t.Helper()
		if got, _ := w.exec(id, args...); !strings.Contains(got, want) {
			t.Errorf("%s: %v printed %q, want %q", rule, args, got, want)
		}
	}
	fails := func(rule string, args ...string) {
		t.Helper()
		if got, code := w.exec(id, args...); code == 0 {
			t.Errorf("%s: %v succeeded: %q", rule, args, got)
		}
	}
	w.await(id, func(container.Status) bool { return strings.Contains(w.logs(id), "nonvoluntary") })
	own := w.logs(id)
	for _, want := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(own, want) {
			t.Errorf("the first process: no %q in its status:\n%s", want, own)
		}
		has("an exec'd process", want, "cat", "/proc/self/status")
	}
	has("capabilities", "CapBnd:\t00000000000004fb\n", "cat", "/proc/self/status")
	has("user", "uid=0(root) gid=0(root)", "id")
	has("processes", "\n", "sh", "-c", "test $(ls /proc | grep -c '^[0-9]') -le 6 && echo")
	has("network", "1: lo: <LOOPBACK,UP", "ip", "link")
	fails("network", "sh", "-c", "ip link | grep -q '^2:'")
	has("host name", "inside", "hostname")
	fails("new namespaces", "unshare", "-U", "true")
	fails("mounting", "mount", "-t", "tmpfs", "x", "/www")
	fails("devices", "mknod", "/null", "c", "1", "3")
	fails("masked paths", "grep", "-q", ".", "/proc/kcore")
	fails("read-only paths", "sh", "-c", "echo 1 > /proc/sys/vm/drop_caches")
	fails("read-only /sys", "touch", "/sys/x")
	fails("host paths in mounts", "grep", "-q", w.dir, "/proc/mounts")
	has("devices", "full\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n", "sh", "-c", "ls /dev | grep -v '^core\\|^fd$'")
	has("writing", "mine\n", "sh", "-c", "echo mine > /etc/new && cat /etc/new")
	has("image files", "0", "sh", "-c", "ls -ln /www/index")
	if _, root, _, err := w.store.Root(w.image.Digest); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(filepath.Join(root, "etc/new")); err == nil {
		t.Error("a container wrote into the shared image")
	}
	if left := w.traces(); len(left) < 4 {
		t.Errorf("the search for traces finds only %v of a running container", left)
	}
	if uid := w.hostUID("sleep\x001707"); uid < 1<<30 {
		t.Errorf("the container's root is %d on the host, want a shifted id", uid)
	}
}

// hostUID finds a process by its command line and returns its user.
func (w *world) hostUID(cmdline string) int {
	w.t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		b, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if !strings.HasPrefix(string(b), cmdline) {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(p, "status"))
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Uid:" {
				uid, _ := strconv.Atoi(f[1])
				return uid
			}
		}
	}
	w.t.Fatalf("no process %q", cmdline)
	return 0
}

// TestOwnIDs shows that two containers never share ids, and that a runtime
// opened again remembers.
func TestOwnIDs(t *testing.T) {
	w := newWorld(t)
	w.start(w.spec("a", "sleep", "2001"))
	if err := w.rt.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.start(w.spec("b", "sleep", "2002"))
	a, b := w.hostUID("sleep\x002001"), w.hostUID("sleep\x002002")
	if a == b || a%65536 != 0 || b%65536 != 0 {
		t.Errorf("got root %d and %d", a, b)
	}
}

func TestUser(t *testing.T) {
	w := newWorld(t)
	s := w.spec("user", "sh", "-c", "id; pwd; touch mine && ls -ln mine; exec sleep 1000")
	s.User, s.WorkDir = "web", "/www/new/dir"
	w.start(s)
	w.await("user", func(container.Status) bool { return strings.Contains(w.logs("user"), "mine") })
	for _, want := range []string{"uid=33(web) gid=44(web) groups=45(logs)", "/www/new/dir\n", "33       44"} {
		if got := w.logs("user"); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, _ := w.exec("user", "id"); !strings.Contains(got, "uid=33(web)") {
		t.Errorf("an exec'd process: got %q", got)
	}
	s = w.spec("nobody", "id")
	s.User = "no-such-user"
	if err := w.rt.Start(t.Context(), s); !errors.Is(err, container.CodeInvalidSpec) {
		t.Errorf("an unknown user: got %v", err)
	}
}

func (w *world) logs(id string) string {
	w.t.Helper()
	r, err := w.rt.Logs(w.t.Context(), id, container.LogOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	t.Run("memory", func(t *testing.T) {
		w.start(w.spec("memory", sh("x=$(dd if=/dev/zero bs=1M count=200 | busybox tr '\\0' x); echo ${#x}")...))
		// busybox's shell itself is what grows.
		if s := w.await("memory", exited); !s.OOMKilled || s.ExitCode == 0 {
			t.Errorf("got %+v, want it killed for memory", s)
		}
	})
	t.Run("pids", func(t *testing.T) {
		s := w.spec("pids", sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; sleep 1000")...)
		s.Limits.Pids = 8
		w.start(s)
		w.await("pids", func(s container.Status) bool {
			return s.State == container.Exited || strings.Contains(w.logs("pids"), "fork")
		})
	})
	t.Run("disk", func(t *testing.T) {
		w.start(w.spec("disk", sh("dd if=/dev/zero of=/big bs=1M count=64; echo left; rm -f /big; echo ok > /small && cat /small")...))
		w.await("disk", exited)
		if got := w.logs("disk"); !strings.Contains(got, "No space left") || !strings.Contains(got, "stdout ok") {
			t.Errorf("got %q, want the disk to be full and usable after", got)
		}
	})
	t.Run("cpu", func(t *testing.T) {
		s := w.spec("cpu", sh("while :; do :; done")...)
		s.Limits.MilliCPU = 100
		w.start(s)
		first, begun := w.await("cpu", func(s container.Status) bool { return s.CPUTime > 0 }), time.Now()
		time.Sleep(time.Second)
		now, err := w.rt.Status(t.Context(), "cpu")
		if err != nil {
			t.Fatal(err)
		}
		if used, most := now.CPUTime-first.CPUTime, time.Since(begun)/4; used > most {
			t.Errorf("used %v of a processor in %v, want a tenth", used, time.Since(begun))
		}
	})
}

// TestFrozenFromOutside freezes a control group behind the runtime's back.
func TestFrozenFromOutside(t *testing.T) {
	w := newWorld(t)
	w.start(w.spec("frozen", sh("exec nc -ll -p 80 -e echo hello")...))
	files, _ := filepath.Glob("/sys/fs/cgroup/freezer/pktcloud-*/frozen/freezer.state")
	words := [2]string{"FROZEN", "THAWED"}
	if len(files) == 0 {
		files, _ = filepath.Glob("/sys/fs/cgroup/pktcloud-*/frozen/cgroup.freeze")
		words = [2]string{"1", "0"}
	}
	if len(files) != 1 {
		t.Fatalf("got control groups %v, want one", files)
	}
	for i, want := range []container.State{container.Paused, container.Running} {
		if err := os.WriteFile(files[0], []byte(words[i]), 0); err != nil {
			t.Fatal(err)
		}
		w.await("frozen", func(s container.Status) bool { return s.State == want })
	}
	if err := os.WriteFile(files[0], []byte(words[0]), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.rt.Resume(t.Context(), "frozen"); err != nil {
		t.Error(err)
	}
	w.await("frozen", func(s container.Status) bool { return s.State == container.Running })
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	w.start(w.spec("tty", "sleep", "1000"))
	var out bytes.Buffer
	resize := make(chan container.Size, 1)
	r, in := io.Pipe()
	go func() {
		_, _ = io.WriteString(in, "stty size\n")
		time.Sleep(300 * time.Millisecond)
		resize <- container.Size{Cols: 132, Rows: 43}
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(in, "stty size; test -t 0 && exit 5\n")
	}()
	code, err := w.rt.Exec(t.Context(), "tty", container.ExecSpec{
		Args: []string{"sh"}, TTY: true, Size: container.Size{Cols: 80, Rows: 24}, Stdin: r, Stdout: &out, Resize: resize,
	})
	_ = in.Close()
	if err != nil || code != 5 || !strings.Contains(out.String(), "24 80") || !strings.Contains(out.String(), "43 132") {
		t.Errorf("got %d, %v, %q", code, err, out.String())
	}
}

// TestDialHTTPD fetches a page from a server inside.
func TestDialHTTPD(t *testing.T) {
	w := newWorld(t)
	w.start(w.spec("web", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"))
	var got []byte
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && len(got) == 0; time.Sleep(5 * time.Millisecond) {
		c, err := w.rt.Dial(t.Context(), "web", 8080)
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
	if err := w.rt.Close(); err != nil {
		t.Fatal(err)
	}
	rt, err := libcontainer.New(libcontainer.Config{Dir: filepath.Join(w.dir, "run"), Images: w.store, LogBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	w.rt = rt
	w.start(w.spec("log", sh("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done")...))
	w.await("log", exited)
	got := w.logs("log")
	if len(got) > 64<<10 || len(got) < 24<<10 || !strings.HasSuffix(got, "stdout line 4999\n") {
		t.Errorf("kept %d bytes, ending in %q", len(got), got[max(0, len(got)-60):])
	}
}
