//go:build cgo && amd64

package libcontainer

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// boxConfig is the whole of a container's isolation, made by hand: runc's own
// converter keeps device owners in a global that user namespaces change.
func boxConfig(r *record, rootfs string) *configs.Config {
	ids := []configs.IDMap{{ContainerID: 0, HostID: int64(r.FirstID), Size: idsPerContainer}}
	nodes := standardDevices(int(r.FirstID))
	return &configs.Config{
		Rootfs:          rootfs,
		RootPropagation: unix.MS_PRIVATE | unix.MS_REC,
		Namespaces: configs.Namespaces{
			{Type: configs.NEWUSER},
			{Type: configs.NEWNS},
			{Type: configs.NEWPID},
			{Type: configs.NEWIPC},
			{Type: configs.NEWUTS},
			{Type: configs.NEWNET},
			{Type: configs.NEWCGROUP},
		},
		UIDMappings:     ids,
		GIDMappings:     ids,
		Hostname:        hostname(r),
		NoNewPrivileges: true,
		Capabilities: &configs.Capabilities{
			Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
		},
		Devices:       nodes,
		Mounts:        standardMounts(r.Spec.Limits.MemoryBytes),
		MaskPaths:     maskedPaths,
		ReadonlyPaths: readonlyPaths,
		Networks:      []*configs.Network{{Type: "loopback"}},
		Rlimits:       rlimits(),
		Cgroups:       &cgroups.Cgroup{Path: r.Cgroup, Resources: resources(r, nodes)},
		Version:       "1.3.0",
	}
}

func hostname(r *record) string {
	if r.Spec.Hostname != "" {
		return r.Spec.Hostname
	}
	name := []byte(r.Spec.ID[:min(len(r.Spec.ID), 12)])
	for i, c := range name {
		if c == '.' || c == '_' {
			name[i] = '-'
		}
	}
	return string(name)
}

// cpuPeriod is the time over which processor time is bounded, in microseconds.
const cpuPeriod = 100_000

// cpuShares is what counts when all want the processor.
func cpuShares(milliCPU uint64) uint64 { return max(2, milliCPU*1024/1000) }

// resources are the limits [CONTAINER-3] [CONTAINER-24].
func resources(r *record, nodes []*devices.Device) *cgroups.Resources {
	l := r.Spec.Limits
	pids := int64(l.Pids)
	res := &cgroups.Resources{
		Memory:    int64(l.MemoryBytes),
		CpuPeriod: cpuPeriod,
		CpuQuota:  int64(l.MilliCPU) * cpuPeriod / 1000,
		CpuShares: cpuShares(l.MilliCPU),
		PidsLimit: &pids,
		Devices:   []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}},
	}
	if cgroups.IsCgroup2UnifiedMode() {
		res.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(res.CpuShares)
		res.CpuShares = 0
	}
	if hasSwapLimit() {
		res.MemorySwap = res.Memory
	}
	for _, n := range nodes {
		rule := n.Rule
		res.Devices = append(res.Devices, &rule)
	}
	for _, rule := range []devices.Rule{
		{Type: devices.CharDevice, Major: 136, Minor: devices.Wildcard}, // terminals of /dev/pts
		{Type: devices.CharDevice, Major: 5, Minor: 2},                  // /dev/ptmx
	} {
		rule.Permissions, rule.Allow = "rwm", true
		res.Devices = append(res.Devices, &rule)
	}
	return res
}

// hasSwapLimit reports whether the kernel can bound swap.
func hasSwapLimit() bool {
	if cgroups.IsCgroup2UnifiedMode() {
		b, err := os.ReadFile("/proc/swaps")
		return err == nil && len(b) > 0
	}
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// standardDevices are all that a container sees of the host's [CONTAINER-21].
func standardDevices(owner int) []*devices.Device {
	var out []*devices.Device
	for _, d := range []struct {
		name         string
		major, minor int64
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		out = append(out, &devices.Device{
			Rule: devices.Rule{Type: devices.CharDevice, Major: d.major, Minor: d.minor, Permissions: "rwm", Allow: true},
			Path: "/dev/" + d.name, FileMode: 0o666, Uid: uint32(owner), Gid: uint32(owner),
		})
	}
	return out
}

// maxTerminals are what one container may have of the few thousand that the
// whole machine has [CONTAINER-26].
const maxTerminals = 64

// standardMounts are for a container of the given memory, half of which files in
// memory may fill.
func standardMounts(memory uint64) []*configs.Mount {
	shm := sharedBytes(memory)
	const flags = unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV
	return []*configs.Mount{
		{Source: "proc", Destination: "/proc", Device: "proc", Flags: flags},
		{Source: "tmpfs", Destination: "/dev", Device: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_STRICTATIME, Data: "mode=755,size=64k,nr_inodes=1k"},
		{
			Source: "devpts", Destination: "/dev/pts", Device: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC,
			Data: fmt.Sprintf("newinstance,ptmxmode=0666,mode=0620,gid=5,max=%d", maxTerminals),
		},
		{Source: "shm", Destination: "/dev/shm", Device: "tmpfs", Flags: flags, Data: fmt.Sprintf("mode=1777,size=%d,nr_inodes=64k", shm)},
		{Source: "mqueue", Destination: "/dev/mqueue", Device: "mqueue", Flags: flags},
		{Source: "sysfs", Destination: "/sys", Device: "sysfs", Flags: flags | unix.MS_RDONLY},
	}
}

// What /proc and /sys must not show or let change [CONTAINER-20].
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/cgroup",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// rlimits keeps within what this process may itself have.
func rlimits() []configs.Rlimit {
	const files = 1 << 16
	limit := configs.Rlimit{Type: unix.RLIMIT_NOFILE, Hard: files, Soft: files}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err == nil {
		limit.Hard = min(limit.Hard, own.Max)
		limit.Soft = limit.Hard
	}
	// A core limit of 1 is less than any dump, and the one value at which the
	// kernel does not start the machine's program for dumps either.
	return []configs.Rlimit{limit, {Type: unix.RLIMIT_CORE, Hard: 1, Soft: 1}}
}
