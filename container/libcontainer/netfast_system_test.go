//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// carried is what the files of a group say of the container whose address ends in
// a number: by the stack and by the fast path.
type carried struct{ slowIn, slowOut, fastIn, fastOut uint64 }

func (w *world) carried(id, group string) carried {
	w.T.Helper()
	last := w.Network(id).Address.As4()[3] // which also has the keeper write it down
	b, err := os.ReadFile(filepath.Join(w.Dir, "run/nets", group, "traffic"))
	if err != nil {
		w.T.Fatal(err)
	}
	b = b[64*int(last):]
	return carried{
		binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[32:]), binary.NativeEndian.Uint64(b[40:]),
	}
}

// inMachine lists what the machine's network has of groups: interfaces, routes,
// tables of the firewall, and tracked connections.
func inMachine(t *testing.T) []string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "pktc-") {
			out = append(out, "interface "+l.Attrs().Name)
		}
	}
	between := netip.MustParsePrefix("198.19.0.0/16")
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if a, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok && between.Contains(a) {
			out = append(out, "route "+a.String())
		}
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		out = append(out, "table "+table.Name)
	}
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if a, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4()); between.Contains(a) {
			out = append(out, "connection "+f.String())
		}
	}
	return out
}

// awaitMachine polls until what the machine has of groups is as wanted.
func awaitMachine(t *testing.T, what string, good func([]string) bool) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = inMachine(t); good(got) {
			return
		}
	}
	t.Errorf("%s: the machine has %q", what, got)
}

func nothing(s []string) bool { return len(s) == 0 }

// firewall adds a table of the owner's to the test's machine.
func firewall(t *testing.T, family nftables.TableFamily, c nftables.Chain, rule ...expr.Any) (remove func()) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "owner", Family: family})
	c.Name, c.Table = "chain", table
	chain := conn.AddChain(&c)
	if len(rule) > 0 {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return func() {
		conn.DelTable(table)
		if err := conn.Flush(); err != nil {
			t.Error(err)
		}
	}
}

// TestFastPathRefused asks for it where it cannot be.
func TestFastPathRefused(t *testing.T) {
	if !netlab.Alone(t) {
		return
	}
	w := newWorld(t)
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		w.Config.Network = libcontainer.NetworkConfig{}
		w.Open()
	}()
	open := func(forwarded bool) error {
		w.Config.Network.Kernel, w.Config.Network.KernelForwarded = true, forwarded
		rt, err := libcontainer.New(w.Config)
		if err == nil {
			err = rt.Close()
		}
		return err
	}
	want := func(err error, part string) {
		t.Helper()
		if !errors.Is(err, container.CodeMissingFeature) || !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("got %v, want %q that says %q", err, string(container.CodeMissingFeature), part)
		}
	}
	boxtest.Forward(t, "0")
	want(open(true), "net.ipv4.ip_forward=1")
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || string(b) != "0\n" {
		t.Errorf("the machine's setting is %q, %v", b, err)
	}
	boxtest.Forward(t, "1")
	if err := open(false); err != nil {
		t.Errorf("got %v", err)
	}
	no := nftables.ChainPolicyDrop
	defer firewall(t, nftables.TableFamilyINet, nftables.Chain{
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &no,
	})()
	want(open(false), "pktc-*")
	if err := open(true); err != nil {
		t.Errorf("with the owner's word: %v", err)
	}
}

// TestFastPath shows what goes by it and what does not, and what the machine's own
// translations cannot open.
func TestFastPath(t *testing.T) { alone(t, "kernel", testFastPath) }

