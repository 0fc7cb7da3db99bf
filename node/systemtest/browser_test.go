//go:build system

package systemtest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
	"github.com/pkt-cash/pkt-cloud/node/web"
)

// browserStory is a world with a browser, and what the steps of TestBrowserStory
// share.
type browserStory struct {
	*world
	chromium *chromium
	tab      *tab   // logged in
	origin   string // of the tenant's pages
	link     string // that logged it in
	offer    pktcloud.ID
	cookie   *http.Cookie
	lease    service.Lease
}

// newBrowserStory publishes an offer, and opens a browser.
func newBrowserStory(t *testing.T) *browserStory {
	t.Helper()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	offer := w.publish()
	eventually(t, "the offer reaches the tenant", func() (bool, error) {
		_, err := w.tenant.client().Offer(t.Context(), offer.ID, service.Resources{})
		return err == nil, nil
	})
	link, err := w.tenant.client().LoginLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(link.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &browserStory{world: w, chromium: startChromium(t), offer: offer.ID, link: link.URL, origin: at.Scheme + "://" + at.Host}
}

// TestBrowserStory does the main job as a person does: log in, choose an
// offer, deploy, open the running page through the tunnel, watch the money
// move, close, be paid and pay, look at the wallet and the channel. Every page is looked at in two widths and
// both colour schemes; pictures go to the directory that PKTCLOUD_SCREENSHOTS
// names.
func TestBrowserStory(t *testing.T) {
	s := newBrowserStory(t)
	s.tab = s.chromium.open("tenant", s.origin)
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"stranger", s.stranger},
		{"login", s.login},
		{"empty", s.emptyPages},
		{"receive", s.receive},
		{"market", s.market},
		{"deploy", s.deploy},
		{"running", s.running},
		{"service", s.service},
		{"money", s.money},
		{"channel in use", s.channelInUse},
		{"channel rolls", s.channelRolls},
		{"other sites", s.otherSites},
		{"close", s.close},
		{"channel closed", s.channelClosed},
		{"send", s.send},
		{"history", s.history},
		{"wallet", s.wallet},
		{"logout", s.logout},
	} {
		began := time.Now()
		step.run()
		t.Logf("%s: %d ms", step.name, time.Since(began).Milliseconds())
	}
	s.chromium.quiet()
	s.clean()
}

// stranger has no session and sees nothing but how to get one.
func (s *browserStory) stranger() {
	for _, path := range []string{"/", "/market", "/leases", "/wallet", "/wallet/history.csv", "/channels", "/deploy"} {
		if got := s.tab.open(s.origin + path); got != http.StatusUnauthorized {
			s.t.Errorf("%s without a session: got status %d, want 401", path, got)
		}
		s.tab.shows("main", "pktcloud login")
		if s.tab.has("#offers") || s.tab.has("nav a") {
			s.t.Errorf("%s without a session shows the market or the menu", path)
		}
	}
	s.tab.look("login")
}

// login uses the link, once.
func (s *browserStory) login() {
	s.tab.open(s.link)
	s.tab.at(s.origin + "/market")
	s.takeCookie()
	second := s.chromium.open("second browser", s.origin, chromedp.WithNewBrowserContext())
	if got := second.open(s.link); got != http.StatusUnauthorized {
		s.t.Errorf("the login link a second time: got status %d, want 401", got)
	}
	second.shows("[role=alert]", "used already")
	second.look("login-used")
	if got := second.open(s.origin + "/market"); got != http.StatusUnauthorized {
		s.t.Errorf("after a used link the market answers %d, want 401", got)
	}
	second.close()
}

func (s *browserStory) emptyPages() {
	s.tab.click(`nav a[href="/leases"]`)
	s.tab.shows(".empty", "No lease yet")
	s.tab.look("leases-empty")
	s.tab.open(s.origin + "/leases/0123abcd")
	s.tab.shows("[role=alert]", "No lease")
	s.tab.look("not-found")
}

