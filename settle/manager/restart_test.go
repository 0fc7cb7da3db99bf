package manager_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// counter stands before a node and counts how often each block was read.
type counter struct {
	mu    sync.Mutex
	reads map[string]int
	next  http.Handler
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var q struct {
		Method string
		Params []any
	}
	if err = errors.Join(err, json.Unmarshal(body, &q)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if q.Method == "getblock" {
		c.mu.Lock()
		c.reads[q.Params[0].(string)]++
		c.mu.Unlock()
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	c.next.ServeHTTP(w, r)
}

// sum returns how many blocks were read, and how often the one read most.
func (c *counter) sum() (blocks, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.reads {
		blocks, most = blocks+1, max(most, n)
	}
	return blocks, most
}

// overRPC serves a devnet behind a counter, and returns how to ask it.
func overRPC(t *testing.T, blocks int) (*devnet.Chain, *counter, pktd.Config) {
	t.Helper()
	chain, err := devnet.Open(t.TempDir(), devnet.Config{InitialBlocks: blocks})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cookie := filepath.Join(t.TempDir(), "rpc.cookie")
	auth, err := devnet.NewCookie(cookie)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- chain.Serve(ctx, l, auth) }()
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: l.Addr().String()})
	forward.ErrorLog = log.New(io.Discard, "", 0) // of questions that the driver gave up
	count := &counter{reads: map[string]int{}, next: forward}
	proxy := httptest.NewServer(count)
	t.Cleanup(func() {
		proxy.Close()
		cancel()
		if err := errors.Join(<-done, chain.Close()); err != nil {
			t.Error(err)
		}
	})
	return chain, count, pktd.Config{URL: proxy.URL, CookieFile: cookie, Magic: devnet.Magic, PollInterval: 10 * time.Millisecond}
}

// payerOn is a payer, made anew from its store at each start.
func payerOn(t *testing.T, store *settletest.Store, ledger settle.Ledger) *party {
	t.Helper()
	p := seat{
		network: network(t), ledger: ledger, store: store, secret: bytes.Repeat([]byte{3}, wallet.SeedBytes), machine: 3, fresh: true,
	}.party(t)
	p.start()
	return p
}

// count waits until the phases of the party's channels are as many as wanted.
func (p *party) count(t *testing.T, want map[settle.Phase]int) {
	t.Helper()
	var got map[settle.Phase]int
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = map[settle.Phase]int{}
		fresh := true
		for _, s := range p.m.List() {
			got[s.Phase]++
			fresh = fresh && (s.Phase == settle.Abandoned || s.Depth > 0)
		}
		if fresh && got[settle.Open] == want[settle.Open] && got[settle.Closing] == want[settle.Closing] && got[settle.Abandoned] == want[settle.Abandoned] {
			return
		}
	}
	t.Fatalf("got %v within two minutes, want %v", got, want)
}

