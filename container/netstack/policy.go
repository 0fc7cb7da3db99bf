package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// Ceiling is what the machine's owner lets containers reach, whatever their
// tenants ask for [CONTAINER-52]. The zero value is the public internet.
type Ceiling struct {
	// Deny are networks that none may reach.
	Deny []netip.Prefix
	// DenyPorts are ports that none may reach.
	DenyPorts []uint16
	// Allow are exceptions that are not on the public internet: "10.1.2.3",
	// "10.1.0.0/16", "10.1.2.3:5432".
	Allow []string
}

// judge is a ceiling at work.
type judge struct {
	ceiling Ceiling
	dialer  *dialer.Dialer
	ports   []uint16 // one of each that decides something
}

func newJudge(c Ceiling) (*judge, error) {
	d, err := dialer.New(c.Allow)
	if err != nil {
		return nil, err
	}
	j := &judge{ceiling: c, dialer: d, ports: []uint16{0}}
	for _, s := range c.Allow {
		if ap, err := netip.ParseAddrPort(s); err == nil && !strings.Contains(s, "/") {
			j.ports = append(j.ports, ap.Port())
		}
	}
	return j, nil
}

// check judges an address and port.
func (j *judge) check(to netip.AddrPort) error {
	a := to.Addr()
	if !a.Is4() || Subnet.Contains(a) {
		return fmt.Errorf("%w: %s", dialer.ErrForbidden, to)
	}
	if slices.Contains(j.ceiling.DenyPorts, to.Port()) || slices.ContainsFunc(j.ceiling.Deny, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return fmt.Errorf("%w: the owner denies %s", dialer.ErrForbidden, to)
	}
	return j.dialer.Check(to)
}

// reachable reports whether any port of an address may be reached.
func (j *judge) reachable(a netip.Addr) bool {
	return slices.ContainsFunc(j.ports, func(port uint16) bool { return j.check(netip.AddrPortFrom(a, port)) == nil })
}

// egress is what one container may reach.
type egress struct {
	public bool
	allow  []container.Allowed
	// told hears of each address learned, before the container does; it may be nil.
	told func(addr netip.Addr, port uint16, hold time.Duration)

	mu sync.Mutex
	// learned are the addresses that allowed names had, and until when they
	// count, by the index in allow.
	learned map[learnedKey]time.Time
}

type learnedKey struct {
	addr  netip.Addr
	entry int
}

func newEgress(e container.Egress) (*egress, error) {
	out := &egress{public: e.Public, learned: map[learnedKey]time.Time{}}
	for _, s := range e.Allow {
		a, err := container.ParseAllowed(s)
		if err != nil {
			return nil, err
		}
		out.allow = append(out.allow, a)
	}
	return out, nil
}

// allows reports whether the tenant wants the container to reach an address.
func (e *egress) allows(to netip.AddrPort, now time.Time) bool {
	if e.public {
		return true
	}
	for i, a := range e.allow {
		if a.Port != 0 && a.Port != to.Port() {
			continue
		}
		if a.Net.IsValid() {
			if a.Net.Contains(to.Addr()) {
				return true
			}
			continue
		}
		e.mu.Lock()
		until, ok := e.learned[learnedKey{to.Addr(), i}]
		e.mu.Unlock()
		if ok && now.Before(until) {
			return true
		}
	}
	return false
}

// allowsName reports whether the container may look a name up.
func (e *egress) allowsName(name string) bool {
	return e.public || slices.ContainsFunc(e.allow, func(a container.Allowed) bool { return a.MatchesName(name) })
}

// learn notes an address that a name has.
func (e *egress) learn(name string, addr netip.Addr, ttl time.Duration, now time.Time) {
	hold := min(max(ttl, NameHold), 24*time.Hour)
	until := now.Add(hold)
	for i, a := range e.allow {
		if !a.MatchesName(name) {
			continue
		}
		key := learnedKey{addr, i}
		e.mu.Lock()
		if _, known := e.learned[key]; !known && len(e.learned) >= maxLearned {
			e.forget(now)
		}
		e.learned[key] = until
		e.mu.Unlock()
		if e.told != nil {
			e.told(addr, a.Port, hold)
		}
	}
}

// forget makes room for one: what is over, or else what is over first.
func (e *egress) forget(now time.Time) {
	var first learnedKey
	for k, until := range e.learned {
		if !now.Before(until) {
			delete(e.learned, k)
		} else if t, ok := e.learned[first]; !ok || until.Before(t) {
			first = k
		}
	}
	if len(e.learned) >= maxLearned {
		delete(e.learned, first)
	}
}

// addrPort returns the address of a host's connection.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
