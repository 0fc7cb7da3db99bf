//go:build cgo && amd64

package libcontainer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	runc "github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/system"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// The direct start makes a container's first process without libcontainer's
// own, which is a whole Go program and takes half the time of a start: the
// shim itself makes the few dozen system calls, by a script that says what
// libcontainer would have done with the same configuration [CONTAINER-86].
// Mounts of the root's own files are made after the old root is gone, so that
// no link in an image leads anywhere else. What the script has no words for,
// and a kernel that lacks one of the calls, is libcontainer's.

// directly reports whether the script has words for all of a configuration.
func directly(c *configs.Config) bool {
	rest := *c
	for _, n := range c.Namespaces {
		if n.Path != "" || cloneFlag(n.Type) == 0 {
			return false
		}
	}
	for _, kind := range []configs.NamespaceType{configs.NEWUSER, configs.NEWNS, configs.NEWPID, configs.NEWNET, configs.NEWIPC, configs.NEWUTS, configs.NEWCGROUP} {
		if !c.Namespaces.Contains(kind) {
			return false
		}
	}
	for _, m := range c.Mounts {
		if _, known := mountAttributes(m.Flags); !known || !plainMount(m) {
			return false
		}
	}
	for _, n := range c.Networks {
		if n.Type != "loopback" {
			return false
		}
	}
	caps := c.Capabilities
	if caps == nil || len(caps.Ambient)+len(caps.Inheritable) > 0 || c.RootPropagation != unix.MS_PRIVATE|unix.MS_REC || c.Cgroups == nil {
		return false
	}
	rest.Rootfs, rest.Namespaces, rest.UIDMappings, rest.GIDMappings, rest.Hostname, rest.Version = "", nil, nil, nil, "", ""
	rest.RootPropagation, rest.NoNewPrivileges, rest.Capabilities = 0, false, nil
	rest.Devices, rest.Mounts, rest.MaskPaths, rest.ReadonlyPaths, rest.Networks, rest.Rlimits, rest.Cgroups = nil, nil, nil, nil, nil, nil, nil
	return reflect.ValueOf(rest).IsZero()
}

// plainMount reports whether a mount has nothing but a type, a place, flags
// and data.
func plainMount(m *configs.Mount) bool {
	left := *m
	left.Source, left.Destination, left.Device, left.Flags, left.Data = "", "", "", 0, ""
	return reflect.ValueOf(left).IsZero() && slices.Contains([]string{"proc", "sysfs", "tmpfs", "devpts", "mqueue"}, m.Device)
}

// mountAttributes translates the flags of mount(2) that a mount has to itself,
// and reports whether there are others.
func mountAttributes(flags int) (uint64, bool) {
	attributes := uint64(0)
	for flag, attribute := range map[int]uint64{
		unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID, unix.MS_NODEV: unix.MOUNT_ATTR_NODEV,
		unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC, unix.MS_STRICTATIME: unix.MOUNT_ATTR_STRICTATIME,
	} {
		if flags&flag != 0 {
			attributes |= attribute
			flags &^= flag
		}
	}
	return attributes, flags == 0
}

func cloneFlag(t configs.NamespaceType) uintptr {
	return map[configs.NamespaceType]uintptr{
		configs.NEWUSER: unix.CLONE_NEWUSER, configs.NEWNS: unix.CLONE_NEWNS, configs.NEWPID: unix.CLONE_NEWPID, configs.NEWIPC: unix.CLONE_NEWIPC,
		configs.NEWUTS: unix.CLONE_NEWUTS, configs.NEWNET: unix.CLONE_NEWNET, configs.NEWCGROUP: unix.CLONE_NEWCGROUP,
	}[t]
}

// taskFiles follow the shim, its report and its script.
const taskFiles = 6

