//go:build cgo && amd64

package libcontainer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// Start makes and starts a container.
func (r *Runtime) Start(ctx context.Context, s container.Spec) error {
	if err := cmp.Or(ctx.Err(), s.Validate()); err != nil {
		return err
	}
	defer r.hold(s.ID)()
	dir := filepath.Join(r.boxes, s.ID)
	done, err := r.startedBefore(dir, s)
	if done || err != nil {
		return err
	}
	img, root, rootID, err := r.cfg.Images.Root(s.Image)
	if err != nil {
		return err
	}
	rec := record{Spec: s, Image: img, Root: root, RootID: rootID, Cgroup: filepath.Join(r.group, s.ID), LogBytes: r.cfg.LogBytes}
	if err := r.takeIDs(&rec); err != nil {
		return err
	}
	err = makeBox(dir, &rec)
	if err == nil {
		err = r.launch(ctx, dir)
	}
	if err != nil {
		return errors.Join(container.Wrap(startCode(err), s.ID, err), r.remove(dir, s.ID))
	}
	return nil
}

func startCode(err error) container.Code {
	if errors.Is(err, unix.ENOSPC) {
		return container.CodeDiskFull
	}
	return container.CodeRuntime
}

// startedBefore reports whether the container is there already. What an
// interrupted Start left is removed.
func (r *Runtime) startedBefore(dir string, s container.Spec) (bool, error) {
	if !isDir(dir) {
		return false, nil
	}
	var old record
	ok, err := readJSON(dir, recordFile, &old)
	if err == nil && ok {
		if !old.Spec.Equal(s) {
			return false, &container.Error{Code: container.CodeConflict, Detail: s.ID}
		}
		st, err := status(dir, s.ID)
		if err != nil {
			return false, err
		}
		if st.State != container.Created {
			return true, nil
		}
	}
	return false, r.remove(dir, s.ID)
}

// makeBox makes a container's directory. The record in it is durable before
// anything runs.
func makeBox(dir string, rec *record) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(writeJSON(dir, recordFile, rec), durable.SyncDir(filepath.Dir(dir)))
}

// launch starts a monitor and waits until it says that the program runs.
func (r *Runtime) launch(ctx context.Context, dir string) error {
	ready, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	defer readyW.Close()
	debug, err := os.OpenFile(filepath.Join(dir, debugFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer debug.Close()
	alive, err := lockAlive(dir)
	if err != nil {
		return err
	}
	defer alive.Close()
	pidfd := -1
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{monitorArg, dir}
	// GORACE matters to race-detector builds only, which else end a second late.
	cmd.Env = []string{monitorEnv + "=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = debug, debug
	cmd.ExtraFiles = []*os.File{readyW, alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the monitor: %w", err)
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release()
	if err := r.reaper.add(pid, pidfd); err != nil {
		return err
	}
	_ = readyW.Close()
	_ = alive.Close()
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var a answer
	err = json.NewDecoder(io.LimitReader(ready, maxMessage)).Decode(&a)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("the monitor died: %s", tailOf(filepath.Join(dir, debugFile)))
	case a.Code != "":
		return &container.Error{Code: a.Code, Detail: a.Detail}
	}
	return nil
}

// tailOf returns the end of a file for an error's text.
func tailOf(path string) string {
	b, _ := os.ReadFile(path)
	return string(b[max(0, len(b)-300):])
}

// takeIDs gives rec a range of host ids that no other container has.
func (r *Runtime) takeIDs(rec *record) error {
	r.ids.Lock()
	defer r.ids.Unlock()
	for slot := range uint32(r.cfg.MaxContainers) {
		first := r.cfg.FirstID + slot*idsPerContainer
		if _, used := r.taken[first]; !used {
			r.taken[first] = rec.Spec.ID
			rec.FirstID = first
			return nil
		}
	}
	return &container.Error{Code: container.CodeCapacity, Detail: fmt.Sprintf("this provider runs at most %d containers", r.cfg.MaxContainers)}
}

// freeIDs gives back the range of a container that is gone. With the last one
// goes the common control group, which a Start needs only after takeIDs.
func (r *Runtime) freeIDs(id string) {
	r.ids.Lock()
	defer r.ids.Unlock()
	for first, owner := range r.taken {
		if owner == id {
			delete(r.taken, first)
		}
	}
	if len(r.taken) == 0 {
		for _, dir := range cgroupDirs(r.group) {
			_ = unix.Rmdir(dir)
		}
	}
}

// loadIDs finds which ranges the containers of an earlier runtime have.
func (r *Runtime) loadIDs() error {
	entries, err := os.ReadDir(r.boxes)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var rec record
		ok, err := readJSON(filepath.Join(r.boxes, e.Name()), recordFile, &rec)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if ok {
			r.taken[rec.FirstID] = rec.Spec.ID
		}
	}
	return nil
}
