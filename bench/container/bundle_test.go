//go:build linux

package container_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Containers of the bundle have these ids of the machine, which pktcloud gives
// to none of its own here.
const (
	bundleID  = 0x6fff0000
	bundleIDs = 1 << 16
)

// kept are the capabilities of spec/container.md, CONTAINER-22.
var kept = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID",
}

// writeBundle makes an OCI bundle that isolates and bounds its program as
// pktcloud does: the same namespaces, ids, capabilities, filter, masks,
// devices and limits. What pktcloud has beyond that, a writable layer of fixed
// size and a kept log, other runtimes leave to what calls them. architectures
// are those that the filter knows; pktcloud's knows one.
func writeBundle(tb testing.TB, dir string, program []string, architectures []specs.Arch) {
	tb.Helper()
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "sys", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	program0, err := os.ReadFile(busybox)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), program0, 0o755); err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"true", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			tb.Fatal(err)
		}
	}
	filter, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: kept}}})
	if err != nil {
		tb.Fatal(err)
	}
	filter.Architectures = architectures
	b, err := json.Marshal(bundle(program, filter))
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func bundle(program []string, filter *specs.LinuxSeccomp) *specs.Spec {
	limits := container.SmallLimits()
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: bundleID, Size: bundleIDs}}
	memory, quota, period, shares := int64(limits.MemoryBytes), int64(100_000), uint64(100_000), uint64(1024)
	pids := int64(limits.Pids)
	quiet := []string{"nosuid", "noexec", "nodev"}
	return &specs.Spec{
		Version:  "1.0.2",
		Hostname: "bench",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: program, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: kept, Effective: kept, Permitted: kept},
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024},
				{Type: "RLIMIT_CORE", Hard: 1, Soft: 1},
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: quiet},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append([]string{"mode=1777", "size=33554432"}, quiet...)},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: quiet},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append([]string{"ro"}, quiet...)},
		},
		Linux: &specs.Linux{
			UIDMappings: ids, GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
				Memory:  &specs.LinuxMemory{Limit: &memory},
				CPU:     &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
				Pids:    &specs.LinuxPids{Limit: &pids},
			},
			Seccomp: filter,
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
				"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/cgroup",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
