package netstack

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// headers is what a datagram weighs beside its bytes, so that empty ones are
// bounded too.
const headers = 28

// datagrams are buffers of which an idle flow holds none.
var datagrams = sync.Pool{New: func() any { b := make([]byte, 1<<16); return &b }}

// insideFlow is the container's end of a flow of datagrams.
type insideFlow struct {
	*gonet.UDPConn

	ep    tcpip.Endpoint
	queue *waiter.Queue
}

func newInsideFlow(ep tcpip.Endpoint, queue *waiter.Queue) *insideFlow {
	return &insideFlow{gonet.NewUDPConn(queue, ep), ep, queue}
}

// next waits for a datagram and lends it to use. It ends with ctx.
func (f *insideFlow) next(ctx context.Context, use func([]byte)) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	f.queue.EventRegister(&entry)
	defer f.queue.EventUnregister(&entry)
	for {
		buf := datagrams.Get().(*[]byte)
		w := tcpip.SliceWriter(*buf)
		res, err := f.ep.Read(&w, tcpip.ReadOptions{})
		if err == nil {
			use((*buf)[:res.Count])
		}
		datagrams.Put(buf)
		switch err.(type) {
		case nil:
			return nil
		case *tcpip.ErrWouldBlock:
		default:
			return errors.New(err.String())
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nextOutside waits for a datagram from the world and lends it to use. It ends
// when the connection is closed.
func nextOutside(raw syscall.RawConn, use func([]byte)) error {
	var fault error
	err := raw.Read(func(fd uintptr) bool {
		buf := datagrams.Get().(*[]byte)
		defer datagrams.Put(buf)
		n, _, err := unix.Recvfrom(int(fd), *buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			return false
		case err != nil:
			fault = os.NewSyscallError("recvfrom", err)
		default:
			use((*buf)[:n])
		}
		return true
	})
	return errors.Join(err, fault)
}

// datagram answers a container's first datagram to somewhere. It runs where
// packets are read, and does not block.
func (s *Stack) datagram(r *udp.ForwarderRequest) {
	from, to := fromAddress(r.ID().RemoteAddress, r.ID().RemotePort), fromAddress(r.ID().LocalAddress, r.ID().LocalPort)
	m := s.member(from.Addr())
	if m == nil || !s.allowed(m, to) || !s.admit(m) {
		return
	}
	queue := &waiter.Queue{}
	ep, terr := r.CreateEndpoint(queue)
	if terr != nil {
		s.release(m)
		return
	}
	inside := newInsideFlow(ep, queue)
	s.wg.Go(func() {
		defer s.release(m)
		defer inside.Close() //nolint:errcheck // of datagrams nothing is left to say
		out, err := s.judge.dialer.DialContext(m.ctx, "udp4", to.String())
		if err != nil {
			return
		}
		defer out.Close()
		s.exchange(m, inside, out.(*net.UDPConn))
	})
}

// exchange carries datagrams both ways until none came for a while.
func (s *Stack) exchange(m *member, inside *insideFlow, outside *net.UDPConn) {
	raw, err := outside.SyscallConn()
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	idle := newIdle(cancel)
	defer idle.stop()
	defer context.AfterFunc(ctx, func() { _ = outside.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		for nextOutside(raw, func(b []byte) { idle.touch(); s.receive(m, inside, b) }) == nil {
			continue
		}
	})
	for inside.next(ctx, func(b []byte) { idle.touch(); s.sendOut(m, outside.Write, b) }) == nil {
		continue
	}
	cancel()
	wg.Wait()
}

// sendOut hands a datagram to the world. What is beyond the bandwidth is
// dropped.
func (s *Stack) sendOut(m *member, write func([]byte) (int, error), b []byte) {
	if !m.out.take(len(b)+headers) || !s.out.take(len(b)+headers) {
		m.traffic.Refused.Add(1)
		return
	}
	if n, err := write(b); err == nil {
		m.traffic.Out.Add(uint64(n))
	}
}

// receive hands a datagram to a container.
func (s *Stack) receive(m *member, inside *insideFlow, b []byte) {
	if !m.in.take(len(b)+headers) || !s.in.take(len(b)+headers) {
		m.traffic.Refused.Add(1)
		return
	}
	if n, err := inside.Write(b); err == nil {
		m.traffic.In.Add(uint64(n))
	}
}

// idle ends a flow after a while without datagrams.
type idle struct {
	last  atomic.Int64
	timer *time.Timer
}

func newIdle(end func()) *idle {
	i := &idle{}
	i.touch()
	i.timer = time.AfterFunc(udpIdle, func() {
		if left := udpIdle - time.Duration(now().UnixNano()-i.last.Load()); left > 0 {
			i.timer.Reset(left)
			return
		}
		end()
	})
	return i
}

func (i *idle) touch() { i.last.Store(now().UnixNano()) }

func (i *idle) stop() { i.timer.Stop() }
