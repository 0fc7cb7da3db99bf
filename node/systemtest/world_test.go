//go:build system || soak

package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/node/audit"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// runPrefix begins the names of the directories of runs of these tests.
const runPrefix = "pktcloud-test-"

// TestMain removes what earlier runs left that were killed, and sees to it that
// the next can do the same: all temporary directories are in one that is
// marked, and all processes carry its name.
func TestMain(m *testing.M) {
	code, err := runMarked(m)
	if err != nil {
		log.Print(err)
		code = 1
	}
	os.Exit(code)
}

func runMarked(m *testing.M) (code int, err error) {
	found, err := leftover.Sweep(context.Background(), runPrefix)
	if len(found) > 0 {
		log.Printf("removed what killed runs left: %s", strings.Join(found, ", "))
	}
	if err != nil {
		return 0, err
	}
	run, err := leftover.New(runPrefix, false)
	if err != nil {
		return 0, err
	}
	name, value, _ := strings.Cut(run.Env(), "=")
	if err := errors.Join(os.Setenv(name, value), os.Setenv("TMPDIR", run.Dir)); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, errors.Join(os.RemoveAll(run.Dir), run.Close())
}

// world is a devnet, a provider and a tenant, and a registry with one image.
type world struct {
	t        *testing.T
	bin      string
	dir      string
	rpc      string
	image    string
	registry string
	provider *party
	tenant   *party
	devnet   *process
	began    time.Time
}

// party is one node: its data directory and, while it runs, its process.
type party struct {
	w      *world
	name   string
	dir    string
	listen string // multiaddr, the same at each start
	flags  []string
	info   service.Info
	*process

	mu   sync.Mutex     // guards last
	last *client.Client // that was handed out
}

// process is a running command.
type process struct {
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan struct{}
}

type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type worldConfig struct {
	bin           string // "": built with the tags
	tags          string
	blockInterval time.Duration
	provider      []string // more of its flags
}

// newWorld starts everything and funds the tenant.
func newWorld(t *testing.T, c worldConfig) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: real containers are started")
	}
	w := &world{t: t, bin: c.bin, dir: t.TempDir(), began: time.Now()}
	if w.bin == "" {
		w.bin = binary(t, c.tags)
	}
	t.Cleanup(w.explain)
	w.startRegistry()
	w.startDevnet(c.blockInterval)
	w.provider = w.newParty("provider", append([]string{"--provider", "--allow-dial", w.registry}, c.provider...)...)
	w.tenant = w.newParty("tenant")
	w.provider.start()
	w.tenant.flags = append(w.tenant.flags, "--bootstrap", w.provider.info.Addresses[0])
	w.tenant.start()
	w.fund(w.tenant, "100 PKT")
	return w
}

// explain shows the ends of both logs when the test has failed.
func (w *world) explain() {
	if !w.t.Failed() {
		return
	}
	for _, p := range []*party{w.provider, w.tenant} {
		if p != nil && p.process != nil {
			log := p.log.String()
			w.t.Logf("the %s's log ends:\n%s", p.name, log[max(0, len(log)-4000):])
		}
	}
}

// page is what the workload serves.
const page = "Hello from a lease."

func busyboxPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox is missing: apt-get install busybox-static")
	}
	return path
}

func (w *world) startRegistry() {
	w.t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(new(bytes.Buffer), "", 0))))
	w.t.Cleanup(server.Close)
	w.registry = strings.TrimPrefix(server.URL, "http://")
	img, err := image.FromFiles(image.Build{
		Files: map[string]image.File{
			"/bin/busybox":    {Source: busyboxPath(w.t), Mode: 0o755},
			"/bin/sh":         {Link: "busybox"},
			"/www/index.html": {Data: []byte(page)},
		},
		Args:  []string{"/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"},
		Ports: []uint16{8080},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.image = w.registry + "/hello:1"
	ref, err := name.ParseReference(w.image, name.Insecure)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		w.t.Fatal(err)
	}
}

// freePort is one that no outgoing connection takes before, or between, the
// starts of the process that listens there: below those that systems hand out.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20_000 + rand.N(12_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (w *world) chainDir() string { return filepath.Join(w.dir, "chain") }

func (w *world) startDevnet(interval time.Duration) {
	w.t.Helper()
	w.rpc = fmt.Sprintf("127.0.0.1:%d", freePort(w.t))
	var ready struct{ RPC string }
	w.devnet = w.spawn(nil, &ready, "devnet", "--json", "--dir", w.dir, "--chain-dir", w.chainDir(), "--rpc", w.rpc, "--block-interval", interval.String())
}

// newParty makes a data directory.
func (w *world) newParty(name string, flags ...string) *party {
	w.t.Helper()
	p := &party{
		w: w, name: name, dir: filepath.Join(w.dir, name), flags: flags,
		listen: fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", freePort(w.t)),
	}
	w.run("init", "--unattended", "--dir", p.dir)
	w.t.Cleanup(p.removeLeftovers)
	return p
}

