//go:build system

package systemtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// shipped builds the program as "make build" does, with the programs in it that
// run beside and in containers, as a version.
func shipped(t *testing.T, dir, version string) string {
	t.Helper()
	path := filepath.Join(dir, "pktcloud-"+version)
	stamp := "-X github.com/pkt-cash/pkt-cloud/node.version=" + version
	overlay, err := carry(dir, []string{"monitor", "fileserver"}, "-trimpath", "-ldflags", "-s -w "+stamp)
	if err == nil {
		err = buildFrom("../pktcloud", path, "-trimpath", "-tags", "monitor files", "-overlay", overlay, "-ldflags", stamp)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What the nine services do that are in a lease beside its web server. All end
// on SIGUSR1 with their code, and write on SIGUSR2.
var upgraded = []struct {
	name, more string
	code       int
	signal     syscall.Signal // in the gap; 0: it is left alone
	state      string         // afterwards
	restarts   uint64
}{
	{"job-good", "job: true", 0, syscall.SIGUSR1, "done", 0},
	{"job-bad", "job: true", 42, syscall.SIGUSR1, "failed", 0},
	{"again", "restart: always", 7, syscall.SIGUSR1, "running", 1},
	{"says", "restart: always", 1, syscall.SIGUSR2, "running", 0},
	{"says-too", "", 1, syscall.SIGUSR2, "running", 0},
	{"job-says", "job: true", 1, syscall.SIGUSR2, "running", 0},
	{"quiet", "restart: always", 1, 0, "running", 0},
	{"quiet-too", "", 1, 0, "running", 0},
	{"job-quiet", "job: true", 1, 0, "running", 0},
}

// upgradeFile is the manifest of such a lease.
func (w *world) upgradeFile() string {
	const rest = "\n    image: %s\n    cpu: 0.05\n    memory: 16MiB\n    disk: 8MiB\n"
	var b strings.Builder
	fmt.Fprintf(&b, "services:\n  web:\n    ports: [8080]"+rest, w.image)
	for _, s := range upgraded {
		script := fmt.Sprintf("trap 'echo last; exit %d' USR1; trap 'echo gap' USR2; echo ready; while :; do sleep 0.2; done", s.code)
		fmt.Fprintf(&b, "  %s:\n    command: [/bin/busybox, sh, -c, %q]"+rest, s.name, script, w.image)
		if s.more != "" {
			fmt.Fprintf(&b, "    %s\n", s.more)
		}
	}
	file := filepath.Join(w.dir, "upgrade.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// TestUpgrade kills a provider's node under 20 services of two leases that pay,
// and starts another build of it in its place. No service is started again that
// need not be. What ended meanwhile, and with which code, and what was written,
// the tenant learns, and goes on paying.
func TestUpgrade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: real containers are started")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "pktcloud")
	next := shipped(t, dir, "v2.0.0")
	if err := os.Rename(shipped(t, dir, "v1.0.0"), bin); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldConfig{bin: bin, blockInterval: 500 * time.Millisecond})
	w.publish()
	file := w.upgradeFile()
	eventually(t, "the tenant sees the offer", func() (bool, error) {
		page, err := w.tenant.client().Offers(t.Context(), service.OfferQuery{})
		return len(page.Offers) > 0, err
	})
	for range 2 {
		w.atHand() // the second time the change of the first channel
		w.run("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--wait")
	}
	leases, err := w.tenant.client().Leases(t.Context())
	if err != nil || len(leases) != 2 {
		t.Fatalf("got %d leases, %v, want 2", len(leases), err)
	}
	for _, l := range leases {
		w.paidIntervals(l.ID, 2)
		w.awaitLog(l, "ready", len(upgraded))
	}
	w.wantVersion("v1.0.0")
	before := w.firsts(leases)

	w.provider.kill()
	gap := time.Now()
	if err := os.Rename(next, bin); err != nil {
		t.Fatal(err)
	}
	w.gap(leases, before)
	gapEnd := time.Now()
	w.provider.start()

	w.wantVersion("v2.0.0")
	for _, l := range leases {
		w.wantUpgraded(l)
		w.wantGapLog(l, gap, gapEnd)
		w.reach(l)
		w.wantExec(l)
		w.paidIntervals(l.ID, w.lease(l).Intervals+2)
	}
	after := w.firsts(leases)
	for box, p := range before {
		if strings.Contains(box, ".again.") || strings.Contains(box, ".job-good.") || strings.Contains(box, ".job-bad.") {
			continue // it ended in the gap
		}
		if after[box] != p {
			t.Errorf("%s: got process %+v, want %+v still", box, after[box], p)
		}
	}
	for _, l := range leases {
		w.closeLease(l.ID)
	}
	w.clean()
}

func (w *world) wantVersion(want string) {
	w.t.Helper()
	if i, err := w.provider.client().Info(w.t.Context()); err != nil || i.Version != want {
		w.t.Fatalf("the provider is %q, %v; want %q", i.Version, err, want)
	}
}

func upgradeBox(l pktcloud.ID, name string) string { return services.Container(l.Hex(), name, 1) }

// gap sends the signals, and waits until they have done their work.
func (w *world) gap(leases []service.Lease, first map[string]firstProcess) {
	w.t.Helper()
	for _, l := range leases {
		for _, s := range upgraded {
			if s.signal == 0 {
				continue
			}
			p, ok := first[upgradeBox(l.ID, s.name)]
			if !ok {
				w.t.Fatalf("%s has no process", s.name)
			}
			if err := syscall.Kill(p.pid, s.signal); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	word := map[syscall.Signal]string{syscall.SIGUSR1: " last\n", syscall.SIGUSR2: " gap\n"} // of a whole line
	for _, l := range leases {
		for _, s := range upgraded {
			box := upgradeBox(l.ID, s.name)
			eventually(w.t, s.name+" does what it was told in the gap", func() (bool, error) {
				log, err := os.ReadFile(filepath.Join(w.provider.dir, "runtime", "boxes", box, "log.0"))
				_, there := w.first(box)
				return strings.Contains(string(log), word[s.signal]) && there == (s.signal != syscall.SIGUSR1), err
			})
		}
	}
}

// wantUpgraded waits until the services are as they should be afterwards, and
// how they ended is known.
func (w *world) wantUpgraded(l service.Lease) {
	w.t.Helper()
	eventually(w.t, "the new version knows what became of the services", func() (bool, error) {
		list, err := w.tenant.client().LeaseServices(w.t.Context(), l.Label)
		if err != nil || len(list) != 1+len(upgraded) || list[0].State != "running" || list[0].Restarts != 0 {
			return false, errors.Join(err, fmt.Errorf("got %+v", list))
		}
		for i, s := range upgraded {
			got, ended := list[i+1], s.signal == syscall.SIGUSR1
			if got.Name != s.name || got.State != s.state || got.Restarts != s.restarts || (got.Exit != nil) != ended || ended && *got.Exit != s.code {
				return false, fmt.Errorf("%s: got %+v, want it %s with %d restarts, ended %t with code %d", s.name, got, s.state, s.restarts, ended, s.code)
			}
		}
		return true, nil
	})
	w.t.Log(w.run("lease", "services", "--dir", w.tenant.dir, l.Label))
}

// wantExec runs something beside a program that the old version has started.
func (w *world) wantExec(l service.Lease) {
	w.t.Helper()
	var out bytes.Buffer
	code, err := w.exec(l.Label+"/quiet", service.Streams{Stdout: &out}, "/bin/busybox", "hostname")
	if err != nil || code != 0 || out.String() != "quiet\n" {
		w.t.Errorf("got %q, %d, %v of a program run in an old container", out.String(), code, err)
	}
}

// awaitLog waits until so many lines with these words are in a lease's log.
func (w *world) awaitLog(l service.Lease, text string, n int) string {
	w.t.Helper()
	var log bytes.Buffer
	eventually(w.t, fmt.Sprintf("%d lines %q", n, text), func() (bool, error) {
		log.Reset()
		err := w.tenant.client().Logs(w.t.Context(), l.Label, service.LogRequest{}, &log)
		return strings.Count(log.String(), " "+text+"\n") == n, err
	})
	return log.String()
}

// wantGapLog looks for the lines of the gap, with their times.
func (w *world) wantGapLog(l service.Lease, from, to time.Time) {
	w.t.Helper()
	log := w.awaitLog(l, "ready", len(upgraded)+1) // one of them ran twice
	for _, s := range upgraded {
		want := map[syscall.Signal]string{syscall.SIGUSR1: s.name + " | last", syscall.SIGUSR2: s.name + " | gap", 0: ""}[s.signal]
		found := 0
		for line := range strings.Lines(log) {
			v, err := container.ParseLogLine([]byte(line))
			if err != nil {
				w.t.Fatalf("%q: %v", line, err)
			}
			if string(v.Text) == want && v.Time.After(from) && v.Time.Before(to) {
				found++
			}
		}
		if want != "" && found != 1 {
			w.t.Errorf("got %d lines %q of the gap, want 1:\n%s", found, want, log)
		}
	}
}

// firstProcess is the first of a container, as nothing else ever is.
type firstProcess struct {
	pid   int
	began string // in ticks since the machine began
}

// firsts returns the first process of each first run that is there.
func (w *world) firsts(leases []service.Lease) map[string]firstProcess {
	w.t.Helper()
	out := map[string]firstProcess{}
	names := []string{"web"}
	for _, s := range upgraded {
		names = append(names, s.name)
	}
	for _, l := range leases {
		for _, name := range names {
			if p, ok := w.first(upgradeBox(l.ID, name)); ok {
				out[upgradeBox(l.ID, name)] = p
			}
		}
	}
	return out
}

// first finds a container's first process through its control group.
func (w *world) first(box string) (firstProcess, bool) {
	for _, group := range leftover.Groups(filepath.Join(w.provider.dir, "runtime")) {
		list, _ := os.ReadFile(filepath.Join(group, box, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(list)) {
			status, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
			stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
			if err != nil || !isFirst(status) {
				continue
			}
			p := firstProcess{began: strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[19]}
			if _, err := fmt.Sscan(pid, &p.pid); err == nil {
				return p, true
			}
		}
	}
	return firstProcess{}, false
}
