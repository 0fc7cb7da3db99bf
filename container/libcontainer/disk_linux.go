//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Empty file systems are made once for each size and copied after: a copy has a
// few hundred kilobytes, most of it holes. They lie in a directory of the
// runtime's, which is emptied when it opens; nothing of a container gets there
// [CONTAINER-88].

// maxEmptyDisks bounds how many sizes are kept; the one made first goes first.
const maxEmptyDisks = 16

// diskBlock is the size of the blocks of a container's disk, in bytes.
const diskBlock = 4096

// emptyDisksDir is the directory, beside the one of all containers.
const emptyDisksDir = "disks"

// emptyDisksOf is that of the runtime of a container in dir.
func emptyDisksOf(dir string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(dir)), emptyDisksDir)
}

// formatDisk gives file, which has its size and is all zeros, an empty file
// system. kept is the directory of those that were made before.
func formatDisk(file *os.File, size uint64, kept string) error {
	empty, err := emptyDisk(kept, size)
	if err == nil {
		defer empty.Close()
		return copyData(file, empty)
	}
	if !errors.Is(err, os.ErrNotExist) { // without the directory each is made by itself
		return err
	}
	return mkfs(file.Name())
}

// emptyDisk opens the empty file system of a size, which it makes where there
// is none. Several monitors may do so at once; one of theirs stays.
func emptyDisk(kept string, size uint64) (*os.File, error) {
	name := filepath.Join(kept, strconv.FormatUint(size, 10))
	f, err := os.Open(name)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	part, err := os.CreateTemp(kept, "new-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(part.Name()) //nolint:errcheck // after the renaming it is gone
	err = part.Truncate(int64(size))
	if err == nil {
		err = mkfs(part.Name())
	}
	// It is whole on disk before it has its name.
	if err := errors.Join(err, part.Sync(), part.Close()); err != nil {
		return nil, err
	}
	dropOldest(kept)
	if err := os.Rename(part.Name(), name); err != nil {
		return nil, err
	}
	return os.Open(name)
}

// dropOldest makes room for one more.
func dropOldest(kept string) {
	entries, _ := os.ReadDir(kept)
	oldest, when, sizes := "", time.Time{}, 0
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 64); err != nil {
			continue // one that is being made
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		sizes++
		if oldest == "" || info.ModTime().Before(when) {
			oldest, when = e.Name(), info.ModTime()
		}
	}
	if sizes >= maxEmptyDisks {
		_ = os.Remove(filepath.Join(kept, oldest))
	}
}

// copyData copies what is not a hole to the same place in a file of zeros.
func copyData(to, from *os.File) error {
	in := int(from.Fd())
	for at := int64(0); ; {
		begin, err := unix.Seek(in, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but holes
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(in, begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.NewOffsetWriter(to, begin), io.NewSectionReader(from, begin, end-begin))
		if err != nil {
			return err
		}
		if n != end-begin {
			return io.ErrUnexpectedEOF
		}
		at = end
	}
}

// maxEmptied is the largest file, in bytes, whose extents are joined before it is
// removed: those of a larger one may be more than that saves.
const maxEmptied = 1 << 30

// emptyFile makes a file that is about to be removed one extent of zeros, where its
// file system is ext4. Where the disk is told at once of what is free, each extent
// would be waited for by itself, and a container's disk has a dozen.
func emptyFile(path string) {
	f, err := openFile(path, unix.O_WRONLY|unix.O_NOFOLLOW)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(f) }()
	var st unix.Statfs_t
	var own unix.Stat_t
	if unix.Fstatfs(f, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC && unix.Fstat(f, &own) == nil && own.Size <= maxEmptied {
		_ = unix.Fallocate(f, unix.FALLOC_FL_ZERO_RANGE, 0, own.Size)
	}
}

// mkfs makes an empty file system in a file.
func mkfs(path string) error {
	program, err := findMkfs()
	if err != nil {
		return err
	}
	out, err := exec.Command(program, "-q", "-F", "-b", strconv.Itoa(diskBlock), "-m", "0", "-O", "^has_journal,^resize_inode",
		"-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.200s", program, err, out)
	}
	return nil
}
