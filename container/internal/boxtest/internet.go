//go:build linux && cgo && amd64

package boxtest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// Tests of the network run in a network namespace of their own, to which another
// one is the whole internet: it has the addresses below, the private ones too, so
// that what does not reach them was refused and not merely lost.

var internetAddrs = strings.Fields("8.8.8.8 8.8.4.4 1.1.1.1 9.9.9.9 10.1.2.3 192.168.1.1 172.16.0.1 169.254.169.254 100.64.0.1 198.18.0.1 10.213.0.99")

const resolverAddr = "8.8.4.4"

// Internet is the other network. At each of its addresses are hosts that say
// hello on ports 80, 81 and 25, take what they are sent on port 9, and send
// [Sourced] bytes on port 19. Some send datagrams to port 7 back.
type Internet struct {
	*netlab.Outside
	Received             atomic.Int64 // bytes at port 9
	DatagramBytes        atomic.Int64 // at port 7, which are as many as were sent back
	PrivateDatagramBytes atomic.Int64 // at port 7 of an address that is not public
}

// Sourced is how many bytes port 19 sends.
const Sourced = 1234567

// NewInternet makes the other network; the test has called [netlab.Alone].
func NewInternet(t *testing.T) *Internet {
	t.Helper()
	in := &Internet{Outside: netlab.New(t, internetAddrs...)}
	for _, port := range []int{80, 81, 25} {
		in.ServeTCP(port, func(c net.Conn) { _, _ = io.WriteString(c, "hello "+c.LocalAddr().String()+"\n") })
	}
	in.ServeTCP(9, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c)
		in.Received.Add(n)
	})
	in.ServeTCP(19, func(c net.Conn) { _, _ = c.Write(make([]byte, Sourced)) })
	for a, count := range map[string]*atomic.Int64{"8.8.8.8:7": &in.DatagramBytes, "10.1.2.3:7": &in.PrivateDatagramBytes} {
		in.ServeUDP(a, func(b []byte) []byte { // a reply must come from where the question went
			count.Add(int64(len(b)))
			return b
		})
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

// OnFastPath reports whether a test is of a network with the kernel's fast path: its
// name says so.
func OnFastPath(t *testing.T) bool { return strings.Contains(t.Name(), "/kernel") }

// Forward has the test's machine forward or not.
func Forward(t *testing.T, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// Online opens the runtime anew with the internet's name server, on the fast path
// where the test is of that, and as change has it.
func (w *World) Online(change func(*libcontainer.NetworkConfig)) {
	w.T.Helper()
	w.Config.Network = libcontainer.NetworkConfig{
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort(resolverAddr + ":53")}, Kernel: OnFastPath(w.T),
	}
	if OnFastPath(w.T) {
		Forward(w.T, "1")
	}
	if change != nil {
		change(&w.Config.Network)
	}
	w.Reopen()
}

// UseTraffic makes an image the world's that has bench/network/traffic in it.
func (w *World) UseTraffic() {
	w.T.Helper()
	tool := w.BuildProgram("bench/network/traffic")
	files := map[string]image.File{"/bin/busybox": {Source: Busybox, Mode: 0o755}, "/bin/traffic": {Source: tool, Mode: 0o755}}
	for _, name := range []string{"sh", "nc", "sleep", "cat", "echo"} {
		files["/bin/"+name] = image.File{Link: "busybox"}
	}
	w.UseImage("traffic-layout", image.Build{Files: files, Args: []string{"sleep", "1000"}})
}

// Member is a container of a group that waits for commands.
func (w *World) Member(id, group, name string, e container.Egress) container.Spec {
	s := w.Spec(id, "sleep", "1000")
	s.Network = container.Network{Group: group, Name: name, Egress: e}
	return s
}

// Public is the egress to any public address.
var Public = container.Egress{Public: true}

// Fetch connects from inside and returns what came, after as long as it takes.
func (w *World) Fetch(id, host string, port int) string {
	w.T.Helper()
	return w.FetchWithin(100, id, host, port)
}

// FetchWithin is Fetch that gives up after some seconds.
func (w *World) FetchWithin(seconds int, id, host string, port int) string {
	w.T.Helper()
	got, _ := w.Exec(id, "sh", "-c", fmt.Sprintf("nc -w %d %s %d </dev/null 2>&1", seconds, host, port))
	return got
}

// Network is a container's.
func (w *World) Network(id string) container.NetworkStatus {
	w.T.Helper()
	return w.Status(id).Network
}

// AwaitNetwork polls until the network of a container is as wanted.
func (w *World) AwaitNetwork(id string, want func(container.NetworkStatus) bool) container.NetworkStatus {
	w.T.Helper()
	return w.Await(id, func(s container.Status) bool { return want(s.Network) }).Network
}
