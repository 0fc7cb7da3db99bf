//go:build linux && cgo && amd64

package boxtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// OnFileSystem returns a directory on a file system of its own, for a world that
// may fill it.
func OnFileSystem(t *testing.T, kind string, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	base := t.TempDir()
	image, at := filepath.Join(base, "host.img"), filepath.Join(base, "at")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(at, 0o700)); err != nil {
		t.Fatal(err)
	}
	mkfs := "/usr/sbin/mkfs." + kind
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", mkfs, err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(at, "w")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// FillDisk leaves no space on the file system of the world, which it has for
// itself, see [OnFileSystem].
func (w *World) FillDisk() {
	w.T.Helper()
	f, err := os.Create(filepath.Join(w.Dir, "full"))
	if err != nil {
		w.T.Fatal(err)
	}
	defer f.Close()
	end := int64(0)
	for step := int64(64 << 20); step >= 4096; { // set aside, which takes no time
		switch err := unix.Fallocate(int(f.Fd()), 0, end, step); {
		case err == nil:
			end += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			w.T.Fatal(err)
		}
	}
	if _, err := f.Seek(end, 0); err != nil {
		w.T.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		w.T.Fatal(err)
	}
}

// FullDisk has the machine's disk full, of which the world has one of some 256
// MiB: a container that runs can still be used, also for the first time, and be
// ended. A new one is refused with a code.
func FullDisk(w *World) {
	w.T.Helper()
	w.Start(w.Spec("used", "sleep", "1000"))
	w.Start(w.Spec("terminal", "sleep", "1000"))
	w.FillDisk()
	for range 2 {
		if got, code := w.Exec("used", "echo", "here"); code != 0 || got != "here\n" {
			w.T.Errorf("got %d, %q", code, got)
		}
	}
	var out bytes.Buffer
	code, err := w.RT.Exec(w.T.Context(), "terminal", container.ExecSpec{Args: []string{"echo", "here"}, TTY: true, Stdout: &out})
	if err != nil || code != 0 || out.String() != "here\r\n" {
		w.T.Errorf("on a terminal: got %d, %v, %q", code, err, out.String())
	}
	if err := w.RT.Start(w.T.Context(), w.Spec("new", "sleep", "1000")); !errors.Is(err, container.CodeDiskFull) {
		w.T.Errorf("a new container: got %v, want %q", err, string(container.CodeDiskFull))
	}
	for _, id := range []string{"used", "terminal"} {
		if err := w.RT.Destroy(w.T.Context(), id); err != nil {
			w.T.Error(err)
		}
	}
}
