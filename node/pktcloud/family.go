package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxChildOutput = 256 << 10
	stopPatience   = 8 * time.Second
)

// family runs this program's own subcommands as processes that do not outlive
// it.
type family struct {
	env   string      // beside this program's own
	spawn chan func() // run on one thread, on which the children's lives depend
	done  chan struct{}

	mu       sync.Mutex // guards children
	children map[string]*child
}

type child struct {
	cmd    *exec.Cmd
	output *ring
	exited chan struct{}
	err    error // once exited
}

// newFamily starts the thread that starts children: the kernel ends a child
// when the thread that started it ends, not when the process does. The
// children have a further variable in their environment.
func newFamily(env string) *family {
	f := &family{env: env, spawn: make(chan func()), done: make(chan struct{}), children: map[string]*child{}}
	go func() {
		defer close(f.done)
		runtime.LockOSThread()
		for start := range f.spawn {
			start()
		}
	}()
	return f
}

// close ends the thread. Call it when all children have ended.
func (f *family) close() {
	close(f.spawn)
	<-f.done
}

func (f *family) command(args []string, out io.Writer) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PKTCLOUD_DIR=") })
	cmd.Env = append(cmd.Env, f.env)
	cmd.Stdout, cmd.Stderr = out, out
	bindLife(cmd)
	return cmd, nil
}

// start starts a process under a name.
func (f *family) start(name string, args ...string) error {
	c := &child{output: &ring{}, exited: make(chan struct{})}
	var err error
	if c.cmd, err = f.command(args, c.output); err != nil {
		return err
	}
	started := make(chan error)
	f.spawn <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start the %s: %w", name, err)
	}
	f.mu.Lock()
	f.children[name] = c
	f.mu.Unlock()
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	return nil
}

// run runs a process to its end.
func (f *family) run(ctx context.Context, name string, args ...string) error {
	if err := f.start(name, args...); err != nil {
		return err
	}
	c := f.child(name)
	select {
	case <-c.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	delete(f.children, name)
	f.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("%s: %w: %s", name, c.err, lastLine(c.output.String()))
	}
	return nil
}

func (f *family) child(name string) *child {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.children[name]
}

func (f *family) pid(name string) int {
	if c := f.child(name); c != nil {
		return c.cmd.Process.Pid
	}
	return 0
}

// alive returns an error when the process has ended.
func (f *family) alive(name string) error {
	c := f.child(name)
	select {
	case <-c.exited:
		return fmt.Errorf("the %s has ended: %s", name, lastLine(c.output.String()))
	default:
		return nil
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// stop ends a process in order, or by force when it takes too long.
func (f *family) stop(name string) error {
	c := f.child(name)
	if c == nil {
		return nil
	}
	c.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it has ended, then
	select {
	case <-c.exited:
	case <-time.After(stopPatience):
		c.cmd.Process.Kill() //nolint:errcheck // it has ended, then
		<-c.exited
		return fmt.Errorf("the %s did not stop within %s and was killed", name, stopPatience)
	}
	if _, ok := errors.AsType[*exec.ExitError](c.err); ok {
		return fmt.Errorf("the %s ended with %w: %s", name, c.err, lastLine(c.output.String()))
	}
	return nil
}

// dump shows what the children said, for whoever looks for the reason of a
// failure.
func (f *family) dump(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, c := range f.children {
		lines := strings.Split(strings.TrimSpace(c.output.String()), "\n")
		for _, l := range lines[max(0, len(lines)-25):] {
			fmt.Fprintf(w, "%s| %s\n", name, l)
		}
	}
}

// ring keeps the end of an output.
type ring struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (r *ring) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf.Write(b)
	if n := r.buf.Len() - maxChildOutput; n > 0 {
		r.buf.Next(n)
	}
	return len(b), nil
}

func (r *ring) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}
