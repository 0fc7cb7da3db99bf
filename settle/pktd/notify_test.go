package pktd

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
)

// teller stands before a node and tells of its blocks as a pktd does.
type teller struct {
	t        *testing.T
	auth     string
	greeting []byte // sent instead of the answer, if any

	mu    sync.Mutex
	conns []*websocket.Conn
}

func (s *teller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != s.auth {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	var q struct{ Method string }
	if err := conn.ReadJSON(&q); err != nil {
		_ = conn.Close()
		return // the driver has gone
	}
	if q.Method != "notifyblocks" {
		s.t.Errorf("got %q, want notifyblocks", q.Method)
	}
	answer := []byte(`{"result":null,"error":null,"id":1}`)
	if s.greeting != nil {
		answer = s.greeting
	}
	if err := conn.WriteMessage(websocket.TextMessage, answer); err != nil {
		return // the driver has gone
	}
	s.mu.Lock()
	s.conns = append(s.conns, conn)
	s.mu.Unlock()
}

// tell sends a notice over the connection opened last.
func (s *teller) tell(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conns[len(s.conns)-1].WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		s.t.Error(err)
	}
}

func (s *teller) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

const notice = `{"jsonrpc":"1.0","method":"blockconnected","params":["0f414f623e6d5dfc4190e6b3288ebea8ea1f1856e0c13836f4dae1cd67e28a34",227,1700000000],"id":null}`

// telling is a driver of a chain whose node tells of blocks, over TLS, and which
// is never asked otherwise.
func telling(t *testing.T, s *teller) (chain *devnet.Chain, d *Driver) {
	t.Helper()
	chain, plain := serve(t, Config{})
	node, err := url.Parse(plain.rpc.url)
	if err != nil {
		t.Fatal(err)
	}
	user, password, err := plain.rpc.login()
	if err != nil {
		t.Fatal(err)
	}
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	s.t, s.auth = t, req.Header.Get("Authorization")
	mux := http.NewServeMux()
	mux.Handle("/", httputil.NewSingleHostReverseProxy(node))
	mux.Handle("/ws", s)
	front := httptest.NewTLSServer(mux)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	cert := filepath.Join(t.TempDir(), "rpc.cert")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	if err := os.WriteFile(cert, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := plain.cfg
	cfg.URL, cfg.CertFile, cfg.PollInterval = front.URL, cert, time.Hour
	if d, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return chain, d
}

// running runs a driver until the test ends.
func running(t *testing.T, d *Driver) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not come to that", what)
		}
	}
}

