//go:build linux && cgo && amd64

package libcontainer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each container's disk is empty: what one wrote is in no other, whether or not
// the empty file system was kept.
func TestFormatDisk(t *testing.T) {
	if _, err := findMkfs(); err != nil {
		t.Skip("needs mkfs.ext4 of the package e2fsprogs")
	}
	const size = 4 << 20
	dir, kept := t.TempDir(), filepath.Join(t.TempDir(), emptyDisksDir)
	disk := func(name string) []byte {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := makeDisk(path, size, kept); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Whoever has the disk writes to all of it.
		if err := os.WriteFile(path, bytes.Repeat([]byte("secret"), size/6), 0o600); err != nil {
			t.Fatal(err)
		}
		return b
	}
	alone := disk("alone") // nothing can be kept without the directory
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	first, second := disk("first"), disk("second")
	if !bytes.Equal(first, second) {
		t.Error("the second disk is not as the first was")
	}
	for name, b := range map[string][]byte{"alone": alone, "first": first, "second": second} {
		if len(b) != size || b[1024+56] != 0x53 || b[1024+57] != 0xef || bytes.Contains(b, []byte("secret")) {
			t.Errorf("%s: %d bytes are no empty ext4", name, len(b))
		}
	}
	if err := makeDisk(filepath.Join(dir, "first"), size, kept); !errors.Is(err, os.ErrExist) {
		t.Errorf("a disk that is there: got %v", err)
	}
}

// TestDropOldest: there is always room for one more size, and the newest stay.
func TestDropOldest(t *testing.T) {
	kept := t.TempDir()
	const all = maxEmptyDisks + 3
	path := func(i int) string { return filepath.Join(kept, strconv.Itoa(i)) }
	for i := 1; i <= all; i++ {
		dropOldest(kept)
		made := time.Unix(int64(i), 0)
		if err := errors.Join(os.WriteFile(path(i), nil, 0o600), os.Chtimes(path(i), made, made)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i <= all; i++ {
		if _, err := os.Stat(path(i)); (err == nil) != (i > all-maxEmptyDisks) {
			t.Errorf("size %d of %d: got %v, want the newest %d kept", i, all, err, maxEmptyDisks)
		}
	}
}

// A disk counts as free only once nobody can write to it any more.
func TestUnwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if unwritten(path) {
		t.Error("a file that is being written counts as free")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if unwritten(path) {
		return
	}
	own, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := unix.FcntlInt(own.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err == nil {
		t.Error("a file that nobody writes does not count as free")
	}
	t.Log("this file system cannot tell; all loop devices are asked then")
}

// TestEmptyFile: what is about to be removed is emptied, and nothing that a link
// leads to.
func TestEmptyFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "disk"), filepath.Join(dir, "link")
	data := bytes.Repeat([]byte("secret"), 4096)
	if err := errors.Join(os.WriteFile(path, data, 0o600), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	emptyFile(link)
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, data) {
		t.Errorf("by a link: %d bytes are changed, %v", len(b), err)
	}
	emptyFile(path)
	emptyFile(filepath.Join(dir, "missing"))
	b, err := os.ReadFile(path)
	var st unix.Statfs_t
	if err := errors.Join(err, unix.Statfs(dir, &st)); err != nil {
		t.Fatal(err)
	}
	want := data
	if st.Type == unix.EXT4_SUPER_MAGIC {
		want = make([]byte, len(data))
	}
	if !bytes.Equal(b, want) {
		t.Errorf("got %d bytes that are not what was wanted, as file system %x", len(b), st.Type)
	}
}
