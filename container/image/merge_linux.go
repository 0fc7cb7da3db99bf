package image

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// mergeLayers makes in root the tree that layers give, lowest first. Files are
// hard links to those of the layers. It runs on directories that a tenant has
// filled: each step is one name below an open directory, and only a directory
// that the upper layer did not name itself follows a link of a lower one, which
// leads nowhere outside root.
func mergeLayers(root *os.File, layers []*os.File) (usage, error) {
	m := merger{root: int(root.Fd()), linkat: unix.Linkat, copies: map[uint64]place{}}
	defer m.close()
	for _, l := range layers {
		if err := m.dir(m.root, int(l.Fd()), "."); err != nil {
			return usage{}, err
		}
	}
	return m.used, nil
}

type merger struct {
	root   int
	used   usage
	linkat func(oldDir int, old string, newDir int, name string, flags int) error
	copies map[uint64]place // by inode: files that have no room for more names
}

// place is a name in a directory of the tree.
type place struct {
	dir  int
	name string
}

func (m *merger) close() {
	for _, p := range m.copies {
		_ = unix.Close(p.dir)
	}
}

// Space of what a tree has beside the files that it shares.
const (
	dirBytes  = 4096
	linkBytes = 64
)

// dir lays the directory src over dst, which is at the path at below the root.
func (m *merger) dir(dst, src int, at string) error {
	names, err := namesIn(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, whiteoutPrefix) {
			if err := whiteout(dst, n); err != nil {
				return err
			}
		}
	}
	for _, n := range names {
		if strings.HasPrefix(n, whiteoutPrefix) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(src, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = m.subdir(dst, src, n, path.Join(at, n), &st)
		} else {
			err = m.link(dst, src, n, &st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// whiteout takes away what a layer says is gone from those below it.
func whiteout(dst int, mark string) error {
	if mark != whiteoutOpaque {
		if name := strings.TrimPrefix(mark, whiteoutPrefix); name != "" && name != "." && name != ".." && !strings.HasPrefix(mark, whiteoutMeta) {
			return removeIn(dst, name)
		}
		return nil
	}
	names, err := namesIn(dst)
	for _, n := range names {
		err = errors.Join(err, removeIn(dst, n))
	}
	return err
}

func (m *merger) link(dst, src int, name string, st *unix.Stat_t) error {
	m.used.Files++
	m.used.Bytes += linkBytes
	err := m.linkat(src, name, dst, name, 0)
	if errors.Is(err, unix.EEXIST) {
		if err := removeIn(dst, name); err != nil {
			return err
		}
		err = m.linkat(src, name, dst, name, 0)
	}
	if errors.Is(err, unix.EMLINK) && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return m.copy(dst, src, name, st)
	}
	return err
}

// copy makes a copy of a file that has as many names as its file system allows;
// its further names in this tree are the copy's.
func (m *merger) copy(dst, src int, name string, st *unix.Stat_t) error {
	if p, ok := m.copies[st.Ino]; ok && m.linkat(p.dir, p.name, dst, name, 0) == nil {
		return nil
	}
	from, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(from), name)
	defer in.Close()
	to, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(to), name)
	n, err := io.Copy(out, in)
	m.used.Bytes += uint64(n)
	if err == nil {
		err = copyMeta(to, from, st)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if dir, err := openDir(dst, "."); err == nil {
		if p, ok := m.copies[st.Ino]; ok {
			_ = unix.Close(p.dir)
		}
		m.copies[st.Ino] = place{dir, name}
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *merger) subdir(dst, src int, name, at string, st *unix.Stat_t) error {
	named := st.Mode&unix.S_ISUID == 0
	from, err := openDir(src, name)
	if err != nil {
		return err
	}
	defer unix.Close(from) //nolint:errcheck // only read
	var have unix.Stat_t
	err = unix.Fstatat(dst, name, &have, unix.AT_SYMLINK_NOFOLLOW)
	there := err == nil && have.Mode&unix.S_IFMT == unix.S_IFDIR
	if err == nil && !there {
		if have.Mode&unix.S_IFMT == unix.S_IFLNK && !named {
			how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
			if to, err := unix.Openat2(m.root, at, &how); err == nil {
				defer unix.Close(to) //nolint:errcheck // nothing is buffered
				return m.dir(to, from, at)
			}
		}
		if err := unix.Unlinkat(dst, name, 0); err != nil {
			return err
		}
	}
	if !there {
		m.used.Files++
		m.used.Bytes += dirBytes
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
	}
	to, err := openDir(dst, name)
	if err != nil {
		return err
	}
	defer unix.Close(to) //nolint:errcheck // nothing is buffered
	if err := m.dir(to, from, at); err != nil {
		return err
	}
	if there && !named {
		return nil
	}
	if err := copyMeta(to, from, st); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyMeta gives an open file or directory the owner, mode and attributes of
// another.
func copyMeta(to, from int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o1777); err != nil {
		return err
	}
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, list)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	for attr := range strings.SplitSeq(string(list[:max(n, 0)]), "\x00") {
		if !strings.HasPrefix(attr, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(from, attr, value)
		if err == nil {
			err = unix.Fsetxattr(to, attr, value[:n], 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeIn removes what has a name in a directory, whatever it is, and follows
// nothing.
func removeIn(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	sub, openErr := openDir(dir, name)
	if openErr != nil {
		return err
	}
	defer unix.Close(sub) //nolint:errcheck // only read
	names, err := namesIn(sub)
	for _, n := range names {
		err = errors.Join(err, removeIn(sub, n))
	}
	return errors.Join(err, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// namesIn lists a directory without moving its descriptor.
func namesIn(dir int) ([]string, error) {
	fd, err := openDir(dir, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	names, err := f.Readdirnames(-1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, errors.Join(err, f.Close())
}
