package services_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

var (
	here  = netip.MustParseAddr("127.0.0.1")
	there = netip.MustParseAddr("127.0.0.2")
)

// portsOf are 20000 to 20009 of some addresses, of which programs have a few.
func portsOf(used map[string]bool, addrs ...netip.Addr) services.Ports {
	return services.Ports{
		Addresses: addrs, First: 20000, Last: 20009,
		Unused: func(at netip.AddrPort, protocol string) bool { return !used[protocol+" "+at.String()] },
		Random: func(n int) int { return n - 2 },
	}
}

func named(names ...string) services.Set {
	var s services.Set
	for _, n := range names {
		s.Services = append(s.Services, services.Service{Name: n})
	}
	return s
}

// TestGive: a port outside is one that nobody has, the same as inside where that
// can be, and one for both protocols [SERVICE-19].
func TestGive(t *testing.T) {
	tcp, both := []string{container.TCP}, []string{container.TCP, container.UDP}
	want := func(service int, inside uint16, protocols []string) services.Wanted {
		return services.Wanted{Service: service, Inside: inside, Protocols: protocols}
	}
	for name, c := range map[string]struct {
		ports  services.Ports
		wanted []services.Wanted
		got    []string // published ports, and empty for none
	}{
		"nothing":                  {portsOf(nil, here), nil, nil},
		"the same as inside":       {portsOf(nil, here), []services.Wanted{want(0, 20003, both)}, []string{"127.0.0.1:20003/tcp", "127.0.0.1:20003/udp"}},
		"of none of the numbers":   {portsOf(nil, here), []services.Wanted{want(0, 80, tcp)}, []string{"127.0.0.1:20008/tcp"}},
		"one after another":        {portsOf(nil, here), []services.Wanted{want(0, 80, tcp), want(1, 80, tcp), want(1, 81, tcp)}, []string{"127.0.0.1:20008/tcp", "127.0.0.1:20009/tcp", "127.0.0.1:20000/tcp"}},
		"what a program has":       {portsOf(map[string]bool{"tcp 127.0.0.1:20003": true}, here), []services.Wanted{want(0, 20003, tcp)}, []string{"127.0.0.1:20008/tcp"}},
		"what it has by one":       {portsOf(map[string]bool{"udp 127.0.0.1:20003": true}, here), []services.Wanted{want(0, 20003, both)}, []string{"127.0.0.1:20008/tcp", "127.0.0.1:20008/udp"}},
		"what it has by the other": {portsOf(map[string]bool{"udp 127.0.0.1:20003": true}, here), []services.Wanted{want(0, 20003, tcp)}, []string{"127.0.0.1:20003/tcp"}},
		"another address":          {portsOf(map[string]bool{"tcp 127.0.0.1:20003": true}, here, there), []services.Wanted{want(0, 20003, tcp)}, []string{"127.0.0.2:20003/tcp"}},
		"the same of two services": {portsOf(nil, here), []services.Wanted{want(0, 20003, tcp), want(1, 20003, tcp)}, []string{"127.0.0.1:20003/tcp", "127.0.0.1:20008/tcp"}},
		"no address for any":       {portsOf(nil), []services.Wanted{want(0, 20003, tcp)}, nil},
		"the second cannot be had": {services.Ports{Addresses: []netip.Addr{here}, First: 1, Last: 1, Unused: func(netip.AddrPort, string) bool { return true }, Random: func(int) int { return 0 }}, []services.Wanted{want(0, 1, tcp), want(1, 1, tcp)}, nil},
	} {
		set := named("web", "db")
		err := c.ports.Give(set, c.wanted, nil)
		if (err == nil) != (c.got != nil || c.wanted == nil) {
			t.Errorf("%s: got %v", name, err)
		}
		var got []string
		for _, w := range c.wanted {
			for _, p := range set.Services[w.Service].Network.Publish {
				if text := netip.AddrPortFrom(p.Host, p.Port).String() + "/" + p.Protocol; p.Inside == w.Inside && !slices.Contains(got, text) {
					got = append(got, text)
				}
			}
		}
		if !slices.Equal(got, c.got) {
			t.Errorf("%s: got %v, want %v", name, got, c.got)
		}
	}
}

// TestGiveLeavesOthers: what a set has no other gets, until all are given
// [SERVICE-19].
func TestGiveLeavesOthers(t *testing.T) {
	p := portsOf(nil, here)
	var sets []services.Set
	seen := map[netip.AddrPort]bool{}
	for i := range 10 {
		set := named("web")
		if err := p.Give(set, []services.Wanted{{Inside: 20003, Protocols: []string{container.TCP, container.UDP}}}, sets); err != nil {
			t.Fatal(i, err)
		}
		at := set.Published()
		if len(at) != 1 || seen[at[0]] || len(set.Services[0].Network.Publish) != 2 {
			t.Errorf("set %d: got %v after %v, want one of its own for both protocols", i, at, seen)
		}
		seen[at[0]] = true
		sets = append(sets, set)
	}
	last := named("web")
	if err := p.Give(last, []services.Wanted{{Inside: 1, Protocols: []string{container.TCP}}}, sets); err == nil || !reflect.DeepEqual(last, named("web")) {
		t.Errorf("got %v and %+v when all are given", err, last)
	}
	if got := p.Count(); got != 10 {
		t.Errorf("got %d ports, want 10", got)
	}
	if got := portsOf(nil).Count(); got != 0 {
		t.Errorf("got %d ports of no address", got)
	}
	if got := portsOf(nil, here, there).Count(); got != 20 {
		t.Errorf("got %d ports of two addresses", got)
	}
}
