//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// These tests need what a boxtest.World needs, and runsc, which make runsc
// builds.

var limits = container.Limits{MilliCPU: 2000, MemoryBytes: 128 << 20, DiskBytes: 32 << 20, Pids: 64}

// runsc returns the path of the program under test.
func runsc(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "pktcloud-tools", "runsc-"+gvisor.Version)
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs runsc: make runsc")
	}
	return path
}

// kind runs every container in gVisor, but for those that demand another class.
func kind(t *testing.T) boxtest.Kind {
	t.Helper()
	path := runsc(t)
	return boxtest.Kind{Limits: limits, Open: func(c libcontainer.Config) (*libcontainer.Runtime, error) {
		return gvisor.New(gvisor.Config{Config: c, Runsc: path})
	}}
}

// bothKinds runs every container in the driver's own class, but for those that
// demand gVisor.
func bothKinds(t *testing.T) boxtest.Kind {
	t.Helper()
	class, err := gvisor.Find(runsc(t))
	if err != nil {
		t.Fatal(err)
	}
	return boxtest.Kind{Limits: limits, Open: func(c libcontainer.Config) (*libcontainer.Runtime, error) {
		c.Classes = []libcontainer.Class{class}
		return libcontainer.New(c)
	}}
}

type world struct{ *boxtest.World }

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{boxtest.New(t, kind(t), t.TempDir())}
}
