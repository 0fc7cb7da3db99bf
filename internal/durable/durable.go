// Package durable writes small files so that a crash at any moment leaves
// either the old content or the new, and what was reported written stays.
//
// The content is written to a part beside its place, made durable, and given
// its name; then the name is made durable. Files have mode 0600. A crash may
// leave a part, a file whose name begins with ".new-"; it is never read. An
// error leaves none. Whole trees, and files that grow, are not its business.
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// WriteFile makes the file at path, or replaces it. Its directory must exist.
// Of several calls at once for one path the last one wins.
func WriteFile(path string, data []byte) error {
	return write(path, data, os.Rename)
}

// CreateFile makes the file at path. Errors match [fs.ErrExist] when the name
// is taken, and what has it stays as it was.
func CreateFile(path string, data []byte) error {
	return write(path, data, os.Link) // a link, unlike a rename, fails when the name is taken
}

// write has name give a part that is on disk its place.
func write(path string, data []byte, name func(part, path string) error) error {
	dir := filepath.Dir(path)
	part, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) //nolint:errcheck // after a rename it is gone
	_, err = part.Write(data)
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	if err := name(part.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a directory durable: files that were made,
// renamed and removed there.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" { // a directory cannot be opened there
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
