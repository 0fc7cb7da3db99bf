package web_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
	"github.com/pkt-cash/pkt-cloud/node/web"
)

func newWeb(t *testing.T) (*servicetest.Twin, *httptest.Server) {
	t.Helper()
	twin := servicetest.New()
	w, err := web.New(twin, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	return twin, s
}

func get(t *testing.T, address string) (int, string, http.Header) {
	t.Helper()
	r, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

func offerID(t *testing.T, twin *servicetest.Twin) string {
	t.Helper()
	p, err := twin.Offers(t.Context(), service.OfferQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Offers[0].ID.String()
}

var deployment = url.Values{
	"image": {"127.0.0.1:5000/hello:1"}, "port": {"8080"}, "cores": {"0.5"}, "memory": {"128"}, "disk": {"1"},
	"max": {"1"}, "term": {"1"}, "interval": {"1"}, "credit": {"2"}, "prepaid": {"1"},
}

func deploy(t *testing.T, s *httptest.Server, offer string, change func(url.Values)) (int, string) {
	t.Helper()
	v := url.Values{"offer": {offer}}
	for k := range deployment {
		v.Set(k, deployment.Get(k))
	}
	change(v)
	r, err := http.PostForm(s.URL+"/deploy", v)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestPages(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	if status, body := deploy(t, s, id, func(url.Values) {}); status != http.StatusOK || !strings.Contains(body, "Close this lease") {
		t.Fatalf("after deploying got %d\n%s", status, body)
	}
	leases, err := twin.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	label := leases[0].Label
	for _, c := range []struct {
		path   string
		status int
		want   []string
	}{
		{"/", 200, []string{"<h1>Market</h1>"}},
		{"/market", 200, []string{"DE-BE", "0.0251457 PKT", "/deploy?offer=" + id}},
		{"/market?region=fi", 200, []string{"FI"}},
		{"/market?class=gvisor", 200, []string{"FI", "a kernel of its own", "class=gvisor", "Prices for 1 core, 1 GiB of memory and 10 GiB of disk, as an example"}},
		{"/market?cores=2", 200, []string{"Prices for 2 cores. Cheapest first.", "0.0372529 PKT"}},
		{"/market?class=vault", 200, []string{"No offer matches"}},
		{"/market?cores=2000", 422, []string{"The number of cores is a number from 0 to 1024.", `value="2000"`}},
		{"/market?price=cheap", 422, []string{"is no amount", `value="cheap"`}},
		{"/market?cores=100", 200, []string{"No offer matches.", "2 offers, none has more than 4 cores free; ask for less."}},
		{"/market?region=fi&volumes=1", 200, []string{"2 offers, of those that have all the rest none says that it is in FI or none has volumes; take any region or do without volumes."}},
		{"/deploy?offer=" + id, 200, []string{"Pay at most", "per hour"}},
		{"/deploy?offer=nonsense", 404, []string{"Choose an offer on the market first."}},
		{"/deploy/price?offer=" + id + "&cores=1&memory=512&max=1&term=24&interval=10", 200, []string{"Each payment", `id="price"`}},
		{"/deploy/price?offer=" + id + "&cores=1&max=0.000001&term=1&interval=10", 200, []string{"More than you pay at most."}},
		{"/deploy/price?offer=" + id + "&cores=x", 200, []string{"The number of cores is a number"}},
		{"/leases", 200, []string{label}},
		{"/leases/" + label, 200, []string{"At risk now", `<h2 id="services">Services</h2>`, "137 (memory)", "migrate</code>", "<code>203.0.113.9:20017</code>", `id="paid-until">1:39<`, "Served, not yet paid", "http://web." + label + ".localhost", "30 000 000 units"}},
		{"/leases/" + label + "?span=life", 200, []string{`<path class="line line-0"`, "Processor of service web", `?span=life#metrics" aria-current="true"`, "/live?span=life"}},
		{"/leases/none", 404, []string{"No lease &#34;none&#34;."}},
		{"/wallet", 200, []string{`id="balance"><data class="pkt" value="12415678901"`, "11.56300204 PKT", "Show an address", "waits for a block"}},
		{"/wallet/send", 200, []string{"can be spent now", `value="normal" checked`}},
		{"/wallet/send?coin=ab:1&amount=3&speed=urgent", 200, []string{"Only the coin that you chose is spent", `name="coin" value="ab:1"`, `value="urgent" checked`, `value="3"`}},
		{"/wallet/send?coin=ab:1&coin=ab:2", 200, []string{"Only the 2 coins that you chose are spent"}},
		{"/wallet/keys", 200, []string{"Account 0", "wallet import format", "Present password"}},
		{"/wallet/coins", 200, []string{"11.497809459 PKT", "Freeze"}},
		{"/wallet/tx/" + strings.Repeat("cd", 32), 200, []string{"block 4700", `value="=1&#43;1 &amp; &lt;b&gt;&#34;x&#34;&lt;/b&gt;"`, "12 confirmations"}},
		{"/wallet/tx/none", 404, []string{"This wallet has no transaction none."}},
		{"/channels", 200, []string{"Set aside", "payer", "/ip4/203.0.113.9/tcp/4001/p2p/", "up to date", "For others this node keeps 3 deposits (3.9 KiB)"}},
		{"/channels/none", 404, []string{"No channel"}},
		{"/nothing", 404, []string{"There is no page /nothing."}},
	} {
		t.Run(c.path, func(t *testing.T) {
			status, body, header := get(t, s.URL+c.path)
			if status != c.status {
				t.Errorf("got status %d, want %d", status, c.status)
			}
			for _, w := range c.want {
				if !strings.Contains(body, w) {
					t.Errorf("%q is missing from\n%s", w, body)
				}
			}
			if p := header.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") {
				t.Errorf("content security policy %q", p)
			}
			if m := inline.FindString(body); m != "" {
				t.Errorf("inline script or style: %s", m)
			}
		})
	}
}

var inline = regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=|https?://[^w"]`)

// TestOwnChannel: a lease shares a channel unless its owner says otherwise.
func TestOwnChannel(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	for _, own := range []string{"", "1"} {
		if status, body := deploy(t, s, id, func(v url.Values) { v.Set("own", own) }); status != http.StatusOK {
			t.Fatalf("got %d\n%s", status, body)
		}
	}
	if r := twin.Requests(); len(r) != 2 || r[0].OwnChannel || !r[1].OwnChannel {
		t.Errorf("got %+v, want a channel of its own for the second alone", r)
	}
}

// TestErrorsKeepInput: whatever was typed is there again beside the reason.
func TestErrorsKeepInput(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	for _, c := range []struct {
		name, field, value string
		status             int
		want               string
	}{
		{"a port that is none", "port", "http", 422, "The port is a number from 0 to 65535."},
		{"no price limit", "max", "0", 422, "Say how much you will pay at most."},
		{"a limit below the price", "max", "0.000001", 402, "your limit is"},
		{"an unknown image", "image", "127.0.0.1:5000/no-such:1", 502, "there is no such image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := deploy(t, s, id, func(v url.Values) { v.Set(c.field, c.value); v.Set("command", `sh "x" <b>`) })
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("got %d, want %d and %q in\n%s", status, c.status, c.want, body)
			}
			for _, kept := range []string{`value="` + c.value + `"`, `value="sh &#34;x&#34; &lt;b&gt;"`, `value="128"`} {
				if !strings.Contains(body, kept) {
					t.Errorf("%s was lost", kept)
				}
			}
		})
	}
}

// TestPriceAsShown: who leaves the limit empty agrees to the price that the page
// showed, and to none that it did not show.
func TestPriceAsShown(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	for name, send := range map[string]func(shown string) (int, string){
		"one service": func(shown string) (int, string) {
			return deploy(t, s, id, func(v url.Values) { v.Set("max", ""); v.Set("shown", shown) })
		},
		"several services": func(shown string) (int, string) {
			return postFile(t, s, "/deploy", id, shopFile, "max", "", "shown", shown)
		},
	} {
		before := len(twin.Requests())
		for _, shown := range []string{"", "1"} {
			status, body := send(shown)
			if status != http.StatusUnprocessableEntity || !strings.Contains(body, "Nothing is agreed yet") || !limitTyped.MatchString(body) {
				t.Errorf("%s, shown %q: got %d, want the price and a limit to agree to\n%s", name, shown, status, body)
			}
		}
		_, body := send("")
		shown := shownPrice.FindStringSubmatch(body)
		if len(shown) != 2 || len(twin.Requests()) != before {
			t.Fatalf("%s: got %d leases and the price %q in\n%s", name, len(twin.Requests())-before, shown, body)
		}
		if status, body := send(shown[1]); status != http.StatusOK {
			t.Errorf("%s: got %d\n%s", name, status, body)
		}
		r := twin.Requests()
		if len(r) != before+1 || strconv.FormatUint(uint64(r[before].MaxRate), 10) != shown[1] {
			t.Errorf("%s: got %+v, want the limit %s", name, r, shown[1])
		}
	}
}

var (
	shownPrice = regexp.MustCompile(`name="shown" value="([0-9]+)" form="deploy"`)
	limitTyped = regexp.MustCompile(`name="max"[^>]*value="0[.][0-9]+"`)
)

// TestLive: a change of the lease reaches the page without a reload.
func TestLive(t *testing.T) {
	twin, s := newWeb(t)
	deploy(t, s, offerID(t, twin), func(url.Values) {})
	leases, err := twin.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Get(s.URL + "/leases/" + leases[0].Label + "/live")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	changed, log := false, false
	for lines.Scan() && (!changed || !log) {
		text := lines.Text()
		if strings.HasPrefix(text, "event: state") && !changed {
			if err := twin.Update(leases[0].Label, func(l *service.Lease) { l.Phase = "suspended"; l.Problem = "Not <paid>." }); err != nil {
				t.Fatal(err)
			}
		}
		changed = changed || strings.Contains(text, "Not &lt;paid&gt;.")
		log = log || strings.Contains(text, "line 1 &lt;of the log&gt;")
	}
	if !changed || !log {
		t.Errorf("the stream ended: state changed %v, log seen %v", changed, log)
	}
}

// TestFaultIsShown: why a workload did not run, in words that steer nothing.
func TestFaultIsShown(t *testing.T) {
	twin, s := newWeb(t)
	deploy(t, s, offerID(t, twin), func(url.Values) {})
	leases, err := twin.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	label := leases[0].Label
	if err := twin.Update(label, func(l *service.Lease) {
		l.Phase, l.CloseReason, l.Problem = "closed", "workload", `The program could not be started. The provider says: "<b>no</b>".`
		l.Fault, l.Channel.Reserve = &service.Fault{Code: "program", Text: "<b>no</b>"}, 10_000
	}); err != nil {
		t.Fatal(err)
	}
	_, body, _ := get(t, s.URL+"/leases/"+label)
	for _, want := range []string{"reason: workload (program)", "&lt;b&gt;no&lt;/b&gt;", `id="reserve"`, "to the provider when it has to close alone"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing from\n%s", want, body)
		}
	}
}

