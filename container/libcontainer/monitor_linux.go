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
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	runc "github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins namespaces before Go's runtime starts
	"golang.org/x/sys/unix"

	_ "github.com/opencontainers/cgroups/devices" // device rules

	"github.com/pkt-cash/pkt-cloud/container"
)

// How a process of this binary knows that it is a monitor.
const (
	monitorArg  = "pktcloud-monitor"
	monitorEnv  = "PKTCLOUD_MONITOR"
	runcInitArg = "init"
	runcInitEnv = "_LIBCONTAINER_INITPIPE"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == runcInitArg && os.Getenv(runcInitEnv) != "" {
		runc.Init() // never returns
	}
	if len(os.Args) == 2 && os.Args[0] == monitorArg && os.Getenv(monitorEnv) != "" {
		os.Exit(monitorMain(os.Args[1]))
	}
}

// answer is what a started monitor tells its node on descriptor 3. No Code
// means that the program runs.
type answer struct {
	Code   container.Code
	Detail string
}

// monitor is the parent of one container's first process.
type monitor struct {
	rec     record
	dir     string
	alive   *os.File
	box     *runc.Container
	init    *runc.Process
	cgroups cgroupPaths
	stage   *stage
	shim    *os.File
	log     *logWriter
	dialer  *netDialer
	socket  net.Listener

	execs sync.WaitGroup
	conns connSet
}

// monitorMain is the whole life of a monitor: start the container, answer
// requests, record how it ended, clean up.
func monitorMain(dir string) int {
	debug.SetGCPercent(25)
	runtime.LockOSThread() // the container dies with the thread that forked it
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	ready := os.NewFile(3, "ready")
	m := &monitor{dir: dir, alive: os.NewFile(4, "alive")} // locked until this process ends
	err := m.start()
	if err != nil {
		a := answer{Code: container.CodeRuntime, Detail: err.Error()}
		if e := (*container.Error)(nil); errors.As(err, &e) {
			a = answer{Code: e.Code, Detail: e.Detail}
			if e.Err != nil {
				a.Detail += ": " + e.Err.Error()
			}
		}
		m.cleanup()
		_ = json.NewEncoder(ready).Encode(a)
		return 1
	}
	go m.serve()
	_ = json.NewEncoder(ready).Encode(answer{})
	_ = ready.Close()
	m.wait()
	return 0
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
	if m.stage, err = newStage(m.dir, &m.rec); err != nil {
		return err
	}
	if m.shim, err = openShim(); err != nil {
		return err
	}
	config := boxConfig(&m.rec, m.stage.rootfs)
	if m.box, err = runc.Create(filepath.Join(m.dir, stateDir), "box", config); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if m.socket, err = m.listen(); err != nil {
		return err
	}
	if err := m.startInit(); err != nil {
		return err
	}
	return writeJSON(m.dir, startedFile, started{At: time.Now(), Cgroups: m.cgroups})
}

// startInit runs the container's program and waits until it has replaced the
// shim, or has failed to.
func (m *monitor) startInit() error {
	out, err := m.log.pipe(container.Stdout)
	if err != nil {
		return err
	}
	defer out.Close()
	errs, err := m.log.pipe(container.Stderr)
	if err != nil {
		return err
	}
	defer errs.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	report, reportW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()
	p := m.process(m.stage.args, m.stage.env, m.stage.workDir, reportW)
	p.Init = true
	p.Stdin, p.Stdout, p.Stderr = null, out, errs
	p.Args[1] = "1"
	err = m.box.Start(p)
	_ = reportW.Close()
	if err != nil {
		return startError(err)
	}
	m.init = p
	// The first stage waits, so its network cannot be gone yet.
	pid, err := p.Pid()
	if err != nil {
		return err
	}
	st, err := m.box.State()
	if err != nil {
		return err
	}
	m.cgroups = st.CgroupPaths
	if m.dialer, err = newNetDialer(pid); err != nil {
		return err
	}
	if err := m.box.Exec(); err != nil {
		return startError(err)
	}
	if errno := readReport(report, 10*time.Second); errno != 0 {
		return &container.Error{Code: container.CodeProgram, Detail: m.stage.args[0], Err: errno}
	}
	return nil
}

// process is what the shim needs to run args.
func (m *monitor) process(args, env []string, workDir string, report *os.File) *runc.Process {
	yes := true
	return &runc.Process{
		Args:             append([]string{"/proc/self/fd/3", "0"}, args...),
		Env:              env,
		UID:              m.stage.user.uid,
		GID:              m.stage.user.gid,
		AdditionalGroups: m.stage.user.groups,
		Cwd:              workDir,
		NoNewPrivileges:  &yes,
		ExtraFiles:       []*os.File{m.shim, report},
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
	_ = r.SetReadDeadline(time.Now().Add(wait))
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0
	}
	return unix.Errno(binary.LittleEndian.Uint32(b[:]) & 0xfff)
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
	}
	cpu, _ := m.cgroups.usage()
	end := exited{At: time.Now(), Code: exit.code, OOMKilled: m.cgroups.oomKilled(), CPUTime: cpu}
	m.log.drain(2 * time.Second)
	if err := writeJSON(m.dir, exitFile, end); err != nil {
		m.complain("record the end", err)
	}
	m.execs.Wait()
	m.cleanup()
}

// cleanup removes processes, control groups and mounts. It is the only way
// out of a monitor that was not killed.
func (m *monitor) cleanup() {
	if m.socket != nil {
		_ = m.socket.Close()
	}
	m.conns.closeAll()
	if m.box != nil {
		if m.init != nil {
			_ = m.box.Signal(unix.SIGKILL)
			_, _ = m.init.Wait()
		}
		if err := m.box.Destroy(); err != nil {
			m.complain("destroy", err)
		}
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
type exitStatus struct{ code int }

func newExitStatus(s *os.ProcessState) *exitStatus {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &exitStatus{code: 128 + int(ws.Signal())}
	}
	return &exitStatus{code: s.ExitCode()}
}
