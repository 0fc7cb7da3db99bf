// Package p2p opens the libp2p host on which all protocols between nodes run.
//
// Start with [New]. The host speaks TCP with TLS, or Noise where the other
// side has no TLS, and yamux above it; it has no QUIC, no relay and no address
// translation, and listens only where it is told to. The device key of this
// machine is its peer id, so that who a peer is follows from the connection:
// see [PeerKey].
package p2p

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	cmgr "github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// DefaultListen is where a host listens when nothing else is said: a free TCP
// port of the loopback interface.
const DefaultListen = "/ip4/127.0.0.1/tcp/0"

// ErrAddress marks text that is no address to listen on.
var ErrAddress = errors.New("not an address to listen on")

// Bounds of a host.
const (
	DefaultMaxPeers = 128
	memoryBudget    = 256 << 20 // from which libp2p's limits are scaled
	memoryBooked    = 1 << 30   // by all connections and streams at once
	dialTimeout     = 15 * time.Second
	trimGrace       = 30 * time.Second
)

// Config says what a host is. Key is required.
type Config struct {
	// Key is the device key of this machine; its public half is the peer id.
	Key pktcloud.PrivateKey
	// Listen are the multiaddrs to listen on, TCP only. Nil means
	// [DefaultListen]; an empty list means nowhere.
	Listen []string
	// MaxPeers is the number of connections above which idle ones are closed;
	// zero means [DefaultMaxPeers].
	MaxPeers int
	// PublicOnly refuses to dial addresses that are not public, so that an
	// offer cannot make this machine connect to its own network.
	PublicOnly bool
	// UserAgent is what other nodes are told; empty means "pktcloud".
	UserAgent string
}

// New opens a host. It fails when any of the addresses to listen on cannot be
// had, with an error matching [ErrAddress] when one is malformed. The caller
// closes the host.
func New(c Config) (host.Host, error) {
	if c.Key.IsZero() {
		return nil, errors.New("p2p: a host needs a device key")
	}
	if c.Listen == nil {
		c.Listen = []string{DefaultListen}
	}
	if c.MaxPeers <= 0 {
		c.MaxPeers = DefaultMaxPeers
	}
	if c.UserAgent == "" {
		c.UserAgent = "pktcloud"
	}
	listen, err := parseListen(c.Listen)
	if err != nil {
		return nil, err
	}
	h, err := assemble(c)
	if err != nil {
		return nil, fmt.Errorf("p2p: open the host: %w", err)
	}
	for _, a := range listen { // one by one: together, one success hides all failures
		if err := h.Network().Listen(a); err != nil {
			return nil, errors.Join(fmt.Errorf("p2p: listen on %s: %w; is the port in use?", a, err), h.Close())
		}
	}
	h.Start()
	return h, nil
}

func parseListen(texts []string) ([]ma.Multiaddr, error) {
	addrs := make([]ma.Multiaddr, 0, len(texts))
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("p2p: listen address %q: %w: %w", text, ErrAddress, err)
		}
		if !isTCP(a) {
			return nil, fmt.Errorf("p2p: listen address %q: %w: want a form such as %s", text, ErrAddress, DefaultListen)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// isTCP reports whether a is an IP address, a TCP port and nothing more.
func isTCP(a ma.Multiaddr) bool {
	protocols := a.Protocols()
	return len(protocols) == 2 && (protocols[0].Code == ma.P_IP4 || protocols[0].Code == ma.P_IP6) && protocols[1].Code == ma.P_TCP
}

// assemble puts the parts together by hand: libp2p.New would also link QUIC,
// WebRTC and WebTransport, some 160 packages that this node does not use.
func assemble(c Config) (*basichost.BasicHost, error) {
	key, id, err := identity(c.Key)
	if err != nil {
		return nil, err
	}
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(peers.AddPrivKey(id, key), peers.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, err
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limitsFor(c.MaxPeers)), rcmgr.WithMetricsDisabled())
	if err != nil {
		return nil, err
	}
	conns, err := cmgr.NewConnManager(c.MaxPeers*3/4, c.MaxPeers, cmgr.WithGracePeriod(trimGrace))
	if err != nil {
		return nil, err
	}
	guard := gate{publicOnly: c.PublicOnly}
	bus := eventbus.NewBus()
	net, err := swarm.NewSwarm(id, peers, bus, swarm.WithConnectionGater(guard),
		swarm.WithResourceManager(limits), swarm.WithDialTimeout(dialTimeout))
	if err != nil {
		return nil, err
	}
	transport, err := secureTCP(key, limits, guard)
	if err != nil {
		return nil, err
	}
	if err := net.AddTransport(transport); err != nil {
		return nil, err
	}
	return basichost.NewHost(net, &basichost.HostOpts{
		EventBus: bus, ConnManager: conns, UserAgent: c.UserAgent, EnablePing: true,
	})
}

// limitsFor are libp2p's own limits with more room for the whole and less for
// each: a few peers that take all they may must not shut the others out.
//
// Twice as many peers may connect as stay, so that the connection manager, not
// the limit, chooses who stays. Of memory yamux books 256 KiB for each stream,
// far more than a stream holds whose data is read.
func limitsFor(maxPeers int) rcmgr.ConcreteLimitConfig {
	l := rcmgr.DefaultLimits
	s, t := &l.SystemBaseLimit, &l.TransientBaseLimit
	s.ConnsInbound, s.ConnsOutbound, s.Conns = 2*maxPeers, maxPeers, 3*maxPeers
	t.ConnsInbound, t.Conns = maxPeers, 2*maxPeers
	s.StreamsInbound, s.Streams = 32*maxPeers, 48*maxPeers
	t.StreamsInbound, t.Streams = 16*maxPeers, 24*maxPeers
	s.Memory, t.Memory = memoryBooked, memoryBooked/2
	l.PeerBaseLimit.StreamsInbound = 128
	l.PeerLimitIncrease.StreamsInbound = 0
	l.ProtocolBaseLimit.StreamsInbound, l.ProtocolBaseLimit.Streams = 16*maxPeers, 32*maxPeers
	l.ProtocolBaseLimit.Memory = memoryBooked / 2
	for _, name := range []string{ping.ServiceName, identify.ServiceName} {
		l.AddServicePeerLimit(name, rcmgr.BaseLimit{StreamsInbound: 4, StreamsOutbound: 16, Streams: 16, Memory: 4 << 20}, rcmgr.BaseLimitIncrease{})
	}
	return l.Scale(memoryBudget, 8*maxPeers)
}

// secureTCP is TCP with TLS before Noise: TLS was measured twice as fast on
// machines with AES instructions.
func secureTCP(key crypto.PrivKey, limits network.ResourceManager, guard connmgr.ConnectionGater) (*tcp.TcpTransport, error) {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	tls, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	fallback, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{tls, fallback}, muxers, nil, limits, guard)
	if err != nil {
		return nil, err
	}
	return tcp.NewTCPTransport(up, limits, nil)
}

// gate refuses peers whose key no signature could bind, and with publicOnly
// also addresses that are not public. Addresses arrive here resolved.
type gate struct{ publicOnly bool }

func (g gate) InterceptPeerDial(id peer.ID) bool {
	_, err := PeerKey(id)
	return err == nil
}

func (g gate) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool {
	return !g.publicOnly || manet.IsPublicAddr(a)
}

func (g gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g gate) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	_, err := PeerKey(id)
	return err == nil
}

func (g gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
