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
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
)

// Snapshot shows volumes as they are at one moment.
func (r *Runtime) Snapshot(ctx context.Context, lease string, names ...string) (container.Snapshot, error) {
	if len(names) == 0 || len(names) > container.MaxMounts {
		return nil, &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf("a snapshot of %d volumes, not 1 to %d", len(names), container.MaxMounts)}
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	for _, name := range names {
		if err := cmp.Or(ctx.Err(), container.VolumeID{Lease: lease, Name: name}.Validate()); err != nil {
			return nil, err
		}
	}
	users, release, err := r.holdUsers(lease, names)
	if err != nil {
		return nil, err
	}
	defer release()
	p := &pausing{r: r, lease: lease, names: names}
	defer p.close()
	err = p.prepare(ctx)
	if err == nil {
		err = p.run(ctx, users)
	}
	var s *snapshot
	if err == nil {
		s, err = p.view()
	}
	if err != nil {
		return nil, container.Wrap(startCode(err), "snapshot of "+lease, err)
	}
	return s, nil
}

// holdUsers locks the containers that have one of the volumes, and then the
// volumes, as Start does: no container comes, goes or is paused meanwhile.
func (r *Runtime) holdUsers(lease string, names []string) (users []string, release func(), err error) {
	find := func() ([]string, error) {
		by, err := r.volumeUsers()
		var out []string
		for _, name := range names {
			out = append(out, by[container.VolumeID{Lease: lease, Name: name}]...)
		}
		return slices.Compact(slices.Sorted(slices.Values(out))), err
	}
	for {
		users, err := find()
		if err != nil {
			return nil, nil, err
		}
		var held []func()
		for _, id := range users {
			held = append(held, r.hold(id))
		}
		held = append(held, r.holdVolumes(lease, names))
		release := func() {
			for _, f := range held {
				f()
			}
		}
		again, err := find()
		if err == nil && slices.Equal(users, again) {
			return users, release, nil
		}
		release()
		if err != nil {
			return nil, nil, err
		}
	}
}

// pausing is a snapshot in the making. The programs are held by a process of
// its own, which lets them go whatever becomes of the node.
type pausing struct {
	r         *Runtime
	lease     string
	names     []string
	images    []*os.File
	mounts    []*volumeMount
	copies    []*os.File // without a name: gone with the last who has them open
	clone     bool       // the disk shares extents
	scratches []*scratch // else
	synced    time.Time
	claim     uint64
	result    pauseResult
}

func (p *pausing) close() {
	closeAll(p.images)
	for _, m := range p.mounts {
		_ = m.Close()
	}
	closeAll(p.copies)
	for _, s := range p.scratches {
		_ = s.mount.Close()
	}
	p.r.volumes.unclaim(p.claim)
}

// prepare does what need not be done while programs are held.
func (p *pausing) prepare(ctx context.Context) error {
	var recs []volumeRecord
	for _, name := range p.names {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := container.VolumeID{Lease: p.lease, Name: name}
		rec, ok, err := p.r.volumes.read(v)
		if err != nil {
			return err
		}
		if !ok {
			return &container.Error{Code: container.CodeNoVolume, Detail: v.String()}
		}
		if err := p.open(rec); err != nil {
			return err
		}
		recs = append(recs, rec)
	}
	if p.clone = canClone(p.images[0], p.copies[0]); p.clone {
		return nil
	}
	for i, rec := range recs {
		s, err := newScratch(p.copies[i], rec.SizeBytes)
		if err != nil {
			return err
		}
		p.scratches = append(p.scratches, s)
	}
	// What changes from here on is copied while programs are held. A file's
	// time of change may lag by a tick of the kernel's clock.
	p.synced = time.Now().Add(-50 * time.Millisecond)
	for i, m := range p.mounts {
		if err := unix.Syncfs(int(m.root.Fd())); err != nil {
			return err
		}
		if err := p.scratches[i].copyAhead(ctx, m.root, p.synced); err != nil {
			return err
		}
	}
	return nil
}

