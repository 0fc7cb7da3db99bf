//go:build linux && cgo && amd64

package libcontainer

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReaperClose closes a reaper that has not come to wait for one that ended:
// it leaves no zombie, and lets go of one that runs on.
func TestReaperClose(t *testing.T) {
	r := &reaper{done: make(chan struct{}), pids: map[int]int{}}
	close(r.done) // as if it had just seen that it is to end
	if err := unix.Pipe2(r.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	begin := func(args ...string) int {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		fd, err := unix.PidfdOpen(pid, 0)
		if err = errors.Join(err, cmd.Process.Release(), r.add(pid, fd)); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	ended, running := begin("/bin/true"), begin("/bin/sleep", "1000")
	defer func() {
		_ = unix.Kill(running, unix.SIGKILL)
		_, _ = unix.Wait4(running, nil, 0, nil)
	}()
	for deadline := time.Now().Add(time.Minute); !dying(ended); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(ended, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("one that ended: got %v, want it waited for", err)
	}
	if err := unix.Kill(running, 0); err != nil {
		t.Errorf("one that runs: %v", err)
	}
}

// TestUninterrupted makes a call until no signal ends it. That starts use it
// TestStandbyInterrupted shows.
func TestUninterrupted(t *testing.T) {
	calls := 0
	err := uninterrupted(func() error {
		if calls++; calls < 3 {
			return unix.EINTR
		}
		return unix.ENOSPC
	})
	if calls != 3 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %d calls and %v, want three and what the last said", calls, err)
	}
}
