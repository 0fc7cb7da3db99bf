//go:build linux && cgo && amd64

package boxtest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// Group is the control group of the runtime's containers, with a slash.
func (w *World) Group() string { return "/" + libcontainer.Group(w.RunDir()) }

// GroupFiles are the files of a name below the runtime's control groups, in all
// hierarchies.
func (w *World) GroupFiles(pattern string) []string {
	out, _ := filepath.Glob("/sys/fs/cgroup/*" + w.Group() + pattern)
	more, _ := filepath.Glob("/sys/fs/cgroup" + w.Group() + pattern)
	return append(out, more...)
}

// Traces are what this runtime's containers might leave on the machine, which
// others use too.
func (w *World) Traces() []string {
	out := append(w.GroupFiles(""), w.ContainerTraces()...)
	for _, pid := range w.Standbys() {
		out = append(out, fmt.Sprintf("/proc/%d/cmdline", pid))
	}
	return out
}

// Standbys are the processes that stand by to become monitors of the runtime's.
func (w *World) Standbys() []int {
	return slices.Sorted(maps.Keys(CommandLines("pktcloud-standby\x00"+strings.Trim(w.Group(), "/"), "")))
}

// ContainerTraces are those of containers; an open runtime keeps its group.
func (w *World) ContainerTraces() []string {
	out := w.GroupFiles("/*/")
	for _, pattern := range []string{
		"/sys/block/loop*/loop/backing_file", "/proc/[0-9]*/cmdline", "/proc/[0-9]*/cgroup", "/proc/[0-9]*/mountinfo", "/var/lib/pktcloud/ids/*",
	} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			if b, _ := os.ReadFile(f); bytes.Contains(b, []byte(w.Dir)) || bytes.Contains(b, []byte(w.Group())) {
				out = append(out, f)
			}
		}
	}
	return out
}

// CheckClean wants no traces. It allows the kernel a moment.
func (w *World) CheckClean() {
	w.T.Helper()
	for deadline := time.Now().Add(Patience / 4); ; time.Sleep(20 * time.Millisecond) {
		left := w.Traces()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.T.Errorf("left on the machine: %s", strings.Join(left, "\n"))
			return
		}
	}
}

// GroupProcesses are the machine's processes in a container's control groups,
// once for each group.
func (w *World) GroupProcesses(id string) []int {
	w.T.Helper()
	var out []int
	for _, f := range w.GroupFiles("/" + id + "/cgroup.procs") {
		b, _ := os.ReadFile(f)
		for pid := range strings.FieldsSeq(string(b)) {
			out = append(out, Number(w.T, pid))
		}
	}
	return out
}

// Monitor is the process of a container's monitor.
func (w *World) Monitor(id string) int {
	w.T.Helper()
	b, err := os.ReadFile(filepath.Join(w.Box(id), "alive"))
	if err != nil {
		w.T.Fatal(err)
	}
	return Number(w.T, strings.TrimSpace(string(b)))
}

// CommandLines are those of this machine's processes that begin with a text and
// contain another, by process id.
func CommandLines(prefix, part string) map[int]string {
	out := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && strings.HasPrefix(string(line), prefix) && strings.Contains(string(line), part) {
			out[pid] = string(line)
		}
	}
	return out
}

// ProcessID waits for a process of this runtime, and finds it by its first word.
func (w *World) ProcessID(word string) int {
	w.T.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(10 * time.Millisecond) {
		for pid := range CommandLines(word+"\x00", w.Dir) {
			return pid
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("no process %s", word)
		}
	}
}

// Number is s as one.
func Number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// HasCapability reports whether this process has a capability.
func HasCapability(t *testing.T, n uint) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nCapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	bits, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return bits>>n&1 == 1
}
