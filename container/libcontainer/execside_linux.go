//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	runc "github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

func lockThread() { runtime.LockOSThread() }

// maxConns bounds the requests that a monitor serves at once. maxGuests of them may
// be programs and connections, which a tenant asks for and may keep waiting: the
// rest is for the owner, who stops, signals and measures [CONTAINER-93].
const (
	maxConns  = 256
	maxGuests = 224
)

// fullPatience is how long a request waits while there are maxConns: those that
// are refused are many for a moment, and the next may be the owner's.
const fullPatience = 5 * time.Second

// guest counts in one of the requests that tenants make.
func (s *connSet) guest() (leave func(), ok bool) {
	if s.guests.Add(1) > maxGuests {
		s.guests.Add(-1)
		return nil, false
	}
	return func() { s.guests.Add(-1) }, true
}

// connSet holds the open connections of a monitor.
type connSet struct {
	guests atomic.Int64

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
	freed  chan struct{} // closed when there may be a place; nil while nobody waits for one
}

// add waits for a place.
func (s *connSet) add(c net.Conn) bool {
	var patience <-chan time.Time
	for {
		added, freed := s.tryAdd(c)
		if freed == nil {
			return added
		}
		if patience == nil {
			patience = time.After(fullPatience)
		}
		select {
		case <-freed:
		case <-patience:
			return false
		}
	}
}

// tryAdd returns what to wait for where there is no place.
func (s *connSet) tryAdd(c net.Conn) (added bool, freed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false, nil
	case len(s.open) >= maxConns:
		if s.freed == nil {
			s.freed = make(chan struct{})
		}
		return false, s.freed
	case s.open == nil:
		s.open = map[net.Conn]bool{}
	}
	s.open[c] = true
	return true, nil
}

// wake has who waits look again. The caller holds mu.
func (s *connSet) wake() {
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	s.wake()
	_ = c.Close()
}

func (s *connSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake()
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
	m.awaitSnapshot()
	if m.cgroups.paused() {
		refuse(container.CodeNotRunning, errors.New("the container is paused"))
		return
	}
	if r.Files && m.engine != nil {
		closeAll(files)
		refuse(container.CodeMissingFeature, errors.New("a container with a kernel of its own runs only what its image has"))
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
	p, terminal, err := m.runExec(r, env, workDir, reportW, files)
	_ = reportW.Close()
	closeAll(files)
	if err != nil {
		code := container.CodeRuntime
		if errors.Is(err, container.CodeCapacity) {
			code = container.CodeCapacity
		}
		refuse(code, err)
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

// runExec starts a program, on a terminal if it wants one.
func (m *monitor) runExec(r request, env []string, workDir string, report *os.File, files []*os.File) (task, *os.File, error) {
	if m.engine != nil {
		return m.engineExec(r, env, workDir, report, files)
	}
	if r.Files {
		return m.serveFiles(env, workDir, report, files)
	}
	p := m.process(r.Args, env, workDir, report)
	if r.TTY {
		terminal, err := m.runTTY(p, r.Size)
		return p, terminal, err
	}
	if len(files) != 3 {
		return nil, nil, errors.New("three files must come with the request")
	}
	p.Stdin, p.Stdout, p.Stderr = files[0], files[1], files[2]
	return p, nil, m.join(p)
}

// fileServerPath is where the file server is for the shim: descriptors 3 and 4 are
// the shim's own.
const fileServerPath = "/proc/self/fd/5"

// serveFiles starts a file server [CONTAINER-130], which came with the request.
func (m *monitor) serveFiles(env []string, workDir string, report *os.File, files []*os.File) (task, *os.File, error) {
	if len(files) != 4 {
		return nil, nil, errors.New("four files must come with the request")
	}
	p := m.process([]string{fileServerPath}, env, workDir, report)
	p.ExtraFiles = slices.Insert(p.ExtraFiles, 2, files[3])
	p.Stdin, p.Stdout, p.Stderr = files[0], files[1], files[2]
	return p, nil, m.join(p)
}

// awaitExec waits for the program's end, or kills it when the node is gone.
func (m *monitor) awaitExec(c *net.UnixConn, p task, report *os.File) {
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
	if errno := readReport(report, time.Millisecond); errno != 0 {
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
	err = m.join(p)
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
