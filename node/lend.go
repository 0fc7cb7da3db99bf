package node

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
	"github.com/pkt-cash/pkt-cloud/internal/reach"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Defaults of a [LeaseNetwork].
const (
	DefaultPublishFirst = 20000
	DefaultPublishLast  = 29999
	smtp                = 25
)

// LeaseNetwork is what a provider lets leases have of its network. The zero value
// lets services that ask for it connect to the public internet, except to port
// 25, and publishes no ports. Leases keep what they were granted when it changes.
type LeaseNetwork struct {
	// NoEgress lets no service connect to anything outside its lease.
	NoEgress bool
	// Deny are networks that no service may reach, besides private ones, this
	// machine, and services of clouds for their own machines. DenyPorts are ports;
	// nil means 25, by which unasked mail is sent.
	Deny      []netip.Prefix
	DenyPorts []uint16
	// AllowPrivate are exceptions that are not on the public internet: "10.1.2.3",
	// "10.1.0.0/16", "10.1.2.3:5432".
	AllowPrivate []string
	// PublishOn are the addresses at which ports lead to services; none: none do.
	PublishOn []PublishAddress
	// PublishFirst and PublishLast are the ports there, both inclusive; 0 means
	// DefaultPublishFirst and DefaultPublishLast.
	PublishFirst, PublishLast uint16
	// BytesPerSecond bounds what a lease sends, and what it receives; 0 means no
	// bound.
	BytesPerSecond uint64
	// Kernel and KernelForwarded are those of [libcontainer.NetworkConfig]: the kernel
	// forwards what services send to the public internet, which is faster.
	Kernel, KernelForwarded bool
}

// PublishAddress is an address of this machine, and As what tenants are told: the
// one from which a router leads to it, or the zero value where there is none
// between.
type PublishAddress struct{ On, As netip.Addr }

// told is what tenants are told.
func (a PublishAddress) told() netip.Addr {
	if a.As.IsValid() {
		return a.As
	}
	return a.On
}

// String is the inverse of [ParsePublishAddress].
func (a PublishAddress) String() string {
	if !a.As.IsValid() {
		return a.On.String()
	}
	return a.On.String() + "=" + a.As.String()
}

// ParsePublishAddress reads "203.0.113.9" or, behind a router,
// "192.168.1.5=203.0.113.9", each in its shortest spelling.
func ParsePublishAddress(s string) (PublishAddress, error) {
	on, as, routed := strings.Cut(s, "=")
	var a PublishAddress
	var err error
	if a.On, err = netip.ParseAddr(on); err == nil && routed {
		a.As, err = netip.ParseAddr(as)
	}
	if err == nil {
		err = a.validate()
	}
	if err == nil && a.String() != s {
		err = fmt.Errorf("write %s", a)
	}
	if err != nil {
		return PublishAddress{}, service.Errorf(service.CodeInvalid, "%q is no address such as 203.0.113.9 or, behind a router, 192.168.1.5=203.0.113.9: %v", s, err)
	}
	return a, nil
}

func (c LeaseNetwork) withDefaults() LeaseNetwork {
	c.PublishFirst, c.PublishLast = cmp.Or(c.PublishFirst, DefaultPublishFirst), cmp.Or(c.PublishLast, DefaultPublishLast)
	if c.DenyPorts == nil {
		c.DenyPorts = []uint16{smtp}
	}
	return c
}

// validate says what is wrong with a configuration, before anything is offered.
func (c LeaseNetwork) validate() error {
	if _, err := dialer.New(c.AllowPrivate); err != nil {
		return service.Errorf(service.CodeInvalid, "addresses that leases may reach: %v", err)
	}
	if c.PublishFirst > c.PublishLast {
		return service.Errorf(service.CodeInvalid, "ports %d to %d are none; give the lower one first", c.PublishFirst, c.PublishLast)
	}
	if c.BytesPerSecond != 0 && (c.BytesPerSecond < market.MinBandwidth || c.BytesPerSecond > market.MaxBandwidth) {
		return service.Errorf(service.CodeInvalid, "a lease has %d to %d bytes a second, or no bound", market.MinBandwidth, uint64(market.MaxBandwidth))
	}
	for i, a := range c.PublishOn {
		if err := a.validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(c.PublishOn[:i], func(b PublishAddress) bool { return b.On == a.On }) {
			return service.Errorf(service.CodeInvalid, "%s publishes ports twice", a.On)
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(a.On, 0).String())
		if err != nil {
			return service.Errorf(service.CodeInvalid, "ports cannot be published on %s: %v; behind a router give this machine's own address and the one outside, such as 192.168.1.5=%s",
				a.On, err, a.told())
		}
		l.Close()
	}
	return nil
}

func (a PublishAddress) validate() error {
	for _, ip := range []netip.Addr{a.On, a.told()} {
		if !ip.IsValid() || ip.Zone() != "" || ip.Is4In6() || ip.IsMulticast() {
			return service.Errorf(service.CodeInvalid, "%s is no address for published ports", ip)
		}
	}
	if a.told().IsUnspecified() {
		return service.Errorf(service.CodeInvalid, "%s is any address; say which one tenants are told, such as %s=203.0.113.9", a.On, a.On)
	}
	return nil
}

