//go:build linux && cgo && amd64

package boxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// attempt is a connection from inside: to whom, and what the other side says.
// Where that is nothing, nobody may say hello or who it is.
type attempt struct {
	host string
	port int
	want string
}

// reach makes a container's attempts, one after the other. What a busy machine
// kept from being answered it tries again.
func (w *World) reach(id string, all []attempt) {
	w.T.Helper()
	var script strings.Builder
	for _, a := range all {
		fmt.Fprintf(&script, "nc -w 5 %s %d </dev/null 2>&1; echo '|'; ", a.host, a.port)
	}
	out, _ := w.Exec(id, "sh", "-c", script.String())
	got := strings.Split(out, "|\n")
	if len(got) != len(all)+1 {
		w.T.Fatalf("%s: got %q for %d attempts", id, out, len(all))
	}
	for i, a := range all {
		text := got[i]
		for deadline := time.Now().Add(Patience / 4); a.want != "" && text != a.want && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			text = w.Fetch(id, a.host, a.port)
		}
		if a.want != "" && text != a.want {
			w.T.Fatalf("%s to %s:%d: got %q, want %q", id, a.host, a.port, text, a.want)
		}
		if a.want == "" && (strings.Contains(text, "hello") || strings.Contains(text, "I am")) {
			w.T.Errorf("%s to %s:%d: got %q, want it refused", id, a.host, a.port, text)
		}
	}
}

// NetEgress tries from inside what must and what must not be reached, by
// address and by name, with connections and with datagrams [CONTAINER-52]
// [CONTAINER-53] [CONTAINER-54].
func NetEgress(w *World, in *Internet) {
	w.T.Helper()
	reached := serveMachine(w)
	w.UseTraffic()
	w.Online(func(c *libcontainer.NetworkConfig) { c.Deny = []netip.Prefix{netip.MustParsePrefix("9.9.9.0/24")} })
	shut := w.Member("shut", "g", "shut", container.Egress{})
	shut.Args = Sh("exec nc -ll -p 80 -e echo I am shut")
	w.Start(shut)
	w.Start(w.Member("open", "g", "open", Public))
	w.Start(w.Member("list", "g", "list", container.Egress{Allow: []string{"1.1.1.0/24:80", "good.example:80", "rebind.example:80", "machine.example:*"}}))
	w.reach("open", []attempt{
		{"8.8.8.8", 80, "hello 8.8.8.8:80\n"},
		{"1.1.1.1", 80, "hello 1.1.1.1:80\n"},
		{"good.example", 80, "hello 8.8.8.8:80\n"},
		{"shut", 80, "I am shut\n"},
		{"8.8.8.8", 81, "hello 8.8.8.8:81\n"},
		{"8.8.8.8", 25, ""},
		{"9.9.9.9", 80, ""},
		{"10.1.2.3", 80, ""},
		{"192.168.1.1", 80, ""},
		{"172.16.0.1", 80, ""},
		{"169.254.169.254", 80, ""},
		{"100.64.0.1", 80, ""},
		{"198.18.0.1", 80, ""},
		{"10.213.0.99", 80, ""},
		{"10.213.0.1", 80, ""},
		{netlab.OutsideAddr, 80, ""},
		{netlab.MachineAddr, 80, ""},
		{"rebind.example", 80, ""},
		{"mixed.example", 80, ""}, // of its addresses one is private, the other denied by the owner
		{"unknown.example", 80, ""},
	})
	w.reach("shut", []attempt{
		{"8.8.8.8", 80, ""},
		{"good.example", 80, ""},
		{"shut", 80, "I am shut\n"},
	})
	w.reach("list", []attempt{
		{"1.1.1.1", 80, "hello 1.1.1.1:80\n"},
		{"1.1.1.1", 81, ""},
		{"8.8.8.8", 80, ""}, // before its name was asked for
		{"other.example", 80, ""},
		{"good.example", 80, "hello 8.8.8.8:80\n"},
		{"8.8.8.8", 80, "hello 8.8.8.8:80\n"},
		{"8.8.8.8", 81, ""},
		{"rebind.example", 80, ""},
		{"10.1.2.3", 80, ""},
		{"machine.example", 80, ""},
		{"shut", 80, "I am shut\n"},
	})
	for _, c := range []struct{ id, name, has, hasNot string }{
		{"open", "good.example", "8.8.8.8", ""},
		{"open", "rebind.example", "", "10.1.2.3"},
		{"open", "machine.example", "", netlab.MachineAddr},
		{"open", "shut", "10.213.0.2", ""},
		{"shut", "good.example", "", "8.8.8.8"},
		{"shut", "open", "10.213.0.3", ""},
		{"list", "other.example", "", "1.1.1.1"},
	} {
		w.Await(c.id, func(container.Status) bool {
			got, _ := w.Exec(c.id, "busybox", "nslookup", c.name)
			if c.hasNot != "" && strings.Contains(got, c.hasNot) {
				w.T.Errorf("%s asks for %s: got %q, want no %s", c.id, c.name, got, c.hasNot)
			}
			return strings.Contains(got, c.has)
		})
	}
	w.sendDatagrams(in)
	if n := reached.Load(); n != 0 {
		w.T.Errorf("the machine's own address was reached %d times", n)
	}
	if s := w.Network("open"); s.Refused < 12 {
		w.T.Errorf("got %+v, want the refusals counted", s)
	}
}

