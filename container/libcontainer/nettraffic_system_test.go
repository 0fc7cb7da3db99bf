//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// trafficWorld has an image with bench/network/traffic in it.
func trafficWorld(t *testing.T, change func(*libcontainer.NetworkConfig)) *world {
	t.Helper()
	w := networkWorld(t, change)
	tool := w.BuildProgram("bench/network/traffic")
	files := map[string]image.File{"/bin/busybox": {Source: boxtest.Busybox, Mode: 0o755}, "/bin/traffic": {Source: tool, Mode: 0o755}}
	for _, name := range []string{"sh", "nc", "sleep", "cat", "echo"} {
		files["/bin/"+name] = image.File{Link: "busybox"}
	}
	w.UseImage("traffic-layout", image.Build{Files: files, Args: []string{"sleep", "1000"}})
	return w
}

func (w *world) net(id string) container.NetworkStatus {
	w.T.Helper()
	s, err := w.RT.Status(w.T.Context(), id)
	if err != nil {
		w.T.Fatal(err)
	}
	return s.Network
}

// awaitNet polls until the network of a container is as wanted.
func (w *world) awaitNet(id string, want func(container.NetworkStatus) bool) container.NetworkStatus {
	w.T.Helper()
	return w.Await(id, func(s container.Status) bool { return want(s.Network) }).Network
}

// repeated reads how many segments the thread's network has sent again.
func repeated(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	return repeatedIn(t, string(b))
}

