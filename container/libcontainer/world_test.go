//go:build (system || soak) && linux && cgo && amd64

package libcontainer_test

import (
	"maps"
	"slices"
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

func running(cmdline string) bool { return len(boxtest.CommandLines(cmdline, "")) > 0 }

// hostPID finds a process by its command line.
func (w *world) hostPID(cmdline string) int {
	w.T.Helper()
	found := slices.Sorted(maps.Keys(boxtest.CommandLines(cmdline, "")))
	if len(found) == 0 {
		w.T.Fatalf("no process %q", cmdline)
	}
	return found[0]
}
