//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// speed is what one connection reached: Gbit a second, and Gbit for each second
// of processor that both its ends and all between them took.
type speed struct{ wall, cpu float64 }

func (s speed) best(o speed) speed { return speed{max(s.wall, o.wall), max(s.cpu, o.cpu)} }

// TestNetworkSpeed prints, without and with the fast path, how fast one connection of a container is: out of its
// group, into it, and to another container of the group, each beside a
// connection over the machine's loopback, and beside slirp4netns where that is
// in PATH. It judges nothing but that bytes flow.
func TestNetworkSpeed(t *testing.T) {
	alone(t, "netstack", testSpeed)
	alone(t, "kernel", testSpeed)
}

func testSpeed(t *testing.T) {
	in := boxtest.NewInternet(t)
	in.ServeTCP(20, func(c net.Conn) {
		var err error
		for buf := make([]byte, 256<<10); err == nil; {
			_, err = c.Write(buf)
		}
	})
	w := trafficWorld(t, func(c *libcontainer.NetworkConfig) { c.MilliCPU = 8000 })
	bigger := container.Limits{MilliCPU: 4000, MemoryBytes: 256 << 20, DiskBytes: 16 << 20, Pids: 64}
	peer := w.Member("peer", "g", "peer", container.Egress{})
	peer.Args, peer.Limits = []string{"traffic", "serve", ":5001", "sink"}, bigger
	w.Start(peer)
	s := w.Member("fast", "g", "fast", boxtest.Public)
	s.Limits = bigger
	w.Start(s)
	w.AwaitLog("peer", "serving")
	tool := filepath.Join(w.Dir, "traffic")
	server := startBeside(t, exec.Command(tool, "serve", "127.0.0.1:5001", "sink"))
	carrier := processOf(t, "pktcloud-netstack\x00"+w.Dir)
	neighbour := processOf(t, "traffic\x00serve\x00:5001")
	self := os.Getpid()
	const during = "1s"
	send, receive := []string{"send", "8.8.8.8:9", during}, []string{"receive", "8.8.8.8:20", during}
	inside := func(args ...string) string {
		got, _ := w.Exec("fast", append([]string{"traffic"}, args...)...)
		return got
	}
	outside := func(cmd *exec.Cmd) string {
		b, err := cmd.Output()
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	paths := []struct {
		name string
		pids []int // of all but the client
		run  func() string
	}{
		{"loopback", []int{server}, func() string { return outside(exec.Command(tool, "send", "127.0.0.1:5001", during)) }},
		{"group", []int{neighbour}, func() string { return inside("send", "peer:5001", during) }},
		{"out", []int{carrier, self}, func() string { return inside(send...) }},
		{"in", []int{carrier, self}, func() string { return inside(receive...) }},
	}
	if slirp, sandbox := startSlirp(t); slirp != 0 {
		enter := func(args []string) *exec.Cmd {
			return exec.Command("nsenter", append([]string{"-n", "-t", fmt.Sprint(sandbox), tool}, args...)...)
		}
		for name, args := range map[string][]string{"slirp out": send, "slirp in": receive} {
			p := paths[0]
			p.name, p.pids, p.run = name, []int{slirp, self}, func() string { return outside(enter(args)) }
			paths = append(paths, p)
		}
	}
	best := map[string]speed{}
	for range 3 {
		for _, p := range paths {
			before := processorTime(t, p.pids)
			printed := p.run()
			others := processorTime(t, p.pids) - before
			var n, seconds, used float64
			if _, err := fmt.Sscan(printed, &n, &seconds, &used); err != nil || n == 0 {
				t.Fatalf("%s: got %q", p.name, printed)
			}
			gbit := n * 8 / 1e9
			best[p.name] = best[p.name].best(speed{gbit / seconds, gbit / (used + others.Seconds())})
		}
	}
	for _, p := range paths {
		b, l := best[p.name], best["loopback"]
		t.Logf("%-9s %5.1f Gbit/s, %.2f of loopback; %5.1f Gbit a second of processor, %.2f of loopback", p.name, b.wall, b.wall/l.wall, b.cpu, b.cpu/l.cpu)
	}
}

// startBeside starts a command that says when it is ready.
func startBeside(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	ready, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	_, _ = ready.Read(make([]byte, 8))
	return cmd.Process.Pid
}

// startSlirp gives a network to an empty namespace by slirp4netns. It returns
// its process and that of the namespace, or nothing.
func startSlirp(t *testing.T) (slirp, sandbox int) {
	t.Helper()
	path, err := exec.LookPath("slirp4netns")
	if err != nil {
		return 0, 0
	}
	hold := exec.Command("sh", "-c", "echo ready; exec sleep 1000")
	hold.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	sandbox = startBeside(t, hold)
	r, ready, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(path, "-c", "--mtu=65520", "-r", "3", fmt.Sprint(sandbox), "tap0")
	cmd.ExtraFiles = []*os.File{ready}
	err = cmd.Start()
	_ = ready.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatalf("slirp4netns: %v", err)
	}
	return cmd.Process.Pid, sandbox
}

// processOf finds a process by how its command line begins.
func processOf(t *testing.T, begin string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), begin) {
			var pid int
			if _, err := fmt.Sscanf(name, "/proc/%d/", &pid); err == nil {
				return pid
			}
		}
	}
	t.Fatalf("no process %q", begin)
	return 0
}

// processorTime is what processes have used.
func processorTime(t *testing.T, pids []int) time.Duration {
	t.Helper()
	var sum time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		const ticks = time.Second / 100
		var user, system int64
		fields := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+2:])
		if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(user+system) * ticks
	}
	return sum
}
