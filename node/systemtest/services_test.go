//go:build system

package systemtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// shop is a lease of three services: web waits for a healthy database and for a
// job.
const shop = `
services:
  web:
    image: IMAGE
    ports: [8080]
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
    depends: {db: healthy, migrate: completed}
  db:
    image: IMAGE
    command: [/bin/busybox, httpd, -f, -v, -p, "5432", -h, /www]
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
    health: {http: 5432/, interval: 1s, timeout: 60s}
  migrate:
    image: IMAGE
    command: [/bin/busybox, echo, migrated]
    job: true
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
    depends: [db]
`

// TestServices rents three services from a file. The database is killed, with
// the node there and with the node gone: it is started again each time, the job
// is not, and the web service goes on under all of it [SERVICE-4] [SERVICE-6].
func TestServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	w.publish()
	file := filepath.Join(w.dir, "shop.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(shop, "IMAGE", w.image)), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tenant sees the offer", func() (bool, error) {
		page, err := w.tenant.client().Offers(t.Context(), service.OfferQuery{})
		return len(page.Offers) > 0, err
	})
	began := time.Now()
	w.run("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--wait")
	t.Logf("three services up within %s", time.Since(began).Round(time.Millisecond))
	leases, err := w.tenant.client().Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("got %d leases, %v", len(leases), err)
	}
	l := leases[0]
	w.reach(l)
	w.paidIntervals(l.ID, 2)
	w.wantServices(l, "as agreed", 0)

	w.findsDatabase(l)
	web := w.process("httpd -f -v -p 8080")
	w.killDatabase()
	w.wantServices(l, "after the database was killed", 1)

	database := w.process("httpd -f -v -p 5432")
	w.provider.kill()
	if w.process("httpd -f -v -p 8080") != web || w.process("httpd -f -v -p 5432") != database {
		t.Fatal("a service died with the node")
	}
	w.killDatabase()
	w.provider.start()
	w.wantServices(l, "after it was killed while the node was gone", 2)
	if got := w.process("httpd -f -v -p 8080"); got != web {
		t.Errorf("the web service has process %d, want %d still", got, web)
	}

	// Sessions take a service's name; logs of all have it before each line.
	for name, want := range map[string]string{"": "migrate | migrated\n", "/migrate": "migrated\n"} {
		var log bytes.Buffer
		eventually(t, "the log of "+l.Label+name, func() (bool, error) {
			log.Reset()
			err := w.tenant.client().Logs(t.Context(), l.Label+name, service.LogRequest{}, &log)
			return strings.HasSuffix(log.String(), want) || strings.Contains(log.String(), " "+want), err
		})
		if strings.Count(log.String(), "migrated") != 1 {
			t.Errorf("got %q, want the job to have run once", log.String())
		}
	}
	var out bytes.Buffer
	code, err := w.exec(l.Label+"/db", service.Streams{Stdout: &out}, "/bin/busybox", "hostname")
	if err != nil || code != 0 || out.String() != "db\n" {
		t.Errorf("got %q, %d, %v from the database's host name", out.String(), code, err)
	}
	if _, err := w.tenant.client().Forward(t.Context(), l.Label+"/cache", 80); service.CodeOf(err) != service.CodeNotFound {
		t.Errorf("got %v for a service that is not there, want %s", err, service.CodeNotFound)
	}
	w.closeLease(l.ID)
	w.clean()
}

// wantServices waits until all is well, with so many restarts of the database.
func (w *world) wantServices(l service.Lease, when string, restarts uint64) {
	w.t.Helper()
	var list []service.Standing
	eventually(w.t, "the services are well "+when, func() (_ bool, err error) {
		list, err = w.tenant.client().LeaseServices(w.t.Context(), l.Label)
		if err != nil || len(list) != 3 {
			return false, err
		}
		return list[0].State == "running" && list[1].State == "running" && list[1].Health == "healthy" && list[1].Restarts == restarts && list[2].State == "done", nil
	})
	if list[0].Restarts != 0 || list[2].Restarts != 0 || list[2].Exit == nil || *list[2].Exit != 0 || list[0].Memory == 0 {
		w.t.Errorf("%s: got %+v, want the other two as they were", when, list)
	}
	w.t.Logf("%s: %s", when, w.run("lease", "services", "--dir", w.tenant.dir, l.Label))
}

// process is the process id of a service of this world, by its command line: the
// first process of its container, which has a child of the same line for each
// request.
func (w *world) process(line string) int {
	w.t.Helper()
	group := "/" + libcontainer.Group(filepath.Join(w.provider.dir, "runtime")) + "/"
	out, err := exec.Command("pgrep", "-f", "^/bin/busybox "+line).Output()
	for text := range strings.FieldsSeq(string(out)) {
		in, err := os.ReadFile(filepath.Join("/proc", text, "cgroup"))
		status, _ := os.ReadFile(filepath.Join("/proc", text, "status"))
		if pid, e := strconv.Atoi(text); e == nil && err == nil && strings.Contains(string(in), group) && isFirst(status) {
			return pid
		}
	}
	w.t.Fatalf("no process %q (%v)", line, err)
	return 0
}

// isFirst reports whether a process is the first in its own namespace, by its
// status.
func isFirst(status []byte) bool {
	_, ids, _ := strings.Cut(string(status), "\nNSpid:")
	ids, _, _ = strings.Cut(ids, "\n")
	return strings.HasSuffix(ids, "\t1")
}

func (w *world) killDatabase() {
	w.t.Helper()
	if err := syscall.Kill(w.process("httpd -f -v -p 5432"), syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
}
