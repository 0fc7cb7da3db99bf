//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// alone returns what runs true by runsc alone, on the bundle that the driver
// makes but for its disk, control groups, network and filter.
func (w *world) alone() func() error {
	w.T.Helper()
	const first = 0x60000000
	rootfs, dir := filepath.Join(w.Dir, "rootfs"), filepath.Join(w.Dir, "bundle")
	for _, d := range []string{dir, filepath.Join(rootfs, "bin"), filepath.Join(w.Dir, "state")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			w.T.Fatal(err)
		}
	}
	b, err := os.ReadFile(boxtest.Busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(rootfs, "bin/true"), b, 0o755)
	}
	for _, p := range []string{w.Dir, filepath.Dir(w.Dir)} { // its kernel has other ids
		if err == nil {
			err = os.Chmod(p, 0o711)
		}
	}
	for _, p := range []string{"bin/true", "bin", "."} {
		if err == nil {
			err = os.Chown(filepath.Join(rootfs, p), first, first)
		}
	}
	spec := gvisor.Bundle(&sandbox.Box{
		Rootfs: rootfs, Hostname: "alone", FirstID: first, IDs: 1 << 16, Shm: 32 << 20, Pids: 64, Files: 1024,
	}, &sandbox.Process{Args: []string{"/bin/true"}, Env: []string{"PATH=/bin"}, WorkDir: "/"})
	spec.Linux.CgroupsPath = ""
	if err == nil {
		err = gvisor.WriteJSON(dir, "config.json", spec)
	}
	if err != nil {
		w.T.Fatal(err)
	}
	n := 0
	return func() error {
		n++
		cmd := exec.Command(runsc(w.T), "-root", filepath.Join(w.Dir, "state"), "-network", "none", "-overlay2", "none", "-ignore-cgroups",
			"run", "-bundle", dir, fmt.Sprintf("alone-%d", n))
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
}

// TestCreateToExit measures a trivial container from Start to its exit, and
// runsc alone, by turns.
func TestCreateToExit(t *testing.T) {
	w := newWorld(t)
	alone := w.alone()
	var ours, theirs []time.Duration
	for i := range 12 {
		begun := time.Now()
		if err := alone(); err != nil {
			t.Fatal(err)
		}
		theirs = append(theirs, time.Since(begun))
		id := fmt.Sprintf("timed-%d", i)
		begun = time.Now()
		w.Start(w.Spec(id, "true"))
		for {
			s, err := w.RT.Status(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if s.State == container.Exited {
				break
			}
			time.Sleep(time.Millisecond)
		}
		ours = append(ours, time.Since(begun))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	middle := len(ours) / 2
	t.Logf("create to exit: driver min %v, median %v; runsc alone min %v, median %v; ratio of the medians %.2f, of the minima %.2f",
		ours[0], ours[middle], theirs[0], theirs[middle],
		float64(ours[middle])/float64(theirs[middle]), float64(ours[0])/float64(theirs[0]))
}
