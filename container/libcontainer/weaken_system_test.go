//go:build system && linux && cgo && amd64

package libcontainer

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// A container whose variable WITHOUT names defences, separated by semicolons,
// is started without them: the positive controls of TestAttacks. A monitor is
// this test binary again, so the variable below is set there too, and before
// the package's init function.
var _ = func() bool {
	weaken = takeAway
	return true
}()

// Names of the variables by which a test speaks to takeAway.
const (
	WithoutEnv   = "WITHOUT"   // defences
	NeighbourEnv = "NEIGHBOUR" // a process of the lease to share namespaces with
	NetworkEnv   = "NETWORK"   // path of a network namespace
	MachineEnv   = "MACHINE"   // a directory of the machine
)

type weakening struct {
	m    *monitor
	c    *configs.Config
	env  map[string]string
	drop int64 // flags of the root's mount
}

func takeAway(m *monitor, c *configs.Config) error {
	w := weakening{m: m, c: c, env: map[string]string{}}
	for _, v := range m.rec.Spec.Env {
		name, value, _ := strings.Cut(v, "=")
		w.env[name] = value
	}
	if w.env[WithoutEnv] == "" {
		return nil
	}
	for d := range strings.SplitSeq(w.env[WithoutEnv], ";") {
		if err := w.take(d); err != nil {
			return fmt.Errorf("take away %q: %w", d, err)
		}
	}
	if w.drop == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.stage.rootfs, &st); err != nil {
		return err
	}
	flags := uintptr(st.Flags & (unix.MS_NODEV | unix.MS_NOSUID) &^ w.drop)
	return unix.Mount("", m.stage.rootfs, "", unix.MS_REMOUNT|unix.MS_BIND|flags, "")
}

func (w *weakening) take(d string) error {
	c, res := w.c, w.c.Cgroups.Resources
	var err error
	switch d {
	case "user namespace":
		c.Namespaces.Remove(configs.NEWUSER)
		c.UIDMappings, c.GIDMappings = nil, nil
		for _, n := range c.Devices {
			n.Uid, n.Gid = 0, 0
		}
	case "a user namespace for each lease":
		w.share(configs.NEWUSER, "user")
	case "process namespace":
		c.Namespaces.Remove(configs.NEWPID)
		p := w.mount("/proc")
		p.Source, p.Device, p.Flags = "/proc", "bind", unix.MS_BIND|unix.MS_REC
	case "IPC namespace":
		w.share(configs.NEWIPC, "ipc")
		c.Mounts = slices.DeleteFunc(c.Mounts, func(m *configs.Mount) bool { return m.Destination == "/dev/mqueue" })
	case "a network namespace for each lease":
		w.share(configs.NEWNET, "net")
		w.foreignNetwork()
	case "network namespace":
		c.Namespaces.Add(configs.NEWNET, w.env[NetworkEnv])
		w.foreignNetwork()
	case "control group namespace":
		c.Namespaces.Remove(configs.NEWCGROUP)
	case "system call filter":
		// The program of the attacks loads none, so that no-new-privileges is not
		// needed for it either.
		w.m.otherShim = true
		w.m.shim, err = os.Open(filepath.Join(w.m.stage.rootfs, "attack"))
	case "sealed first program":
		w.m.shim, err = copyOf(w.m.shim)
	case "first program for reading alone":
		err = w.m.shim.Chmod(0o777)
	case "first program that nobody inside may look at":
		err = w.m.shim.Chmod(0o555)
	case "no kernel's links to the working directory":
		w.m.anyWorkDir = true
	case "no new privileges":
		c.NoNewPrivileges = false
	case "nosuid root":
		w.drop |= unix.MS_NOSUID
	case "nodev root":
		w.drop |= unix.MS_NODEV
	case "setuid taken off images":
		err = unix.Chmod(filepath.Join(w.m.stage.rootfs, "setuid"), 0o4755)
	case "no inheritable capabilities":
		c.Capabilities.Inheritable = c.Capabilities.Permitted
	case "masked paths":
		c.MaskPaths = nil
	case "read-only paths":
		c.ReadonlyPaths = nil
	case "read-only /sys":
		w.mount("/sys").Flags &^= unix.MS_RDONLY
	case "device rules":
		res.Devices = []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm", Allow: true}}
	case "standard devices only":
		rule := devices.Rule{Type: devices.CharDevice, Major: 10, Minor: 237, Permissions: "rwm", Allow: true}
		c.Devices = append(c.Devices, &devices.Device{Rule: rule, Path: "/dev/loop-control", FileMode: 0o666})
		res.Devices = append(res.Devices, &rule)
	case "no directory of the machine":
		dir := w.env[MachineEnv]
		c.Mounts = append(c.Mounts, &configs.Mount{Source: dir, Destination: dir, Device: "bind", Flags: unix.MS_BIND | unix.MS_REC})
	case "no descriptors passed on":
		var f *os.File
		f, err = os.Open(w.env[MachineEnv])
		w.m.leaked = append(w.m.leaked, f)
	default:
		return w.lift(d)
	}
	return err
}