func testFastPath(t *testing.T) {
	in := boxtest.NewInternet(t)
	var reached atomic.Int64
	for _, at := range []string{netlab.MachineAddr + ":80", "127.0.0.1:80"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				reached.Add(1)
				_, _ = io.WriteString(c, "hello machine\n")
				_ = c.Close()
			}
		}()
	}
	w := trafficWorld(t, func(c *libcontainer.NetworkConfig) { c.AllowPrivate = []string{"10.1.2.3:80"} })
	w.Start(w.Member("open", "g", "open", boxtest.Public))
	w.Start(w.Member("list", "g", "list", container.Egress{Allow: []string{"good.example:80", "other.example:*", "10.1.2.3:80"}}))
	grew := func(id, host string, port int, want string, fast bool) {
		t.Helper()
		before := w.carried(id, "g")
		if got := w.Fetch(id, host, port); got != want {
			t.Errorf("%s to %s:%d: got %q, want %q", id, host, port, got, want)
		}
		after := w.carried(id, "g")
		if before.fastIn+uint64(len(want)) > after.fastIn == fast || before.slowIn+uint64(len(want)) > after.slowIn != fast {
			t.Errorf("%s to %s:%d: the counts went from %+v to %+v", id, host, port, before, after)
		}
	}
	grew("open", "8.8.8.8", 80, "hello 8.8.8.8:80\n", true)
	grew("list", "good.example", 80, "hello 8.8.8.8:80\n", true)
	grew("list", "8.8.8.8", 80, "hello 8.8.8.8:80\n", true)
	grew("list", "other.example", 81, "hello 1.1.1.1:81\n", true)
	grew("list", "10.1.2.3", 80, "hello 10.1.2.3:80\n", false) // exceptions are the stack's

	// Connections that have ended are soon forgotten.
	awaitMachine(t, "connections that have ended", func(have []string) bool {
		return !slices.ContainsFunc(have, func(s string) bool { return strings.HasPrefix(s, "connection") })
	})

	// What the owner's firewall translates to places that nobody may reach stays out
	// of reach, though the container names a public address.
	for name, c := range map[string]struct {
		port  byte
		local bool
	}{"to the machine": {80, true}, "to a private host": {81, false}} {
		place := netip.MustParseAddr(netlab.MachineAddr).As4()
		if !c.local {
			place = netip.MustParseAddr("10.1.2.3").As4()
		}
		remove := firewall(t, nftables.TableFamilyIPv4, nftables.Chain{
			Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		}, &expr.Immediate{Register: 1, Data: place[:]}, &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})
		if got, _ := w.Exec("open", "sh", "-c", fmt.Sprintf("nc -w 1 9.9.9.9 %d </dev/null 2>&1", c.port)); strings.Contains(got, "hello") {
			t.Errorf("a translation %s: got %q", name, got)
		}
		remove()
	}
	// Nor does one that the machine has for what is sent to itself.
	remove := firewall(t, nftables.TableFamilyIPv4, nftables.Chain{
		Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	}, &expr.Immediate{Register: 1, Data: []byte{8, 8, 8, 8}}, &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})
	addAddress(t, "9.9.9.100/32") // which the router hears of within a second
	if got, _ := w.Exec("open", "sh", "-c", "nc -w 1 9.9.9.100 80 </dev/null 2>&1"); strings.Contains(got, "hello") {
		t.Errorf("a new address of the machine: got %q", got)
	}
	remove()
	if n := reached.Load(); n != 0 {
		t.Errorf("the machine was reached %d times", n)
	}

	// Nobody comes in by the group's address.
	group := groupAddress(t)
	err := in.Do(func() error {
		if err := netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: group.AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: net.ParseIP(netlab.MachineAddr)}); err != nil {
			return err
		}
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(group, 80).String(), 300*time.Millisecond)
		if err == nil {
			_ = c.Close()
			t.Error("the group's address answers strangers")
		} else if !os.IsTimeout(err) {
			t.Errorf("got %v, want silence", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func addAddress(t *testing.T, a string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
}

// groupAddress is that of the one group in the machine's network.
func groupAddress(t *testing.T) netip.Addr {
	t.Helper()
	for _, s := range inMachine(t) {
		if a, ok := strings.CutPrefix(s, "route "); ok {
			return netip.MustParseAddr(a)
		}
	}
	t.Fatal("the machine has no route to a group")
	return netip.Addr{}
}

// TestFastPathRemoved ends groups in all ways and looks what the machine's network
// is left with.
func TestFastPathRemoved(t *testing.T) { alone(t, "kernel", testFastPathRemoved) }

func testFastPathRemoved(t *testing.T) {
	boxtest.NewInternet(t)
	w := trafficWorld(t, nil)
	w.Start(w.Member("one", "g", "one", boxtest.Public))
	if got := w.Fetch("one", "8.8.8.8", 80); !strings.HasPrefix(got, "hello") {
		t.Fatalf("got %q", got)
	}
	has := inMachine(t)
	for _, what := range []string{"interface pktc-", "route 198.19.", "table pktc-"} {
		if !slices.ContainsFunc(has, func(s string) bool { return strings.HasPrefix(s, what) }) {
			t.Errorf("the machine has %q, but no %q", has, what)
		}
	}
	// Nobody else changes the table.
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range has {
		if name, ok := strings.CutPrefix(s, "table "); ok {
			conn.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
			if conn.Flush() == nil {
				t.Errorf("somebody else removed %s", name)
			}
		}
	}
	// A container's connections end with it, also in the machine's memory, which keeps
	// a flow of datagrams for longer than this waits.
	if got, _ := w.Exec("one", "traffic", "datagrams", "8.8.8.8:7", "1", "100"); got != "1\n" {
		t.Fatalf("a datagram: got %q back", got)
	}
	if !slices.ContainsFunc(inMachine(t), func(s string) bool { return strings.HasPrefix(s, "connection") }) {
		t.Fatal("the machine does not know the flow")
	}
	w.Start(w.Member("two", "g", "two", boxtest.Public))
	if err := w.RT.Destroy(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	awaitMachine(t, "a container's end", func(have []string) bool {
		return !slices.ContainsFunc(have, func(s string) bool { return strings.HasPrefix(s, "connection") })
	})
	if err := w.RT.Destroy(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	awaitMachine(t, "the group's end", nothing)
	// The keeper's death takes everything along.
	w.Start(w.Member("three", "g", "three", boxtest.Public))
	if err := w.RT.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(w.ProcessID("pktcloud-network"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitMachine(t, "the keeper's death", nothing)
	w.Open()
	for deadline := time.Now().Add(boxtest.Patience); ; time.Sleep(50 * time.Millisecond) {
		if got := w.Fetch("three", "8.8.8.8", 80); strings.HasPrefix(got, "hello") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after the keeper's death: got %q", got)
		}
	}
	if err := w.RT.Destroy(t.Context(), "three"); err != nil {
		t.Fatal(err)
	}
	awaitMachine(t, "the end", nothing)
}
