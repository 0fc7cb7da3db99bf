//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

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

// networkWorld is a world whose runtime has the internet's name server.
func networkWorld(t *testing.T, change func(*libcontainer.NetworkConfig)) *world {
	t.Helper()
	w := newWorld(t)
	w.Online(change)
	return w
}

// TestNetworkEgress tries from inside what must and what must not be reached.
func TestNetworkEgress(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		in := boxtest.NewInternet(t)
		boxtest.NetEgress(newWorld(t).World, in)
	})
}

// TestNetworkGroups shows who finds whom.
func TestNetworkGroups(t *testing.T) { eachWay(t, testGroups) }

func testGroups(t *testing.T) {
	boxtest.NewInternet(t)
	w := networkWorld(t, nil)
	serve := func(id, group, name string) {
		s := w.Member(id, group, name, container.Egress{})
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
		wait := 5
		if c.want != "" {
			wait = 100
		}
		if got := w.FetchWithin(wait, c.id, c.host, 80); got != c.want && (c.want != "" || strings.Contains(got, "I am")) {
			t.Errorf("%s to %s: got %q, want %q", c.id, c.host, got, c.want)
		}
	}
	// Nor does a route of its own, a broadcast or the router lead anywhere else.
	if got, _ := w.Exec("a1", "sh", "-c", "ip route; ip -6 addr show eth0"); !strings.HasPrefix(got, "default via 10.213.0.1 dev eth0") || strings.Contains(got, "inet6") {
		t.Errorf("routes: got %q", got)
	}
	s := w.Member("a3", "a", "db", container.Egress{})
	if err := w.RT.Start(t.Context(), s); !errors.Is(err, container.CodeConflict) {
		t.Errorf("a name twice: got %v, want %q", err, string(container.CodeConflict))
	}
	if err := w.RT.Destroy(t.Context(), "a2"); err != nil {
		t.Fatal(err)
	}
	if got := w.FetchWithin(5, "a1", "db", 80); strings.Contains(got, "I am") {
		t.Errorf("a destroyed container answers: %q", got)
	}
	w.Start(s)
	if got := w.FetchWithin(5, "a1", "db", 9); strings.Contains(got, "bad address") {
		t.Errorf("a new container is not found by name: %q", got)
	}
}

// TestNetworkRemoved shows that nothing is left.
func TestNetworkRemoved(t *testing.T) {
	alone(t, "netstack", testRemoved)
	alone(t, "kernel", testRemoved)
}

func testRemoved(t *testing.T) {
	boxtest.NewInternet(t)
	w := networkWorld(t, nil)
	before, links := w.Traces(), linkNames(t)
	w.Start(w.Member("one", "g", "one", boxtest.Public))
	w.Start(w.Member("two", "g", "two", boxtest.Public))
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
	boxtest.NewInternet(t)
	w := networkWorld(t, nil)
	w.Start(w.Member("one", "g", "one", boxtest.Public))
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
	limits, _ := filepath.Glob("/sys/fs/cgroup/memory" + w.Group() + "/_net.g/memory.limit_in_bytes")
	more, _ := filepath.Glob("/sys/fs/cgroup" + w.Group() + "/_net.g/memory.max")
	for _, file := range append(limits, more...) {
		if b, _ := os.ReadFile(file); string(b) != "134217728\n" {
			t.Errorf("%s: got %s", file, b)
		}
	}
	if len(limits)+len(more) == 0 {
		t.Error("no memory limit")
	}
	sockets, _ := filepath.Glob("/sys/fs/cgroup/memory" + w.Group() + "/_net.g/memory.kmem.tcp.limit_in_bytes")
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
