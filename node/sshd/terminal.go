package sshd

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// exitFailed is the exit code of a program that could not be run: SSH's own for
// what went wrong on the way.
const exitFailed = 255

// maxEnv bounds the variables that a client sets, and their length each.
const (
	maxEnv      = 64
	maxEnvBytes = 4096
)

// shell is run where no program is named: the best one that the image has.
var shell = []string{"/bin/sh", "-c", "test -x /bin/bash && exec /bin/bash -l; exec /bin/sh -l"}

// terminal is one channel of the kind session: a program, with a terminal or
// without (RFC 4254, 6).
type terminal struct {
	*server
	ch      ssh.Channel
	program service.ExecRequest
	started bool
	sizes   chan service.Size
}

// serve takes requests until the client closes the channel, which ends the
// program, or the program has ended.
func (t *terminal) serve(ctx context.Context, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	defer t.ch.Close() //nolint:errcheck // the client is gone
	t.sizes = make(chan service.Size, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for r := range requests {
		ok := t.accept(r)
		if r.WantReply {
			r.Reply(ok, nil) //nolint:errcheck // the client is gone
		}
		if ok && (len(t.program.Args) > 0 || t.program.Files) && !t.started {
			t.started = true
			program := t.program
			wg.Go(func() {
				t.run(ctx, program)
				t.ch.Close() //nolint:errcheck // the client is gone
			})
		}
	}
}

// accept notes what a request asks for, and reports whether it can be had.
func (t *terminal) accept(r *ssh.Request) bool {
	switch r.Type {
	case "window-change":
		var p struct{ Cols, Rows, Width, Height uint32 }
		if ssh.Unmarshal(r.Payload, &p) != nil {
			return false
		}
		t.resize(characters(p.Cols, p.Rows))
		return true
	case "pty-req", "env", "shell", "exec", "subsystem":
		return !t.started && t.prepare(r)
	}
	return false
}

func (t *terminal) prepare(r *ssh.Request) bool {
	switch r.Type {
	case "pty-req":
		var p struct {
			Term                      string
			Cols, Rows, Width, Height uint32
			Modes                     string
		}
		if ssh.Unmarshal(r.Payload, &p) != nil || t.program.TTY {
			return false
		}
		size := characters(p.Cols, p.Rows)
		t.program.TTY, t.program.Cols, t.program.Rows = true, size.Cols, size.Rows
		return t.setenv("TERM", p.Term)
	case "env":
		var p struct{ Name, Value string }
		return ssh.Unmarshal(r.Payload, &p) == nil && t.setenv(p.Name, p.Value)
	case "shell":
		t.program.Args = shell
	case "exec":
		var p struct{ Command string }
		if ssh.Unmarshal(r.Payload, &p) != nil {
			return false
		}
		t.program.Args = []string{"/bin/sh", "-c", p.Command}
	case "subsystem":
		var p struct{ Name string }
		if ssh.Unmarshal(r.Payload, &p) != nil || p.Name != "sftp" {
			return false
		}
		t.program.Files = true
	}
	return true
}

func (t *terminal) setenv(name, value string) bool {
	if name == "" || len(name)+len(value) > maxEnvBytes || len(t.program.Env) == maxEnv {
		return false
	}
	t.program.Env = append(t.program.Env, name+"="+value)
	return true
}

// resize leaves the newest size for the program: nobody needs those before.
func (t *terminal) resize(size service.Size) {
	for {
		select {
		case t.sizes <- size:
			return
		default:
		}
		select {
		case <-t.sizes:
		default:
		}
	}
}

// run runs the program and tells the client how it ended.
func (t *terminal) run(ctx context.Context, program service.ExecRequest) {
	streams := service.Streams{Stdin: t.ch, Stdout: t.ch, Stderr: t.ch.Stderr(), Resize: t.sizes}
	run := t.Config.Sessions.Exec
	if program.Files {
		run = t.serveFiles
	}
	code, err := run(ctx, t.Name, program, streams)
	if err != nil {
		code = exitFailed
		fmt.Fprintf(t.ch.Stderr(), "pktcloud: %v\r\n", err)
	}
	t.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(code)})) //nolint:errcheck // the client is gone, or reads it
}

// characters is the size of a terminal; no terminal has a side of 65536.
func characters(cols, rows uint32) service.Size {
	return service.Size{Cols: uint16(min(cols, 1<<16-1)), Rows: uint16(min(rows, 1<<16-1))}
}
