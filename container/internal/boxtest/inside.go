//go:build linux && cgo && amd64

package boxtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Isolated looks at a container with the host name "inside" from the inside.
func Isolated(w *World, id string) {
	w.T.Helper()
	w.Has(id, "the filter of an exec'd process", "Seccomp:\t2\n", "cat", "/proc/self/status")
	w.Has(id, "capabilities", "CapBnd:\t00000000000004fb\n", "cat", "/proc/self/status")
	w.Has(id, "user", "uid=0(root) gid=0(root)", "id")
	w.Has(id, "processes", "\n", "sh", "-c", "test $(ls /proc | grep -c '^[0-9]') -le 6 && echo")
	w.Has(id, "network", "1: lo: <LOOPBACK,UP", "ip", "link")
	w.Fails(id, "network", "sh", "-c", "ip link | grep -q '^2:'")
	w.Has(id, "host name", "inside", "hostname")
	w.Fails(id, "new namespaces", "unshare", "-U", "true")
	w.Fails(id, "mounting", "mount", "-t", "tmpfs", "x", "/www")
	w.Fails(id, "devices", "mknod", "/null", "c", "1", "3")
	w.Fails(id, "read-only /sys", "touch", "/sys/x")
	w.Fails(id, "host paths in mounts", "grep", "-q", w.Dir, "/proc/mounts")
	w.Has(id, "writing", "mine\n", "sh", "-c", "echo mine > /etc/new && cat /etc/new")
	w.Has(id, "image files", "0", "sh", "-c", "ls -ln /www/index")
	if _, root, _, err := w.Store.Root(w.Image.Digest); err != nil {
		w.T.Error(err)
	} else if _, err := os.Stat(filepath.Join(root, "etc/new")); err == nil {
		w.T.Error("a container wrote into the shared image")
	}
}

// User runs a container as a user of its image, and refuses one whom that does
// not have.
func User(w *World) {
	w.T.Helper()
	s := w.Spec("user", Sh("id; pwd; touch mine && ls -ln mine; exec sleep 1000")...)
	s.User, s.WorkDir = "web", "/www/new/dir"
	w.Start(s)
	w.AwaitLog("user", "mine")
	for _, want := range []string{"uid=33(web) gid=44(web) groups=45(logs)", "/www/new/dir\n", "33       44"} {
		if got := w.Logs("user"); !strings.Contains(got, want) {
			w.T.Errorf("got %q, want %q", got, want)
		}
	}
	w.Has("user", "an exec'd process", "uid=33(web) gid=44(web) groups=45(logs)", "id")
	s = w.Spec("nobody", "id")
	s.User = "no-such-user"
	if err := w.RT.Start(w.T.Context(), s); !errors.Is(err, container.CodeInvalidSpec) {
		w.T.Errorf("an unknown user: got %v", err)
	}
}

// Part runs f as a part of the test.
func (w *World) Part(name string, f func()) {
	w.T.Helper()
	whole := w.T
	defer func() { w.T = whole }()
	whole.Run(name, func(t *testing.T) {
		w.T = t
		f()
	})
}

// PidsLimit has more processes than a container may: the last is refused, and
// none before it.
func PidsLimit(w *World) {
	w.T.Helper()
	const most = 8 // the shell and seven others
	s := w.Spec("pids", Sh("i=1; while [ $i -le 12 ]; do sleep 100 & echo begun $i; i=$((i+1)); done; echo all")...)
	s.Limits.Pids = most
	w.Start(s)
	w.Await("pids", Exited)
	got := w.Logs("pids")
	if n := strings.Count(got, "begun"); n != most-1 || !strings.Contains(got, "can't fork: Resource temporarily unavailable") || strings.Contains(got, "all\n") {
		w.T.Errorf("got %d processes besides the first, want %d and the next refused: %q", n, most-1, got)
	}
}

// DiskLimit fills the disk.
func DiskLimit(w *World) {
	w.T.Helper()
	w.Start(w.Spec("disk", Sh("dd if=/dev/zero of=/big bs=1M count=64; echo left; rm -f /big; echo ok > /small && cat /small")...))
	w.Await("disk", Exited)
	if got := w.Logs("disk"); !strings.Contains(got, "No space left") || !strings.Contains(got, "stdout ok") {
		w.T.Errorf("got %q, want the disk to be full and usable after", got)
	}
}

// CPULimit uses up what a container may have of a processor for some periods,
// and compares what the kernel counted with what it may and with what the
// runtime tells. No clock of this process has a part in it.
func CPULimit(w *World, milliCPU uint64) {
	w.T.Helper()
	s := w.Spec("cpu", Sh("while :; do :; done")...)
	s.Limits.MilliCPU = milliCPU
	w.Start(s)
	w.CompareCPU("cpu", milliCPU, func(n CPUCounters) bool { return n.Periods >= 10 })
}

// Terminal runs a program on a terminal, and makes that larger.
func Terminal(w *World) {
	w.T.Helper()
	w.Start(w.Spec("tty", "sleep", "1000"))
	var out output
	resize := make(chan container.Size, 1)
	r, in := io.Pipe()
	defer func() { _ = in.Close() }()
	go func() {
		_, _ = io.WriteString(in, "stty size\n")
		out.await("24 80")
		resize <- container.Size{Cols: 132, Rows: 43}
		_, _ = io.WriteString(in, `i=0; until stty size | grep "43 132" || test $i = 600; do i=$((i+1)); sleep 0.1; done; test -t 0 && exit 5`+"\n")
	}()
	code, err := w.RT.Exec(w.T.Context(), "tty", container.ExecSpec{
		Args: []string{"sh"}, TTY: true, Size: container.Size{Cols: 80, Rows: 24}, Stdin: r, Stdout: &out, Resize: resize,
	})
	if got := out.String(); err != nil || code != 5 || !strings.Contains(got, "\n24 80") || !strings.Contains(got, "\n43 132") {
		w.T.Errorf("got %d, %v, %q", code, err, got)
	}
}

// output is what a program has written until now.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// await waits for a text, not for ever: what comes after it fails then.
func (o *output) await(text string) {
	for deadline := time.Now().Add(Patience); !strings.Contains(o.String(), text) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}
