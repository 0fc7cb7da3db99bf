//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestDiskFull fills the disk of the tenant's data directory, then that of the
// provider's.
func TestDiskFull(t *testing.T) {
	w := newWorld(t, worldConfig{blockInterval: time.Hour})
	poor := w.partyOn(t, "tenant-on-a-small-disk", 24)
	poor.flags = append(poor.flags, "--bootstrap", w.provider.info.Addresses[0])
	poor.start()
	w.fund(poor, "10 PKT")
	offer := w.publish()
	w.known(t, poor, offer.ID)
	w.tenant.stop(t)
	w.tenant = poor
	create := w.create(poor, "--image", w.image, "--max-price", "1", "--offer", offer.ID.String())
	var first pktcloud.ID

	t.Run("tenant", func(t *testing.T) {
		before := w.standing(t)
		full := refusal{1, service.CodeFull, []string{"disk"}}
		empty := fill(t, poor.dir)
		w.fails(t, full, "wallet", "address", "--dir", poor.dir)
		w.fails(t, full, create...)
		empty()
		w.untouched(t, before)
		l := w.rent()
		w.paidIntervals(l.ID, 1)
		empty = fill(t, poor.dir)
		time.Sleep(2 * time.Second) // an interval that cannot be recorded
		empty()
		w.paidIntervals(l.ID, w.lease(l).Intervals+2)
		w.closeLease(l.ID)
		w.clean()
		first = l.ID
	})

	small := w.partyOn(t, "provider-on-a-small-disk", 160, "--provider", "--allow-dial", w.registry)
	small.start()
	w.provider.stop(t)
	w.provider = small
	poor.stop(t)
	poor.flags = append(poor.flags, "--bootstrap", small.info.Addresses[0])
	poor.start()
	t.Run("provider", func(t *testing.T) {
		before := w.standing(t)
		offer, err := small.client().PublishOffer(t.Context(), service.OfferSpec{
			CPUPerCoreHour: 20_000_000, Capacity: service.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.known(t, poor, offer.ID)
		create := w.create(poor, "--image", w.image, "--max-price", "1", "--offer", offer.ID.String())
		empty := fill(t, small.dir)
		w.fails(t, refusal{1, service.CodeFull, []string{"disk"}}, "offer", "publish", "--dir", small.dir, "--cpu-price", "1")
		w.fails(t, refusal{1, service.CodeFull, []string{"disk"}}, "image", "pull", "--dir", small.dir, w.image)
		w.fails(t, refusal{4, service.CodeRefused, []string{"provider"}}, create...)
		w.untouched(t, before)
		if left, err := os.ReadDir(filepath.Join(small.dir, "images", "tmp")); err != nil || len(left) > 0 {
			t.Errorf("half an image is left: %v (%v)", left, err)
		}
		empty()
		w.run(create...)
		leases, err := poor.client().Leases(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.paidIntervals(leases[0].ID, 1)
		empty = fill(t, small.dir)
		time.Sleep(2 * time.Second)
		empty()
		w.paidIntervals(leases[0].ID, w.lease(leases[0]).Intervals+2)
		w.closeLease(leases[0].ID)
	})
	w.cleanBut(first)
}

// cleanBut is clean for parties one of which has a lease with a third: its
// records are not all at hand.
func (w *world) cleanBut(id pktcloud.ID) {
	w.t.Helper()
	for _, f := range w.audit().Findings {
		if !strings.Contains(fmt.Sprint(f), id.String()) {
			w.t.Errorf("the audit: %s", f)
		}
	}
}

// partyOn makes a data directory on a disk of its own, of so many MiB.
func (w *world) partyOn(t *testing.T, name string, mib int, flags ...string) *party {
	t.Helper()
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // a loop device lets go of its file when the kernel gets to it
			err := syscall.Unmount(dir, 0)
			if err == nil {
				return
			}
			if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
				t.Errorf("%s stays mounted: %v", dir, err)
				syscall.Unmount(dir, syscall.MNT_DETACH)
				return
			}
		}
	})
	return w.newParty(name, flags...)
}

// fill writes to a disk until nothing more fits.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 16 {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
