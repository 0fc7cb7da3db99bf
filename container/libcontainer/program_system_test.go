//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestMonitorProgram starts a container whose monitor is the small program,
// from a file that nothing can change.
func TestMonitorProgram(t *testing.T) {
	w := newWorld(t)
	program := w.BuildMonitor()
	w.Config.Monitor = program
	w.Reopen()
	w.Start(w.Spec("small", "sleep", "1000"))
	exe := monitorOf(t, w.Box("small"))
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const whole = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&whole != whole {
		t.Errorf("the monitor's program has the seals %x, %v; want %x", seals, err, whole)
	}
	if b, err := os.ReadFile(exe); err != nil || !bytes.Equal(b, program) {
		t.Errorf("the monitor is another program: %v", err)
	}
	if out, code := w.Exec("small", "cat", "/proc/self/status"); code != 0 || !strings.Contains(out, "Seccomp:\t2\n") {
		t.Errorf("exec: got %d, %q", code, out)
	}
	w.Reopen()
	if s, err := w.RT.Status(t.Context(), "small"); err != nil || s.State != container.Running {
		t.Errorf("after the node: got %v, %v", s.State, err)
	}
}

// monitorOf returns the path of the program of a container's monitor.
func monitorOf(t *testing.T, dir string) string {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lines {
		if b, _ := os.ReadFile(f); strings.TrimRight(string(b), "\x00") == "pktcloud-monitor\x00"+dir {
			return filepath.Join(filepath.Dir(f), "exe")
		}
	}
	t.Fatalf("no monitor of %s", dir)
	return ""
}