// open claims the space that a snapshot of a volume may need, and mounts the
// volume.
func (p *pausing) open(rec volumeRecord) error {
	s := &p.r.volumes
	if err := s.room(rec.SizeBytes); err != nil {
		return err
	}
	s.mu.Lock()
	s.claims += rec.SizeBytes
	s.mu.Unlock()
	p.claim += rec.SizeBytes
	image, err := os.Open(filepath.Join(s.path(rec.VolumeID), volumeImage))
	if err != nil {
		return err
	}
	p.images = append(p.images, image)
	m, err := mountVolume(s.path(rec.VolumeID))
	if err != nil {
		return err
	}
	p.mounts = append(p.mounts, m)
	fd, err := unix.Open(s.trash, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	c := os.NewFile(uintptr(fd), volumeImage)
	p.copies = append(p.copies, c)
	setNoCow(c)
	return nil
}

func (s *volumes) unclaim(bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims -= bytes
}

// canClone tries with the first block.
func canClone(from, to *os.File) bool {
	err := unix.IoctlFileCloneRange(int(to.Fd()), &unix.FileCloneRange{Src_fd: int64(from.Fd()), Src_length: 1 << 16})
	return errors.Join(err, to.Truncate(0)) == nil
}

// How a process of this binary knows that it is to hold programs for a moment.
const (
	pauseArg  = "pktcloud-pause"
	pauseEnv  = "PKTCLOUD_PAUSE"
	pauseFile = "pause.json" // while programs may be held
	pauseLock = "pause.lock" // locked meanwhile
)

func init() {
	if len(os.Args) == 2 && os.Args[0] == pauseArg && os.Getenv(pauseEnv) != "" {
		os.Exit(pauseMain(os.Args[1]))
	}
}

// pauseOrder says what to hold. Whoever finds it, and the lock free, undoes it.
type pauseOrder struct {
	Groups  []cgroupPaths
	Volumes int
	Clone   bool
	Synced  time.Time // of what was copied ahead
}

type pauseResult struct {
	Taken  time.Time
	Pause  time.Duration
	Failed string
	Full   bool
}

// run has the programs held and the images copied.
func (p *pausing) run(ctx context.Context, users []string) error {
	s := &p.r.volumes
	lock, err := s.lockPause()
	if err != nil {
		return err
	}
	defer lock.Close()
	order := pauseOrder{Volumes: len(p.names), Clone: p.clone, Synced: p.synced}
	var held []string
	for _, id := range users {
		// What its owner has paused stays so.
		if st, err := status(filepath.Join(p.r.boxes, id), id); err != nil || st.State != container.Running {
			continue
		}
		_, groups, err := p.r.running(ctx, id)
		if err != nil {
			continue // it has just ended
		}
		order.Groups, held = append(order.Groups, groups), append(held, id)
	}
	s.setPaused(held, true)
	defer s.setPaused(held, false)
	b, err := json.Marshal(order)
	if err != nil {
		return err
	}
	// Not synced: what it undoes does not outlive the machine's running.
	if err := os.WriteFile(filepath.Join(s.dir, pauseFile), b, 0o600); err != nil {
		return err
	}
	out, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{pauseArg, s.dir}
	cmd.Env = []string{pauseEnv + "=1", "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{outW, lock}
	for i := range p.names {
		to := p.copies[i]
		if !p.clone {
			to = p.scratches[i].mount.root
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.images[i], p.mounts[i].root, to)
	}
	err = cmd.Start()
	_ = outW.Close()
	crash.Point("snapshot held")
	if err != nil {
		return errors.Join(err, os.Remove(filepath.Join(s.dir, pauseFile)))
	}
	err = json.NewDecoder(io.LimitReader(out, maxMessage)).Decode(&p.result)
	_ = cmd.Wait()
	switch {
	case err != nil:
		return errors.Join(errors.New("the process that held the programs died"), s.undoPause())
	case p.result.Full:
		return unix.ENOSPC
	case p.result.Failed != "":
		return errors.New(p.result.Failed)
	}
	return nil
}

// lockPause lets one snapshot at a time hold programs.
func (s *volumes) lockPause() (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(s.dir, pauseLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("another snapshot does not end: %w", err), lock.Close())
		}
	}
}

// endPause waits for the process of an earlier runtime that holds programs, and
// lets them go if it was killed.
func (s *volumes) endPause() error {
	lock, err := s.lockPause()
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.undoPause()
}

func (s *volumes) undoPause() error {
	b, err := os.ReadFile(filepath.Join(s.dir, pauseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var order pauseOrder
	if json.Unmarshal(b, &order) == nil { // else nothing was held yet
		for _, g := range order.Groups {
			_ = g.thaw() // of a container that has ended there is nothing
		}
	}
	return os.Remove(filepath.Join(s.dir, pauseFile))
}

func (s *volumes) setPaused(ids []string, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if paused {
			s.paused[id] = true
		} else {
			delete(s.paused, id)
		}
	}
}

func (s *volumes) isPaused(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused[id]
}

// pauseMain is the process that holds programs: it ends by itself, soon, and
// also when the node has died.
func pauseMain(dir string) int {
	out := os.NewFile(3, "result")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4) // the lock
	file := filepath.Join(dir, pauseFile)
	var res pauseResult
	var order pauseOrder
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &order)
	}
	if err == nil {
		err = order.do(&res)
	}
	if err != nil {
		res.Failed, res.Full = err.Error(), errors.Is(err, unix.ENOSPC)
	}
	_ = os.Remove(file)
	_ = json.NewEncoder(out).Encode(res)
	return 0
}

