package manifest

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/lease"
)

// Words of an egress.
const (
	egressNone   = "none"
	egressPublic = lease.EgressPublic
)

// Egress reads where a service may connect outside its lease: nothing or
// "none", "public", or places such as "example.org:443". Errors match
// [lease.CodeManifest].
func Egress(list []string) ([]string, error) {
	if len(list) == 1 && list[0] == egressNone || len(list) == 0 {
		return nil, nil
	}
	if len(list) > 1 && (slices.Contains(list, egressNone) || slices.Contains(list, egressPublic)) {
		return nil, refuse("egress is %s, %s, or a list of places such as example.org:443", egressPublic, egressNone)
	}
	return slices.Clone(list), nil
}

// Publish reads the ports that a service publishes, in any order: "8080",
// "8080/tcp", "53/udp". Errors match [lease.CodeManifest].
func Publish(list []string) ([]lease.PublishedPort, error) {
	var out []lease.PublishedPort
	for _, text := range list {
		number, protocol, named := strings.Cut(text, "/")
		if !named {
			protocol = lease.TCP
		}
		if strings.Contains(number, ":") {
			return nil, refuse("publish %.40q names a port outside; the provider chooses that, so write the service's own port alone, such as 8080 or 53/udp", text)
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 || protocol != lease.TCP && protocol != lease.UDP {
			return nil, refuse("publish %.40q is no port of the service, such as 8080 or 53/udp", text)
		}
		out = append(out, lease.PublishedPort{Port: n, Protocol: protocol})
	}
	slices.SortFunc(out, lease.ComparePublished)
	return out, nil
}

// network fills in what a service asks of the provider's network.
func (e entry) network(s *lease.Service) (err error) {
	var places []string
	switch e.Egress.Kind {
	case 0:
	case yaml.ScalarNode:
		if places = []string{e.Egress.Value}; e.Egress.Value != egressNone && e.Egress.Value != egressPublic {
			return in("egress", refuse("egress %.40q is not %s, %s, or a list of places such as [\"example.org:443\"]", e.Egress.Value, egressPublic, egressNone))
		}
	case yaml.SequenceNode:
		if err := e.Egress.Decode(&places); err != nil {
			return in("egress", refuse("egress: %s", told(err)))
		}
	case yaml.DocumentNode, yaml.MappingNode, yaml.AliasNode:
		return in("egress", refuse("egress is %s, %s, or a list of places such as [\"example.org:443\"]", egressPublic, egressNone))
	}
	if s.Egress, err = Egress(places); err != nil {
		return in("egress", err)
	}
	if s.Publish, err = Publish(e.Publish); err != nil {
		return in("publish", err)
	}
	s.Bandwidth, err = size(e.Bandwidth, 0)
	return in("bandwidth", err)
}
