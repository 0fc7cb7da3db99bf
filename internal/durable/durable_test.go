package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// holds wants a file's content, and nothing but these names in its directory.
func holds(t *testing.T, path, want string, names ...string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: got %q, %v; want %q", filepath.Base(path), got, err, want)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if fmt.Sprint(left) != fmt.Sprint(names) {
		t.Errorf("the directory has %q, want %q", left, names)
	}
}

// Whoever has the old file open, or by another name, goes on reading it whole:
// the new one takes its name, not its place.
func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	if err := durable.WriteFile(path, []byte("the old content")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "new", "old", "record")
	holds(t, filepath.Join(dir, "old"), "the old content", "old", "record")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Mode().Perm(); runtime.GOOS != "windows" && got != 0o600 {
		t.Errorf("got mode %o, want 600", got)
	}
}

func TestCreateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "phrase")
	if err := durable.CreateFile(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := durable.CreateFile(path, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: got %v, want fs.ErrExist", err)
	}
	holds(t, path, "first", "phrase")
}

// A write that fails leaves no part, and what was there.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(taken, "file")
	if err := os.WriteFile(inside, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(string, []byte) error{"write": durable.WriteFile, "create": durable.CreateFile} {
		t.Run(name, func(t *testing.T) {
			if err := write(taken, []byte("new")); err == nil {
				t.Error("over a directory: got no error")
			}
			holds(t, inside, "old", "file")
			if parts, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(parts) > 0 {
				t.Errorf("left behind: %q, %v", parts, err)
			}
			if err := write(filepath.Join(dir, "missing", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("in no directory: got %v, want fs.ErrNotExist", err)
			}
		})
	}
}

// Writers at once do not mix, and readers see one content or another, whole.
func TestWritersAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	content := func(i int) string { return fmt.Sprintf("%01000d", i) }
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for range 10 {
				if err := durable.WriteFile(path, []byte(content(i))); err != nil {
					t.Error(err)
				}
				got, err := os.ReadFile(path)
				if err != nil || len(got) != 1000 || string(got) > content(3) {
					t.Errorf("got %d bytes, %v; want the 1000 of one writer", len(got), err)
				}
			}
		})
	}
	wait.Wait()
}
