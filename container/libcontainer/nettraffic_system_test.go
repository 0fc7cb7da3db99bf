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
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// trafficWorld has an image with bench/network/traffic in it.
func trafficWorld(t *testing.T, change func(*libcontainer.NetworkConfig)) *world {
	t.Helper()
	w := networkWorld(t, change)
	w.UseTraffic()
	return w
}

// TestNetworkCounts compares the counters with what was sent, to the byte.
func TestNetworkCounts(t *testing.T) {
	if netlab.Alone(t) {
		in := boxtest.NewInternet(t)
		boxtest.NetCounts(newWorld(t).World, in)
	}
}

// TestNetworkBandwidth measures how long a bounded container takes. Each way it
// may borrow a tenth of a second's bytes, and buffers hold the rest up.
func TestNetworkBandwidth(t *testing.T) {
	if !netlab.Alone(t) {
		return
	}
	boxtest.NewInternet(t)
	w := trafficWorld(t, nil)
	s := w.Member("slow", "g", "slow", boxtest.Public)
	s.Network.BytesPerSecond = 1 << 20
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
	begun := time.Now()
	if got, _ := w.Exec("slow", "traffic", "datagrams", "8.8.8.8:7", "20", "60000"); got == "20\n" && time.Since(begun).Seconds() < 20*60000.0/(1<<20)-0.2 {
		t.Error("20 datagrams of 60,000 bytes came back at once")
	} else if got == "0\n" {
		t.Error("of 20 datagrams of 60,000 bytes none came back")
	}
}

// TestNetworkPublished connects from outside.
func TestNetworkPublished(t *testing.T) {
	if netlab.Alone(t) {
		in := boxtest.NewInternet(t)
		boxtest.NetPublished(newWorld(t).World, in)
	}
}

// TestNetworkSurvives kills, one after the other, the process that carries the
// traffic, the keeper, and the node.
func TestNetworkSurvives(t *testing.T) {
	if !netlab.Alone(t) {
		return
	}
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
	kill("pktcloud-network")
	works("the keeper's death")
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	kill("pktcloud-network")
	w.Open()
	works("the keeper's death while there was no node")
}

// TestNetworkFlood has one group make trouble beside another.
func TestNetworkFlood(t *testing.T) {
	if netlab.Alone(t) {
		_ = boxtest.NewInternet(t)
		boxtest.NetFlood(newWorld(t).World)
	}
}
