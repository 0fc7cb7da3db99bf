//go:build cgo && amd64

package libcontainer

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// The node and a monitor talk over a unix socket of mode 0600 in the
// container's directory. A connection carries one request and its replies,
// each a 4-byte big-endian length and JSON; open files travel with the length.

const (
	opDial = "dial"
	opExec = "exec"
	opStop = "stop"

	maxMessage = 1 << 20 // beyond any ExecSpec that passes Validate
	maxFiles   = 4
)

type request struct {
	Op      string
	Port    uint16         `json:",omitempty"`
	Args    []string       `json:",omitempty"`
	Env     []string       `json:",omitempty"`
	WorkDir string         `json:",omitempty"`
	Files   bool           `json:",omitempty"` // the program comes as a fourth file
	TTY     bool           `json:",omitempty"`
	Size    container.Size `json:",omitzero"`

	Signal container.Signal  `json:",omitempty"`
	Limits *container.Limits `json:",omitempty"`
}

type reply struct {
	Code   container.Code `json:",omitempty"` // of a refusal
	Detail string         `json:",omitempty"`
	Exit   int            `json:",omitempty"`

	Usage *container.Usage `json:",omitempty"`
}

func (r reply) err() error {
	if r.Code == "" {
		return nil
	}
	return &container.Error{Code: r.Code, Detail: r.Detail}
}

// send writes one message and lends files with it.
func send(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes", len(b))
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(binary.BigEndian.AppendUint32(nil, uint32(len(b))), oob, nil); err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

// receive reads one message and the files that came with it, which are the
// caller's to close.
func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	head, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, err
	}
	files, err := takeFiles(oob[:oobn])
	if err != nil || n == 0 || flags&unix.MSG_CTRUNC != 0 {
		closeAll(files)
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	if err := receiveBody(c, head, n, v); err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func receiveBody(c *net.UnixConn, head []byte, n int, v any) error {
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return fmt.Errorf("a message of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}

func takeFiles(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// call sends a request to the monitor of dir. The connection ends with ctx.
func call(ctx context.Context, dir string, r any, files ...*os.File) (c *net.UnixConn, done func(), err error) {
	// A socket's path is at most 107 bytes, so it goes through the directory's
	// descriptor.
	d, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // not c, which a return sets to nil while this may run
	done = func() { stop(); _ = conn.Close() }
	c = conn.(*net.UnixConn)
	if err := send(c, r, files...); err != nil {
		done()
		return nil, nil, err
	}
	return c, done, nil
}

// listen opens the monitor's socket.
func (m *monitor) listen() (net.Listener, error) { return listenIn(m.dir) }

// listenIn opens the socket of a process over dir.
func listenIn(dir string) (net.Listener, error) {
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	_ = os.Remove(socketFile)
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", socketFile)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// answerAll takes a request from each connection to l, which answer answers,
// until l is closed. start runs the rest of a connection beside this goroutine.
// The files that came with a request are closed when answer returns.
func answerAll[R any](l net.Listener, conns *connSet, start func(func()), answer func(c *net.UnixConn, r R, files []*os.File)) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !conns.add(c) {
			_ = c.Close()
			continue
		}
		start(func() {
			defer conns.remove(c)
			c := c.(*net.UnixConn)
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			var r R
			files, err := receive(c, &r)
			defer func() { closeAll(files) }()
			if err != nil {
				return
			}
			_ = c.SetReadDeadline(time.Time{})
			answer(c, r, files)
		})
	}
}

func (m *monitor) handle(c *net.UnixConn, r request, files []*os.File) {
	if r.Op == opDial || r.Op == opExec {
		leave, ok := m.conns.guest()
		if !ok {
			_ = send(c, reply{Code: container.CodeRuntime, Detail: fmt.Sprintf("%d programs and connections are open at once; end some", maxGuests)})
			return
		}
		defer leave()
	}
	switch r.Op {
	case opDial:
		if m.engine != nil { // whose network stands still with it
			m.awaitSnapshot()
			if m.cgroups.paused() {
				_ = send(c, reply{Code: container.CodeNotRunning, Detail: "the container is paused"})
				return
			}
		}
		m.handleDial(c, r.Port)
	case opExec:
		m.handleExec(c, r, files)
	case opStop:
		m.leaving.Store(true)
		if !dying(m.meter.pid) {
			m.destroyed.Store(true)
		}
		_ = m.signal(container.SIGKILL)
	default:
		m.handleLife(c, r)
	}
}

func (m *monitor) handleDial(c *net.UnixConn, port uint16) {
	f, err := m.dialer.Dial(port)
	if err != nil {
		code := container.CodeRuntime
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, container.CodePortRefused) {
			code = container.CodePortRefused
		}
		_ = send(c, reply{Code: code, Detail: fmt.Sprintf("port %d: %v", port, err)})
		return
	}
	_ = send(c, reply{}, f)
	_ = f.Close()
}

// netDialer dials from within a container's network. Its thread joins that for
// good when something is dialled for the first time.
type netDialer struct {
	ns    *os.File
	ports chan dialRequest
	begin sync.Once
	err   error
}

type dialRequest struct {
	port uint16
	out  chan<- dialResult
}

type dialResult struct {
	f   *os.File
	err error
}

func newNetDialer(pid int) (*netDialer, error) {
	ns, err := os.Open(filepath.Join("/proc", fmt.Sprint(pid), "ns/net"))
	if err != nil {
		return nil, err
	}
	return &netDialer{ns: ns, ports: make(chan dialRequest)}, nil
}

// run never leaves its thread, which ends with the monitor.
func (d *netDialer) run(joined chan<- error) {
	lockThread()
	err := unix.Setns(int(d.ns.Fd()), unix.CLONE_NEWNET)
	joined <- err
	if err != nil {
		return
	}
	for r := range d.ports {
		f, err := connectLoopback(r.port)
		r.out <- dialResult{f, err}
	}
}

func (d *netDialer) Dial(port uint16) (*os.File, error) {
	d.begin.Do(func() {
		joined := make(chan error)
		go d.run(joined)
		d.err = <-joined
	})
	if d.err != nil {
		return nil, d.err
	}
	out := make(chan dialResult, 1)
	d.ports <- dialRequest{port, out}
	r := <-out
	return r.f, r.err
}

// connectLoopback connects to 127.0.0.1 in this thread's network. A full
// backlog is waited for a moment.
func connectLoopback(port uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 2})
	err = uninterrupted(func() error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	})
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{})
	return os.NewFile(uintptr(fd), "conn"), nil
}
