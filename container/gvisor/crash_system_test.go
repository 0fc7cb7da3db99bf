//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

func TestNodeProcess(t *testing.T) { boxtest.NodeProcess(t, kind(t)) }

func TestNodeKilled(t *testing.T) { boxtest.NodeKilled(newWorld(t).World) }

func TestNodeKilledWhileStarting(t *testing.T) {
	boxtest.NodeKilledWhileStarting(newWorld(t).World, 40*time.Millisecond)
}

func TestMonitorKilled(t *testing.T) { boxtest.MonitorKilled(newWorld(t).World) }

func TestStartCancelled(t *testing.T) {
	boxtest.StartCancelled(newWorld(t).World, 40*time.Millisecond)
}
