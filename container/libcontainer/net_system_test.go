//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// These tests run in a network namespace of their own, to which another one is
// the whole internet: it has the addresses below, the private ones too, so that
// what does not reach them was refused and not merely lost.

var internetAddrs = strings.Fields("8.8.8.8 8.8.4.4 1.1.1.1 9.9.9.9 10.1.2.3 192.168.1.1 172.16.0.1 169.254.169.254 100.64.0.1 198.18.0.1 10.213.0.99")

const resolverAddr = "8.8.4.4"

// internet is the other network.
type internet struct {
	*netlab.Outside
	received atomic.Int64 // bytes at port 9
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	in := &internet{Outside: netlab.New(t, internetAddrs...)}
	for _, port := range []int{80, 81, 25} {
		in.ServeTCP(port, func(c net.Conn) { _, _ = io.WriteString(c, "hello "+c.LocalAddr().String()+"\n") })
	}
	in.ServeTCP(9, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c)
		in.received.Add(n)
	})
	in.ServeTCP(19, func(c net.Conn) { _, _ = c.Write(make([]byte, 1234567)) })
	for _, a := range []string{"8.8.8.8:7", "10.1.2.3:7"} { // a reply must come from where the question went
		in.ServeUDP(a, func(b []byte) []byte { return b })
	}
	in.ServeUDP(resolverAddr+":53", answerNames)
	return in
}

// answerNames is a name server that knows a few names, and leads some of them
// astray.
func answerNames(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	h := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 60}
	for a := range strings.FieldsSeq(map[string]string{
		"good.example.":    "8.8.8.8",
		"other.example.":   "1.1.1.1",
		"rebind.example.":  "10.1.2.3 169.254.169.254 127.0.0.1",
		"mixed.example.":   "192.168.1.1 9.9.9.9",
		"machine.example.": netlab.MachineAddr,
	}[m.Questions[0].Name.String()]) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}})
	}
	if len(m.Answers) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	b, _ := m.Pack()
	return b
}

// eachWay runs a test with and without the fast path, at once and each in a network
// of its own.
func eachWay(t *testing.T, f func(*testing.T)) {
	for _, way := range []string{"netstack", "kernel"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			if netlab.Alone(t) {
				f(t)
			}
		})
	}
}

// alone runs a test in a network of its own.
func alone(t *testing.T, way string, f func(*testing.T)) {
	t.Run(way, func(t *testing.T) {
		if netlab.Alone(t) {
			f(t)
		}
	})
}

func onFastPath(t *testing.T) bool { return strings.Contains(t.Name(), "/kernel") }

