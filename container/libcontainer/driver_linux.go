//go:build cgo && amd64

package libcontainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/kernelnet"
)

// Runtime runs containers. It implements [container.Runtime].
type Runtime struct {
	cfg        Config
	boxes      string      // one directory for each container
	trash      string      // directories being removed
	group      string      // this runtime's part of the control group tree
	groupPaths cgroupPaths // where that is
	lock       *os.File
	reaper     *reaper
	// program is what monitors are.
	program program
	standby standby

	mu    sync.Mutex
	locks map[string]*idLock

	register register
	volumes  volumes
	groups   groups

	ids   sync.Mutex
	taken map[uint32]string // first id of a range to its container
}

var _ container.Runtime = (*Runtime)(nil)

// lockFile is locked while a runtime has the directory.
const lockFile = "lock"

// idLock makes calls about one id take their turn.
type idLock struct {
	sync.Mutex
	users int
}

// Check reports what this machine or process lacks to run containers, without
// changing anything. Errors are [container.CodeNotRoot],
// [container.CodeNoCgroups] or [container.CodeMissingFeature].
func Check() error {
	if os.Geteuid() != 0 {
		return &container.Error{Code: container.CodeNotRoot}
	}
	if err := checkCgroups(); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "no loop devices; load the kernel module loop", Err: err}
	}
	_, err := findMkfs()
	return err
}

// CheckNetwork reports what this machine lacks for the network that its owner has
// chosen, without changing anything. Errors are [container.CodeMissingFeature] and
// say what the owner can do.
func CheckNetwork(c NetworkConfig) error {
	if !c.Kernel {
		return nil
	}
	return kernelnet.Check(c.KernelForwarded)
}

