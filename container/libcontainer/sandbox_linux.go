//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// classOf chooses what runs s [CONTAINER-80]; the zero class is this package's
// own way.
func (c Config) classOf(s container.Spec) (sandbox.Class, error) {
	want := s.Class
	if want == "" {
		want = c.Default
	}
	if want == "" || want == container.ClassUserns {
		return sandbox.Class{}, nil
	}
	i := slices.IndexFunc(c.Classes, func(k sandbox.Class) bool { return k.Name == want })
	if i < 0 {
		return sandbox.Class{}, &container.Error{Code: container.CodeNoClass, Detail: string(want)}
	}
	if least := c.Classes[i].MinMemoryBytes; s.Limits.MemoryBytes < least {
		return sandbox.Class{}, &container.Error{
			Code:   container.CodeInvalidSpec,
			Detail: fmt.Sprintf("%d bytes of memory; class %s takes at least %d, its own kernel's included", s.Limits.MemoryBytes, want, least),
		}
	}
	return c.Classes[i], nil
}

// IsolationClasses returns the classes that containers of this runtime can
// demand, its own first [CONTAINER-80].
func (r *Runtime) IsolationClasses() []container.Class {
	out := []container.Class{container.ClassUserns}
	for _, c := range r.cfg.Classes {
		out = append(out, c.Name)
	}
	return out
}

// MonitorEnv is set in the environment of monitors.
const MonitorEnv = "PKTCLOUD_MONITOR"

// Monitor is the whole life of a monitor whose container runs in an engine; it
// returns the process's exit code. Package container/gvisor calls it from its
// init function.
func Monitor(dir string, e sandbox.Engine) int {
	return runMonitor(&monitor{dir: dir, engine: e})
}

// startEngine is startInit for a container with a kernel of its own: the same
// root file system, ids, control groups, filter and log [CONTAINER-81].
func (m *monitor) startEngine() error {
	var err error
	if err = m.makeGroups(); err != nil {
		return err
	}
	network, err := m.engineNetwork()
	if err != nil {
		return err
	}
	if m.socket, err = m.listen(); err != nil {
		return err
	}
	base := m.stage.path("engine")
	if err := os.Mkdir(base, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=16m"); err != nil {
		return fmt.Errorf("mount the engine's files: %w", err)
	}
	l := m.rec.Spec.Limits
	b := &sandbox.Box{
		Base: base, Rootfs: m.stage.rootfs, Hostname: hostname(&m.rec), FirstID: m.rec.FirstID, IDs: idsPerContainer,
		Cgroup: m.rec.Cgroup, Network: network, Memory: l.MemoryBytes, Shm: sharedBytes(l.MemoryBytes), Pids: l.Pids,
		Files: rlimits()[0].Hard, Capabilities: capabilities, Option: m.rec.Option,
		Mounts: m.stage.mounts,
	}
	if err := m.runEngine(b); err != nil {
		return err
	}
	m.dialer = m.engine
	return writeSoon(m.dir, startedFile, started{At: time.Now(), Cgroups: m.cgroups})
}

// runEngine starts the container's first program and waits until it has
// replaced the shim, or has failed to.
func (m *monitor) runEngine(b *sandbox.Box) error {
	files, err := m.openFirst()
	if err != nil {
		return err
	}
	defer files.close()
	p := m.engineProcess(m.stage.args, m.stage.env, m.stage.workDir, files.reportW)
	p.Stdio = files.stdio
	prog, err := m.engine.Start(b, p)
	_ = files.reportW.Close()
	if err != nil {
		return startError(err)
	}
	m.init = prog
	if err := m.engine.Executed(); err != nil {
		return startError(err)
	}
	if m.meter, err = newMeter(m, m.engine.Kernel()); err != nil {
		return err
	}
	if errno := readReport(files.report, time.Millisecond); errno != 0 {
		return &container.Error{Code: container.CodeProgram, Detail: m.stage.args[0], Err: errno}
	}
	return nil
}

func (m *monitor) engineProcess(args, env []string, workDir string, report *os.File) *sandbox.Process {
	return &sandbox.Process{
		Args: append([]string{"shim", "0"}, args...), Env: env, WorkDir: workDir,
		UID: m.stage.user.uid, GID: m.stage.user.gid, Groups: m.stage.user.groups, Shim: m.shim, Report: report,
	}
}

