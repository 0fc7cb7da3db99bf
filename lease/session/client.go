package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// Target is a lease at its provider.
type Target struct {
	Host     host.Host          // of the tenant; it knows the provider's addresses
	Provider pktcloud.PublicKey // the provider's device
	Lease    pktcloud.ID
	// Service names one of the lease's services. [Exec] and [Dial] need one;
	// without one [Logs] and [ReadMetrics] show all.
	Service string
}

const replyDeadline = 30 * time.Second

// ErrUnreachable marks a session for which the provider cannot be reached.
var ErrUnreachable = errors.New("session: the provider cannot be reached")

// begin opens a session: a stream on which the provider has agreed.
func begin(ctx context.Context, t Target, h Header) (network.Stream, error) {
	h.Version, h.Lease, h.Service = HeaderVersion, t.Lease, t.Service
	if err := h.Validate(); err != nil {
		return nil, err
	}
	id, err := PeerOf(t.Provider)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, replyDeadline)
	defer cancel()
	st, err := t.Host.NewStream(ctx, id, ProtocolID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { st.Reset() }) //nolint:errcheck // given up
	err = exchange(st, h)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		st.Reset() //nolint:errcheck // given up
		return nil, err
	}
	return st, nil
}

func exchange(st network.Stream, h Header) error {
	if err := writeValue(st, h); err != nil {
		return fmt.Errorf("asking for a session: %w", err)
	}
	b, err := wire.ReadFrame(st, MaxReplyBytes)
	if err != nil {
		return fmt.Errorf("waiting for a session: %w", err)
	}
	r, err := ParseReply(b)
	if err != nil {
		return err
	}
	if r.Code != "" {
		return lease.Refusal(r.Code, "%s", r.Text)
	}
	return nil
}

// Exec runs a program inside a lease and returns its exit code. When ctx ends
// the program is killed. Errors are refusals of package lease, or of the
// network. Exec does not wait for e.Stdin to end.
func Exec(ctx context.Context, t Target, e ExecRequest) (exitCode int, err error) {
	h := Header{Command: CommandExec, Args: e.Args, Env: e.Env, WorkDir: e.WorkDir, TTY: e.TTY, Size: e.Size}
	if e.Files {
		h.Command = CommandFiles
	}
	st, err := begin(ctx, t, h)
	if err != nil {
		return 0, err
	}
	defer st.Reset()                                      //nolint:errcheck // all was read, or it is given up
	stop := context.AfterFunc(ctx, func() { st.Reset() }) //nolint:errcheck // given up
	defer stop()
	f := &frames{w: st}
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	if e.Resize != nil {
		wg.Go(func() { sendSizes(f, e.Resize, done) })
	}
	go sendInput(f, e.Stdin) // ends with Stdin, or at the first write after the session
	return output(ctx, st, e.Stdout, e.Stderr)
}

func sendInput(f *frames, stdin io.Reader) {
	if stdin != nil {
		if _, err := io.Copy(kindWriter{f, kindStdin}, stdin); err != nil {
			return
		}
	}
	f.write(kindStdin, nil) //nolint:errcheck // the session may be over
}

func sendSizes(f *frames, sizes <-chan Size, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			b, err := pktcloud.Marshal(size)
			if err != nil || f.write(kindResize, b) != nil {
				return
			}
		}
	}
}

// output copies frames to the two writers until the exit.
func output(ctx context.Context, r io.Reader, stdout, stderr io.Writer) (int, error) {
	for {
		kind, p, err := readFrame(r)
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, fmt.Errorf("the session broke off: %w", err)
		}
		var w io.Writer
		switch kind {
		case kindStdout:
			w = stdout
		case kindStderr:
			w = stderr
		case kindExit:
			return ended(p)
		default:
			return 0, lease.Refusal(lease.CodeMalformed, "a frame of kind %d from a provider", kind)
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(p); err != nil {
			return 0, err
		}
	}
}

func ended(p []byte) (int, error) {
	var e exit
	if err := pktcloud.Unmarshal(p, &e, MaxReplyBytes); err != nil {
		return 0, err
	}
	if e.Code != "" {
		return 0, lease.Refusal(e.Code, "%s", e.Text)
	}
	return int(e.Exit & 0xff), nil
}

// Logs copies a lease's log to w until it ends: with Follow when the workload
// does, or when ctx ends, which is no error then.
func Logs(ctx context.Context, t Target, o LogOptions, w io.Writer) error {
	st, err := begin(ctx, t, Header{Command: CommandLogs, Follow: o.Follow, Tail: uint64(max(o.Tail, 0))})
	if err != nil {
		return err
	}
	defer st.Reset()                                      //nolint:errcheck // all was read, or it is given up
	stop := context.AfterFunc(ctx, func() { st.Reset() }) //nolint:errcheck // given up
	defer stop()
	_, err = output(ctx, st, w, w)
	if o.Follow && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Dial connects to a TCP port of a lease. The connection also has CloseWrite,
// which closes one half; ctx bounds the dialling only.
func Dial(ctx context.Context, t Target, port uint16) (net.Conn, error) {
	st, err := begin(ctx, t, Header{Command: CommandForward, Port: uint64(port)})
	if err != nil {
		return nil, err
	}
	return &conn{Stream: st, lease: t.Lease, port: port}, nil
}

// conn is a stream as a net.Conn.
type conn struct {
	network.Stream
	lease pktcloud.ID
	port  uint16
}

// Close ends both halves: what was written before still arrives.
func (c *conn) Close() error { return c.Stream.Close() }

// LocalAddr returns the tenant's end.
func (c *conn) LocalAddr() net.Addr { return addr(c.Conn().LocalPeer().String()) }

// RemoteAddr returns the lease and the port.
func (c *conn) RemoteAddr() net.Addr { return addr(fmt.Sprintf("%s:%d", c.lease, c.port)) }

type addr string

func (a addr) Network() string { return "pktcloud" }
func (a addr) String() string  { return string(a) }
