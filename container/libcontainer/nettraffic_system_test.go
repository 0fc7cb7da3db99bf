//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// trafficWorld has an image with bench/network/traffic in it.
func trafficWorld(t *testing.T, change func(*libcontainer.NetworkConfig)) *world {
	t.Helper()
	w := networkWorld(t, change)
	w.UseTraffic()
	return w
}

// TestNetworkCounts compares the counters with what was sent, to the byte; on the
// fast path with what TCP sent again, if it did.
func TestNetworkCounts(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		in := boxtest.NewInternet(t)
		boxtest.NetCounts(newWorld(t).World, in)
	})
}

// TestNetworkBandwidth measures how long a bounded container takes. Each way it
// may borrow a tenth of a second's bytes, and buffers hold the rest up.
func TestNetworkBandwidth(t *testing.T) { eachWay(t, testBandwidth) }

func testBandwidth(t *testing.T) {
	boxtest.NewInternet(t)
	t.Run("container", func(t *testing.T) { bounded(t, false) })
	if boxtest.OnFastPath(t) {
		t.Run("group", func(t *testing.T) { bounded(t, true) })
	}
}

// bounded is a container, or a group, that sends and receives 1 MiB a second.
func bounded(t *testing.T, group bool) {
	w := trafficWorld(t, func(c *libcontainer.NetworkConfig) {
		if group {
			c.BytesPerSecond = 1 << 20
		}
	})
	s := w.Member("slow", "g", "slow", boxtest.Public)
	if !group {
		s.Network.BytesPerSecond = 1 << 20
	}
	w.Start(s)
	for _, c := range [][]string{{"send", "8.8.8.8:9", "3145728"}, {"receive", "8.8.8.8:19", "1234567"}} {
		got, code := w.Exec("slow", append([]string{"traffic"}, c...)...)
		var n int
		var seconds float64
		if _, err := fmt.Sscan(got, &n, &seconds); err != nil || code != 0 {
			t.Fatalf("%v: got %q", c, got)
		}
		if least := float64(n)/(1<<20) - 0.2; seconds < least {
			t.Errorf("%s: %d bytes took %.2f s, want at least %.2f", c[0], n, seconds, least)
		}
	}
	if group {
		return
	}
	begun := time.Now()
	got, _ := w.Exec("slow", "traffic", "datagrams", "8.8.8.8:7", "20", "60000")
	took := time.Since(begun)
	if boxtest.OnFastPath(t) { // where they wait, as far as there is room
		if got == "20\n" && took < 900*time.Millisecond || got == "0\n" {
			t.Errorf("of 20 datagrams of 60,000 bytes came back in %v: %q", took, got)
		}
		return
	}
	if got == "20\n" && took.Seconds() < 20*60000.0/(1<<20)-0.2 {
		t.Error("20 datagrams of 60,000 bytes came back at once")
	} else if got == "0\n" {
		t.Error("of 20 datagrams of 60,000 bytes none came back")
	}
}

// TestNetworkPublished connects from outside.
func TestNetworkPublished(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		in := boxtest.NewInternet(t)
		boxtest.NetPublished(newWorld(t).World, in)
	})
}

// TestNetworkSurvives kills, one after the other, the process that carries the
// traffic, the keeper, and the node.
func TestNetworkSurvives(t *testing.T) { eachWay(t, testSurvives) }

func testSurvives(t *testing.T) {
	boxtest.NewInternet(t)
	w := networkWorld(t, nil)
	w.Start(w.Member("a", "g", "a", boxtest.Public))
	s := w.Member("b", "g", "b", container.Egress{})
	s.Args = boxtest.Sh("nc -ll -p 80 -e echo I am b")
	w.Start(s)
	works := func(after string) {
		t.Helper()
		var out, in string
		for deadline := time.Now().Add(boxtest.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if out, in = w.Fetch("a", "8.8.8.8", 80), w.Fetch("a", "b", 80); strings.HasPrefix(out, "hello") && in == "I am b\n" {
				return
			}
		}
		t.Fatalf("after %s: got %q and %q", after, out, in)
	}
	works("the start")
	counted := w.Network("a").BytesIn
	kill := func(what string) {
		t.Helper()
		if err := unix.Kill(w.ProcessID(what), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	kill("pktcloud-netstack")
	works("the carrier's death")
	if now := w.Network("a").BytesIn; now <= counted {
		t.Errorf("%d bytes are counted, after %d before", now, counted)
	}
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	keeper := w.ProcessID("pktcloud-network")
	w.Open()
	works("the node's restart")
	if again := w.ProcessID("pktcloud-network"); again != keeper {
		t.Errorf("the keeper was %d and is %d", keeper, again)
	}
	counted = w.Network("a").BytesIn
	kill("pktcloud-network")
	works("the keeper's death")
	if now := w.Network("a").BytesIn; now < counted {
		t.Errorf("%d bytes are counted, after %d before the keeper's death", now, counted)
	}
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	kill("pktcloud-network")
	w.Open()
	works("the keeper's death while there was no node")
}

// TestNetworkFlood has one group make trouble beside another.
func TestNetworkFlood(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		boxtest.NewInternet(t)
		boxtest.NetFlood(newWorld(t).World)
	})
}
