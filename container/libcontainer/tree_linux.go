//go:build cgo && amd64

package libcontainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// beneath opens a path below a directory, through no link and no mount.
func beneath(dir int, path string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// dirTree reads a tree that nobody changes.
type dirTree struct{ root *os.File }

// Dir implements container.LocalTree.
func (t dirTree) Dir() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), t.root.Fd()) }

// Walk implements container.Tree.
func (t dirTree) Walk(ctx context.Context, f func(*container.Entry) error) error {
	w := &treeWalker{ctx: ctx, root: int(t.root.Fd()), f: f, links: map[uint64]string{}}
	if _, err := w.entry(w.root, ".", "."); err != nil {
		return err
	}
	return w.dir(".")
}

type treeWalker struct {
	ctx   context.Context
	root  int
	f     func(*container.Entry) error
	links map[uint64]string // first name of each inode with several
	// live walks a tree that changes: what has gone is left out.
	live bool
	st   unix.Stat_t // of the entry that f gets
	// taken, if not nil, is asked for each first name of a file, and when it says
	// so f does not get it.
	taken func(path string) bool
}

// vanished reports whether an error is that of something which has gone, or
// become something else, while its directory was read.
func (w *treeWalker) vanished(err error) bool {
	return w.live && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE))
}

// dir walks what is in a directory. It has none open while it is in those
// below, of which there may be many.
func (w *treeWalker) dir(dir string) error {
	fd, err := beneath(w.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if w.vanished(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %q: %w", dir, err)
	}
	d := os.NewFile(uintptr(fd), dir)
	below, err := w.names(d, dir)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range below {
		if err := w.dir(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// names visits the entries of a directory, and returns which are directories.
func (w *treeWalker) names(d *os.File, dir string) (below []string, err error) {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		isDir, err := w.entry(int(d.Fd()), name, path.Join(dir, name))
		if w.vanished(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if isDir {
			below = append(below, name)
		}
	}
	return below, nil
}

// entry visits the name in dir, which is at path.
func (w *treeWalker) entry(dir int, name, path string) (isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("%q: %w", path, err)
	}
	w.st = st
	e := &container.Entry{
		Path: path, Mode: st.Mode & 0o7777, UID: idInside(st.Uid), GID: idInside(st.Gid),
		Accessed: time.Unix(st.Atim.Unix()), Modified: time.Unix(st.Mtim.Unix()),
	}
	if first, ok := w.links[st.Ino]; ok {
		return false, w.visit(&container.Entry{Path: path, Type: container.EntryLink, Target: first})
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		w.links[st.Ino] = path
	}
	place := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Type, isDir = container.EntryDir, true
	case unix.S_IFLNK:
		e.Type, e.Mode = container.EntrySymlink, 0
		if e.Target, err = os.Readlink(place); err != nil {
			return false, err
		}
	case unix.S_IFIFO:
		e.Type = container.EntryFifo
	case unix.S_IFSOCK:
		e.Type = container.EntrySocket
	case unix.S_IFREG:
		if w.taken != nil && w.taken(path) {
			return false, nil
		}
		e.Type, e.Size = container.EntryFile, st.Size
	case unix.S_IFCHR:
		e.Type = container.EntryWhiteout
		if st.Rdev != 0 {
			return false, &container.Error{Code: container.CodeBadTree, Detail: fmt.Sprintf("%q is a device", path)}
		}
	default:
		return false, &container.Error{Code: container.CodeBadTree, Detail: fmt.Sprintf("%q has mode %#o", path, st.Mode)}
	}
	if e.Type != container.EntrySymlink {
		if e.Xattrs, err = readXattrs(place); err != nil {
			return false, fmt.Errorf("attributes of %q: %w", path, err)
		}
	}
	if e.Size > 0 {
		fd, err := beneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return false, fmt.Errorf("open %q: %w", path, err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		var same unix.Stat_t
		if err := unix.Fstat(fd, &same); err != nil || same.Ino != st.Ino {
			return false, cmp.Or(err, error(unix.ESTALE)) // another has its name now
		}
		e.Content = fileContent{f}
	}
	return isDir, w.visit(e)
}

// idInside returns an id of the disk as the container's. What the machine's root
// has made in a container's volume belongs to the id after all others there.
func idInside(id uint32) uint32 {
	if id == idsPerContainer {
		return 0
	}
	return id
}

// visit passes on what a tree may have; a program inside can make longer paths.
func (w *treeWalker) visit(e *container.Entry) error {
	if err := e.Validate(); err != nil {
		return err
	}
	return w.f(e)
}

// readXattrs returns the attributes that are part of a tree.
func readXattrs(place string) ([]container.Xattr, error) {
	list := make([]byte, 64<<10) // the kernel's own limit
	n, err := unix.Llistxattr(place, list)
	if err != nil || n == 0 {
		return nil, err
	}
	var out []container.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !container.KeptXattr(name) {
			continue
		}
		value := make([]byte, container.MaxXattrValue)
		n, err := unix.Lgetxattr(place, name, value)
		if err != nil {
			return nil, err
		}
		out = append(out, container.Xattr{Name: name, Value: slices.Clone(value[:n])})
	}
	slices.SortFunc(out, func(a, b container.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// fileContent is a file's data with its holes.
type fileContent struct{ *os.File }

// NextData implements container.Content.
func (c fileContent) NextData(off int64) (start, end int64, err error) {
	start, err = unix.Seek(int(c.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = unix.Seek(int(c.Fd()), start, unix.SEEK_HOLE)
	return start, end, err
}

// treeWriter brings a tree back below a directory that is empty and that nobody
// else has. The tree may be hostile: each path is resolved below the directory
// and through no link.
type treeWriter struct {
	root  int
	begun bool
	dirs  []dirEnd
	buf   []byte
	// The directory of the last entry stays open: the next is often in it.
	parentPath string
	parentDir  int
}

// parent opens the directory that an entry is in. It stays the writer's.
func (w *treeWriter) parent(entry string) (int, error) {
	dir := path.Dir(entry)
	if w.parentPath == dir {
		return w.parentDir, nil
	}
	w.close()
	fd, err := beneath(w.root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		w.parentPath, w.parentDir = dir, fd
	}
	return fd, err
}

// close lets go of the last directory.
func (w *treeWriter) close() {
	if w.parentPath != "" {
		_ = unix.Close(w.parentDir)
	}
	w.parentPath = ""
}

// dirEnd is what a directory gets when all is in it.
type dirEnd struct {
	path   string
	xattrs []container.Xattr
	times  []unix.Timespec
}

func (w *treeWriter) add(e *container.Entry) error {
	if err := e.Validate(); err != nil {
		return err
	}
	if w.begun == (e.Path == ".") {
		return &container.Error{Code: container.CodeBadTree, Detail: fmt.Sprintf("the root is not the first entry, but %.80q", e.Path)}
	}
	w.begun = true
	parent, err := w.parent(e.Path)
	if err != nil {
		return treeError(e.Path, err)
	}
	name := path.Base(e.Path)
	if err := w.make(parent, name, e); err != nil || e.Type == container.EntryLink {
		return treeError(e.Path, err)
	}
	return treeError(e.Path, w.dress(parent, name, e))
}

// treeError tells a tree that makes no sense from a failure.
func treeError(path string, err error) error {
	if err == nil {
		return nil
	}
	for _, sign := range []error{unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.EISDIR, unix.EPERM, unix.EMLINK, unix.EINVAL, unix.ERANGE, unix.EOPNOTSUPP, unix.EFBIG, io.ErrUnexpectedEOF} {
		if errors.Is(err, sign) {
			return container.Wrap(container.CodeBadTree, fmt.Sprintf("%.80q", path), err)
		}
	}
	return fmt.Errorf("%.80q: %w", path, err)
}

// make makes the entry without its owner, mode, attributes and times.
func (w *treeWriter) make(parent int, name string, e *container.Entry) error {
	switch e.Type {
	case container.EntryDir:
		if e.Path == "." {
			return nil
		}
		return unix.Mkdirat(parent, name, 0o700)
	case container.EntryFile:
		return w.file(parent, name, e)
	case container.EntrySymlink:
		return unix.Symlinkat(e.Target, parent, name)
	case container.EntryFifo:
		return unix.Mknodat(parent, name, unix.S_IFIFO|0o600, 0)
	case container.EntrySocket:
		return unix.Mknodat(parent, name, unix.S_IFSOCK|0o600, 0)
	case container.EntryWhiteout:
		return unix.Mknodat(parent, name, unix.S_IFCHR|0o600, 0)
	case container.EntryLink:
		first, err := beneath(w.root, e.Target, unix.O_PATH)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(first) }()
		return unix.Linkat(first, "", parent, name, unix.AT_EMPTY_PATH)
	}
	return unix.EINVAL
}

// file writes the runs of data and nothing between them.
func (w *treeWriter) file(parent int, name string, e *container.Entry) error {
	fd, err := beneath(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	err = f.Truncate(e.Size)
	for off := int64(0); err == nil && off < e.Size; {
		start, end, nerr := e.Content.NextData(off)
		if errors.Is(nerr, io.EOF) {
			break
		}
		if nerr == nil && (start < off || end <= start || end > e.Size) {
			nerr = &container.Error{Code: container.CodeBadTree, Detail: fmt.Sprintf("%.80q has data from %d to %d of %d", e.Path, start, end, e.Size)}
		}
		if err = nerr; err == nil {
			err, off = w.run(f, e.Content, start, end), end
		}
	}
	return errors.Join(err, f.Close())
}

func (w *treeWriter) run(f *os.File, from io.ReaderAt, start, end int64) error {
	if w.buf == nil {
		w.buf = make([]byte, 1<<20)
	}
	for start < end {
		b := w.buf[:min(int64(len(w.buf)), end-start)]
		n, err := from.ReadAt(b, start)
		if n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := f.WriteAt(b, start); err != nil {
			return err
		}
		start += int64(n)
	}
	return nil
}

// dress gives an entry its owner, mode, attributes and times. A directory gets
// the last two at the end: names in it would change the one and inherit the
// other.
func (w *treeWriter) dress(parent int, name string, e *container.Entry) error {
	if err := unix.Fchownat(parent, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	times := []unix.Timespec{unix.NsecToTimespec(0), unix.NsecToTimespec(0)}
	for i, t := range []time.Time{e.Accessed, e.Modified} {
		times[i] = unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	}
	if e.Type != container.EntrySymlink {
		// The name is no link: it was just made, and nobody else is here.
		if err := unix.Fchmodat(parent, name, e.Mode, 0); err != nil {
			return err
		}
		if e.Type == container.EntryDir {
			w.dirs = append(w.dirs, dirEnd{e.Path, e.Xattrs, times})
			return nil
		}
		if err := writeXattrs(fmt.Sprintf("/proc/self/fd/%d/%s", parent, name), e.Xattrs); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(parent, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

func writeXattrs(place string, xattrs []container.Xattr) error {
	for _, x := range xattrs {
		if err := unix.Lsetxattr(place, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("attribute %.80q: %w", x.Name, err)
		}
	}
	return nil
}

// end finishes the directories. The writer is not used after.
func (w *treeWriter) end() error {
	w.close()
	if !w.begun {
		return &container.Error{Code: container.CodeBadTree, Detail: "there is nothing in it"}
	}
	for _, d := range slices.Backward(w.dirs) {
		fd, err := beneath(w.root, d.path, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return treeError(d.path, err)
		}
		err = errors.Join(writeXattrs(fmt.Sprintf("/proc/self/fd/%d", fd)+"/.", d.xattrs), unix.UtimesNanoAt(fd, ".", d.times, 0), unix.Close(fd))
		if err != nil {
			return treeError(d.path, err)
		}
	}
	return nil
}
