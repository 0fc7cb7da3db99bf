//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// loaded is a lease whose program never rests, beside a web server; what it
// counts tells of a start that should not be.
const loaded = `
services:
  web:
    image: IMAGE
    ports: [8080]
    command: [/bin/busybox, sh, -c, "/bin/busybox echo run >> /data/runs; (while :; do :; done) & exec /bin/busybox httpd -f -v -p 8080 -h /www"]
    cpu: 0.2
    memory: 64MiB
    disk: 8MiB
    mounts: ["data:/data"]
volumes:
  data: 300MiB
`

// quota is how many thousandths of a core the kernel gives the only container of
// the provider.
func (w *world) quota() uint64 {
	w.t.Helper()
	var found []uint64
	for _, group := range leftover.Groups(filepath.Join(w.provider.dir, "runtime")) {
		for pattern, read := range map[string]func(string) (uint64, uint64, error){
			"cpu.max":          readMax,
			"cpu.cfs_quota_us": readQuota,
		} {
			files, _ := filepath.Glob(filepath.Join(group, "*", pattern))
			for _, f := range files {
				if quota, period, err := read(f); err == nil && period > 0 {
					found = append(found, quota*1000/period)
				}
			}
		}
	}
	if len(found) != 1 {
		w.t.Fatalf("got processor limits %v of containers, want one", found)
	}
	return found[0]
}

func readMax(file string) (quota, period uint64, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(string(b), &quota, &period)
	return quota, period, err
}

func readQuota(file string) (quota, period uint64, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	quota, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, 0, err
	}
	b, err = os.ReadFile(filepath.Join(filepath.Dir(file), "cpu.cfs_period_us"))
	if err != nil {
		return 0, 0, err
	}
	period, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return quota, period, err
}

// capable reports whether this process has a capability.
func capable(t *testing.T, number uint) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	have, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return have&(1<<number) != 0
}

