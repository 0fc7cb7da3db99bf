package pktd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// serve opens a devnet and a driver over its RPC.
func serve(t *testing.T, cfg Config) (*devnet.Chain, *Driver) {
	t.Helper()
	chain, err := devnet.Open(t.TempDir(), devnet.Config{InitialBlocks: 125})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cookie := filepath.Join(t.TempDir(), ".cookie")
	auth, err := devnet.NewCookie(cookie)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- chain.Serve(ctx, l, auth) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, chain.Close()); err != nil {
			t.Error(err)
		}
	})
	cfg.URL, cfg.CookieFile = "http://"+l.Addr().String(), cookie
	cfg.Magic, cfg.PollInterval = devnet.Magic, 10*time.Millisecond
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return chain, d
}

func fixture(c *devnet.Chain, l settle.Ledger) settletest.LedgerFixture {
	return settletest.LedgerFixture{
		Ledger: l,
		Mine: func(_ context.Context, n int) error {
			_, err := c.Mine(n, nil)
			return err
		},
		Fund: func(ctx context.Context, script []byte, amount pktcloud.Amount) error {
			_, err := c.Faucet(ctx, script, amount)
			return err
		},
		Invalidate: func(_ context.Context, n int) error { return c.Invalidate(n) },
		Break:      c.Close,
	}
}

func TestLedgerOverDevnet(t *testing.T) {
	chain, d := serve(t, Config{})
	f := fixture(chain, d)
	f.Restart = func() (settle.Ledger, error) { return New(d.cfg) }
	if err := settletest.TestLedger(t.Context(), f); err != nil {
		t.Error(err)
	}
}

