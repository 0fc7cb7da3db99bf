// Package dialer connects to hosts that somebody else has named: a peer's
// addresses, a registry and where it redirects to. It judges the address that
// a name has resolved to, at the moment of connecting, so no name and no
// redirect leads into the owner's own network. Start with [New].
package dialer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrForbidden marks an address that is not on the public internet and not
// among the owner's exceptions.
var ErrForbidden = errors.New("address not allowed")

// forbidden are the ranges of global unicast space that lead somewhere else
// than to a host of the public internet: private and shared use, this network,
// link-local (metadata services), documentation, benchmarks, relays, and IPv6
// that carries an IPv4 address inside.
var forbidden = prefixes(
	"0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 " +
		"192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 " +
		"2001::/23 2001:db8::/32 2002::/16 3fff::/20")

// public is the only part of IPv6 in which hosts of the internet live; NAT64,
// unique local, link-local and mapped addresses are outside it.
var public = netip.MustParsePrefix("2000::/3")

// Forbidden returns the ranges that look like hosts of the public internet and are
// not, multicast included.
func Forbidden() []netip.Prefix { return slices.Clone(forbidden) }

func prefixes(list string) []netip.Prefix {
	var out []netip.Prefix
	for s := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Dialer connects. Its methods may be called at once.
type Dialer struct {
	allow []rule
	dial  net.Dialer
	// own returns this machine's addresses.
	own func() ([]netip.Addr, error)
}

// rule is an exception; port 0 means any.
type rule struct {
	net  netip.Prefix
	port uint16
}

// New returns a dialer that refuses all but the public internet and the given
// exceptions: "10.1.2.3", "10.1.0.0/16", "127.0.0.1:5000", "[::1]:5000".
func New(allow []string) (*Dialer, error) {
	d := &Dialer{own: ownAddrs}
	for _, s := range allow {
		r, err := newRule(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no address, prefix or address and port: %w", s, err)
		}
		d.allow = append(d.allow, r)
	}
	d.dial = net.Dialer{
		Timeout: 15 * time.Second,
		ControlContext: func(_ context.Context, network, address string, c syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %s", ErrForbidden, address)
			}
			if err := d.Check(ap); err != nil || !strings.HasPrefix(network, "udp") {
				return err
			}
			return toOneHost(c)
		},
	}
	return d, nil
}

func newRule(s string) (rule, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return rule{net: p}, err
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return rule{net: netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()), port: ap.Port()}, nil
	}
	a, err := netip.ParseAddr(s)
	return rule{net: netip.PrefixFrom(a, a.BitLen())}, err
}

// DialContext is net.Dialer's for "tcp" and "udp" networks. An address that is
// not allowed gives an error matching [ErrForbidden].
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return d.dial.DialContext(ctx, network, address)
	}
	return nil, fmt.Errorf("%w: network %q", ErrForbidden, network)
}

// Check judges an address as DialContext does. Errors match [ErrForbidden].
func (d *Dialer) Check(ap netip.AddrPort) error {
	a := ap.Addr().Unmap().WithZone("")
	for _, r := range d.allow {
		if r.net.Contains(a) && (r.port == 0 || r.port == ap.Port()) {
			return nil
		}
	}
	if !isPublic(a) {
		return fmt.Errorf("%w: %s is not on the public internet", ErrForbidden, ap)
	}
	own, err := d.own()
	if err != nil { // of no address it is known then that it is another's
		return fmt.Errorf("%w: %s, while this machine's own addresses are not known: %w", ErrForbidden, ap, err)
	}
	if slices.Contains(own, a) {
		return fmt.Errorf("%w: %s is this machine", ErrForbidden, ap)
	}
	return nil
}

// CheckNet judges a whole network: ErrForbidden when no address of it can be
// reached at a port, 0 for any.
func (d *Dialer) CheckNet(n netip.Prefix, port uint16) error {
	if n.IsSingleIP() && port != 0 {
		return d.Check(netip.AddrPortFrom(n.Addr(), port))
	}
	for _, r := range d.allow {
		if r.net.Overlaps(n) && (port == 0 || r.port == 0 || r.port == port) {
			return nil
		}
	}
	for _, p := range forbidden {
		if p.Bits() <= n.Bits() && p.Contains(n.Addr()) {
			return fmt.Errorf("%w: %s is not on the public internet", ErrForbidden, n)
		}
	}
	return nil
}

func isPublic(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.Is6() && !public.Contains(a) {
		return false
	}
	for _, p := range forbidden {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

func ownAddrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap().WithZone(""))
		}
	}
	return out, nil
}