func repeatedIn(t *testing.T, snmp string) uint64 {
	t.Helper()
	var names []string
	for line := range strings.Lines(snmp) {
		if rest, ok := strings.CutPrefix(line, "Tcp:"); !ok {
			continue
		} else if names == nil {
			names = strings.Fields(rest)
		} else if i := slices.Index(names, "RetransSegs"); i >= 0 {
			n, err := strconv.ParseUint(strings.Fields(rest)[i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no count of segments sent again: %s", snmp)
	return 0
}

// TestNetworkCounts compares the counters with what was sent, to the byte; on the
// fast path with what TCP sent again, if it did.
func TestNetworkCounts(t *testing.T) { eachWay(t, testCounts) }

func testCounts(t *testing.T) {
	in := newInternet(t)
	w := trafficWorld(t, nil)
	w.Start(w.member("a", "g", "a", public))
	w.Start(w.member("b", "g", "b", public))
	const sent = 7_654_321
	if got, code := w.Exec("a", "traffic", "send", "8.8.8.8:9", strconv.Itoa(sent)); code != 0 {
		t.Fatal(got)
	}
	if got, code := w.Exec("b", "traffic", "receive", "8.8.8.8:19", "1234567"); code != 0 {
		t.Fatal(got)
	}
	if got, _ := w.Exec("b", "traffic", "datagrams", "8.8.8.8:7", "5", "60000"); got != "5\n" {
		t.Errorf("datagrams: got %q back, want 5", got)
	}
	var againOut, againIn uint64
	if onFastPath(t) {
		snmp, _ := w.Exec("a", "cat", "/proc/net/snmp")
		againOut = repeatedIn(t, snmp)
		_ = in.Do(func() error { againIn = repeated(t); return nil })
	}
	same := func(got, want, again uint64) bool {
		return got == want || again > 0 && got > want && got <= want+again*65536
	}
	none := func(s container.NetworkStatus) bool { return s.Connections == 0 }
	s := w.awaitNet("a", none)
	if !same(s.BytesOut, sent, againOut) || s.BytesIn != 0 || in.received.Load() != sent {
		t.Errorf("got %+v and %d received, want %d out", s, in.received.Load(), sent)
	}
	counted := s.BytesOut
	// A flow of datagrams has no end; it is one connection for a while.
	const back, forth = 1234567 + 5*60000, 5 * 60000
	if s := w.awaitNet("b", func(s container.NetworkStatus) bool { return s.BytesIn >= back }); !same(s.BytesIn, back, againIn) || s.BytesOut != forth || s.Connections > 1 {
		t.Errorf("got %+v, want %d in and %d out", s, back, forth)
	}
	// What is within the group is the kernel's, and free.
	w.Start(func() container.Spec {
		s := w.member("c", "g", "c", container.Egress{})
		s.Args = []string{"traffic", "serve", ":80", "sink"}
		return s
	}())
	w.AwaitLog("c", "serving")
	if got, code := w.Exec("a", "traffic", "send", "c:80", "100000"); code != 0 {
		t.Fatal(got)
	}
	if s := w.net("a"); s.BytesOut != counted {
		t.Errorf("traffic within the group was counted: %+v", s)
	}
	// An address that another had begins at nought.
	if err := w.RT.Destroy(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.Start(w.member("d", "g", "d", public))
	if s := w.net("d"); s.BytesOut != 0 {
		t.Errorf("a new container has %+v", s)
	}
}

// TestNetworkBandwidth measures how long a bounded container takes. Each way it
// may borrow a tenth of a second's bytes, and buffers hold the rest up.
func TestNetworkBandwidth(t *testing.T) { eachWay(t, testBandwidth) }

func testBandwidth(t *testing.T) {
	newInternet(t)
	t.Run("container", func(t *testing.T) { bounded(t, false) })
	if onFastPath(t) {
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
	s := w.member("slow", "g", "slow", public)
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
	if onFastPath(t) { // where they wait, as far as there is room
		if got == "20\n" && took < 900*time.Millisecond || got == "0\n" {
			t.Errorf("of 20 datagrams of 60,000 bytes came back in %v: %q", took, got)
		}
		return
	}
	if got == "20\n" {
		t.Error("20 datagrams of 60,000 bytes came back at once")
	} else if got == "0\n" {
		t.Error("of 20 datagrams of 60,000 bytes none came back")
	}
}

// TestNetworkPublished connects from outside.
func TestNetworkPublished(t *testing.T) { eachWay(t, testPublished) }

func testPublished(t *testing.T) {
	in := newInternet(t)
	w := networkWorld(t, func(c *libcontainer.NetworkConfig) {
		c.PublishOn = []netip.Addr{netip.MustParseAddr(netlab.MachineAddr), netip.MustParseAddr("127.0.0.1")}
		c.PublishFirst = 8000
	})
	s := w.member("web", "g", "web", container.Egress{})
	s.Args = boxtest.Sh("nc -ll -p 80 -e sh -c 'echo served $NCPEER; cat' & exec nc -ll -p 81 -e cat")
	s.Network.Publish = []container.PublishedPort{
		{Port: 8080, Inside: 80, Protocol: container.TCP},
		{Host: netip.MustParseAddr("127.0.0.1"), Port: 8080, Inside: 80, Protocol: container.TCP},
		{Port: 8081, Inside: 81, Protocol: container.TCP},
		{Port: 8053, Inside: 53, Protocol: container.UDP},
	}
	w.Start(s)
	var from net.Addr
	talk := func(thread func(func() error) error, at string) string {
		var c net.Conn
		err := thread(func() (err error) {
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: from}
			c, err = d.Dial("tcp", at)
			return err
		})
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "ping\n")
		_ = c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		return string(b)
	}
	here := func(f func() error) error { return f() }
	await := func(thread func(func() error) error, at, want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(boxtest.Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if got = talk(thread, at); strings.Contains(got, want) {
				return
			}
		}
		t.Errorf("%s: got %q, want %q", at, got, want)
	}
	await(in.Do, netlab.MachineAddr+":8080", "ping\n")
	await(in.Do, netlab.MachineAddr+":8081", "ping\n")
	await(here, "127.0.0.1:8080", "ping\n")
	// The replies to a visitor from the public internet go back as it came.
	from = &net.TCPAddr{IP: net.IPv4(8, 8, 8, 8)}
	await(in.Do, netlab.MachineAddr+":8080", "ping\n")
	from = nil
	if s := w.awaitNet("web", func(s container.NetworkStatus) bool { return s.BytesIn >= 15 }); s.BytesOut < s.BytesIn {
		t.Errorf("got %+v, want traffic both ways counted", s)
	}
	for _, c := range []struct {
		port container.PublishedPort
		want container.Code
	}{
		{container.PublishedPort{Port: 8080, Inside: 1, Protocol: container.TCP}, container.CodePortTaken},
		{container.PublishedPort{Port: 8053, Inside: 1, Protocol: container.UDP}, container.CodePortTaken},
		{container.PublishedPort{Port: 7999, Inside: 1, Protocol: container.TCP}, container.CodePortForbidden},
		{container.PublishedPort{Host: netip.MustParseAddr("0.0.0.0"), Port: 9000, Inside: 1, Protocol: container.TCP}, container.CodePortForbidden},
		{container.PublishedPort{Host: netip.MustParseAddr("127.0.0.2"), Port: 9000, Inside: 1, Protocol: container.TCP}, container.CodePortForbidden},
	} {
		s := w.member("more", "h", "more", container.Egress{})
		s.Network.Publish = []container.PublishedPort{c.port}
		if err := w.RT.Start(t.Context(), s); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.port, err, string(c.want))
			_ = w.RT.Destroy(t.Context(), "more")
		}
	}
	if err := w.RT.Destroy(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if got := talk(here, "127.0.0.1:8080"); !strings.Contains(got, "refused") {
		t.Errorf("after the end: got %q", got)
	}
}

// TestNetworkSurvives kills, one after the other, the process that carries the
// traffic, the keeper, and the node.
func TestNetworkSurvives(t *testing.T) { eachWay(t, testSurvives) }

func testSurvives(t *testing.T) {
	newInternet(t)
	w := networkWorld(t, nil)
	w.Start(w.member("a", "g", "a", public))
	s := w.member("b", "g", "b", container.Egress{})
	s.Args = boxtest.Sh("nc -ll -p 80 -e echo I am b")
	w.Start(s)
	works := func(after string) {
		t.Helper()
		var out, in string
		for deadline := time.Now().Add(boxtest.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if out, in = w.fetch("a", "8.8.8.8", 80), w.fetch("a", "b", 80); strings.HasPrefix(out, "hello") && in == "I am b\n" {
				return
			}
		}
		t.Fatalf("after %s: got %q and %q", after, out, in)
	}
	works("the start")
	counted := w.net("a").BytesIn
	kill := func(what string) {
		t.Helper()
		if err := unix.Kill(w.ProcessID(what), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	kill("pktcloud-netstack")
	works("the carrier's death")
	if now := w.net("a").BytesIn; now <= counted {
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
	counted = w.net("a").BytesIn
	kill("pktcloud-network")
	works("the keeper's death")
	if now := w.net("a").BytesIn; now < counted {
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
func TestNetworkFlood(t *testing.T) { eachWay(t, testFlood) }

func testFlood(t *testing.T) {
	newInternet(t)
	w := trafficWorld(t, func(c *libcontainer.NetworkConfig) { c.MaxConnections = 20 })
	s := w.member("bad", "bad", "bad", public)
	s.Limits.Pids, s.Limits.MemoryBytes = 256, 256<<20
	w.Start(s)
	w.Start(w.member("good", "good", "good", public))
	done := make(chan string, 1)
	go func() {
		got, _ := w.Exec("bad", "traffic", "hold", "8.8.8.8:9", "200")
		done <- got
	}()
	w.awaitNet("bad", func(s container.NetworkStatus) bool { return s.Connections >= 20 })
	if got := w.fetch("good", "8.8.8.8", 80); !strings.HasPrefix(got, "hello") {
		t.Errorf("the neighbour got %q", got)
	}
	if got := <-done; got != "20\n" {
		t.Errorf("got %q connections, want 20", got)
	}
	if s := w.net("bad"); s.Refused < 180 {
		t.Errorf("got %+v, want 180 refused", s)
	}
	for _, size := range []string{"1", "1233", "60000"} { // to the gateway's names
		if got, _ := w.Exec("bad", "traffic", "datagrams", "10.213.0.1:53", "3", size); got != "0\n" {
			t.Errorf("%s bytes that are no question were answered: %q", size, got)
		}
	}
	w.awaitNet("bad", func(s container.NetworkStatus) bool { return s.Connections == 0 })
	if got := w.fetch("bad", "good.example", 80); !strings.HasPrefix(got, "hello") {
		t.Errorf("afterwards: got %q", got)
	}
}
