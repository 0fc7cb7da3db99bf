//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// router is a group's network namespace: a pair of veth for each container,
// and a TUN device to everywhere else. The kernel forwards between them by
// fixed routes. There is no common segment, so nothing to spoof on it: a packet
// whose source is not the address of its container is dropped on arrival, and
// neighbours are fixed [CONTAINER-51].
type router struct {
	ns     *os.File
	handle *netlink.Handle
	tun    *os.File
}

const tunName = "out"

// inside is the name of a container's interface.
const insideName = "eth0"

// inThread runs f on a thread that ends after it, so that it may change its
// thread's namespaces.
func inThread(f func() error) error {
	out := make(chan error, 1)
	go func() {
		lockThread()
		out <- f()
	}()
	return <-out
}

// inNetwork runs f on a thread that has joined a network namespace.
func inNetwork(ns *os.File, f func() error) error {
	return inThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("join the network: %w", err)
		}
		return f()
	})
}

// newRouter makes a router.
func newRouter() (*router, error) {
	r, err := newForwarder(func(r *router) (err error) {
		r.tun, err = openTUN()
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := r.handle.LinkByName(tunName)
	if err != nil {
		return nil, err
	}
	return r, errors.Join(r.handle.LinkSetMTU(out, netstack.MTU), r.handle.LinkSetTxQLen(out, 1000), r.handle.LinkSetUp(out),
		r.handle.RouteAdd(&netlink.Route{LinkIndex: out.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: prefixNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))}))
}

// newForwarder makes a network that forwards, and calls more within it.
func newForwarder(more func(*router) error) (*router, error) {
	r := &router{}
	err := inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network: %w", err)
		}
		var err error
		if r.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		for name, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "1", "ipv4/conf/default/rp_filter": "1",
			"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
			"ipv4/conf/all/accept_redirects": "0", "ipv4/conf/default/accept_source_route": "0", "ipv4/conf/all/accept_source_route": "0",
			"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1",
		} {
			if err := setNetwork(name, value); err != nil {
				return err
			}
		}
		return more(r)
	})
	return r, err
}

// setNetwork writes a setting of the thread's network. A kernel without IPv6
// has none of its settings.
func setNetwork(name, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) && name[:4] == "ipv6" {
		return nil
	}
	return err
}

// openTUN makes the device in the thread's network.
func openTUN() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &container.Error{Code: container.CodeMissingFeature, Detail: "no TUN devices; load the kernel module tun", Err: err}
	}
	req, err := unix.NewIfreq(tunName)
	if err == nil {
		req.SetUint16(netstack.TUNFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, netstack.TUNOffloads)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a TUN device: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// single is the prefix of one address.
func single(a netip.Addr) *net.IPNet { return prefixNet(netip.PrefixFrom(a, 32)) }

// linkName and hardware are a container's in the router. Both ends of each pair
// have fixed addresses.
func linkName(a netip.Addr) string { return fmt.Sprintf("c%d", a.As4()[3]) }

func hardware(a netip.Addr, end byte) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{2, end, b[0], b[1], b[2], b[3]}
}

// plug connects a container's network under its address; or, behind, one that
// forwards to a container of that address.
func (r *router) plug(ns *os.File, a netip.Addr, behind bool) error {
	r.unplug(a)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = linkName(a), netstack.MTU, hardware(a, 1)
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: insideName, PeerHardwareAddr: hardware(a, 2), PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if err := r.handle.LinkAdd(pair); err != nil {
		return fmt.Errorf("make a pair of interfaces: %w", err)
	}
	err := r.connect(a)
	if err == nil {
		err = inNetwork(ns, func() error { return setUpInside(a, behind) })
	}
	if err != nil {
		r.unplug(a)
	}
	return err
}

// connect sets up the router's end.
func (r *router) connect(a netip.Addr) error {
	link, err := r.handle.LinkByName(linkName(a))
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	return errors.Join(
		r.handle.LinkSetARPOff(link), r.handle.LinkSetUp(link),
		r.handle.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: hardware(a, 2)}),
		r.handle.RouteAdd(&netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: single(a)}),
	)
}

// setUpInside sets up the container's end, from within its network.
func setUpInside(a netip.Addr, behind bool) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(insideName)
	if err != nil {
		return err
	}
	if err := setNetwork("ipv6/conf/"+insideName+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if !behind {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: single(a)}); err != nil {
			return err
		}
	}
	index, gateway := link.Attrs().Index, netstack.Gateway
	return errors.Join(
		h.LinkSetMTU(link, netstack.MTU), h.LinkSetARPOff(link), h.LinkSetUp(link),
		h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: hardware(a, 1)}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: single(gateway)}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice(), Dst: prefixNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))}),
	)
}

// unplug takes a container's interfaces away, if it has any.
func (r *router) unplug(a netip.Addr) {
	if link, err := r.handle.LinkByName(linkName(a)); err == nil {
		_ = r.handle.LinkDel(link)
	}
}
