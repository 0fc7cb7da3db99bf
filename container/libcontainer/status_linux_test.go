//go:build linux && cgo && amd64

package libcontainer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestStatusWhileDestroyed: a container that is set aside while its files are
// read was not found, or is as it was; it never seems to have not begun.
func TestStatusWhileDestroyed(t *testing.T) {
	r := &Runtime{boxes: t.TempDir()}
	dir, away := filepath.Join(r.boxes, "one"), filepath.Join(t.TempDir(), "away")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{recordFile: record{}, startedFile: started{}, exitFile: exited{Code: 7}} {
		if err := writeJSON(dir, name, v); err != nil {
			t.Fatal(err)
		}
	}
	for range 300 {
		moved := make(chan error, 1)
		go func() { moved <- os.Rename(dir, away) }()
		for {
			s, err := r.Status(t.Context(), "one")
			if errors.Is(err, container.CodeNotFound) {
				break
			}
			if err != nil || s.State != container.Exited || s.ExitCode != 7 {
				t.Fatalf("got %+v, %v, want exit code 7, or not found", s, err)
			}
		}
		if err := errors.Join(<-moved, os.Rename(away, dir)); err != nil {
			t.Fatal(err)
		}
	}
}
