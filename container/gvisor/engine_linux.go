//go:build cgo && amd64

package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// boxID names the container to runsc, whose state has no other.
const boxID = "box"

// patience bounds what runsc may take for one command; a container of little
// processor time is slow.
const patience = time.Minute

// engine is one container in gVisor.
//
//	monitor ─┬─ runsc run ─┬─ runsc-gofer    opens files of the root file system
//	         │             └─ runsc-sandbox  the kernel, and its stubs for programs
//	         └─ runsc exec                   one for each executed program
//
// Each dies with its parent. All but the commands are in the control groups.
type engine struct {
	box    *sandbox.Box
	run    *command
	report uint64 // inode of the first program's report
	serial atomic.Uint64
	execs  atomic.Int32
	pid    int // the kernel, once Executed has seen it
}

var _ sandbox.Engine = (*engine)(nil)

// Start implements sandbox.Engine.
func (e *engine) Start(b *sandbox.Box, p *sandbox.Process) (sandbox.Program, error) {
	e.box = b
	for _, d := range []string{"state", "bundle"} {
		if err := os.Mkdir(filepath.Join(b.Base, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := writeJSON(filepath.Join(b.Base, "bundle"), "config.json", bundle(b, p)); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(p.Report.Fd()), &st); err != nil {
		return nil, err
	}
	e.report = st.Ino
	c, err := e.start(p, "-debug-log", e.story(), "-debug-command", "run", "run", "-bundle", filepath.Join(b.Base, "bundle"), "-exec-fd=3", "-pass-fd=4:4", boxID)
	e.run = c
	return c, err
}

// Exec implements sandbox.Engine.
func (e *engine) Exec(p *sandbox.Process) (sandbox.Program, error) {
	if e.execs.Add(1) > MaxExecs {
		e.execs.Add(-1)
		return nil, &container.Error{Code: container.CodeCapacity, Detail: fmt.Sprintf("%d programs are executed at once already", MaxExecs)}
	}
	c, err := e.exec(p)
	if err != nil {
		e.execs.Add(-1)
		return nil, err
	}
	return c, nil
}

func (e *engine) exec(p *sandbox.Process) (*command, error) {
	name := fmt.Sprintf("exec-%d", e.serial.Add(1))
	if err := writeJSON(e.box.Base, name+".json", process(e.box, p)); err != nil {
		return nil, err
	}
	path := filepath.Join(e.box.Base, name)
	c, err := e.start(p, "exec", "-process", path+".json", "-internal-pid-file", path+".pid", "-exec-fd=3", "-pass-fd=4:4", boxID)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path+".json"))
	}
	c.done = func() {
		for _, f := range []string{path + ".json", path + ".pid"} {
			_ = os.Remove(f)
		}
		e.execs.Add(-1)
	}
	c.pidFile = path + ".pid"
	return c, nil
}

// args are a command of runsc with this driver's settings.
func (e *engine) args(log string, args ...string) []string {
	return append([]string{
		"-root", filepath.Join(e.box.Base, "state"), "-log", log, "-platform", "systrap", "-network", "sandbox",
		"-overlay2", "none", "-file-access", "exclusive", "-file-access-mounts", "shared", "-host-uds", "none", "-net-raw=false",
	}, args...)
}

// command is a runsc that stays as long as its program.
type command struct {
	engine  *engine
	cmd     *exec.Cmd
	log     string
	pidFile string // of an executed program; empty: the first one
	done    func() // of an executed program

	once  sync.Once
	state *os.ProcessState
	err   error
	ended chan struct{}
}

func (e *engine) start(p *sandbox.Process, args ...string) (*command, error) {
	c := &command{engine: e, log: filepath.Join(e.box.Base, fmt.Sprintf("log-%d", e.serial.Add(1))), ended: make(chan struct{})}
	c.cmd = exec.Command(e.box.Option, e.args(c.log, args...)...)
	c.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	c.cmd.Dir = e.box.Base
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = p.Stdio[0], p.Stdio[1], p.Stdio[2]
	c.cmd.ExtraFiles = []*os.File{p.Shim, p.Report}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	if p.Terminal {
		c.cmd.SysProcAttr.Setctty = true
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", e.box.Option, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		c.state = c.cmd.ProcessState
		close(c.ended)
	}()
	return c, nil
}

// Wait implements sandbox.Program.
func (c *command) Wait() (*os.ProcessState, error) {
	<-c.ended
	c.once.Do(func() {
		if fault := c.fault(); fault != nil {
			c.state, c.err = nil, fault
		}
		_ = os.Remove(c.log)
		if c.done != nil {
			c.done()
		}
	})
	return c.state, c.err
}

// fault is what runsc itself failed at, which it says in its log and by an exit
// code that programs have too.
func (c *command) fault() error {
	if c.state == nil {
		return errEnded
	}
	if c.state.ExitCode() != 128 {
		return nil
	}
	b, err := os.ReadFile(c.log)
	if err != nil || len(b) == 0 {
		return nil
	}
	return fmt.Errorf("runsc: %.400s", bytes.TrimSpace(b))
}

