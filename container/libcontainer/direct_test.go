//go:build linux && cgo && amd64

package libcontainer

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

func testConfig() *configs.Config {
	r := &record{FirstID: defaultFirstID, Cgroup: "/pktcloud-test/one", Spec: container.Spec{ID: "one", Limits: container.SmallLimits()}}
	return boxConfig(r, "/mnt/rootfs")
}

// What boxConfig says the script has words for, and what it has none for is
// libcontainer's: nothing of a configuration is left out in silence.
func TestDirectly(t *testing.T) {
	if !directly(testConfig()) {
		t.Error("the configuration of every container is not for the script")
	}
	for name, change := range map[string]func(*configs.Config){
		"no user namespace":    func(c *configs.Config) { c.Namespaces.Remove(configs.NEWUSER) },
		"no group namespace":   func(c *configs.Config) { c.Namespaces.Remove(configs.NEWCGROUP) },
		"a namespace by path":  func(c *configs.Config) { c.Namespaces.Add(configs.NEWNET, "/proc/1/ns/net") },
		"a time namespace":     func(c *configs.Config) { c.Namespaces.Add(configs.NEWTIME, "") },
		"a bind mount":         func(c *configs.Config) { c.Mounts[0].Flags |= unix.MS_BIND },
		"a mount's extensions": func(c *configs.Config) { c.Mounts[0].Extensions = 1 },
		"a mount's ids":        func(c *configs.Config) { c.Mounts[0].IDMapping = &configs.MountIDMapping{} },
		"another file system":  func(c *configs.Config) { c.Mounts[0].Device = "ext4" },
		"ambient capabilities": func(c *configs.Config) { c.Capabilities.Ambient = []string{"CAP_CHOWN"} },
		"read-only root":       func(c *configs.Config) { c.Readonlyfs = true },
		"settings":             func(c *configs.Config) { c.Sysctl = map[string]string{"a": "b"} },
		"another network":      func(c *configs.Config) { c.Networks[0].Type = "veth" },
		"a filter":             func(c *configs.Config) { c.Seccomp = &configs.Seccomp{} },
		"another propagation":  func(c *configs.Config) { c.RootPropagation = unix.MS_SLAVE },
		"no control groups":    func(c *configs.Config) { c.Cgroups = nil },
	} {
		c := testConfig()
		change(c)
		if directly(c) {
			t.Errorf("%s is for the script", name)
		}
	}
	c := testConfig()
	c.Cgroups = &cgroups.Cgroup{Path: "/pktcloud-test/two", Resources: c.Cgroups.Resources}
	s, err := boxScript(c, ids{uid: 5, gid: 6, groups: []int{7}}, "/", 12, weakenings{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.encode()
	if err != nil || len(b) < 8 || binary.LittleEndian.Uint32(b[4:]) != uint32(len(s.steps)) {
		t.Errorf("got a script of %d bytes, %v", len(b), err)
	}
	// It is in all its groups before it does anything but follow its monitor.
	for i, name := range s.names[1:13] {
		if name != "enter a control group" || s.steps[i+1].Tolerated != [2]int32{} {
			t.Errorf("step %d is %q, want it to enter a control group or fail", i+2, name)
		}
	}
}

func TestCapabilityMask(t *testing.T) {
	got, err := capabilityMask([]string{"CAP_CHOWN", "CAP_SYS_ADMIN"})
	if want := uint64(1 | 1<<21); err != nil || got != want {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	if _, err := capabilityMask([]string{"CAP_ANYTHING"}); err == nil {
		t.Error("a capability that does not exist is taken")
	}
}

// runScript has the shim make the calls of a script outside any container, and
// returns what it reported and what the script wrote to descriptor 1.
func runScript(t *testing.T, script []byte) (report uint32, out string) {
	t.Helper()
	shim, err := openShim()
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = feed.Write(script)
		_ = feed.Close()
	}()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.Args = []string{"shim", "2", "/no/such/program"}
	cmd.ExtraFiles = []*os.File{shim, w, in}
	var b strings.Builder
	cmd.Stdout = &b
	if err := cmd.Run(); !errors.As(err, new(*exec.ExitError)) {
		t.Fatalf("got %v, want an exit code", err)
	}
	_ = w.Close()
	_ = in.Close()
	var word [4]byte
	if _, err := io.ReadFull(r, word[:]); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(word[:]), b.String()
}

// TestScript shows that the shim makes the calls that a script has, in order,
// with what others returned, up to the first that fails.
func TestScript(t *testing.T) {
	write := func(s *script, text string) {
		s.call("write "+text, unix.SYS_WRITE, num(1), s.bytes([]byte(text)), num(len(text)))
	}
	// That the program cannot be started is the shim's own report: not a step's.
	ended := func(report uint32) bool { return report != 0 && report>>12 == 0 }

	s := &script{}
	write(s, "a")
	s.call("duplicate", unix.SYS_DUP, num(1))
	s.call("write", unix.SYS_WRITE, s.keep(), s.text("b"), num(1))
	s.call("fail", unix.SYS_CLOSE, num(77))
	s.tolerate(1, unix.EBADF)
	write(s, "left out")
	s.call("fail", unix.SYS_CLOSE, num(78))
	s.tolerate(0, anyErrno)
	s.call("six arguments", unix.SYS_COPY_FILE_RANGE, num(77), num(0), num(77), num(0), num(1), num(1<<20))
	s.tolerate(0, unix.EINVAL, unix.EBADF)
	write(s, "c")
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	if report, out := runScript(t, b); !ended(report) || out != "abc" {
		t.Errorf("got report %x, output %q; want abc", report, out)
	}

	s = &script{}
	write(s, "a")
	s.call("close what is not open", unix.SYS_CLOSE, num(77))
	s.tolerate(0, unix.EPERM)
	write(s, "never")
	if b, err = s.encode(); err != nil {
		t.Fatal(err)
	}
	report, out := runScript(t, b)
	if want := uint32(2<<12 | unix.EBADF); report != want || out != "a" {
		t.Errorf("got report %x, output %q; want %x, a", report, out, want)
	}
	if err := s.failure(report); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "close what is not open") {
		t.Errorf("got %v", err)
	}

	// A monitor that dies leaves a script in pieces: nothing runs then.
	for _, n := range []int{0, 7, 8, 8 + stepBytes, len(b) - 60, len(b) - 1} {
		if report, out := runScript(t, b[:n]); report == 0 || ended(report) && unix.Errno(report) != unix.EIO || out != "" {
			t.Errorf("%d bytes: got report %x, output %q", n, report, out)
		}
	}
	if report, _ := runScript(t, make([]byte, 1<<16)); unix.Errno(report) != unix.E2BIG {
		t.Errorf("too long: got report %x", report)
	}
}

// TestScriptWorkDir shows that the working directory is not reached by a link
// that the kernel makes, and by others is.
func TestScriptWorkDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]unix.Errno{
		dir: 0, dir + "/link": 0, "/proc/self": 0, "/proc/self/cwd": unix.ELOOP, "/proc/self/root/tmp": unix.ELOOP, dir + "/none": unix.ENOENT,
	} {
		s := &script{}
		s.enter(at, false)
		b, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		report, _ := runScript(t, b)
		if got := unix.Errno(report & 0xfff); report>>12 == 0 && want != 0 || report>>12 != 0 && got != want {
			t.Errorf("%s: got report %x (%v), want %v", at, report, got, want)
		}
	}
}
