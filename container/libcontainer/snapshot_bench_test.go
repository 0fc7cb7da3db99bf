//go:build linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// BenchmarkSnapshot is for how long a program is held while its volume with
// 10,000 files is copied, the freezing included: by Snapshot, by cp -a of the
// files to the same disk, and by cp --reflink of them, which only some file
// systems can and then within the volume. It needs root, mkfs.xfs and a static
// busybox.
func BenchmarkSnapshot(b *testing.B) {
	for _, kind := range []string{"xfs", "ext4"} {
		b.Run(kind, func(b *testing.B) {
			rt, store := benchRuntime(b, kind)
			root := benchVolume(b, rt, store, kind)
			var ours, copied, linked []time.Duration
			hold := func(script string) time.Duration {
				begun := time.Now()
				if err := rt.Pause(b.Context(), "bench"); err != nil {
					b.Fatal(err)
				}
				out, err := exec.Command("sh", "-c", script, "sh", root).CombinedOutput()
				if err := rt.Resume(b.Context(), "bench"); err != nil {
					b.Fatal(err)
				}
				if err != nil {
					b.Fatalf("%s: %v: %s", script, err, out)
				}
				return time.Since(begun)
			}
			place := filepath.Join(b.TempDir(), "copy")
			if kind == "xfs" {
				place = filepath.Join(filepath.Dir(store), "copy")
			}
			for b.Loop() {
				s, err := rt.Snapshot(b.Context(), "lease", "data")
				if err != nil {
					b.Fatal(err)
				}
				ours = append(ours, s.Pause())
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				copied = append(copied, hold("cp -a \"$1/files\" "+place))
				linked = append(linked, hold("cp -a --reflink=always \"$1/files\" \"$1/linked\""))
				if out, err := exec.Command("rm", "-rf", place, root+"/linked").CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
			b.ReportMetric(0, "ns/op")
			if n := countFiles(b, rt); n < 10_000 {
				b.Errorf("the snapshot has %d files", n)
			}
			for name, d := range map[string][]time.Duration{"ours": ours, "cp-a": copied, "cp-reflink": linked} {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"-ms")
			}
			b.ReportMetric(float64(ours[len(ours)/2])/float64(copied[len(copied)/2]), "ours/cp-a")
			b.ReportMetric(float64(ours[len(ours)/2])/float64(linked[len(linked)/2]), "ours/cp-reflink")
		})
	}
}

func countFiles(b *testing.B, rt *libcontainer.Runtime) (n int) {
	b.Helper()
	s, err := rt.Snapshot(b.Context(), "lease", "data")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	tree, err := s.Tree("data")
	if err != nil {
		b.Fatal(err)
	}
	err = tree.Walk(b.Context(), func(e *container.Entry) error {
		if e.Type == container.EntryFile {
			n++
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("on %s, %d files: held for %v", b.Name(), n, s.Pause())
	return n
}

// benchRuntime opens a runtime on a file system of its own.
func benchRuntime(b *testing.B, kind string) (rt *libcontainer.Runtime, dir string) {
	b.Helper()
	if err := libcontainer.Check(); err != nil {
		b.Skip(err)
	}
	base := b.TempDir()
	host, at := filepath.Join(base, "host.img"), filepath.Join(base, "at")
	if err := errors.Join(os.WriteFile(host, nil, 0o600), os.Truncate(host, 8<<30), os.Mkdir(at, 0o700)); err != nil {
		b.Fatal(err)
	}
	for _, cmd := range [][]string{{"/usr/sbin/mkfs." + kind, "-q", host}, {"mount", "-o", "loop", host, at}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			b.Skipf("%v: %v: %s", cmd, err, out)
		}
	}
	b.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	dir = filepath.Join(at, "w")
	store, err := image.Open(image.Config{Dir: filepath.Join(dir, "images"), Local: true})
	if err != nil {
		b.Fatal(err)
	}
	if rt, err = libcontainer.New(libcontainer.Config{Dir: filepath.Join(dir, "run"), Images: store}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = rt.Close(), store.Close() })
	return rt, dir
}

// benchVolume starts a program that writes now and then to a volume with
// 10,000 files of 4 KiB, and returns where the volume can be seen.
func benchVolume(b *testing.B, rt *libcontainer.Runtime, dir, kind string) string {
	b.Helper()
	host := fmt.Sprintf("bench-%s-%d", kind, os.Getpid())
	const program = "/usr/bin/busybox"
	img, err := image.FromFiles(image.Build{Files: map[string]image.File{"/bin/busybox": {Source: program, Mode: 0o755}}, Args: []string{
		"/bin/busybox", "sh", "-c", "while :; do echo $((i=i+1)) > /data/now; busybox sleep 0.02; done",
	}})
	if err != nil {
		b.Skip(err)
	}
	layout := filepath.Join(dir, "layout")
	if err := image.WriteLayout(layout, img); err != nil {
		b.Fatal(err)
	}
	got, err := rt.Pull(b.Context(), "oci:"+layout, container.PullOptions{})
	if err != nil {
		b.Fatal(err)
	}
	v := container.VolumeSpec{VolumeID: container.VolumeID{Lease: "lease", Name: "data"}, SizeBytes: 1 << 30}
	spec := container.Spec{
		ID: "bench", Image: got.Digest, Limits: container.SmallLimits(), Lease: "lease",
		Volumes: []container.Mount{{Volume: "data", Path: "/data"}}, Hostname: host,
	}
	b.Cleanup(func() {
		if err := errors.Join(rt.Destroy(context.Background(), "bench"), rt.RemoveVolume(context.Background(), v.VolumeID)); err != nil {
			b.Error(err)
		}
	})
	if err := errors.Join(rt.CreateVolume(b.Context(), v), rt.Start(b.Context(), spec)); err != nil {
		b.Fatal(err)
	}
	root := seenFrom(b, host) + "/data"
	for i := range 100 {
		sub := fmt.Sprintf("%s/files/%d", root, i)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			data := []byte(strings.Repeat(strconv.Itoa(i*100+j)+"\n", 4096)[:4096])
			if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(j)), data, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	unix.Sync()
	return root
}

// seenFrom returns the root of the container with a host name.
func seenFrom(b *testing.B, name string) string {
	b.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, p := range procs {
		if text, _ := os.ReadFile(p); strings.Contains(string(text), "HOSTNAME="+name+"\x00") {
			return filepath.Join(filepath.Dir(p), "root")
		}
	}
	b.Fatal("the container cannot be found")
	return ""
}
