package api_test

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestGuard: who may ask, from where [API-3] [API-4].
func TestGuard(t *testing.T) {
	f := newFixture(t)
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+f.token) }
	cookie := f.login(t)
	with := func(changes ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, c := range changes {
				c(r)
			}
		}
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	const address = api.Base + "/wallet/addresses"
	for _, c := range []struct {
		name   string
		method string
		path   string
		change func(*http.Request)
		want   int
	}{
		{"no token", "GET", api.Base + "/info", with(), 401},
		{"token", "GET", api.Base + "/info", bearer, 200},
		{"token by address", "GET", api.Base + "/info", with(bearer, host(f.host)), 200},
		{"rebound name", "GET", api.Base + "/info", with(bearer, host("evil.example:80")), 403},
		{"a lease's name", "GET", api.Base + "/info", with(bearer, host("web.abcdef01.localhost:80")), 403},
		{"session", "GET", api.Base + "/info", with(cookie), 200},
		{"session from another site", "GET", api.Base + "/info", with(cookie, header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "cors")), 403},
		{"session, same site, other origin", "GET", api.Base + "/info", with(cookie, header("Sec-Fetch-Site", "same-site"), header("Sec-Fetch-Mode", "cors")), 403},
		{"session post", "POST", address, with(cookie, header("Origin", f.url)), 200},
		{"session post without origin", "POST", address, cookie, 403},
		{"session post of another origin", "POST", address, with(cookie, header("Origin", "http://web.abcdef01.localhost:7391")), 403},
		{"session post of null origin", "POST", address, with(cookie, header("Origin", "null")), 403},
		{"token post of another origin", "POST", address, with(bearer, header("Origin", "http://evil.example")), 403},
		{"page without session", "GET", "/market", with(), 401},
		{"page with session", "GET", "/market", cookie, 200},
		{"page by a link from elsewhere", "GET", "/market", with(cookie, header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "document")), 200},
		{"page in a frame of elsewhere", "GET", "/market", with(cookie, header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "iframe")), 403},
		{"close from elsewhere", "POST", "/leases/x/close", with(cookie, header("Origin", "http://evil.example")), 403},
		{"page of a rebound name", "GET", "/market", with(cookie, host("evil.example")), 403},
		{"asset without session", "GET", "/assets/app.css", with(), 200},
		{"used or invented link", "GET", "/login?code=0123", with(), 401},
		{"login under another name", "GET", "/login?code=0123", host("127.0.0.1:1"), 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, body := f.do(t, c.method, c.path, c.change); got != c.want {
				t.Errorf("got %d, want %d: %s", got, c.want, body)
			}
		})
	}
}

// TestLoginRate: guesses are turned away, and lock nobody out: any page could
// make a browser guess [API-5].
func TestLoginRate(t *testing.T) {
	f := newFixture(t)
	for i := range api.MaxLoginFailures + 1 {
		got, _ := f.do(t, "GET", "/login?code=guess", func(*http.Request) {})
		want := 401
		if i == api.MaxLoginFailures {
			want = 429
		}
		if got != want {
			t.Fatalf("attempt %d: got %d, want %d", i, got, want)
		}
	}
	link, _ := f.guard.LoginLink()
	if got, body := f.do(t, "GET", strings.TrimPrefix(link, f.guard.Origin()), func(*http.Request) {}); got != http.StatusSeeOther && got != http.StatusOK {
		t.Errorf("a good link after the guesses: got %d: %s", got, body)
	}
}

func TestGuardWantsLoopback(t *testing.T) {
	if _, err := api.NewGuard("t", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}); !errors.Is(err, service.CodeForbidden) {
		t.Errorf("got %v, want a refusal", err)
	}
}
