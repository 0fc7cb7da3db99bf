//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	runc "github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

func lockThread() { runtime.LockOSThread() }

// maxConns bounds the requests that a monitor serves at once.
const maxConns = 256

// connSet holds the open connections of a monitor.
type connSet struct {
	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func (s *connSet) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= maxConns {
		return false
	}
	if s.open == nil {
		s.open = map[net.Conn]bool{}
	}
	s.open[c] = true
	return true
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

func (s *connSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
}

// handleExec runs a program in the container: a first reply says that it was
// started, with its terminal if it has one, a second how it ended. The node
// kills it by closing the connection.
func (m *monitor) handleExec(c *net.UnixConn, r request, files []*os.File) {
	refuse := func(code container.Code, err error) {
		_ = send(c, reply{Code: code, Detail: err.Error()})
	}
	if m.cgroups.paused() {
		refuse(container.CodeNotRunning, errors.New("the container is paused"))
		return
	}
	report, reportW, err := os.Pipe()
	if err != nil {
		refuse(container.CodeRuntime, err)
		return
	}
	defer report.Close()
	workDir := r.WorkDir
	if workDir == "" {
		workDir = m.stage.workDir
	}
	env := mergeEnv(m.stage.env, r.Env)
	if r.TTY {
		env = mergeEnv([]string{"TERM=xterm"}, env)
	}
	p := m.process(r.Args, env, workDir, reportW)
	var terminal *os.File
	if r.TTY {
		terminal, err = m.runTTY(p, r.Size)
	} else if len(files) == 3 {
		p.Stdin, p.Stdout, p.Stderr = files[0], files[1], files[2]
		err = m.box.Run(p)
	} else {
		err = errors.New("three files must come with the request")
	}
	_ = reportW.Close()
	closeAll(files)
	if err != nil {
		refuse(container.CodeRuntime, err)
		return
	}
	if terminal != nil {
		_ = send(c, reply{}, terminal)
		_ = terminal.Close()
	} else {
		_ = send(c, reply{})
	}
	m.awaitExec(c, p, report)
}

// awaitExec waits for the program's end, or kills it when the node is gone.
func (m *monitor) awaitExec(c *net.UnixConn, p *runc.Process, report *os.File) {
	gone := make(chan struct{})
	go func() {
		var b [1]byte
		_, _ = c.Read(b[:]) // the node sends nothing more
		close(gone)
	}()
	ended := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		select {
		case <-gone:
			_ = p.Signal(unix.SIGKILL)
		case <-ended:
		}
	}()
	state, err := p.Wait()
	close(ended)
	<-killed
	var out reply
	switch {
	case state != nil:
		out.Exit = newExitStatus(state).code
	case err != nil:
		out = reply{Code: container.CodeRuntime, Detail: err.Error()}
	}
	// The report's other end may have been taken by a hostile program.
	if errno := readReport(report, 0); errno != 0 {
		out.Detail = errno.Error()
	}
	_ = send(c, out)
	_ = c.Close()
	<-gone
}

// runTTY starts p on a terminal of the container and returns its master.
func (m *monitor) runTTY(p *runc.Process, size container.Size) (*os.File, error) {
	p.ConsoleWidth, p.ConsoleHeight = size.Cols, size.Rows
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	p.ConsoleSocket = theirs
	type result struct {
		f   *os.File
		err error
	}
	got := make(chan result, 1)
	go func() {
		f, err := receiveTerminal(conn.(*net.UnixConn))
		got <- result{f, err}
	}()
	err = m.box.Run(p)
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	r := <-got
	if err != nil {
		closeAll([]*os.File{r.f})
		return nil, err
	}
	if r.err != nil {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
		return nil, fmt.Errorf("terminal: %w", r.err)
	}
	return r.f, nil
}

// receiveTerminal takes the descriptor that libcontainer's first stage sends.
func receiveTerminal(c *net.UnixConn) (*os.File, error) {
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := c.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, err
	}
	files, err := takeFiles(oob[:oobn])
	if err != nil || len(files) != 1 {
		closeAll(files)
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return files[0], nil
}