// do holds the programs and copies what they have written. Where the disk
// shares extents that is one call for each volume; else the kernel is asked for
// each file whether it has changed since it was copied ahead.
func (o pauseOrder) do(res *pauseResult) (err error) {
	var images, roots, copies []*os.File
	var writers []*treeWriter
	for i := range o.Volumes {
		file := func(which int) *os.File { return os.NewFile(uintptr(5+3*i+which), volumeImage) }
		images, roots, copies = append(images, file(0)), append(roots, file(1)), append(copies, file(2))
	}
	if err := o.sync(roots); err != nil { // so that little is left for the pause
		return err
	}
	err = o.held(res, func() error {
		if err := o.sync(roots); err != nil {
			return err
		}
		for i := range o.Volumes {
			if o.Clone {
				if err := unix.IoctlFileClone(int(copies[i].Fd()), int(images[i].Fd())); err != nil {
					return fmt.Errorf("copy the volume: %w", err)
				}
				continue
			}
			w, err := copyRest(copies[i], roots[i], o.Synced)
			if err != nil {
				return fmt.Errorf("copy the volume: %w", err)
			}
			writers = append(writers, w)
		}
		return nil
	})
	for _, w := range writers {
		err = errors.Join(err, w.end())
	}
	return err
}

// sync brings what programs have written to the images that are cloned.
func (o pauseOrder) sync(roots []*os.File) error {
	for _, root := range roots {
		if !o.Clone {
			continue
		}
		if err := unix.Syncfs(int(root.Fd())); err != nil {
			return err
		}
	}
	return nil
}

// held calls f while the programs are held.
func (o pauseOrder) held(res *pauseResult, f func() error) (err error) {
	res.Taken = time.Now()
	defer func() {
		err = errors.Join(err, o.thaw())
		res.Pause = time.Since(res.Taken)
	}()
	for end := res.Taken.Add(10 * time.Second); ; {
		err := o.freeze(200 * time.Millisecond)
		if err == nil {
			return f()
		}
		// Freezing with cgroup v1 can hang for good while programs are started
		// from outside; to let go and begin anew is the way out.
		if !errors.Is(err, context.DeadlineExceeded) || time.Now().After(end) {
			return fmt.Errorf("hold the programs: %w", err)
		}
		if err := o.thaw(); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (o pauseOrder) freeze(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, g := range o.Groups {
		if err := g.freeze(ctx, true); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func (o pauseOrder) thaw() (err error) {
	for _, g := range o.Groups {
		if terr := g.thaw(); terr != nil && !gone(terr) {
			err = errors.Join(err, terr)
		}
	}
	return err
}

// awaitSnapshot waits while the container is held for a snapshot, which nobody
// but its programs should notice.
func (m *monitor) awaitSnapshot() {
	order := filepath.Join(filepath.Dir(filepath.Dir(m.dir)), "volumes", pauseFile)
	for end := time.Now().Add(15 * time.Second); m.cgroups.paused() && fileExists(order) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// gone reports that a container ended meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// view mounts the copies. Of an image that was not frozen the kernel first
// reads its own journal, as after a loss of power.
func (p *pausing) view() (*snapshot, error) {
	s := &snapshot{volumes: &p.r.volumes, result: p.result, mounts: map[string]*volumeMount{}}
	for i, name := range p.names {
		var m *volumeMount
		var err error
		if p.clone {
			m, err = mountImage(p.copies[i], "ro", "nouuid")
		} else {
			m, err = p.scratches[i].view()
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.mounts[name] = m
	}
	p.scratches = nil
	s.claim, p.claim = p.claim, 0
	return s, nil
}

// snapshot is all in descriptors: it ends with the process.
type snapshot struct {
	volumes *volumes
	result  pauseResult

	mu     sync.Mutex
	mounts map[string]*volumeMount
	claim  uint64
}

// Tree returns the files of a volume.
func (s *snapshot) Tree(name string) (container.Tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mounts[name]
	if m == nil {
		return nil, &container.Error{Code: container.CodeNoVolume, Detail: name}
	}
	return dirTree{m.root}, nil
}

// Taken is when the programs were held.
func (s *snapshot) Taken() time.Time { return s.result.Taken }

// Pause is for how long.
func (s *snapshot) Pause() time.Duration { return s.result.Pause }

// Close frees the snapshot's space. It may be called twice.
func (s *snapshot) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for m := range maps.Values(s.mounts) {
		err = errors.Join(err, m.Close())
	}
	clear(s.mounts)
	s.volumes.unclaim(s.claim)
	s.claim = 0
	return err
}

// RestoreVolume makes a volume out of a tree.
func (r *Runtime) RestoreVolume(ctx context.Context, v container.VolumeSpec, from container.Tree) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	defer r.holdVolumes(v.Lease, []string{v.Name})()
	if isDir(r.volumes.path(v.VolumeID)) {
		return &container.Error{Code: container.CodeVolumeConflict, Detail: v.String() + " is there already"}
	}
	return volumeError(v.VolumeID, r.volumes.make(v, func(root *os.File) error {
		w := &treeWriter{root: int(root.Fd())}
		defer w.close()
		err := from.Walk(ctx, w.add)
		if err == nil {
			err = w.end()
		}
		if errors.Is(err, unix.ENOSPC) {
			return &container.Error{Code: container.CodeVolumeFull, Detail: v.String(), Err: err}
		}
		return err
	}))
}
