//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
)

// attackInfo is a line of "attack list".
type attackInfo struct {
	Name     string
	Without  []string
	Also     []string
	Guest    bool
	V1       bool
	V2       bool
	Asks     bool
	Mutant   string
	Unproven string
}

// attackTargets is what the program reads from ATTACK_TARGETS.
type attackTargets struct {
	Secret    string
	Token     string
	Disk      [2]int
	Addresses []string
	Heap      uint64
}

// siege is a machine with a neighbour and all that there is to attack.
type siege struct {
	*world
	attacks   []attackInfo
	machine   string // a directory of the machine, open to all
	targets   attackTargets
	neighbour int // its process
	network   string
	known     []string // messages of the kernel from before
	shared    []string // defences that the present lease lacks
}

const (
	siegeSecret = "the machine's secret"
	siegeLog    = 1 << 20
)

// guestEnv is set in a virtual machine, where the dangerous controls run.
const guestEnv = "PKTCLOUD_GUEST"

// onlyEnv may name the attacks to try, with commas between.
const onlyEnv = "PKTCLOUD_ATTACKS"

func inGuest() bool { return os.Getenv(guestEnv) != "" }

func newSiege(t *testing.T) *siege {
	s := &siege{world: newWorld(t)}
	binary := os.Getenv("PKTCLOUD_TEST_ATTACK") // where there is no Go
	if binary == "" {
		binary = s.BuildProgram("container/attack")
	}
	list, err := exec.Command(binary, "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(list, &s.attacks); err != nil {
		t.Fatal(err)
	}
	if only := os.Getenv(onlyEnv); only != "" {
		s.attacks = slices.DeleteFunc(s.attacks, func(a attackInfo) bool { return !slices.Contains(strings.Split(only, ","), a.Name) })
	}
	img, err := image.FromFiles(image.Build{Files: map[string]image.File{
		"/attack":     {Source: binary, Mode: 0o755},
		"/etc/passwd": {Data: []byte("root:x:0:0::/:/attack\n")},
	}, Args: []string{"/attack", "flood"}})
	if err == nil {
		img, err = withSetuid(img, binary)
	}
	if err == nil {
		err = image.WriteLayout(filepath.Join(s.Dir, "attack-layout"), img)
	}
	if err == nil {
		s.Image, err = s.RT.Pull(t.Context(), "oci:"+filepath.Join(s.Dir, "attack-layout"), container.PullOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.reopen(siegeLog)
	s.placeTargets()
	s.Start(s.Spec("neighbour", "/attack", "neighbour"))
	s.AwaitLog("neighbour", "heap ")
	_, heap, _ := strings.Cut(s.Logs("neighbour"), "heap ")
	if s.targets.Heap, err = strconv.ParseUint(strings.TrimSpace(heap), 10, 64); err != nil {
		t.Fatal(err)
	}
	s.targets.Disk = loopOf(t, filepath.Join(s.Dir, "run/boxes/neighbour/disk.img"))
	s.neighbour = s.hostPID("/attack\x00neighbour\x00")
	return s
}

// reopen opens the runtime again with another cap on logs.
func (s *siege) reopen(logBytes int64) {
	s.T.Helper()
	s.Config.LogBytes = logBytes
	s.Reopen()
}

// placeTargets makes a secret file, and a network such as a machine may have.
func (s *siege) placeTargets() {
	s.T.Helper()
	s.machine = filepath.Join(s.Dir, "machine")
	s.targets = attackTargets{Secret: filepath.Join(s.machine, "secret"), Token: siegeSecret}
	if err := errors.Join(os.Mkdir(s.machine, 0o777), os.Chmod(s.machine, 0o777),
		os.WriteFile(s.targets.Secret, []byte(siegeSecret), 0o666), os.Chmod(s.targets.Secret, 0o666)); err != nil {
		s.T.Fatal(err)
	}
	type made struct {
		path      string
		addresses []string
		err       error
	}
	ready, done := make(chan made), make(chan struct{})
	s.T.Cleanup(func() { close(done) })
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, and the network with it
		m := made{path: fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), err: unix.Unshare(unix.CLONE_NEWNET)}
		for _, a := range []string{"169.254.169.254", "10.77.0.1", "172.16.77.1", "192.168.77.1", "100.64.77.1", "127.0.0.2"} {
			if m.err == nil {
				m.err = exec.Command("ip", "addr", "add", a+"/32", "dev", "lo").Run()
			}
		}
		if m.err == nil {
			m.err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		for _, a := range []string{"0.0.0.0:80", "127.0.0.2:7070"} {
			if m.err == nil {
				var l net.Listener
				if l, m.err = net.Listen("tcp4", a); m.err == nil {
					defer l.Close()
				}
			}
		}
		m.addresses = []string{"127.0.0.2:7070"}
		ready <- m
		<-done
	}()
	m := <-ready
	if m.err != nil {
		s.T.Fatal(m.err)
	}
	own, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { own.Close() })
	s.network, s.targets.Addresses = m.path, append(m.addresses, own.Addr().String())
}

