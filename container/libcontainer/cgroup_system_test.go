//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// These tests look at the control groups from outside. They run on cgroup v1
// and, by make test-cgroup2, on v2.

// groupDir returns a container's directory in the hierarchy of a controller.
func (w *world) groupDir(id, controller string) string {
	w.T.Helper()
	if cgroups.IsCgroup2UnifiedMode() {
		controller = ""
	}
	dir := filepath.Join("/sys/fs/cgroup", controller, w.Group(), id)
	if _, err := os.Stat(dir); err != nil {
		w.T.Fatal(err)
	}
	return dir
}

// TestCgroupKind shows that the guest is what the suite is run in it for.
func TestCgroupKind(t *testing.T) {
	if kind := os.Getenv("PKTCLOUD_GUEST"); kind != "" && (kind == "v2") != cgroups.IsCgroup2UnifiedMode() {
		t.Errorf("the guest should have cgroup %s", kind)
	}
}

// TestCgroupFiles compares what the kernel was told with the limits, and that
// the container and executed programs are in the group and cannot see where it
// stands.
func TestCgroupFiles(t *testing.T) {
	w := newWorld(t)
	const id = "files"
	s := w.Spec(id, "sleep", "4001")
	s.Limits = container.Limits{MilliCPU: 250, MemoryBytes: 48 << 20, DiskBytes: 16 << 20, Pids: 40}
	w.Start(s)
	type file struct{ controller, name, want string }
	want := []file{
		{"cpu", "cpu.max", "25000 100000"},
		{"memory", "memory.max", "50331648"},
		{"pids", "pids.max", "40"},
		{"memory", "memory.swap.max", "0"},
	}
	if !cgroups.IsCgroup2UnifiedMode() {
		want = []file{
			{"cpu", "cpu.cfs_quota_us", "25000"},
			{"cpu", "cpu.cfs_period_us", "100000"},
			{"memory", "memory.limit_in_bytes", "50331648"},
			{"pids", "pids.max", "40"},
			{"memory", "memory.memsw.limit_in_bytes", "50331648"},
		}
	}
	for i, f := range want {
		b, err := os.ReadFile(filepath.Join(w.groupDir(id, f.controller), f.name))
		swap := i == len(want)-1 // not every kernel counts it
		if got := strings.TrimSpace(string(b)); got != f.want && (!swap || err == nil) {
			t.Errorf("%s: got %q, %v, want %q", f.name, got, err, f.want)
		}
	}
	pid := w.hostPID("sleep\x004001")
	if b, _ := os.ReadFile(filepath.Join(w.groupDir(id, "memory"), "cgroup.procs")); !slices.Contains(strings.Fields(string(b)), strconv.Itoa(pid)) {
		t.Errorf("the group has processes %q, want %d among them", b, pid)
	}
	out, _ := w.Exec(id, "cat", "/proc/self/cgroup")
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, ":/\n") {
			t.Errorf("an executed program sees the group %q, want the root of its namespace", line)
		}
	}
	if out == "" {
		t.Error("an executed program sees no group")
	}
}

