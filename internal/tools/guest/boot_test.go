//go:build guest && linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These tests boot guests; make test-cgroup2 runs them.

// TestMain lets the test binary be the guest's first process, as the command is.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		guestMain()
	}
	os.Exit(m.Run())
}

func boot(t *testing.T, args ...string) (code int, out string, err error) {
	t.Helper()
	var b bytes.Buffer
	code, err = run(t.Context(), append([]string{"run"}, args...), &b)
	return code, b.String(), err
}

// TestGuest has one guest show all that the package comment promises of it.
func TestGuest(t *testing.T) {
	given := filepath.Join(t.TempDir(), "given")
	if err := os.WriteFile(given, []byte("given\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `cat /given; echo "$NAME $PKTCLOUD_GUEST"; echo complaint >&2; id -u; ls /sys/class/net
		mount | grep /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.controllers; mount | grep /tmp; mkfs.ext4 -V 2>&1
		unshare -m sh -c 'mkdir /mnt/r && mount -t tmpfs r /mnt/r && mkdir /mnt/r/o && pivot_root /mnt/r /mnt/r/o' && echo pivots
		kill -s KILL $$`
	code, out, err := boot(t, "-with", given+"=/given", "-env", "NAME=value", "--", "sh", "-c", script)
	if err != nil || code != 128+9 {
		t.Errorf("got exit code %d, %v, want 137", code, err)
	}
	for _, want := range []string{"given\nvalue v2\ncomplaint\n0\nlo\n", "cgroup2 on /sys/fs/cgroup", "/dev/vda on /tmp type ext4", "cpu io memory", "mke2fs", "pivots\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("got no %q in %q", want, out)
		}
	}
}

// TestGuestV1 runs a program with libraries, and control groups of version 1.
func TestGuestV1(t *testing.T) {
	find, err := exec.LookPath("find")
	if err != nil {
		t.Skip("needs find of the package findutils")
	}
	code, out, err := boot(t, "-cgroup", "v1", "--", find, "/sys/fs/cgroup", "-name", "release_agent")
	if err != nil || code != 0 || strings.Count(out, "release_agent") < 5 {
		t.Errorf("got %d, %v, %q, want a release agent in each hierarchy", code, err, out)
	}
}

func TestGuestFails(t *testing.T) {
	if code, out, err := boot(t, "--", "no-such-program"); code != exitNoGuest || err == nil {
		t.Errorf("a missing program: got %d, %v, %q", code, err, out)
	}
	if code, out, err := boot(t, "--", "sh", "-c", "echo last words; echo c > /proc/sysrq-trigger"); code != exitNoGuest || err == nil || out != "last words\n" {
		t.Errorf("a panic of the kernel: got %d, %v, %q", code, err, out)
	}
	if code, _, err := boot(t, "-timeout", "3s", "--", "sh", "-c", "sleep 1000"); code != exitTimeout || err == nil {
		t.Errorf("a program without end: got %d, %v", code, err)
	}
}