// sendDatagrams sends datagrams to where they may go, and to where they may not.
func (w *World) sendDatagrams(in *Internet) {
	w.T.Helper()
	w.datagramReturns("open")
	for _, id := range []string{"open", "shut", "list"} {
		if got, _ := w.Exec(id, "traffic", "datagrams", "10.1.2.3:7", "1", "100"); got != "0\n" {
			w.T.Errorf("%s: a datagram to a private address: got %q back", id, got)
		}
	}
	asked := in.DatagramBytes.Load()
	for _, id := range []string{"shut", "list"} {
		if got, _ := w.Exec(id, "traffic", "datagrams", "8.8.8.8:7", "1", "100"); got != "0\n" {
			w.T.Errorf("%s: a datagram to where it may not: got %q back", id, got)
		}
	}
	if n := in.PrivateDatagramBytes.Load(); n != 0 || in.DatagramBytes.Load() != asked {
		w.T.Errorf("%d bytes of datagrams arrived at a private address, and %d more where only one may send", n, in.DatagramBytes.Load()-asked)
	}
}

// serveMachine serves on the machine's own address what is there to be reached,
// and counts how often it was.
func serveMachine(w *World) *atomic.Int64 {
	w.T.Helper()
	machine, err := net.Listen("tcp", netlab.MachineAddr+":80")
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { _ = machine.Close() })
	reached := &atomic.Int64{}
	go func() {
		for {
			c, err := machine.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_, _ = io.WriteString(c, "hello machine\n")
			_ = c.Close()
		}
	}()
	return reached
}

// datagramReturns sends a datagram to the world until it comes back.
func (w *World) datagramReturns(id string) {
	w.T.Helper()
	w.Await(id, func(container.Status) bool {
		got, _ := w.Exec(id, "traffic", "datagrams", "8.8.8.8:7", "1", "100")
		return got == "1\n"
	})
}

