//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// register hands out ranges of the host's ids to all runtimes of this machine
// [CONTAINER-19]. It is a directory with a file for each range that is taken:
//
//	<first id>   the absolute path of the container's directory
//	lock         locked while somebody reads or writes the others
//
// A range stays taken while its container's record names it, whether or not a
// runtime runs, and while a runtime that has just taken it is about to write
// that record. Anything else is left over, and free. After a loss of power the
// files may be gone; then the records, which are durable, bring them back.
type register struct {
	dir string
}

// endID is the first id that ranges never reach: some programs take a higher
// one for a negative number, and systemd has the last range before that.
const endID = 1<<31 - 2*idsPerContainer

// open makes the directory.
func (g register) open() error {
	return os.MkdirAll(g.dir, 0o700)
}

// hold locks the register until the returned function is called.
func (g register) hold() (func(), error) {
	f, err := os.OpenFile(filepath.Join(g.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the register of user ids: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// take gives box the first free range from the id from on. own tells of the
// caller's ranges, which no file can.
func (g register) take(box string, from uint32, own func(first uint32) bool) (uint32, error) {
	release, err := g.hold()
	if err != nil {
		return 0, err
	}
	defer release()
	for first := from; first <= endID-idsPerContainer; first += idsPerContainer {
		if own(first) {
			continue
		}
		free, err := g.free(first, box)
		if err != nil {
			return 0, err
		}
		if free {
			return first, g.write(first, box)
		}
	}
	return 0, &container.Error{Code: container.CodeCapacity, Detail: "all ranges of user ids of this machine are taken"}
}

// keep takes a range again for a box that had it before. It reports false when
// another has it, which only happens when nothing of box runs any more.
func (g register) keep(box string, first uint32) (bool, error) {
	release, err := g.hold()
	if err != nil {
		return false, err
	}
	defer release()
	free, err := g.free(first, box)
	if err != nil || !free {
		return false, err
	}
	return true, g.write(first, box)
}

// give frees a range, if it is box's.
func (g register) give(box string, first uint32) error {
	release, err := g.hold()
	if err != nil {
		return err
	}
	defer release()
	owner, err := readFile(g.file(first))
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(owner) != box {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(g.file(first))
}

// sweep frees what a runtime over boxes took and then wrote no record of, or
// removed the record of. The runtime holds its directory's lock.
func (g register) sweep(boxes string) error {
	release, err := g.hold()
	if err != nil {
		return err
	}
	defer release()
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := filepath.Join(g.dir, e.Name())
		b, err := readFile(name)
		if err == nil && filepath.Dir(string(b)) == boxes && !fileExists(filepath.Join(string(b), recordFile)) {
			errs = append(errs, os.Remove(name))
		}
	}
	return errors.Join(errs...)
}

func (g register) file(first uint32) string {
	return filepath.Join(g.dir, strconv.FormatUint(uint64(first), 10))
}

func (g register) write(first uint32, box string) error {
	return os.WriteFile(g.file(first), []byte(box), 0o600)
}

// free reports whether box may have a range.
func (g register) free(first uint32, box string) (bool, error) {
	b, err := readFile(g.file(first))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	owner := string(b)
	if owner == box || !filepath.IsAbs(owner) || strings.Contains(owner, "\x00") {
		return true, nil
	}
	var rec record
	ok, err := readJSON(owner, recordFile, &rec)
	if err != nil {
		return false, nil // a record that cannot be read may name the range
	}
	if ok {
		return rec.FirstID != first, nil
	}
	return !runtimeLives(filepath.Dir(filepath.Dir(owner))), nil
}

// runtimeLives reports whether a runtime has the directory open.
func runtimeLives(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// takeIDs gives rec a range of host ids that no other container has.
func (r *Runtime) takeIDs(dir string, rec *record) error {
	r.ids.Lock()
	defer r.ids.Unlock()
	if len(r.taken) >= r.cfg.MaxContainers {
		return &container.Error{Code: container.CodeCapacity, Detail: fmt.Sprintf("this provider runs at most %d containers", r.cfg.MaxContainers)}
	}
	first, err := r.register.take(dir, r.cfg.FirstID, func(first uint32) bool { return r.taken[first] != "" })
	if err != nil {
		return err
	}
	r.taken[first], rec.FirstID = rec.Spec.ID, first
	return nil
}

// freeIDs gives back the range of a container of which nothing runs.
func (r *Runtime) freeIDs(id string) error {
	r.ids.Lock()
	defer r.ids.Unlock()
	var errs []error
	for first, owner := range r.taken {
		if owner == id {
			errs = append(errs, r.register.give(filepath.Join(r.boxes, id), first))
			delete(r.taken, first)
		}
	}
	return errors.Join(errs...)
}

// loadIDs finds which ranges the containers of an earlier runtime have.
func (r *Runtime) loadIDs() error {
	entries, err := os.ReadDir(r.boxes)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(r.boxes, e.Name())
		var rec record
		ok, err := readJSON(dir, recordFile, &rec)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !ok {
			continue
		}
		r.groups.load(&rec)
		kept, err := r.register.keep(dir, rec.FirstID)
		if err != nil {
			return err
		}
		_, alive, err := monitorAlive(dir)
		switch {
		case err != nil:
			return err
		case !kept && alive:
			return &container.Error{Code: container.CodeRuntime, Detail: fmt.Sprintf("container %s shares user ids from %d with another; destroy one of them", rec.Spec.ID, rec.FirstID)}
		}
		// One that does not run any more and lost its range counts all the same.
		r.taken[rec.FirstID] = rec.Spec.ID
	}
	return nil
}

// checkIDs refuses ranges that reach the machine's own users, or beyond what
// ids are.
func (c Config) checkIDs() error {
	if c.MaxContainers < 0 || c.FirstID < idsPerContainer || uint64(c.FirstID)+uint64(c.MaxContainers)*idsPerContainer > endID {
		return fmt.Errorf("%d containers of %d user ids each from %d on do not lie between %d and %d; choose another FirstID or fewer containers",
			c.MaxContainers, idsPerContainer, c.FirstID, idsPerContainer, endID)
	}
	return nil
}
