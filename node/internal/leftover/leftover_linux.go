package leftover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

const (
	marker = "run.lock" // in a run's directory; locked while the run lives
	kept   = "keep\n"   // what a marker holds when the directory is to stay
)

// Run is one run and its directory.
type Run struct {
	Dir  string
	lock *os.File
}

// New makes a directory for a run of this process, among those for temporary
// files, its name beginning with prefix. When the run is killed Sweep ends
// what it left, and removes the directory unless keep.
func New(prefix string, keep bool) (*Run, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	// The marker is locked before it has its name, so no Sweep takes it.
	f, err := os.CreateTemp(dir, ".new-*")
	if err == nil && keep {
		_, err = f.WriteString(kept)
	}
	if err == nil {
		err = errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), os.Rename(f.Name(), filepath.Join(dir, marker)))
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Run{Dir: dir, lock: f}, nil
}

// Close says that the run has ended in order. What is still in its directory
// stays.
func (r *Run) Close() error {
	err := os.Remove(filepath.Join(r.Dir, marker))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.lock.Close())
}

// Sweep ends what killed runs of this prefix and user left, and returns their
// directories. Runs that live are not touched.
func Sweep(ctx context.Context, prefix string) (found []string, err error) {
	markers, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*", marker))
	if err != nil {
		return nil, err
	}
	for _, m := range markers {
		dir := filepath.Dir(m)
		lock, keep := take(dir)
		if lock == nil {
			continue
		}
		found = append(found, dir)
		if keep {
			e := End(ctx, dir)
			if e == nil {
				e = os.Remove(m)
			}
			err = errors.Join(err, e)
		} else {
			err = errors.Join(err, Remove(ctx, dir))
		}
		err = errors.Join(err, lock.Close())
	}
	return found, err
}

// take locks the marker of a dead run, so that only one Sweep is at it, or
// returns nil.
func take(dir string) (lock *os.File, keep bool) {
	st, err := os.Lstat(dir)
	if err != nil || !st.IsDir() || st.Mode().Perm()&0o022 != 0 || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return nil, false // others may have put into it what they like
	}
	path := filepath.Join(dir, marker)
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, false
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		text, err := os.ReadFile(path)
		if err == nil { // otherwise another Sweep was faster
			return f, string(text) == kept
		}
	}
	f.Close()
	return nil, false
}

// Remove ends what lives in a directory, as End does, and removes it.
func Remove(ctx context.Context, dir string) error {
	if err := End(ctx, dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// End kills the processes that are part of the run in dir, destroys the
// containers of all runtimes below it and unmounts what is mounted there.
func End(ctx context.Context, dir string) error {
	if err := kill(ctx, dir); err != nil {
		return err
	}
	var runtimes []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went away meanwhile
			return nil
		case err != nil || !d.IsDir():
			return err
		case d.Name() == "images": // large
			return fs.SkipDir
		case d.Name() == "boxes" && filepath.Base(filepath.Dir(path)) == "runtime":
			runtimes = append(runtimes, filepath.Dir(path))
			return fs.SkipDir
		}
		return nil
	})
	for _, r := range runtimes {
		err = errors.Join(err, Containers(ctx, r))
	}
	points := mounts(dir)
	slices.Reverse(points) // what was mounted last goes first
	for _, p := range points {
		if e := unix.Unmount(p, 0); e != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", p, e))
		}
	}
	return err
}

// kill ends the processes that are part of a run, and waits for them.
func kill(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		found := 0
		for _, pid := range pids() {
			p, err := os.FindProcess(pid) // holds on to it: its number cannot become another's
			if err != nil {
				continue
			}
			if pid != os.Getpid() && partOf(pid, dir) {
				found++
				p.Kill() //nolint:errcheck // it has ended, then
			}
			p.Release() //nolint:errcheck // nothing is left to do
		}
		if found == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of %s do not end: %w", found, dir, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// partOf reads the environment of a process; a dead one has none.
func partOf(pid int, dir string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if run, ok := bytes.CutPrefix(v, []byte(variable+"=")); ok {
			return within(string(run), dir)
		}
	}
	return false
}

func pids() (out []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// Containers destroys the containers of a runtime that nobody uses, in
// whatever state they are.
func Containers(ctx context.Context, runtime string) error {
	if _, err := os.Stat(runtime); err != nil {
		return nil // it was never used
	}
	r, err := libcontainer.New(libcontainer.Config{Dir: runtime})
	if err != nil {
		return err
	}
	list, err := r.List(ctx)
	for _, s := range list {
		err = errors.Join(err, r.Destroy(ctx, s.ID))
	}
	return errors.Join(err, r.Close())
}

// mounts returns the mount points in dir, in the order in which they were made.
func mounts(dir string) (points []string) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && within(f[4], dir) {
			points = append(points, f[4])
		}
	}
	return points
}

// What names what lives in a directory, beside files: mounts, loop devices and
// processes.
func What(dir string) []string {
	var left []string
	for _, p := range mounts(dir) {
		left = append(left, "mount "+p)
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if b, err := os.ReadFile(l); err == nil && within(string(b), dir) {
			left = append(left, "loop device "+strings.Split(l, "/")[3])
		}
	}
	for _, pid := range pids() {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && slices.ContainsFunc(strings.Split(string(args), "\x00"), func(a string) bool { return within(a, dir) }) {
			left = append(left, fmt.Sprintf("process %d", pid))
		}
	}
	return left
}

// Groups returns the control groups of a runtime over dir, which need not
// exist any more.
func Groups(runtime string) []string {
	one, _ := filepath.Glob("/sys/fs/cgroup/" + libcontainer.Group(runtime))
	each, _ := filepath.Glob("/sys/fs/cgroup/*/" + libcontainer.Group(runtime))
	return append(one, each...)
}
