//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// attackInfo is a line of "attack list".
type attackInfo struct {
	Name, About string
	Outside     bool
}

const machineSecret = "the machine's secret"

// siege is a machine with a neighbour and all that there is to attack.
type siege struct {
	*world
	attacks []attackInfo
	secret  string
	env     []string
}

func newSiege(t *testing.T) *siege {
	s := &siege{world: newWorld(t)}
	binary := s.BuildProgram("container/attack")
	list, err := exec.Command(binary, "list").Output()
	if err == nil {
		err = json.Unmarshal(list, &s.attacks)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.UseImage("attack-layout", image.Build{Files: map[string]image.File{
		"/attack":     {Source: binary, Mode: 0o755},
		"/etc/passwd": {Data: []byte("root:x:0:0::/:/attack\n")},
	}, Args: []string{"/attack", "wait"}})
	s.secret = filepath.Join(s.Dir, "secret")
	if err := os.WriteFile(s.secret, []byte(machineSecret), 0o666); err != nil {
		t.Fatal(err)
	}
	own, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	s.Start(s.Spec("neighbour", "/attack", "neighbour"))
	s.AwaitLog("neighbour", "heap ")
	_, heap, _ := strings.Cut(s.Logs("neighbour"), "heap ")
	at, err := strconv.ParseUint(strings.TrimSpace(heap), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	targets, err := json.Marshal(map[string]any{
		"Secret": s.secret, "Token": machineSecret, "Disk": [2]int{7, 0}, "Addresses": []string{own.Addr().String()}, "Heap": at,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.env = []string{"ATTACK_TARGETS=" + string(targets)}
	return s
}

// open begins a container anew.
func (s *siege) open(id string, milliCPU uint64) {
	s.T.Helper()
	if err := s.RT.Destroy(s.T.Context(), id); err != nil {
		s.T.Fatal(err)
	}
	spec := s.Spec(id)
	spec.Limits = container.Limits{MilliCPU: milliCPU, MemoryBytes: 96 << 20, DiskBytes: 16 << 20, Pids: 64}
	spec.Env = s.env
	s.Start(spec)
}

// one tries an attack, each bomb in a container of its own: the memory that one
// has taken is not back at once.
func (s *siege) one(id, name string) string {
	s.T.Helper()
	switch {
	case name == "exhaust/processor":
		return s.processor(id)
	case strings.HasPrefix(name, "exhaust/"):
		s.open(id, 1000)
	}
	var b bytes.Buffer
	_, err := s.RT.Exec(s.T.Context(), id, container.ExecSpec{Args: []string{"/attack", "run", name}, Stdout: &b, Stderr: &b})
	for line := range strings.Lines(b.String()) {
		if at, verdict, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && at == name {
			return verdict
		}
	}
	if err == nil {
		return fmt.Sprintf("no verdict: %.200q", b.String())
	}
	st := s.Await(id, boxtest.Exited) // or it is no verdict
	return fmt.Sprintf("could not: its container ended, out of memory %v", st.OOMKilled)
}

// processor judges by the machine's count: the kernel inside takes the time in
// which it does not run for time that its programs used.
func (s *siege) processor(id string) string {
	s.T.Helper()
	const milli = 200
	s.open(id, milli)
	begun := time.Now() // from before the first look to after the last
	before := s.Await(id, func(container.Status) bool { return true })
	s.Exec(id, "/attack", "run", "exhaust/processor")
	after := s.Await(id, func(container.Status) bool { return true })
	share := float64(after.CPUTime-before.CPUTime) / float64(time.Since(begun))
	if share > 1.5*milli/1000 {
		return fmt.Sprintf("SUCCEEDED: %.2f processors", share)
	}
	return fmt.Sprintf("could not: got %.2f processors of %.2f", share, milli/1000.0)
}

// machineState is what no lease may change.
func (s *siege) machineState() string {
	var b strings.Builder
	for _, name := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/net/ipv4/ip_forward",
		"/sys/kernel/uevent_helper", s.secret,
	} {
		text, err := os.ReadFile(name)
		fmt.Fprintf(&b, "%s: %q %v\n", name, text, err)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	for line := range strings.Lines(string(swaps)) { // how much of them is used changes by itself
		fmt.Fprintf(&b, "swap: %s %v\n", strings.Fields(line)[0], err)
	}
	return b.String()
}

// harmless are the attacks that succeed here because what they reach is the
// container's own kernel, and why that harms nobody. docs/security.md lists
// them; whatever else succeeds fails this test.
var harmless = map[string]string{
	"proc/sysctl-network":   "the setting is of the container's own network stack",
	"namespace/machine-ids": "all numbers are ids of its own kernel; outside they are the container's 65,536",
	"device/other":          "the devices are its own kernel's",
	"net/spoof":             "the packet stays in its own network stack, which leads nowhere",
	"exhaust/device-inodes": "the files take its own memory",
	"exhaust/terminals":     "the terminals are its own kernel's, and take its own memory",
	"exhaust/oom-score":     "its own kernel keeps the number, and tells nobody",
}

// TestAttacks runs the hostile program in a lease, beside a neighbour.
func TestAttacks(t *testing.T) {
	s := newSiege(t)
	before := s.machineState()
	s.open("hostile", 1000)
	succeeded := map[string]bool{}
	for _, a := range s.attacks {
		if a.Outside || a.Name == "fs/symlink-out" { // judged from outside; see libcontainer's tests
			continue
		}
		verdict := s.one("hostile", a.Name)
		t.Logf("%-26s %.100s", a.Name, verdict)
		switch {
		case strings.HasPrefix(verdict, "SUCCEEDED"):
			succeeded[a.Name] = true
		case !strings.HasPrefix(verdict, "could not"):
			t.Errorf("%s: %s", a.Name, verdict)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(succeeded)) {
		if harmless[name] == "" {
			t.Errorf("%s succeeded", name)
		}
	}
	if got := s.machineState(); got != before {
		t.Errorf("the machine is not as before: got\n%s\nwant\n%s", got, before)
	}
	if st, err := s.RT.Status(t.Context(), "neighbour"); err != nil || st.State != container.Running || st.OOMKilled {
		t.Errorf("the neighbour is %+v, %v", st, err)
	}
	if out, code := s.Exec("neighbour", "/attack", "list"); code != 0 || out == "" {
		t.Errorf("the neighbour runs no program any more: exit %d", code)
	}
}
