//go:build system

package systemtest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestLeaseInGVisor rents, pays, enters and ends a lease whose tenant demands a
// kernel of its own for each of three services that find each other by name,
// over a restart of the provider's node.
func TestLeaseInGVisor(t *testing.T) {
	t.Parallel()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	runsc := filepath.Join(cache, "pktcloud-tools", "runsc-"+gvisor.Version)
	if _, err := os.Stat(runsc); err != nil {
		t.Skip("needs runsc: make runsc")
	}
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond, provider: []string{"--runsc", runsc}})
	offer := w.publish()
	if !slices.Equal(offer.Body.Isolation, []string{"gvisor", "userns"}) {
		t.Fatalf("the offer has classes %v", offer.Body.Isolation)
	}
	c := w.tenant.client()
	eventually(t, "the offer reaches the tenant", func() (bool, error) {
		page, err := c.Offers(t.Context(), service.OfferQuery{Class: string(container.ClassGVisor)})
		return len(page.Offers) == 1, err
	})
	file := filepath.Join(w.dir, "shop.yaml")
	text := "class: gvisor\n" + strings.NewReplacer("IMAGE", w.image, "32MiB", "64MiB", "cpu: 0.1", "cpu: 0.3").Replace(shop)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--wait")
	leases, err := c.Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("got %d leases, %v", len(leases), err)
	}
	l := leases[0]
	w.paidIntervals(l.ID, 3)
	w.kernelOf(l)
	w.findsDatabase(l)
	w.provider.kill()
	w.provider.start()
	served := w.lease(l).Served
	eventually(t, "the lease goes on", func() (bool, error) {
		l := w.lease(l)
		return l.Phase == "active" && l.Served > served+1, nil
	})
	w.kernelOf(l)
	w.findsDatabase(l)
	w.wantServices(l, "after the node was killed", 0)
	if got := w.lease(l); got.Class != string(container.ClassGVisor) {
		t.Errorf("the lease has class %q", got.Class)
	}
	w.closeLease(l.ID)
	w.clean()
}

// findsDatabase has the web service ask the database for a page, by its name
// [SERVICE-15].
func (w *world) findsDatabase(l service.Lease) {
	w.t.Helper()
	var page bytes.Buffer
	code, err := w.exec(l.Label+"/web", service.Streams{Stdout: &page, Stderr: &page}, "/bin/busybox", "wget", "-q", "-O", "-", "http://db:5432/")
	if err != nil || code != 0 || page.Len() == 0 {
		w.t.Errorf("web got %q, %d, %v of the database", page.String(), code, err)
	}
}

// kernelOf sees that the kernel inside is not the machine's.
func (w *world) kernelOf(l service.Lease) {
	w.t.Helper()
	own, err := os.ReadFile("/proc/version")
	if err != nil {
		w.t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := w.exec(l.ID.String(), service.Streams{Stdout: &out, Stderr: &out}, "/bin/busybox", "cat", "/proc/version")
	if err != nil || code != 0 || !strings.HasPrefix(out.String(), "Linux version") || out.String() == string(own) {
		w.t.Errorf("inside, the kernel says %q (code %d, %v)", &out, code, err)
	}
}
