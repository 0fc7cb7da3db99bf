//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// copyShifted copies an unpacked image with all owners moved by shift. It is
// for kernels without idmapped overlays. The source is a tree of ours, which
// nobody changes meanwhile; links are copied as links and never followed.
func copyShifted(from, to string, shift int64) error {
	links := map[uint64]string{} // first copy of each file with several names
	var dirs []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Nlink > 1 && !d.IsDir() {
			if first, ok := links[st.Ino]; ok {
				return os.Link(first, dst)
			}
			links[st.Ino] = dst
		}
		if err := copyEntry(path, dst, st.Mode, rel == "."); err != nil {
			return err
		}
		if err := os.Lchown(dst, int(int64(st.Uid)+shift), int(int64(st.Gid)+shift)); err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, rel)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			if err := unix.Chmod(dst, st.Mode&0o1777); err != nil {
				return err
			}
		}
		return setTimes(dst, &st)
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		var st unix.Stat_t
		if err = unix.Lstat(filepath.Join(from, dirs[i]), &st); err == nil {
			err = setTimes(filepath.Join(to, dirs[i]), &st)
		}
	}
	if errors.Is(err, unix.ENOSPC) {
		return &container.Error{Code: container.CodeDiskFull, Detail: "this kernel needs a copy of the image within the writable layer; ask for a larger disk", Err: err}
	}
	return err
}

func setTimes(path string, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyEntry(src, dst string, mode uint32, top bool) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if top {
			return nil
		}
		return os.Mkdir(dst, 0o700)
	case unix.S_IFLNK:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(target, dst)
	case unix.S_IFIFO:
		return unix.Mkfifo(dst, 0o600)
	case unix.S_IFREG:
		in, err := os.Open(src)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
	return nil // sockets and the like are not part of images
}