// TestLoginInPart: a part of a page that lost its session loads the page
// again, which then shows the login.
func TestLoginInPart(t *testing.T) {
	w, err := web.New(servicetest.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]string{"": "", "true": "true"} {
		r := httptest.NewRequest(http.MethodGet, "/market", nil)
		r.Header.Set("HX-Request", part)
		rec := httptest.NewRecorder()
		w.ServeLogin(rec, r, nil)
		if got := rec.Header().Get("HX-Refresh"); got != want || rec.Code != http.StatusUnauthorized {
			t.Errorf("HX-Request %q: got %d and HX-Refresh %q, want 401 and %q", part, rec.Code, got, want)
		}
	}
}

// TestErrorStandsByItsField: the reason is beside the field and nowhere else,
// and a field that is usually folded away is in sight.
func TestErrorStandsByItsField(t *testing.T) {
	twin, s := newWeb(t)
	for _, c := range []struct{ field, label string }{{"term", "The time in hours"}, {"credit", "What the provider risks"}} {
		_, body := deploy(t, s, offerID(t, twin), func(v url.Values) { v.Set(c.field, "soon") })
		if n := strings.Count(body, c.label); n != 1 {
			t.Errorf("%s: the reason is there %d times, want once", c.field, n)
		}
		at := regexp.MustCompile(`<input id="` + c.field + `"[^>]* autofocus aria-invalid="true"`)
		if !at.MatchString(body) {
			t.Errorf("%s is not marked", c.field)
		}
		if open := strings.Contains(body, `<details id="payment" class="more" open>`); open != (c.field == "credit") {
			t.Errorf("%s: the folded fields are open: %v", c.field, open)
		}
	}
}

