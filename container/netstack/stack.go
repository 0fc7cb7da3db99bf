package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/pkt-cash/pkt-cloud/container"
)

// nic is the number of the stack's one interface.
const nic = 1

// Config is what a group may do, whoever is in it.
type Config struct {
	Ceiling Ceiling
	// Resolvers look public names up, in this order; none means that there are
	// none.
	Resolvers []netip.AddrPort
	// MaxConnections bounds how many are open at once, datagram flows included;
	// 0 means [DefaultConnections].
	MaxConnections int
	// BytesPerSecond bounds what the group sends, and what it receives; 0 means
	// no bound.
	BytesPerSecond uint64
}

// Member is a container of the group.
type Member struct {
	// Address is in [Subnet], after [Gateway].
	Address        netip.Addr
	Name           string
	Egress         container.Egress
	BytesPerSecond uint64
}

// Stack carries a group's traffic. Its methods may be called at once.
type Stack struct {
	// Learned, if it is set before the first Join, hears of each address that a name
	// in a member's list has, and for how long that counts, before the member does;
	// port 0 is any.
	Learned func(member, addr netip.Addr, port uint16, hold time.Duration)

	cfg      Config
	judge    *judge
	counters Counters
	link     stack.LinkEndpoint
	stack    *stack.Stack
	in, out  *bucket
	names    resolver

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup
	open atomic.Int64
	live [256]atomic.Bool // by the last byte of an address: a member

	mu      sync.RWMutex
	members map[netip.Addr]*member
}

// member is a container that has joined.
type member struct {
	Member
	egress  *egress
	traffic *Traffic
	in, out *bucket
	ctx     context.Context // ends when it leaves
	leave   context.CancelFunc
}

// New runs a stack over a TUN device made with [TUNFlags] and [TUNOffloads],
// which it takes over and whose far end routes [Subnet] to the containers. The
// caller closes it.
func New(device *os.File, cfg Config, counters Counters) (*Stack, error) {
	t, err := openTUN(device)
	if err != nil {
		return nil, err
	}
	s, err := newStack(t, cfg, counters)
	if err != nil {
		return nil, err
	}
	t.known = s.knows
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// newStack makes a stack that does not run yet.
func newStack(link stack.LinkEndpoint, cfg Config, counters Counters) (*Stack, error) {
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = DefaultConnections
	}
	s := &Stack{
		cfg: cfg, counters: counters, link: link, members: map[netip.Addr]*member{},
		in: newBucket(cfg.BytesPerSecond), out: newBucket(cfg.BytesPerSecond),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.names = resolver{servers: cfg.Resolvers, places: make(chan struct{}, maxQueries)}
	var err error
	if s.judge, err = newJudge(cfg.Ceiling); err != nil {
		return nil, err
	}
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	return s, nil
}

// start brings the interface up and answers what comes.
func (s *Stack) start() error {
	sack, moderate, recovery := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true), tcpip.TCPRecovery(0)
	// The container is near and the world is behind sockets of the machine's, so
	// what is under way in here is little: it should stay in the caches.
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 512 << 10, Max: 1 << 20}
	sending := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 512 << 10, Max: 1 << 20}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &receive, &sending} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %s", o, err)
		}
	}
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s.stack, 0, maxPending, s.connect).HandlePacket)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s.stack, s.datagram).HandlePacket)
	if err := s.stack.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("make the interface: %s", err)
	}
	// The stack stands for every host outside, so it takes and gives all
	// addresses.
	gateway := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address(Gateway).WithPrefix()}
	for _, err := range []tcpip.Error{
		s.stack.AddProtocolAddress(nic, gateway, stack.AddressProperties{}),
		s.stack.SetPromiscuousMode(nic, true), s.stack.SetSpoofing(nic, true),
	} {
		if err != nil {
			return fmt.Errorf("set the interface up: %s", err)
		}
	}
	s.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return s.serveNames()
}

// Close ends all connections and waits for what carried them.
func (s *Stack) Close() error {
	s.stop()
	s.stack.Close()
	s.link.Close()
	s.wg.Wait()
	s.stack.Wait()
	return nil
}

// Join lets a container in.
func (s *Stack) Join(m Member) error {
	if !Subnet.Contains(m.Address) || !m.Address.Is4() || m.Address.Compare(Gateway) <= 0 {
		return fmt.Errorf("%s is no container's address", m.Address)
	}
	e, err := newEgress(m.Egress)
	if err != nil {
		return err
	}
	if s.Learned != nil {
		e.told = func(addr netip.Addr, port uint16, hold time.Duration) { s.Learned(m.Address, addr, port, hold) }
	}
	last := m.Address.As4()[3]
	n := &member{
		Member: m, egress: e, traffic: s.counters.Of(last),
		in: newBucket(m.BytesPerSecond), out: newBucket(m.BytesPerSecond),
	}
	n.ctx, n.leave = context.WithCancel(s.ctx)
	n.traffic.Open.Store(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.members[m.Address]; old != nil {
		old.leave()
	}
	s.members[m.Address] = n
	s.live[last].Store(true)
	return nil
}

// Leave ends a container's connections and forgets it.
func (s *Stack) Leave(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[a]; m != nil {
		m.leave()
		delete(s.members, a)
		s.live[a.As4()[3]].Store(false)
	}
}

// knows reports whether an address is a member's.
func (s *Stack) knows(a netip.Addr) bool {
	return Subnet.Contains(a) && s.live[a.As4()[3]].Load()
}

func (s *Stack) member(a netip.Addr) *member {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.members[a]
}

// called returns the address of a name of the group.
func (s *Stack) called(name string) (netip.Addr, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.members {
		if m.Name == name {
			return m.Address, true
		}
	}
	return netip.Addr{}, false
}

// admit counts a connection in, unless there are too many. The caller calls
// release.
func (s *Stack) admit(m *member) bool {
	if m == nil || s.ctx.Err() != nil {
		return false
	}
	if s.open.Add(1) > int64(s.cfg.MaxConnections) {
		s.open.Add(-1)
		m.traffic.Refused.Add(1)
		return false
	}
	m.traffic.Open.Add(1)
	return true
}

func (s *Stack) release(m *member) {
	s.open.Add(-1)
	m.traffic.Open.Add(^uint64(0))
}

// allowed judges where a container wants to go, and counts what it refuses
// [CONTAINER-52] [CONTAINER-53].
func (s *Stack) allowed(m *member, to netip.AddrPort) bool {
	if s.judge.check(to) != nil || !m.egress.allows(to, now()) {
		m.traffic.Refused.Add(1)
		return false
	}
	return true
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: address(a.Addr()), Port: a.Port()}
}

func fromAddress(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}
