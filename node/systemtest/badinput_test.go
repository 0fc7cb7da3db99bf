//go:build system

package systemtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// refusal is what a command line that fails has to say.
type refusal struct {
	exit int
	code service.Code
	says []string // parts of the sentence
}

// insideWords are words of this program's inside, which tell a person nothing.
var insideWords = []string{"lease: ", "market: ", "container: ", "p2p: ", "settle: ", "sqlite", "goroutine", "panic", "%!", "rpc error", "context deadline", "EOF\n"}

// fails runs a command line with --json that has to fail: one sentence on
// standard error, the exit code, and an object on standard output.
func (w *world) fails(t *testing.T, want refusal, args ...string) {
	t.Helper()
	w.failsAs(t, want, nil, exec.Command(w.bin, append(args, "--json")...))
}

func (w *world) failsAs(t *testing.T, want refusal, attr *syscall.SysProcAttr, cmd *exec.Cmd) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(60*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	cmd.Wait()
	var sentences []string
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "time=") { // the log of a node
			sentences = append(sentences, strings.TrimSpace(line))
		}
	}
	t.Logf("exit %d: %s", cmd.ProcessState.ExitCode(), strings.Join(sentences, " / "))
	if got := cmd.ProcessState.ExitCode(); got != want.exit {
		t.Errorf("got exit code %d, want %d", got, want.exit)
	}
	text := strings.Join(sentences, "\n")
	if len(sentences) != 1 || !strings.HasPrefix(text, "pktcloud: ") {
		t.Errorf("got %q on standard error, want one sentence", text)
	}
	for _, part := range want.says {
		if !strings.Contains(text, part) {
			t.Errorf("the sentence %q lacks %q", text, part)
		}
	}
	for _, word := range insideWords {
		if strings.Contains(text, word) {
			t.Errorf("the sentence %q speaks of %q", text, word)
		}
	}
	var object struct {
		OK     bool         `json:"ok"`
		Code   service.Code `json:"code"`
		Detail string       `json:"detail"`
	}
	object.OK = true
	if err := json.Unmarshal(stdout.Bytes(), &object); err != nil || object.OK || object.Code != want.code || "pktcloud: "+object.Detail != text {
		t.Errorf("got %q on standard output (%v), want an object with code %q and the sentence", stdout.String(), err, want.code)
	}
}

// standing is what a refusal must leave as it was.
type standing struct {
	spendable, reserved pktcloud.Amount
}

func (w *world) standing(t *testing.T) standing {
	t.Helper()
	b, err := w.tenant.client().WalletBalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return standing{b.Spendable + b.Unconfirmed, b.Reserved}
}

// untouched waits until the tenant's money is what it was, and wants no lease,
// container, mount or control group to be left.
func (w *world) untouched(t *testing.T, before standing) {
	t.Helper()
	eventually(t, 15*time.Second, "the money is free again", func() (bool, error) {
		if now := w.standing(t); now != before {
			return false, fmt.Errorf("spendable and reserved are %+v, were %+v", now, before)
		}
		return true, nil
	})
	if open := w.openLeases(t, w.tenant); open != 0 {
		t.Errorf("the tenant has %d open leases", open)
	}
	if w.provider.dead() {
		return
	}
	if open := w.openLeases(t, w.provider); open != 0 {
		t.Errorf("the provider has %d open leases", open)
	}
	if left := w.provider.containers(); len(left) > 0 {
		t.Errorf("left on the provider's machine: %s", strings.Join(left, ", "))
	}
}

func (w *world) openLeases(t *testing.T, p *party) int {
	t.Helper()
	leases, err := p.client().Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(leases, func(l service.Lease) bool { return final[l.Phase] }))
}

