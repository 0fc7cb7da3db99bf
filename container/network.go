package container

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/reach"
)

// Network is what a container may reach, and by what it is reached. The zero
// value is a loopback interface and nothing else [CONTAINER-9].
//
// Containers of one Group have a private network: each has an address of its
// own in it and finds the others by their names [CONTAINER-50]. A container of
// another group, or of none, reaches nothing in it.
type Network struct {
	// Group names the private network; like an id. A lease's containers are one
	// group.
	Group string
	// Name is by what the group's other containers find this one: a DNS label
	// that no other of the group has.
	Name string
	// Egress is where the container may connect outside its group.
	Egress Egress
	// Publish are ports of this machine that lead to the container, at most
	// [MaxPublished].
	Publish []PublishedPort
	// BytesPerSecond bounds what it sends outside its group, and what it
	// receives from there; 0 means no bound but the owner's.
	BytesPerSecond uint64
}

// Egress says where a container may connect. The zero value is nowhere. What
// the provider's owner refuses stays refused: unless the owner has said
// otherwise all that is not on the public internet [CONTAINER-52].
type Egress struct {
	// Public allows any host of the public internet.
	Public bool
	// Allow, if Public is false, are the only places: "192.0.2.0/24:443",
	// "192.0.2.7:*", "example.org:443", "*.example.org:443"; at most
	// [MaxAllow]. A name stands for the addresses that it had when the
	// container asked for it.
	Allow []string
}

// Protocols of a [PublishedPort].
const (
	TCP = "tcp"
	UDP = "udp"
)

// PublishedPort leads from an address and port of this machine to a port of
// the container [CONTAINER-57].
type PublishedPort struct {
	// Host is one of the addresses that the owner has set aside for this; the
	// zero value is the first of them.
	Host     netip.Addr
	Port     uint16
	Inside   uint16
	Protocol string // TCP or UDP
}

// NetworkStatus tells of a container's traffic with the world outside its
// group. The counts are of the bytes within TCP connections and UDP datagrams,
// without their headers, as far as they were handed on [CONTAINER-55].
type NetworkStatus struct {
	// Address is the container's in its group; invalid when it has no network.
	Address           netip.Addr
	BytesIn, BytesOut uint64
	// Refused counts connections and datagrams that no policy or limit let
	// through, Connections those which are open.
	Refused, Connections uint64
}

// Validate checks the shape of a network. Errors are [CodeInvalidSpec].
func (n Network) Validate() error {
	if n.Group == "" {
		if !n.Equal(Network{}) {
			return invalid("a network without a group")
		}
		return nil
	}
	if err := ValidateID(n.Group); err != nil {
		return err
	}
	if n.Name == "" || !isLabel(n.Name) || n.Name == "localhost" {
		return invalid("network name %.80q is no DNS label of at most %d characters", n.Name, MaxHostname)
	}
	if n.BytesPerSecond != 0 && n.BytesPerSecond < MinBandwidth {
		return invalid("%d bytes a second are fewer than %d", n.BytesPerSecond, MinBandwidth)
	}
	if err := n.Egress.validate(); err != nil {
		return err
	}
	return validatePublished(n.Publish)
}

// Equal reports whether two networks are the same.
func (n Network) Equal(o Network) bool {
	return n.Group == o.Group && n.Name == o.Name && n.BytesPerSecond == o.BytesPerSecond &&
		n.Egress.Public == o.Egress.Public && slices.Equal(n.Egress.Allow, o.Egress.Allow) &&
		slices.Equal(n.Publish, o.Publish)
}

func (e Egress) validate() error {
	if e.Public && len(e.Allow) > 0 {
		return invalid("egress is to the whole public internet and to a list; choose one")
	}
	if len(e.Allow) > MaxAllow {
		return invalid("%d places to connect to, at most %d", len(e.Allow), MaxAllow)
	}
	for _, s := range e.Allow {
		if _, err := ParseAllowed(s); err != nil {
			return err
		}
	}
	return nil
}

func validatePublished(ports []PublishedPort) error {
	if len(ports) > MaxPublished {
		return invalid("%d published ports, at most %d", len(ports), MaxPublished)
	}
	for i, p := range ports {
		if p.Port == 0 || p.Inside == 0 || p.Protocol != TCP && p.Protocol != UDP || p.Host.Zone() != "" || p.Host.Is4In6() {
			return invalid("published port %s is not a port outside and a port inside, each 1 to 65535, and tcp or udp", p)
		}
		for _, o := range ports[:i] {
			if o.Host == p.Host && o.Port == p.Port && o.Protocol == p.Protocol {
				return invalid("port %s is published twice", p)
			}
		}
	}
	return nil
}

// String returns for example "203.0.113.9:8080->80/tcp".
func (p PublishedPort) String() string {
	host := ""
	if p.Host.IsValid() {
		host = p.Host.String()
		if p.Host.Is6() {
			host = "[" + host + "]"
		}
	}
	return fmt.Sprintf("%s:%d->%d/%.8s", host, p.Port, p.Inside, p.Protocol)
}

// Allowed is one entry of [Egress].Allow.
type Allowed struct {
	// Net is the prefix, or invalid where a name is allowed.
	Net netip.Prefix
	// Name is in lower case, without a dot at the end; with Below it stands for
	// all names below it, and not for itself.
	Name  string
	Below bool
	// Port is 0 for any.
	Port uint16
}

// ParseAllowed reads one entry of [Egress].Allow. Errors are
// [CodeInvalidSpec].
func ParseAllowed(s string) (Allowed, error) {
	p, err := reach.Parse(s)
	if err != nil {
		return Allowed{}, invalid("%.80q is %v", s, err)
	}
	return Allowed(p), nil
}

// String is the inverse of [ParseAllowed].
func (a Allowed) String() string { return reach.Place(a).String() }

// MatchesName reports whether a name, in lower case and without a dot at the
// end, is one that the entry allows.
func (a Allowed) MatchesName(name string) bool {
	if a.Below {
		rest, ok := strings.CutSuffix(name, "."+a.Name)
		return ok && rest != ""
	}
	return a.Name != "" && a.Name == name
}
