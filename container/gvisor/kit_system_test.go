//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// TestKit checks the promises of container.Runtime, but for those that name
// what is different with a kernel inside.
func TestKit(t *testing.T) {
	w := newWorld(t)
	f := w.Fixture()
	// It has no handler for SIGTERM, which would end it: see signal-unhandled.
	f.Serve = boxtest.Sh("trap '' TERM; echo serving; exec nc -ll -p 8080 -e echo hello")
	f.Fork = boxtest.Sh("i=0; while [ $i -lt 100 ]; do sleep 0.3 & i=$((i+1)); done")
	f.OwnPids = true
	f.Without = map[string]string{
		"exec-limits":      "the kernel inside has all the container's memory, so the container ends when there is no more, and not one program",
		"usage-hits":       "that, and the processes are not counted; TestUsage looks at the others",
		"signal-unhandled": "the kernel inside ends a first process like any other by a signal that it does not handle",
	}
	if err := containertest.TestRuntime(w.RT, f); err != nil {
		t.Error(err)
	}
}