// Outputs older than Birthday are found while they are unspent; scripts are
// not searched for down there.
func TestBirthday(t *testing.T) {
	chain, d := serve(t, Config{Birthday: 127})
	script := append([]byte{0, 20}, make([]byte, 20)...)
	txid, err := chain.Faucet(t.Context(), script, 5000) // in block 126
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Mine(3, nil); err != nil {
		t.Fatal(err)
	}
	out, err := d.Output(t.Context(), settle.Outpoint{TxID: txid})
	if err != nil {
		t.Fatal(err)
	}
	if !out.Known || out.Amount != 5000 || out.Depth != 4 {
		t.Errorf("output below Birthday: got %+v", out)
	}
	if _, err := chain.Faucet(t.Context(), script, 6000); err != nil {
		t.Fatal(err)
	}
	coins, err := d.Coins(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	var sum pktcloud.Amount
	for _, c := range coins {
		sum += c.Amount
	}
	if sum != 11000 && sum != 6000 { // the first is known by its outpoint
		t.Errorf("coins: got %+v", coins)
	}
}

// A reorganisation deeper than the view can undo makes the driver begin again.
func TestReorgBelowTheView(t *testing.T) {
	chain, d := serve(t, Config{})
	script := append([]byte{0, 20}, make([]byte, 20)...)
	if _, err := chain.Faucet(t.Context(), script, 5000); err != nil {
		t.Fatal(err)
	}
	if coins, err := d.Coins(t.Context(), script); err != nil || len(coins) != 1 {
		t.Fatalf("coins: got %v, %v", coins, err)
	}
	if err := chain.Invalidate(20); err != nil { // the view began at this tip
		t.Fatal(err)
	}
	coins, err := d.Coins(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	if len(coins) != 1 || coins[0].Depth != 0 {
		t.Errorf("after the reorganisation: got %+v, want one unconfirmed coin", coins)
	}
	if _, err := chain.Mine(2, nil); err != nil {
		t.Fatal(err)
	}
	if coins, err = d.Coins(t.Context(), script); err != nil || len(coins) != 1 || coins[0].Depth != 2 {
		t.Errorf("on the new branch: got %+v, %v", coins, err)
	}
}

func TestUnavailable(t *testing.T) {
	_, good := serve(t, Config{})
	url, cookie := good.rpc.url, good.rpc.cookie
	for name, cfg := range map[string]Config{
		"nobody listens": {URL: "http://127.0.0.1:1", User: "u", Password: "p"},
		"wrong password": {URL: url, User: "u", Password: "p"},
		"wrong network":  {URL: url, CookieFile: cookie, Magic: 0x082f00fc},
		"no cookie file": {URL: url, CookieFile: filepath.Join(t.TempDir(), "none")},
	} {
		d, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Tip(t.Context()); !errors.Is(err, settle.ErrLedgerUnavailable) {
			t.Errorf("%s: got %v, want ErrLedgerUnavailable", name, err)
		}
	}
	for name, cfg := range map[string]Config{
		"no address": {User: "u"}, "other scheme": {URL: "ftp://x", User: "u"},
		"no access": {URL: "http://x"}, "both": {URL: "http://x", User: "u", CookieFile: "c"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFeeRate(t *testing.T) {
	for configured, want := range map[pktcloud.Amount]pktcloud.Amount{0: settle.RelayFloor, 1: settle.RelayFloor, 5000: 5000} {
		d, err := New(Config{URL: "http://127.0.0.1:1", User: "u", Password: "p", FeeRate: configured})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.FeeRate(t.Context()); err != nil || got != want {
			t.Errorf("configured %d: got %d, %v; want %d", configured, got, err, want)
		}
	}
}

// TestUnspentNeverSearches shows [LEDGER-14]: outpoints that a stranger names
// cost one question each and at most one block.
func TestUnspentNeverSearches(t *testing.T) {
	chain, d := serve(t, Config{})
	txid, err := chain.Faucet(t.Context(), append([]byte{0, 20}, make([]byte, 20)...), 5000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Mine(3, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := countBlocks(t, d)
	for i := range byte(3) {
		out, err := d.Unspent(t.Context(), settle.Outpoint{TxID: [32]byte{i, 1}})
		if err != nil || out.Known {
			t.Errorf("got %+v, %v for an output that does not exist, want not known", out, err)
		}
	}
	if n := count.blocks.Load(); n != 0 {
		t.Errorf("got %d blocks read for outputs that do not exist, want none", n)
	}
	out, err := d.Unspent(t.Context(), settle.Outpoint{TxID: txid})
	if err != nil || !out.Known || out.Amount != 5000 || out.Depth != 4 || out.Spend != nil {
		t.Errorf("got %+v, %v, want an unspent output of 5000 units, 4 deep", out, err)
	}
	if n := count.blocks.Load(); n > 1 {
		t.Errorf("got %d blocks read for one output, want one", n)
	}
}

// counter stands before a node and counts the blocks that are read.
type counter struct {
	blocks atomic.Int64
	most   atomic.Int64 // blocks to let through; zero means all

	holdAt  atomic.Int64 // the block to hold back; zero means none
	held    chan struct{}
	release chan struct{}
}

// countBlocks puts a counter before a driver's node.
func countBlocks(t *testing.T, d *Driver) *counter {
	t.Helper()
	node, err := url.Parse(d.rpc.url)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{held: make(chan struct{}), release: make(chan struct{})}
	forward := httputil.NewSingleHostReverseProxy(node)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if bytes.Contains(body, []byte(`"getblock"`)) {
			if most := c.most.Load(); most > 0 && c.blocks.Load() >= most {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			if c.blocks.Add(1) == c.holdAt.Load() {
				close(c.held)
				<-c.release
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	d.rpc.url = proxy.URL
	return c
}

// TestTimeOfTheBlock shows [LEDGER-16]: a node that stands still cannot make its
// best block young.
func TestTimeOfTheBlock(t *testing.T) {
	all := recorded(t, "channel-life.jsonl")
	r, d := newReplay(t, all)
	r.chain(all)
	tip, err := d.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.rawBlock(t.Context(), tip.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if want := b.header.Timestamp.Unix(); tip.Time != want || want < 1_700_000_000 {
		t.Errorf("got %d, want the header's %d", tip.Time, want)
	}
	if again, err := d.Tip(t.Context()); err != nil || again != tip {
		t.Errorf("asked again: got %+v, %v, want %+v", again, err, tip)
	}
}