// start runs the node, with further environment, until it says that it is up.
func (p *party) start(env ...string) {
	p.w.t.Helper()
	if err := p.tryStart(env...); err != nil {
		p.w.t.Fatal(err)
	}
}

// tryStart is start for a node that may die on the way.
func (p *party) tryStart(env ...string) error {
	args := append([]string{
		"node", "--json", "--dir", p.dir, "--listen", p.listen, "--api", "127.0.0.1:0", "--proxy", "127.0.0.1:0",
		"--chain", "http://" + p.w.rpc, "--chain-cookie", filepath.Join(p.w.chainDir(), "rpc.cookie"), "--chain-poll", "100ms", "--verbose",
	}, p.flags...)
	var err error
	p.process, err = p.w.trySpawn(env, &p.info, args...)
	return err
}

// client asks the party's node. Those who poll ask for one each time: it drops
// the connection that the last one left idle.
func (p *party) client() *client.Client {
	p.w.t.Helper()
	c, err := client.Dial(p.dir)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.w.t.Cleanup(func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.last.Close()
		})
	} else {
		p.last.Close()
	}
	p.last = c
	return c
}

// removeLeftovers ends the containers that a provider still has when a test
// ends early.
func (p *party) removeLeftovers() {
	if p.process != nil {
		p.kill()
	}
	if err := leftover.Containers(context.Background(), filepath.Join(p.dir, "runtime")); err != nil {
		p.w.t.Errorf("the containers of the %s: %v", p.name, err)
	}
}

// spawn starts a command and decodes the first JSON value that it prints.
func (w *world) spawn(env []string, ready any, args ...string) *process {
	w.t.Helper()
	p, err := w.trySpawn(env, ready, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) trySpawn(env []string, ready any, args ...string) (*process, error) {
	cmd := exec.Command(w.bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{cmd: cmd, log: new(lockedBuffer), done: make(chan struct{})}
	cmd.Stderr = p.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.t.Cleanup(p.kill)
	decoded := make(chan error, 1)
	go func() {
		decoded <- decodeReady(stdout, ready)
		cmd.Wait()
		close(p.done)
	}()
	select {
	case err = <-decoded:
	case <-time.After(patience):
		err = fmt.Errorf("it says nothing for %s", patience)
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, p.log)
	}
	return p, nil
}

// decodeReady reads the first value that a command prints, which may be its
// refusal.
func decodeReady(r io.Reader, ready any) error {
	var first json.RawMessage
	if err := json.NewDecoder(r).Decode(&first); err != nil {
		return err
	}
	refusal := struct{ OK *bool }{}
	if err := json.Unmarshal(first, &refusal); err != nil {
		return err
	}
	if refusal.OK != nil && !*refusal.OK {
		return fmt.Errorf("it says %s", first)
	}
	return json.Unmarshal(first, ready)
}

// kill is SIGKILL, and waits until the process is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop is SIGTERM, and waits.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the process did not stop within %s of SIGTERM\n%s", patience, p.log)
	}
}

