//go:build cgo && amd64

package libcontainer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	runc "github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins namespaces before Go's runtime starts
	"golang.org/x/sys/unix"

	_ "github.com/opencontainers/cgroups/devices" // device rules

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// How a process of this binary knows that it is a monitor.
const (
	monitorArg  = "pktcloud-monitor"
	boxID       = "box" // of a container in its own state directory
	runcInitArg = "init"
	runcInitEnv = "_LIBCONTAINER_INITPIPE"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == runcInitArg && os.Getenv(runcInitEnv) != "" {
		runc.Init() // never returns
	}
	if len(os.Args) == 2 && os.Getenv(MonitorEnv) != "" {
		switch os.Args[0] {
		case monitorArg:
			os.Exit(monitorMain(os.Args[1]))
		case standbyArg: // which ends before this, or becomes a monitor
			os.Exit(1)
		}
	}
}

// settleTime after its program has begun a monitor gives back what only the
// start needed, and makes durable that it has begun. Before that either would cost
// a short life much.
const settleTime = time.Second

// answer is what a started monitor tells its node on descriptor 3. No Code
// means that the program runs.
type answer struct {
	Code   container.Code
	Detail string
}

// newAnswer is a failure as a node is told.
func newAnswer(err error) answer {
	a := answer{Code: container.CodeRuntime, Detail: err.Error()}
	if e := (*container.Error)(nil); errors.As(err, &e) {
		a = answer{Code: e.Code, Detail: e.Detail}
		if e.Err != nil {
			a.Detail += ": " + e.Err.Error()
		}
	}
	return a
}

// weaken is nil but in tests: they take one defence away and see that what it
// stops succeeds.
var weaken func(m *monitor, config *configs.Config) error

// task is a program that runs in the container.
type task = sandbox.Program

// dialer connects to a port inside.
type dialer interface {
	Dial(port uint16) (*os.File, error)
}

// monitor is the parent of one container's first process.
type monitor struct {
	rec     record
	dir     string
	alive   *os.File
	config  *configs.Config
	box     *runc.Container // for those that join it
	boxOnce sync.Mutex
	init    task
	engine  sandbox.Engine // nil: runc's libcontainer runs it
	mail    mail           // signals for the engine
	cgroups cgroupPaths
	// socketBytes bounds what its sockets hold, where that is a number apart; 0
	// means no bound.
	socketBytes uint64
	stage       *stage
	shim        *os.File
	leaked      []*os.File // for weaken; a program gets no descriptors but its three
	otherShim   bool       // for weaken: the shim is a program that takes no script
	anyWorkDir  bool       // for weaken: see weakenings
	log         *logWriter
	dialer      dialer
	socket      net.Listener
	pidfd       int // the first process
	meter       *meter
	killed      atomic.Bool // SIGKILL was sent by us
	destroyed   atomic.Bool // for Destroy
	leaving     atomic.Bool // Destroy has asked, be it after the end

	updating sync.Mutex // guards rec.Spec.Limits

	execs sync.WaitGroup
	conns connSet
}

// monitorMain is the whole life of a monitor: start the container, answer
// requests, record how it ended, clean up.
func monitorMain(dir string) int { return runMonitor(&monitor{dir: dir}) }

func runMonitor(m *monitor) int {
	runtime.LockOSThread() // the container dies with the thread that forked it
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	if !awaitWord(3) {
		return 1 // nothing was begun
	}
	ready := os.NewFile(3, "ready")
	m.alive = os.NewFile(4, "alive") // locked until this process ends
	err := m.start()
	if err != nil {
		m.cleanup()
		_ = json.NewEncoder(ready).Encode(newAnswer(err))
		return 1
	}
	settling := time.AfterFunc(settleTime, func() {
		if err := keep(m.dir, startedFile); err != nil {
			m.complain("make the start durable", err)
		}
		debug.SetGCPercent(25)
		debug.FreeOSMemory()
	})
	defer settling.Stop()
	m.meter.run()
	go answerAll(m.socket, &m.conns, m.execs.Go, m.handle)
	_ = json.NewEncoder(ready).Encode(answer{})
	_ = ready.Close()
	m.wait()
	return 0
}

