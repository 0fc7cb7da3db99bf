package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/doorway"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// ServerConfig is what a [Server] works with. Host, Workload and Authorizer are
// required.
type ServerConfig struct {
	Host        host.Host
	Workload    Workload
	Authorizer  Authorizer
	MaxSessions int          // at once; zero means DefaultMaxSessions
	Log         *slog.Logger // nil: none
}

// DefaultMaxSessions is the number of sessions at once of a config without one.
const DefaultMaxSessions = 256

// Streams whose session has not begun yet [SESSION-8].
const (
	MaxBeginning = 32  // of one device
	maxWaiting   = 256 // of all
)

// MaxOfLease are the sessions of one lease at once: a tenant leaves room for the
// others [SESSION-40].
const MaxOfLease = 64

const (
	headerDeadline = 10 * time.Second
	// recheck is how often a session asks whether it is still allowed.
	recheck = time.Second
)

// Server serves sessions.
type Server struct {
	cfg    ServerConfig
	tokens chan struct{} // one a stream
	taken  chan struct{} // one a session that was let in
	door   *doorway.Doorway[pktcloud.PublicKey]

	mu   sync.Mutex
	open map[pktcloud.ID]int // sessions by lease
}

// enter counts a session of a lease in, unless it has too many.
func (s *Server) enter(id pktcloud.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[id] >= MaxOfLease {
		return false
	}
	s.open[id]++
	return true
}

func (s *Server) leave(id pktcloud.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[id]--; s.open[id] == 0 {
		delete(s.open, id)
	}
}

// NewServer returns a server. It serves nothing before Run.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Host == nil || cfg.Workload == nil || cfg.Authorizer == nil {
		return nil, errors.New("session: a server needs a host, a workload and an authorizer")
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = DefaultMaxSessions
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		cfg: cfg, tokens: make(chan struct{}, cfg.MaxSessions+2*maxWaiting), taken: make(chan struct{}, cfg.MaxSessions),
		door: doorway.New[pktcloud.PublicKey](MaxBeginning, maxWaiting), open: map[pktcloud.ID]int{},
	}, nil
}

// Run serves until ctx ends and all sessions have ended.
func (s *Server) Run(ctx context.Context) error {
	s.cfg.Host.SetStreamHandler(ProtocolID, func(st network.Stream) { s.accept(ctx, st) })
	<-ctx.Done()
	s.cfg.Host.RemoveStreamHandler(ProtocolID)
	for range cap(s.tokens) {
		s.tokens <- struct{}{}
	}
	return ctx.Err()
}

func (s *Server) accept(ctx context.Context, st network.Stream) {
	select {
	case s.tokens <- struct{}{}:
		defer func() { <-s.tokens }()
	default:
		writeValue(st, replyTo(lease.Refusal(lease.CodeBusy, "too many sessions"))) //nolint:errcheck // then the peer sees a reset
		st.CloseWrite()                                                             //nolint:errcheck // likewise
		return
	}
	stop := context.AfterFunc(ctx, func() { st.Reset() }) //nolint:errcheck // given up
	err := s.serve(ctx, st)
	stop()
	if err != nil {
		s.cfg.Log.Debug("session ended", "peer", st.Conn().RemotePeer(), "error", err)
		st.Reset() //nolint:errcheck // given up
		return
	}
	st.Close()
}

// serve runs one session. An error resets the stream.
func (s *Server) serve(ctx context.Context, st network.Stream) error {
	device, err := KeyOf(st.Conn().RemotePeer())
	if err != nil {
		return err
	}
	// [SESSION-8]
	guest, ok := s.door.Enter(device, func() { st.Reset() }) //nolint:errcheck // given up
	if !ok {
		return refuse(st, lease.Refusal(lease.CodeBusy, "at most %d sessions of a device may begin at once", MaxBeginning))
	}
	defer guest.Leave()
	if err := st.SetReadDeadline(time.Now().Add(headerDeadline)); err != nil {
		return err
	}
	b, err := wire.ReadFrame(st, MaxHeaderBytes)
	if errors.Is(err, pktcloud.ErrTooLarge) {
		return refuse(st, lease.Refusal(lease.CodeMalformed, "a header has at most %d bytes", MaxHeaderBytes))
	}
	if err != nil {
		return err
	}
	if err := st.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	h, err := ParseHeader(b)
	if err == nil {
		err = s.cfg.Authorizer.Authorize(ctx, h.Lease, device, h.Command)
	}
	if err != nil {
		return refuse(st, err)
	}
	guest.Leave()
	if !s.enter(h.Lease) {
		return refuse(st, lease.Refusal(lease.CodeBusy, "at most %d sessions of a lease at once", MaxOfLease))
	}
	defer s.leave(h.Lease)
	select {
	case s.taken <- struct{}{}:
		defer func() { <-s.taken }()
	default:
		return refuse(st, lease.Refusal(lease.CodeBusy, "too many sessions"))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if s.revoked(ctx, h, device) {
			cancel()
			st.Reset() //nolint:errcheck // given up
		}
	})
	switch h.Command {
	case CommandExec, CommandFiles:
		return s.exec(ctx, st, h)
	case CommandLogs:
		return s.logs(ctx, st, h)
	case CommandForward:
		return s.forward(ctx, st, h)
	case CommandServices:
		return s.services(ctx, st, h)
	case CommandMetrics:
		return s.metrics(ctx, st, h)
	case CommandVolumes:
		return s.volumes(ctx, st, h)
	}
	return nil
}