// TestPinnedScripts: the embedded scripts are the ones of npm, unchanged.
func TestPinnedScripts(t *testing.T) {
	for name, want := range map[string]string{
		"htmx.min.js": "22283ef68cb7545914f0a88a1bdedc7256a703d1d580c1d255217d0a50d31313",
		"sse.js":      "3b5992a541619babefc4c169505af474df5c3039da51e59b96ccf9241ecd61d2",
	} {
		b, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// TestClass: a lease demands a class of isolation when its owner says so.
func TestClass(t *testing.T) {
	twin, s := newWeb(t)
	page, err := twin.Offers(t.Context(), service.OfferQuery{Class: "gvisor"})
	if err != nil || len(page.Offers) != 1 {
		t.Fatalf("got %+v, %v", page, err)
	}
	strong := page.Offers[0].ID.String()
	if _, body, _ := get(t, s.URL+"/deploy?class=gvisor&offer="+strong); !strings.Contains(body, `<option value="gvisor" selected>gvisor: a kernel of its own</option>`) {
		t.Errorf("the form does not carry the class:\n%s", body)
	}
	if status, body := deploy(t, s, strong, func(v url.Values) { v.Set("class", "gvisor") }); status != http.StatusOK || !strings.Contains(body, "a kernel of its own") {
		t.Errorf("got %d\n%s", status, body)
	}
	if r := twin.Requests(); len(r) != 1 || r[0].Class != "gvisor" {
		t.Errorf("got %+v, want the class demanded", r)
	}
	if status, body := deploy(t, s, offerID(t, twin), func(v url.Values) { v.Set("class", "gvisor") }); status == http.StatusOK || !strings.Contains(body, "gvisor, the offer has userns") {
		t.Errorf("a class that the offer lacks: got %d\n%s", status, body)
	}
}
