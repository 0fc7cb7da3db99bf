//go:build system

package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestFrozenServiceIsNotPaid freezes the container's cgroup from outside while
// the provider goes on: the tenant's own probe fails, and the vouchers stop.
func TestFrozenServiceIsNotPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	l := w.rent()
	w.paidIntervals(l.ID, 3)
	thaw := w.freeze()
	defer thaw()
	before := w.lease(l)
	var after service.Lease
	eventually(t, "nothing more is paid for what is frozen", func() (bool, error) {
		after = w.lease(l)
		time.Sleep(5 * time.Second) // several intervals
		if now := w.lease(l); now.Paid != after.Paid {
			return false, fmt.Errorf("paid went from %d to %d units", uint64(after.Paid), uint64(now.Paid))
		}
		return true, nil
	})
	t.Logf("paid %d units when frozen, %d afterwards", uint64(before.Paid), uint64(after.Paid))
	thaw()
	w.closeOrEnd(l)
	w.clean()
}

// TestUnpaidServiceIsFrozen stops the tenant's process: the provider freezes
// the lease at the credit limit and serves no further.
func TestUnpaidServiceIsFrozen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	request := w.request(pktcloud.ID{})
	request.Limits.CreditSeconds = 20
	l := w.rentAs(request)
	w.paidIntervals(l.ID, 2)
	w.tenant.kill()
	provider := w.provider.client()
	var p service.Lease
	eventually(t, "the provider suspends the lease", func() (_ bool, err error) {
		p, err = provider.Lease(t.Context(), l.ID.String())
		return p.Phase == "suspended", err
	})
	eventually(t, "the container of the suspended lease is frozen", func() (bool, error) { return w.frozen(), nil })
	p, err := provider.Lease(t.Context(), l.ID.String()) // with the statement of the last seconds
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Exposure {
		if e.Name == "credit" {
			t.Logf("credit: peak %d units of %d", uint64(e.Peak), uint64(e.Limit))
			if e.Peak > e.Limit {
				t.Errorf("the provider risked %d units, the limit is %d", uint64(e.Peak), uint64(e.Limit))
			}
		}
	}
	time.Sleep(3 * time.Second)
	later, err := provider.Lease(t.Context(), l.ID.String())
	if err != nil || later.Served != p.Served {
		t.Errorf("served went from %d to %d s while suspended (%v)", p.Served, later.Served, err)
	}
	w.tenant.start()
	eventually(t, "the tenant pays and the lease goes on", func() (bool, error) {
		l, err := provider.Lease(t.Context(), l.ID.String())
		return l.Phase == "active" && l.Served > later.Served, err
	})
	w.closeLease(l.ID)
	w.clean()
}

// TestNodeRestartsUnderItsLease kills the provider's node: the container goes
// on, and the restarted node has the same lease and logs.
func TestNodeRestartsUnderItsLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	l := w.rent()
	w.paidIntervals(l.ID, 2)
	before := w.containerProcess()
	w.provider.kill()
	if w.containerProcess() != before {
		t.Fatal("the container died with the node")
	}
	w.provider.start()
	served := w.lease(l).Served
	eventually(t, "the lease goes on", func() (bool, error) {
		l := w.lease(l)
		return l.Phase == "active" && l.Served > served+1, nil
	})
	if w.containerProcess() != before {
		t.Error("the container was started again")
	}
	w.closeLease(l.ID)
	w.clean()
}

// TestIdleNode looks at the memory of a node that has nothing to do.
func TestIdleNode(t *testing.T) {
	w := newWorld(t, worldConfig{blockInterval: time.Second})
	eventually(t, "idle nodes have at most 80 MiB resident", func() (bool, error) {
		time.Sleep(5 * time.Second) // idle: nobody asks them anything
		for _, p := range []*party{w.provider, w.tenant} {
			rss := residentBytes(t, p.cmd.Process.Pid)
			t.Logf("idle %s: %.1f MiB resident", p.name, float64(rss)/(1<<20))
			if rss > 80<<20 {
				return false, fmt.Errorf("the %s has %d MiB", p.name, rss>>20)
			}
		}
		return true, nil
	})
}

func residentBytes(t *testing.T, pid int) uint64 {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func (w *world) lease(l service.Lease) service.Lease {
	w.t.Helper()
	got, err := w.tenant.client().Lease(w.t.Context(), l.ID.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// closeOrEnd closes a lease that may have been ended over a dispute.
func (w *world) closeOrEnd(l service.Lease) {
	w.t.Helper()
	eventually(w.t, "the lease ends and is paid out", func() (bool, error) {
		got := w.lease(l)
		if !final[got.Phase] {
			w.tenant.client().CloseLease(w.t.Context(), l.ID.String())
		}
		w.mine(1)
		return final[got.Phase] && got.Channel.Closed > 0, nil
	})
}

// containerProcess is the process id of this world's workload, busybox httpd:
// others run on the machine, and a child of it for each request.
func (w *world) containerProcess() string {
	w.t.Helper()
	return strconv.Itoa(w.process("httpd"))
}

// freezerOf returns the file and the words that freeze the cgroup of the
// workload.
func (w *world) freezerOf() (file, freeze, thaw string) {
	w.t.Helper()
	groups, err := os.ReadFile(filepath.Join("/proc", w.containerProcess(), "cgroup"))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if parts[1] == "freezer" {
			return filepath.Join("/sys/fs/cgroup/freezer", parts[2], "freezer.state"), "FROZEN", "THAWED"
		}
		if parts[0] == "0" {
			file = filepath.Join("/sys/fs/cgroup", parts[2], "cgroup.freeze")
		}
	}
	return file, "1", "0"
}

func (w *world) freeze() (thaw func()) {
	w.t.Helper()
	file, on, off := w.freezerOf()
	if err := os.WriteFile(file, []byte(on), 0); err != nil {
		w.t.Fatal(err)
	}
	return func() { os.WriteFile(file, []byte(off), 0) }
}

func (w *world) frozen() bool {
	w.t.Helper()
	file, on, _ := w.freezerOf()
	state, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(state)) == on
}