// Signal implements sandbox.Program.
func (c *command) Signal(s os.Signal) error {
	n, ok := s.(syscall.Signal)
	if !ok {
		return errors.New("no signal of this system")
	}
	select {
	case <-c.ended:
		return os.ErrProcessDone
	default:
	}
	if c.pidFile == "" {
		if n == unix.SIGKILL {
			return c.cmd.Process.Kill() // and with it all that it began
		}
		return c.kill(boxID, strconv.Itoa(int(n)))
	}
	pid, err := c.pid()
	if err != nil {
		return err
	}
	return c.kill("-pid", strconv.Itoa(pid), boxID, strconv.Itoa(int(n)))
}

// kill sends a signal inside. A frozen kernel takes it when it runs again.
func (c *command) kill(args ...string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := c.engine.commandContext(ctx, append([]string{"kill"}, args...)...)
	select {
	case <-c.ended: // which is why, then
		if err != nil {
			err = os.ErrProcessDone
		}
	default:
	}
	return err
}

// pid waits until runsc has told the number inside of an executed program.
func (c *command) pid() (int, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		b, err := os.ReadFile(c.pidFile)
		if pid, aerr := strconv.Atoi(string(b)); err == nil && aerr == nil && pid > 0 {
			return pid, nil
		}
		select {
		case <-c.ended:
			return 0, os.ErrProcessDone
		case <-time.After(wait):
		}
	}
}

// command runs a command of runsc that does not stay.
func (e *engine) command(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return e.commandContext(ctx, args...)
}

func (e *engine) commandContext(ctx context.Context, args ...string) error {
	log := filepath.Join(e.box.Base, fmt.Sprintf("log-%d", e.serial.Add(1)))
	defer func() { _ = os.Remove(log) }()
	cmd := exec.CommandContext(ctx, e.box.Option, e.args(log, args...)...)
	cmd.Env, cmd.Dir = []string{}, e.box.Base
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("runsc %s: %w: %.400s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// Executed implements sandbox.Engine. The kernel holds the report's end until
// the shim is gone, by becoming the program or by failing to.
func (e *engine) Executed() error {
	deadline := time.Now().Add(patience)
	link := fmt.Sprintf("pipe:[%d]", e.report)
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		kernel, running := e.kernel()
		if running && !holds(kernel, link) {
			e.pid = kernel
			return nil
		}
		select {
		case <-e.run.ended:
			if err := e.run.fault(); err != nil {
				return err
			}
			return nil
		case <-time.After(wait):
		}
		if time.Now().After(deadline) {
			return errors.New("runsc does not start the program")
		}
	}
}

// Kernel implements sandbox.Engine.
func (e *engine) Kernel() int { return e.pid }

// story is what runsc tells of the container's life.
func (e *engine) story() string { return filepath.Join(e.box.Base, "story") }

// Ended implements sandbox.Engine. runsc exits with 137 when SIGKILL ended the
// program, and when it exited with 137; which it was is in its log only. Of a
// program that ended before runsc waited for it that has the exit code alone.
func (e *engine) Ended() (syscall.WaitStatus, bool) {
	b, err := os.ReadFile(e.story())
	if err != nil {
		return 0, false
	}
	const said = "Exiting with status: "
	_, after, found := strings.Cut(string(b[max(0, bytes.LastIndex(b, []byte(said))):]), said)
	word, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 32)
	return syscall.WaitStatus(n), found && err == nil
}

// kernel returns the process that is the container's kernel, once it runs
// programs.
func (e *engine) kernel() (pid int, running bool) {
	parent := strconv.Itoa(e.run.cmd.Process.Pid)
	children, _ := filepath.Glob(filepath.Join("/proc", parent, "task/*/children"))
	for _, f := range children {
		b, _ := os.ReadFile(f)
		for word := range strings.FieldsSeq(string(b)) {
			args, _ := os.ReadFile(filepath.Join("/proc", word, "cmdline"))
			if bytes.HasPrefix(args, []byte("runsc-sandbox\x00")) {
				pid, _ = strconv.Atoi(word)
			}
		}
	}
	if pid == 0 {
		return 0, false
	}
	b, err := os.ReadFile(filepath.Join(e.box.Base, "state", boxID+"_sandbox:"+boxID+".state"))
	var state struct {
		Status string `json:"status"`
	}
	return pid, err == nil && json.Unmarshal(b, &state) == nil && state.Status == "running"
}

// holds reports whether a process has a descriptor of the given name, or
// cannot be looked into.
func holds(pid int, link string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, fd := range fds {
		name, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err == nil && name == link || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Dial implements sandbox.Engine. runsc brings one end of a socket to the
// kernel, which connects it to the port.
func (e *engine) Dial(port uint16) (*os.File, error) {
	// A name of the monitor's own file system, so it is short and goes with it.
	path := filepath.Join(e.box.Base, fmt.Sprintf("dial-%d", e.serial.Add(1)))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }() // removes the name
	if err := e.command("port-forward", "-stream", path, boxID, strconv.Itoa(int(port))); err != nil {
		return nil, refused(err)
	}
	_ = l.SetDeadline(time.Now().Add(time.Second))
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.File()
}

// refused makes a port where nobody listens a code. runsc tells it by words
// only.
func refused(err error) error {
	if strings.Contains(err.Error(), "connection was refused") {
		return &container.Error{Code: container.CodePortRefused, Err: err}
	}
	return err
}