// NetCounts compares the counters with what was sent, to the byte
// [CONTAINER-55].
func NetCounts(w *World, in *Internet) {
	w.T.Helper()
	w.UseTraffic()
	w.Online(nil)
	w.Start(w.Member("a", "g", "a", Public))
	w.Start(w.Member("b", "g", "b", Public))
	const sent = 7_654_321
	if got, code := w.Exec("a", "traffic", "send", "8.8.8.8:9", strconv.Itoa(sent)); code != 0 {
		w.T.Fatal(got)
	}
	if got, code := w.Exec("b", "traffic", "receive", "8.8.8.8:19", strconv.Itoa(Sourced)); code != 0 {
		w.T.Fatal(got)
	}
	if got, _ := w.Exec("b", "traffic", "datagrams", "8.8.8.8:7", "5", "60000", "100s"); got != "5\n" {
		w.T.Errorf("datagrams: got %q back, want 5", got)
	}
	// The fast path counts what TCP sends again too.
	var againOut, againIn uint64
	if OnFastPath(w.T) {
		snmp, _ := w.Exec("a", "cat", "/proc/net/snmp")
		againOut = w.repeated(snmp)
		_ = in.Do(func() error {
			snmp, err := os.ReadFile("/proc/thread-self/net/snmp")
			againIn = w.repeated(string(snmp))
			return err
		})
	}
	same := func(got, want, again uint64) bool {
		return got == want || again > 0 && got > want && got <= want+again*65536
	}
	none := func(s container.NetworkStatus) bool { return s.Connections == 0 }
	s := w.AwaitNetwork("a", none)
	if !same(s.BytesOut, sent, againOut) || s.BytesIn != 0 || in.Received.Load() != sent {
		w.T.Errorf("got %+v and %d received, want %d out", s, in.Received.Load(), sent)
	}
	counted := s.BytesOut
	// A flow of datagrams has no end; it is one connection for a while. Whichever
	// the program waited long enough for, all came back.
	datagrams := uint64(in.DatagramBytes.Load())
	if s := w.AwaitNetwork("b", func(s container.NetworkStatus) bool { return s.BytesIn >= Sourced+5*60000 }); datagrams != 5*60000 ||
		!same(s.BytesIn, Sourced+datagrams, againIn) || s.BytesOut != datagrams || s.Connections > 1 {
		w.T.Errorf("got %+v, want %d in and %d out", s, Sourced+datagrams, datagrams)
	}
	// What is within the group is the kernel's, and free.
	c := w.Member("c", "g", "c", container.Egress{})
	c.Args = []string{"traffic", "serve", ":80", "sink"}
	w.Start(c)
	w.AwaitLog("c", "serving")
	if got, code := w.Exec("a", "traffic", "send", "c:80", "100000"); code != 0 {
		w.T.Fatal(got)
	}
	if s := w.Network("a"); s.BytesOut != counted {
		w.T.Errorf("traffic within the group was counted: %+v", s)
	}
	// An address that another had begins at nought.
	if err := w.RT.Destroy(w.T.Context(), "a"); err != nil {
		w.T.Fatal(err)
	}
	w.Start(w.Member("d", "g", "d", Public))
	if s := w.Network("d"); s.BytesOut != 0 {
		w.T.Errorf("a new container has %+v", s)
	}
}

// repeated is how many segments a network has sent again, of its counters in the
// form of /proc/net/snmp.
func (w *World) repeated(snmp string) uint64 {
	w.T.Helper()
	var names []string
	for line := range strings.Lines(snmp) {
		if rest, ok := strings.CutPrefix(line, "Tcp:"); !ok {
			continue
		} else if names == nil {
			names = strings.Fields(rest)
		} else if i := slices.Index(names, "RetransSegs"); i >= 0 {
			n, err := strconv.ParseUint(strings.Fields(rest)[i], 10, 64)
			if err != nil {
				w.T.Fatal(err)
			}
			return n
		}
	}
	w.T.Fatalf("no count of segments sent again: %s", snmp)
	return 0
}

// NetPublished connects from outside, and sends datagrams [CONTAINER-57].
func NetPublished(w *World, in *Internet) {
	w.T.Helper()
	w.UseTraffic()
	w.Online(func(c *libcontainer.NetworkConfig) {
		c.PublishOn = []netip.Addr{netip.MustParseAddr(netlab.MachineAddr), netip.MustParseAddr("127.0.0.1")}
		c.PublishFirst = 8000
	})
	s := w.Member("web", "g", "web", container.Egress{})
	s.Args = Sh("nc -ll -p 80 -e sh -c 'echo served $NCPEER; cat' & nc -ll -p 81 -e cat & exec traffic serve :53 answer")
	s.Network.Publish = []container.PublishedPort{
		{Port: 8080, Inside: 80, Protocol: container.TCP},
		{Host: netip.MustParseAddr("127.0.0.1"), Port: 8080, Inside: 80, Protocol: container.TCP},
		{Port: 8081, Inside: 81, Protocol: container.TCP},
		{Port: 8053, Inside: 53, Protocol: container.UDP},
	}
	w.Start(s)
	here := func(f func() error) error { return f() }
	w.echoes(in.Do, "tcp", netlab.MachineAddr+":8080")
	w.echoes(in.Do, "tcp", netlab.MachineAddr+":8081")
	w.echoes(here, "tcp", "127.0.0.1:8080")
	w.echoes(in.Do, "tcp from 8.8.8.8", netlab.MachineAddr+":8080") // the replies to a visitor from the public internet go back as it came
	before := w.AwaitNetwork("web", func(s container.NetworkStatus) bool { return s.BytesIn >= 15 })
	if before.BytesOut < before.BytesIn {
		w.T.Errorf("got %+v, want traffic both ways counted", before)
	}
	w.echoes(in.Do, "udp", netlab.MachineAddr+":8053")
	w.AwaitNetwork("web", func(s container.NetworkStatus) bool {
		return s.BytesIn >= before.BytesIn+5 && s.BytesOut >= before.BytesOut+5
	})
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
		s := w.Member("more", "h", "more", container.Egress{})
		s.Network.Publish = []container.PublishedPort{c.port}
		if err := w.RT.Start(w.T.Context(), s); !errors.Is(err, c.want) {
			w.T.Errorf("%s: got %v, want %q", c.port, err, string(c.want))
			_ = w.RT.Destroy(w.T.Context(), "more")
		}
	}
	if err := w.RT.Destroy(w.T.Context(), "web"); err != nil {
		w.T.Fatal(err)
	}
	for network, at := range map[string]string{"tcp": "127.0.0.1:8080", "udp": netlab.MachineAddr + ":8053"} {
		if got := talk(here, network, at); !strings.Contains(got, "refused") {
			w.T.Errorf("after the end: got %q from %s", got, at)
		}
	}
}

