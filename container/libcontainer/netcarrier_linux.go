//go:build cgo && amd64

package libcontainer

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// The carrier of a group is the process in which its packets are parsed. It is
// nobody in an empty directory, alone among its processes, under the filter of
// containers, with a control group of its own: it can use the machine's network
// and the descriptors that it was given, and nothing else [CONTAINER-56].

// carrierID is the user and group of all carriers. Neither the machine's users
// nor containers have it, and no carrier sees another.
const carrierID = 0x7fff0001

// Descriptors of a carrier.
const (
	carrierControl = 3 + iota
	carrierTUN
	carrierCounters
	carrierRoot
	carrierNews
)

// carrier is the keeper's side.
type carrier struct {
	cmd     *exec.Cmd
	control *net.UnixConn
	news    *net.UnixConn // by which it asks
	group   cgroups.Manager
}

// startCarrier starts a carrier and waits until it can take containers.
func (k *keeper) startCarrier() (*carrier, error) {
	empty := filepath.Join(k.dir, "empty")
	if err := os.Mkdir(empty, 0o555); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.Open(empty)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	control, theirs, err := unixPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	news, theirNews, err := unixPair()
	if err != nil {
		return nil, errors.Join(err, control.Close())
	}
	defer theirNews.Close()
	c := &carrier{control: control, news: news, cmd: exec.Command("/proc/self/exe")}
	c.cmd.Args = []string{carrierArg, k.dir}
	c.cmd.Env = append(processEnv(), carrierRuntime(k.rec.Config.MemoryBytes)...)
	c.cmd.Dir = "/"
	c.cmd.Stdout, c.cmd.Stderr = os.Stdout, os.Stderr
	c.cmd.ExtraFiles = []*os.File{theirs, k.router.tun, k.counters, root, theirNews}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	err = inThread(func() error {
		// What a thread may not gain its children may not either.
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return c.cmd.Start()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the carrier: %w", err), control.Close(), news.Close())
	}
	if k.fast != nil {
		go k.fast.listen(news)
	}
	// It waits for its configuration before it does anything.
	if err := errors.Join(c.limit(k.rec), c.ask(netRequest{Op: opConfig, Config: k.rec.Config.stack(), Fast: k.fast != nil})); err != nil {
		c.kill()
		return nil, errors.Join(err, c.wait())
	}
	return c, nil
}

// unixPair are two ends of a connection: one to use and one to give away.
func unixPair() (*net.UnixConn, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// carrierRuntime is how Go keeps a carrier's memory. That of a packet is used
// again for the next unless it is collected in between, so that happens seldom
// while there is room.
func carrierRuntime(limit uint64) []string {
	return []string{"GOGC=400", fmt.Sprintf("GOMEMLIMIT=%d", limit/4*3)}
}

// limit puts the carrier into a control group of its own.
func (c *carrier) limit(rec groupRecord) error {
	const period = 100_000 // microseconds
	pids := int64(256)
	m, err := manager.New(&cgroups.Cgroup{Path: rec.Cgroup, Resources: &cgroups.Resources{
		Memory: int64(rec.Config.MemoryBytes), CpuPeriod: period, CpuQuota: int64(rec.Config.MilliCPU) * period / 1000,
		PidsLimit: &pids, SkipDevices: true,
	}})
	if err != nil {
		return err
	}
	c.group = m
	if err := m.Apply(c.cmd.Process.Pid); err != nil {
		return fmt.Errorf("the carrier's control group: %w", err)
	}
	if err := m.Set(&cgroups.Resources{
		Memory: int64(rec.Config.MemoryBytes), CpuPeriod: period, CpuQuota: int64(rec.Config.MilliCPU) * period / 1000,
		PidsLimit: &pids, SkipDevices: true,
	}); err != nil {
		return fmt.Errorf("the carrier's limits: %w", err)
	}
	return cgroupPaths(m.GetPaths()).limitSockets(rec.Config.MemoryBytes / 2)
}

// ask sends a request and waits for the answer.
func (c *carrier) ask(r netRequest, files ...*os.File) error {
	_ = c.control.SetDeadline(time.Now().Add(5 * time.Second))
	if err := send(c.control, r, files...); err != nil {
		return err
	}
	var out reply
	if _, err := receive(c.control, &out); err != nil {
		return err
	}
	return out.err()
}

// join tells of a container and its published ports.
func (c *carrier) join(p *plugged) error {
	if err := c.ask(netRequest{Op: opJoin, Member: p.member}); err != nil {
		return err
	}
	for i, port := range p.ports {
		r := netRequest{Op: opPublish, Member: netstack.Member{Address: p.member.Address}, Ports: []container.PublishedPort{port}}
		if err := c.ask(r, p.sockets[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *carrier) kill() { _ = c.cmd.Process.Kill() }

func (c *carrier) wait() error {
	err := c.cmd.Wait()
	_ = c.control.Close()
	_ = c.news.Close()
	if c.group != nil {
		err = errors.Join(err, c.group.Destroy())
	}
	return err
}

// stack is what a carrier is told of the owner's wishes.
func (c NetworkConfig) stack() netstack.Config {
	out := netstack.Config{
		Ceiling:   netstack.Ceiling{Deny: c.Deny, DenyPorts: c.DenyPorts, Allow: c.AllowPrivate},
		Resolvers: c.Resolvers, MaxConnections: c.MaxConnections, BytesPerSecond: c.BytesPerSecond,
	}
	if out.Resolvers == nil {
		out.Resolvers = machineResolvers("/etc/resolv.conf")
	}
	return out
}

// machineResolvers reads the machine's own name servers.
func machineResolvers(path string) []netip.AddrPort {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []netip.AddrPort
	for lines := bufio.NewScanner(f); lines.Scan() && len(out) < 3; {
		if w := strings.Fields(lines.Text()); len(w) > 1 && w[0] == "nameserver" {
			if a, err := netip.ParseAddr(w[1]); err == nil {
				out = append(out, netip.AddrPortFrom(a, 53))
			}
		}
	}
	return out
}

// carrierMain is the whole life of a carrier.
func carrierMain() int {
	if err := carry(); err != nil {
		fmt.Fprintln(os.Stderr, "the carrier:", err)
		return 1
	}
	return 0
}

func carry() error {
	c, err := unixConn(carrierControl)
	if err != nil {
		return err
	}
	news, err := unixConn(carrierNews)
	if err != nil {
		return err
	}
	for fd := carrierTUN; fd <= carrierRoot; fd++ {
		unix.CloseOnExec(fd)
	}
	b, err := unix.Mmap(carrierCounters, 0, netstack.CounterBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	counters, err := netstack.OpenCounters(b)
	if err != nil {
		return err
	}
	if err := confine(); err != nil {
		return err
	}
	var r netRequest
	if _, err := receive(c, &r); err != nil || r.Op != opConfig {
		return fmt.Errorf("no configuration: %w", err)
	}
	s, err := netstack.New(os.NewFile(carrierTUN, "tun"), r.Config, counters)
	if err != nil {
		return errors.Join(err, send(c, reply{Code: container.CodeRuntime, Detail: err.Error()}))
	}
	if r.Fast {
		s.Learned = (&teller{c: news}).learned
	}
	defer s.Close() //nolint:errcheck // it returns none, and this process ends
	if err := send(c, reply{}); err != nil {
		return err
	}
	return obey(s, c)
}

// unixConn is a connection that the process was given.
func unixConn(fd uintptr) (*net.UnixConn, error) {
	f := os.NewFile(fd, "given")
	c, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// confine gives up what a carrier does not need: the machine's files, root and
// most system calls.
func confine() error {
	if err := boundFiles(); err != nil {
		return err
	}
	if err := errors.Join(unix.Fchdir(carrierRoot), unix.Chroot("."), unix.Chdir("/"), unix.Close(carrierRoot), unix.Close(carrierCounters)); err != nil {
		return fmt.Errorf("enter the empty directory: %w", err)
	}
	// These are of all threads.
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(carrierID, carrierID, carrierID), syscall.Setresuid(carrierID, carrierID, carrierID)); err != nil {
		return fmt.Errorf("become nobody: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("load the filter: %w", errno)
	}
	return nil
}

// obey does what the keeper asks until that is gone.
func obey(s *netstack.Stack, c *net.UnixConn) error {
	for {
		var r netRequest
		files, err := receive(c, &r)
		if err != nil {
			return nil // the group ends
		}
		switch r.Op {
		case opJoin:
			err = s.Join(r.Member)
		case opLeave:
			s.Leave(r.Member.Address)
		case opPublish:
			err = publish(s, r, files)
		default:
			err = fmt.Errorf("request %q", r.Op)
		}
		closeAll(files)
		var out reply
		if err != nil {
			out = reply{Code: container.CodeRuntime, Detail: err.Error()}
		}
		if err := send(c, out); err != nil {
			return nil
		}
	}
}

func publish(s *netstack.Stack, r netRequest, files []*os.File) error {
	if len(r.Ports) != 1 || len(files) != 1 {
		return errors.New("a published port without a socket")
	}
	to := netip.AddrPortFrom(r.Member.Address, r.Ports[0].Inside)
	if r.Ports[0].Protocol == container.TCP {
		l, err := net.FileListener(files[0])
		if err != nil {
			return err
		}
		return s.PublishTCP(l, to)
	}
	c, err := net.FilePacketConn(files[0])
	if err != nil {
		return err
	}
	return s.PublishUDP(c.(*net.UDPConn), to)
}
