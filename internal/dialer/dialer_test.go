package dialer

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestCheck(t *testing.T) {
	d, err := New([]string{"10.9.0.0/16", "127.0.0.1:5000", "192.168.1.5"})
	if err != nil {
		t.Fatal(err)
	}
	d.own = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("8.8.4.4")}, nil }
	for _, c := range []struct {
		addr string
		ok   bool
	}{
		{"1.1.1.1:443", true},
		{"[2606:4700::1111]:443", true},
		{"[::ffff:1.1.1.1]:443", true},
		{"127.0.0.1:5000", true},
		{"10.9.1.2:80", true},
		{"192.168.1.5:1", true},
		{"[::ffff:127.0.0.1]:5000", true},
		{"127.0.0.1:5001", false},
		{"8.8.4.4:443", false},
		{"0.0.0.0:80", false},
		{"10.0.0.1:80", false},
		{"100.64.0.1:80", false},
		{"169.254.169.254:80", false},
		{"172.31.255.255:80", false},
		{"192.0.2.1:80", false},
		{"192.168.1.6:80", false},
		{"198.18.0.1:80", false},
		{"224.0.0.1:80", false},
		{"255.255.255.255:80", false},
		{"[::]:80", false},
		{"[::1]:80", false},
		{"[::ffff:10.0.0.1]:80", false},
		{"[::10.0.0.1]:80", false},
		{"[64:ff9b::a00:1]:80", false},
		{"[64:ff9b:1::a00:1]:80", false},
		{"[2002:a00:1::1]:80", false},
		{"[2001:0:1::1]:80", false},
		{"[2001:db8::1]:80", false},
		{"[fc00::1]:80", false},
		{"[fd00:ec2::254]:80", false},
		{"[fe80::1%eth0]:80", false},
		{"[fec0::1]:80", false},
		{"[ff02::1]:80", false},
		{"[100::1]:80", false},
	} {
		err := d.Check(netip.MustParseAddrPort(c.addr))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: got %v, want allowed %v", c.addr, err, c.ok)
		}
	}
}

// TestUnknownOwnAddresses shows that nothing is allowed, but the exceptions, while
// the machine cannot say which addresses are its own.
func TestUnknownOwnAddresses(t *testing.T) {
	d, err := New([]string{"127.0.0.1:5000"})
	if err != nil {
		t.Fatal(err)
	}
	d.own = func() ([]netip.Addr, error) { return nil, errors.New("too many open files") }
	if err := d.Check(netip.MustParseAddrPort("1.1.1.1:443")); !errors.Is(err, ErrForbidden) {
		t.Errorf("got %v, want that it is forbidden", err)
	}
	if err := d.Check(netip.MustParseAddrPort("127.0.0.1:5000")); err != nil {
		t.Errorf("an exception: %v", err)
	}
}

func TestRules(t *testing.T) {
	for _, bad := range []string{"", "example.com", "10.0.0.0/33", "1.2.3.4:99999"} {
		if _, err := New([]string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestDial shows that the resolved address is judged, after a redirect too.
func TestDial(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }))
	defer inner.Close()
	_, port, _ := net.SplitHostPort(inner.Listener.Addr().String())
	outer := httptest.NewServer(http.RedirectHandler("http://localhost:"+port, http.StatusFound))
	defer outer.Close()
	d, err := New([]string{outer.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(outer.URL)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, ErrForbidden) {
		t.Errorf("a redirect to localhost: got %v, want %v", err, ErrForbidden)
	}
	if _, err := d.DialContext(t.Context(), "unix", "/dev/log"); !errors.Is(err, ErrForbidden) {
		t.Errorf("a unix socket: got %v, want %v", err, ErrForbidden)
	}
}
