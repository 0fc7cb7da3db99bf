//go:build cgo && amd64

package libcontainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// The files of one container, in its directory. Each JSON file is whole and
// durable, or not there.
const (
	recordFile  = "spec.json"    // record: what was asked; written before the monitor starts
	startedFile = "started.json" // started: the program runs
	exitFile    = "exit.json"    // exited: the program ended
	aliveFile   = "alive"        // locked as long as the monitor lives; holds its pid
	diskFile    = "disk.img"     // the writable layer
	socketFile  = "monitor.sock" // the monitor's requests
	stateDir    = "state"        // libcontainer's own
	debugFile   = "monitor.log"  // what the monitor had to complain about
	maxRecord   = 4 << 20
)

// record is what the monitor needs to know.
type record struct {
	Spec     container.Spec
	Image    container.Image
	Root     string // the unpacked image
	RootID   uint32 // the id of root in it
	FirstID  uint32 // the host's id of the container's root
	Cgroup   string
	LogBytes int64
}

// started says that the program runs, and where its limits are kept.
type started struct {
	At      time.Time
	Cgroups cgroupPaths
}

// exited is how the program ended.
type exited struct {
	At        time.Time
	Code      int
	OOMKilled bool
	CPUTime   time.Duration
}

func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, name), b)
}

// readJSON reports false for a file that is not there.
func readJSON(dir, name string, v any) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(b) > maxRecord {
		return false, fmt.Errorf("%s is larger than %d bytes", name, maxRecord)
	}
	return true, json.Unmarshal(b, v)
}

// lockAlive makes and locks the file that says a monitor lives. The lock is
// handed to the monitor with the file, so there is no moment without it.
func lockAlive(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, aliveFile), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another monitor has this container: %w", err), f.Close())
	}
	return f, nil
}

// monitorAlive reports whether the monitor of dir lives, and its pid, 0 in its
// first moments. The lock, not the pid, is the proof, so a reused pid cannot
// mislead.
func monitorAlive(dir string) (pid int, alive bool, err error) {
	f, err := os.Open(filepath.Join(dir, aliveFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return 0, false, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false, err
	}
	if _, err := fmt.Fscan(f, &pid); err != nil {
		pid = 0
	}
	return pid, true, nil
}
