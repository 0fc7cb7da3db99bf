package kernelnet

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows matches tracked connections.
type flows func(f *netlink.ConntrackFlow) bool

// MatchConntrackFlow implements [netlink.CustomConntrackFilter].
func (m flows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool { return m(f) }

func source(f *netlink.ConntrackFlow) netip.Addr {
	a, _ := netip.AddrFromSlice(f.Forward.SrcIP)
	return a.Unmap()
}

func target(f *netlink.ConntrackFlow) netip.Addr {
	a, _ := netip.AddrFromSlice(f.Forward.DstIP)
	return a.Unmap()
}

// forgetAll makes the machine forget the connections of a group.
func forgetAll(group netip.Addr) error {
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flows(func(f *netlink.ConntrackFlow) bool { return source(f) == group }))
	return err
}

// outer is a connection as the machine sees it: the group's own port, and what
// is at the other end.
type outer struct {
	protocol uint8
	port     uint16
	to       netip.AddrPort
}

// forget makes router and machine forget the connections of a container, so that
// neither they nor what still comes for them reach the next one.
func (r *Router) forget(a netip.Addr) error {
	gone := map[outer]bool{}
	_, err := r.track.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flows(func(f *netlink.ConntrackFlow) bool {
		if source(f) != a && target(f) != a {
			return false
		}
		if f.Mark == chosen {
			gone[outer{f.Forward.Protocol, f.Reverse.DstPort, netip.AddrPortFrom(target(f), f.Forward.DstPort)}] = true
		}
		return true
	}))
	if err != nil || len(gone) == 0 {
		return err
	}
	_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flows(func(f *netlink.ConntrackFlow) bool {
		return source(f) == r.lease.address && gone[outer{f.Forward.Protocol, f.Forward.SrcPort, netip.AddrPortFrom(target(f), f.Forward.DstPort)}]
	}))
	return err
}

// States of TCP in which nothing more is carried.
const (
	tcpTimeWait = 7
	tcpClose    = 8
)

// Open counts the connections and flows of datagrams of each container that are on
// the fast path.
func (r *Router) Open() (map[byte]uint64, error) {
	all, err := r.track.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	out := map[byte]uint64{}
	for _, f := range all {
		if f.Mark != chosen || !source(f).Is4() {
			continue
		}
		if tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok && tcp != nil && (tcp.State == tcpTimeWait || tcp.State == tcpClose) {
			continue
		}
		out[source(f).As4()[3]]++
	}
	return out, nil
}