// TestCgroupNested shows that a group with a group below it, which has a
// process, is removed like any other.
func TestCgroupNested(t *testing.T) {
	w := newWorld(t)
	const id = "nested"
	w.Start(w.Spec(id, boxtest.Sh("sleep 4002 & exec sleep 4003")...))
	w.Await(id, func(container.Status) bool { return w.running("sleep\x004002") })
	child := filepath.Join(w.groupDir(id, "freezer"), "child")
	err := os.Mkdir(child, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(child, "cgroup.procs"), []byte(strconv.Itoa(w.hostPID("sleep\x004002"))), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.RT.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(child); err == nil {
		t.Errorf("%s is still there", child)
	}
}

// TestDevices shows that a process in the container's group cannot open a
// device of the machine, had it the node and the rights, and can those of the
// container.
func TestDevices(t *testing.T) {
	w := newWorld(t)
	w.Start(w.Spec("devices", "sleep", "1000"))
	group := w.groupDir("devices", "devices")
	open := func(join, device string) error {
		return exec.Command(boxtest.Busybox, "sh", "-c", join+"exec "+boxtest.Busybox+" dd if="+device+" of=/dev/null count=0").Run()
	}
	enter := "echo $$ > " + group + "/cgroup.procs && "
	if err := open("", "/dev/kmsg"); err != nil {
		t.Fatalf("outside the group /dev/kmsg cannot be opened either: %v", err)
	}
	if err := open(enter, "/dev/kmsg"); err == nil {
		t.Error("inside the group /dev/kmsg was opened")
	}
	if err := open(enter, "/dev/urandom"); err != nil {
		t.Errorf("inside the group /dev/urandom: %v", err)
	}
}

// TestTmpfs runs a container from an image on a tmpfs, of which older kernels
// show no tree with other owners, so that it gets a copy.
func TestTmpfs(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err != nil {
		t.Skip("needs /dev/shm")
	}
	t.Setenv("TMPDIR", "/dev/shm")
	w := newWorld(t)
	w.Start(w.Spec("tmpfs", "sleep", "4004"))
	if got, _ := w.Exec("tmpfs", "ls", "-ln", "/www/index"); !strings.Contains(got, "1 0        0 ") {
		t.Errorf("got %q, want the file to be root's", got)
	}
	if got, code := w.Exec("tmpfs", boxtest.Sh("echo mine > /www/index && cat /www/index")...); got != "mine\n" || code != 0 {
		t.Errorf("got %q, %d, want the file to be written", got, code)
	}
	if uid := w.hostUID("sleep\x004004"); uid < 1<<30 {
		t.Errorf("the container's root is %d on the host, want a shifted id", uid)
	}
	_, root, _, err := w.Store.Root(w.Image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "www/index")); err != nil || string(b) != "a page\n" {
		t.Errorf("the shared image has %q, %v, want it as it was", b, err)
	}
}

// TestCgroupIO bounds what a container reads and writes, and times it. A slow
// machine takes longer, which is no fault.
func TestCgroupIO(t *testing.T) {
	w := newWorld(t)
	const rate, size = 2 << 20, 6 << 20
	w.Config.IOBytesPerSecond = rate
	w.Reopen()
	w.Start(w.Spec("io", "sleep", "1000"))
	group := w.groupDir("io", "blkio")
	files := []string{"io.max"}
	if !cgroups.IsCgroup2UnifiedMode() {
		files = []string{"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"}
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(group, f))
		const loop = "\n7:" // the major number of loop devices
		if err != nil || !strings.Contains("\n"+string(b), loop) || !strings.Contains(string(b), strconv.Itoa(rate)) {
			t.Errorf("%s: got %q, %v, want %d for a loop device", f, b, err, rate)
		}
	}
	transfers := map[string]string{
		"written past the cache": "dd if=/dev/zero of=/big bs=64k count=96 oflag=direct",
		"read past the cache":    "dd if=/big of=/dev/null bs=64k count=96 iflag=direct",
	}
	order := []string{"written past the cache", "read past the cache"}
	if cgroups.IsCgroup2UnifiedMode() {
		order = append(order, "written through the cache")
		transfers["written through the cache"] = "dd if=/dev/zero of=/other bs=64k count=96 conv=fsync"
	}
	for _, name := range order {
		begun := time.Now()
		if out, code := w.Exec("io", boxtest.Sh(transfers[name])...); code != 0 {
			t.Fatalf("%s: %s", name, out)
		}
		// The kernel counts by slices, so that a little comes for nothing.
		if took, least := time.Since(begun), size*time.Second/rate*3/4; took < least {
			t.Errorf("%d bytes %s in %v, want at least %v", size, name, took, least)
		}
	}
}