// containers lists what a provider's containers consist of: their monitors,
// mounts, loop devices and control groups.
func (p *party) containers() []string {
	var left []string
	dir := filepath.Join(p.dir, "runtime")
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(b), dir) {
		left = append(left, "a mount in "+dir)
	}
	find := func(pattern, kind string, holds bool) {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if b, err := os.ReadFile(path); !holds || err == nil && strings.Contains(string(b), dir) {
				left = append(left, kind+" "+path)
			}
		}
	}
	sum := sha256.Sum256([]byte(dir))
	find("/sys/block/loop*/loop/backing_file", "loop device", true)
	find("/sys/fs/cgroup/*/pktcloud-"+hex.EncodeToString(sum[:4])+"/*/", "control group", false)
	find("/proc/[0-9]*/cmdline", "process", true)
	return left
}

// create is a command line that rents the small image.
func (w *world) create(p *party, more ...string) []string {
	return append([]string{
		"lease", "create", "--dir", p.dir, "--cpu", "0.2", "--memory", "64MiB", "--disk", "64MiB", "--interval", "1", "--term", "600",
		"--credit", "10", "--unconfirmed", "600",
	}, more...)
}

// known waits until a party has the provider's offer.
func (w *world) known(t *testing.T, p *party, id pktcloud.ID) {
	t.Helper()
	c := p.client()
	eventually(t, 40*time.Second, "the offer reaches the "+p.name, func() (bool, error) {
		_, err := c.Offer(t.Context(), id, service.Resources{})
		return err == nil, nil
	})
}

const goodPhrase = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"

// TestBadInput gives the program what people give it by mistake: each time it
// says in one sentence what to do, with the documented exit code, and leaves
// everything as it was.
func TestBadInput(t *testing.T) {
	w := newWorld(t, worldConfig{blockInterval: time.Hour})
	w.known(t, w.tenant, w.publish().ID)
	t.Run("phrase", w.badPhrases)
	t.Run("address", w.badAddresses)
	t.Run("password", w.badPassword)
	t.Run("network", w.badNetwork)
	t.Run("ports", w.busyPorts)
	t.Run("machine", w.badMachine)
	t.Run("image", w.badImages)
	t.Run("money", w.badMoney)
	t.Run("provider gone", w.providerGone)
	t.Run("expired", w.expiredOffer)
	t.Run("chain gone", w.chainGone)
	t.Run("still works", func(t *testing.T) {
		l := w.rent()
		w.paidIntervals(l.ID, 1)
		w.closeLease(l.ID)
		w.clean()
	})
}

func (w *world) badPhrases(t *testing.T) {
	words := strings.Fields(goodPhrase)
	for _, c := range []struct{ name, phrase, says string }{
		{"checksum", strings.Join(append(slices.Clone(words[:11]), "abandon"), " "), "checksum is wrong"},
		{"unknown word", strings.Replace(goodPhrase, "about", "aboot", 1), `"aboot", is not on the list`},
		{"pktwallet", strings.Join(append(slices.Clone(words), "abandon", "abandon", "about"), " "), "phrase of pktwallet"},
		{"too short", strings.Join(words[:5], " "), "a phrase has 24, or 12"},
		{"empty", "", "a phrase has 24, or 12"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			path := write(t, "phrase", c.phrase)
			w.fails(t, refusal{2, service.CodeInvalid, []string{c.says}}, "init", "--unattended", "--dir", dir, "--phrase-file", path)
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("a data directory was made: %v", err)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		w.fails(t, refusal{2, service.CodeInvalid, []string{"no such file"}}, "init", "--unattended", "--dir", t.TempDir(), "--phrase-file", "/nonexistent/phrase")
	})
	t.Run("second init", func(t *testing.T) {
		before, err := os.ReadFile(filepath.Join(w.tenant.dir, "keystore.age"))
		if err != nil {
			t.Fatal(err)
		}
		w.fails(t, refusal{1, service.CodeConflict, []string{w.tenant.dir}}, "init", "--unattended", "--dir", w.tenant.dir)
		if after, err := os.ReadFile(filepath.Join(w.tenant.dir, "keystore.age")); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the keystore is another one (%v)", err)
		}
	})
}