// market finds the offer, and filters it away and back.
func (s *browserStory) market() {
	t := s.tab
	t.click(`nav a[href="/market"]`)
	t.wait("one offer is listed", `document.querySelectorAll("#offers .offer").length === 1`)
	t.shows("#offers", "DE")
	t.mark()
	t.look("market")
	for _, c := range []struct{ field, value, want string }{
		{"region", "FR", "1 offer, none says that it is in FR; take any region."},
		{"cores", "1000", "1 offer, none has more than"},
		{"price", "0.0001", "1 offer, none costs less than"},
		{"memory", "much", "a number from 0"},
	} {
		t.fill("#"+c.field, c.value)
		t.press("Enter")
		t.shows("#offers", c.want)
		if got := t.value("#" + c.field); got != c.value {
			s.t.Errorf("the filter %s is %q afterwards, want %q", c.field, got, c.value)
		}
		t.look("market-no-" + c.field)
		t.fill("#"+c.field, "")
		t.press("Enter")
		t.wait("the offer is back", `document.querySelectorAll("#offers .offer").length === 1`)
	}
	t.fill("#region", "de")
	t.fill("#cores", "0.2")
	t.fill("#memory", "64")
	t.press("Enter")
	t.wait("the filters are in the address", `location.search.includes("region=de") && location.search.includes("memory=64")`)
	t.wait("the link carries what is needed", `document.querySelector("#offers .offer a.button").href.includes("memory=64")`)
	t.marked("filtering")
	s.t.Logf("the market's page took %.0f ms", eval[float64](t, `performance.getEntriesByType("navigation")[0].loadEventEnd`))
	t.click("#offers .offer a.button")
}

// deploy fills the form: the price follows, and a refusal loses nothing.
func (s *browserStory) deploy() {
	t := s.tab
	t.shows("h1", "Deploy")
	if got := t.value("#cores") + " " + t.value("#memory"); got != "0.2 64" {
		s.t.Errorf("the form has cores and memory %q, want those of the market, \"0.2 64\"", got)
	}
	t.fill("#image", s.registry+"/no-such-image:1")
	t.fill("#port", "8080")
	t.fill("#disk", "0.1")
	t.click("#payment summary")
	t.fill("#interval", "1")
	t.fill("#credit", testCredit)
	t.fill("#prepaid", "0")
	for _, memory := range []uint64{64, 128} {
		t.fill("#memory", fmt.Sprint(memory))
		offer, err := s.tenant.client().Offer(s.t.Context(), s.offer, service.Resources{MilliCPU: 200, MemoryBytes: memory << 20, DiskBytes: (1<<30 + 5) / 10})
		if err != nil {
			s.t.Fatal(err)
		}
		t.wait("the price follows what is typed", fmt.Sprintf(`document.querySelector("#price .figure data")?.value === "%d"`, uint64(offer.Rate)))
	}
	t.look("deploy")

	t.fill("#term", "soon")
	t.wait("the price says what is wrong", `document.querySelector("#price").innerText.includes("number")`)
	t.submit("button[form=deploy]")
	t.shows("[role=alert]", "number")
	t.look("deploy-error")
	t.fill("#term", "0.5")
	t.submit("button[form=deploy]")
	t.shows("[role=alert]", "image")
	t.look("deploy-refused")
	for field, want := range map[string]string{"image": s.registry + "/no-such-image:1", "port": "8080", "memory": "128", "disk": "0.1", "term": "0.5", "credit": testCredit, "prepaid": "0"} {
		if got := t.value("#" + field); got != want {
			s.t.Errorf("after the refusal %s is %q, want %q as it was typed", field, got, want)
		}
	}
	t.fill("#image", s.image)
	t.submit("button[form=deploy]")
}