// awaitWord waits until the node says that the container's record is durable. It
// reports false when the node has ended before, or could not write it.
func awaitWord(fd int) bool {
	for {
		var word [1]byte
		n, err := unix.Read(fd, word[:])
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

// start brings the container up, or leaves what cleanup removes.
func (m *monitor) start() error {
	if ok, err := readJSON(m.dir, recordFile, &m.rec); err != nil || !ok {
		return fmt.Errorf("read the container's record: %w", errors.Join(err, os.ErrNotExist))
	}
	_, err := fmt.Fprintln(m.alive, os.Getpid())
	if err != nil {
		return err
	}
	if m.log, err = openLog(m.dir, m.rec.LogBytes); err != nil {
		return err
	}
	if m.stage, err = newStage(m.dir, &m.rec, m.engine != nil); err != nil {
		return err
	}
	if m.shim, err = openShim(); err != nil {
		return err
	}
	if m.engine != nil {
		return m.startEngine()
	}
	config := boxConfig(&m.rec, m.stage.rootfs)
	if err := boundIO(config.Cgroups.Resources, m.rec.IORate, append(m.stage.volumePaths(), m.stage.path("disk"), m.rec.Root)...); err != nil {
		return err
	}
	m.stage.closeVolumes()
	m.socketBytes = socketBytes(m.rec.Spec.Limits.MemoryBytes)
	if weaken != nil {
		if err := weaken(m, config); err != nil {
			return err
		}
	}
	m.config = config
	if m.socket, err = m.listen(); err != nil {
		return err
	}
	if err := m.startInit(); err != nil {
		return err
	}
	return writeSoon(m.dir, startedFile, started{At: time.Now(), Cgroups: m.cgroups})
}

// startInit runs the container's program and waits until it has replaced the
// shim, or has failed to.
func (m *monitor) startInit() error {
	files, err := m.openFirst()
	if err != nil {
		return err
	}
	defer files.close()
	p := m.process(m.stage.args, m.stage.env, m.stage.workDir, files.reportW)
	p.Init = true
	p.Stdin, p.Stdout, p.Stderr = files.stdio[0], files.stdio[1], files.stdio[2]
	p.Args[1] = "1"
	init, err := m.startFirst(p)
	_ = files.reportW.Close()
	if err != nil {
		return startError(err)
	}
	m.init = init
	// The first stage waits, so its network cannot be gone yet.
	pid, err := init.Pid()
	if err != nil {
		return err
	}
	if m.cgroups, err = init.groups(); err != nil {
		return err
	}
	if err := m.cgroups.limitSockets(m.socketBytes); err != nil {
		return err
	}
	if m.dialer, err = newNetDialer(pid); err != nil {
		return err
	}
	if err := m.openMeter(pid); err != nil {
		return err
	}
	if err := m.joinNetwork(pid); err != nil {
		return err
	}
	if err := init.release(); err != nil {
		return startError(err)
	}
	if said := readShim(files.report, 10*time.Second); said != 0 {
		return init.refusal(said, m.stage.args[0])
	}
	return nil
}

// firstFiles are what the first program begins with.
type firstFiles struct {
	stdio   [3]*os.File // nothing to read, and the log's two pipes
	report  *os.File    // on which the monitor hears why the shim failed
	reportW *os.File    // the shim's end, to be closed here once it has it
}

func (m *monitor) openFirst() (f firstFiles, err error) {
	if f.stdio[0], err = os.Open(os.DevNull); err == nil {
		f.stdio[1], err = m.log.pipe(container.Stdout)
	}
	if err == nil {
		f.stdio[2], err = m.log.pipe(container.Stderr)
	}
	if err == nil {
		f.report, f.reportW, err = os.Pipe()
	}
	if err != nil {
		f.close()
	}
	return f, err
}

func (f *firstFiles) close() { closeAll(append(f.stdio[:], f.report, f.reportW)) }

// process is what the shim needs to run args.
func (m *monitor) process(args, env []string, workDir string, report *os.File) *runc.Process {
	return &runc.Process{
		Args:             append([]string{"/proc/self/fd/3", "0"}, args...),
		Env:              env,
		UID:              m.stage.user.uid,
		GID:              m.stage.user.gid,
		AdditionalGroups: m.stage.user.groups,
		Cwd:              workDir,
		ExtraFiles:       append([]*os.File{m.shim, report}, m.leaked...),
	}
}

// startError makes libcontainer's failures sentences where they are a
// tenant's to mend.
func startError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return &container.Error{Code: container.CodeDiskFull, Err: err}
	default:
		return fmt.Errorf("start: %w", err)
	}
}

// readReport returns the shim's errno; 0 when it has become the program.
func readReport(r *os.File, wait time.Duration) unix.Errno {
	return unix.Errno(readShim(r, wait) & 0xfff)
}

// readShim returns all that the shim says.
func readShim(r *os.File, wait time.Duration) uint32 {
	_ = r.SetReadDeadline(time.Now().Add(wait))
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b[:])
}

// wait records the program's end and removes what ran it.
func (m *monitor) wait() {
	state, err := m.init.Wait()
	var exit *exitStatus
	if err != nil && state == nil {
		m.complain("wait", err)
		exit = &exitStatus{code: -1}
	} else {
		exit = newExitStatus(state)
		if m.engine != nil {
			exit = m.engineExit(exit)
		}
	}
	end := m.ending(exit)
	m.log.drain(2 * time.Second)
	if err := writeSoon(m.dir, exitFile, end); err != nil {
		m.complain("record the end", err)
	}
	m.execs.Wait()
	m.cleanup()
	if m.leaving.Load() {
		return // to be removed, record and all
	}
	if err := keep(m.dir, startedFile, exitFile); err != nil {
		m.complain("make the end durable", err)
	}
}

// cleanup removes processes, control groups and mounts. It is the only way
// out of a monitor that was not killed.
func (m *monitor) cleanup() {
	if m.socket != nil {
		_ = m.socket.Close()
	}
	m.conns.closeAll()
	if m.init != nil {
		_ = m.init.Signal(unix.SIGKILL)
		_, _ = m.init.Wait()
	}
	if m.box != nil {
		if err := m.box.Destroy(); err != nil {
			m.complain("destroy", err)
		}
	}
	if m.cgroups != nil {
		if err := m.cgroups.remove(); err != nil {
			m.complain("remove control groups", err)
		}
	}
	if m.log != nil {
		m.log.close()
	}
	if m.stage != nil {
		if err := m.stage.close(); err != nil {
			m.complain("unmount", err)
		}
	}
}

// complain writes to the monitor's own log.
func (m *monitor) complain(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s %s: %v\n", time.Now().UTC().Format(time.RFC3339), what, err)
}

// exitStatus is a program's end as a code.
type exitStatus struct {
	code   int
	signal syscall.Signal // 0 unless one ended it
}

func newExitStatus(s *os.ProcessState) *exitStatus {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &exitStatus{code: 128 + int(ws.Signal()), signal: ws.Signal()}
	}
	return &exitStatus{code: s.ExitCode()}
}