// write makes a file with one line.
func write(t *testing.T, name, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) badAddresses(t *testing.T) {
	own, err := w.tenant.client().WalletAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken := own.Address[:len(own.Address)-1] + "q"
	if broken == own.Address {
		broken = own.Address[:len(own.Address)-1] + "p"
	}
	before := w.standing(t)
	for _, c := range []struct{ name, address, says string }{
		{"another network", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "address"},
		{"PKT itself", "pkt1q6hqsqhqdgqfd8t3xwgceulu7k9d9w5t2amath0", "address"},
		{"mistyped", broken, "address"},
		{"old form", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "address"},
		{"nothing", "", "address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.fails(t, refusal{2, service.CodeInvalid, []string{c.says}},
				"devnet", "faucet", "--dir", w.dir, "--chain-dir", w.chainDir(), c.address, "1 PKT")
		})
	}
	w.mine(1)
	w.untouched(t, before)
}

func (w *world) badPassword(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locked")
	right, wrong := write(t, "right", "correct horse"), write(t, "wrong", "battery staple")
	w.run("init", "--dir", dir, "--password-file", right)
	node := []string{"node", "--dir", dir, "--api", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--chain", "http://" + w.rpc, "--chain-cookie", filepath.Join(w.chainDir(), "rpc.cookie")}
	for name, c := range map[string]struct {
		want refusal
		more []string
	}{
		"wrong":       {refusal{3, service.CodeUnauthorized, []string{"password"}}, []string{"--password-file", wrong}},
		"none":        {refusal{2, service.CodeInvalid, []string{"--password-file"}}, nil},
		"no such dir": {refusal{3, service.CodeNoNode, []string{"pktcloud init"}}, []string{"--dir", dir + "-not"}},
	} {
		t.Run(name, func(t *testing.T) {
			w.fails(t, c.want, append(slices.Clone(node), c.more...)...)
			w.fails(t, refusal{3, service.CodeNoNode, []string{"pktcloud node"}}, "lease", "list", "--dir", dir)
		})
	}
	var up service.Info
	w.spawn(nil, &up, append(node, "--json", "--password-file", right)...).stop(t)
}

func (w *world) badNetwork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lost")
	w.run("init", "--unattended", "--dir", dir)
	node := []string{"node", "--dir", dir, "--api", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--chain", "http://" + w.rpc, "--chain-cookie", filepath.Join(w.chainDir(), "rpc.cookie")}
	for name, c := range map[string]struct {
		says []string
		more []string
	}{
		"unknown":         {[]string{`"pkt"`, "pkt-devnet"}, []string{"--network", "bitcoin"}},
		"chain address":   {[]string{"--chain"}, []string{"--chain", "not an address"}},
		"listen address":  {[]string{"--listen"}, []string{"--listen", "127.0.0.1:4001"}},
		"bootstrap":       {[]string{"--bootstrap"}, []string{"--bootstrap", "/ip4/127.0.0.1/tcp/1"}},
		"api not private": {[]string{"--api", "loopback"}, []string{"--api", "0.0.0.0:7390"}},
	} {
		t.Run(name, func(t *testing.T) {
			w.fails(t, refusal{2, service.CodeInvalid, c.says}, append(slices.Clone(node), c.more...)...)
		})
	}
}

func (w *world) busyPorts(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	at := busy.Addr().String()
	dir := filepath.Join(t.TempDir(), "busy")
	w.run("init", "--unattended", "--dir", dir)
	node := func(more ...string) []string {
		return append([]string{"node", "--dir", dir, "--chain", "http://" + w.rpc, "--chain-cookie", filepath.Join(w.chainDir(), "rpc.cookie")}, more...)
	}
	free := "127.0.0.1:0"
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"api":     {node("--api", at, "--proxy", free), "--api"},
		"proxy":   {node("--api", free, "--proxy", at), "--proxy"},
		"peers":   {node("--api", free, "--proxy", free, "--listen", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", busy.Addr().(*net.TCPAddr).Port)), "--listen"},
		"rpc":     {[]string{"devnet", "--chain-dir", filepath.Join(dir, "chain"), "--rpc", at}, "--rpc"},
		"running": {[]string{"node", "--dir", w.tenant.dir, "--api", free, "--proxy", free}, "another node"},
		"chain":   {[]string{"devnet", "--chain-dir", w.chainDir(), "--rpc", free}, w.chainDir()},
	} {
		t.Run(name, func(t *testing.T) {
			w.fails(t, refusal{1, service.CodeConflict, []string{c.says}}, c.args...)
		})
	}
	if _, err := w.tenant.client().Info(t.Context()); err != nil {
		t.Errorf("the node that runs is not found any more: %v", err)
	}
	w.mine(1) // the devnet that runs is still found
	var up service.Info
	w.spawn(nil, &up, append(node("--api", free, "--proxy", free), "--json")...).stop(t)
}

// badMachine runs a provider without root and without control groups.
func (w *world) badMachine(t *testing.T) {
	if err := os.Chmod(filepath.Dir(w.bin), 0o755); err != nil { // nobody has to run it
		t.Fatal(err)
	}
	const nobody = 65534
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	base, err := os.MkdirTemp("", "pktcloud-nobody-") //nolint:usetesting // below t.TempDir nobody may not look
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o777); err != nil { //nolint:gosec // nobody writes to it
		t.Fatal(err)
	}
	dir := filepath.Join(base, "node")
	mine := exec.Command(w.bin, "init", "--unattended", "--dir", dir)
	mine.SysProcAttr = attr
	if out, err := mine.CombinedOutput(); err != nil {
		t.Fatalf("init as nobody: %v: %s", err, out)
	}
	cookie := filepath.Join(base, "cookie")
	b, err := os.ReadFile(filepath.Join(w.chainDir(), "rpc.cookie"))
	if err == nil {
		err = os.WriteFile(cookie, b, 0o644) //nolint:gosec // of a devnet
	}
	if err != nil {
		t.Fatal(err)
	}
	node := func(dir string) []string {
		return []string{"node", "--json", "--provider", "--dir", dir, "--api", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--chain", "http://" + w.rpc, "--chain-cookie", cookie}
	}
	t.Run("not root", func(t *testing.T) {
		w.failsAs(t, refusal{5, service.CodeMissing, []string{"start the provider as root"}}, attr, exec.Command(w.bin, node(dir)...))
	})
	t.Run("another's directory", func(t *testing.T) {
		w.failsAs(t, refusal{1, service.CodeForbidden, []string{"permission denied"}}, attr, exec.Command(w.bin, node(w.tenant.dir)...))
	})
	t.Run("no cgroups", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "node")
		w.run("init", "--unattended", "--dir", dir)
		script := append([]string{"-m", "sh", "-c", `mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"`, w.bin}, node(dir)...)
		w.failsAs(t, refusal{5, service.CodeMissing, []string{"mount cgroup v2"}}, nil, exec.Command("unshare", script...))
	})
}

