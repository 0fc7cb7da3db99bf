package node

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

var here = netip.MustParseAddr("127.0.0.1")

func TestParsePublishAddress(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.9": "203.0.113.9", "192.168.1.5=203.0.113.9": "203.0.113.9", "0.0.0.0=203.0.113.9": "203.0.113.9", "2001:db8::1": "2001:db8::1",
	} {
		a, err := ParsePublishAddress(text)
		if err != nil || a.told().String() != want {
			t.Errorf("%s: got %v, %v, want %s", text, a.told(), err, want)
		}
	}
	for _, text := range []string{"", "=", "example.org", "203.0.113.9=", "=203.0.113.9", "203.0.113.9:80", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "::ffff:203.0.113.9", "1.2.3.4=0.0.0.0", "2001:DB8::1"} {
		if a, err := ParsePublishAddress(text); err == nil {
			t.Errorf("%s: got %+v, want it refused", text, a)
		}
	}
}

func FuzzParsePublishAddress(f *testing.F) {
	for _, s := range []string{"203.0.113.9", "192.168.1.5=203.0.113.9", "2001:db8::1=::1", "0.0.0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParsePublishAddress(s)
		if err != nil {
			return
		}
		if again := []byte(a.String()); !bytes.Equal(again, []byte(s)) || a.validate() != nil {
			t.Errorf("got %s again from %q", again, s)
		}
	})
}

func TestLeaseNetworkValidate(t *testing.T) {
	good := LeaseNetwork{PublishOn: []PublishAddress{{On: here}}, BytesPerSecond: 1 << 20}.withDefaults()
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*LeaseNetwork){
		"ports in the wrong order": func(c *LeaseNetwork) { c.PublishFirst = c.PublishLast + 1 },
		"an address twice":         func(c *LeaseNetwork) { c.PublishOn = append(c.PublishOn, c.PublishOn[0]) },
		"not of this machine":      func(c *LeaseNetwork) { c.PublishOn[0].On = netip.MustParseAddr("203.0.113.9") },
		"no address":               func(c *LeaseNetwork) { c.PublishOn[0].On = netip.Addr{} },
		"any address, untold":      func(c *LeaseNetwork) { c.PublishOn[0].On = netip.IPv4Unspecified() },
		"too few bytes":            func(c *LeaseNetwork) { c.BytesPerSecond = market.MinBandwidth - 1 },
		"an exception of a name":   func(c *LeaseNetwork) { c.AllowPrivate = []string{"example.org:80"} },
	} {
		c := good
		c.PublishOn = slices.Clone(good.PublishOn)
		if edit(&c); c.validate() == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestUnused: a port that a program of this machine has is not given
// [SERVICE-19].
func TestUnused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	used := netip.MustParseAddrPort(l.Addr().String())
	if unused(used, lease.TCP) {
		t.Errorf("%s is unused, want that a program has it", used)
	}
	u, err := net.ListenPacket("udp", used.String())
	if err != nil {
		t.Skip(err)
	}
	if unused(used, lease.UDP) {
		t.Errorf("%s is unused, want that a program has it", used)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if !unused(used, lease.UDP) {
		t.Errorf("%s is used for datagrams, want it free for them", used)
	}
}

// TestLeaseNetworkConfig: what the owner allows is what the containers' runtime
// is told; without addresses nothing is published [SERVICE-21] [SERVICE-23].
func TestLeaseNetworkConfig(t *testing.T) {
	got := LeaseNetwork{}.withDefaults().config()
	if got.PublishOn == nil || len(got.PublishOn) != 0 || got.Kernel || got.KernelForwarded || !slices.Equal(got.DenyPorts, []uint16{25}) {
		t.Errorf("got %+v, want no addresses and no port 25", got)
	}
	deny := []netip.Prefix{netip.MustParsePrefix("8.8.0.0/16")}
	got = LeaseNetwork{
		Deny: deny, DenyPorts: []uint16{}, AllowPrivate: []string{"10.1.2.3:5432"}, PublishOn: []PublishAddress{{On: here, As: netip.MustParseAddr("203.0.113.9")}},
		PublishFirst: 1, PublishLast: 2, BytesPerSecond: 1 << 20, Kernel: true, KernelForwarded: true,
	}.withDefaults().config()
	if !slices.Equal(got.Deny, deny) || len(got.DenyPorts) != 0 || !slices.Equal(got.AllowPrivate, []string{"10.1.2.3:5432"}) ||
		!slices.Equal(got.PublishOn, []netip.Addr{here}) || got.PublishFirst != 1 || got.PublishLast != 2 || got.BytesPerSecond != 1<<20 ||
		!got.Kernel || !got.KernelForwarded {
		t.Errorf("got %+v", got)
	}
}
