//go:build cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// outputGrace is how long Exec reads on after the program has ended, where
// another process still holds its output.
const outputGrace = time.Second

// Exec runs a program inside a running container.
func (r *Runtime) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	if err := e.Validate(); err != nil {
		return -1, err
	}
	dir, _, err := r.running(ctx, id)
	if err != nil {
		return -1, err
	}
	req := request{Op: opExec, Args: e.Args, Files: e.Files, Env: e.Env, WorkDir: e.WorkDir, TTY: e.TTY, Size: e.Size}
	s := &execStreams{spec: e}
	defer s.close()
	files, err := s.pipes()
	if err != nil {
		return -1, err
	}
	if e.Files {
		server, err := r.fileServer()
		if err != nil {
			closeAll(files)
			return -1, err
		}
		files = append(files, server)
	}
	c, done, err := call(ctx, dir, req, files...)
	closeAll(files)
	if err != nil {
		return -1, r.lost(ctx, id, err)
	}
	defer done()
	code, err := s.run(c)
	switch {
	case ctx.Err() != nil:
		return -1, ctx.Err()
	case err != nil && !errors.As(err, new(*container.Error)):
		return -1, r.lost(ctx, id, err)
	}
	return code, err
}

// fileServer returns the program that serves a container's files [CONTAINER-130]:
// in memory, where nobody can change it.
func (r *Runtime) fileServer() (*os.File, error) {
	if len(r.cfg.Files) == 0 {
		return nil, &container.Error{Code: container.CodeMissingFeature, Detail: "this program was built without its file server"}
	}
	return sealed("pktcloud-files", r.cfg.Files)
}

// execStreams are the node's ends of a program's input and output.
type execStreams struct {
	spec  container.ExecSpec
	stdin *os.File
	outs  []*os.File
	tty   *os.File
	wg    sync.WaitGroup // of what copies output
}

// pipes opens three pipes and returns the program's ends; none for a terminal,
// which comes from the monitor.
func (s *execStreams) pipes() ([]*os.File, error) {
	if s.spec.TTY {
		return nil, nil
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.stdin = inW
	theirs := []*os.File{inR}
	for i := range 2 {
		if i == 1 && s.merged() {
			return append(theirs, theirs[1]), nil
		}
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(theirs)
			return nil, err
		}
		s.outs = append(s.outs, r)
		theirs = append(theirs, w)
	}
	return theirs, nil
}

// merged reports whether both outputs go to one writer, which must then have
// one user and the program's own order.
func (s *execStreams) merged() bool {
	return s.spec.Stdout != nil && reflect.TypeOf(s.spec.Stdout).Comparable() && s.spec.Stdout == s.spec.Stderr
}

// run copies until the program has ended, and returns its exit code.
func (s *execStreams) run(c *net.UnixConn) (int, error) {
	var first reply
	files, err := receive(c, &first)
	if err == nil {
		err = first.err()
	}
	if err != nil {
		closeAll(files)
		return -1, err
	}
	stop := make(chan struct{})
	defer close(stop)
	if s.spec.TTY {
		if len(files) != 1 {
			closeAll(files)
			return -1, errors.New("the monitor sent no terminal")
		}
		// Closing a file unblocks its readers only if the poller knows it.
		if err := unix.SetNonblock(int(files[0].Fd()), true); err != nil {
			closeAll(files)
			return -1, err
		}
		fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
		closeAll(files)
		if err != nil {
			return -1, err
		}
		s.tty = os.NewFile(uintptr(fd), "terminal")
		s.startTTY(stop)
	} else {
		s.startPipes()
	}
	var last reply
	if _, err := receive(c, &last); err != nil {
		return -1, err
	}
	if err := last.err(); err != nil {
		return -1, err
	}
	s.finish()
	if last.Detail != "" && last.Exit >= 126 && s.complaints() != nil {
		_, _ = io.WriteString(s.complaints(), s.spec.Args[0]+": "+last.Detail+"\n")
	}
	return last.Exit, nil
}

// complaints is where a program that cannot be started is explained.
func (s *execStreams) complaints() io.Writer {
	if s.spec.TTY {
		return s.spec.Stdout
	}
	return s.spec.Stderr
}

func (s *execStreams) startPipes() {
	for i, out := range s.outs {
		w := []io.Writer{s.spec.Stdout, s.spec.Stderr}[i]
		if w == nil {
			w = io.Discard
		}
		s.wg.Go(func() { _, _ = io.Copy(w, out) })
	}
	go s.feed(s.stdin)
}

// feed copies the input. It may outlast Exec by one blocked Read.
func (s *execStreams) feed(w *os.File) {
	if s.spec.Stdin != nil {
		_, _ = io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{s.spec.Stdin})
	}
	if !s.spec.TTY {
		_ = w.Close()
	}
}

func (s *execStreams) startTTY(stop <-chan struct{}) {
	w := s.spec.Stdout
	if w == nil {
		w = io.Discard
	}
	s.wg.Go(func() { _, _ = io.Copy(w, s.tty) })
	go s.feed(s.tty)
	if s.spec.Resize == nil {
		return
	}
	go func() {
		for {
			select {
			case size, ok := <-s.spec.Resize:
				if !ok {
					return
				}
				s.resize(size)
			case <-stop:
				return
			}
		}
	}()
}

func (s *execStreams) resize(size container.Size) {
	raw, err := s.tty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
}

// finish reads the rest of the output, and no longer than the grace.
func (s *execStreams) finish() {
	deadline := time.Now().Add(outputGrace)
	for _, f := range append(s.outs, s.tty) {
		if f != nil {
			_ = f.SetReadDeadline(deadline)
		}
	}
	s.wg.Wait()
}

func (s *execStreams) close() {
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
	closeAll(append(s.outs, s.tty))
	s.wg.Wait()
}
