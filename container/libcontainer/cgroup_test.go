//go:build linux && cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// These tests read folders that look like control groups; the real ones are
// for the system tier and make test-cgroup2.

// fakeGroup makes a folder of files.
func fakeGroup(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestGroupReaders shows what is understood of each version, and that a hybrid
// machine is read as v1.
func TestGroupReaders(t *testing.T) {
	v2 := map[string]string{
		"cpu.stat":       "usage_usec 1500000\nuser_usec 1\n",
		"memory.current": "4096\n",
		"memory.events":  "low 0\noom 3\noom_kill 1\noom_group_kill 0\n",
		"cgroup.events":  "populated 1\nfrozen 1\n",
	}
	v1 := map[string]string{
		"cpuacct.usage":         "2500000000\n",
		"memory.usage_in_bytes": "8192\n",
		"memory.oom_control":    "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
		"freezer.state":         "FREEZING\n",
	}
	one, two := fakeGroup(t, v1), fakeGroup(t, v2)
	v1["freezer.state"], v2["cgroup.events"] = "THAWED\n", "populated 1\nfrozen 0\n"
	oneRuns, twoRuns := fakeGroup(t, v1), fakeGroup(t, v2)
	old := cgroupPaths{"cpuacct": one, "memory": one, "freezer": one}
	for _, c := range []struct {
		name   string
		paths  cgroupPaths
		cpu    time.Duration
		memory uint64
		oom    bool
		paused bool
	}{
		{"v2", cgroupPaths{"": two}, 1500 * time.Millisecond, 4096, true, true},
		{"v2, running", cgroupPaths{"": twoRuns}, 1500 * time.Millisecond, 4096, true, false},
		{"v1", old, 2500 * time.Millisecond, 8192, false, true},
		{"v1, running", cgroupPaths{"cpuacct": one, "memory": one, "freezer": oneRuns}, 2500 * time.Millisecond, 8192, false, false},
		{"hybrid", cgroupPaths{"": twoRuns, "cpuacct": one, "memory": one, "freezer": one}, 2500 * time.Millisecond, 8192, false, true},
		{"gone", cgroupPaths{"": filepath.Join(two, "none")}, 0, 0, false, false},
	} {
		cpu, memory := c.paths.usage()
		if cpu != c.cpu || memory != c.memory || c.paths.oomKilled() != c.oom || c.paths.paused() != c.paused {
			t.Errorf("%s: got %v, %d, killed %v, paused %v, want %v, %d, %v, %v", c.name, cpu, memory, c.paths.oomKilled(), c.paths.paused(), c.cpu, c.memory, c.oom, c.paused)
		}
	}
}

// TestFreezeGivenUp shows that a group which does not freeze in time is thawed.
func TestFreezeGivenUp(t *testing.T) {
	v2 := fakeGroup(t, map[string]string{"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 0\n"})
	v1 := fakeGroup(t, map[string]string{"freezer.state": "THAWED"})
	for _, c := range []struct {
		paths      cgroupPaths
		file, want string
	}{
		{cgroupPaths{"": v2}, filepath.Join(v2, "cgroup.freeze"), "0"},
		// Here the file keeps what was written, so that the group looks frozen at once.
		{cgroupPaths{"freezer": v1, "memory": v1}, filepath.Join(v1, "freezer.state"), "FROZEN"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := c.paths.freeze(ctx, true)
		cancel()
		got, _ := os.ReadFile(c.file)
		if (c.want == "FROZEN") != (err == nil) || err != nil && !errors.Is(err, context.DeadlineExceeded) || string(got) != c.want {
			t.Errorf("got %v and %q in %s, want %q", err, got, filepath.Base(c.file), c.want)
		}
	}
}

func TestWholeDisk(t *testing.T) {
	if dev, err := wholeDisk("/proc"); dev != 0 || err != nil {
		t.Errorf("a file system without a device: got %d, %v", dev, err)
	}
	if _, err := wholeDisk(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a path that is not there has a disk")
	}
}
