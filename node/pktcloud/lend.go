package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// lendFlags say what leases may have of a provider's network.
type lendFlags struct {
	egress, ports, carrier string
	deny, on               []string
}

func (l *lendFlags) add(f *pflag.FlagSet, c *node.LeaseNetwork) {
	f.StringVar(&l.egress, "lease-egress", "public", "where services that ask for it may connect, with --provider: public or none")
	f.StringArrayVar(&l.deny, "lease-deny", []string{":25"}, "prefix, address or :port that no service may reach, besides what is not public;\n\"\" for none")
	f.StringArrayVar(&c.AllowPrivate, "lease-allow", nil, "address, address:port or prefix that is not public and that services may reach all the same")
	f.StringArrayVar(&l.on, "publish-on", nil, "address at which ports lead to services that publish some, with --provider; behind a router\nthis machine's and the one outside, such as 192.168.1.5=203.0.113.9 (default none)")
	f.StringVar(&l.ports, "publish-ports", fmt.Sprintf("%d-%d", node.DefaultPublishFirst, node.DefaultPublishLast), "ports there")
	f.StringVar(&l.carrier, "lease-network", "netstack", "what carries what services send to the internet, with --provider: netstack, a process for each\nlease, or kernel, which is faster and needs a machine that forwards")
	f.BoolVar(&c.KernelForwarded, "lease-network-forwarded", false, "with --lease-network kernel: this machine's firewall accepts what comes from and goes to\ninterfaces pktc-*, though it drops what else is forwarded")
	f.Var((*size)(&c.BytesPerSecond), "lease-bandwidth", "bytes a second that a lease may send, and receive, such as 10MiB (default any)")
}

// read fills in what the flags say.
func (l *lendFlags) read(c *node.LeaseNetwork) (err error) {
	if c.NoEgress = l.egress == "none"; !c.NoEgress && l.egress != "public" {
		return service.Errorf(service.CodeInvalid, "--lease-egress is public or none, not %q", l.egress)
	}
	if c.Kernel = l.carrier == "kernel"; !c.Kernel && l.carrier != "netstack" {
		return service.Errorf(service.CodeInvalid, "--lease-network is netstack or kernel, not %q", l.carrier)
	}
	if c.KernelForwarded && !c.Kernel {
		return service.Errorf(service.CodeInvalid, "--lease-network-forwarded is for --lease-network kernel")
	}
	c.DenyPorts = []uint16{}
	for _, s := range l.deny {
		if err := denied(c, s); err != nil {
			return err
		}
	}
	if c.PublishFirst, c.PublishLast, err = portRange(l.ports); err != nil {
		return err
	}
	for _, s := range l.on {
		a, err := node.ParsePublishAddress(s)
		if err != nil {
			return &service.Error{Code: service.CodeInvalid, Detail: "--publish-on", Err: err}
		}
		c.PublishOn = append(c.PublishOn, a)
	}
	return nil
}

func denied(c *node.LeaseNetwork, s string) error {
	if s == "" {
		return nil
	}
	if port, ok := strings.CutPrefix(s, ":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return service.Errorf(service.CodeInvalid, "--lease-deny %q is no port such as :25", s)
		}
		c.DenyPorts = append(c.DenyPorts, uint16(n))
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if a, e := netip.ParseAddr(s); e == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return service.Errorf(service.CodeInvalid, "--lease-deny %q is no prefix, address or port such as 198.51.100.0/24 or :25", s)
	}
	c.Deny = append(c.Deny, p.Masked())
	return nil
}

// portRange reads "20000-29999" or a single port.
func portRange(s string) (first, last uint16, err error) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		to = from
	}
	a, e1 := strconv.ParseUint(from, 10, 16)
	b, e2 := strconv.ParseUint(to, 10, 16)
	if e1 != nil || e2 != nil || a == 0 || a > b {
		return 0, 0, service.Errorf(service.CodeInvalid, "--publish-ports %q are no ports such as 20000-29999", s)
	}
	return uint16(a), uint16(b), nil
}

// volumesText says whether an offer has volumes.
func volumesText(has bool) string {
	if has {
		return "yes"
	}
	return "-"
}

// networkText is what an offer grants of the provider's network.
func networkText(n market.Network) string {
	var out []string
	if n.Egress {
		out = append(out, "out")
	}
	if n.Ports > 0 {
		out = append(out, counted(n.Ports, "port"))
	}
	if n.BytesPerSecond > 0 {
		out = append(out, byteText(n.BytesPerSecond)+"/s")
	}
	return orDash(strings.Join(out, ", "))
}
