//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestFiles reads and writes a container's files by the file server, which is a
// program like the container's own: the same user, filter and limits, and nothing
// of it is left when its client has gone [CONTAINER-130].
func TestFiles(t *testing.T) {
	w := newWorld(t)
	if _, err := w.RT.Exec(t.Context(), "none", container.ExecSpec{Files: true, Args: []string{"sh"}}); !errors.Is(err, container.CodeInvalidSpec) {
		t.Errorf("files and a program: %v", err)
	}
	w.Start(w.Spec("files", "sleep", "1000"))
	if _, err := w.RT.Exec(t.Context(), "files", container.ExecSpec{Files: true}); !errors.Is(err, container.CodeMissingFeature) {
		t.Errorf("without a file server: %v", err)
	}
	w.Config.Files = w.BuildFileServer()
	w.Reopen()

	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		code, err := w.RT.Exec(t.Context(), "files", container.ExecSpec{Files: true, Stdin: in, Stdout: out})
		out.Close()
		ended <- end{code, err}
	}()
	c, err := sftp.NewClientPipe(fromServer, toServer)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("0123456789abcdef\n", 20_000)
	f, err := c.Create("/long")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.ReadFrom(strings.NewReader(long))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1_700_000_000, 0)
	if err := errors.Join(c.Chmod("/long", 0o640), c.Chtimes("/long", then, then)); err != nil {
		t.Error(err)
	}
	w.Has("files", "the file that was written", "340000 640 1700000000\n", "busybox", "stat", "-c", "%s %a %Y", "/long")
	if got, err := readFile(c, "/long"); got != long || err != nil {
		t.Errorf("read %d bytes of %d, %v", len(got), len(long), err)
	}
	if _, err := c.Stat(w.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory of the machine: %v", err)
	}
	if status, err := readFile(c, "/proc/self/status"); err != nil || !strings.Contains(status, "Seccomp:\t2\n") || !strings.Contains(status, "NoNewPrivs:\t1\n") {
		t.Errorf("the file server runs without the container's filter: %v\n%s", err, status)
	}
	if exe, err := c.OpenFile("/proc/self/exe", os.O_WRONLY); err == nil {
		exe.Close()
		t.Error("the file server can be written over")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if e := <-ended; e.code != 0 || e.err != nil {
		t.Errorf("ended with %d, %v", e.code, e.err)
	}
	w.Fails("files", "a file server that nobody uses", "sh", "-c", "busybox ps | busybox grep -v grep | busybox grep fd/5")
}

func readFile(c *sftp.Client, path string) (string, error) {
	f, err := c.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}
