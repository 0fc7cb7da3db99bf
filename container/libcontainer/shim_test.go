//go:build linux && cgo && amd64

package libcontainer

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// runShim starts a program through the shim, outside any container, and
// returns its output, the shim's report and its exit code.
func runShim(t *testing.T, env []string, args ...string) (out string, report []byte, code int) {
	t.Helper()
	shim, err := openShim()
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.Args = append([]string{"shim", "0"}, args...)
	cmd.ExtraFiles = []*os.File{shim, w}
	cmd.Env = env
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	// The child inherits no-new-privileges of the thread that forks it; the
	// thread ends with this locked goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- err
			return
		}
		done <- cmd.Run()
	}()
	err = <-done
	w.Close()
	report = make([]byte, 8)
	n, _ := r.Read(report)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return b.String(), report[:n], cmd.ProcessState.ExitCode()
}

// TestShim shows that the program runs under the filter, found through PATH or
// by its path, and that failures are reported.
func TestShim(t *testing.T) {
	path := []string{"PATH=/nowhere:/usr/bin:/bin"}
	out, report, code := runShim(t, path, "cat", "/proc/self/status")
	if code != 0 || len(report) != 0 || !strings.Contains(out, "Seccomp:\t2\n") {
		t.Errorf("cat: got exit %d, report %x, output %q; want Seccomp: 2", code, report, out)
	}
	if out, _, _ := runShim(t, path, "/bin/sh", "-c", "cat /proc/self/status; exit 3"); !strings.Contains(out, "Seccomp:\t2\n") {
		t.Errorf("sh: the filter is not inherited: %q", out)
	}
	if out, _, code := runShim(t, path, "unshare", "-U", "true"); code == 0 || !strings.Contains(out, "not permitted") {
		t.Errorf("unshare: got exit %d, %q; want it refused", code, out)
	}
	for _, c := range []struct {
		name  string
		code  int
		errno unix.Errno
	}{
		{"no-such-program", 127, unix.ENOENT},
		{"/no/such/program", 127, unix.ENOENT},
		{"/etc/passwd", 126, unix.EACCES},
		{strings.Repeat("x", 5000), 126, unix.ENAMETOOLONG},
	} {
		_, report, code := runShim(t, path, c.name)
		if len(report) != 4 || code != c.code || unix.Errno(binary.LittleEndian.Uint32(report)) != c.errno {
			t.Errorf("%.30s: got exit %d, report %x; want %d, %d", c.name, code, report, c.code, c.errno)
		}
	}
}

// TestNoLibseccomp shows that a build without tags needs no libseccomp; that its
// containers report "Seccomp: 2" is TestIsolation's part.
func TestNoLibseccomp(t *testing.T) {
	own, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	libraries, err := own.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range libraries {
		if strings.Contains(l, "seccomp") {
			t.Errorf("this program needs %s", l)
		}
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build information")
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" && strings.Contains(s.Value, "seccomp") {
			t.Errorf("this build has the tags %s, which prove nothing", s.Value)
		}
	}
}

// TestShimHidden shows that nobody but its owner may read the shim, without
// which nobody may trace what runs it.
func TestShimHidden(t *testing.T) {
	shim, err := openShim()
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	st, err := shim.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if mode := st.Mode().Perm(); mode != 0o111 {
		t.Errorf("got mode %o, want 111", mode)
	}
}
