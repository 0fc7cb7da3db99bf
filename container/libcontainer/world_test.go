//go:build (system || soak) && linux && cgo && amd64

package libcontainer_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// These tests need what a boxtest.World needs.

var limits = container.SmallLimits()

var kind = boxtest.Kind{Limits: limits, Open: libcontainer.New}

type world struct{ *boxtest.World }

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir())
}

func newWorldIn(t *testing.T, dir string) *world {
	t.Helper()
	return &world{boxtest.New(t, kind, dir)}
}

// otherDir is where a test has a second runtime.
func (w *world) otherDir() string { return filepath.Join(w.Dir, "other-run") }

func (w *world) running(cmdline string) bool { return len(w.hostPIDs(cmdline)) > 0 }

// hostPIDs are the processes with a command line in the control groups of this
// world's runtimes: others may run the same tests on the machine.
func (w *world) hostPIDs(cmdline string) []int {
	found := slices.Sorted(maps.Keys(boxtest.CommandLines(cmdline, "")))
	return slices.DeleteFunc(found, func(pid int) bool {
		groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		return !strings.Contains(string(groups), w.Group()+"/") && !strings.Contains(string(groups), "/"+libcontainer.Group(w.otherDir())+"/")
	})
}

// hostPID finds a process by its command line.
func (w *world) hostPID(cmdline string) int {
	w.T.Helper()
	found := w.hostPIDs(cmdline)
	if len(found) == 0 {
		w.T.Fatalf("no process %q", cmdline)
	}
	return found[0]
}