// boxScript is the whole way from a process of the machine's to one that may
// run a stranger's program.
// It begins in new namespaces. The descriptors from taskFiles on are the tasks
// files of its control groups [CONTAINER-87]: a thread that moves itself does not
// wait for all others of the machine to notice.
func boxScript(c *configs.Config, who ids, workDir string, groups int, w weakenings) (*script, error) {
	s := &script{}
	s.call("follow the monitor", unix.SYS_PRCTL, num(unix.PR_SET_PDEATHSIG), num(unix.SIGKILL))
	zero := s.text("0")
	for i := range groups {
		s.call("enter a control group", unix.SYS_WRITE, num(taskFiles+i), zero, num(1))
	}
	if w.leaked > 0 {
		s.call("close descriptors", unix.SYS_CLOSE_RANGE, num(taskFiles), num(taskFiles+groups-1), num(0))
	} else {
		s.call("close descriptors", unix.SYS_CLOSE_RANGE, num(taskFiles), num(uint32(1<<32-1)), num(0))
	}
	s.call("new session", unix.SYS_SETSID)
	s.tolerate(0, unix.EPERM) // it leads one already
	s.call("new control group namespace", unix.SYS_UNSHARE, num(unix.CLONE_NEWCGROUP))
	s.call("new keyring", unix.SYS_KEYCTL, num(unix.KEYCTL_JOIN_SESSION_KEYRING), s.text("_ses.box"))
	s.tolerate(0, unix.ENOSYS)
	if len(c.Networks) > 0 {
		s.loopback()
	}
	if err := s.root(c); err != nil {
		return nil, err
	}
	if c.Hostname != "" {
		s.call("set the host name", unix.SYS_SETHOSTNAME, s.bytes([]byte(c.Hostname)), num(len(c.Hostname)))
	}
	for _, l := range c.Rlimits {
		limit := s.bytes(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, l.Soft), l.Hard))
		s.call("set limits", unix.SYS_PRLIMIT64, num(0), num(l.Type), limit, num(0))
	}
	if c.NoNewPrivileges {
		s.call("no new privileges", unix.SYS_PRCTL, num(unix.PR_SET_NO_NEW_PRIVS), num(1))
	}
	s.call("umask", unix.SYS_UMASK, num(0o022))
	s.enter(workDir, w.anyWorkDir)
	return s, s.identity(c.Capabilities, who)
}

// weakenings are defences of the script that a test takes away.
type weakenings struct {
	leaked     int  // descriptors after the tasks files that stay open
	anyWorkDir bool // the working directory may be reached by any link
}

// enter makes a directory the working one. The links in /proc that the kernel
// makes, to directories that have no path inside, lead nowhere [CONTAINER-91].
func (s *script) enter(dir string, anyLink bool) {
	const name = "enter the working directory"
	how := binary.LittleEndian.AppendUint64(nil, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC) // struct open_how
	resolve := uint64(unix.RESOLVE_NO_MAGICLINKS)
	if anyLink {
		resolve = 0
	}
	how = binary.LittleEndian.AppendUint64(append(how, make([]byte, 8)...), resolve)
	s.call(name, unix.SYS_OPENAT2, here, s.text(dir), s.bytes(how), num(len(how)))
	fd := s.keep()
	s.call(name, unix.SYS_FCHDIR, fd)
	s.call("close", unix.SYS_CLOSE, fd)
}

// loopback brings the network's only device up.
func (s *script) loopback() {
	s.call("open a socket", unix.SYS_SOCKET, num(unix.AF_INET), num(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), num(0))
	socket := s.keep()
	request := make([]byte, 40) // struct ifreq
	copy(request, "lo")
	binary.LittleEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP)
	s.call("start the loopback device", unix.SYS_IOCTL, socket, num(unix.SIOCSIFFLAGS), s.bytes(request))
	s.call("close", unix.SYS_CLOSE, socket)
}

// root makes the root file system what the container sees, and the only thing
// that it sees.
func (s *script) root(c *configs.Config) error {
	root, nothing := s.text(c.Rootfs), s.text("")
	s.call("make mounts private", unix.SYS_MOUNT, nothing, s.text("/"), nothing, num(unix.MS_REC|unix.MS_PRIVATE), nothing)
	s.call("mount the root", unix.SYS_MOUNT, root, root, nothing, num(unix.MS_BIND|unix.MS_REC), nothing)

	// What needs the machine's own files or mounts in sight comes first, and
	// waits without a place.
	devices := map[string]arg{}
	for _, d := range c.Devices {
		s.call("take "+d.Path, unix.SYS_OPEN_TREE, here, s.text(d.Path), num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW))
		devices[d.Path] = s.keep()
	}
	ready := map[*configs.Mount]arg{}
	for _, m := range c.Mounts {
		if m.Device == "proc" || m.Device == "sysfs" {
			ready[m] = s.detached(m)
		}
	}

	dot := s.text(".")
	s.call("enter the root", unix.SYS_CHDIR, root)
	s.call("change the root", unix.SYS_PIVOT_ROOT, dot, dot)
	s.call("leave the old root", unix.SYS_UMOUNT2, dot, num(unix.MNT_DETACH))
	s.call("enter the new root", unix.SYS_CHDIR, s.text("/"))

	for _, m := range c.Mounts {
		s.makeDirs(m.Destination)
		if tree, ok := ready[m]; ok {
			s.place(tree, m.Destination)
			continue
		}
		s.call("mount "+m.Destination, unix.SYS_MOUNT, s.text(m.Source), s.text(m.Destination), s.text(m.Device), num(m.Flags), s.text(m.Data))
		if m.Destination == "/dev" {
			s.deviceFiles(c, devices)
			clear(devices)
		}
	}
	if len(devices) > 0 {
		return errors.New("there are devices, but no mount of /dev")
	}
	for _, p := range c.ReadonlyPaths {
		s.readOnly(p)
	}
	for _, p := range c.MaskPaths {
		s.mask(p)
	}
	return nil
}

