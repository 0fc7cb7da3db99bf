package lease_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

// TestCheckVolumes: a manifest with volumes needs an offer that has them
// [SERVICE-36].
func TestCheckVolumes(t *testing.T) {
	m := manifest()
	m.Volumes = []lease.Volume{{Name: "data", SizeBytes: lease.MinVolumeBytes}}
	for _, has := range []bool{false, true} {
		o := offer().Body
		o.Volumes = has
		if err := lease.CheckVolumes(o, m); (err == nil) != has || err != nil && !errors.Is(err, lease.CodeCapacity) {
			t.Errorf("an offer with volumes %v: got %v", has, err)
		}
		if err := lease.CheckVolumes(o, manifest()); err != nil {
			t.Errorf("an offer with volumes %v: got %v for a manifest without", has, err)
		}
	}
}

// TestCheckNetwork: what a manifest asks for is held against what the offer
// states [LEASE-35].
func TestCheckNetwork(t *testing.T) {
	m := networked()
	if got, want := m.Network(), (market.Network{Egress: true, Ports: 2, BytesPerSecond: 1 << 20}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if got := m.Services[0].PublishedPorts(); !slices.Equal(got, []uint64{53, 8080}) {
		t.Errorf("got ports %v", got)
	}
	if got := manifest().Network(); !got.IsZero() {
		t.Errorf("got %+v of a manifest that asks for none", got)
	}
	for _, c := range []struct {
		name string
		edit func(*market.Network)
		want bool
	}{
		{"enough", func(*market.Network) {}, true},
		{"no bound", func(n *market.Network) { n.BytesPerSecond = 0 }, true},
		{"nothing", func(n *market.Network) { *n = market.Network{} }, false},
		{"no egress", func(n *market.Network) { n.Egress = false }, false},
		{"no ports", func(n *market.Network) { n.Ports = 0 }, false},
		{"a port too few", func(n *market.Network) { n.Ports = 1 }, false},
		{"a byte too few", func(n *market.Network) { n.BytesPerSecond-- }, false},
	} {
		o := offer().Body
		o.Network = market.Network{Egress: true, Ports: 2, BytesPerSecond: 1 << 20}
		c.edit(&o.Network)
		if err := lease.CheckNetwork(o, m); (err == nil) != c.want || err != nil && !errors.Is(err, lease.CodeNetwork) {
			t.Errorf("%s: got %v, want it granted %v", c.name, err, c.want)
		}
		if err := lease.CheckNetwork(o, manifest()); err != nil {
			t.Errorf("%s: got %v for a manifest that asks for none", c.name, err)
		}
	}
}
