//go:build system

package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// site is a file of Compose. The image of web has an entrypoint, which the command
// is to keep; the entrypoint of db replaces what its image runs.
const site = `
services:
  web:
    image: ENTRY
    command: ["-f", "-v", "-p", "8080", "-h", "/www"]
    restart: unless-stopped
    depends_on: {db: {condition: service_healthy}}
    ports: ["18080:8080"]
    cpus: 0.1
    mem_limit: 32m
    x-pktcloud: {disk: 8MiB}
  db:
    image: IMAGE
    entrypoint: /bin/busybox httpd -f -v -p ${DB_PORT} -h /www
    restart: unless-stopped
    healthcheck: {test: "/bin/busybox wget -q -O /dev/null http://127.0.0.1:${DB_PORT}/", interval: 1s}
    expose: ["${DB_PORT}"]
    cpus: 0.1
    mem_limit: 32m
    x-pktcloud: {disk: 8MiB}
`

// TestDeployCompose deploys a file of Compose with two services, and reaches the
// port that one publishes. It takes about six seconds.
func TestDeployCompose(t *testing.T) {
	port := freePort(t)
	w := newWorld(t, worldConfig{
		blockInterval: 500 * time.Millisecond, provider: []string{"--publish-on", "127.0.0.1", "--publish-ports", fmt.Sprintf("%d-%d", port, port)},
	})
	entry := w.pushEntry()
	w.publish()
	file := filepath.Join(w.dir, "compose.yaml")
	text := strings.NewReplacer("IMAGE", w.image, "ENTRY", entry).Replace(site)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tenant sees the offer", func() (bool, error) {
		page, err := w.tenant.client().Offers(t.Context(), service.OfferQuery{})
		return len(page.Offers) > 0, err
	})
	if out := w.run("deploy", file, "--dir", w.tenant.dir, "--set", "DB_PORT=5432", "--dry-run"); !strings.Contains(out, "Price: ") {
		t.Errorf("got %s, want a price", out)
	}
	began := time.Now()
	out := w.run("deploy", file, "--dir", w.tenant.dir, "--set", "DB_PORT=5432", "--yes", "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--json")
	t.Logf("deployed within %s", time.Since(began).Round(time.Millisecond))
	var got struct {
		Format   string
		Lease    service.Lease
		Services []service.Standing
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Format != "compose" || got.Lease.Phase != "active" || len(got.Services) != 2 {
		t.Fatalf("got %s, %v", out, err)
	}
	if n := got.Services[0].Network; n == nil || len(n.Published) != 1 {
		t.Fatalf("got %+v, want the address of its port", got.Services[0])
	}
	address := "http://" + got.Services[0].Network.Published[0].Address + "/"
	eventually(t, "the page is at "+address, func() (bool, error) {
		r, err := http.Get(address)
		if err != nil {
			return false, err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		return strings.Contains(string(body), page), err
	})
	w.reach(got.Lease)
	var host bytes.Buffer
	if code, err := w.exec(got.Lease.Label+"/web", service.Streams{Stdout: &host}, "/bin/busybox", "wget", "-q", "-O", "-", "http://db:5432/"); err != nil || code != 0 || !strings.Contains(host.String(), page) {
		t.Errorf("got %q, %d, %v from the other service by its name", host.String(), code, err)
	}
	w.closeLease(got.Lease.ID)
	w.clean()
}

// pushEntry makes an image with an entrypoint, which does nothing by the arguments
// that the image gives it.
func (w *world) pushEntry() string {
	w.t.Helper()
	img, err := image.FromFiles(image.Build{
		Files:      map[string]image.File{"/bin/busybox": {Source: busyboxPath(w.t), Mode: 0o755}, "/bin/httpd": {Link: "busybox"}, "/www/index.html": {Data: []byte(page)}},
		Entrypoint: []string{"/bin/httpd"}, Args: []string{"--help"}, Ports: []uint16{8080},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ref, err := name.ParseReference(w.registry+"/entry:1", name.Insecure)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return ref.String()
}