// badImages asks for images that are not there or not what they say.
func (w *world) badImages(t *testing.T) {
	evil := w.otherBytes(t)
	w.provider.stop(t)
	w.provider.flags = append(w.provider.flags, "--allow-dial", evil.address)
	w.provider.start()
	w.known(t, w.tenant, w.publish().ID)
	before := w.standing(t)
	for _, c := range []struct {
		name, image string
		want        refusal
	}{
		{name: "upper case", image: "127.0.0.1:1/HELLO:1", want: refusal{4, service.CodeRefused, []string{"HELLO", "reference"}}},
		{name: "unknown name", image: w.registry + "/nothing:1", want: refusal{4, service.CodeRefused, []string{"/nothing:1"}}},
		{name: "unknown tag", image: w.registry + "/hello:2", want: refusal{4, service.CodeRefused, []string{"/hello:2"}}},
		{name: "no reference", image: "NO REFERENCE", want: refusal{2, service.CodeInvalid, []string{"image reference"}}},
		{name: "registry not allowed", image: "127.0.0.1:1/hello:1", want: refusal{4, service.CodeRefused, []string{"127.0.0.1:1/hello:1"}}},
		{name: "another manifest", image: evil.address + "/manifest@" + evil.digest, want: refusal{4, service.CodeRefused, []string{"digest"}}},
		{name: "another layer", image: evil.address + "/layer@" + evil.digest, want: refusal{4, service.CodeRefused, []string{"digest"}}},
		{name: "another digest", image: w.registry + "/hello@sha256:" + strings.Repeat("ab", 32), want: refusal{4, service.CodeRefused, []string{"/hello@"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.fails(t, c.want, w.create(w.tenant, "--image", c.image, "--max-price", "1")...)
			w.untouched(t, before)
		})
	}
	if left, err := os.ReadDir(filepath.Join(w.provider.dir, "images", "tmp")); err != nil || len(left) > 0 {
		t.Errorf("half an image is left: %v (%v)", left, err)
	}
}

// otherBytes is a registry that has the small image, and serves it with one
// byte changed: of the manifest under /manifest, of the layer under /layer.
type otherBytes struct{ address, digest string }

func (w *world) otherBytes(t *testing.T) otherBytes {
	t.Helper()
	var o otherBytes
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/") // "", v2, name, manifests or blobs, reference
		if len(parts) != 5 {
			rw.WriteHeader(http.StatusOK)
			return
		}
		answer, err := http.Get("http://" + w.registry + "/v2/hello/" + parts[3] + "/" + parts[4])
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		isLayer := parts[3] == "blobs" && !json.Valid(body)
		if parts[2] == "manifest" && parts[3] == "manifests" || parts[2] == "layer" && isLayer {
			body[len(body)/2] ^= 1
		}
		rw.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		rw.Header().Set("Docker-Content-Digest", parts[4])
		rw.WriteHeader(answer.StatusCode)
		rw.Write(body)
	}))
	t.Cleanup(server.Close)
	o.address = strings.TrimPrefix(server.URL, "http://")
	answer, err := http.Head("http://" + w.registry + "/v2/hello/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if o.digest = answer.Header.Get("Docker-Content-Digest"); o.digest == "" {
		t.Fatal("the registry tells no digest")
	}
	return o
}