func (p *process) dead() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// run runs a command to its end and returns what it printed.
func (w *world) run(args ...string) string {
	w.t.Helper()
	out, err := w.tryRun(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) tryRun(args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(w.bin, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return string(out), err
}

// fund gives a party coins and waits until it can spend them.
func (w *world) fund(p *party, amount string) {
	w.t.Helper()
	c := p.client()
	address, err := c.WalletAddress(w.t.Context(), service.AddressRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.run("devnet", "faucet", "--dir", w.dir, "--chain-dir", w.chainDir(), address.Address, amount)
	w.mine(1)
	eventually(w.t, "coins arrive", func() (bool, error) {
		b, err := c.WalletBalance(w.t.Context())
		return b.Spendable > 0, err
	})
}

func (w *world) mine(blocks int) {
	w.t.Helper()
	w.run("devnet", "mine", "--dir", w.dir, "--chain-dir", w.chainDir(), fmt.Sprint(blocks))
}

// publish makes the provider's offer: about 3000 units a second for the
// request of rent.
func (w *world) publish() service.Offer {
	w.t.Helper()
	price := pktcloud.Rate(20_000_000)
	o, err := w.provider.client().PublishOffer(w.t.Context(), service.OfferSpec{
		Region: "DE", CPUPerCoreHour: price, MemoryPerGiBHour: price / 2, DiskPerGiBHour: price / 100,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// testCredit is that of these leases, in seconds of price. Service that a tenant
// disputes counts against it for good: with little of it a machine that is slow
// for some seconds would end a lease.
const testCredit = "120"

// request is a lease of the small image at 1 s intervals.
func (w *world) request(offer pktcloud.ID) service.LeaseRequest {
	return service.LeaseRequest{
		Offer: offer, Image: w.image, Port: 8080, MaxRate: 1_000_000_000, IntervalSeconds: 1, TermSeconds: 600,
		Resources: service.Resources{MilliCPU: 200, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
		Limits:    &service.ExposureRequest{CreditSeconds: 120, UnconfirmedSeconds: 600},
	}
}

// rent waits for the offer to reach the tenant and agrees a lease.
func (w *world) rent() service.Lease { return w.rentAs(w.request(pktcloud.ID{})) }

// rentAs is rent of what a request says, under a new offer.
func (w *world) rentAs(request service.LeaseRequest) service.Lease {
	w.t.Helper()
	offer := w.publish()
	request.Offer = offer.ID
	c := w.tenant.client()
	eventually(w.t, "the offer reaches the tenant", func() (bool, error) {
		_, err := c.Offer(w.t.Context(), offer.ID, service.Resources{})
		return err == nil, nil
	})
	return w.agree(offer, request)
}

// agree makes a lease under an offer, or under what has replaced it: a provider
// makes another when what is free changes.
func (w *world) agree(offer service.Offer, request service.LeaseRequest) (l service.Lease) {
	w.t.Helper()
	c := w.tenant.client()
	eventually(w.t, "a lease is agreed", func() (_ bool, err error) {
		if l, err = c.CreateLease(w.t.Context(), request); err == nil {
			return true, nil
		}
		if !errors.Is(err, service.CodeNotFound) {
			w.t.Fatalf("%v\nprovider:\n%s\ntenant:\n%s", err, w.provider.log, w.tenant.log)
		}
		page, e := c.Offers(w.t.Context(), service.OfferQuery{})
		for _, o := range page.Offers {
			if o.Body.Provider == offer.Body.Provider {
				request.Offer = o.ID
			}
		}
		return false, errors.Join(err, e)
	})
	return l
}

// paidIntervals waits until the tenant has paid after n statements, and the
// service runs.
func (w *world) paidIntervals(id pktcloud.ID, n uint64) service.Lease {
	w.t.Helper()
	var l service.Lease
	c := w.tenant.client()
	eventually(w.t, fmt.Sprintf("%d intervals are paid", n), func() (_ bool, err error) {
		l, err = c.Lease(w.t.Context(), id.String())
		return l.Intervals > n && l.Phase == "active" && l.Paid > 0 && l.Paid == l.Due, err
	})
	return l
}

// atHand waits until the tenant can spend what it has: the change of a channel
// that was just opened waits for its block.
func (w *world) atHand() {
	w.t.Helper()
	eventually(w.t, "the tenant's money is at hand", func() (bool, error) {
		b, err := w.tenant.client().WalletBalance(w.t.Context())
		return b.Spendable > 0 && b.Unconfirmed == 0, err
	})
}

// exec runs a program in a lease or one of its services, of which the name is
// given. Where the machine stands still a lease may be suspended for a moment,
// or the provider out of reach: then it is asked again.
func (w *world) exec(name string, s service.Streams, args ...string) (code int, err error) {
	w.t.Helper()
	c := w.tenant.client()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		code, err = c.Exec(w.t.Context(), name, service.ExecRequest{Args: args}, s)
		if !busy(err) || time.Now().After(end) {
			return code, err
		}
	}
}

// busy reports whether an error is one of a moment: nothing was done.
func busy(err error) bool {
	return errors.Is(err, service.CodeConflict) || errors.Is(err, service.CodeUnreachable)
}

// closeLease ends a lease and waits until the chain has paid it out.
func (w *world) closeLease(id pktcloud.ID) service.Lease {
	w.t.Helper()
	c := w.tenant.client()
	l, err := c.CloseLease(w.t.Context(), id.String())
	if err != nil {
		w.t.Fatalf("%v\nprovider:\n%s\ntenant:\n%s", err, w.provider.log, w.tenant.log)
	}
	eventually(w.t, "the chain pays out", func() (_ bool, err error) {
		w.mine(1)
		l, err = c.Lease(w.t.Context(), id.String())
		return l.Phase == "closed" && l.Channel.Closed > 0, err
	})
	return l
}

// audit checks everything from outside.
func (w *world) audit() audit.Report {
	w.t.Helper()
	r, err := audit.Run(audit.Dirs{Provider: w.provider.dir, Tenant: w.tenant.dir, Chain: w.chainDir()})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// clean fails the test unless an audit finds nothing.
func (w *world) clean() audit.Report {
	w.t.Helper()
	r := w.audit()
	for _, f := range r.Findings {
		w.t.Errorf("the audit: %s", f)
	}
	return r
}

// patience is how long these tests wait for anything that is sure to come: so
// long that a machine may stand still for a minute meanwhile.
const patience = 3 * time.Minute

// eventually polls until ok, or patience ends.
func eventually(t *testing.T, what string, check func() (ok bool, err error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	for {
		var ok bool
		if ok, err = check(); ok && err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s (last error: %v)", what, patience, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
