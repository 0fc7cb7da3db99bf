//go:build system && linux

package systemtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// walls is a lease of three services that have different parts of the network.
const walls = `
services:
  open:
    image: IMAGE
    command: [/bin/sh, -c, "/bin/traffic serve :5353 answer & exec /bin/busybox httpd -f -p 8080 -h /www"]
    ports: [8080]
    cpu: 0.1
    memory: 64MiB
    disk: 8MiB
    egress: public
    publish: [8080, 5353/udp]
  narrow:
    image: IMAGE
    command: [/bin/busybox, sleep, "10000"]
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
    egress: ["8.8.8.8:80"]
    bandwidth: 1MiB
  shut:
    image: IMAGE
    command: [/bin/busybox, sleep, "10000"]
    cpu: 0.1
    memory: 32MiB
    disk: 8MiB
`

const (
	publishFirst = 20000
	publishPorts = 10
)

// TestLeaseNetwork: real services reach what the lease asked for and nothing
// else, and are reached at the addresses that the provider told, over restarts
// of node and service, until the lease ends [SERVICE-20] [SERVICE-21].
func TestLeaseNetwork(t *testing.T) {
	if !netlab.Alone(t) {
		return
	}
	o := newOutside(t)
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond, provider: []string{
		"--publish-on", netlab.MachineAddr, "--publish-ports", fmt.Sprintf("%d-%d", publishFirst, publishFirst+publishPorts-1),
	}})
	w.pushTraffic()
	w.publish()
	w.awaitPorts(publishPorts)
	file := filepath.Join(w.dir, "walls.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(walls, "IMAGE", w.image)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("lease", "create", "--dir", w.tenant.dir, "--file", file, "--max-price", "1000", "--interval", "1s", "--credit", testCredit, "--wait")
	leases, err := w.tenant.client().Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("got %d leases, %v", len(leases), err)
	}
	l := leases[0]
	addresses := w.published(l)
	t.Logf("\n%s", w.run("lease", "services", "--dir", w.tenant.dir, l.Label))
	w.wantEgress(l)
	w.wantReached(o, addresses, "as agreed")

	w.provider.kill()
	w.wantReached(o, addresses, "without the node")
	w.provider.start()
	if again := w.published(l); !slices.Equal(again, addresses) {
		t.Errorf("after the node's death: got %v, want %v", again, addresses)
	}
	if err := syscall.Kill(w.process("httpd -f -p 8080"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service is started again", func() (bool, error) {
		list, err := w.tenant.client().LeaseServices(t.Context(), l.Label)
		return err == nil && list[0].Restarts == 1 && list[0].State == "running", err
	})
	if again := w.published(l); !slices.Equal(again, addresses) {
		t.Errorf("after the service's death: got %v, want %v", again, addresses)
	}
	w.wantReached(o, addresses, "after the service's death")
	w.wantEgress(l)
	t.Logf("\n%s", w.run("lease", "services", "--dir", w.tenant.dir, l.Label))

	w.closeLease(l.ID)
	w.awaitPorts(publishPorts)
	if got, err := o.ask("tcp", addresses[1], "GET / HTTP/1.0\r\n\r\n"); err == nil {
		t.Errorf("when the ports are free again: got %q", got)
	}
	w.oneService(o)
	w.clean()
}

