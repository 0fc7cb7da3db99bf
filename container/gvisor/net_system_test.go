//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// These are the tests of the other class's network, with kernels inside that
// have network stacks of their own. They take some 15 seconds together.

// TestNetworkEgress tries from inside what must and what must not be reached
// [CONTAINER-52] [CONTAINER-53] [CONTAINER-54].
func TestNetworkEgress(t *testing.T) {
	if netlab.Alone(t) {
		in := boxtest.NewInternet(t)
		boxtest.NetEgress(newWorld(t).World, in)
	}
}

// TestNetworkCounts compares the counters with what was sent, to the byte
// [CONTAINER-55].
func TestNetworkCounts(t *testing.T) {
	if netlab.Alone(t) {
		in := boxtest.NewInternet(t)
		boxtest.NetCounts(newWorld(t).World, in)
	}
}

// TestNetworkPublished connects from outside [CONTAINER-57].
func TestNetworkPublished(t *testing.T) {
	if netlab.Alone(t) {
		in := boxtest.NewInternet(t)
		boxtest.NetPublished(newWorld(t).World, in)
	}
}

// TestNetworkFlood has one group make trouble beside another [CONTAINER-58].
func TestNetworkFlood(t *testing.T) {
	if netlab.Alone(t) {
		_ = boxtest.NewInternet(t)
		boxtest.NetFlood(newWorld(t).World)
	}
}
