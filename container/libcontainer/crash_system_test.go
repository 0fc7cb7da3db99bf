//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

func TestNodeProcess(t *testing.T) { boxtest.NodeProcess(t, kind) }

func TestNodeKilled(t *testing.T) { boxtest.NodeKilled(newWorld(t).World) }

func TestNodeKilledWhileStarting(t *testing.T) {
	boxtest.NodeKilledWhileStarting(newWorld(t).World, 12*time.Millisecond)
}

func TestMonitorKilled(t *testing.T) { boxtest.MonitorKilled(newWorld(t).World) }

func TestStartCancelled(t *testing.T) { boxtest.StartCancelled(newWorld(t).World, 8*time.Millisecond) }

// TestTwoRuntimes shows that a directory has one runtime at a time.
func TestTwoRuntimes(t *testing.T) {
	w := newWorld(t)
	if _, err := libcontainer.New(libcontainer.Config{Dir: w.RunDir(), Images: w.Store}); !errors.Is(err, container.CodeInUse) {
		t.Errorf("got %v, want %q", err, string(container.CodeInUse))
	}
}
