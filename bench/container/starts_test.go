//go:build linux

package container_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container/image"
)

const busybox = "/usr/bin/busybox"

// cost of one measurement.
type cost struct{ cpu, wall time.Duration }

// contestant is one way to start containers.
type contestant struct {
	name string
	run  func(n int) (cost, error)
	all  []cost
}

func (c *contestant) least() cost {
	least := c.all[0]
	for _, v := range c.all {
		least = cost{min(least.cpu, v.cpu), min(least.wall, v.wall)}
	}
	return least
}

func (c *contestant) median() cost {
	var cpu, wall []time.Duration
	for _, v := range c.all {
		cpu, wall = append(cpu, v.cpu), append(wall, v.wall)
	}
	slices.Sort(cpu)
	slices.Sort(wall)
	return cost{cpu[len(cpu)/2], wall[len(wall)/2]}
}

// BenchmarkContainerStart is the life of one container whose program ends at
// once: made, started, ended, removed. Contestants take turns. The first is a
// node that runs already, in the shipped binary; the second is the shipped
// binary run for one container, which is what the others are.
func BenchmarkContainerStart(b *testing.B) {
	rounds(b, 1, max(b.N, 25))
}

// BenchmarkContainerStarts100 is 100 of them at once.
func BenchmarkContainerStarts100(b *testing.B) {
	rounds(b, 100, max(b.N, 3))
}

func rounds(b *testing.B, at, rounds int) {
	all := contestants(b, at == 1)
	for _, c := range all { // once to warm up
		if _, err := c.run(at); err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
	}
	for range rounds {
		for _, c := range all {
			v, err := c.run(at)
			if err != nil {
				b.Fatalf("%s: %v", c.name, err)
			}
			c.all = append(c.all, v)
		}
	}
	report(b, all, at)
}

// report prints a table and the ratios to the first contestant.
func report(b *testing.B, all []*contestant, at int) {
	b.Helper()
	var t bytes.Buffer
	fmt.Fprintf(&t, "\n%-34s %9s %9s %9s %9s   ratio of pktcloud, min and median\n", fmt.Sprintf("%d at once, ms", at), "cpu min", "cpu med", "wall min", "wall med")
	our, ourMedian := all[0].least(), all[0].median()
	for i, c := range all {
		least, median := c.least(), c.median()
		fmt.Fprintf(&t, "%-34s %9.1f %9.1f %9.1f %9.1f", c.name, ms(least.cpu), ms(median.cpu), ms(least.wall), ms(median.wall))
		if i > 0 {
			fmt.Fprintf(&t, "   cpu %.2f %.2f, wall %.2f %.2f", ratio(our.cpu, least.cpu), ratio(ourMedian.cpu, median.cpu),
				ratio(our.wall, least.wall), ratio(ourMedian.wall, median.wall))
		}
		fmt.Fprintln(&t)
	}
	b.Log(t.String())
	b.ReportMetric(ms(ourMedian.cpu), "cpu-ms")
	b.ReportMetric(ms(ourMedian.wall), "wall-ms")
	b.ReportMetric(0, "ns/op")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// contestants are pktcloud and those of the others that this machine has.
func contestants(b *testing.B, alone bool) []*contestant {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	node := newNode(b)
	all := []*contestant{{name: "pktcloud, in a node that runs", run: func(n int) (cost, error) { return node.ask(fmt.Sprintf("run %d", n)) }}}
	if alone {
		all = append(all, &contestant{name: "pktcloud, from its start on", run: func(int) (cost, error) { return runAlone(b, node.args) }})
	}
	one, three := []specs.Arch{specs.ArchX86_64}, []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	for _, peer := range []string{"crun", "runc"} {
		path, err := exec.LookPath(cmpEnv("BENCH_"+peer, peer))
		if err != nil {
			b.Logf("%s is left out: %v", peer, err)
			continue
		}
		for _, filter := range []struct {
			name  string
			archs []specs.Arch
		}{{"filter for x86-64", one}, {"Moby's filter", three}} {
			dir := openDir(b)
			writeBundle(b, dir, []string{"/bin/true"}, filter.archs)
			p := newPeer(b, path, dir)
			all = append(all, &contestant{name: peer + ", " + filter.name, run: p.run})
		}
	}
	return all
}

func cmpEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// openDir is a new directory through which anybody may pass.
func openDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "pktcloud-bench-") //nolint:usetesting // parents of TempDir may be closed to others
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// node is a pktcloud process that starts containers by request.
type node struct {
	args []string
	in   io.WriteCloser
	out  *bufio.Reader
}