// lift takes away what is a limit or a missing capability.
func (w *weakening) lift(d string) error {
	c, res := w.c, w.c.Cgroups.Resources
	unlimited := int64(-1)
	switch {
	case strings.HasPrefix(d, "CAP_"):
		c.Capabilities.Bounding = append(slices.Clone(c.Capabilities.Bounding), d)
		c.Capabilities.Effective = c.Capabilities.Bounding
		c.Capabilities.Permitted = c.Capabilities.Bounding
	case d == "process limit":
		res.PidsLimit = &unlimited
	case d == "memory limit":
		res.Memory, res.MemorySwap = -1, 0
	case d == "socket memory limit":
		w.m.socketBytes = 0
		if cgroups.IsCgroup2UnifiedMode() { // which counts them as memory
			res.Memory, res.MemorySwap = -1, 0
		}
	case d == "processor limit":
		res.CpuQuota = 0
	case d == "terminal limit":
		m := w.mount("/dev/pts")
		m.Data = strings.TrimSuffix(m.Data, fmt.Sprintf(",max=%d", maxTerminals))
	case d == "size of /dev/shm":
		w.mount("/dev/shm").Data = "mode=1777"
	case d == "few files in /dev":
		w.mount("/dev").Data = "mode=755"
	case d == "core limit":
		for i := range c.Rlimits {
			if c.Rlimits[i].Type == unix.RLIMIT_CORE {
				c.Rlimits[i].Hard, c.Rlimits[i].Soft = 1<<30, 1<<30
			}
		}
	case d == "disk limit" || d == "log cap": // the test's own affair
	default:
		return os.ErrInvalid
	}
	return nil
}

func (w *weakening) share(kind configs.NamespaceType, name string) {
	w.c.Namespaces.Add(kind, filepath.Join("/proc", w.env[NeighbourEnv], "ns", name))
}

// foreignNetwork leaves out what takes the right to change a network.
func (w *weakening) foreignNetwork() {
	w.c.Networks = nil
	w.c.Mounts = slices.DeleteFunc(w.c.Mounts, func(m *configs.Mount) bool { return m.Destination == "/sys" })
}

func (w *weakening) mount(at string) *configs.Mount {
	i := slices.IndexFunc(w.c.Mounts, func(m *configs.Mount) bool { return m.Destination == at })
	return w.c.Mounts[i]
}

// copyOf is the shim with its mode, in a file without seals.
func copyOf(shim *os.File) (*os.File, error) {
	st, err := shim.Stat()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("pktcloud-shim", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "shim")
	defer f.Close()
	_, err = io.Copy(f, io.NewSectionReader(shim, 0, st.Size()))
	if err := cmp.Or(err, f.Chmod(st.Mode())); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// ShareIDs makes the next container share the ids of the named one, until the
// returned function is called.
func ShareIDs(r *Runtime, id string) (restore func(), err error) {
	r.ids.Lock()
	defer r.ids.Unlock()
	box := filepath.Join(r.boxes, id)
	for first, owner := range r.taken {
		if owner == id {
			delete(r.taken, first)
			from := r.cfg.FirstID
			r.cfg.FirstID = first // where the next one looks first
			return func() {
				r.ids.Lock()
				defer r.ids.Unlock()
				r.taken[first], r.cfg.FirstID = id, from
				_ = r.register.write(first, box)
			}, r.register.give(box, first)
		}
	}
	return nil, os.ErrNotExist
}