// sizes are what the lease sees of its sizes: MiB of the disk, of the volume and
// of the shared memory, which is half of the memory. Its program was started once.
func (w *world) sizes(l service.Lease) (disk, volume, shm int) {
	w.t.Helper()
	out, code := w.inside(l, "web", `for d in / /data /dev/shm; do /bin/busybox df -k $d | /bin/busybox tail -n 1; done; /bin/busybox cat /data/runs`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 4 || lines[3] != "run" {
		w.t.Fatalf("got %q (%d), want three sizes and one run", out, code)
	}
	var mib [3]int
	for i := range mib {
		fields := strings.Fields(lines[i])
		k, err := strconv.Atoi(fields[1])
		if err != nil {
			w.t.Fatalf("%q: %v", lines[i], err)
		}
		mib[i] = (k + 512) / 1024
	}
	return mib[0], mib[1], mib[2]
}

// wantAmended waits until both nodes show a revision with so much processor, and
// wants the kernel and the lease to have it, with so much memory.
func (w *world) wantAmended(id pktcloud.ID, revision, milli uint64, memory int) service.Lease {
	w.t.Helper()
	var l service.Lease
	for _, p := range []*party{w.tenant, w.provider} {
		eventually(w.t, fmt.Sprintf("the %s shows revision %d", p.name, revision), func() (_ bool, err error) {
			l, err = p.client().Lease(w.t.Context(), id.String())
			return l.Revision == revision && l.Resources.MilliCPU == milli && !l.Amending && l.Phase == "active", err
		})
	}
	if got := w.quota(); got != milli {
		w.t.Errorf("got %d thousandths of a core of the kernel, want %d", got, milli)
	}
	if _, _, shm := w.sizes(l); shm != memory/2 {
		w.t.Errorf("got %d MiB of shared memory inside, want %d", shm, memory/2)
	}
	return l
}

// TestAmend changes a lease under load: processor, memory, disk and a volume, as
// the kernel and its program see them. One that does not fit changes nothing, and
// a provider that is killed in the middle ends it after its start. The money is
// that of the segments [AMEND-5] [AMEND-7] [AMEND-9].
func TestAmend(t *testing.T) {
	w := newWorld(t, worldConfig{tags: "crashpoints", blockInterval: 500 * time.Millisecond})
	w.known(t, w.tenant, w.publish().ID)
	file := filepath.Join(w.dir, "loaded.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(loaded, "IMAGE", w.image)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--capacity", "10", "--wait")
	leases, err := w.tenant.client().Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("got %d leases, %v", len(leases), err)
	}
	l := leases[0]
	w.paidIntervals(l.ID, 1)
	w.wantAmended(l.ID, 0, 200, 64)
	disk, volume, _ := w.sizes(l)
	amend := func(flags ...string) error {
		_, err := w.tryRun(append([]string{"lease", "amend", "--dir", w.tenant.dir, l.Label, "--max-price", "1000", "--yes"}, flags...)...)
		return err
	}
	flags := []string{"--cpu", "0.4", "--memory", "128MiB", "--volume", "data=400MiB"}
	grows := capable(t, unix.CAP_SYS_RESOURCE) // the kernel asks for it
	if larger := append(flags, "--disk", "24MiB"); grows {
		flags = larger
	} else if err := amend(larger...); err == nil || !strings.Contains(err.Error(), "cannot make a disk larger") {
		t.Errorf("got %v for a disk that this machine cannot make larger, want a refusal that says so", err)
	}
	if err := amend(flags...); err != nil {
		t.Fatal(err)
	}
	before := w.wantAmended(l.ID, 1, 400, 128)
	if d, v, _ := w.sizes(l); grows && d <= disk || v <= volume {
		t.Errorf("got a disk of %d MiB and a volume of %d, before %d and %d; want more", d, v, disk, volume)
	}
	// What does not fit: neither the processor nor the memory changes.
	if out, code := w.inside(l, "web", "/bin/busybox dd if=/dev/zero of=/dev/shm/full bs=1M count=40"); code != 0 {
		t.Fatalf("filling the memory: %s", out)
	}
	if err := amend("--cpu", "0.3", "--memory", "48MiB"); err == nil || !strings.Contains(err.Error(), "uses more than it would have") {
		t.Errorf("got %v for less memory than is used, want a refusal that says so", err)
	}
	if err := amend("--cpu", "10000"); err == nil {
		t.Error("a lease of ten thousand cores is agreed")
	}
	after := w.wantAmended(l.ID, 1, 400, 128)
	if before.Rate != after.Rate || before.Resources != after.Resources {
		t.Errorf("got %+v at %d after a refusal, want %+v at %d", after.Resources, after.Rate, before.Resources, before.Rate)
	}
	// Killed when the containers have changed, and nothing says so yet.
	w.provider.stop(t)
	w.provider.start("PKTCLOUD_CRASH_AT=amend apply:2")
	eventually(t, "the lease goes on", func() (bool, error) {
		l, err := w.tenant.client().Lease(t.Context(), l.ID.String())
		return l.Connected && l.Phase == "active", err
	})
	asked := make(chan error, 1)
	go func() { asked <- amend("--cpu", "0.6") }()
	eventually(t, "the provider dies in the middle", func() (bool, error) {
		if !w.provider.dead() {
			return false, errors.New("it lives")
		}
		return true, nil
	})
	w.provider.start()
	w.wantAmended(l.ID, 2, 600, 128)
	if err := <-asked; err != nil && !strings.Contains(err.Error(), "has not answered") {
		t.Errorf("got %v for an amendment that was answered late", err)
	}
	paid, err := w.tenant.client().Lease(t.Context(), l.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	w.paidIntervals(l.ID, paid.Intervals+2)
	w.closeLease(l.ID)
	r := w.clean()
	if len(r.Leases) != 1 || r.Leases[0].Revisions != 2 {
		t.Errorf("the audit tells of %+v, want one lease of two amendments", r.Leases)
	}
	w.wantNoVolumes("after the close")
}
