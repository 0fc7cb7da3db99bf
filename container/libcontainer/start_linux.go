//go:build cgo && amd64

package libcontainer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
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
	class, err := r.cfg.classOf(s)
	if err != nil {
		return err
	}
	rec := record{
		Spec: s, Image: img, Root: root, RootID: rootID, Cgroup: filepath.Join(r.group, s.ID), Groups: r.groupPaths.below(s.ID),
		Boot: bootID(), LogBytes: r.cfg.LogBytes, IORate: r.cfg.IOBytesPerSecond,
		Option: class.Option, LeastMemory: class.MinMemoryBytes,
	}
	release, err := r.useVolumes(&rec)
	if err != nil {
		return err
	}
	release = sync.OnceFunc(release)
	if err := r.takeIDs(dir, &rec); err != nil {
		release()
		return err
	}
	err = r.enterGroup(ctx, &rec)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil {
		err = r.launch(ctx, dir, class, func() error {
			defer release()
			return writeRecord(dir, &rec)
		})
	}
	release()
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
		if st.State != container.Created && fileExists(filepath.Join(dir, startedFile)) {
			return true, nil
		}
	}
	return false, r.remove(dir, s.ID)
}

// writeRecord writes a container's record into its directory.
func writeRecord(dir string, rec *record) error {
	return errors.Join(writeJSON(dir, recordFile, rec), durable.SyncDir(filepath.Dir(dir)))
}

// launch starts a monitor and waits until it says that the program runs. Before
// that it waits for record, which makes the record durable meanwhile.
func (r *Runtime) launch(ctx context.Context, dir string, class Class, record func() error) error {
	c := child{name: "the monitor", program: r.program.path(), arg: monitorArg, flags: unix.CLONE_NEWNS, standby: true, record: record}
	if class.Monitor != "" { // which only the caller's program knows
		c.program, c.arg, c.standby = self, class.Monitor, false
	}
	return r.launchProcess(ctx, dir, c)
}

// child is a process that outlives this one.
type child struct {
	name         string       // for errors
	program, arg string       // arg is what it is called, and by what it knows its work
	flags        uintptr      // of clone(2)
	standby      bool         // what stands by can make it
	record       func() error // what it waits for before it does anything; nil: nothing
}

// launchProcess starts a process over dir, which tells on descriptor 3 that it is
// ready and has descriptor 4 locked while it lives.
func (r *Runtime) launchProcess(ctx context.Context, dir string, c child) error {
	ready, readyW, err := socketPair()
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
	pid, pidfd, err := 0, -1, errNoStandby
	if c.standby {
		pid, pidfd, err = r.standby.monitor(c.program, dir, readyW, alive, debug)
	}
	if errors.Is(err, errNoStandby) {
		pid, pidfd, err = c.begin(dir, readyW, alive, debug)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	if err := r.reaper.add(pid, pidfd); err != nil {
		return err
	}
	_ = readyW.Close()
	_ = alive.Close()
	if c.record != nil {
		if err := c.record(); err != nil {
			return err // and the process ends with ready
		}
		if _, err := ready.Write([]byte{0}); err != nil && !errors.Is(err, unix.EPIPE) {
			return fmt.Errorf("start %s: %w", c.name, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var a answer
	err = json.NewDecoder(io.LimitReader(ready, maxMessage)).Decode(&a)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%s died: %s", c.name, tailOf(filepath.Join(dir, debugFile)))
	case a.Code != "":
		return &container.Error{Code: a.Code, Detail: a.Detail}
	}
	return nil
}

// socketPair returns a socket for this process, which Go's poller knows, and one for
// a child.
func socketPair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, nil, errors.Join(err, unix.Close(pair[0]), unix.Close(pair[1]))
	}
	return os.NewFile(uintptr(pair[0]), "ready"), os.NewFile(uintptr(pair[1]), "ready"), nil
}

// begin makes a process of the program, with these files from descriptor 3 on and
// what it has to say in complaints.
func (c child) begin(dir string, ready, alive, complaints *os.File) (pid, pidfd int, err error) {
	pidfd = -1
	cmd := exec.Command(c.program)
	cmd.Args, cmd.Env = []string{c.arg, dir}, processEnv()
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = complaints, complaints
	cmd.ExtraFiles = []*os.File{ready, alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: c.flags, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		return 0, -1, err
	}
	return cmd.Process.Pid, pidfd, cmd.Process.Release()
}

// tailOf returns the end of a file for an error's text.
func tailOf(path string) string {
	b, _ := os.ReadFile(path)
	return string(b[max(0, len(b)-300):])
}
