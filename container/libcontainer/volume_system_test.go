//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// These tests need /usr/sbin/mkfs.xfs of the package xfsprogs as well.

const leastVolume = container.MinVolumeBytes

func volumeOf(name string) container.VolumeSpec {
	return container.VolumeSpec{VolumeID: container.VolumeID{Lease: "lease", Name: name}, SizeBytes: leastVolume}
}

func (w *world) create(v container.VolumeSpec) {
	w.T.Helper()
	if err := w.RT.CreateVolume(w.T.Context(), v); err != nil {
		w.T.Fatal(err)
	}
}

// with mounts volumes in a container, "name:/path" or "name:/path:ro".
func with(s container.Spec, mounts ...string) container.Spec {
	s.Lease = "lease"
	for _, m := range mounts {
		name, path, _ := strings.Cut(m, ":")
		path, ro, _ := strings.Cut(path, ":")
		s.Volumes = append(s.Volumes, container.Mount{Volume: name, Path: path, ReadOnly: ro == "ro"})
	}
	return s
}

// must runs a script that has to succeed, and returns what it printed.
func (w *world) must(id, script string) string {
	w.T.Helper()
	out, code := w.Exec(id, "sh", "-c", script)
	if code != 0 {
		w.T.Fatalf("%s: got exit code %d, %q", script, code, out)
	}
	return out
}

// zeros is a script that writes so many MiB, and holds few of them in memory.
func zeros(path string, mib int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do dd if=/dev/zero of=%s bs=1M count=10 seek=$i conv=notrunc,fsync || exit; i=$((i+10)); done", mib, path)
}

// refused runs a script that has to fail with a word in its output.
func (w *world) refused(id, script, word string) {
	w.T.Helper()
	if out, code := w.Exec(id, "sh", "-c", script); code == 0 || !strings.Contains(out, word) {
		w.T.Errorf("%s: got exit code %d, %q, want %q", script, code, out, word)
	}
}

// onXFS returns a directory on an xfs of its own, which shares extents.
func onXFS(t *testing.T, size int64) string {
	t.Helper()
	return boxtest.OnFileSystem(t, "xfs", size)
}

// TestVolumes is a volume's life in containers.
func TestVolumes(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	w.create(volumeOf("data"))
	w.Start(with(w.Spec("a"), "data:/data"))
	w.must("a", "echo one > /data/f")
	w.Start(with(w.Spec("b"), "data:/mnt/deep/er:ro"))
	if got := w.must("b", "cat /mnt/deep/er/f"); got != "one\n" {
		t.Errorf("got %q", got)
	}
	w.refused("b", "echo two > /mnt/deep/er/f", "Read-only")
	for _, id := range []string{"a", "b"} {
		for line := range strings.Lines(w.must(id, "cat /proc/mounts")) {
			if strings.Contains(line, " xfs ") && (!strings.Contains(line, "nosuid") || !strings.Contains(line, "nodev")) {
				t.Errorf("got the mount %q, want nosuid and nodev", line)
			}
		}
	}
	w.refused("a", "dd if=/dev/zero of=/data/big bs=1M", "No space left")
	all, err := w.RT.Volumes(t.Context(), "lease")
	if err != nil || len(all) != 1 || !all[0].Full() {
		t.Errorf("got %+v, %v, want it full", all, err)
	}
	v := volumeOf("data")
	v.SizeBytes *= 2
	if err := w.RT.GrowVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	w.must("a", zeros("/data/more", 250))
}

func onDisk(st os.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks * 512 }

// TestVolumePromise fills the machine's disk around a volume. What the volume
// was promised is there; what is not there is not promised.
func TestVolumePromise(t *testing.T) {
	w := newWorldIn(t, boxtest.OnFileSystem(t, "ext4", 1<<30))
	defer w.RemoveVolumes()
	w.create(volumeOf("data"))
	w.Start(with(w.Spec("a"), "data:/data"))
	more := volumeOf("data")
	more.SizeBytes *= 4
	if err := w.RT.CreateVolume(t.Context(), container.VolumeSpec{VolumeID: container.VolumeID{Lease: "lease", Name: "more"}, SizeBytes: 4 * leastVolume}); !errors.Is(err, container.CodeDiskFull) {
		t.Errorf("a volume beyond the disk: got %v, want %q", err, string(container.CodeDiskFull))
	}
	if err := w.RT.GrowVolume(t.Context(), more); !errors.Is(err, container.CodeDiskFull) {
		t.Errorf("growth beyond the disk: got %v, want %q", err, string(container.CodeDiskFull))
	}
	if err := w.RT.CheckVolumes(t.Context(), 4*leastVolume); !errors.Is(err, container.CodeDiskFull) {
		t.Errorf("whether a volume beyond the disk could be made: got %v, want %q", err, string(container.CodeDiskFull))
	}
	if err := w.RT.CheckVolumes(t.Context(), leastVolume); err != nil {
		t.Errorf("whether a volume could be made: %v", err)
	}
	w.FillDisk()
	if _, err := w.RT.Snapshot(t.Context(), "lease", "data"); !errors.Is(err, container.CodeDiskFull) {
		t.Errorf("a snapshot on a full disk: got %v, want %q", err, string(container.CodeDiskFull))
	}
	w.must("a", zeros("/data/big", 200))
}

