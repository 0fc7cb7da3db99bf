//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// TestLogFlood lets a container write as fast as it can, while one reader
// follows and does not read. Neither the log nor a process grows, both streams
// stay in order, and the container is not stopped by it.
func TestLogFlood(t *testing.T) {
	w := newWorld(t)
	const most = 4 << 20
	w.Config.LogBytes = most
	w.Reopen()
	const id = "flood"
	w.Start(w.Spec(id, boxtest.Sh("dd if=/dev/zero bs=64k & while :; do echo out; echo err >&2; done")...))
	stalled, err := w.RT.Logs(t.Context(), id, container.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Close()
	var one [1]byte
	if _, err := stalled.Read(one[:]); err != nil {
		t.Fatal(err)
	}
	box := w.Box(id)
	var pid int
	b, err := os.ReadFile(filepath.Join(box, "alive"))
	if _, serr := fmt.Sscan(string(b), &pid); err != nil || serr != nil {
		t.Fatal(err, serr)
	}
	// Until the log was written over some times.
	rotations, last := 0, os.FileInfo(nil)
	for deadline := time.Now().Add(boxtest.Patience); rotations < 10; time.Sleep(time.Millisecond) {
		if st, err := os.Stat(filepath.Join(box, "log.0")); err == nil && (last == nil || !os.SameFile(st, last)) {
			rotations, last = rotations+1, st
		}
		if time.Now().After(deadline) {
			t.Fatal("the container does not write on")
		}
	}
	if peak := peakMemory(t, pid); peak > 96<<20 {
		t.Errorf("the monitor took %d bytes", peak)
	}
	size := int64(0)
	for _, name := range []string{"log.0", "log.1"} {
		if st, err := os.Stat(filepath.Join(box, name)); err == nil {
			size += st.Size()
		}
	}
	if size > most {
		t.Errorf("the log has %d bytes, want at most %d", size, most)
	}
	if err := w.RT.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	streams, before := map[container.Stream]int{}, time.Time{}
	for line := range bytes.Lines([]byte(w.Logs(id))) {
		l, err := container.ParseLogLine(line)
		if err != nil || l.Time.Before(before) {
			t.Fatalf("after %v: %.80q, %v", before, line, err)
		}
		streams[l.Stream]++
		before = l.Time
	}
	if streams[container.Stdout] == 0 || streams[container.Stderr] == 0 {
		t.Errorf("got %v lines by stream, want both", streams)
	}
	t.Logf("%d rotations, %v lines by stream, this process has taken %d KiB", rotations, streams, peakMemory(t, os.Getpid())>>10)
}

func peakMemory(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib uint64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestTwoInOneProcess runs two runtimes side by side. Each has its own
// containers, and the end of one is nothing to the other.
func TestTwoInOneProcess(t *testing.T) {
	w := newWorld(t)
	other, err := libcontainer.New(libcontainer.Config{Dir: filepath.Join(w.Dir, "other"), Images: w.Store})
	if err != nil {
		t.Fatal(err)
	}
	runtimes := []*libcontainer.Runtime{w.RT, other}
	const id = "same"
	errs := make(chan error, len(runtimes))
	for i, rt := range runtimes {
		go func() {
			s := w.Spec(id, boxtest.Sh(fmt.Sprintf("echo of %d; exec sleep 1000", i))...)
			errs <- errors.Join(rt.Start(t.Context(), s), rt.Pause(t.Context(), id), rt.Resume(t.Context(), id))
		}()
	}
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Fatal(err)
	}
	if err := other.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	if all, err := other.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the other has %v, %v", all, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if s := w.Status(id); s.State != container.Running {
		t.Errorf("got %+v, want it to run on", s)
	}
	w.Await(id, func(container.Status) bool { return strings.HasSuffix(w.Logs(id), "of 0\n") })
}