func (w *world) badMoney(t *testing.T) {
	offer := w.publish()
	w.known(t, w.tenant, offer.ID)
	before := w.standing(t)
	for _, c := range []struct {
		name string
		want refusal
		more []string
	}{
		{"too little", refusal{8, service.CodeMoney, []string{"not enough money", "needed"}}, []string{"--max-price", "1", "--capacity", "101"}},
		{"above the limit", refusal{6, service.CodeNotFound, []string{"market list"}}, []string{"--max-price", "0.000001"}},
		{"above the limit, offer chosen", refusal{8, service.CodeMoney, []string{"your limit is"}}, []string{"--max-price", "0.000001", "--offer", offer.ID.String()}},
		{"no room", refusal{6, service.CodeNotFound, []string{"market list"}}, []string{"--max-price", "100000", "--memory", "100TiB"}},
		{"no room, offer chosen", refusal{4, service.CodeRefused, []string{"offer"}}, []string{"--max-price", "100000", "--memory", "100TiB", "--offer", offer.ID.String()}},
		{"capacity below the minimum", refusal{2, service.CodeInvalid, []string{"capacity of"}}, []string{"--max-price", "1", "--capacity", "0.0000001"}},
		{"no such offer", refusal{6, service.CodeNotFound, []string{"look at the market"}}, []string{"--max-price", "1", "--offer", pktcloud.IDOf([]byte("nothing")).String()}},
		{"no offer's id", refusal{2, service.CodeInvalid, []string{"--offer"}}, []string{"--max-price", "1", "--offer", "abc"}},
		{"term too long", refusal{4, service.CodeRefused, []string{"term"}}, []string{"--max-price", "1", "--term", "99999999"}},
		{"credit too high", refusal{4, service.CodeRefused, []string{"credit"}}, []string{"--max-price", "1", "--credit", "100000"}},
		{"environment", refusal{2, service.CodeInvalid, []string{"NAME=value"}}, []string{"--max-price", "1", "--env", "nothing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.fails(t, c.want, w.create(w.tenant, append([]string{"--image", w.image}, c.more...)...)...)
			w.untouched(t, before)
		})
	}
	for _, args := range [][]string{
		{"lease", "show", "feedbeef"}, {"lease", "close", "feedbeef"}, {"exec", "feedbeef", "--", "true"}, {"logs", "feedbeef"}, {"forward", "feedbeef", "8080"},
	} {
		t.Run(args[0]+" of no lease", func(t *testing.T) {
			exit := 6
			if args[0] == "exec" {
				exit = 125 // the program could not be run
			}
			w.fails(t, refusal{exit, service.CodeNotFound, []string{"lease list"}}, append([]string{args[0], "--dir", w.tenant.dir, "--json"}, args[1:]...)...)
		})
	}
}

