package kernelnet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// Between are the addresses that groups have towards the machine. They are of a
// range for measurements, which no container reaches and no network should have.
var Between = netip.MustParsePrefix("198.19.0.0/16")

// Limits of the fast path.
const (
	maxLearned = 4096 // addresses of allowed names, for each container
	maxHold    = 24 * time.Hour
	maxNew     = 4096 // connections begun in a second, for each group
)

// FlowSeconds is how long a flow of datagrams is known after its last one.
const FlowSeconds = 60

// Plan is where one container may connect by the fast path. The zero value is
// nowhere.
type Plan struct {
	// All is any address that [Never] does not hold.
	All bool
	// Places are, if All is false, the only ones besides Named.
	Places []Place
	// Named are the ports at which addresses of allowed names are reached, sorted;
	// 0 stands for all.
	Named []uint16
}

// Place is a network and a port, 0 for any.
type Place struct {
	Net  netip.Prefix
	Port uint16
}

// Compile makes a container's plan of what its tenant asked for. An entry of
// which it holds nothing that the fast path could carry is left out. Errors are
// [container.CodeInvalidSpec].
func Compile(e container.Egress) (Plan, error) {
	if err := (container.Network{Group: "g", Name: "n", Egress: e}).Validate(); err != nil {
		return Plan{}, err
	}
	if e.Public {
		return Plan{All: true}, nil
	}
	var p Plan
	for _, s := range e.Allow {
		a, err := container.ParseAllowed(s)
		if err != nil {
			return Plan{}, err
		}
		switch {
		case !a.Net.IsValid():
			p.Named = append(p.Named, a.Port)
		case a.Net.Addr().Is4():
			p.Places = append(p.Places, Place{a.Net.Masked(), a.Port})
		}
	}
	slices.Sort(p.Named)
	p.Named = slices.Compact(p.Named)
	return p, nil
}

// Never are the networks to which the fast path leads nobody, each once and in
// order: what is not on the public internet, also where the owner makes an
// exception, as those are the stack's to judge; and what the owner denies.
func Never(deny []netip.Prefix) []netip.Prefix {
	all := append(dialer.Forbidden(), netstack.Subnet)
	for _, p := range deny {
		if p.IsValid() && p.Addr().Is4() {
			all = append(all, p.Masked())
		}
	}
	all = slices.DeleteFunc(all, func(p netip.Prefix) bool { return !p.Addr().Is4() })
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range all { // networks are within one another or apart
		if len(out) == 0 || !out[len(out)-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// Learned is an address that an allowed name has, as the stack tells of it.
type Learned struct {
	Member, Address netip.Addr
	Port            uint16
	Hold            time.Duration
}

var errNotAsked = errors.New("no name that this container may connect to")

// check judges what the stack, which reads packets of strangers, says it learned.
func (l Learned) check(p Plan) error {
	if !l.Address.Is4() {
		return fmt.Errorf("%w: %s", errNotAsked, l.Address)
	}
	if !slices.Contains(p.Named, l.Port) || p.All {
		return fmt.Errorf("%w at port %d", errNotAsked, l.Port)
	}
	return nil
}

// hold is how long the address counts.
func (l Learned) hold() time.Duration { return min(max(l.Hold, time.Second), maxHold) }