// detached makes a file system that has no place yet.
func (s *script) detached(m *configs.Mount) arg {
	name := "make " + m.Destination
	s.call(name, unix.SYS_FSOPEN, s.text(m.Device), num(unix.FSOPEN_CLOEXEC))
	context := s.keep()
	if m.Flags&unix.MS_RDONLY != 0 {
		s.call(name, unix.SYS_FSCONFIG, context, num(unix.FSCONFIG_SET_FLAG), s.text("ro"), num(0), num(0))
	}
	s.call(name, unix.SYS_FSCONFIG, context, num(unix.FSCONFIG_CMD_CREATE), num(0), num(0), num(0))
	attributes, _ := mountAttributes(m.Flags)
	s.call(name, unix.SYS_FSMOUNT, context, num(unix.FSMOUNT_CLOEXEC), num(attributes))
	tree := s.keep()
	s.call("close", unix.SYS_CLOSE, context)
	return tree
}

// place puts a mount where it belongs. It does not follow a link there.
func (s *script) place(tree arg, at string) {
	s.call("mount "+at, unix.SYS_MOVE_MOUNT, tree, s.text(""), here, s.text(at), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	s.call("close", unix.SYS_CLOSE, tree)
}

// makeDirs makes a directory and its parents, as far as they are missing.
func (s *script) makeDirs(dir string) {
	name := ""
	for part := range strings.SplitSeq(strings.Trim(path.Clean(dir), "/"), "/") {
		name = path.Join(name+"/", part)
		s.call("make "+name, unix.SYS_MKDIR, s.text(name), num(0o755))
		s.tolerate(0, unix.EEXIST)
	}
}

// deviceFiles fills /dev, which is empty.
func (s *script) deviceFiles(c *configs.Config, trees map[string]arg) {
	for _, d := range c.Devices {
		s.call("make "+d.Path, unix.SYS_OPEN, s.text(d.Path), num(unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC), num(0o600))
		s.call("close", unix.SYS_CLOSE, s.keep())
		s.next-- // the register is free again
		s.place(trees[d.Path], d.Path)
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
		{"/proc/kcore", "/dev/core"},
		{"pts/ptmx", "/dev/ptmx"},
	} {
		s.call("make "+l[1], unix.SYS_SYMLINK, s.text(l[0]), s.text(l[1]))
	}
}

// readOnly makes what is at a path read-only, if there is something.
func (s *script) readOnly(at string) {
	name, nothing, where := "make read-only "+at, s.text(""), s.text(at)
	s.call(name, unix.SYS_MOUNT, where, where, nothing, num(unix.MS_BIND|unix.MS_REC), nothing)
	s.tolerate(1, unix.ENOENT)
	attributes := binary.LittleEndian.AppendUint64(nil, unix.MOUNT_ATTR_RDONLY) // struct mount_attr
	s.call(name, unix.SYS_MOUNT_SETATTR, here, where, num(0), s.bytes(append(attributes, make([]byte, 24)...)), num(32))
}

// mask hides what is at a path, if there is something: a directory behind an
// empty one, anything else behind /dev/null. It asks first which it is: a mount of
// the one over the other fails only after it was made, and the kernel waits for all
// processors before it takes it back.
func (s *script) mask(at string) {
	name, nothing, where := "hide "+at, s.text(""), s.text(at)
	s.call(name, unix.SYS_ACCESS, where, num(unix.F_OK))
	s.tolerate(4, unix.ENOENT)
	s.call(name, unix.SYS_ACCESS, s.text(at+"/."), num(unix.F_OK))
	s.tolerate(2, unix.ENOTDIR)
	s.call(name, unix.SYS_MOUNT, s.text("tmpfs"), where, s.text("tmpfs"), num(unix.MS_RDONLY), s.text("nr_blocks=1,nr_inodes=1"))
	s.call(name, unix.SYS_ACCESS, nothing, num(unix.F_OK)) // there is never anything there
	s.tolerate(1, unix.ENOENT)
	s.call(name, unix.SYS_MOUNT, s.text("/dev/null"), where, nothing, num(unix.MS_BIND), nothing)
}

// identity takes away what the program shall not have, and makes the process
// the container's user.
func (s *script) identity(caps *configs.Capabilities, who ids) error {
	bounding, err := capabilityMask(caps.Bounding)
	if err != nil {
		return err
	}
	effective, err := capabilityMask(caps.Effective)
	if err != nil {
		return err
	}
	permitted, err := capabilityMask(caps.Permitted)
	if err != nil {
		return err
	}
	last, err := lastCapability()
	if err != nil {
		return err
	}
	for c := range last + 1 {
		if bounding>>c&1 == 0 {
			s.call("drop capabilities", unix.SYS_PRCTL, num(unix.PR_CAPBSET_DROP), num(c))
		}
	}
	groups := make([]uint32, len(who.groups))
	for i, g := range who.groups {
		groups[i] = uint32(g)
	}
	s.call("keep capabilities", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(1))
	s.call("set groups", unix.SYS_SETGROUPS, num(len(groups)), s.words(groups...))
	s.call("set the group", unix.SYS_SETRESGID, num(who.gid), num(who.gid), num(who.gid))
	s.call("set the user", unix.SYS_SETRESUID, num(who.uid), num(who.uid), num(who.uid))
	s.call("keep capabilities no more", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(0))
	s.call("clear ambient capabilities", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_CLEAR_ALL))
	sets := s.words(uint32(effective), uint32(permitted), 0, uint32(effective>>32), uint32(permitted>>32), 0)
	s.call("set capabilities", unix.SYS_CAPSET, s.words(unix.LINUX_CAPABILITY_VERSION_3, 0), sets)
	return nil
}