// providerGone kills the provider: nobody answers.
func (w *world) providerGone(t *testing.T) {
	before := w.standing(t)
	w.provider.kill()
	w.fails(t, refusal{7, service.CodeUnreachable, []string{"provider"}}, w.create(w.tenant, "--image", w.image, "--max-price", "1")...)
	w.untouched(t, before)
	w.provider.start()
}

// expiredOffer rents under an offer whose time is over, and whose provider did
// not renew it.
func (w *world) expiredOffer(t *testing.T) {
	w.known(t, w.tenant, w.publish().ID) // they have met again
	before := w.standing(t)
	o, err := w.provider.client().PublishOffer(t.Context(), service.OfferSpec{Slot: 1, Region: "DE", CPUPerCoreHour: 20_000_000, LifetimeSeconds: 4})
	if err != nil {
		t.Fatal(err)
	}
	w.known(t, w.tenant, o.ID)
	w.provider.kill()
	time.Sleep(time.Until(time.Unix(o.Body.Expires+1, 0)))
	w.fails(t, refusal{4, service.CodeExpired, []string{"market"}}, w.create(w.tenant, "--image", w.image, "--max-price", "1", "--offer", o.ID.String())...)
	w.untouched(t, before)
	w.provider.start()
}

// chainGone kills the devnet.
func (w *world) chainGone(t *testing.T) {
	offer := w.publish()
	w.known(t, w.tenant, offer.ID)
	before := w.standing(t)
	w.devnet.kill()
	blind := refusal{7, service.CodeLedger, []string{"chain"}}
	w.fails(t, blind, "wallet", "balance", "--dir", w.tenant.dir)
	w.fails(t, blind, w.create(w.tenant, "--image", w.image, "--max-price", "1", "--offer", offer.ID.String())...)
	w.fails(t, refusal{3, service.CodeNoNode, []string{"pktcloud devnet"}}, "devnet", "mine", "--dir", w.dir, "--chain-dir", w.chainDir())
	var ready struct{ RPC string }
	w.devnet = w.spawn(nil, &ready, "devnet", "--json", "--dir", w.dir, "--chain-dir", w.chainDir(), "--rpc", w.rpc, "--block-interval", "1h")
	w.untouched(t, before)
}

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
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("%s stays mounted: %v", dir, err)
			syscall.Unmount(dir, syscall.MNT_DETACH)
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
