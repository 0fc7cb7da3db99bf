//go:build cgo && amd64

package libcontainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// The files of one container, in its directory. Each JSON file is whole or not
// there, and durable but for the moments that writeSoon allows.
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
	Groups   cgroupPaths `json:",omitempty"` // where Cgroup is, as the runtime found
	Boot     string      `json:",omitempty"` // the machine's number of the time since it was started
	LogBytes int64
	IORate   uint64    // bytes a second; 0 is unbounded
	Volumes  []string  // the directories of Spec.Volumes
	Net      netRecord `json:",omitzero"`
	// Of the class that runs it, if it is not this package's own.
	Option      string `json:",omitempty"`
	LeastMemory uint64 `json:",omitempty"`
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
	End       container.End
	Usage     container.Usage
}

func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, name), b)
}

// writeSoon is writeJSON for what says how a process does that ends with the
// machine: whoever looks finds it whole from now on, and keep makes it durable
// later. After a loss of power before that it may be missing, or cut off.
func writeSoon(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	part, path := filepath.Join(dir, ".new-"+name), filepath.Join(dir, name) // only the monitor writes here
	f, err := unix.Open(part, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return pathError("create", part, err)
	}
	n, err := unix.Write(f, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err := errors.Join(err, unix.Close(f)); err != nil {
		return pathError("write", part, err)
	}
	return pathError("rename", path, unix.Rename(part, path))
}

// keep makes durable what writeSoon wrote.
func keep(dir string, names ...string) error {
	for _, name := range names {
		f, err := openFile(filepath.Join(dir, name), unix.O_RDONLY)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Fsync(f), unix.Close(f)); err != nil {
			return err
		}
	}
	return durable.SyncDir(dir)
}

// bootID is another number each time that the machine is started; "" where the
// kernel does not tell.
var bootID = sync.OnceValue(func() string {
	b, _ := readFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// openFile opens a file without offering it to Go's poller, which for a file of the
// disk or the kernel is five calls for nothing.
func openFile(path string, flags int) (int, error) {
	for {
		f, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err == nil || !errors.Is(err, unix.EINTR) {
			return f, pathError("open", path, err)
		}
	}
}

// readFile is os.ReadFile for small files.
func readFile(path string) ([]byte, error) {
	f, err := openFile(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(f) }()
	b := make([]byte, 0, 1<<10)
	for {
		n, err := unix.Read(f, b[len(b):cap(b)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return b, pathError("read", path, err)
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// readJSON reports false for a file that is not there, and true with an error for
// one that was cut off.
func readJSON(dir, name string, v any) (bool, error) {
	b, err := readFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(b) > maxRecord {
		return true, fmt.Errorf("%s is larger than %d bytes", name, maxRecord)
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
	f, err := openFile(filepath.Join(dir, aliveFile), unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = unix.Close(f) }()
	err = unix.Flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return 0, false, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false, err
	}
	var b [20]byte
	n, _ := unix.Pread(f, b[:], 0)
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b[:max(n, 0)]))); err != nil {
		pid = 0
	}
	return pid, true, nil
}
