package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// exposed reports whether others than the owner may read or write. Windows
// has no such bits.
func exposed(mode fs.FileMode) bool {
	return runtime.GOOS != "windows" && mode.Perm()&0o077 != 0
}

// writeNew makes a file with this content, mode 0600, or none: the content is
// on disk before the name is. Errors match [ErrExists] when the name is taken.
func writeNew(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	switch err := durable.CreateFile(path, data); {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %s", ErrExists, path)
	case err != nil:
		return fmt.Errorf("keystore: write %s: %w", path, err)
	}
	return nil
}
