package netstack

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// TestJudge tries what the owner's ceiling must hold back.
func TestJudge(t *testing.T) {
	j, err := newJudge(Ceiling{
		Deny: []netip.Prefix{netip.MustParsePrefix("9.9.9.0/24"), netip.MustParsePrefix("10.5.0.0/16")}, DenyPorts: []uint16{25},
		Allow: []string{"10.0.0.0/8", "192.168.7.7:5432"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to string
		ok bool
	}{
		{"8.8.8.8:443", true},
		{"8.8.8.8:25", false},
		{"9.9.9.9:443", false},
		{"10.1.2.3:80", true},
		{"10.5.0.1:80", false}, // denied before it is excepted
		{"10.213.0.9:80", false},
		{"192.168.7.7:5432", true},
		{"192.168.7.7:80", false},
		{"127.0.0.1:80", false},
		{"0.0.0.0:80", false},
		{"169.254.169.254:80", false},
		{"100.64.0.1:80", false},
		{"172.16.0.1:80", false},
		{"224.0.0.1:80", false},
		{"255.255.255.255:80", false},
		{"[::ffff:8.8.8.8]:80", false},
		{"[2606:4700::1111]:80", false},
	} {
		if err := j.check(netip.MustParseAddrPort(c.to)); c.ok != (err == nil) || err != nil && !errors.Is(err, dialer.ErrForbidden) {
			t.Errorf("%s: got %v, want allowed %v", c.to, err, c.ok)
		}
	}
	for a, want := range map[string]bool{"8.8.8.8": true, "9.9.9.9": false, "192.168.7.7": true, "192.168.7.8": false, "127.0.0.1": false} {
		if got := j.reachable(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: got reachable %v, want %v", a, got, want)
		}
	}
}

// TestEgress learns and forgets addresses of names.
func TestEgress(t *testing.T) {
	e, err := newEgress(container.Egress{Allow: []string{"example.org:443", "192.0.2.0/24:80"}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_000_000, 0)
	a := netip.MustParseAddr("8.8.8.8")
	https, http := netip.AddrPortFrom(a, 443), netip.AddrPortFrom(a, 80)
	if e.allows(https, at) {
		t.Error("an address is allowed before its name was asked for")
	}
	e.learn("other.org", a, time.Hour, at)
	if e.allows(https, at) {
		t.Error("an address of another name is allowed")
	}
	e.learn("example.org", a, time.Minute, at)
	if !e.allows(https, at) || e.allows(http, at) {
		t.Error("want port 443 allowed, and no other")
	}
	if !e.allows(https, at.Add(NameHold-1)) || e.allows(https, at.Add(NameHold)) {
		t.Errorf("want it allowed for %v, and not longer", NameHold)
	}
	for i := range 3 * maxLearned {
		e.learn("example.org", netip.AddrFrom4([4]byte{8, 0, byte(i >> 8), byte(i)}), 0, at.Add(time.Duration(i)))
	}
	if len(e.learned) > maxLearned {
		t.Errorf("%d addresses are kept, at most %d", len(e.learned), maxLearned)
	}
	if !e.allows(netip.MustParseAddrPort("192.0.2.9:80"), at) || e.allows(netip.MustParseAddrPort("192.0.3.9:80"), at) {
		t.Error("want the prefix allowed, and nothing beside it")
	}
}

// TestBucket takes more than there is.
func TestBucket(t *testing.T) {
	b := newBucket(1 << 20)
	begun := time.Now()
	for range 4 {
		if err := b.wait(t.Context(), 1<<17); err != nil {
			t.Fatal(err)
		}
	}
	if took, least := time.Since(begun), 350*time.Millisecond; took < least {
		t.Errorf("half a second's bytes took %v, want at least %v", took, least)
	}
	if b.take(1 << 19) {
		t.Error("an empty bucket gave half a second's bytes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.wait(ctx, 1<<30); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to end with its context", err)
	}
}
