package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// aloneEnv says that the process is alone in a network.
const aloneEnv = "PKTCLOUD_TEST_NETWORK"

// Addresses of this machine in such a network, and of the other one.
const (
	MachineAddr = "203.0.113.1"
	OutsideAddr = "203.0.113.2"
)

// mtu is as large as the kernel takes it.
const mtu = 65520

// Alone runs the test again in a network of its own, and reports whether this
// process is the one there.
func Alone(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if os.Getenv(aloneEnv) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.timeout=5m", "-test.v")
	cmd.Env = append(os.Environ(), aloneEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	switch {
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("it did not run there: %s", out)
	}
	return false
}

// Outside is the other network.
type Outside struct {
	t  *testing.T
	ns *os.File
}

// New makes the other network, which has addresses besides [OutsideAddr]: public
// ones, and private ones too, so that what does not reach them was refused and
// not merely lost. It ends with the test.
func New(t *testing.T, addrs ...string) *Outside {
	t.Helper()
	o := &Outside{t: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(onThread(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			o.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	}))
	t.Cleanup(func() { _ = o.ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "up0", mtu
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "down0", PeerMTU: mtu, PeerNamespace: netlink.NsFd(o.ns.Fd())}))
	must(errors.Join(linkUp("lo"), linkUp("up0", MachineAddr+"/24")))
	up, err := netlink.LinkByName("up0")
	must(err)
	must(netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(OutsideAddr)}))
	must(o.Do(func() error {
		var all []string
		for _, a := range addrs {
			all = append(all, a+"/32")
		}
		return errors.Join(linkUp("down0", OutsideAddr+"/24"), linkUp("lo", all...))
	}))
	return o
}

// Do calls f on a thread in the other network.
func (o *Outside) Do(f func() error) error { return In(o.ns, f) }

// In calls f on a thread in a network namespace.
func In(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func linkUp(name string, addrs ...string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return h.LinkSetUp(link)
}

// ServeTCP calls f for each connection to a port of any address outside, until
// the test ends.
func (o *Outside) ServeTCP(port int, f func(net.Conn)) {
	o.t.Helper()
	var l net.Listener
	err := o.Do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
}

// ServeUDP answers each datagram at an address outside with what f makes of it,
// or not at all where that is nil.
func (o *Outside) ServeUDP(at string, f func([]byte) []byte) {
	o.t.Helper()
	var c net.PacketConn
	err := o.Do(func() (err error) {
		c, err = net.ListenPacket("udp", at)
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if b := f(buf[:n]); b != nil {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
}
