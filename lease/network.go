package lease

import (
	"cmp"
	"slices"

	"github.com/pkt-cash/pkt-cloud/internal/reach"
	"github.com/pkt-cash/pkt-cloud/market"
)

// EgressPublic as the only entry of [Service].Egress is all of the public
// internet.
const EgressPublic = "public"

// Protocols of a [PublishedPort].
const (
	TCP = "tcp"
	UDP = "udp"
)

// PublishedPort is a port of a service that shall be reached from outside the
// lease [SERVICE-18]. The provider chooses the port at which it is, and tells.
type PublishedPort struct {
	Port     uint64 `cbor:"port" json:"port"`
	Protocol string `cbor:"protocol" json:"protocol" enum:"tcp,udp"`
}

// Network is what the services need of a provider's network together
// [LEASE-35]. The manifest has been validated. A port that is published over TCP
// and over UDP counts once: it has one number outside.
func (m Manifest) Network() market.Network {
	var n market.Network
	for _, s := range m.Services {
		n.Egress = n.Egress || len(s.Egress) > 0
		n.BytesPerSecond = max(n.BytesPerSecond, s.Bandwidth)
		n.Ports += uint64(len(s.PublishedPorts()))
	}
	return n
}

// PublishedPorts are the numbers of the ports that a service publishes,
// ascending, each once.
func (s Service) PublishedPorts() []uint64 {
	var out []uint64
	for _, p := range s.Publish {
		if len(out) == 0 || out[len(out)-1] != p.Port {
			out = append(out, p.Port)
		}
	}
	return out
}

// CheckNetwork says whether an offer grants what a manifest asks of the
// provider's network [LEASE-35]. Both sides call it. Errors match [CodeNetwork].
func CheckNetwork(o market.Offer, m Manifest) error {
	if lacks := o.Network.Lacks(m.Network()); lacks != "" {
		return Refusal(CodeNetwork, "%s; choose another offer, or ask for less", lacks)
	}
	return nil
}

// ComparePublished orders published ports: by number, TCP before UDP.
func ComparePublished(a, b PublishedPort) int {
	return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
}

// validateNetwork checks what a service asks of the provider's network
// [SERVICE-16] [SERVICE-17] [SERVICE-18].
func (s Service) validateNetwork() error {
	if len(s.Egress) > MaxEgress {
		return Refusal(CodeManifest, "a service connects to at most %d places", MaxEgress)
	}
	for i, e := range s.Egress {
		if e == EgressPublic && len(s.Egress) == 1 {
			continue
		}
		if e == EgressPublic {
			return Refusal(CodeManifest, "egress is %q, or a list of places, and not both", EgressPublic)
		}
		if _, err := reach.Parse(e); err != nil {
			return Refusal(CodeManifest, "egress %.80q is %v", e, err)
		}
		if slices.Contains(s.Egress[:i], e) {
			return Refusal(CodeManifest, "egress names %.80q twice", e)
		}
	}
	if len(s.Publish) > MaxPublish {
		return Refusal(CodeManifest, "a service publishes at most %d ports", MaxPublish)
	}
	for i, p := range s.Publish {
		if p.Port == 0 || p.Port > 65535 || p.Protocol != TCP && p.Protocol != UDP {
			return Refusal(CodeManifest, "a published port is 1 to 65535, over %q or %q", TCP, UDP)
		}
		if i > 0 && ComparePublished(s.Publish[i-1], p) >= 0 {
			return Refusal(CodeManifest, "published ports ascend, %q before %q, each once", TCP, UDP)
		}
	}
	switch {
	case s.Job && len(s.Publish) > 0:
		return Refusal(CodeManifest, "a job publishes no port")
	case s.Bandwidth != 0 && (s.Bandwidth < market.MinBandwidth || s.Bandwidth > market.MaxBandwidth):
		return Refusal(CodeManifest, "a bandwidth is %d to %d bytes a second", market.MinBandwidth, market.MaxBandwidth)
	case s.Bandwidth != 0 && len(s.Egress) == 0 && len(s.Publish) == 0:
		return Refusal(CodeManifest, "a bandwidth bounds nothing where a service has neither egress nor published ports")
	}
	return nil
}