// loopOf returns the loop device over a file.
func loopOf(t *testing.T, path string) [2]int {
	t.Helper()
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == path {
			var n [2]int
			dev, err := os.ReadFile(filepath.Join(filepath.Dir(f), "..", "dev"))
			if err == nil {
				_, err = fmt.Sscanf(string(dev), "%d:%d", &n[0], &n[1])
			}
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no loop device over %s", path)
	return [2]int{}
}

// lease is a specification with the limits that the bombs exceed.
func (s *siege) lease(id string, without ...string) container.Spec {
	spec := s.Spec(id)
	spec.Limits = container.Limits{MilliCPU: 200, MemoryBytes: 96 << 20, DiskBytes: 16 << 20, Pids: 64}
	if inGuest() { // whose processor is emulated
		spec.Limits.MilliCPU = 4000
	}
	targets, _ := json.Marshal(s.targets)
	spec.Env = []string{"ATTACK_TARGETS=" + string(targets)}
	if len(without) > 0 {
		spec.Args = []string{"/attack", "wait"}
		spec.Env = append(spec.Env, libcontainer.WithoutEnv+"="+strings.Join(without, ";"),
			libcontainer.NeighbourEnv+"="+strconv.Itoa(s.neighbour), libcontainer.NetworkEnv+"="+s.network, libcontainer.MachineEnv+"="+s.machine)
		if slices.Contains(without, "disk limit") {
			spec.Limits.DiskBytes = 256 << 20
		}
		spec.Limits.MilliCPU = 4000 // also a weight, on a busy machine
	}
	return spec
}

// verdicts parses what the program printed.
func verdicts(out string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(out) {
		if name, verdict, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			all[name] = verdict
		}
	}
	return all
}

// attack runs the program's own attacks, or the named one, and those that are
// judged from outside.
func (s *siege) attack(id string, names ...string) map[string]string {
	s.T.Helper()
	out, _ := s.Exec(id, append([]string{"/attack", "run"}, names...)...)
	all := verdicts(out)
	for name, try := range map[string]func(string) string{
		"fs/first-program": s.firstProgram, "proc/trace-start": s.traceStart, "fs/working-directory": s.workingDirectory, "fs/descriptor-directory": s.descriptorDirectory,
		"kernel/keyring": s.keyring, "exhaust/log": s.logSize,
	} {
		if len(names) == 0 || slices.Contains(names, name) {
			all[name] = try(id)
		}
	}
	return all
}

// logSize is judged by what the log takes on the disk once the flood is over.
func (s *siege) logSize(id string) string {
	s.T.Helper()
	s.Await(id, func(container.Status) bool { return strings.HasSuffix(s.Logs(id), "flood over\n") })
	var size int64
	_ = filepath.WalkDir(s.Box(id), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), "log") {
			if st, err := d.Info(); err == nil && !d.IsDir() {
				size += st.Size()
			}
		}
		return nil
	})
	if size > siegeLog+64<<10 {
		return "SUCCEEDED"
	}
	return fmt.Sprintf("could not: %d KiB of 24 MiB are kept", size>>10)
}

// TestAttacks runs the hostile program in a lease as every tenant gets it, beside
// a neighbour. Then each attack has its control: a lease without the defences
// that are said to stop it, where it must succeed, and one for each of those
// defences alone, where it must not. One without a control here proves nothing,
// and the table says so.
func TestAttacks(t *testing.T) {
	s := newSiege(t)
	hardened := map[string]string{}
	t.Run("hardened", func(t *testing.T) { hardened = s.hardened(t) })
	t.Run("controls", func(t *testing.T) { s.controls(t, hardened) })
	t.Run("alone", func(t *testing.T) {
		if inGuest() {
			s.aloneTogether(t)
			return
		}
		s.alone(t)
	})
}

