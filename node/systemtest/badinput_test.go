//go:build system

package systemtest

import (
	"bytes"
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

// create is a command line that rents the small image.
func (w *world) create(p *party, more ...string) []string {
	return append([]string{
		"lease", "create", "--dir", p.dir, "--cpu", "0.2", "--memory", "64MiB", "--disk", "64MiB", "--interval", "1", "--term", "600",
		"--credit", testCredit, "--unconfirmed", "600",
	}, more...)
}

// known waits until a party has the provider's offer.
func (w *world) known(t *testing.T, p *party, id pktcloud.ID) {
	t.Helper()
	c := p.client()
	eventually(t, "the offer reaches the "+p.name, func() (bool, error) {
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
	t.Run("start", w.badStarts)
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
	own, err := w.tenant.client().WalletAddress(t.Context(), service.AddressRequest{})
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
	for dir, mode := range map[string]os.FileMode{os.TempDir(): 0o711, filepath.Dir(w.bin): 0o755} { // nobody has to run it
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
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
		{name: "another digest", image: w.registry + "/hello@sha256:" + strings.Repeat("ab", 32), want: refusal{4, service.CodeRefused, []string{"/hello@"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.fails(t, c.want, w.create(w.tenant, "--image", c.image, "--max-price", "1")...)
			w.untouched(t, before)
		})
	}
	// What the layers are shows once they are fetched: when the lease is agreed.
	t.Run("another layer", func(t *testing.T) {
		create := w.create(w.tenant, "--image", evil.address+"/layer@"+evil.digest, "--max-price", "1", "--wait")
		w.fails(t, refusal{9, service.CodeWorkload, []string{"digest", "Nothing was paid"}}, create...)
		leases, err := w.tenant.client().Leases(t.Context())
		if err != nil || len(leases) == 0 {
			t.Fatalf("got %d leases, %v", len(leases), err)
		}
		if l := w.closeLease(leases[0].ID); l.Paid != 0 || l.Fault == nil || l.Fault.Code != "image" { // it closes by itself; then the block
			t.Errorf("got %+v and %d units paid, want the image and nothing", l.Fault, uint64(l.Paid))
		}
	})
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
	var o service.Offer
	for seconds := uint64(4); ; seconds *= 3 { // a slow machine hears of the first ones too late
		var err error
		o, err = w.provider.client().PublishOffer(t.Context(), service.OfferSpec{Slot: 1, Region: "DE", CPUPerCoreHour: 20_000_000, LifetimeSeconds: seconds})
		if err != nil {
			t.Fatal(err)
		}
		known := false
		for c := w.tenant.client(); !known && time.Now().Unix() < o.Body.Expires; time.Sleep(20 * time.Millisecond) {
			_, err := c.Offer(t.Context(), o.ID, service.Resources{})
			known = err == nil
		}
		if known {
			break
		}
		if seconds > 200 {
			t.Fatal("the offer does not reach the tenant before it expires")
		}
	}
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
