package libcontainer_test

import (
	"net/netip"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/reach"
)

// TestPlacesNobodyReaches: a place of which no address can be reached is refused
// [LEASE-36]; one of which some can is judged when it is connected to.
func TestPlacesNobodyReaches(t *testing.T) {
	c := libcontainer.NetworkConfig{Deny: []netip.Prefix{netip.MustParsePrefix("8.8.0.0/16")}, AllowPrivate: []string{"10.1.2.3:5432", "10.2.0.0/16"}}
	for text, want := range map[string]bool{
		"example.org:443": true, "*.example.org:*": true, "1.1.1.1:443": true, "1.0.0.0/8:*": true, "0.0.0.0/0:80": true, "8.0.0.0/8:53": true,
		"10.1.2.3:5432": true, "10.1.2.3:*": true, "10.0.0.0/8:5432": true, "10.2.7.0/24:1": true,
		"example.org:25": false, "1.1.1.1:25": false, "0.0.0.0/0:25": false, "8.8.8.8:53": false, "8.8.8.0/24:*": false,
		"10.1.2.3:80": false, "10.3.0.0/16:*": false, "10.0.0.0/8:80": true, // for 10.2.0.0/16
		"127.0.0.1:80": false, "169.254.169.254:80": false, "192.168.0.0/16:*": false, "100.100.0.0/16:443": false, "224.0.0.1:5353": false,
	} {
		p, err := reach.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if why := c.Refuses(p); (why == "") != want {
			t.Errorf("%s: got %q, want it reachable %v", text, why, want)
		}
	}
}