// binary is the shipped one, made by "make build".
func binary(tb testing.TB) string {
	tb.Helper()
	path, err := filepath.Abs(cmpEnv("BENCH_pktcloud", "../../bin/pktcloud"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		tb.Skipf("needs bin/pktcloud, which \"make build\" makes: %v", err)
	}
	return path
}

func newNode(tb testing.TB) *node {
	tb.Helper()
	path, dir := binary(tb), openDir(tb)
	files := map[string]image.File{"/bin/busybox": {Source: busybox, Mode: 0o755}, "/bin/true": {Link: "busybox"}, "/bin/sleep": {Link: "busybox"}}
	img, err := image.FromFiles(image.Build{Files: files, Args: []string{"/bin/true"}})
	if err != nil {
		tb.Fatal(err)
	}
	layout := filepath.Join(dir, "layout")
	if err := image.WriteLayout(layout, img); err != nil {
		tb.Fatal(err)
	}
	n := &node{args: []string{path, "measure-starts", "--dir", filepath.Join(dir, "node"), "--image", "oci:" + layout}}
	cmd := exec.Command(n.args[0], n.args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if n.in, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	n.out = bufio.NewReader(out)
	tb.Cleanup(func() {
		_ = n.in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("pktcloud: %v", err)
		}
	})
	// The one that is run for one container has a directory of its own.
	n.args = slices.Clone(n.args)
	n.args[3] = filepath.Join(dir, "alone")
	return n
}

func (n *node) ask(request string) (cost, error) {
	if _, err := fmt.Fprintln(n.in, request); err != nil {
		return cost{}, err
	}
	line, err := n.out.ReadBytes('\n')
	if err != nil {
		return cost{}, err
	}
	var v struct {
		WallUS int64 `json:"wall_us"`
		CPUUS  int64 `json:"cpu_us"`
	}
	err = json.Unmarshal(line, &v)
	return cost{cpu: time.Duration(v.CPUUS) * time.Microsecond, wall: time.Duration(v.WallUS) * time.Microsecond}, err
}

// runAlone starts the binary for one container.
func runAlone(tb testing.TB, args []string) (cost, error) {
	tb.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader([]byte("run 1\n"))
	return timed(cmd)
}

// timed runs a program; its time is that of all it waited for, too.
func timed(cmd *exec.Cmd) (cost, error) {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	begun := time.Now()
	err := cmd.Run()
	wall := time.Since(begun)
	if err != nil {
		return cost{}, fmt.Errorf("%w: %s", err, complaint.Bytes())
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return cost{cpu: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), wall: wall}, nil
}

// peer is another runtime. Its processes are started from threads without the
// unified hierarchy of a hybrid machine, which crun refuses.
type peer struct {
	path, bundle string
	jobs         chan func()
	next         int
}

const maxPeers = 100

func newPeer(tb testing.TB, path, bundle string) *peer {
	p := &peer{path: path, bundle: bundle, jobs: make(chan func())}
	var wg sync.WaitGroup
	for range maxPeers {
		wg.Go(func() {
			runtime.LockOSThread() // never unlocked: it ends with the goroutine
			if err := hideUnified(); err != nil {
				tb.Errorf("hide cgroup v2: %v", err)
			}
			for job := range p.jobs {
				job()
			}
		})
	}
	tb.Cleanup(func() {
		close(p.jobs)
		wg.Wait()
	})
	return p
}

func hideUnified() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err != nil {
		return nil
	}
	return unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
}

// run runs n containers at once.
func (p *peer) run(n int) (cost, error) {
	var mu sync.Mutex
	var sum cost
	var failed error
	var wg sync.WaitGroup
	begun := time.Now()
	for range n {
		p.next++
		id := fmt.Sprintf("pktcloud-bench-%s-%d", filepath.Base(p.bundle), p.next)
		wg.Add(1)
		p.jobs <- func() {
			defer wg.Done()
			v, err := timed(exec.Command(p.path, "run", "--bundle", p.bundle, id))
			mu.Lock()
			defer mu.Unlock()
			sum.cpu += v.cpu
			if err != nil {
				failed = err
			}
		}
	}
	wg.Wait()
	sum.wall = time.Since(begun)
	return sum, failed
}
