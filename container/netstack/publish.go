package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// PublishTCP leads what arrives at a listener to a port of a member, until the
// member leaves or the stack is closed. It takes the listener over.
func (s *Stack) PublishTCP(l net.Listener, to netip.AddrPort) error {
	m := s.member(to.Addr())
	if m == nil {
		return errors.Join(errNoMember, l.Close())
	}
	stop := context.AfterFunc(m.ctx, func() { _ = l.Close() })
	s.wg.Go(func() {
		defer stop()
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				pause(m.ctx, 10*time.Millisecond)
				continue
			}
			if !s.admit(m) {
				_ = c.Close()
				continue
			}
			s.wg.Go(func() {
				defer s.release(m)
				s.welcome(m, c.(*net.TCPConn), to)
			})
		}
	})
	return nil
}

var errNoMember = errors.New("no such member")

// welcome connects somebody outside to a port inside.
func (s *Stack) welcome(m *member, c *net.TCPConn, to netip.AddrPort) {
	ctx, cancel := context.WithTimeout(m.ctx, dialTimeout)
	defer cancel()
	inside, err := gonet.DialTCPWithBind(ctx, s.stack, fullAddress(visitor(c.RemoteAddr())), fullAddress(to), ipv4.ProtocolNumber)
	if err != nil {
		_ = c.SetLinger(0) // the visitor sees that it was refused
		_ = c.Close()
		return
	}
	s.join(m, inside, c)
}

// visitor is as whom somebody outside appears inside: by its own address where
// that means the same in there, and else as the gateway. The port is a new one.
func visitor(a net.Addr) netip.AddrPort {
	ip := addrPort(a).Addr()
	if !ip.Is4() || !ip.IsGlobalUnicast() || Subnet.Contains(ip) {
		ip = Gateway
	}
	return netip.AddrPortFrom(ip, 0)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// PublishUDP is PublishTCP for datagrams.
func (s *Stack) PublishUDP(c *net.UDPConn, to netip.AddrPort) error {
	m := s.member(to.Addr())
	if m == nil {
		return errors.Join(errNoMember, c.Close())
	}
	stop := context.AfterFunc(m.ctx, func() { _ = c.Close() })
	v := &visitors{s: s, m: m, outside: c, to: to, flows: map[netip.AddrPort]*visit{}}
	s.wg.Go(func() {
		defer stop()
		v.run()
	})
	return nil
}

// visitors are the flows of datagrams of one published port.
type visitors struct {
	s       *Stack
	m       *member
	outside *net.UDPConn
	to      netip.AddrPort

	mu    sync.Mutex
	flows map[netip.AddrPort]*visit
}

type visit struct {
	inside *insideFlow
	idle   *idle
}

func (v *visitors) run() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := v.outside.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(v.m.ctx, time.Millisecond)
			continue
		}
		if f := v.flow(from); f != nil {
			f.idle.touch()
			v.s.receive(v.m, f.inside, buf[:n])
		}
	}
}

// flow returns that of a visitor, or nil where there are too many.
func (v *visitors) flow(from netip.AddrPort) *visit {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f := v.flows[from]; f != nil {
		return f
	}
	if !v.s.admit(v.m) {
		return nil
	}
	inside, err := v.s.openFlow(visitor(net.UDPAddrFromAddrPort(from)), v.to)
	if err != nil {
		v.s.release(v.m)
		return nil
	}
	ctx, cancel := context.WithCancel(v.m.ctx)
	f := &visit{inside: inside, idle: newIdle(cancel)}
	v.flows[from] = f
	v.s.wg.Go(func() {
		defer v.s.release(v.m)
		defer cancel()
		write := func(b []byte) (int, error) { return v.outside.WriteToUDPAddrPort(b, from) }
		for inside.next(ctx, func(b []byte) { f.idle.touch(); v.s.sendOut(v.m, write, b) }) == nil {
			continue
		}
		f.idle.stop()
		v.mu.Lock()
		delete(v.flows, from)
		v.mu.Unlock()
		_ = inside.Close()
	})
	return f
}

// openFlow makes a flow of datagrams from somebody outside to a container.
func (s *Stack) openFlow(from, to netip.AddrPort) (*insideFlow, error) {
	queue := &waiter.Queue{}
	ep, terr := s.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, queue)
	if terr == nil {
		terr = ep.Bind(fullAddress(from))
	}
	if terr == nil {
		terr = ep.Connect(fullAddress(to))
	}
	if terr != nil {
		if ep != nil {
			ep.Close()
		}
		return nil, errors.New(terr.String())
	}
	return newInsideFlow(ep, queue), nil
}
