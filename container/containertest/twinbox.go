package containertest

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// killed is the exit code of a program that was killed.
const killed = 128 + 9

// twinBox is one container of a [Twin].
type twinBox struct {
	spec container.Spec
	img  TwinImage
	env  []string
	log  *twinLog
	ctx  context.Context // ends with the container
	kill context.CancelFunc

	signals chan container.Signal // to the program, one at a time
	ended   chan struct{}

	mu        sync.Mutex
	state     container.State
	code      int
	cause     container.End // of a kill
	why       container.End
	pending   []container.Signal // arrived while paused
	usage     container.Usage
	from, to  time.Time
	unpaused  chan struct{} // closed while not paused
	listeners map[uint16]*twinListener
	volumes   map[string]*TwinMount
}

func newTwinBox(s container.Spec, img TwinImage, env []string) *twinBox {
	ctx, kill := context.WithCancel(context.Background())
	b := &twinBox{
		spec: s, img: img, env: env, ctx: ctx, kill: kill, log: newTwinLog(),
		state: container.Running, from: now(), unpaused: make(chan struct{}), listeners: map[uint16]*twinListener{},
		signals: make(chan container.Signal, maxTwinSignals), ended: make(chan struct{}),
	}
	close(b.unpaused)
	return b
}

// main runs the container's program to its end.
func (b *twinBox) main(args []string) {
	out, err := b.log.writer(container.Stdout), b.log.writer(container.Stderr)
	p := &Process{Args: args, Env: b.env, Stdin: bytes.NewReader(nil), Stdout: out, Stderr: err, Signals: b.signals}
	code, was := b.run(b.ctx, args, p)
	out.flush()
	err.flush()
	b.mu.Lock()
	b.state, b.code, b.to, b.why = container.Exited, code, now(), container.EndExit
	if was {
		b.why = b.cause
	}
	b.mu.Unlock()
	b.kill()
	b.log.end()
	close(b.ended)
}

// run runs one program, and does not wait for one that ignores its context. It
// reports whether the program was killed.
func (b *twinBox) run(ctx context.Context, args []string, p *Process) (code int, was bool) {
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	p.Listen, p.Volumes = b.listen, b.volumes
	done := b.meter(p, kill)
	defer done()
	ended := make(chan int, 1)
	go func() { ended <- b.img.Programs[args[0]](ctx, p) }()
	select {
	case code := <-ended:
		if ctx.Err() != nil || b.ctx.Err() != nil { // the second comes first to those that listen
			return killed, true
		}
		return code, false
	case <-ctx.Done():
		return killed, true
	}
}

func (b *twinBox) report() container.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return container.Status{
		ID: b.spec.ID, Image: b.spec.Image, State: b.state, Limits: b.spec.Limits, End: b.why, ExitCode: b.code,
		OOMKilled: b.usage.OOMKills > 0, StartedAt: b.from, FinishedAt: b.to, CPUTime: b.usage.CPUTime, MemoryBytes: b.usage.MemoryBytes,
	}
}

func (b *twinBox) setPaused(paused bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == container.Exited:
		return fail(container.CodeNotRunning, b.spec.ID)
	case paused && b.state == container.Running:
		b.state, b.unpaused = container.Paused, make(chan struct{})
	case !paused && b.state == container.Paused:
		b.state = container.Running
		close(b.unpaused)
		for _, sig := range b.pending {
			b.deliver(sig)
		}
		b.pending = nil
	}
	return nil
}

// thawed waits until the container is not paused.
func (b *twinBox) thawed(ctx context.Context) error {
	b.mu.Lock()
	ch := b.unpaused
	b.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-b.ctx.Done():
		return fail(container.CodeNotRunning, b.spec.ID)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *twinBox) exec(ctx context.Context, e container.ExecSpec) (int, error) {
	if b.report().State != container.Running {
		return -1, fail(container.CodeNotRunning, b.spec.ID)
	}
	if b.img.Programs[e.Args[0]] == nil {
		return 127, nil
	}
	both, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(b.ctx, stop)()
	p := &Process{Args: e.Args, Env: slices.Concat(b.env, e.Env), Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr}
	if p.Stdin == nil {
		p.Stdin = bytes.NewReader(nil)
	}
	if p.Stdout == nil {
		p.Stdout = io.Discard
	}
	if p.Stderr == nil {
		p.Stderr = io.Discard
	}
	code, _ := b.run(both, e.Args, p)
	return code, ctx.Err()
}

func (b *twinBox) listen(port uint16) (net.Listener, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners[port] != nil || port == 0 {
		return nil, fail(container.CodeRuntime, "the port is in use")
	}
	l := &twinListener{box: b, port: port, conns: make(chan net.Conn, 16), closed: make(chan struct{})}
	b.listeners[port] = l
	return l, nil
}

func (b *twinBox) dial(ctx context.Context, port uint16) (net.Conn, error) {
	if b.ctx.Err() != nil {
		return nil, fail(container.CodeNotRunning, b.spec.ID)
	}
	b.mu.Lock()
	l := b.listeners[port]
	b.mu.Unlock()
	if l == nil {
		return nil, fail(container.CodePortRefused, b.spec.ID)
	}
	mine, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return mine, nil
	case <-l.closed:
		return nil, fail(container.CodePortRefused, b.spec.ID)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// twinListener is a port of a container's loopback.
type twinListener struct {
	box    *twinBox
	port   uint16
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a connection, and while the container is paused.
func (l *twinListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		if err := l.box.thawed(l.box.ctx); err != nil {
			return nil, net.ErrClosed
		}
		return c, nil
	case <-l.closed:
	case <-l.box.ctx.Done():
	}
	return nil, net.ErrClosed
}

// Close frees the port.
func (l *twinListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.box.mu.Lock()
		defer l.box.mu.Unlock()
		delete(l.box.listeners, l.port)
	})
	return nil
}

// Addr returns the container's loopback address.
func (l *twinListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(l.port)}
}
