//go:build system

package systemtest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// keeper is a lease of a database that writes a line to its volume at each
// start, and of a web service that only reads it.
const keeper = `
services:
  web:
    image: IMAGE
    ports: [8080]
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
    mounts: ["data:/srv:ro"]
  db:
    image: IMAGE
    command: [/bin/busybox, sh, -c, "/bin/busybox echo run >> /var/lib/db/runs; /bin/busybox sync; exec /bin/busybox httpd -f -v -p 5432 -h /var/lib/db"]
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
    mounts: ["data:/var/lib/db", "scratch:/tmp/scratch"]
volumes:
  data: 300MiB
  scratch: 300MiB
`

// inside runs a shell's line in a service, and returns what it printed.
func (w *world) inside(l service.Lease, name, line string) (string, int) {
	w.t.Helper()
	var out bytes.Buffer
	code, err := w.exec(l.Label+"/"+name, service.Streams{Stdout: &out, Stderr: &out}, "/bin/busybox", "sh", "-c", line)
	if err != nil {
		w.t.Fatalf("%s in %s: %v", line, name, err)
	}
	return out.String(), code
}

// wantRuns waits until the database answers, over files that tell of so many
// starts, and the web service reads the same in them.
func (w *world) wantRuns(l service.Lease, when string, n int) {
	w.t.Helper()
	eventually(w.t, "the database runs "+when, func() (bool, error) {
		leases, err := w.tenant.client().Lease(w.t.Context(), l.Label)
		if err != nil || leases.Phase != "active" {
			return false, err
		}
		var out bytes.Buffer
		line := "/bin/busybox wget -q -O - http://db:5432/runs | /bin/busybox cmp - /srv/runs && /bin/busybox cat /srv/runs"
		code, err := w.tenant.client().Exec(w.t.Context(), l.Label+"/web", service.ExecRequest{Args: []string{"/bin/busybox", "sh", "-c", line}}, service.Streams{Stdout: &out})
		if err != nil || code != 0 {
			return false, err
		}
		if got := strings.Count(out.String(), "run\n"); got > n {
			w.t.Fatalf("%s: the volume tells of %d runs, want %d", when, got, n)
		}
		return out.String() == strings.Repeat("run\n", n), nil
	})
}

// volumesLeft is what the provider's machine has of volumes: their directories,
// and loop devices over their images.
func (w *world) volumesLeft() (left []string) {
	w.t.Helper()
	for _, dir := range []string{"volumes", "trash"} {
		entries, err := os.ReadDir(filepath.Join(w.provider.dir, "runtime", dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			if dir == "trash" || e.IsDir() {
				left = append(left, dir+"/"+e.Name())
			}
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, file := range loops {
		if b, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(b), w.provider.dir) {
			left = append(left, strings.TrimSpace(string(b)))
		}
	}
	return left
}

func (w *world) wantNoVolumes(when string) {
	w.t.Helper()
	eventually(w.t, "no volume is left "+when, func() (bool, error) {
		left := w.volumesLeft()
		if len(left) > 0 {
			return false, errors.New(strings.Join(left, ", "))
		}
		return true, nil
	})
}

func (w *world) rentFile(name, text string) service.Lease {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "IMAGE", w.image)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.run("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--wait")
	leases, err := w.tenant.client().Leases(w.t.Context())
	if err != nil || len(leases) == 0 {
		w.t.Fatalf("got %d leases, %v", len(leases), err)
	}
	return leases[0]
}

// TestVolumes rents a database with a volume that another service reads. Its
// program is killed, with the node there and with the node killed: what it wrote
// is there each time. A full volume is told of and harms nothing else. The end
// leaves nothing, also when the node is killed in the middle of it [SERVICE-25]
// [SERVICE-29] [SERVICE-30].
func TestVolumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	w.known(t, w.tenant, w.publish().ID)
	for name, edit := range map[string][2]string{
		"over the kernel's files": {"data:/srv:ro", "data:/proc/sys"},
		"of the machine":          {"data:/srv:ro", "/etc:/srv:ro"},
		"of another lease":        {"data:/srv:ro", "../other/data:/srv"},
		"too small":               {"scratch: 300MiB", "scratch: 1MiB"},
		"that nobody mounts":      {`, "scratch:/tmp/scratch"`, ""},
	} {
		file := filepath.Join(w.dir, "bad.yaml")
		text := strings.Replace(strings.ReplaceAll(keeper, "IMAGE", w.image), edit[0], edit[1], 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.tryRun("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000"); err == nil || !strings.Contains(err.Error(), "exit status 2: ") {
			t.Errorf("a volume %s: got %v, want it refused", name, err)
		}
	}
	l := w.rentFile("keeper.yaml", keeper)
	w.paidIntervals(l.ID, 1)
	w.wantRuns(l, "for the first time", 1)
	if out, code := w.inside(l, "web", "echo x > /srv/runs"); code == 0 || !strings.Contains(out, "Read-only") {
		t.Errorf("got %q, %d from a write to a read-only volume", out, code)
	}

	w.killDatabase()
	w.wantRuns(l, "after it was killed", 2)
	w.provider.kill()
	w.killDatabase()
	w.provider.start()
	w.wantRuns(l, "after it was killed while the node was gone", 3)
	if _, code := w.inside(l, "db", "test -e /tmp/scratch && test ! -e /tmp/scratch/runs"); code != 0 {
		t.Error("the two volumes are one")
	}

	// Full: the program's write fails, and all else goes on.
	if out, code := w.inside(l, "db", "/bin/busybox dd if=/dev/zero of=/var/lib/db/fill bs=1048576"); code == 0 || !strings.Contains(out, "No space left") {
		t.Errorf("got %q, %d from filling the volume", out, code)
	}
	list, err := w.tenant.client().LeaseVolumes(t.Context(), l.Label)
	if err != nil || len(list) != 2 || !list[0].Full || list[1].Full || !list[1].Ready || list[0].Size != 300<<20 {
		t.Errorf("got %+v, %v, want the first one full", list, err)
	}
	out := w.run("lease", "volumes", "--dir", w.tenant.dir, l.Label)
	if !strings.Contains(out, "(full)") || !strings.Contains(out, "db:/var/lib/db") || !strings.Contains(out, "web:/srv (read-only)") {
		t.Errorf("got %s", out)
	}
	t.Logf("%s", out)
	w.inside(l, "db", "/bin/busybox rm /var/lib/db/fill")
	if len(w.volumesLeft()) == 0 {
		t.Error("this is no test: it sees no volumes where there are some")
	}
	w.closeLease(l.ID)
	w.wantNoVolumes("after the lease")

	// The node is killed while the lease ends.
	l = w.rentFile("keeper.yaml", keeper)
	w.wantRuns(l, "in the second lease", 1)
	done := make(chan error, 1)
	go func() {
		_, err := w.tenant.client().CloseLease(t.Context(), l.ID.String())
		done <- err
	}()
	eventually(t, "the lease is being closed", func() (bool, error) {
		l, err = w.tenant.client().Lease(t.Context(), l.ID.String())
		return l.Phase == "closing" || l.Phase == "closed", err
	})
	w.provider.kill()
	w.provider.start()
	if err := <-done; err != nil {
		t.Log(err) // it goes on by itself
	}
	w.closeLease(l.ID)
	w.wantNoVolumes("after a lease that the node did not see the end of")
	w.clean()
}