// config is the same for the containers' runtime.
func (c LeaseNetwork) config() libcontainer.NetworkConfig {
	out := libcontainer.NetworkConfig{
		Deny: c.Deny, DenyPorts: c.DenyPorts, AllowPrivate: c.AllowPrivate, PublishOn: []netip.Addr{},
		PublishFirst: c.PublishFirst, PublishLast: c.PublishLast, BytesPerSecond: c.BytesPerSecond,
		Kernel: c.Kernel, KernelForwarded: c.KernelForwarded,
	}
	for _, a := range c.PublishOn {
		out.PublishOn = append(out.PublishOn, a.On)
	}
	return out
}

// ports is how many ports there are to publish.
func (c LeaseNetwork) ports() uint64 {
	return min(c.publishable().Count(), market.MaxPorts)
}

func (c LeaseNetwork) publishable() services.Ports {
	return services.Ports{
		Addresses: c.config().PublishOn, First: c.PublishFirst, Last: c.PublishLast,
		Unused: unused, Random: rand.IntN, // which is no secret
	}
}

// told is where a published port is for those outside.
func (c LeaseNetwork) told(p container.PublishedPort) string {
	host := p.Host
	for _, a := range c.PublishOn {
		if a.On == p.Host {
			host = a.told()
		}
	}
	return netip.AddrPortFrom(host, p.Port).String()
}

// granted is what another lease may have of the network now; one lease is not
// counted. It asks the provider, so the caller holds no lock.
func (n *Node) granted(except pktcloud.ID) market.Network {
	c := n.cfg.LeaseNetwork
	g := market.Network{Egress: !c.NoEgress, Ports: c.ports()}
	taken, held := n.work.published(except.Hex())
	for _, v := range n.provider.List() {
		if !v.Phase.Final() && v.Phase != lease.Proposed && v.ID != except && !held[v.ID.Hex()] {
			taken += v.Manifest.Network().Ports // promised, and not yet given
		}
	}
	g.Ports -= min(g.Ports, taken)
	if g.Egress || g.Ports > 0 {
		g.BytesPerSecond = c.BytesPerSecond
	}
	return g
}

// admitNetwork refuses a manifest that asks for more of the network than this
// provider has, before money moves [LEASE-36] [LEASE-37].
func (n *Node) admitNetwork(id pktcloud.ID, m lease.Manifest) error {
	need := m.Network()
	if need.IsZero() {
		return nil
	}
	if lacks := n.granted(id).Lacks(need); lacks != "" {
		return lease.Refusal(lease.CodeNetwork, "%s now; choose another offer, or ask for less", lacks)
	}
	for _, v := range m.Services {
		for _, e := range v.Egress {
			p, err := reach.Parse(e)
			if err != nil {
				continue // public
			}
			if why := n.cfg.LeaseNetwork.config().Refuses(p); why != "" {
				return lease.Refusal(lease.CodeNetwork, "service %s asks for egress to %.80s: %s", v.Name, e, why)
			}
		}
	}
	return nil
}

// published is how many ports the sets have, one excepted, and which sets there
// are.
func (w *workload) published(except string) (ports uint64, sets map[string]bool) {
	sets = map[string]bool{}
	for _, s := range w.sets.Sets() {
		sets[s.ID] = true
		if s.ID != except {
			ports += uint64(len(s.Published()))
		}
	}
	return ports, sets
}

// networkOf is what a manifest's service has of the world outside, but for its
// ports.
func networkOf(v lease.Service) services.Network {
	n := services.Network{BytesPerSecond: v.Bandwidth}
	if slices.Equal(v.Egress, []string{lease.EgressPublic}) {
		n.Egress.Public = true
	} else {
		n.Egress.Allow = v.Egress
	}
	return n
}

// give finds ports outside for what the services of a set publish. The caller
// holds w.giving until the set has begun, which makes them durable.
func (w *workload) give(set services.Set, m lease.Manifest) error {
	var wanted []services.Wanted
	for i, v := range m.Services {
		for _, inside := range v.PublishedPorts() {
			p := services.Wanted{Service: i, Inside: uint16(inside)}
			for _, o := range v.Publish {
				if o.Port == inside {
					p.Protocols = append(p.Protocols, o.Protocol)
				}
			}
			wanted = append(wanted, p)
		}
	}
	return w.lend.publishable().Give(set, wanted, w.sets.Sets())
}

// networkStatus is what a tenant is told of a service's network, nil where it has
// none [SERVICE-22].
func (w *workload) networkStatus(ports []container.PublishedPort, s container.NetworkStatus) *session.ServiceNetwork {
	if len(ports) == 0 && !s.Address.IsValid() {
		return nil
	}
	out := &session.ServiceNetwork{BytesIn: s.BytesIn, BytesOut: s.BytesOut, Refused: s.Refused, Open: s.Connections}
	for _, p := range ports {
		out.Published = append(out.Published, session.Published{Port: uint64(p.Inside), Protocol: p.Protocol, Address: w.lend.told(p)})
	}
	return out
}

// unused reports whether nobody on this machine listens at an address.
func unused(at netip.AddrPort, protocol string) bool {
	var c io.Closer
	var err error
	if protocol == lease.TCP {
		c, err = net.Listen("tcp", at.String())
	} else {
		c, err = net.ListenPacket("udp", at.String())
	}
	return err == nil && c.Close() == nil
}
