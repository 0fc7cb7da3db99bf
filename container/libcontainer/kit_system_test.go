//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/containertest"
)

// TestKit checks all promises of container.Runtime.
func TestKit(t *testing.T) {
	w := newWorld(t)
	if err := containertest.TestRuntime(w.RT, w.Fixture()); err != nil {
		t.Error(err)
	}
}