// New opens a runtime over cfg.Dir, in which it finds the containers of an
// earlier one. Errors are [container.CodeNotRoot], [container.CodeNoCgroups],
// [container.CodeMissingFeature] or [container.CodeInUse].
func New(cfg Config) (*Runtime, error) {
	cfg = cfg.withDefaults()
	if err := Check(); err != nil {
		return nil, err
	}
	if cfg.IOBytesPerSecond > 0 {
		if err := checkIO(); err != nil {
			return nil, err
		}
	}
	if err := CheckNetwork(cfg.Network); err != nil {
		return nil, err
	}
	if err := cfg.checkIDs(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	r := &Runtime{
		cfg: cfg, boxes: filepath.Join(dir, "boxes"), trash: filepath.Join(dir, "trash"),
		group: "/" + Group(dir), locks: map[string]*idLock{},
		taken: map[uint32]string{}, register: register{dir: cfg.IDs},
	}
	r.groups = groups{dir: filepath.Join(dir, "nets"), members: map[string]map[string]place{}, stop: make(chan struct{})}
	r.standby = standby{name: Group(dir), room: len(r.boxes) + 1 + container.MaxIDBytes}
	for _, d := range []string{r.boxes, r.trash, r.groups.dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := r.register.open(); err != nil {
		return nil, err
	}
	if r.lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := lockSoon(r.lock); err != nil {
		_ = r.lock.Close()
		return nil, &container.Error{Code: container.CodeInUse, Detail: dir, Err: err}
	}
	if r.groupPaths, err = groupPaths(r.group); err != nil {
		return nil, errors.Join(err, r.lock.Close())
	}
	disks := filepath.Join(dir, emptyDisksDir)
	err = errors.Join(os.RemoveAll(disks), os.Mkdir(disks, 0o700))
	if err == nil {
		r.program, err = openProgram(cfg.Monitor)
	}
	if err != nil {
		return nil, errors.Join(err, r.lock.Close())
	}
	if r.reaper, err = newReaper(); err != nil {
		return nil, errors.Join(err, r.program.close(), r.lock.Close())
	}
	if err := errors.Join(r.sweep(), r.register.sweep(r.boxes), r.loadIDs(), r.openVolumes(dir), r.openGroups()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// lockSoon takes a lock. It waits a moment: a node that was killed just while
// it started a process holds the lock until that process has begun.
func lockSoon(f *os.File) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Close lets go of the directory. Containers go on running.
func (r *Runtime) Close() error {
	r.groups.close()
	r.standby.close()
	err := r.reaper.close()
	for _, dir := range cgroupDirs(r.group) {
		_ = unix.Rmdir(dir) // only when empty
	}
	return errors.Join(err, r.program.close(), r.lock.Close())
}

// sweep finishes removals that a crash interrupted.
func (r *Runtime) sweep() error {
	left, err := os.ReadDir(r.trash)
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := r.discard(filepath.Join(r.trash, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// hold locks an id until the returned function is called.
func (r *Runtime) hold(id string) func() {
	r.mu.Lock()
	l := r.locks[id]
	if l == nil {
		l = &idLock{}
		r.locks[id] = l
	}
	l.users++
	r.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(r.locks, id)
		}
	}
}

// find returns a container's directory.
func (r *Runtime) find(ctx context.Context, id string) (string, error) {
	if err := cmp.Or(ctx.Err(), container.ValidateID(id)); err != nil {
		return "", err
	}
	dir := filepath.Join(r.boxes, id)
	if !isDir(dir) {
		return "", &container.Error{Code: container.CodeNotFound, Detail: id}
	}
	return dir, nil
}

// Pull brings an image into the store.
func (r *Runtime) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	return r.cfg.Images.Pull(ctx, ref, o)
}

// Status reports on one container.
func (r *Runtime) Status(ctx context.Context, id string) (container.Status, error) {
	dir, err := r.find(ctx, id)
	if err != nil {
		return container.Status{}, err
	}
	was, _ := os.Stat(dir)
	s, err := status(dir, id)
	if is, gone := os.Stat(dir); gone != nil || !os.SameFile(was, is) {
		return r.Status(ctx, id) // files were read of a container that was being destroyed
	}
	if s.End == container.EndLost {
		r.endLost(dir, id)
	}
	if s.State == container.Paused && r.volumes.isPaused(id) {
		s.State = container.Running // it is held for a snapshot, for a moment
	}
	return s, err
}

// endLost ends what is left of a container whose monitor has died. The kernel does
// so at once, but a program can ask it not to, and nobody would watch, meter or
// pause it any more [CONTAINER-94].
func (r *Runtime) endLost(dir, id string) {
	defer r.hold(id)()
	if s, err := status(dir, id); err != nil || s.End != container.EndLost {
		return // it was destroyed, or started again
	}
	var from started
	if ok, err := readJSON(dir, startedFile, &from); err == nil && ok {
		from.Cgroups.killAll()
	}
}

// status reads a container's files; it needs no lock, since each is whole.
func status(dir, id string) (container.Status, error) {
	s := container.Status{ID: id, State: container.Created}
	var rec record
	if ok, err := readJSON(dir, recordFile, &rec); err != nil || !ok {
		return s, container.Wrap(container.CodeRuntime, id, err)
	}
	s.Image, s.Limits, s.Network = rec.Spec.Image, rec.Spec.Limits, rec.Net.status()
	_, alive, err := monitorAlive(dir)
	if err != nil {
		return s, container.Wrap(container.CodeRuntime, id, err)
	}
	var from started
	began, err := readJSON(dir, startedFile, &from)
	// While the machine runs its monitor's files are whole. What a loss of power cut
	// off says that the container ran, and so does a record of before it [CONTAINER-110].
	switch {
	case err != nil && (alive || !began):
		return s, container.Wrap(container.CodeRuntime, id, err)
	case !began && (alive || rec.Boot == "" || rec.Boot == bootID()):
		return s, nil
	}
	s.StartedAt = from.At
	var end exited
	ended, err := readJSON(dir, exitFile, &end)
	switch {
	case err != nil && (alive || !ended):
		return s, container.Wrap(container.CodeRuntime, id, err)
	case ended && err == nil:
		s.State, s.ExitCode, s.OOMKilled, s.FinishedAt, s.CPUTime = container.Exited, end.Code, end.OOMKilled, end.At, end.CPUTime
		s.End = end.endOf()
		return s, nil
	case !alive:
		s.State, s.ExitCode, s.End = container.Exited, -1, container.EndLost
		return s, nil
	}
	s.State = container.Running
	if from.Cgroups.paused() {
		s.State = container.Paused
	}
	s.CPUTime, s.MemoryBytes = from.Cgroups.usage()
	s.OOMKilled = from.Cgroups.oomKilled()
	return s, nil
}

// List reports on all containers.
func (r *Runtime) List(ctx context.Context) ([]container.Status, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(r.boxes)
	if err != nil {
		return nil, err
	}
	var out []container.Status
	for _, e := range entries {
		s, err := r.Status(ctx, e.Name())
		if errors.Is(err, container.CodeNotFound) { // destroyed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b container.Status) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// running returns the directory and groups of a container that runs, paused
// or not.
func (r *Runtime) running(ctx context.Context, id string) (string, cgroupPaths, error) {
	dir, err := r.find(ctx, id)
	if err != nil {
		return "", nil, err
	}
	s, err := status(dir, id)
	if err != nil {
		return "", nil, err
	}
	var from started
	if s.State == container.Running || s.State == container.Paused {
		_, err = readJSON(dir, startedFile, &from)
		return dir, from.Cgroups, err
	}
	return "", nil, &container.Error{Code: container.CodeNotRunning, Detail: fmt.Sprintf("%s is %s", id, s.State)}
}

// Pause freezes a container.
func (r *Runtime) Pause(ctx context.Context, id string) error { return r.freeze(ctx, id, true) }

// Resume thaws a container.
func (r *Runtime) Resume(ctx context.Context, id string) error { return r.freeze(ctx, id, false) }

func (r *Runtime) freeze(ctx context.Context, id string, frozen bool) error {
	defer r.hold(id)()
	_, groups, err := r.running(ctx, id)
	if err != nil {
		return err
	}
	err = groups.freeze(ctx, frozen)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return &container.Error{Code: container.CodeNotRunning, Detail: id}
	}
	return err
}

// Logs returns a container's output.
func (r *Runtime) Logs(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
	dir, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return newLogReader(ctx, dir, o, func() bool {
		s, err := status(dir, id)
		return err != nil || s.State == container.Exited
	})
}

// Dial connects to a port of the container's own loopback.
func (r *Runtime) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	dir, _, err := r.running(ctx, id)
	if err != nil {
		return nil, err
	}
	c, done, err := call(ctx, dir, request{Op: opDial, Port: port})
	if err != nil {
		return nil, r.lost(ctx, id, err)
	}
	defer done()
	var out reply
	files, err := receive(c, &out)
	defer func() { closeAll(files) }()
	if err != nil {
		return nil, r.lost(ctx, id, err)
	}
	if err := out.err(); err != nil {
		return nil, err
	}
	if len(files) != 1 {
		return nil, &container.Error{Code: container.CodeRuntime, Detail: "the monitor sent no connection"}
	}
	return net.FileConn(files[0])
}

// lost explains a conversation with a monitor that broke off.
func (r *Runtime) lost(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, _, err := r.running(ctx, id); err != nil {
		return err
	}
	return container.Wrap(container.CodeRuntime, id, err)
}

// Destroy removes a container.
func (r *Runtime) Destroy(ctx context.Context, id string) error {
	if err := cmp.Or(ctx.Err(), container.ValidateID(id)); err != nil {
		return err
	}
	defer r.hold(id)()
	dir := filepath.Join(r.boxes, id)
	if !isDir(dir) {
		return nil
	}
	return r.remove(dir, id)
}

// remove ends what runs in dir, then removes it. The directory is set aside
// only once nothing runs, so an interrupted removal is seen and repeated.
func (r *Runtime) remove(dir, id string) error {
	if err := r.kill(dir); err != nil {
		return container.Wrap(container.CodeRuntime, id, err)
	}
	away := filepath.Join(r.trash, fmt.Sprintf("%s.%d", id, time.Now().UnixNano()))
	if err := os.Rename(dir, away); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(r.leaveGroup(id), r.freeIDs(id), r.discard(away))
}

// discard removes a directory of which nothing runs.
func (r *Runtime) discard(dir string) error {
	emptyFile(filepath.Join(dir, diskFile))
	return os.RemoveAll(dir)
}

// kill ends a container and its monitor, and frees its groups and device. What a
// monitor does after its container's end is done here as well, so that nobody waits
// for it.
func (r *Runtime) kill(dir string) error {
	if err := stopMonitor(dir); err != nil {
		return err
	}
	groups := cgroupPaths{}
	var rec record
	if ok, err := readJSON(dir, recordFile, &rec); err == nil && ok {
		groups = rec.Groups
	}
	if len(groups) == 0 { // it cannot be read, or is of an earlier version
		var from started
		if ok, err := readJSON(dir, startedFile, &from); err == nil && ok {
			groups = from.Cgroups
		}
		if rec.Cgroup != "" {
			groups = cgroupDirs(rec.Cgroup)
			maps.Copy(groups, from.Cgroups)
		}
	}
	if err := groups.remove(); err != nil {
		return err
	}
	return waitLoopFree(filepath.Join(dir, diskFile), 5*time.Second)
}

// stopMonitor asks the monitor to end, waits for it, and kills it if it does
// not.
func stopMonitor(dir string) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begun := time.Now()
	for asked := false; ; {
		pid, alive, err := monitorAlive(dir)
		if !alive {
			return err
		}
		over := false
		if !asked {
			_, done, err := call(ctx, dir, request{Op: opStop})
			if err == nil {
				defer done()
				asked = true
			} else {
				// It takes no requests any more, so all that ran inside was told of.
				over = fileExists(filepath.Join(dir, exitFile))
			}
		}
		since := time.Since(begun)
		if since > 2*patience {
			return errors.New("the monitor does not end")
		}
		awaitEnd(dir, pid, over || since > patience || !asked && since > time.Second)
	}
}

// awaitEnd waits until a monitor ends, or for a moment: it may be another process
// with the same number, and the one that is meant may not have begun. It ends the
// monitor if that is asked, and waits longer then: its lock goes before its mounts.
func awaitEnd(dir string, pid int, end bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		time.Sleep(time.Millisecond)
		return
	}
	defer func() { _ = unix.Close(fd) }()
	moment := 20 * time.Millisecond
	if now, alive, err := monitorAlive(dir); end && alive && now == pid && err == nil { // so fd is its own
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		moment = time.Second
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(moment.Milliseconds()))
}
