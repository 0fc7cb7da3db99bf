package libcontainer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pkt-cash/pkt-cloud/container"
	netdialer "github.com/pkt-cash/pkt-cloud/internal/dialer"
	"github.com/pkt-cash/pkt-cloud/internal/reach"
)

// NetworkConfig is what the owner of the machine lets containers do with its
// network, whatever their tenants ask for. The zero value lets those that ask
// reach the public internet except port 25, and publish ports on 127.0.0.1.
type NetworkConfig struct {
	// Deny are networks that no container may reach.
	Deny []netip.Prefix `json:",omitempty"`
	// DenyPorts are ports outside that no container may reach; nil means 25, by
	// which unasked mail is sent.
	DenyPorts []uint16 `json:",omitempty"`
	// AllowPrivate are exceptions that are not on the public internet:
	// "10.1.2.3", "10.1.0.0/16", "10.1.2.3:5432".
	AllowPrivate []string `json:",omitempty"`
	// PublishOn are the addresses of this machine on which containers may
	// publish ports, the usual one first; nil means 127.0.0.1.
	PublishOn []netip.Addr `json:",omitempty"`
	// PublishFirst and PublishLast are the ports that they may publish, both
	// inclusive; 0 means 1024 and 65535.
	PublishFirst, PublishLast uint16
	// Resolvers look public names up; nil means those of /etc/resolv.conf.
	Resolvers []netip.AddrPort `json:",omitempty"`
	// MaxConnections bounds how many connections a group has open with the
	// world; 0 means netstack.DefaultConnections.
	MaxConnections int
	// BytesPerSecond bounds what a group sends, and what it receives; 0 means
	// no bound.
	BytesPerSecond uint64
	// Kernel has the kernel forward what a container is allowed to send to the public
	// internet, in place of the process that carries the rest: faster, for a machine
	// that forwards and whose firewall lets it. [New] refuses with
	// [container.CodeMissingFeature] where that is not so.
	Kernel bool
	// KernelForwarded is the owner's word that the machine's firewall accepts what
	// comes from and goes to the interfaces of groups, "pktc-*", though it drops what
	// else is forwarded.
	KernelForwarded bool
	// MemoryBytes and MilliCPU bound the process that carries a group's
	// traffic; 0 means 128 MiB and 2000.
	MemoryBytes, MilliCPU uint64
}

func (c NetworkConfig) withDefaults() NetworkConfig {
	if c.DenyPorts == nil {
		c.DenyPorts = []uint16{25}
	}
	if c.PublishOn == nil {
		c.PublishOn = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	if c.PublishFirst == 0 {
		c.PublishFirst = 1024
	}
	if c.PublishLast == 0 {
		c.PublishLast = 1<<16 - 1
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 128 << 20
	}
	if c.MilliCPU == 0 {
		c.MilliCPU = 2000
	}
	return c
}

// published fills in where ports are published, or refuses them with
// [container.CodePortForbidden] [CONTAINER-57].
func (c NetworkConfig) published(ports []container.PublishedPort) ([]container.PublishedPort, error) {
	out := slices.Clone(ports)
	for i, p := range out {
		if !p.Host.IsValid() && len(c.PublishOn) > 0 {
			out[i].Host = c.PublishOn[0]
		}
		if !slices.Contains(c.PublishOn, out[i].Host) || p.Port < c.PublishFirst || p.Port > c.PublishLast {
			return nil, &container.Error{
				Code:   container.CodePortForbidden,
				Detail: fmt.Sprintf("port %s; offered are %v, ports %d to %d", p, c.PublishOn, c.PublishFirst, c.PublishLast),
			}
		}
	}
	return out, nil
}

// Refuses says why no container will ever reach a place, or "". Of a place of
// which some part can be reached, and of names, the addresses are judged when
// they are connected to.
func (c NetworkConfig) Refuses(p reach.Place) string {
	if p.Port != 0 && slices.Contains(c.withDefaults().DenyPorts, p.Port) {
		return fmt.Sprintf("this provider lets nobody connect to port %d", p.Port)
	}
	if !p.Net.IsValid() {
		return ""
	}
	if slices.ContainsFunc(c.Deny, func(d netip.Prefix) bool { return d.Bits() <= p.Net.Bits() && d.Contains(p.Net.Addr()) }) {
		return "this provider lets nobody connect there"
	}
	d, err := netdialer.New(c.AllowPrivate)
	if err != nil || d.CheckNet(p.Net, p.Port) != nil {
		return "that is not on the public internet"
	}
	return ""
}