func (s *siege) hardened(t *testing.T) map[string]string {
	s.Start(s.lease("hostile"))
	s.known = kernelLog()
	s.favour()
	before := s.machineState()
	watched := s.watchNeighbour()
	begun := time.Now()
	var names []string
	for _, a := range s.attacks {
		names = append(names, a.Name)
	}
	hardened := s.attack("hostile", names...)
	t.Logf("the attacks took %v", time.Since(begun))
	s.checkNeighbour(watched)
	for _, a := range s.attacks {
		if inGuest() && a.V1 {
			continue
		}
		if a.Mutant != "" {
			hardened[a.Name] = "could not: see the mutant " + a.Mutant
		}
		if v := hardened[a.Name]; !strings.HasPrefix(v, "could not") {
			t.Errorf("%s: got %q in a hardened lease", a.Name, v)
		}
	}
	s.checkMachine(before, s.machineState())
	if len(s.strangers()) == 0 {
		t.Error("no process of the lease is found while it runs")
	}
	s.destroy("hostile")
	if left := s.strangers(); len(left) > 0 {
		t.Errorf("processes of the destroyed lease are left: %q", left)
	}
	return hardened
}

// tries is how often something is begun; in a virtual machine each takes long.
func tries(n int) int {
	if inGuest() {
		return 4
	}
	return n
}

// here reports whether an attack's control is for this machine: a dangerous one
// only for a virtual one, and there also those of control groups, which are
// others than here.
func here(a attackInfo) bool {
	if inGuest() {
		return !a.V1 && (a.Guest || a.V2)
	}
	return !a.Guest
}

func (s *siege) controls(t *testing.T, hardened map[string]string) {
	var table strings.Builder
	for i, a := range s.attacks {
		var control string
		switch {
		case a.Unproven != "":
			control = "unproven: " + a.Unproven
		case a.Mutant != "":
			control = "the mutant " + a.Mutant
		case !here(a):
			control = "unproven here: see the virtual machine"
			if inGuest() {
				control = "unproven here: see the other machine"
			}
		default:
			control = s.control(fmt.Sprintf("control-%d", i), a, slices.Concat(a.Without, a.Also))
			if t.Logf("%s: %s", a.Name, control); control != "SUCCEEDED" {
				t.Errorf("%s: without %s: got %q, want it to succeed", a.Name, strings.Join(a.Without, ", "), control)
			}
		}
		fmt.Fprintf(&table, "%-26s %-60.60s control: %s\n", a.Name, hardened[a.Name], control)
	}
	t.Log("\n" + table.String())
}

// alone shows that each defence which the table names for an attack stops it by
// itself: all the others are taken away.
func (s *siege) alone(t *testing.T) {
	n := 0
	for i, a := range s.attacks {
		if len(a.Without) < 2 || a.Unproven != "" || a.Mutant != "" || !here(a) {
			continue
		}
		for j, d := range a.Without {
			without := slices.Concat(slices.Delete(slices.Clone(a.Without), j, j+1), a.Also)
			n++
			if got := s.control(fmt.Sprintf("alone-%d-%d", i, j), a, without); !strings.HasPrefix(got, "could not") {
				t.Errorf("%s: with no defence but %s: got %q, want that it could not", a.Name, d, got)
			}
		}
	}
	t.Logf("%d defences", n)
}

// aloneTogether does the same in few containers, for a machine where each takes
// long: one for each defence, and one for the capabilities, in which all that
// any of the attacks names is taken away but that.
func (s *siege) aloneTogether(t *testing.T) {
	class := func(d string) string {
		if strings.HasPrefix(d, "CAP_") {
			return "capabilities"
		}
		return d
	}
	stopped, all := map[string][]string{}, map[string]bool{}
	for _, a := range s.attacks {
		if a.Guest && len(a.Without) > 1 {
			for _, d := range a.Without {
				stopped[class(d)], all[d] = append(stopped[class(d)], a.Name), true
			}
		}
	}
	for i, d := range slices.Sorted(maps.Keys(stopped)) {
		var without []string
		for _, other := range slices.Sorted(maps.Keys(all)) {
			if class(other) != d {
				without = append(without, other)
			}
		}
		id := fmt.Sprintf("together-%d", i)
		s.Start(s.lease(id, without...))
		got := s.attack(id, stopped[d]...)
		s.destroy(id)
		for _, name := range stopped[d] {
			if !strings.HasPrefix(got[name], "could not") {
				t.Errorf("%s: with no defence but %s: got %q, want that it could not", name, d, got[name])
			}
		}
		t.Logf("%s alone: %v", d, stopped[d])
	}
}