// forward has the test's machine forward or not.
func forward(t *testing.T, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// networkWorld is a world whose runtime has the internet's name server.
func networkWorld(t *testing.T, change func(*libcontainer.NetworkConfig)) *world {
	t.Helper()
	w := newWorld(t)
	w.Config.Network = libcontainer.NetworkConfig{Resolvers: []netip.AddrPort{netip.MustParseAddrPort(resolverAddr + ":53")}, Kernel: onFastPath(t)}
	if onFastPath(t) {
		forward(t, "1")
	}
	if change != nil {
		change(&w.Config.Network)
	}
	w.Reopen()
	return w
}

// member is a container of a group that waits for commands.
func (w *world) member(id, group, name string, e container.Egress) container.Spec {
	s := w.Spec(id, "sleep", "1000")
	s.Network = container.Network{Group: group, Name: name, Egress: e}
	return s
}

// fetch connects from inside and returns what came.
func (w *world) fetch(id, host string, port int) string {
	w.T.Helper()
	got, _ := w.Exec(id, "sh", "-c", fmt.Sprintf("nc -w 5 %s %d </dev/null 2>&1", host, port))
	return got
}

var public = container.Egress{Public: true}

// TestNetworkEgress tries from inside what must and what must not be reached.
func TestNetworkEgress(t *testing.T) { eachWay(t, testEgress) }

func testEgress(t *testing.T) {
	newInternet(t)
	machine, err := net.Listen("tcp", netlab.MachineAddr+":80") // what the machine serves is there to be reached
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	var reached atomic.Int64
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
	w := trafficWorld(t, func(c *libcontainer.NetworkConfig) { c.Deny = []netip.Prefix{netip.MustParsePrefix("9.9.9.0/24")} })
	w.Start(w.member("open", "g", "open", public))
	w.Start(w.member("shut", "g", "shut", container.Egress{}))
	w.Start(w.member("list", "g", "list", container.Egress{Allow: []string{"1.1.1.0/24:80", "good.example:80", "rebind.example:80", "machine.example:*"}}))
	for _, c := range []struct {
		id, host string
		port     int
		want     string
	}{
		{"open", "8.8.8.8", 80, "hello 8.8.8.8:80\n"},
		{"open", "1.1.1.1", 80, "hello 1.1.1.1:80\n"},
		{"open", "good.example", 80, "hello 8.8.8.8:80\n"},
		{"open", "8.8.8.8", 81, "hello 8.8.8.8:81\n"},
		{"open", "8.8.8.8", 25, ""},
		{"open", "9.9.9.9", 80, ""},
		{"open", "10.1.2.3", 80, ""},
		{"open", "192.168.1.1", 80, ""},
		{"open", "172.16.0.1", 80, ""},
		{"open", "169.254.169.254", 80, ""},
		{"open", "100.64.0.1", 80, ""},
		{"open", "198.18.0.1", 80, ""},
		{"open", "10.213.0.99", 80, ""},
		{"open", "10.213.0.1", 80, ""},
		{"open", netlab.OutsideAddr, 80, ""},
		{"open", netlab.MachineAddr, 80, ""},
		{"open", "rebind.example", 80, ""},
		{"open", "mixed.example", 80, ""}, // of its addresses one is private, the other denied by the owner
		{"shut", "8.8.8.8", 80, ""},
		{"shut", "good.example", 80, ""},
		{"list", "1.1.1.1", 80, "hello 1.1.1.1:80\n"},
		{"list", "1.1.1.1", 81, ""},
		{"list", "8.8.8.8", 80, ""}, // before its name was asked for
		{"list", "other.example", 80, ""},
		{"list", "good.example", 80, "hello 8.8.8.8:80\n"},
		{"list", "8.8.8.8", 80, "hello 8.8.8.8:80\n"},
		{"list", "8.8.8.8", 81, ""},
		{"list", "rebind.example", 80, ""},
		{"list", "10.1.2.3", 80, ""},
		{"list", "machine.example", 80, ""},
	} {
		got := w.fetch(c.id, c.host, c.port)
		if c.want != "" && got != c.want || c.want == "" && strings.Contains(got, "hello") {
			t.Errorf("%s to %s:%d: got %q, want %q", c.id, c.host, c.port, got, c.want)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the machine's own address was reached %d times", n)
	}
	if s, err := w.RT.Status(t.Context(), "open"); err != nil || s.Network.Refused < 12 {
		t.Errorf("got %+v, %v, want the refusals counted", s.Network, err)
	}
	if got, _ := w.Exec("open", "traffic", "datagrams", "8.8.8.8:7", "1", "100"); got != "1\n" {
		t.Errorf("a datagram: got %q back", got)
	}
	if got, _ := w.Exec("open", "traffic", "datagrams", "10.1.2.3:7", "1", "100"); got != "0\n" {
		t.Errorf("a datagram to a private address: got %q back", got)
	}
}

// TestNetworkGroups shows who finds whom.
func TestNetworkGroups(t *testing.T) { eachWay(t, testGroups) }

func testGroups(t *testing.T) {
	newInternet(t)
	w := networkWorld(t, nil)
	serve := func(id, group, name string) {
		s := w.member(id, group, name, container.Egress{})
		s.Args = boxtest.Sh("nc -ll -p 80 -e echo I am " + id)
		w.Start(s)
	}
	serve("a1", "a", "web")
	serve("a2", "a", "db")
	serve("b1", "b", "web")
	serve("b2", "b", "cache")
	w.Start(w.Spec("alone", "sleep", "1000"))
	for _, c := range []struct{ id, host, want string }{
		{"a1", "db", "I am a2\n"},
		{"a2", "web", "I am a1\n"},
		{"b2", "web", "I am b1\n"},
		{"a1", "web", "I am a1\n"},
		{"a1", "cache", ""},
		{"a1", "10.213.0.3", "I am a2\n"},
		{"b1", "10.213.0.3", "I am b2\n"},
		{"alone", "10.213.0.2", ""},
		{"alone", "web", ""},
	} {
		if got := w.fetch(c.id, c.host, 80); got != c.want && (c.want != "" || strings.Contains(got, "I am")) {
			t.Errorf("%s to %s: got %q, want %q", c.id, c.host, got, c.want)
		}
	}
	// Nor does a route of its own, a broadcast or the router lead anywhere else.
	if got, _ := w.Exec("a1", "sh", "-c", "ip route; ip -6 addr show eth0"); !strings.HasPrefix(got, "default via 10.213.0.1 dev eth0") || strings.Contains(got, "inet6") {
		t.Errorf("routes: got %q", got)
	}
	s := w.member("a3", "a", "db", container.Egress{})
	if err := w.RT.Start(t.Context(), s); !errors.Is(err, container.CodeConflict) {
		t.Errorf("a name twice: got %v, want %q", err, string(container.CodeConflict))
	}
	if err := w.RT.Destroy(t.Context(), "a2"); err != nil {
		t.Fatal(err)
	}
	if got := w.fetch("a1", "db", 80); strings.Contains(got, "I am") {
		t.Errorf("a destroyed container answers: %q", got)
	}
	w.Start(s)
	if got := w.fetch("a1", "db", 9); strings.Contains(got, "bad address") {
		t.Errorf("a new container is not found by name: %q", got)
	}
}

// TestNetworkRemoved shows that nothing is left.
func TestNetworkRemoved(t *testing.T) {
	alone(t, "netstack", testRemoved)
	alone(t, "kernel", testRemoved)
}

func testRemoved(t *testing.T) {
	newInternet(t)
	w := networkWorld(t, nil)
	before, links := w.Traces(), linkNames(t)
	w.Start(w.member("one", "g", "one", public))
	w.Start(w.member("two", "g", "two", public))
	if n := len(w.processes()); n != 4 { // two monitors, a keeper, a carrier
		t.Errorf("got %d processes, want 4: %v", n, w.processes())
	}
	for _, id := range []string{"one", "two"} {
		if err := w.RT.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if left := w.processes(); len(left) > 0 {
		t.Errorf("left processes %v", left)
	}
	if err := w.RT.Close(); err != nil { // until then it keeps a control group for the next
		t.Fatal(err)
	}
	if after := w.Traces(); len(after) > len(before) {
		t.Errorf("left %v", after)
	}
	w.Open()
	if after := linkNames(t); after != links {
		t.Errorf("interfaces: got %s, want %s", after, links)
	}
	if entries, err := os.ReadDir(filepath.Join(w.Dir, "run", "nets")); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// TestNetworkCarrier looks at the process that parses a group's packets.
func TestNetworkCarrier(t *testing.T) {
	if !netlab.Alone(t) {
		return
	}
	newInternet(t)
	w := networkWorld(t, nil)
	w.Start(w.member("one", "g", "one", public))
	pid := fmt.Sprint(w.ProcessID("pktcloud-netstack"))
	threads, _ := filepath.Glob("/proc/" + pid + "/task/*/status")
	if len(threads) == 0 {
		t.Fatal("no threads")
	}
	for _, file := range threads {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for _, want := range []string{"Uid:\t2147418113\t2147418113\t2147418113\t2147418113\n", "Groups:\t \n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s has no %q:\n%s", file, want, status)
			}
		}
	}
	if root, err := os.Readlink("/proc/" + pid + "/root"); err != nil || root != filepath.Join(w.Dir, "run/nets/g/empty") {
		t.Errorf("got root %q, %v", root, err)
	}
	groups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil || !strings.Contains(string(groups), "/_net.g\n") {
		t.Errorf("got control groups %s, %v", groups, err)
	}
	limits, _ := filepath.Glob("/sys/fs/cgroup/memory/pktcloud-*/_net.g/memory.limit_in_bytes")
	more, _ := filepath.Glob("/sys/fs/cgroup/pktcloud-*/_net.g/memory.max")
	for _, file := range append(limits, more...) {
		if b, _ := os.ReadFile(file); string(b) != "134217728\n" {
			t.Errorf("%s: got %s", file, b)
		}
	}
	if len(limits)+len(more) == 0 {
		t.Error("no memory limit")
	}
	sockets, _ := filepath.Glob("/sys/fs/cgroup/memory/pktcloud-*/_net.g/memory.kmem.tcp.limit_in_bytes")
	for _, file := range sockets {
		if b, _ := os.ReadFile(file); string(b) != "67108864\n" {
			t.Errorf("%s: got %s", file, b)
		}
	}
	if b, err := os.ReadFile("/proc/" + pid + "/limits"); err != nil || !regexp.MustCompile(`Max file size +1048576 +1048576 `).Match(b) {
		t.Errorf("it may write large files: %s, %v", b, err)
	}
}

func linkNames(t *testing.T) string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range links {
		out = append(out, l.Attrs().Name)
	}
	return strings.Join(out, " ")
}

// processes are those of this runtime.
func (w *world) processes() map[int]string { return boxtest.CommandLines("pktcloud-", w.Dir) }