// capabilityMask turns names into bits.
func capabilityMask(names []string) (uint64, error) {
	mask := uint64(0)
	for _, name := range names {
		i := slices.IndexFunc(capability.ListKnown(), func(c capability.Cap) bool {
			return name == "CAP_"+strings.ToUpper(c.String())
		})
		if i < 0 {
			return 0, fmt.Errorf("%q is no capability", name)
		}
		mask |= 1 << capability.ListKnown()[i]
	}
	return mask, nil
}

// lastCapability is the highest that the kernel knows.
func lastCapability() (int, error) {
	b, err := readFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	last, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err == nil && (last < 0 || last > 63) {
		err = fmt.Errorf("the kernel has %d capabilities", last)
	}
	return last, err
}

// first is a container's first process.
type first interface {
	Pid() (int, error)
	Signal(s os.Signal) error
	Wait() (*os.ProcessState, error)
	// groups are those that it is in.
	groups() (cgroupPaths, error)
	// release lets it go on to the program.
	release() error
	// refusal explains what the shim reported, not zero.
	refusal(report uint32, program string) error
}

// viaLibcontainer is one that libcontainer made.
type viaLibcontainer struct {
	*runc.Process
	box *runc.Container
}

func (v viaLibcontainer) groups() (cgroupPaths, error) {
	st, err := v.box.State()
	if err != nil {
		return nil, err
	}
	return st.CgroupPaths, nil
}

func (v viaLibcontainer) release() error { return v.box.Exec() }

func (v viaLibcontainer) refusal(report uint32, program string) error {
	return &container.Error{Code: container.CodeProgram, Detail: program, Err: unix.Errno(report & 0xfff)}
}

// direct is one that the shim makes by a script.
type direct struct {
	process *os.Process
	manager cgroups.Manager
	script  *script
	bytes   []byte
	in      *os.File // takes the script
}

// startFirst begins to start a container's first process, up to the point
// where it is in its control groups and namespaces.
func (m *monitor) startFirst(p *runc.Process) (first, error) {
	if !m.otherShim && directly(m.config) && hasMountSetattr() {
		return m.startDirect(p)
	}
	var err error
	if m.box, err = runc.Create(filepath.Join(m.dir, stateDir), boxID, m.config); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	return viaLibcontainer{p, m.box}, m.box.Start(p)
}

// hasMountSetattr reports whether the kernel has the youngest of the calls in
// scripts (Linux 5.12).
func hasMountSetattr() bool {
	return !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS)
}

