package kernelnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Config is what a group may do, whoever is in it.
type Config struct {
	// Key tells groups of this machine apart.
	Key string
	// Deny are networks and DenyPorts ports that nobody reaches.
	Deny      []netip.Prefix
	DenyPorts []uint16
	// MaxConnections bounds those that are open at once, also those of the stack.
	MaxConnections int
	// BytesPerSecond bounds what the group sends, and what it receives, on both
	// ways; 0 is no bound.
	BytesPerSecond uint64
}

// Router is a group's fast path. Its methods may be called at once.
type Router struct {
	ns     *os.File
	handle *netlink.Handle
	track  *netlink.Handle
	lease  *lease
	shaper *shaper

	mu    sync.Mutex
	table *table
	own   []netip.Addr
}

// fastTable is the number of the routing table of the fast path.
const fastTable = 100

// Open makes the fast path of a router: ns is its network namespace, and the
// thread's is the machine's. Until it returns nothing leaves by it.
func Open(ns *os.File, cfg Config) (*Router, error) {
	r := &Router{ns: ns}
	if err := r.open(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("the fast path: %w", err), r.Close())
	}
	return r, nil
}

func (r *Router) open(cfg Config) error {
	never := Never(cfg.Deny)
	var err error
	err = inNetwork(r.ns, func() error {
		var err error
		if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		if r.track, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		return settle()
	})
	if err != nil {
		return err
	}
	if r.table, err = newTable(int(r.ns.Fd()), never, cfg.DenyPorts, cfg.MaxConnections); err != nil {
		return err
	}
	if err := r.Refresh(); err != nil {
		return err
	}
	// The machine's count of a connection may end later than the router's.
	if r.lease, err = lend(int(r.ns.Fd()), cfg.Key, never, 2*cfg.MaxConnections); err != nil {
		return err
	}
	r.shaper = newShaper(r.handle, cfg.BytesPerSecond)
	return inNetwork(r.ns, r.connect)
}

// settle sets how the router tracks connections: long enough for those that are
// used, short for those that never were. What a kernel has no setting for stays as
// it is.
func settle() error {
	for name, value := range map[string]string{
		// A segment outside of the window that the kernel knows would go to the stack,
		// which knows nothing of it and ends the connection.
		"nf_conntrack_tcp_be_liberal": "1",
		"nf_conntrack_udp_timeout":    strconv.Itoa(FlowSeconds), "nf_conntrack_udp_timeout_stream": strconv.Itoa(FlowSeconds), "nf_conntrack_icmp_timeout": "10",
		"nf_conntrack_tcp_timeout_syn_sent": "20", "nf_conntrack_tcp_timeout_syn_recv": "20", "nf_conntrack_tcp_timeout_close": "1",
		"nf_conntrack_tcp_timeout_time_wait": "20", "nf_conntrack_tcp_timeout_fin_wait": "60", "nf_conntrack_generic_timeout": "10",
	} {
		if err := setting("netfilter/"+name, value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// Of its own only in newer kernels; in others the machine's counts for each network.
	_ = setting("netfilter/nf_conntrack_max", "65536")
	return nil
}

// connect opens the router's end.
func (r *Router) connect() error {
	link, err := r.handle.LinkByName(upName)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	// What arrives has sources to which the main table has another way.
	if err := errors.Join(setting("ipv4/conf/"+upName+"/rp_filter", "2"), setting("ipv6/conf/"+upName+"/disable_ipv6", "1")); err != nil {
		return err
	}
	if err := errors.Join(
		r.handle.LinkSetARPOff(link), r.handle.AddrAdd(link, &netlink.Addr{IPNet: prefixNet(netip.PrefixFrom(r.lease.address, 32))}),
		r.handle.LinkSetUp(link),
		reach(r.handle, index, r.lease.address, hop),
		r.handle.RouteAdd(&netlink.Route{
			LinkIndex: index, Table: fastTable, Gw: hop.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Dst: prefixNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
		}),
	); err != nil {
		return err
	}
	if err := r.shaper.group(upName, stackName); err != nil {
		return err
	}
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = unix.AF_INET, chosen, fastTable, 100
	return r.handle.RuleAdd(rule)
}

// inNetwork runs f on a thread in a network namespace, which ends after it.
func inNetwork(ns *os.File, f func() error) error {
	out := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			out <- err
			return
		}
		out <- f()
	}()
	return <-out
}

// Join lets a container, whose interface in the router has the given name, send
// what its plan says by the fast path.
func (r *Router) Join(a netip.Addr, device string, p Plan, bytesPerSecond uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.shaper.member(a, device, bytesPerSecond); err != nil {
		return fmt.Errorf("bound the bytes of %s: %w", a, err)
	}
	return r.table.join(a, p)
}

// Leave ends a container's connections.
func (r *Router) Leave(a netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.table.leave(a), r.forget(a))
}

// Learn lets a container connect to an address of a name that its plan allows.
func (r *Router) Learn(l Learned) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.learn(l)
}

// Counts reads what each address, by its last byte, has sent and received.
func (r *Router) Counts() (map[byte]Counts, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.counts()
}

// Refresh looks which addresses the machine has. Those that it does not know yet
// are refused by the machine's table, without a count.
func (r *Router) Refresh() error {
	own, err := ownAddrs()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(own, r.own) {
		return nil
	}
	if err := r.table.avoid(own); err != nil {
		return err
	}
	r.own = own
	return nil
}

func ownAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().Is4() {
				out = append(out, ip.Unmap())
			}
		}
	}
	return sorted(out), nil
}

// Close takes away what is in the machine's network.
func (r *Router) Close() error {
	var err error
	if r.lease != nil {
		err = r.lease.close()
	}
	if r.table != nil {
		err = errors.Join(err, r.table.close())
	}
	for _, h := range []*netlink.Handle{r.handle, r.track} {
		if h != nil {
			h.Close()
		}
	}
	return err
}