// TestNotices shows [LEDGER-49]: a block is seen when the node tells of it, over
// TLS; a connection that broke is opened again, and what was missed meanwhile is
// seen then.
func TestNotices(t *testing.T) {
	s := &teller{}
	chain, d := telling(t, s)
	running(t, d)
	until(t, "subscribed", d.bell.live.Load)
	until(t, "connected", func() bool { return s.connections() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tip, err := d.Tip(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(last settle.Tip) (came chan settle.Tip) {
		came = make(chan settle.Tip, 1)
		began := time.Now()
		defer until(t, "waiting", func() bool { return d.AskedSince(began) })
		go func() {
			tip, err := d.WaitTip(ctx, last)
			if err != nil {
				t.Error(err)
			}
			came <- tip
		}()
		return came
	}
	came := wait(tip)
	if _, err := chain.Mine(1, nil); err != nil {
		t.Fatal(err)
	}
	s.tell(notice)
	next := <-came
	if next.Height != tip.Height+1 {
		t.Errorf("got %+v after a notice, want the block after %d", next, tip.Height)
	}

	came = wait(next)
	if _, err := chain.Mine(3, nil); err != nil { // nobody tells of them
		t.Fatal(err)
	}
	s.mu.Lock()
	err = s.conns[0].Close()
	s.mu.Unlock()
	if err != nil {
		t.Error(err)
	}
	if got := <-came; got.Height != next.Height+3 {
		t.Errorf("got %+v after the connection broke, want the block after those missed, %d", got, next.Height+3)
	}
	until(t, "connected again", func() bool { return s.connections() == 2 })
}

// TestNoNotices: a node that tells nothing, in whatever way, is asked as before.
func TestNoNotices(t *testing.T) {
	for name, greeting := range map[string]string{
		"no JSON":    "<html>",
		"an error":   `{"result":null,"error":{"code":-32601,"message":"no such method"},"id":1}`,
		"too long":   strings.Repeat(" ", MaxNoticeBytes) + `{"result":null}`,
		"never more": notice,
	} {
		t.Run(name, func(t *testing.T) {
			chain, d := telling(t, &teller{greeting: []byte(greeting)})
			d.cfg.PollInterval = 10 * time.Millisecond
			if subscribed, err := d.listenBriefly(t.Context()); subscribed || err == nil {
				t.Fatalf("got subscribed %t, %v, want an error", subscribed, err)
			}
			running(t, d)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			tip, err := d.Tip(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := chain.Mine(1, nil); err != nil {
				t.Fatal(err)
			}
			if next, err := d.WaitTip(ctx, tip); err != nil || next.Height != tip.Height+1 {
				t.Errorf("got %+v, %v, want the next block", next, err)
			}
		})
	}
	_, d := serve(t, Config{}) // the devnet has no websocket
	if _, err := d.listen(t.Context()); err == nil {
		t.Error("a node without a websocket: got no error")
	}
}

func (d *Driver) listenBriefly(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return d.listen(ctx)
}

// TestNodeComesBack: a node that was away, and comes back with another cookie and
// more blocks, is asked again as if nothing had been [LEDGER-11].
func TestNodeComesBack(t *testing.T) {
	chain, d := serve(t, Config{})
	script := append([]byte{0, 20}, make([]byte, 20)...)
	if _, err := chain.Faucet(t.Context(), script, 5000); err != nil {
		t.Fatal(err)
	}
	wantCoin(t, d, script, 1)
	node, err := url.Parse(d.rpc.url)
	if err != nil {
		t.Fatal(err)
	}
	cookie, err := os.ReadFile(d.rpc.cookie)
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := strings.Cut(strings.TrimSpace(string(cookie)), ":")
	var mu sync.Mutex
	away, wanted := true, "first"
	forward := httputil.NewSingleHostReverseProxy(node)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if _, got, _ := r.BasicAuth(); got != wanted {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.SetBasicAuth(user, password)
		forward.ServeHTTP(w, r)
	}))
	defer front.Close()
	d.rpc.url, d.rpc.cookie = front.URL, filepath.Join(t.TempDir(), "cookie")
	draw := func(password string) {
		if err := os.WriteFile(d.rpc.cookie, []byte("u:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	draw("first")
	for range 3 {
		if _, err := d.Coins(t.Context(), script); !errors.Is(err, settle.ErrLedgerUnavailable) {
			t.Fatalf("a node that is away: got %v, want unavailable", err)
		}
	}
	if _, err := chain.Mine(5, nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	away = false
	mu.Unlock()
	wantCoin(t, d, script, 6)
	mu.Lock()
	wanted = "second"
	mu.Unlock()
	if _, err := d.Tip(t.Context()); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("an old cookie: got %v, want unavailable", err)
	}
	draw("second")
	wantCoin(t, d, script, 6)
}

// TestCertificates: another certificate than the configured one is refused, and a
// file that holds none.
func TestCertificates(t *testing.T) {
	_, d := telling(t, &teller{})
	if _, err := d.Tip(t.Context()); err != nil {
		t.Errorf("the configured certificate: got %v", err)
	}
	cfg := d.cfg
	cfg.CertFile = ""
	other, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Tip(t.Context()); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("a certificate of nobody's: got %v, want unavailable", err)
	}
	if _, err := other.listen(t.Context()); err == nil {
		t.Error("a certificate of nobody's, over the websocket: got no error")
	}
	cfg.CertFile = filepath.Join(t.TempDir(), "none")
	for _, text := range []string{"", "no certificate"} {
		if text != "" {
			if err := os.WriteFile(cfg.CertFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("a file with %q: accepted", text)
		}
	}
}