// TestRestartReadsBlocksOnce: a restart with 50 channels, open, closing and
// abandoned, on a chain of 2000 blocks reads no block below the birthday, and
// none twice [LEDGER-15] [SETTLE-37].
func TestRestartReadsBlocksOnce(t *testing.T) {
	ctx := t.Context()
	const old = 1900
	chain, blocks, cfg := overRPC(t, old)
	store := settletest.NewStore()
	payer := payerOn(t, store, chain)
	payee := (&world{t: t, net: network(t), ledger: settletest.NewLedger(network(t)), clock: &clock{now: time.Now()}}).side("payee")
	payee.stop()
	payee.cfg.Ledger, payee.cfg.Now = chain, nil
	payee.start()

	script, err := payer.wallet.ReceiveScript(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := chain.Faucet(ctx, script, 2*capacity); err != nil {
			t.Fatal(err)
		}
	}
	var ids []pktcloud.ID
	for range 50 {
		detail, err := payee.m.PayeeDetail(ctx)
		if err != nil {
			t.Fatal(err)
		}
		params, funding, err := payer.m.Open(ctx, manager.OpenRequest{
			Payee: payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, MinDepth: 3, LifetimeBlocks: lifetime,
		})
		if err != nil {
			t.Fatal(err)
		}
		id, err := payee.m.Accept(ctx, params, funding)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids[:40] {
		if err := payer.m.Announce(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids[40:] {
		if err := payer.m.Abandon(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	mineTo(t, chain, 1998)
	payer.count(t, map[settle.Phase]int{settle.Open: 40, settle.Abandoned: 10})
	for _, id := range ids[20:40] {
		offer, err := payer.m.OfferClose(ctx, id, 40_000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := payee.m.CompleteClose(ctx, id, offer); err != nil {
			t.Fatal(err)
		}
	}
	mineTo(t, chain, 2000)
	want := map[settle.Phase]int{settle.Open: 20, settle.Closing: 20, settle.Abandoned: 10}
	payer.count(t, want)
	before, err := payer.wallet.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}

	payer.stop()
	driver, err := pktd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	payer = payerOn(t, store.Clone(), driver)
	payer.count(t, want)
	if err := payer.wallet.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := payer.wallet.Balance(ctx)
	if err != nil || after != before {
		t.Errorf("balance after the restart: got %+v, %v, want %+v", after, err, before)
	}
	birthday, _ := payer.wallet.Birthday()
	if birthday != settle.Birthday(old) {
		t.Errorf("birthday: got %d, want that of height %d", birthday, old)
	}
	read, most := blocks.sum()
	t.Logf("%d blocks read, the chain has 2000, the birthday is %d", read, birthday)
	if read > 2000-int(birthday)+1 || most != 1 {
		t.Errorf("got %d blocks read, one of them %d times, want each since %d at most once", read, most, birthday)
	}
}

func mineTo(t *testing.T, chain *devnet.Chain, height uint64) {
	t.Helper()
	tip, err := chain.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Mine(int(height-tip.Height), nil); err != nil {
		t.Fatal(err)
	}
}

// minder is a ledger that minds from where it was told to look for outputs.
type minder struct {
	*settletest.Ledger
	mu   sync.Mutex
	from map[settle.Outpoint]uint64
}

func (m *minder) Watch(list ...settle.Watch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range list {
		m.from[w.At] = w.From
	}
}

func (m *minder) Used(context.Context, []byte) (bool, error) { return false, nil }

// TestBirthdayOfAChannel shows [SETTLE-37]: a channel is looked for from about
// the block at which it was opened; one that was never funded does not make every
// restart look at all blocks since; a store from before that gives zero.
func TestBirthdayOfAChannel(t *testing.T) {
	w := newWorld(t)
	w.ledger.Mine(500)
	tip, err := w.ledger.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.payer.stop()
	ledger := &minder{Ledger: w.ledger, from: map[settle.Outpoint]uint64{}}
	w.payer.cfg.Ledger = ledger
	w.payer.start()
	want := func(what string, id pktcloud.ID, from uint64) {
		t.Helper()
		ch, err := pktchain.ChannelOf(network(t), w.payer.until(id, "status", func(manager.Status) bool { return true }).Params)
		if err != nil {
			t.Fatal(err)
		}
		ledger.mu.Lock()
		defer ledger.mu.Unlock()
		if got, ok := ledger.from[ch.Detail.Funding]; !ok || got != from {
			t.Errorf("%s: got %d, %t, want %d", what, got, ok, from)
		}
	}
	id, mined := w.open(nil), w.open(nil)
	if err := w.payer.m.Announce(t.Context(), mined); err != nil {
		t.Fatal(err)
	}
	want("opened", id, settle.Birthday(tip.Height))
	if err := w.payer.m.Abandon(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(200)
	w.payer.until(mined, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.payer.crash()
	want("200 blocks later", id, settle.Birthday(tip.Height))
	w.ledger.Mine(1000)
	w.payer.until(id, "height", func(s manager.Status) bool { return s.Height == tip.Height+1200 })
	w.payer.until(mined, "refund", func(s manager.Status) bool { return s.Phase == settle.Closing })
	w.payer.crash()
	want("abandoned long ago", id, settle.Birthday(tip.Height+1200))
	want("mined", mined, settle.Birthday(tip.Height))
	puts := []manager.Put{{Key: "settle/seen/" + id.Hex()}, {Key: "settle/seen/" + mined.Hex()}}
	if err := w.payer.store.Apply(t.Context(), puts); err != nil {
		t.Fatal(err)
	}
	w.payer.crash()
	want("in an old store", mined, 0)
}