// TestVolumeHostileMount mounts volumes where an image has links and files
// instead of directories. Nothing of the machine changes.
func TestVolumeHostileMount(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	w.create(volumeOf("data"))
	outside := filepath.Join(w.Dir, "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + outside[1:]
	for name, c := range map[string]struct {
		at, to, path string
		ok           bool
	}{
		"to a place within": {"/data", "/www", "/data", true},
		"absolute":          {"/data", outside, "/data", false},
		"up":                {"/data", up, "/data", false},
		"parent absolute":   {"/data", outside, "/data/below", false},
		"parent up":         {"/data", up, "/data/below", false},
		"to proc":           {"/data", "/proc", "/data", false},
		"to dev":            {"/data", "/dev/", "/data", false},
		"to sys, up":        {"/data", "../../sys", "/data", false},
		"below proc":        {"/data", "/proc", "/data/x", false},
		"to the root":       {"/data", "/", "/data", false},
		"a file in its way": {"/data", "/bin/busybox", "/data", false},
		"below a file":      {"/data", "/bin/busybox", "/data/x", false},
		"a link to itself":  {"/data", "/data", "/data", false},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]image.File{"/bin/busybox": {Source: boxtest.Busybox, Mode: 0o755}, "/www/index": {Data: []byte("x")}, c.at: {Link: c.to}}
			for applet := range strings.FieldsSeq("sh cat sleep") {
				files["/bin/"+applet] = image.File{Link: "busybox"}
			}
			img, err := image.FromFiles(image.Build{Files: files, Args: []string{"sleep", "1000"}})
			if err != nil {
				t.Fatal(err)
			}
			layout := filepath.Join(w.Dir, "layout-"+strings.ReplaceAll(name, " ", "-"))
			if err := image.WriteLayout(layout, img); err != nil {
				t.Fatal(err)
			}
			got, err := w.RT.Pull(t.Context(), "oci:"+layout, container.PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			before := treeOf(t, outside)
			s := with(container.Spec{ID: "hostile", Image: got.Digest, Limits: limits}, "data:"+c.path)
			err = w.RT.Start(t.Context(), s)
			if c.ok && err != nil || !c.ok && err != nil && !errors.Is(err, container.CodeInvalidSpec) {
				t.Errorf("got %v", err)
			}
			if err == nil {
				// It may be mounted at the place within that the link leads to.
				out, code := w.Exec("hostile", "cat", "/proc/mounts")
				if code != 0 || strings.Count(out, " xfs ") != 1 || strings.Contains(out, " /proc xfs") || strings.Contains(out, " /dev xfs") || strings.Contains(out, " /sys xfs") || strings.Contains(out, " / xfs") {
					t.Errorf("got the mounts %s", out)
				}
			}
			if after := treeOf(t, outside); after != before {
				t.Errorf("the machine's directory changed: got\n%s\nwant\n%s", after, before)
			}
			if err := w.RT.Destroy(t.Context(), "hostile"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestVolumeOwner looks at who a new volume belongs to.
func TestVolumeOwner(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	for _, name := range []string{"over", "new", "root"} {
		w.create(volumeOf(name))
	}
	s := with(w.Spec("web", "sleep", "1000"), "over:/www", "new:/var/new/place", "root:/etc/more")
	s.User, s.WorkDir = "web", "/var/new/place/deep/work"
	w.Start(s)
	w.must("web", "touch /var/new/place/mine /var/new/place/deep/work/mine")
	for path, want := range map[string]string{"/www": "0:0 755", "/var/new/place": "33:44 755", "/var/new": "0:0 755", "/var/new/place/deep/work": "33:44 755"} {
		if got := w.must("web", "busybox stat -c '%u:%g %a' "+path); got != want+"\n" {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	// On the disk the ids are those inside, so another container sees the same.
	w.Start(with(w.Spec("other"), "new:/x"))
	if got := w.must("other", "busybox stat -c '%u:%g' /x/mine; echo later > /x/mine; busybox chown 1:2 /x; echo"); got != "33:44\n\n" {
		t.Errorf("from another container: got %q", got)
	}
	if err := w.RT.Destroy(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	w.Start(with(w.Spec("other"), "new:/x"))
	if got := w.must("other", "busybox stat -c '%u:%g' /x"); got != "1:2\n" {
		t.Errorf("a volume that was mounted before: got %q, want its owner kept", got)
	}
	snap := w.snapshot("new")
	var st unix.Stat_t
	if err := unix.Stat(w.tree(snap, "new").(container.LocalTree).Dir()+"/mine", &st); err != nil || st.Uid != 33 || st.Gid != 44 {
		t.Errorf("in a snapshot: got %d:%d, %v; want 33:44", st.Uid, st.Gid, err)
	}
}

func TestVolumeKit(t *testing.T) {
	eachDisk(t, func(w *world) {
		err := containertest.TestVolumes(w.RT, w.Fixture())
		if err != nil {
			w.T.Error(err)
		}
	})
}

// TestVolumePipe starts a container whose volume has a pipe where the runtime
// writes: it is not waited for.
func TestVolumePipe(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	w.create(volumeOf("etc"))
	w.Start(with(w.Spec("one", "sleep", "1000"), "etc:/etc"))
	w.must("one", "rm /etc/hosts; busybox mkfifo /etc/hosts")
	if err := w.RT.Destroy(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), boxtest.Patience)
	defer cancel()
	if err := w.RT.Start(ctx, with(w.Spec("two", "sleep", "1000"), "etc:/etc")); err != nil {
		t.Fatalf("got %v, want that it starts", err)
	}
}
