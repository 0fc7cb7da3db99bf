package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMergeWithoutLinks merges a file that has as many names as it may have: it
// is copied once, for all its names.
func TestMergeWithoutLinks(t *testing.T) {
	layer, tree := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(layer, "a"), []byte("text"), 0o640), os.Link(filepath.Join(layer, "a"), filepath.Join(layer, "b")),
		os.Symlink("a", filepath.Join(layer, "l")),
	); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	var full unix.Stat_t
	if err := unix.Stat(filepath.Join(layer, "a"), &full); err != nil {
		t.Fatal(err)
	}
	m := merger{root: int(dst.Fd()), copies: map[uint64]place{}, linkat: func(from int, old string, to int, name string, flags int) error {
		var st unix.Stat_t
		if err := unix.Fstatat(from, old, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Ino == full.Ino {
			return unix.EMLINK
		}
		return unix.Linkat(from, old, to, name, flags)
	}}
	defer m.close()
	if err := m.dir(int(dst.Fd()), int(src.Fd()), "."); err != nil {
		t.Fatal(err)
	}
	a, errA := os.Stat(filepath.Join(tree, "a"))
	b, errB := os.Stat(filepath.Join(tree, "b"))
	was, errC := os.Stat(filepath.Join(layer, "a"))
	if err := errors.Join(errA, errB, errC); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(a, b) || os.SameFile(a, was) || a.Mode() != was.Mode() || a.Size() != was.Size() || !a.ModTime().Equal(was.ModTime()) {
		t.Errorf("got %v and %v, want one copy of %v", a, b, was)
	}
	if m.used.Bytes < 4 || m.used.Files != 3 {
		t.Errorf("got %+v counted", m.used)
	}
}
