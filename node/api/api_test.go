package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
	"github.com/pkt-cash/pkt-cloud/node/web"
)

type fixture struct {
	twin   *servicetest.Twin
	guard  *api.Guard
	client *client.Client
	url    string // http://localhost:port
	host   string // 127.0.0.1:port
	token  string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	token, err := api.LoadToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{twin: servicetest.New(), host: l.Addr().String(), token: token}
	if f.guard, err = api.NewGuard(token, l.Addr()); err != nil {
		t.Fatal(err)
	}
	pages, err := web.New(f.twin, nil)
	if err != nil {
		t.Fatal(err)
	}
	forget, err := api.WriteAddress(dir, l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	server := &api.Server{API: api.New(f.twin, f.guard, "test"), Guard: f.guard, Pages: pages}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, server.Handler()) }()
	if f.client, err = client.Dial(dir); err != nil {
		t.Fatal(err)
	}
	f.url = f.guard.Origin()
	t.Cleanup(func() {
		f.client.Close()
		cancel()
		if err := errors.Join(<-done, forget()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) lease(t *testing.T) service.Lease {
	t.Helper()
	page, err := f.client.Offers(t.Context(), service.OfferQuery{Region: "DE"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.client.CreateLease(t.Context(), service.LeaseRequest{
		Offer: page.Offers[0].ID, Image: "127.0.0.1:5000/hello:1", Port: 8080, MaxRate: pktcloud.UnitsPerPKT,
		Resources: service.Resources{MilliCPU: 500, MemoryBytes: 128 << 20, DiskBytes: 1 << 30}, TermSeconds: 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestClientIsTheService: what the client answers over HTTP is what the
// service answers.
func TestClientIsTheService(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.twin.Now = func() time.Time { return now } // both answers are of one second
	ctx := t.Context()
	l := f.lease(t)
	same := func(name string, got any, err1 error, want any, err2 error) {
		t.Helper()
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, a, b)
		}
	}
	r := service.Resources{MilliCPU: 1000}
	for _, s := range []service.OfferQuery{
		{},
		{Resources: r, MaxRate: 1 << 40, Region: "FI", Limit: 5},
		{Network: market.Network{Egress: true}},
		{Network: market.Network{Ports: 10, BytesPerSecond: 1 << 40}},
		{Network: market.Network{Ports: 1 << 20}},
		{Volumes: true},
	} {
		got, err1 := f.client.Offers(ctx, s)
		want, err2 := f.twin.Offers(ctx, s)
		same("offers", got, err1, want, err2)
	}
	o1, err1 := f.client.Offer(ctx, l.Offer, r)
	o2, err2 := f.twin.Offer(ctx, l.Offer, r)
	same("offer", o1, err1, o2, err2)
	l1, err1 := f.client.Lease(ctx, l.Label)
	l2, err2 := f.twin.Lease(ctx, l.Label)
	same("lease", l1, err1, l2, err2)
	sv1, err1 := f.client.LeaseServices(ctx, l.Label)
	sv2, err2 := f.twin.LeaseServices(ctx, l.Label)
	same("services", sv1, err1, sv2, err2)
	for _, name := range []string{l.Label, l.Label + "/migrate"} {
		m1, err1 := f.client.LeaseMetrics(ctx, name)
		m2, err2 := f.twin.LeaseMetrics(ctx, name)
		same("metrics of "+name, m1, err1, m2, err2)
	}
	vl1, err1 := f.client.LeaseVolumes(ctx, l.Label)
	vl2, err2 := f.twin.LeaseVolumes(ctx, l.Label)
	same("volumes", vl1, err1, vl2, err2)
	for _, name := range []string{l.Label, l.Label + "/web"} {
		var log, where bytes.Buffer
		if err := f.client.Logs(ctx, name, service.LogRequest{}, &log); err != nil || strings.Contains(log.String(), " of web\n") != strings.Contains(name, "/") {
			t.Errorf("logs of %s: got %q, %v", name, log.String(), err)
		}
		if _, err := f.client.Exec(ctx, name, service.ExecRequest{Args: []string{"where"}}, service.Streams{Stdout: &where}); err != nil || where.String() != name+"\n" {
			t.Errorf("exec in %s: got %q, %v", name, where.String(), err)
		}
	}
	ls1, err1 := f.client.Leases(ctx)
	ls2, err2 := f.twin.Leases(ctx)
	same("leases", ls1, err1, ls2, err2)
	b1, err1 := f.client.WalletBalance(ctx)
	b2, err2 := f.twin.WalletBalance(ctx)
	same("balance", b1, err1, b2, err2)
	a1, err1 := f.client.WalletAddress(ctx, service.AddressRequest{})
	a2, err2 := f.twin.WalletAddress(ctx, service.AddressRequest{})
	same("address", a1, err1, a2, err2)
	for _, q := range []service.HistoryQuery{{}, {Skip: 1, Limit: 1}, {TxID: strings.Repeat("cd", 32)}} {
		h1, err1 := f.client.WalletHistory(ctx, q)
		h2, err2 := f.twin.WalletHistory(ctx, q)
		same("history", h1, err1, h2, err2)
	}
	payment := service.PaymentRequest{Address: a2.Address, Amount: 1 << 20, MaxFee: 1000, Label: "x", Once: "w", Coins: []string{"ab:0"}}
	y1, err1 := f.client.WalletPlan(ctx, payment)
	y2, err2 := f.twin.WalletPlan(ctx, payment)
	same("plan", y1, err1, y2, err2)
	z1, err1 := f.client.WalletSend(ctx, payment)
	z2, err2 := f.twin.WalletSend(ctx, payment) // the same word: the same payment
	same("payment", z1, err1, z2, err2)
	for _, q := range []service.CoinQuery{{}, {Skip: 1}} {
		k1, err1 := f.client.WalletCoins(ctx, q)
		k2, err2 := f.twin.WalletCoins(ctx, q)
		same("coins", k1, err1, k2, err2)
	}
	n1, err1 := f.client.WalletAccounts(ctx)
	n2, err2 := f.twin.WalletAccounts(ctx)
	same("accounts", n1, err1, n2, err2)
	w1, err1 := f.client.WalletSweep(ctx, service.SweepRequest{Key: "k", Plan: true})
	w2, err2 := f.twin.WalletSweep(ctx, service.SweepRequest{Key: "k", Plan: true})
	same("sweep", w1, err1, w2, err2)
	v1, err1 := f.client.Channels(ctx)
	v2, err2 := f.twin.Channels(ctx)
	same("channels", v1, err1, v2, err2)
	u1, err1 := f.client.Channel(ctx, v2[0].Label)
	u2, err2 := f.twin.Channel(ctx, v2[0].Label)
	same("channel", u1, err1, u2, err2)
	for _, r := range []service.RollRequest{{Add: 1_000, ExtendSeconds: 90, MaxFee: 5_000}, {Add: 1_000, Plan: true}} {
		r1, err1 := f.client.RollChannel(ctx, v2[0].Label, r)
		r2, err2 := f.twin.RollChannel(ctx, v2[0].Label, r)
		same("roll", r1, err1, r2, err2)
	}
	amend := service.AmendRequest{Resources: service.Resources{MilliCPU: 700}, Plan: true}
	am1, err1 := f.client.AmendLease(ctx, l.Label, amend)
	am2, err2 := f.twin.AmendLease(ctx, l.Label, amend)
	same("plan of an amendment", am1, err1, am2, err2)
	amend.Plan, amend.MaxRate = false, am2.After.Rate
	if a, err := f.client.AmendLease(ctx, l.Label, amend); err != nil || a.After != am2.After || a.Revision != 1 {
		t.Errorf("amend: %v %+v, want %+v", err, a, am2)
	}
	if s, err := f.client.WalletLock(ctx); err != nil || !s.Locked {
		t.Errorf("lock: %v %+v", err, s)
	}
	if s, err := f.client.WalletUnlock(ctx, service.UnlockRequest{Password: servicetest.Password}); err != nil || s.Locked {
		t.Errorf("unlock: %v %+v", err, s)
	}
	i1, err1 := f.client.Info(ctx)
	i2, err2 := f.twin.Info(ctx)
	same("info", i1, err1, i2, err2)
	d1, err1 := f.client.Doctor(ctx)
	d2, err2 := f.twin.Doctor(ctx)
	same("doctor", d1, err1, d2, err2)
	p1, err := f.client.PublishOffer(ctx, service.OfferSpec{Slot: 3, Region: "SE", CPUPerCoreHour: 7})
	if err != nil || !p1.Own || p1.Body.Region != "SE" {
		t.Errorf("publish: %v %+v", err, p1)
	}
	im, err := f.client.PullImage(ctx, "example/x:1")
	if err != nil || im.Ref != "example/x:1" {
		t.Errorf("pull: %v %+v", err, im)
	}
	m1, err1 := f.client.Images(ctx)
	m2, err2 := f.twin.Images(ctx)
	same("images", m1, err1, m2, err2)
	r1, err1 := f.client.PruneImages(ctx, time.Hour)
	r2, err2 := f.twin.PruneImages(ctx, time.Hour)
	same("prune", r1, err1, r2, err2)
	c, err := f.client.CloseLease(ctx, l.Label)
	if err != nil || c.Phase != "closed" {
		t.Errorf("close: %v %+v", err, c)
	}
}

// TestRefusals: a refusal keeps its code and its sentence on the way.
func TestRefusals(t *testing.T) {
	f := newFixture(t)
	l := f.lease(t)
	for _, c := range []struct {
		name string
		call func() error
		want service.Code
	}{
		{"unknown lease", func() error { _, err := f.client.Lease(t.Context(), "none"); return err }, service.CodeNotFound},
		{"above the limit", func() error {
			_, err := f.client.CreateLease(t.Context(), service.LeaseRequest{Offer: l.Offer, Image: "x", MaxRate: 1, Resources: l.Resources})
			return err
		}, service.CodeMoney},
		{"unknown image", func() error {
			_, err := f.client.CreateLease(t.Context(), service.LeaseRequest{Offer: l.Offer, Image: "no-such", MaxRate: 1 << 40, Resources: l.Resources})
			return err
		}, service.CodeRefused},
		{"malformed query", func() error { _, err := f.client.Offers(t.Context(), service.OfferQuery{Limit: -1}); return err }, service.CodeInvalid},
		{"logs of none", func() error { return f.client.Logs(t.Context(), "none", service.LogRequest{}, io.Discard) }, service.CodeNotFound},
		{"exec in none", func() error {
			_, err := f.client.Exec(t.Context(), "none", service.ExecRequest{Args: []string{"true"}}, service.Streams{})
			return err
		}, service.CodeNotFound},
		{"exec of nothing", func() error {
			_, err := f.client.Exec(t.Context(), l.Label, service.ExecRequest{}, service.Streams{})
			return err
		}, service.CodeInvalid},
		{"forward to none", func() error { _, err := f.client.Forward(t.Context(), "none", 80); return err }, service.CodeNotFound},
		{"forward to port 0", func() error { _, err := f.client.Forward(t.Context(), l.Label, 0); return err }, service.CodeInvalid},
		{"wrong token", func() error {
			_, err := client.New(f.host, strings.Repeat("0", 64)).Info(t.Context())
			return err
		}, service.CodeUnauthorized},
		{"pay nobody", func() error { _, err := f.client.WalletSend(t.Context(), service.PaymentRequest{}); return err }, service.CodeInvalid},
		{"a wrong password", func() error {
			_, err := f.client.WalletUnlock(t.Context(), service.UnlockRequest{Password: "x"})
			return err
		}, service.CodeForbidden},
		{"freeze nothing", func() error {
			_, err := f.client.WalletFreeze(t.Context(), service.FreezeRequest{Coin: "x"})
			return err
		}, service.CodeConflict},
		{"no channel", func() error { _, err := f.client.Channel(t.Context(), "none"); return err }, service.CodeNotFound},
		{"no node", func() error { _, err := client.Dial(t.TempDir()); return err }, service.CodeNoNode},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.call()
			if !errors.Is(err, c.want) || err.Error() == "" {
				t.Errorf("got %v (%s), want %s", err, service.CodeOf(err), c.want)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	f := newFixture(t)
	l := f.lease(t)
	t.Run("exec", func(t *testing.T) {
		input := strings.Repeat("0123456789abcdef", 20_000)
		var out bytes.Buffer
		code, err := f.client.Exec(t.Context(), l.Label, service.ExecRequest{Args: []string{"cat"}}, service.Streams{Stdin: strings.NewReader(input), Stdout: &out})
		if err != nil || code != 0 || out.String() != input {
			t.Errorf("got %d, %v and %d bytes, want the %d bytes of the input", code, err, out.Len(), len(input))
		}
	})
	t.Run("exit code", func(t *testing.T) {
		var out, errOut bytes.Buffer
		code, err := f.client.Exec(t.Context(), l.Label, service.ExecRequest{Args: []string{"false"}},
			service.Streams{Stdin: strings.NewReader(strings.Repeat("x", 1<<20)), Stdout: &out, Stderr: &errOut})
		if err != nil || code != 3 || out.Len() != 0 || errOut.String() != "failed as asked\n" {
			t.Errorf("got %d, %v, %q, %q", code, err, out.String(), errOut.String())
		}
	})
	t.Run("logs", func(t *testing.T) {
		var out bytes.Buffer
		if err := f.client.Logs(t.Context(), l.Label, service.LogRequest{}, &out); err != nil || strings.Count(out.String(), "\n") != 3 {
			t.Errorf("got %v and %q, want three lines", err, out.String())
		}
	})
	t.Run("logs followed", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lines := writerFunc(func(b []byte) (int, error) {
			if strings.Contains(string(b), "line 3") {
				cancel()
			}
			return len(b), nil
		})
		if err := f.client.Logs(ctx, l.Label, service.LogRequest{Follow: true}, lines); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's end", err)
		}
	})
	t.Run("forward", func(t *testing.T) {
		hc := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return f.client.Forward(ctx, l.Label, 8080)
		}}}
		r, err := hc.Get("http://lease/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != f.twin.Page {
			t.Errorf("got %v %q", err, b)
		}
	})
	t.Run("events", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() {
			for ctx.Err() == nil { // until somebody listens
				if err := f.twin.Update(l.Label, func(l *service.Lease) { l.Phase = "suspended" }); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		})
		seen := errors.New("seen")
		err := f.client.Events(ctx, func(e service.Event) error {
			if e.Kind != "lease" || e.Lease != l.Label || e.Text != "suspended" {
				t.Errorf("got %+v", e)
			}
			return seen
		})
		if !errors.Is(err, seen) {
			t.Errorf("got %v, want the callback's own error", err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (f *fixture) do(t *testing.T, method, path string, change func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+f.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = strings.TrimPrefix(f.url, "http://")
	change(r)
	hc := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := hc.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

func (f *fixture) login(t *testing.T) func(*http.Request) {
	t.Helper()
	link, err := f.client.LoginLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	hc := http.Client{Jar: jar, Transport: &http.Transport{DialContext: func(ctx context.Context, n, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, n, f.host)
	}}}
	r, err := hc.Get(link.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 || r.Request.URL.Path != "/market" {
		t.Fatalf("after the login got %s at %s", r.Status, r.Request.URL)
	}
	again, err := hc.Get(link.URL)
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
	if again.StatusCode != 401 {
		t.Errorf("a login link worked twice: %s", again.Status)
	}
	var raw *http.Cookie
	f.do(t, "GET", "/market", func(q *http.Request) {
		for _, c := range jar.Cookies(r.Request.URL) {
			raw = c
		}
	})
	if raw == nil {
		t.Fatal("no cookie was set")
	}
	return func(q *http.Request) { q.AddCookie(raw) }
}

// TestProxy: leases are opened by name, and other sites are kept out [API-7].
func TestProxy(t *testing.T) {
	f := newFixture(t)
	l := f.lease(t)
	p := api.NewProxy(f.twin, slog.New(slog.DiscardHandler))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, ln, p) }()
	t.Cleanup(func() { cancel(); <-done })
	for _, c := range []struct {
		name, host, method string
		header             map[string]string
		want               int
	}{
		{"the lease", "web." + l.Label + ".localhost", "GET", nil, 200},
		{"a short name", "web." + l.Label[:6] + ".localhost:1", "GET", nil, 200},
		{"another lease", "web.ffffffff.localhost", "GET", nil, 404},
		{"no lease", "localhost", "GET", nil, 404},
		{"another site's name", "web." + l.Label + ".evil.example", "GET", nil, 404},
		{"link from another site", "web." + l.Label + ".localhost", "GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200},
		{"form from another site", "web." + l.Label + ".localhost", "POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403},
		{"fetch from another site", "web." + l.Label + ".localhost", "GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403},
		{"old browser, another site", "web." + l.Label + ".localhost", "POST", map[string]string{"Origin": "http://evil.example"}, 403},
		{"own page", "web." + l.Label + ".localhost", "POST", map[string]string{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequest(c.method, "http://"+ln.Addr().String()+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != c.want {
				t.Errorf("got %d, want %d", answer.StatusCode, c.want)
			}
		})
	}
}

// TestRequestSize: a body is bounded [API-2].
func TestRequestSize(t *testing.T) {
	f := newFixture(t)
	body := func(n int) io.Reader {
		return strings.NewReader(`{"ref":"x` + strings.Repeat(" ", n) + `"}`)
	}
	for size, want := range map[int]int{100: 200, api.MaxRequestBytes: 413} {
		r, err := http.NewRequest("POST", "http://"+f.host+api.Base+"/images", body(size))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+f.token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("a body of %d bytes: got %d, want %d", size, answer.StatusCode, want)
		}
	}
}

// TestAmountsAreStrings: JSON numbers would lose digits in other languages
// [API-10].
func TestAmountsAreStrings(t *testing.T) {
	f := newFixture(t)
	f.lease(t)
	for path, want := range map[string]string{
		"/wallet": `"spendable":"12345678901"`, "/offers": `"rate":"27000000"`, "/leases": `"paid":"300000"`,
	} {
		status, body := f.do(t, "GET", api.Base+path, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+f.token) })
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s, want %s in it", path, status, body, want)
		}
	}
}

// TestOpenAPI: the description names every operation and version 3.1.
func TestOpenAPI(t *testing.T) {
	f := newFixture(t)
	status, body := f.do(t, "GET", "/api/openapi.json", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+f.token) })
	if status != 200 {
		t.Fatalf("got %d: %s", status, body)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("got version %q", doc.OpenAPI)
	}
	for _, p := range []string{
		"/info", "/doctor", "/offers", "/offers/{id}", "/images", "/leases", "/leases/{lease}", "/leases/{lease}/close", "/leases/{lease}/logs",
		"/leases/{lease}/exec", "/leases/{lease}/forward", "/wallet", "/wallet/addresses", "/wallet/history", "/events", "/login-links",
	} {
		if len(doc.Paths[api.Base+p]) == 0 {
			t.Errorf("%s is missing", p)
		}
	}
}

// waiting is a node that notes how long it is asked to wait.
type waiting struct {
	*servicetest.Twin
	most time.Duration
}

func (w *waiting) AwaitLease(ctx context.Context, name string, most time.Duration) (service.Lease, error) {
	w.most = most
	return w.Twin.AwaitLease(ctx, name, most)
}

// TestWaitForLease: the wait of a request is the service's, and bounded
// [API-12].
func TestWaitForLease(t *testing.T) {
	f := newFixture(t)
	l := f.lease(t)
	w := &waiting{Twin: f.twin}
	handler := api.New(w, f.guard, "test")
	for query, want := range map[string]struct {
		status int
		most   time.Duration
	}{
		"":          {200, 0},
		"?wait=0":   {200, 0},
		"?wait=30":  {200, 30 * time.Second},
		"?wait=60":  {200, service.MaxWait},
		"?wait=61":  {422, 0},
		"?wait=-1":  {422, 0},
		"?wait=1e9": {422, 0},
	} {
		w.most = 0
		r := httptest.NewRequest(http.MethodGet, "/api/v1/leases/"+l.Label+query, nil)
		r.Host = f.host
		r.Header.Set("Authorization", "Bearer "+f.token)
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		if rec.Code != want.status || w.most != want.most {
			t.Errorf("%q: got %d and a wait of %s, want %d and %s", query, rec.Code, w.most, want.status, want.most)
		}
	}
}
