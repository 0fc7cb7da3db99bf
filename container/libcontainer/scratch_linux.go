//go:build cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// scratch is where a snapshot is made on a disk that shares no extents: a file
// system of its own, in a file without a name. Files are copied ahead to store,
// by inode and time of change, while programs run. Once these are held, the
// tree is made: a file that has not changed since is moved to its place, any
// other is copied. So the pause grows with the number of names and with what
// changed, and not with all bytes.
type scratch struct {
	mount *volumeMount
}

const (
	scratchStore = "store"
	scratchTree  = "tree"
)

// newScratch makes a scratch for a volume of the given size in an empty file.
// It may take twice that: what changes meanwhile is there two times.
func newScratch(image *os.File, size uint64) (*scratch, error) {
	mkfs, err := findProgram("mkfs.xfs", "xfsprogs")
	if err != nil {
		return nil, err
	}
	if err := image.Truncate(int64(2*size + container.MinVolumeBytes)); err != nil {
		return nil, err
	}
	if err := runMkfs(mkfs, image); err != nil {
		return nil, err
	}
	m, err := mountImage(image)
	if err != nil {
		return nil, err
	}
	root := int(m.root.Fd())
	if err := errors.Join(unix.Mkdirat(root, scratchStore, 0o700), unix.Mkdirat(root, scratchTree, 0o700)); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &scratch{m}, nil
}

// storeName is a file's in the store. An inode that is used again has another
// time of change.
func storeName(st *unix.Stat_t) string {
	return fmt.Sprintf("%d.%d.%d", st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
}

// settled reports whether a file's data cannot have changed without a new time
// of change since all was synced: mapped pages too are read-only from then on,
// and the first write to one sets the time.
func settled(st *unix.Stat_t, synced time.Time) bool {
	return time.Unix(st.Ctim.Unix()).Before(synced)
}

// copyAhead fills the store from a tree that changes.
func (s *scratch) copyAhead(ctx context.Context, root *os.File, synced time.Time) error {
	store, err := beneath(int(s.mount.root.Fd()), scratchStore, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(store) }()
	w := &treeWriter{root: store}
	walk := &treeWalker{ctx: ctx, root: int(root.Fd()), links: map[uint64]string{}, live: true}
	walk.f = func(e *container.Entry) error {
		if e.Type != container.EntryFile || !settled(&walk.st, synced) {
			return nil
		}
		name := storeName(&walk.st)
		err := w.make(store, name, e)
		if err == nil {
			err = w.dress(store, name, e)
		}
		if err == nil || errors.Is(err, unix.ENOSPC) || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if err := unix.Unlinkat(store, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*container.Error)) {
			return nil // it became shorter; it is copied once programs are held
		}
		return err
	}
	if _, err := walk.entry(walk.root, ".", "."); err != nil {
		return err
	}
	return walk.dir(".")
}

// copyRest makes the tree from one that does not change. The caller ends the
// writer.
func copyRest(scratch, root *os.File, synced time.Time) (*treeWriter, error) {
	store, err := beneath(int(scratch.Fd()), scratchStore, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(store) }()
	tree, err := beneath(int(scratch.Fd()), scratchTree, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	w := &treeWriter{root: tree}
	walk := &treeWalker{ctx: context.Background(), root: int(root.Fd()), links: map[uint64]string{}, f: w.add}
	walk.taken = func(name string) bool {
		if !settled(&walk.st, synced) {
			return false
		}
		parent, err := w.parent(name)
		return err == nil && unix.Renameat(store, storeName(&walk.st), parent, path.Base(name)) == nil
	}
	if _, err := walk.entry(walk.root, ".", "."); err != nil {
		return nil, err
	}
	return w, walk.dir(".")
}

// view is the tree, to be read only. It takes the mount over.
func (s *scratch) view() (*volumeMount, error) {
	fd, err := beneath(int(s.mount.root.Fd()), scratchTree, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	_ = s.mount.root.Close()
	s.mount.root = os.NewFile(uintptr(fd), scratchTree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return s.mount, unix.MountSetattr(int(s.mount.mount.Fd()), "", unix.AT_EMPTY_PATH, &attr)
}