// oneService rents a service alone, by flags: it has a network of its own.
func (w *world) oneService(o *outside) {
	w.t.Helper()
	eventually(w.t, "the money is back", func() (bool, error) {
		w.mine(1)
		b, err := w.tenant.client().WalletBalance(w.t.Context())
		return b.Spendable > 0, err
	})
	w.run("lease", "create", "--dir", w.tenant.dir, "--image", w.image, "--egress", "8.8.8.8:80", "--publish", "8080", "--max-price", "1000", "--interval", "1s", "--credit", testCredit,
		"--port", "8080", "--wait", "--", "/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www")
	leases, err := w.tenant.client().Leases(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	l := leases[0] // the newest
	var list []service.Standing
	eventually(w.t, "one service with a port", func() (_ bool, err error) {
		list, err = w.tenant.client().LeaseServices(w.t.Context(), l.Label)
		return len(list) == 1 && list[0].Network != nil && len(list[0].Network.Published) == 1, err
	})
	eventually(w.t, "one service is reached from outside", func() (bool, error) {
		got, err := o.ask("tcp", list[0].Network.Published[0].Address, "GET / HTTP/1.0\r\n\r\n")
		return strings.Contains(got, page), err
	})
	if heard := w.connects(l, "web", []string{"8.8.8.8 80"}, []string{"8.8.8.8 80", "1.1.1.1 80", "10.1.2.3 80"}); heard["8.8.8.8 80"] != "hello" || heard["1.1.1.1 80"] != "" || heard["10.1.2.3 80"] != "" {
		w.t.Errorf("one service hears %v", heard)
	}
	w.closeLease(l.ID)
}

// pushTraffic makes w.image one that can also answer datagrams.
func (w *world) pushTraffic() {
	w.t.Helper()
	tool := filepath.Join(w.dir, "traffic")
	build := exec.Command("go", "build", "-trimpath", "-o", tool, "../../bench/network/traffic")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		w.t.Fatal(err)
	}
	img, err := image.FromFiles(image.Build{Args: []string{"/bin/sh"}, Files: map[string]image.File{
		"/bin/busybox": {Source: busybox, Mode: 0o755}, "/bin/traffic": {Source: tool, Mode: 0o755}, "/bin/sh": {Link: "busybox"}, "/www/index.html": {Data: []byte(page)},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.image = w.registry + "/traffic:1"
	ref, err := name.ParseReference(w.image, name.Insecure)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		w.t.Fatal(err)
	}
}

// awaitPorts waits until the tenant sees an offer that has so many ports free.
func (w *world) awaitPorts(n uint64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("an offer of %d ports", n), func() (bool, error) {
		page, err := w.tenant.client().Offers(w.t.Context(), service.OfferQuery{Network: market.Network{Egress: true, Ports: n}})
		return len(page.Offers) > 0, err
	})
}

// published are the addresses of the two ports of the service "open": for
// datagrams, and for HTTP.
func (w *world) published(l service.Lease) (out []string) {
	w.t.Helper()
	eventually(w.t, "the services run", func() (bool, error) {
		list, err := w.tenant.client().LeaseServices(w.t.Context(), l.Label)
		if err != nil || len(list) != 3 || slices.ContainsFunc(list, func(s service.Standing) bool { return s.State != "running" || s.Network == nil }) {
			return false, err
		}
		if len(list[1].Network.Published) != 0 || len(list[2].Network.Published) != 0 {
			w.t.Errorf("got %+v, want no ports of the others", list)
		}
		out = nil
		for _, p := range list[0].Network.Published {
			out = append(out, p.Address)
		}
		return true, nil
	})
	if len(out) != 2 || !strings.HasPrefix(out[0], netlab.MachineAddr+":") || !strings.HasPrefix(out[1], netlab.MachineAddr+":") || out[0] == out[1] {
		w.t.Fatalf("got %v, want two addresses of this machine", out)
	}
	return out
}

// wantReached asks both ports from outside.
func (w *world) wantReached(o *outside, addresses []string, when string) {
	w.t.Helper()
	for network, q := range map[string][3]string{
		"udp": {addresses[0], "a datagram of " + when, "a datagram of " + when}, "tcp": {addresses[1], "GET / HTTP/1.0\r\n\r\n", page},
	} {
		var got string
		eventually(w.t, network+" at "+q[0]+" "+when, func() (_ bool, err error) { // a program that starts may not listen yet
			got, err = o.ask(network, q[0], q[1])
			return strings.Contains(got, q[2]), err
		})
	}
}

// wantEgress tries all places from all services.
func (w *world) wantEgress(l service.Lease) {
	w.t.Helper()
	allowed := map[string][]string{"open": {"8.8.8.8 80", "1.1.1.1 80", "8.8.8.8 443"}, "narrow": {"8.8.8.8 80"}, "shut": nil}
	places := []string{"8.8.8.8 80", "8.8.8.8 443", "1.1.1.1 80", "8.8.8.8 25", netlab.MachineAddr + " 80", "127.0.0.1 80"}
	for _, a := range privateAddrs {
		places = append(places, a+" 80")
	}
	for name, mine := range allowed {
		heard := w.connects(l, name, mine, places)
		for _, place := range places {
			if want := slices.Contains(mine, place); (heard[place] != "") != want {
				w.t.Errorf("%s to %s: got %q, want it let through %v", name, place, heard[place], want)
			}
		}
	}
	// What was refused is there: this machine reaches it.
	for _, place := range append(places[:4:4], places[6:]...) {
		out, err := exec.Command("/bin/sh", "-c", "busybox nc -w 100 "+place+" </dev/null").Output()
		if err != nil || len(out) == 0 {
			w.t.Errorf("this machine to %s: got %q, %v, want an answer", place, out, err)
		}
	}
	var out bytes.Buffer // within the lease all reach each other
	code, err := w.exec(l.Label+"/shut", service.Streams{Stdout: &out, Stderr: &out}, "/bin/busybox", "wget", "-q", "-O", "-", "http://open:8080/")
	if err != nil || code != 0 || !strings.Contains(out.String(), page) {
		w.t.Errorf("shut got %q, %d, %v of open", out.String(), code, err)
	}
	list, err := w.tenant.client().LeaseServices(w.t.Context(), l.Label)
	if err != nil || list[0].Network.BytesIn == 0 || list[0].Network.Refused == 0 || list[1].Network.Refused == 0 || list[2].Network.Refused == 0 || list[2].Network.BytesOut != 0 {
		w.t.Errorf("got %+v, %v, want bytes of open, none of shut, and what was refused", list, err)
	}
}

// connects is what a service hears from each place, of which some should answer,
// however slow the machine is.
func (w *world) connects(l service.Lease, name string, answer, places []string) map[string]string {
	w.t.Helper()
	var out bytes.Buffer
	var script string
	for _, p := range places {
		wait := 3
		if slices.Contains(answer, p) {
			wait = 100
		}
		script += fmt.Sprintf("echo \"%s=$(/bin/busybox nc -w %d %[1]s </dev/null 2>/dev/null)\"\n", p, wait)
	}
	code, err := w.exec(l.Label+"/"+name, service.Streams{Stdout: &out}, "/bin/sh", "-c", script)
	if err != nil || code != 0 {
		w.t.Fatal(code, err)
	}
	heard := map[string]string{}
	for line := range strings.Lines(out.String()) {
		place, said, _ := strings.Cut(strings.TrimSpace(line), "=")
		heard[place] = said
	}
	if len(heard) != len(places) {
		w.t.Fatalf("got %q, want a line for each of %d places", out.String(), len(places))
	}
	return heard
}
