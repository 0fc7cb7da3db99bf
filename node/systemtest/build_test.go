//go:build system || soak

package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// binaries are the builds of the program, by their tags.
var binaries sync.Map

// binary builds the program once for each set of tags.
func binary(t *testing.T, tags string) string {
	t.Helper()
	build, _ := binaries.LoadOrStore(tags, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "bin-") //nolint:usetesting // it serves all tests
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, "pktcloud")
		overlay, err := carry(dir, []string{"fileserver"})
		if err != nil {
			return "", err
		}
		return path, buildFrom("../pktcloud", path, "-tags", strings.TrimSpace("files "+tags), "-overlay", overlay)
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// carry builds programs of container/libcontainer that pktcloud carries, with
// flags, and returns the overlay that puts them where it looks for them.
func carry(dir string, programs []string, flags ...string) (overlay string, err error) {
	replace := map[string]string{}
	for _, program := range programs {
		place, err := filepath.Abs(map[string]string{"monitor": "../pktcloud/monitor.bin", "fileserver": "../pktcloud/files.bin"}[program])
		if err != nil {
			return "", err
		}
		replace[place] = filepath.Join(dir, filepath.Base(place))
		if err := buildFrom("../../container/libcontainer/"+program, replace[place], append([]string{"-tags", "netgo osusergo"}, flags...)...); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

func buildFrom(folder, path string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	if out, err := exec.Command("go", append(args, folder)...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", folder, err, out)
	}
	return nil
}