func refuse(st network.Stream, err error) error {
	if err := writeValue(st, replyTo(err)); err != nil {
		return err
	}
	return st.CloseWrite()
}

// revoked waits for the end of the session, or until the lease does not allow
// it any more [SESSION-3]. A lease that is merely suspended keeps its sessions:
// the workload is frozen.
func (s *Server) revoked(ctx context.Context, h Header, device pktcloud.PublicKey) bool {
	t := time.NewTicker(recheck)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			if s.cfg.Authorizer.Authorize(ctx, h.Lease, device, CommandLogs) != nil {
				return true
			}
		}
	}
}

func (s *Server) forward(ctx context.Context, st network.Stream, h Header) error {
	conn, err := s.cfg.Workload.Dial(ctx, h.Lease, h.Service, uint16(h.Port))
	if err != nil {
		return refuse(st, err)
	}
	defer conn.Close()
	if err := writeValue(st, replyTo(nil)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	return splice(st, conn)
}

// halfCloser closes the writing half.
type halfCloser interface{ CloseWrite() error }

// splice copies both ways until both have ended; each end closes one half.
func splice(a network.Stream, b net.Conn) error {
	errs := make(chan error, 1)
	go func() {
		_, err := io.Copy(b, a)
		if h, ok := b.(halfCloser); ok && err == nil {
			err = h.CloseWrite()
		} else {
			b.Close()
		}
		errs <- err
	}()
	_, err := io.Copy(a, b)
	if err == nil {
		err = a.CloseWrite()
	} else {
		a.Reset() //nolint:errcheck // broken
	}
	return errors.Join(err, <-errs)
}

func (s *Server) logs(ctx context.Context, st network.Stream, h Header) error {
	r, err := s.cfg.Workload.Logs(ctx, h.Lease, h.Service, LogOptions{Follow: h.Follow, Tail: int(h.Tail)})
	if err != nil {
		return refuse(st, err)
	}
	defer r.Close()
	if err := writeValue(st, replyTo(nil)); err != nil {
		return err
	}
	// A tenant that goes away ends a log that is followed.
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		io.Copy(io.Discard, st) //nolint:errcheck // only its end matters
		cancel()
	})
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	f := &frames{w: st}
	_, err = io.Copy(kindWriter{f, kindStdout}, r)
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(f.end(0, err), st.CloseRead())
}

func (f *frames) end(code int, err error) error {
	e := exit{Exit: uint64(code) & 0xff}
	if err != nil {
		e.Code, e.Text = failure(err)
	}
	b, err := pktcloud.Marshal(e)
	if err != nil {
		return err
	}
	return f.write(kindExit, b)
}

func (s *Server) exec(ctx context.Context, st network.Stream, h Header) error {
	if err := writeValue(st, replyTo(nil)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdin, feed := io.Pipe()
	resize := make(chan Size, 1)
	f := &frames{w: st}
	var waiting atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := receive(st, &input{feed, &waiting}, resize); err != nil {
			cancel() // the tenant is gone: the program is killed
		}
	})
	wg.Go(func() {
		if err := knock(ctx, f, &waiting); err != nil {
			cancel()
		}
	})
	code, err := s.cfg.Workload.Exec(ctx, h.Lease, h.Service, ExecRequest{
		Args: h.Args, Files: h.Command == CommandFiles, Env: h.Env, WorkDir: h.WorkDir, TTY: h.TTY, Size: h.Size,
		Stdin: stdin, Stdout: kindWriter{f, kindStdout}, Stderr: kindWriter{f, kindStderr}, Resize: resize,
	})
	cancel()
	stdin.Close() //nolint:errcheck // never fails; ends the receiver's write
	return errors.Join(f.end(code, err), st.CloseRead())
}

// knockInterval is how often a tenant whose input waits is looked for.
const knockInterval = time.Second

// knock returns an error once the tenant is gone, and nil when ctx ends. While
// input waits for a program that reads none, nobody reads on to the stream's
// end; but then a frame without bytes cannot be written [SESSION-6].
func knock(ctx context.Context, f *frames, waiting *atomic.Bool) error {
	t := time.NewTicker(knockInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if waiting.Load() {
				if err := f.write(kindStdout, nil); err != nil {
					return err
				}
			}
		}
	}
}

// input is a program's standard input, and whether a write to it waits.
type input struct {
	*io.PipeWriter
	waiting *atomic.Bool
}

func (i *input) Write(b []byte) (int, error) {
	i.waiting.Store(true)
	defer i.waiting.Store(false)
	return i.PipeWriter.Write(b)
}

// receive takes the tenant's frames. Input waits until the program reads it:
// that is the back-pressure.
func receive(r io.Reader, stdin *input, resize chan Size) error {
	defer stdin.Close() //nolint:errcheck // never fails
	for {
		kind, p, err := readFrame(r)
		if err != nil {
			return err
		}
		switch kind {
		case kindStdin:
			if len(p) == 0 {
				stdin.Close() //nolint:errcheck // never fails
				continue
			}
			if _, err := stdin.Write(p); err != nil {
				continue // the program has ended, or reads no more
			}
		case kindResize:
			var size Size
			if err := pktcloud.Unmarshal(p, &size, MaxReplyBytes); err != nil {
				return err
			}
			select { // the newest size counts
			case <-resize:
			default:
			}
			resize <- size
		default:
			return lease.Refusal(lease.CodeMalformed, "a frame of kind %d from a tenant", kind)
		}
	}
}
