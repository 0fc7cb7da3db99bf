//go:build linux && cgo && amd64

package libcontainer

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// fakeRuntime is the directory of a runtime, locked while it lives.
type fakeRuntime struct {
	t    *testing.T
	dir  string
	lock *os.File
}

func newFakeRuntime(t *testing.T) *fakeRuntime {
	t.Helper()
	f := &fakeRuntime{t: t, dir: t.TempDir()}
	f.live()
	t.Cleanup(f.die)
	return f
}

func (f *fakeRuntime) live() {
	f.t.Helper()
	var err error
	if f.lock, err = os.Create(filepath.Join(f.dir, lockFile)); err != nil {
		f.t.Fatal(err)
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeRuntime) die() { f.lock.Close() }

func (f *fakeRuntime) box(id string) string { return filepath.Join(f.dir, "boxes", id) }

func (f *fakeRuntime) record(id string, first uint32) {
	f.t.Helper()
	if err := errors.Join(os.MkdirAll(f.box(id), 0o700), writeJSON(f.box(id), recordFile, record{FirstID: first})); err != nil {
		f.t.Fatal(err)
	}
}

// TestRegister shows when a range is taken and when it is free again.
func TestRegister(t *testing.T) {
	g := register{dir: filepath.Join(t.TempDir(), "ids")}
	if err := g.open(); err != nil {
		t.Fatal(err)
	}
	const from = uint32(defaultFirstID)
	nothing := func(uint32) bool { return false }
	take := func(box string, want uint32) {
		t.Helper()
		got, err := g.take(box, from, nothing)
		if err != nil || got != want {
			t.Fatalf("%s: got %d, %v, want %d", filepath.Base(box), got, err, want)
		}
	}
	a, b := newFakeRuntime(t), newFakeRuntime(t)
	take(a.box("one"), from) // and before there is a record
	take(b.box("two"), from+idsPerContainer)
	a.record("one", from)
	a.die() // its containers go on
	take(b.box("three"), from+2*idsPerContainer)
	b.die()
	take(a.box("four"), from+idsPerContainer) // b wrote no record of its two
	a.live()
	if ok, err := g.keep(a.box("one"), from); !ok || err != nil {
		t.Errorf("keep its own: got %v, %v", ok, err)
	}
	if ok, err := g.keep(b.box("late"), from); ok || err != nil {
		t.Errorf("keep another's: got %v, %v", ok, err)
	}
	if err := g.give(b.box("other"), from); err != nil {
		t.Error(err)
	}
	take(a.box("five"), from+2*idsPerContainer) // b's third
	if err := errors.Join(os.RemoveAll(a.box("one")), g.give(a.box("one"), from)); err != nil {
		t.Error(err)
	}
	take(a.box("six"), from)
	if err := g.sweep(filepath.Join(a.dir, "boxes")); err != nil { // four, five and six have no record
		t.Error(err)
	}
	if left, _ := os.ReadDir(g.dir); len(left) != 1 {
		t.Errorf("%d files are left, want the lock", len(left))
	}
	own := func(first uint32) bool { return first < endID-idsPerContainer }
	if got, err := g.take(a.box("last"), from, own); err != nil || got != endID-idsPerContainer {
		t.Errorf("the last range: got %d, %v", got, err)
	}
	if _, err := g.take(a.box("more"), from, func(uint32) bool { return true }); !errors.Is(err, container.CodeCapacity) {
		t.Errorf("beyond the last range: got %v", err)
	}
}

// TestRegisterAtOnce lets several runtimes take ranges at the same time.
func TestRegisterAtOnce(t *testing.T) {
	g := register{dir: t.TempDir()}
	runtimes := []*fakeRuntime{newFakeRuntime(t), newFakeRuntime(t), newFakeRuntime(t), newFakeRuntime(t)}
	var mu sync.Mutex
	seen := map[uint32]string{}
	var wg sync.WaitGroup
	for _, r := range runtimes {
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			wg.Go(func() {
				first, err := g.take(r.box(id), defaultFirstID, func(uint32) bool { return false })
				mu.Lock()
				defer mu.Unlock()
				if err != nil || seen[first] != "" {
					t.Errorf("%s got %d, %v, which %s has", r.box(id), first, err, seen[first])
				}
				seen[first] = r.box(id)
			})
		}
	}
	wg.Wait()
}

func TestConfigIDs(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"defaults", Config{}, true},
		{"the machine's own users", Config{FirstID: 1000}, false},
		{"just above them", Config{FirstID: 1 << 16}, true},
		{"around the end of numbers", Config{FirstID: 1 << 30, MaxContainers: 1 << 16}, false},
		{"to the end", Config{FirstID: endID - 5*idsPerContainer, MaxContainers: 5}, true},
		{"one more", Config{FirstID: endID - 5*idsPerContainer, MaxContainers: 6}, false},
		{"negative", Config{MaxContainers: -1}, false},
	} {
		if err := c.cfg.withDefaults().checkIDs(); (err == nil) != c.ok {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}