// talk says ping and returns the answer, or what was wrong.
func talk(thread func(func() error) error, network, at string) string {
	var c net.Conn
	d := net.Dialer{Timeout: 5 * time.Second}
	if of, from, ok := strings.Cut(network, " from "); ok {
		network, d.LocalAddr = of, &net.TCPAddr{IP: net.ParseIP(from)}
	}
	err := thread(func() (err error) {
		c, err = d.Dial(network, at)
		return err
	})
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_, _ = io.WriteString(c, "ping\n")
	if c, ok := c.(*net.TCPConn); ok {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		return string(b)
	}
	_ = c.SetDeadline(time.Now().Add(time.Second)) // it may be lost
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// echoes talks until it is answered with what it said.
func (w *World) echoes(thread func(func() error) error, network, at string) {
	w.T.Helper()
	got := ""
	for deadline := time.Now().Add(Patience / 2); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = talk(thread, network, at); strings.Contains(got, "ping\n") {
			return
		}
	}
	w.T.Fatalf("%s: got %q, want what was sent", at, got)
}

// NetFlood has one group make trouble beside another: it takes no more than it
// may, and the other notices nothing [CONTAINER-58].
func NetFlood(w *World) {
	w.T.Helper()
	const most, tried = 20, 200
	w.UseTraffic()
	w.Online(func(c *libcontainer.NetworkConfig) { c.MaxConnections = most })
	s := w.Member("bad", "bad", "bad", Public)
	s.Limits.Pids, s.Limits.MemoryBytes = 256, 256<<20
	w.Start(s)
	w.Start(w.Member("good", "good", "good", Public))
	stdin, end := io.Pipe()
	defer func() { _ = end.Close() }()
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		_, err := w.RT.Exec(w.T.Context(), "bad", container.ExecSpec{
			Args: []string{"traffic", "hold", "8.8.8.8:9", strconv.Itoa(tried)}, Stdin: stdin, Stdout: &out, Stderr: &out,
		})
		ended <- err
	}()
	full := w.AwaitNetwork("bad", func(s container.NetworkStatus) bool { return s.Connections >= most && s.Refused >= tried-most })
	if full.Connections != most { // of what is refused a busy machine may ask twice
		w.T.Errorf("got %+v, want %d connections and the others refused", full, most)
	}
	for range 3 {
		if got := w.Fetch("good", "8.8.8.8", 80); !strings.HasPrefix(got, "hello") {
			w.T.Errorf("the neighbour got %q", got)
		}
	}
	if s := w.Network("good"); s.Refused != 0 {
		w.T.Errorf("the neighbour has %+v", s)
	}
	_ = end.Close()
	if err := <-ended; err != nil || out.String() != fmt.Sprintln(most) {
		w.T.Errorf("got %q connections, %v, want %d", out.String(), err, most)
	}
	for _, size := range []string{"1", "1233", "60000"} { // to the gateway's names
		if got, _ := w.Exec("bad", "traffic", "datagrams", "10.213.0.1:53", "1", size); got != "0\n" {
			w.T.Errorf("%s bytes that are no question were answered: %q", size, got)
		}
	}
	w.AwaitNetwork("bad", func(s container.NetworkStatus) bool { return s.Connections == 0 })
	if got := w.Fetch("bad", "good.example", 80); !strings.HasPrefix(got, "hello") {
		w.T.Errorf("afterwards: got %q", got)
	}
}
