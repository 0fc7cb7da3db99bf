package kernelnet

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NamePrefix is how the machine's interfaces of groups begin; the rest is the end
// of the address that the group has there. The tables are called so too.
const NamePrefix = "pktc-"

// lease is the machine's half of one group: an interface, a route to the group's
// address and a table. All of it goes with the router's namespace and this process.
type lease struct {
	address netip.Addr
	name    string
	table   *rules
}

// upMTU is that of the pair between router and machine. The kernel cuts what is
// longer than the way out of the machine, as it does for its own programs.
const upMTU = 65520

// hop is the router's next hop. Nobody has it: the neighbour is fixed.
var hop = Between.Addr()

// hardware are the two ends of a pair.
func hardware(a netip.Addr, end byte) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{2, 0x10 | end, b[0], b[1], b[2], b[3]}
}

// lend makes the pair, its far end in a router, and the machine's table before
// anything can pass.
func lend(router int, key string, never []netip.Prefix, connections int) (*lease, error) {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(key))
	n := sum.Sum32()
	for range 1 << 12 {
		n = n*1664525 + 1013904223
		low := uint16(n >> 16)
		if low == 0 || low == 1<<16-1 {
			continue
		}
		b := Between.Addr().As4()
		a := netip.AddrFrom4([4]byte{b[0], b[1], byte(low >> 8), byte(low)})
		l, err := lendAt(router, a, never, connections)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return l, err
	}
	return nil, errors.New("no address is left between the machine and its groups")
}

// lendAt is lend at one address. Errors match [fs.ErrExist] where another group
// has it.
func lendAt(router int, a netip.Addr, never []netip.Prefix, connections int) (*lease, error) {
	l := &lease{address: a, name: fmt.Sprintf("%s%02x%02x", NamePrefix, a.As4()[2], a.As4()[3])}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = l.name, upMTU, hardware(a, 1)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: upName, PeerMTU: upMTU, PeerHardwareAddr: hardware(a, 2), PeerNamespace: netlink.NsFd(router)}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("make a pair of interfaces: %w", err)
	}
	err := l.guard(never, connections)
	if err == nil {
		err = l.connect()
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// guard writes the machine's table of the group.
func (l *lease) guard(never []netip.Prefix, connections int) error {
	t, err := openRules(0, l.name)
	if err != nil {
		return err
	}
	l.table = t
	arrive := t.chain("arrive", hook{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainPolicyAccept})
	t.add(arrive, device(expr.MetaKeyIIFNAME, expr.CmpOpNeq, l.name), accept)
	t.add(arrive, addressIsNot(atSource, l.address), drop)
	// Before anything of the machine's translates it: not to the machine, nor to all
	// hosts of a network.
	t.add(arrive, []expr.Any{&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true}}, isNot(native(unix.RTN_UNICAST)...), drop)
	l.age(t)
	leaving, returning := t.chain("leaving"), t.chain("returning")
	for _, p := range never { // and after it has
		t.add(leaving, within(atDest, p), drop)
		if err := t.flushSome(); err != nil {
			return err
		}
	}
	t.add(leaving, state(stateNew), more(connections), drop)
	t.add(leaving, fitSegments())
	t.add(leaving, accept)
	t.add(returning, state(stateEstablished|stateRelated), accept)
	t.add(returning, drop)
	forward := t.chain("forward", hook{nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept})
	t.add(forward, from(l.name), leap("leaving"))
	t.add(forward, to(l.name), leap("returning"))
	input := t.chain("input", hook{nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept})
	t.add(input, from(l.name), drop)
	output := t.chain("output", hook{nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept})
	t.add(output, to(l.name), protocol(unix.IPPROTO_TCP), drop)
	t.add(output, to(l.name), protocol(unix.IPPROTO_UDP), drop)
	translate := t.chain("translate", hook{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept})
	t.add(translate, addressIs(atSource, l.address), []expr.Any{&expr.Masq{}})
	if err := t.flush(); err != nil {
		return fmt.Errorf("write the machine's rules of the group: %w", err)
	}
	return nil
}

