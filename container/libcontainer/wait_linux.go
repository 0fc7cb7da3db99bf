//go:build cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// lookAgain is how long Wait relies on being told: a monitor that is killed tells
// nobody.
const lookAgain = time.Second

// Wait waits until a container does not run any more, and reports on it. It takes no
// time of the processor meanwhile, and returns within a moment of the end, or a
// second where nobody saw it. Errors are those of [Runtime.Status].
func (r *Runtime) Wait(ctx context.Context, id string) (container.Status, error) {
	dir, err := r.find(ctx, id)
	if err != nil {
		return container.Status{}, err
	}
	told, err := watchBox(dir)
	if err != nil { // the machine has few of these
		return r.waitByLooking(ctx, id)
	}
	defer told.Close()
	stop := context.AfterFunc(ctx, func() { _ = told.Close() })
	defer stop()
	var events [1 << 12]byte
	for {
		_, alive, err := monitorAlive(dir)
		if err == nil && alive && !fileExists(filepath.Join(dir, exitFile)) { // else there is nothing to wait for
			_ = told.SetReadDeadline(time.Now().Add(lookAgain))
			_, err := told.Read(events[:])
			if err == nil && !fileExists(filepath.Join(dir, exitFile)) && isDir(dir) {
				continue // another file
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
				return r.waitByLooking(ctx, id)
			}
		}
		s, err := r.Status(ctx, id)
		if err != nil || !lives(s) {
			return s, err
		}
	}
}

func lives(s container.Status) bool {
	return s.State == container.Running || s.State == container.Paused
}

// watchBox returns what can be read when a file of a container's got its name, or
// the directory was set aside.
func watchBox(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF|unix.IN_ONLYDIR); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// waitByLooking is Wait where the kernel tells nothing.
func (r *Runtime) waitByLooking(ctx context.Context, id string) (container.Status, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, lookAgain/20) {
		s, err := r.Status(ctx, id)
		if err != nil || !lives(s) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(pause):
		}
	}
}
