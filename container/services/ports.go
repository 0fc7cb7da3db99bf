package services

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Ports are what a machine has for the ports that sets publish: at each of some
// addresses those from First to Last, both inclusive.
type Ports struct {
	Addresses   []netip.Addr
	First, Last uint16
	// Unused reports whether nobody on the machine listens at an address.
	Unused func(at netip.AddrPort, protocol string) bool
	// Random returns a number from 0 to n-1.
	Random func(n int) int
}

// Wanted is a port of a service that is to be reached from outside, by the
// protocols [container.TCP] and [container.UDP].
type Wanted struct {
	Service   int // its index in the set
	Inside    uint16
	Protocols []string
}

// Published are the addresses and ports of the machine that a set has, each once
// and in order.
func (s Set) Published() []netip.AddrPort {
	var out []netip.AddrPort
	for _, v := range s.Services {
		for _, p := range v.Network.Publish {
			out = append(out, netip.AddrPortFrom(p.Host, p.Port))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// Count is how many ports there are.
func (p Ports) Count() uint64 {
	return uint64(len(p.Addresses)) * (uint64(p.Last) - uint64(p.First) + 1)
}

// Give publishes what the services of a set want, at ports that none of the other
// sets has and nobody on the machine uses [SERVICE-19]. A port has one number for
// all its protocols, its own where that can be had, and else any, so that one
// does not soon come to lead to somebody else. An error leaves the set as it was.
func (p Ports) Give(set Set, wanted []Wanted, others []Set) error {
	taken := map[netip.AddrPort]bool{}
	for _, s := range others {
		for _, at := range s.Published() {
			taken[at] = true
		}
	}
	places := make([]netip.AddrPort, len(wanted))
	for i, w := range wanted {
		at, ok := p.free(w, taken)
		if !ok {
			return fmt.Errorf("no port is free for port %d of service %s", w.Inside, set.Services[w.Service].Name)
		}
		places[i], taken[at] = at, true
	}
	for i, w := range wanted {
		n := &set.Services[w.Service].Network
		for _, protocol := range w.Protocols {
			n.Publish = append(n.Publish, container.PublishedPort{Host: places[i].Addr(), Port: places[i].Port(), Inside: w.Inside, Protocol: protocol})
		}
	}
	return nil
}

func (p Ports) free(w Wanted, taken map[netip.AddrPort]bool) (netip.AddrPort, bool) {
	size := int(p.Last) - int(p.First) + 1
	begin := p.Random(size)
	for i := -1; i < size; i++ {
		port := w.Inside
		if i >= 0 {
			port = p.First + uint16((begin+i)%size)
		}
		if port < p.First || port > p.Last {
			continue
		}
		for _, a := range p.Addresses {
			at := netip.AddrPortFrom(a, port)
			inUse := func(protocol string) bool { return !p.Unused(at, protocol) }
			if !taken[at] && !slices.ContainsFunc(w.Protocols, inUse) {
				return at, true
			}
		}
	}
	return netip.AddrPort{}, false
}
