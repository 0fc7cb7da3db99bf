package kernelnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// TestCompile shows what a tenant's wish becomes.
func TestCompile(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, c := range []struct {
		name   string
		egress container.Egress
		want   Plan
	}{
		{"nothing", container.Egress{}, Plan{}},
		{"the internet", container.Egress{Public: true}, Plan{All: true}},
		{"networks", container.Egress{Allow: []string{"192.0.2.0/24:443", "192.0.2.7:*"}}, Plan{Places: []Place{{prefix("192.0.2.0/24"), 443}, {prefix("192.0.2.7/32"), 0}}}},
		{"names", container.Egress{Allow: []string{"example.org:443", "*.example.org:80", "a.example:443", "b.example:*"}}, Plan{Named: []uint16{0, 80, 443}}},
	} {
		got, err := Compile(c.egress)
		if err != nil || got.All != c.want.All || !slices.Equal(got.Places, c.want.Places) || !slices.Equal(got.Named, c.want.Named) {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	many := make([]string, container.MaxAllow+1)
	for i := range many {
		many[i] = fmt.Sprintf("192.0.2.%d:80", i)
	}
	for name, e := range map[string]container.Egress{
		"too many":    {Allow: many},
		"both":        {Public: true, Allow: many[:1]},
		"no place":    {Allow: []string{"; drop"}},
		"no port":     {Allow: []string{"192.0.2.7"}},
		"a wide mask": {Allow: []string{"192.0.2.0/33:80"}},
	} {
		if got, err := Compile(e); !errors.Is(err, container.CodeInvalidSpec) || got.All || got.Places != nil || got.Named != nil {
			t.Errorf("%s: got %+v, %v, want %q and no plan", name, got, err, string(container.CodeInvalidSpec))
		}
	}
}

// TestNever compares the networks to which nobody is led with how the dialer judges
// each address, at the edges of networks and elsewhere.
func TestNever(t *testing.T) {
	deny := []netip.Prefix{netip.MustParsePrefix("9.9.9.0/24"), netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("2001:db8::/32"), {}}
	never := Never(deny)
	for i, p := range never {
		for _, q := range never[:i] {
			if p.Overlaps(q) {
				t.Errorf("%s and %s overlap", p, q)
			}
		}
	}
	d, err := dialer.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(a netip.Addr) {
		t.Helper()
		denied := netip.MustParsePrefix("9.9.9.0/24").Contains(a)
		want := denied || d.CheckNet(netip.PrefixFrom(a, 32), 0) != nil || netstack.Subnet.Contains(a)
		if got := slices.ContainsFunc(never, func(p netip.Prefix) bool { return p.Contains(a) }); got != want {
			t.Errorf("%s: got %v, want %v", a, got, want)
		}
	}
	for _, p := range append(dialer.Forbidden(), append(deny[:2:2], netstack.Subnet, Between)...) {
		if !p.Addr().Is4() {
			continue
		}
		first := p.Masked().Addr()
		last := first.As4()
		for i := p.Bits(); i < 32; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		for _, a := range []netip.Addr{first, first.Prev(), netip.AddrFrom4(last), netip.AddrFrom4(last).Next()} {
			if a.Is4() {
				check(a)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		v := random.Uint32()
		check(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}))
	}
	if all := Never([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}); len(all) != 1 || all[0].Bits() != 0 {
		t.Errorf("to deny everything gives %v", all)
	}
}

// TestLearned shows that whoever tells of names is not believed everything.
func TestLearned(t *testing.T) {
	plan, err := Compile(container.Egress{Allow: []string{"192.0.2.0/24:80", "example.org:443"}})
	if err != nil {
		t.Fatal(err)
	}
	good := Learned{Address: netip.MustParseAddr("192.0.2.7"), Port: 443, Hold: time.Minute}
	if err := good.check(plan); err != nil || good.hold() != time.Minute {
		t.Errorf("got %v and %v", err, good.hold())
	}
	for name, edit := range map[string]func(*Learned){
		"the port of a network":     func(l *Learned) { l.Port = 80 },
		"any port":                  func(l *Learned) { l.Port = 0 },
		"another protocol":          func(l *Learned) { l.Address = netip.MustParseAddr("2001:db8::1") },
		"no address":                func(l *Learned) { l.Address = netip.Addr{} },
		"another protocol's mapped": func(l *Learned) { l.Address = netip.MustParseAddr("::ffff:192.0.2.7") },
	} {
		l := good
		edit(&l)
		if l.check(plan) == nil {
			t.Errorf("%s was believed", name)
		}
	}
	for _, hold := range []time.Duration{-1, 0, 1 << 62} {
		if h := (Learned{Hold: hold}).hold(); h < time.Second || h > maxHold {
			t.Errorf("an address for %v counts for %v", hold, h)
		}
	}
	if good.check(Plan{All: true}) == nil || good.check(Plan{}) == nil {
		t.Error("a container without a list has learned")
	}
}
