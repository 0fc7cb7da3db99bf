//go:build system

package systemtest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestExecEndsWithItsClient kills the command that runs a program in a lease,
// and wants the program in the container gone: also when it was given more
// input than it reads, so that all in between wait for it [API-11] [SESSION-6].
func TestExecEndsWithItsClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	l := w.rent()
	w.paidIntervals(l.ID, 1)
	for i, c := range []struct {
		name  string
		stdin io.Reader
		args  []string
	}{
		{"no input", nil, nil},
		{"unread input", endlessInput{}, nil},
		{"a terminal", nil, []string{"--tty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := []string{"/bin/busybox", "sleep", fmt.Sprintf("9%d%07d", i, os.Getpid())}
			args := append([]string{"exec", "--dir", w.tenant.dir}, c.args...)
			cmd := exec.Command(w.bin, append(append(args, l.Label, "--"), program...)...)
			if c.stdin != nil {
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					io.Copy(in, c.stdin) // until the command is killed
					in.Close()
				}()
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Kill()
				cmd.Wait()
			})
			eventually(t, "the program runs", func() (bool, error) { return runs(program), nil })
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the program is gone", func() (bool, error) { return !runs(program), nil })
		})
	}
	w.reach(l)
	w.closeLease(l.ID)
	w.clean()
}

// endlessInput is input that never ends.
type endlessInput struct{}

func (endlessInput) Read(b []byte) (int, error) { return len(b), nil }

// runs reports whether a process on this machine, containers included, has
// exactly this command line.
func runs(args []string) bool {
	var want string
	for _, a := range args {
		want += a + "\x00"
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil && string(b) == want {
			return true
		}
	}
	return false
}