func (m *monitor) startDirect(p *runc.Process) (first, error) {
	d := &direct{}
	var err error
	if d.manager, err = manager.NewWithPaths(m.config.Cgroups, m.rec.Groups); err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	err = d.start(m, p)
	if err != nil {
		err = errors.Join(err, d.manager.Destroy())
	}
	return d, err
}

// start makes the control groups and the process, which waits for its script.
func (d *direct) start(m *monitor, p *runc.Process) error {
	if err := d.manager.Apply(-1); err != nil {
		return fmt.Errorf("make control groups: %w", err)
	}
	if err := d.manager.Set(m.config.Cgroups.Resources); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	unified, tasks, err := openGroups(d.manager.GetPaths())
	defer func() { closeAll(append(tasks, unified)) }()
	if err != nil {
		return err
	}
	weak := weakenings{leaked: len(m.leaked), anyWorkDir: m.anyWorkDir}
	if d.script, err = boxScript(m.config, m.stage.user, p.Cwd, len(tasks), weak); err != nil {
		return err
	}
	if d.bytes, err = d.script.encode(); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	flags := uintptr(0)
	for _, n := range m.config.Namespaces {
		if n.Type != configs.NEWCGROUP { // which it enters once it is in its groups
			flags |= cloneFlag(n.Type)
		}
	}
	files := slices.Concat([]*os.File{p.Stdin.(*os.File), p.Stdout.(*os.File), p.Stderr.(*os.File)}, p.ExtraFiles[:2], []*os.File{r}, tasks, m.leaked)
	d.process, err = firstProcess(append([]string{p.Args[0], "2"}, p.Args[2:]...), p.Env, files, flags, unified, firstIDs{m.config.UIDMappings, m.config.GIDMappings})
	if err != nil {
		return errors.Join(err, w.Close())
	}
	d.in = w
	return nil
}

// openGroups opens what a process enters its groups by: the directory of cgroup
// v2, in which it is made, and the tasks files of the controllers of v1.
func openGroups(paths map[string]string) (unified *os.File, tasks []*os.File, err error) {
	for controller, dir := range paths {
		if controller == "" {
			unified, err = os.Open(dir)
		} else {
			var f *os.File
			f, err = os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
			tasks = append(tasks, f)
		}
		if err != nil {
			return unified, tasks, fmt.Errorf("open a control group: %w", err)
		}
	}
	return unified, tasks, nil
}

// Pid and its like are those of runc.Process.
func (d *direct) Pid() (int, error)               { return d.process.Pid, nil }
func (d *direct) Signal(s os.Signal) error        { return d.process.Signal(s) }
func (d *direct) Wait() (*os.ProcessState, error) { return d.process.Wait() }

func (d *direct) groups() (cgroupPaths, error) { return d.manager.GetPaths(), nil }

func (d *direct) release() error {
	_, err := d.in.Write(d.bytes)
	err = errors.Join(err, d.in.Close())
	if err != nil {
		return fmt.Errorf("the first process: %w", err)
	}
	return nil
}

func (d *direct) refusal(report uint32, program string) error {
	if report>>12 == 0 {
		return &container.Error{Code: container.CodeProgram, Detail: program, Err: unix.Errno(report)}
	}
	return startError(d.script.failure(report))
}

// join runs a program in the container.
func (m *monitor) join(p *runc.Process) error {
	box, err := m.container()
	if err != nil {
		return err
	}
	return box.Run(p)
}

// container is the running container as libcontainer knows it, for what joins
// it. One that libcontainer did not make is described to it the first time, in
// the stage's memory: programs can be run when the machine's disk is full
// [CONTAINER-97].
func (m *monitor) container() (*runc.Container, error) {
	m.boxOnce.Lock()
	defer m.boxOnce.Unlock()
	if m.box != nil {
		return m.box, nil
	}
	pid := m.meter.pid
	st, err := system.Stat(pid)
	if err != nil {
		return nil, err
	}
	state := runc.State{
		BaseState:   runc.BaseState{ID: boxID, InitProcessPid: pid, InitProcessStartTime: st.StartTime, Created: time.Now(), Config: *m.config},
		CgroupPaths: m.cgroups,
	}
	root := m.stage.path(stateDir)
	if err := os.MkdirAll(filepath.Join(root, boxID), 0o711); err != nil {
		return nil, err
	}
	if err := writeJSON(filepath.Join(root, boxID), "state.json", state); err != nil {
		return nil, err
	}
	m.box, err = runc.Load(root, boxID)
	return m.box, err
}
