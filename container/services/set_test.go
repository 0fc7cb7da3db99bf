package services

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestClassOfSet: all services of a set run in its class [LEASE-34].
func TestClassOfSet(t *testing.T) {
	set := Set{ID: "shop", Services: []Service{{Name: "web"}, {Name: "db"}}, Class: container.ClassGVisor}
	for _, v := range set.Services {
		if got := v.spec(set, 1).Class; got != container.ClassGVisor {
			t.Errorf("%s: got class %q", v.Name, got)
		}
	}
}

// TestEntrypointOfSet: what a service says of the entrypoint is said of its
// containers [SERVICE-37].
func TestEntrypointOfSet(t *testing.T) {
	set := Set{ID: "shop", Services: []Service{{Name: "web", Args: []string{"-v"}, Entrypoint: true}, {Name: "db", Args: []string{"-v"}}}}
	for i, want := range []bool{true, false} {
		if got := set.Services[i].spec(set, 1); got.Entrypoint != want || got.Args[0] != "-v" {
			t.Errorf("service %d: got %+v", i, got)
		}
	}
}

// TestNetworkOfSet: services of one set have a network together, one alone has
// none [SERVICE-15].
func TestNetworkOfSet(t *testing.T) {
	set := Set{ID: "shop", Services: []Service{{Name: "web"}, {Name: "db"}}}
	if got, want := set.Services[1].spec(set, 1).Network, (container.Network{Group: "shop", Name: "db"}); !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	set.Services = set.Services[:1]
	if got := set.Services[0].spec(set, 1).Network; !got.Equal(container.Network{}) {
		t.Errorf("got %+v for a service alone, want none", got)
	}
	port := container.PublishedPort{Port: 8080, Inside: 80, Protocol: container.TCP}
	for _, n := range []Network{
		{Egress: container.Egress{Public: true}}, {Egress: container.Egress{Allow: []string{"example.org:443"}}}, {Publish: []container.PublishedPort{port}},
	} {
		n.BytesPerSecond = 1 << 20
		set.Services[0].Network = n
		want := container.Network{Group: "shop", Name: "web", Egress: n.Egress, Publish: n.Publish, BytesPerSecond: 1 << 20}
		if got := set.Services[0].spec(set, 2).Network; !got.Equal(want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
