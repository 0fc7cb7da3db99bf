package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func machineChecks() []service.Check {
	return []service.Check{
		checkBuild(), checkRoot(), checkCgroups(), checkFile("namespaces", "/proc/self/ns/user", "a kernel with CONFIG_USER_NS"),
		checkFile("seccomp", "/proc/sys/kernel/seccomp/actions_avail", "a kernel with CONFIG_SECCOMP_FILTER"),
		checkFilesystem("overlay", "a kernel with CONFIG_OVERLAY_FS, or \"modprobe overlay\""),
		checkFilesystem("ext4", "a kernel with CONFIG_EXT4_FS, or \"modprobe ext4\""),
		checkFile("loop devices", "/dev/loop-control", "a kernel with CONFIG_BLK_DEV_LOOP, or \"modprobe loop\""),
		checkProgram("mkfs.ext4", "e2fsprogs"),
		checkVolumes(),
		checkFile("tun", "/dev/net/tun", "a kernel with CONFIG_TUN, or \"modprobe tun\""),
		checkGVisor(),
	}
}

func check(name string, ok bool, good, bad, remedy string) service.Check {
	c := service.Check{Name: name, Needed: "provider", OK: ok, Detail: good}
	if !ok {
		c.Detail, c.Remedy = bad, remedy
	}
	return c
}

// checkBuild asks the driver whether this build has one: without, it says so
// before it looks at its directory.
func checkBuild() service.Check {
	_, err := libcontainer.New(libcontainer.Config{Dir: os.DevNull})
	bad := errors.Is(err, container.CodeUnsupported)
	return check("build", !bad, "this build can run containers",
		"this build cannot run containers ("+runtime.GOARCH+", without cgo)", "build with CGO_ENABLED=1 and gcc on amd64")
}

// checkVolumes asks the driver. A provider without volumes has other leases.
func checkVolumes() service.Check {
	err := libcontainer.CheckVolumes()
	lack := ""
	if e, ok := errors.AsType[*container.Error](err); ok {
		lack = e.Detail
	}
	c := check("volumes", err == nil, "mkfs.xfs, loop devices and xfs are there", cmp.Or(lack, "this build has none"),
		"without it the provider refuses leases with volumes: install xfsprogs, and have a kernel with CONFIG_XFS_FS and CONFIG_BLK_DEV_LOOP")
	c.Needed = "volumes"
	return c
}

func checkRoot() service.Check {
	return check("root", os.Geteuid() == 0, "the node runs as root",
		"the node runs as an ordinary user, so it can rent and not provide", "start it as root to offer containers")
}

// checkGVisor never fails: a provider can do without the class.
func checkGVisor() service.Check {
	class, err := gvisor.Find("")
	if err != nil {
		return check("gvisor", true, "leases cannot demand a kernel of their own: "+err.Error(), "", "")
	}
	return check("gvisor", true, "leases can demand a kernel of their own, by "+class.Option, "", "")
}

func checkCgroups() service.Check {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	have := strings.Fields(string(b))
	var missing []string
	for _, want := range []string{"cpu", "memory", "pids"} {
		if slices.Contains(have, want) {
			continue
		}
		if _, v1 := os.Stat("/sys/fs/cgroup/" + want); v1 != nil {
			missing = append(missing, want)
		}
	}
	good := "cgroup v2"
	if err != nil {
		good = "cgroup v1"
	}
	return check("cgroups", len(missing) == 0, good, fmt.Sprintf("missing controllers: %s", strings.Join(missing, ", ")),
		"mount cgroup v2, or v1 with cpu, memory and pids, at /sys/fs/cgroup")
}

func checkFile(name, path, remedy string) service.Check {
	_, err := os.Stat(path)
	return check(name, err == nil, path, path+" is missing", remedy)
}

func checkFilesystem(name, remedy string) service.Check {
	b, err := os.ReadFile("/proc/filesystems")
	ok := err == nil && slices.ContainsFunc(strings.Split(string(b), "\n"), func(l string) bool {
		return bytes.HasSuffix([]byte(l), []byte("\t"+name))
	})
	return check(name+" file system", ok, "the kernel has it", "the kernel does not have it now", remedy)
}

func checkProgram(name, pkg string) service.Check {
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if _, e := os.Stat(dir + name); e == nil {
				path, err = dir+name, nil
			}
		}
	}
	return check(name, err == nil, path, "not found", "install it: apt-get install "+pkg)
}

// space is the machine's memory and the free disk of a directory.
func space(dir string) (memory, disk uint64) {
	var m unix.Sysinfo_t
	if unix.Sysinfo(&m) == nil {
		memory = uint64(m.Totalram) * uint64(m.Unit) //nolint:unconvert // another width on other machines
	}
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) == nil {
		disk = s.Bavail * uint64(s.Bsize)
	}
	return memory, disk
}
