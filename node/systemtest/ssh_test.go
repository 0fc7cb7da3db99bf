//go:build system

package systemtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSSH enters a lease with the OpenSSH of this machine, as the configuration
// that the node prints tells it to: a program, a terminal that changes its size,
// a forwarded port; and a server with another host key is refused.
func TestSSH(t *testing.T) {
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	l := w.rent()
	w.paidIntervals(l.ID, 1)
	config := filepath.Join(w.dir, "ssh config")
	if err := os.WriteFile(config, []byte(w.run("ssh-config", "--dir", w.tenant.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	host := l.Label + ".pktcloud"
	ssh := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "ssh", append([]string{"-F", config}, args...)...)
	}

	t.Run("program", func(t *testing.T) {
		cmd := ssh(host, "cat; echo $((6 * 7)) >&2; exit 7")
		cmd.Stdin = strings.NewReader("from here\n")
		var out, warn strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &warn
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("ended with %v, want exit code 7", err)
		}
		if out.String() != "from here\n" || warn.String() != "42\n" {
			t.Errorf("got %q and %q", &out, &warn)
		}
	})
	t.Run("the command", func(t *testing.T) {
		out, err := exec.Command(w.bin, "ssh", "--dir", w.tenant.dir, l.Label, "-q", "echo", "entered").Output()
		if string(out) != "entered\n" || err != nil {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("terminal", func(t *testing.T) { enterOnTerminal(t, ssh("-tt", host)) })
	t.Run("forward", func(t *testing.T) {
		socket := filepath.Join(w.dir, "l")
		cmd := ssh("-N", "-o", "ExitOnForwardFailure=yes", "-L", socket+":localhost:8080", host)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		through := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}
		defer through.CloseIdleConnections()
		eventually(t, "the page is read through the forwarded port", func() (bool, error) {
			answer, err := (&http.Client{Transport: through}).Get("http://lease/")
			if err != nil {
				return false, err
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			return string(body) == page, err
		})
	})
	t.Run("files", func(t *testing.T) { copyFiles(t, config, host) })
	t.Run("another host key", func(t *testing.T) {
		key := filepath.Join(w.tenant.dir, "ssh_host_ed25519_key")
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		// The client was told of one key, and meets another.
		known := filepath.Join(w.dir, "known")
		line := w.run("ssh-known-hosts", "--dir", w.tenant.dir, host)
		if err := errors.Join(os.WriteFile(known, []byte(line), 0o600), os.Remove(key)); err != nil {
			t.Fatal(err)
		}
		out, err := ssh("-o", "KnownHostsCommand=none", "-o", "UserKnownHostsFile="+known, host, "echo", "entered").CombinedOutput()
		if err == nil || strings.Contains(string(out), "entered") || !strings.Contains(string(out), "Host key verification failed") {
			t.Errorf("got %v, %s", err, out)
		}
	})
	t.Run("no such lease", func(t *testing.T) {
		out, err := ssh("nothing.pktcloud", "true").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "nothing") {
			t.Errorf("got %v, %s", err, out)
		}
	})
	w.closeLease(l.ID)
}

// enterOnTerminal runs a client that asks for a shell, on a terminal of its own, and
// changes that terminal's size.
func enterOnTerminal(t *testing.T, cmd *exec.Cmd) {
	near, far := openTerminal(t, 80, 24)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(near); s.Scan(); {
			lines <- strings.TrimSpace(s.Text())
		}
	}()
	size := func(want string) {
		t.Helper()
		for deadline := time.After(patience); ; {
			fmt.Fprintln(near, "stty size")
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the shell ended before it said %q", want)
				}
				if line == want {
					return
				}
			case <-time.After(time.Second): // it may not have heard of the size yet
			case <-deadline:
				t.Fatalf("the shell never said %q", want)
			}
		}
	}
	size("24 80")
	if err := unix.IoctlSetWinsize(int(near.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	size("50 132")
	fmt.Fprintln(near, "exit 5")
	go func() {
		for range lines { // the client ends once all was read
		}
	}()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("ended with %v, want exit code 5", err)
	}
}

// openTerminal makes a terminal of some columns and rows and returns both ends.
func openTerminal(t *testing.T, cols, rows uint16) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	n, err := unix.IoctlGetInt(int(near.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(near.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(near.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}
	if err != nil {
		t.Fatal(err)
	}
	if far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// copyFiles brings files into a lease and back, with OpenSSH's clients: nothing in the
// image serves them.
func copyFiles(t *testing.T, config, host string) {
	dir := t.TempDir()
	there, back := filepath.Join(dir, "site"), filepath.Join(dir, "back")
	data := bytes.Repeat([]byte("0123456789abcdef\n"), 100_000)
	then := time.Unix(1_700_000_000, 0)
	if err := os.MkdirAll(filepath.Join(there, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		file := filepath.Join(there, "a", "b", fmt.Sprint(i))
		if err := errors.Join(os.WriteFile(file, data[i:], 0o640), os.Chtimes(file, then, then)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{there, host + ":/site"}, {host + ":/site", back}} {
		if out, err := exec.Command("scp", append([]string{"-q", "-p", "-r", "-F", config}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("scp %q: %v, %s", args, err, out)
		}
	}
	for i := range 20 {
		file := filepath.Join(back, "a", "b", fmt.Sprint(i))
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, data[i:]) {
			t.Errorf("%s has %d bytes, %v; want %d", file, len(got), err, len(data)-i)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 || !info.ModTime().Equal(then) {
			t.Errorf("%s came back as %v", file, info)
		}
	}
	cmd := exec.Command("sftp", "-q", "-b", "-", "-F", config, host)
	cmd.Stdin = strings.NewReader("cd /site/a/b\nrename 0 zero\nrm 1\nls -1\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "zero\n") || strings.Contains(string(out), "\n1 ") {
		t.Errorf("sftp: %v, %s", err, out)
	}
}