// favour gives this runtime's containers weight, so that what they could have is
// there however busy the machine is.
func (s *siege) favour() {
	group := libcontainer.Group(s.RunDir())
	_ = os.WriteFile("/sys/fs/cgroup/cpu/"+group+"/cpu.shares", []byte("200000"), 0)
	_ = os.WriteFile("/sys/fs/cgroup/"+group+"/cpu.weight", []byte("10000"), 0)
}

// control runs one attack without some defences.
func (s *siege) control(id string, a attackInfo, without []string) string {
	s.T.Helper()
	if slices.ContainsFunc(without, func(d string) bool { return strings.HasSuffix(d, "for each lease") }) {
		restore, err := libcontainer.ShareIDs(s.RT, "neighbour")
		if err != nil {
			s.T.Fatal(err)
		}
		defer restore()
	}
	spec := s.lease(id, without...)
	if a.Name == "exhaust/log" {
		s.reopen(64 << 20)
		defer s.reopen(siegeLog)
		spec.Args = nil
	}
	if err := s.RT.Start(s.T.Context(), spec); err != nil {
		return err.Error()
	}
	s.favour()
	s.shared = without
	got := s.attack(id, a.Name)[a.Name]
	if st, err := s.RT.Status(s.T.Context(), id); got == "" && err == nil && st.OOMKilled {
		got = "could not: its processes were ended for want of memory"
	}
	s.destroy(id)
	return got
}

// keyring leaves a key from another lease, which lacks the same defences, and
// looks for it from this one.
func (s *siege) keyring(id string) string {
	s.T.Helper()
	giver := id + "-giver"
	var restore func()
	if slices.Contains(s.shared, "a user namespace for each lease") {
		var err error
		if restore, err = libcontainer.ShareIDs(s.RT, id); err != nil {
			s.T.Fatal(err)
		}
		defer restore()
	}
	s.Start(s.lease(giver, append([]string{"log cap"}, s.shared...)...))
	defer s.destroy(giver)
	left, _ := s.Exec(giver, "/attack", "put-key")
	got, _ := s.Exec(id, "/attack", "get-key")
	if got = strings.TrimSpace(got); got != "SUCCEEDED" && !strings.Contains(left, "left") {
		return strings.TrimSpace(left)
	}
	return got
}

// destroy tries again on a machine, real or emulated, that is slower than the
// runtime's boxtest.Patience.
func (s *siege) destroy(id string) {
	s.T.Helper()
	var err error
	for range 6 {
		if err = s.RT.Destroy(s.T.Context(), id); err == nil {
			return
		}
		s.T.Logf("once more: %v", err)
	}
	s.T.Error(err)
}

// TestNothingOutlivesItsMonitor kills the monitor of a program that has asked the
// kernel not to end with it: the runtime ends it when it learns that it is lost
// [CONTAINER-94].
func TestNothingOutlivesItsMonitor(t *testing.T) {
	s := newSiege(t)
	spec := s.lease("hostile")
	spec.Args = []string{"/attack", "outlive"}
	s.Start(spec)
	s.AwaitLog("hostile", "outlives")
	pid := s.hostPID("/attack\x00outlive\x00")
	alive, err := os.ReadFile(filepath.Join(s.Dir, "run/boxes/hostile/alive"))
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := strconv.Atoi(strings.TrimSpace(string(alive)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(monitor, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Await("hostile", func(st container.Status) bool { return st.End == container.EndLost })
	for deadline := time.Now().Add(boxtest.Patience / 4); unix.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = unix.Kill(pid, unix.SIGKILL) // nothing else would
			t.Fatal("it goes on")
		}
	}
	s.destroy("hostile")
	s.destroy("neighbour")
}