// age has the machine forget a group's connections soon after they have ended, and
// datagrams as soon as the router does: its table is that of all its programs.
func (l *lease) age(t *rules) {
	tcp := expr.CtStatePolicyTimeout{
		expr.CtStateTCPSYNSENT: 20, expr.CtStateTCPSYNRECV: 20, expr.CtStateTCPESTABLISHED: 5 * 24 * 3600, expr.CtStateTCPFINWAIT: 60,
		expr.CtStateTCPTIMEWAIT: 1, expr.CtStateTCPCLOSE: 1,
	}
	udp := expr.CtStatePolicyTimeout{expr.CtStateUDPUNREPLIED: FlowSeconds, expr.CtStateUDPREPLIED: FlowSeconds}
	age := t.chain("age", hook{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, nftables.ChainPolicyAccept})
	for proto, policy := range map[uint8]expr.CtStatePolicyTimeout{unix.IPPROTO_TCP: tcp, unix.IPPROTO_UDP: udp} {
		name := fmt.Sprintf("age-%d", proto)
		t.conn.AddObj(&nftables.NamedObj{
			Table: t.table, Name: name, Type: nftables.ObjTypeCtTimeout,
			Obj: &expr.CtTimeout{L3Proto: unix.NFPROTO_IPV4, L4Proto: proto, Policy: policy},
		})
		t.add(age, from(l.name), protocol(proto), []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: name}})
	}
}

// fitSegments has both ends of a TCP connection make no segments that the way out
// has to cut.
func fitSegments() []expr.Any {
	const optionMSS, syn = 2, 0x02
	return join(protocol(unix.IPPROTO_TCP), transport(13, 1), mask(syn), isNot(0), []expr.Any{
		&expr.Rt{Register: reg1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: reg1, Type: optionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	})
}

// connect opens the machine's end.
func (l *lease) connect() error {
	if err := forgetAll(l.address); err != nil { // of a group that had the address before
		return err
	}
	for name, value := range map[string]string{
		"ipv4/conf/" + l.name + "/forwarding": "1", "ipv4/conf/" + l.name + "/rp_filter": "1",
		"ipv4/conf/" + l.name + "/accept_redirects": "0", "ipv4/conf/" + l.name + "/send_redirects": "0",
		"ipv4/conf/" + l.name + "/accept_source_route": "0", "ipv4/conf/" + l.name + "/route_localnet": "0",
		"ipv6/conf/" + l.name + "/disable_ipv6": "1",
	} {
		if err := setting(name, value); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(l.name)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetARPOff(link), netlink.LinkSetUp(link), reach(nil, link.Attrs().Index, l.address, l.address))
}

// reach makes a fixed neighbour, whose far end of the pair is that of a lease, and
// a route to it.
func reach(h *netlink.Handle, index int, of, neighbour netip.Addr) error {
	end := byte(1)
	if of == neighbour {
		end = 2
	}
	n := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: neighbour.AsSlice(), HardwareAddr: hardware(of, end)}
	r := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: prefixNet(netip.PrefixFrom(neighbour, 32))}
	if h == nil {
		return errors.Join(netlink.NeighSet(n), netlink.RouteAdd(r))
	}
	return errors.Join(h.NeighSet(n), h.RouteAdd(r))
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// setting writes a setting of the thread's network; of IPv6 there may be none.
func setting(name, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) && name[:4] == "ipv6" {
		return nil
	}
	return err
}

// close takes the machine's half away.
func (l *lease) close() error {
	var err error
	if link, e := netlink.LinkByName(l.name); e == nil {
		err = netlink.LinkDel(link)
	}
	if l.table != nil {
		err = errors.Join(err, l.table.close())
	}
	return errors.Join(err, forgetAll(l.address))
}