// running waits until the lease is active, on a page that is never loaded
// again.
func (s *browserStory) running() {
	t := s.tab
	t.shows("h1", "Lease")
	t.mark()
	t.wait("the lease becomes active", `document.querySelector("#phase")?.innerText.trim() === "active"`)
	leases, err := s.tenant.client().Leases(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range leases {
		if l.Phase == "active" {
			s.lease = l
		}
	}
	t.at(s.origin + "/leases/" + s.lease.Label)
}

// service opens what runs, through the tunnel, in a tab of its own.
func (s *browserStory) service() {
	t := s.tab
	t.wait("the endpoint is shown", `document.querySelector("#open") !== null`)
	origin := strings.TrimSuffix(s.lease.Endpoint, "/")
	if !strings.HasPrefix(origin, "http://web."+s.lease.Label+".localhost:") {
		s.t.Fatalf("the endpoint is %q", s.lease.Endpoint)
	}
	opened := chromedp.WaitNewTarget(t.ctx, func(i *target.Info) bool { return strings.HasPrefix(i.URL, origin) })
	t.click("#open")
	var id target.ID
	select {
	case id = <-opened:
	case <-time.After(patience):
		s.t.Fatal("no tab was opened for the service")
	}
	page := s.chromium.open("service", origin, chromedp.WithTargetID(id))
	page.console = false // the workload's own affair
	page.shows("body", "Hello from a lease.")
	page.at(s.lease.Endpoint)
	if cookies := eval[string](page, "document.cookie"); cookies != "" {
		s.t.Errorf("the service sees the cookies %q, want none", cookies)
	}
	page.picture("service")
	page.close()
}

// money watches the figures move and the log appear, without a reload.
func (s *browserStory) money() {
	t := s.tab
	for range 3 {
		paid := t.units("#paid data")
		t.wait("the paid sum moves", fmt.Sprintf(`Number(document.querySelector("#paid data").value) > %d`, paid))
	}
	until := t.text("#paid-until")
	t.wait("the time that is paid for moves", fmt.Sprintf(`document.querySelector("#paid-until").innerText !== %q`, until))
	t.wait("the most that was at risk is shown", `[...document.querySelectorAll("#risk data")].some(d => Number(d.value) > 0)`)
	t.wait("the log shows the request that was served", `document.querySelector(".log")?.innerText.includes("response:200")`)
	t.marked("the lease's page")
	before, err := s.tenant.client().Lease(s.t.Context(), s.lease.Label)
	if err != nil {
		s.t.Fatal(err)
	}
	t.wait("the page shows what is paid", fmt.Sprintf(`Number(document.querySelector("#paid data").value) >= %d`, uint64(before.Paid)))
	shown := t.units("#paid data")
	if l, err := s.tenant.client().Lease(s.t.Context(), s.lease.Label); err != nil || uint64(l.Paid) < shown {
		s.t.Errorf("the page shows %d units paid, the node says %d (%v)", shown, uint64(l.Paid), err)
	}
	t.look("lease")
	t.click(`nav a[href="/leases"]`)
	t.shows("tbody, .list", s.lease.Label)
	t.look("leases")
}

// otherSites tries to change something from another site's page: with the
// browser's own rules, and with the session's cookie in hand.
func (s *browserStory) otherSites() {
	action := s.origin + "/leases/" + s.lease.Label + "/close"
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>evil</title><link rel="icon" href="data:,"><form method="post" action="%s"><button>Win</button></form>`, action)
	}))
	defer evil.Close()
	page := s.chromium.open("evil", evil.URL)
	page.origins = append(page.origins, s.origin)
	page.open(evil.URL)
	page.click("button")
	page.at(action)
	page.shows("body", "other sites are refused")
	page.close()

	for _, c := range []struct {
		origin string
		want   int
	}{{"http://evil.example", http.StatusForbidden}, {"null", http.StatusForbidden}, {"", http.StatusForbidden}, {s.origin, http.StatusSeeOther}} {
		if got := s.request(http.MethodPost, "/wallet/address", c.origin); got != c.want {
			s.t.Errorf("a POST with the cookie from origin %q: got status %d, want %d", c.origin, got, c.want)
		}
	}
	if l, err := s.tenant.client().Lease(s.t.Context(), s.lease.Label); err != nil || l.Phase != "active" {
		s.t.Errorf("after another site's attempt the lease is %s (%v), want active", l.Phase, err)
	}
}

// takeCookie remembers the session's cookie.
func (s *browserStory) takeCookie() {
	cookies, err := chromedp.Run(s.tab.ctx, func(ctx context.Context, t *chromedp.Target) ([]*network.Cookie, error) {
		r, err := cdp.Call(ctx, t, network.GetCookies, network.GetCookiesParams{URLs: []string{s.origin}})
		return r.Cookies, err
	})
	if err != nil || len(cookies) != 1 || !cookies[0].HTTPOnly || cookies[0].SameSite != network.CookieSameSiteStrict {
		s.t.Fatalf("cookies %+v (%v), want one, for HTTP only and the same site", cookies, err)
	}
	s.cookie = &http.Cookie{Name: cookies[0].Name, Value: cookies[0].Value}
}

// request asks with the cookie, outside the browser, and returns the status.
func (s *browserStory) request(method, path, origin string) int {
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.origin+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.AddCookie(s.cookie)
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// close ends the lease, after a second thought.
func (s *browserStory) close() {
	t := s.tab
	t.click(`a[href="/leases/` + s.lease.Label + `"]`)
	t.click("details.confirm summary")
	t.wait("the confirmation is open", `document.querySelector("details.confirm button.danger").checkVisibility()`)
	t.look("lease-confirm")
	t.click("details.confirm a.quiet")
	t.wait("the lease is kept", `document.querySelector("#phase")?.innerText.trim() === "active" && !document.querySelector("details.confirm").open`)
	t.click("details.confirm summary")
	t.click("details.confirm button.danger")
	t.wait("the lease closes", `document.querySelector("#phase")?.innerText.trim() === "closed"`)
	t.mark()
	t.wait("the money is settled", `document.querySelector("#settled")?.innerText.includes("confirmed")`)
	t.marked("the closed lease's page")
	if t.has("#open") || t.has("details.confirm") {
		s.t.Error("the page of a closed lease offers to open or to close it")
	}
	l, err := s.tenant.client().Lease(s.t.Context(), s.lease.Label)
	if err != nil || uint64(l.Paid) != t.units("#paid data") || uint64(l.Channel.Claimed) != t.units("#settled data") {
		s.t.Errorf("the page shows %d units paid and %d settled, the node says %d and %d (%v)",
			t.units("#paid data"), t.units("#settled data"), uint64(l.Paid), uint64(l.Channel.Claimed), err)
	}
	t.look("lease-closed")
}

// wallet shows one balance, and on demand another address.
func (s *browserStory) wallet() {
	t := s.tab
	t.click(`nav a[href="/wallet"]`)
	t.wait("what was left is back", `document.querySelector("#history-table")?.innerText.includes("Came back")`)
	b, err := s.tenant.client().WalletBalance(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if shown := t.units("#balance data"); shown == 0 || shown != uint64(b.Spendable+b.Unconfirmed) {
		s.t.Errorf("the wallet shows %d units, the node has %d and %d", shown, uint64(b.Spendable), uint64(b.Unconfirmed))
	}
	t.look("wallet")
	address := t.text("#address")
	t.submit(`form[action="/wallet/address"] button`)
	t.wait("another address", fmt.Sprintf(`document.querySelector("#address")?.innerText !== %q`, address))
}

// logout ends the session, not only the cookie.
func (s *browserStory) logout() {
	t := s.tab
	if got := s.request(http.MethodGet, "/wallet", ""); got != http.StatusOK {
		s.t.Errorf("the wallet with the cookie: got status %d, want 200", got)
	}
	t.click(`form[action="/logout"] button`)
	t.shows("main", "pktcloud login")
	if got := t.open(s.origin + "/wallet"); got != http.StatusUnauthorized {
		s.t.Errorf("after logging out the wallet answers %d, want 401", got)
	}
	if got := s.request(http.MethodGet, "/wallet", ""); got != http.StatusUnauthorized {
		s.t.Errorf("the cookie of a session that was ended: got status %d, want 401", got)
	}
}

// TestBrowserStates looks at what the story does not show: a lease in trouble,
// one that this node provides, and a page whose node has gone.
func TestBrowserStates(t *testing.T) {
	twin := servicetest.New()
	pages, err := web.New(twin, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(pages)
	defer server.Close()
	page, err := twin.Offers(t.Context(), service.OfferQuery{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := twin.CreateLease(t.Context(), service.LeaseRequest{
		Offer: page.Offers[0].ID, Image: "registry.example/team/a-service-with-a-long-name:2026-11-22-build-4711", Port: 8080, MaxRate: 1 << 40,
		Resources: service.Resources{MilliCPU: 1500, MemoryBytes: 3 << 30, DiskBytes: 40 << 30}, IntervalSeconds: 10, TermSeconds: 86400,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := startChromium(t)
	b := c.open("states", server.URL)
	b.open(server.URL + "/leases/" + l.Label)
	for _, s := range []struct {
		name   string
		change func(*service.Lease)
		want   string
	}{
		{"suspended", func(l *service.Lease) {
			l.Phase, l.Problem = "suspended", "The service does not answer the probe. Nothing is paid until it does."
		}, "Nothing is paid"},
		{"provided", func(l *service.Lease) {
			l.Phase, l.Problem, l.Role, l.Endpoint = "active", "", "provider", ""
		}, "Tenant"},
		{"failed", func(l *service.Lease) { l.Phase, l.CloseReason = "failed", "image" }, "reason: image"},
	} {
		if err := twin.Update(l.Label, s.change); err != nil {
			t.Fatal(err)
		}
		b.shows("main", s.want)
		b.look("lease-" + s.name)
	}
	several := severalServices(t, twin, page.Offers[0].ID)
	b.open(server.URL + "/leases/" + several.Label)
	b.shows("#services ~ table", "migrate")
	b.wait("each service has charts", `document.querySelectorAll(".chart path.line").length === 4`)
	b.look("lease-services")
	b.click(`#services ~ table a[href*="service=web"]`)
	b.shows("#metrics", "of web")
	b.shows("#logs", "of web")
	b.wait("all of its charts", `document.querySelectorAll(".chart").length === 4 && document.querySelectorAll(".chart rect.hit, .chart rect.gap").length > 4`)
	b.look("lease-metrics-closed")
	b.click("#use-table summary")
	b.wait("the table tells what the charts show", `document.querySelectorAll("#use-table tbody tr").length > 5`)
	b.look("lease-metrics")
	b.click(`a[href*="span=life"]`)
	b.wait("all time", `document.querySelector('a[href*="span=life"][aria-current=true]') !== null && document.querySelector("#metrics").innerText.includes("of web")`)
	b.look("lease-metrics-life")
	b.open(server.URL + "/deploy?offer=" + page.Offers[1].ID.String() + "&max=0.000001")
	b.shows("#price", "More than you pay")
	b.look("deploy-above")
	b.open(server.URL + "/leases/" + l.Label)
	b.wait("the page is live", `!document.querySelector(".lost").checkVisibility()`)
	c.quiet()
	server.CloseClientConnections()
	server.Listener.Close()
	server.CloseClientConnections()
	b.wait("the page says that it is not live", `document.querySelector(".lost").checkVisibility()`)
	b.look("lease-stopped")
}

// severalServices is a lease of the twin with a web service and a job.
func severalServices(t *testing.T, twin *servicetest.Twin, offer pktcloud.ID) service.Lease {
	t.Helper()
	m, err := manifest.Read([]byte("services: {web: {image: registry.example/shop, depends: [migrate]}, migrate: {image: registry.example/shop, job: true}}"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := twin.CreateLease(t.Context(), service.LeaseRequest{Offer: offer, Manifest: &m, MaxRate: 1 << 40, IntervalSeconds: 10, TermSeconds: 86400})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