// engineExec starts p's like in the engine, on a terminal if it has one.
func (m *monitor) engineExec(r request, env []string, workDir string, report *os.File, files []*os.File) (task, *os.File, error) {
	p := m.engineProcess(r.Args, env, workDir, report)
	if !r.TTY {
		if len(files) != 3 {
			return nil, nil, errors.New("three files must come with the request")
		}
		p.Stdio = [3]*os.File(files)
		prog, err := m.engine.Exec(p)
		return prog, nil, err
	}
	master, slave, err := openTerminal(r.Size)
	if err != nil {
		return nil, nil, err
	}
	defer slave.Close()
	p.Stdio, p.Terminal = [3]*os.File{slave, slave, slave}, true
	prog, err := m.engine.Exec(p)
	if err != nil {
		_ = master.Close()
		return nil, nil, err
	}
	return prog, master, nil
}

// hostTasks are the processes and threads of the machine that an engine has
// for one inside, and for itself: it keeps the limit inside, the machine's is
// against what it does not.
const (
	hostTasksEach = 8
	hostTasksBase = 256
)

// makeGroups makes control groups with the container's limits, for the engine
// to join.
func (m *monitor) makeGroups() error {
	nodes := standardDevices(int(m.rec.FirstID))
	res := resources(&m.rec, nodes)
	*res.PidsLimit = *res.PidsLimit*hostTasksEach + hostTasksBase
	if err := boundIO(res, m.rec.IORate, append(m.stage.volumePaths(), m.stage.path("disk"), m.rec.Root)...); err != nil {
		return err
	}
	m.stage.closeVolumes()
	g, err := manager.NewWithPaths(&cgroups.Cgroup{Path: m.rec.Cgroup, Resources: res}, m.rec.Groups)
	if err != nil {
		return err
	}
	m.cgroups = g.GetPaths()
	if err := g.Apply(-1); err != nil {
		return fmt.Errorf("make control groups: %w", err)
	}
	if err := g.Set(res); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	return m.cgroups.limitSockets(socketBytes(m.rec.Spec.Limits.MemoryBytes))
}

// engineNetwork returns a file that is the network namespace of an engine: a
// loopback interface and, in a group, one more. Engines take over what they find
// there when they start and never look again, so that a router of the monitor's
// stands between, which is connected to the group anew when that gets another
// keeper [CONTAINER-56]. All of it goes with the monitor.
func (m *monitor) engineNetwork() (string, error) {
	path := m.stage.path("network")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_ = f.Close()
	if err := inThread(func() error { return bindNetwork(path) }); err != nil {
		return "", fmt.Errorf("make a network: %w", err)
	}
	if !m.rec.Net.Address.IsValid() {
		return path, nil
	}
	ns, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer ns.Close()
	between, err := newForwarder(func(*router) error { return nil })
	if err == nil {
		err = between.plug(ns, m.rec.Net.Address, false)
	}
	if err != nil {
		return "", err
	}
	return path, m.keepPlugged(between.ns)
}

// bindNetwork makes a network and path its file.
func bindNetwork(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	return unix.Mount(filepath.Join("/proc/self/task", fmt.Sprint(unix.Gettid()), "ns/net"), path, "", unix.MS_BIND, "")
}

// openTerminal makes a terminal of the machine and returns both ends.
func openTerminal(size container.Size) (master, slave *os.File, err error) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	master = os.NewFile(uintptr(m), "terminal")
	err = unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0)
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, errors.Join(errno, master.Close())
	}
	slave = os.NewFile(s, "terminal")
	if size != (container.Size{}) {
		_ = unix.IoctlSetWinsize(m, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	}
	return master, slave, nil
}

// engineExit is the end of the first program as its own kernel saw it: what
// began that kernel says it by an exit code, which programs have too.
func (m *monitor) engineExit(exit *exitStatus) *exitStatus {
	if exit.signal != 0 {
		return exit
	}
	if ws, ok := m.engine.Ended(); ok && ws.Signaled() {
		return &exitStatus{code: 128 + int(ws.Signal()), signal: ws.Signal()}
	}
	return exit
}

// checkEngineUpdate refuses what the kernel inside cannot be told any more.
func (m *monitor) checkEngineUpdate(was, l container.Limits) error {
	if l.Pids != was.Pids {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "the kernel of the container's own keeps the limit of processes that it began with"}
	}
	if l.MemoryBytes < m.rec.LeastMemory {
		return &container.Error{
			Code:   container.CodeDoesNotFit,
			Detail: fmt.Sprintf("the container's own kernel is in the memory, which is at least %d bytes", m.rec.LeastMemory),
		}
	}
	return nil
}
