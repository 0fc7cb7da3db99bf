package container

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var allowedSeeds = []string{
	"192.0.2.0/24:443", "192.0.2.7:*", "0.0.0.0/0:80", "example.org:443", "*.example.org:*", "xn--bcher-kva.example:1",
}

func TestParseAllowed(t *testing.T) {
	for _, s := range allowedSeeds {
		if a, err := ParseAllowed(s); err != nil || a.String() != s {
			t.Errorf("%q: got %v, %v", s, a, err)
		}
	}
	for _, s := range []string{
		"", ":", "example.org", "example.org:", "example.org:0", "example.org:080", "example.org:65536", "example.org.:80", "Example.org:80",
		"*:80", "*.*.org:80", "a..b:80", "1.2.3:80", "192.0.2.1/24:80", "192.0.2.7/32:80", "192.0.2.0/33:80", "::1:80", "[::1]:80", "2000::/3:80",
		strings.Repeat("a.", 200) + "b:80", "ex ample:80", "-a.example:80",
	} {
		if a, err := ParseAllowed(s); !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%q: got %+v, %v, want it refused", s, a, err)
		}
	}
}

func TestAllowedMatchesName(t *testing.T) {
	for _, c := range []struct {
		entry, name string
		want        bool
	}{
		{"example.org:80", "example.org", true},
		{"example.org:80", "www.example.org", false},
		{"*.example.org:80", "www.example.org", true},
		{"*.example.org:80", "example.org", false},
		{"*.example.org:80", "badexample.org", false},
		{"*.example.org:80", ".example.org", false},
		{"192.0.2.7:80", "", false},
	} {
		a, err := ParseAllowed(c.entry)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.MatchesName(c.name); got != c.want {
			t.Errorf("%s and %q: got %v, want %v", c.entry, c.name, got, c.want)
		}
	}
}

func FuzzParseAllowed(f *testing.F) {
	for _, s := range allowedSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAllowed(s); err == nil && a.String() != s {
			t.Errorf("got %q, want %q", a, s)
		}
	})
}

func goodNetwork() Network {
	return Network{
		Group: "lease-1", Name: "db", Egress: Egress{Allow: []string{"example.org:443"}}, BytesPerSecond: 1 << 20,
		Publish: []PublishedPort{{Port: 8080, Inside: 80, Protocol: TCP}, {Host: netip.MustParseAddr("192.0.2.1"), Port: 8080, Inside: 80, Protocol: TCP}},
	}
}

// TestNetworkValidate has one fault for each case.
func TestNetworkValidate(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*Network)
		ok    bool
	}{
		{"nothing", func(*Network) {}, true},
		{"no network", func(n *Network) { *n = Network{} }, true},
		{"no egress", func(n *Network) { n.Egress = Egress{} }, true},
		{"no group", func(n *Network) { n.Group = "" }, false},
		{"group that climbs", func(n *Network) { n.Group = "../x" }, false},
		{"no name", func(n *Network) { n.Name = "" }, false},
		{"name of two parts", func(n *Network) { n.Name = "a.b" }, false},
		{"name that is taken", func(n *Network) { n.Name = "localhost" }, false},
		{"both egresses", func(n *Network) { n.Egress.Public = true }, false},
		{"bad egress", func(n *Network) { n.Egress.Allow = []string{"x"} }, false},
		{"too much egress", func(n *Network) { n.Egress.Allow = slices.Repeat(n.Egress.Allow, MaxAllow+1) }, false},
		{"too little bandwidth", func(n *Network) { n.BytesPerSecond = MinBandwidth - 1 }, false},
		{"no port outside", func(n *Network) { n.Publish[0].Port = 0 }, false},
		{"no port inside", func(n *Network) { n.Publish[0].Inside = 0 }, false},
		{"another protocol", func(n *Network) { n.Publish[0].Protocol = "sctp" }, false},
		{"mapped address", func(n *Network) { n.Publish[1].Host = netip.MustParseAddr("::ffff:192.0.2.1") }, false},
		{"port twice", func(n *Network) { n.Publish = append(n.Publish, n.Publish[0]) }, false},
		{"too many ports", func(n *Network) { n.Publish = make([]PublishedPort, MaxPublished+1) }, false},
	} {
		s := goodSpec()
		s.Network = goodNetwork()
		c.fault(&s.Network)
		if err := s.Validate(); c.ok != (err == nil) || err != nil && !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%s: got %v, want accepted %v", c.name, err, c.ok)
		}
	}
}

func TestNetworkEqual(t *testing.T) {
	a := goodNetwork()
	for i, change := range []func(*Network){
		func(n *Network) { n.Group = "x" }, func(n *Network) { n.Name = "x" }, func(n *Network) { n.BytesPerSecond = 0 },
		func(n *Network) { n.Egress.Public = true }, func(n *Network) { n.Egress.Allow = nil }, func(n *Network) { n.Publish[1].Port++ },
	} {
		b := goodNetwork()
		if change(&b); a.Equal(b) || !b.Equal(b) {
			t.Errorf("change %d was not seen", i)
		}
	}
}
