package netstack

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

func now() time.Time { return time.Now() }

// halfConn is a connection whose two directions end apart.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// connect answers a container that opens a connection. The container hears
// that it is open only once it is.
func (s *Stack) connect(r *tcp.ForwarderRequest) {
	from, to := fromAddress(r.ID().RemoteAddress, r.ID().RemotePort), fromAddress(r.ID().LocalAddress, r.ID().LocalPort)
	m := s.member(from.Addr())
	if m == nil || !s.allowed(m, to) || !s.admit(m) {
		r.Complete(true)
		return
	}
	defer s.release(m)
	ctx, cancel := context.WithTimeout(m.ctx, dialTimeout)
	out, err := s.judge.dialer.DialContext(ctx, "tcp4", to.String())
	cancel()
	if err != nil {
		r.Complete(true)
		return
	}
	var queue waiter.Queue
	ep, terr := r.CreateEndpoint(&queue)
	r.Complete(terr != nil)
	if terr != nil {
		_ = out.Close()
		return
	}
	s.join(m, gonet.NewTCPConn(&queue, ep), out.(*net.TCPConn))
}

// join copies between a container and the world until both directions have
// ended, one has failed, or the container leaves.
func (s *Stack) join(m *member, inside, outside halfConn) {
	closeBoth := sync.OnceFunc(func() {
		_ = inside.Close()
		_ = outside.Close()
	})
	stop := context.AfterFunc(m.ctx, closeBoth)
	defer stop()
	defer closeBoth()
	var wg sync.WaitGroup
	wg.Go(func() {
		if s.copy(outside, inside, []*bucket{m.out, s.out}, m.ctx, m.traffic.Out.Add) != nil {
			closeBoth()
		}
	})
	wg.Go(func() {
		if s.copy(inside, outside, []*bucket{m.in, s.in}, m.ctx, m.traffic.In.Add) != nil {
			closeBoth()
		}
	})
	wg.Wait()
}

// Sizes of copy's buffers: an idle connection holds a small one.
const (
	smallBuffer = 4 << 10
	largeBuffer = 256 << 10
)

var largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}

// copy carries one direction to its end.
func (s *Stack) copy(to, from halfConn, buckets []*bucket, ctx context.Context, count func(uint64) uint64) error { //nolint:revive // the context is the member's
	small := make([]byte, smallBuffer)
	buf := small
	var large *[]byte
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	for {
		n, err := from.Read(buf)
		for _, b := range buckets {
			if werr := b.wait(ctx, n); werr != nil {
				return werr
			}
		}
		if n > 0 {
			w, werr := to.Write(buf[:n])
			count(uint64(w))
			if werr != nil {
				return werr
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // as a Reader returns it
			return to.CloseWrite()
		case err != nil:
			return err
		case large == nil && n == len(small):
			large = largeBuffers.Get().(*[]byte)
			buf = *large
		case large != nil && n < len(small):
			largeBuffers.Put(large)
			large, buf = nil, small
		}
	}
}
