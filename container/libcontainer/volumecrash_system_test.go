//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// volumeNodeEnv makes this test binary the "node" of TestVolumeCrash, over the
// directory that it names.
const volumeNodeEnv = "PKTCLOUD_TEST_VOLUME_NODE"

// TestVolumeNode does all that can be done to volumes, in an order in which
// each state differs from the one before.
func TestVolumeNode(t *testing.T) {
	dir := os.Getenv(volumeNodeEnv)
	if dir == "" {
		return // it is a part of TestVolumeCrash
	}
	w := boxtest.Join(t, kind, dir)
	rt := w.RT
	ctx := t.Context()
	large, largeB := volumeOf("a"), volumeOf("b")
	large.SizeBytes *= 2
	largeB.SizeBytes *= 2
	spec := with(w.Spec("user", boxtest.Sh("while :; do echo n > /data/n; sleep 0.05; done")...), "a:/data")
	for _, step := range []func() error{
		func() error { return rt.CreateVolume(ctx, volumeOf("a")) },
		func() error { return rt.Start(ctx, spec) },
		func() error { return rt.GrowVolume(ctx, large) },
		func() error {
			s, err := rt.Snapshot(ctx, "lease", "a")
			if err != nil {
				return err
			}
			tree, err := s.Tree("a")
			return errors.Join(err, rt.RestoreVolume(ctx, volumeOf("b"), tree), s.Close())
		},
		func() error { return rt.Destroy(ctx, spec.ID) },
		func() error { return rt.GrowVolume(ctx, largeB) }, // which nobody mounts, and so would make larger
		func() error { return rt.RemoveVolume(ctx, large.VolumeID) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("node: done")
}

// TestVolumeCrash kills the node at every point at which a volume is half made,
// half grown or half gone. The next runtime finds the state before or after,
// whole, its container runs on, and nothing is left.
func TestVolumeCrash(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "crash.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "system,crashpoints", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const least, twice = "a:314572800", "a:629145600"
	const b, twiceB = "b:314572800", "b:629145600"
	states := []string{"", least, twice, twice + " " + b, twice + " " + twiceB, twiceB}
	seen := map[string]bool{}
	for at := 1; ; at++ {
		done := false
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			w := newWorld(t)
			defer w.RemoveVolumes()
			w.CloseAll()
			cmd := exec.Command(binary, "-test.run=^TestVolumeNode$")
			cmd.Env = append(os.Environ(), volumeNodeEnv+"="+w.Dir, fmt.Sprintf("PKTCLOUD_CRASH_AT=%d", at))
			out, err := cmd.CombinedOutput()
			done = strings.Contains(string(out), "node: done")
			if err == nil != done || err != nil && !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%v: %s", err, out)
			}
			w.OpenAll()
			got := w.checkVolumes()
			seen[got] = true
			if !slices.Contains(states, got) {
				t.Errorf("got the volumes %q, want one of %q", got, states)
			}
			if left, _ := os.ReadDir(filepath.Join(w.Dir, "run/trash")); len(left) != 0 {
				t.Errorf("left in the trash: %v", left)
			}
			if s, err := w.RT.Status(t.Context(), "user"); err == nil && s.State == container.Running {
				w.must("user", "busybox rm -f /data/n; until busybox test -s /data/n; do sleep 0.05; done")
			} else if err == nil && s.State != container.Created && got != twice+" "+b { // else its removal had begun
				t.Errorf("the container is %s", s.State)
			}
		})
		if done || t.Failed() {
			break
		}
		if at > 100 {
			t.Fatal("the node never gets through")
		}
	}
	for _, s := range states {
		if !seen[s] && !t.Failed() {
			t.Errorf("no crash left the volumes %q", s)
		}
	}
}

// checkVolumes names all volumes, and sees that each has the space that it was
// promised, in its file and in the file system.
func (w *world) checkVolumes() string {
	w.T.Helper()
	all, err := w.RT.Volumes(context.Background(), "")
	if err != nil {
		w.T.Fatal(err)
	}
	var names []string
	entries, _ := os.ReadDir(filepath.Join(w.Dir, "run/volumes"))
	dirs := slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() })
	if len(dirs) != len(all) {
		w.T.Errorf("got %d volumes, and the directories %v", len(all), dirs)
	}
	for _, v := range all {
		names = append(names, fmt.Sprintf("%s:%d", v.Name, v.SizeBytes))
		st, err := os.Stat(filepath.Join(w.Dir, "run/volumes/lease:"+v.Name+"/volume.img"))
		if err != nil || st.Size() != int64(v.SizeBytes) || onDisk(st) < int64(v.SizeBytes) {
			w.T.Errorf("volume %s: got a file of %d bytes with %d on the disk, want %d; %v", v.Name, st.Size(), onDisk(st), v.SizeBytes, err)
		}
		if least := v.SizeBytes - v.SizeBytes/3; v.FreeBytes < least {
			w.T.Errorf("volume %s: got %d bytes free of %d, want at least %d", v.Name, v.FreeBytes, v.SizeBytes, least)
		}
	}
	return strings.Join(names, " ")
}
