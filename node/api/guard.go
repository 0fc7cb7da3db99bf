package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/durable"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Times and counts of the login [API-5].
const (
	LoginLinkLifetime = 10 * time.Minute
	SessionLifetime   = 12 * time.Hour
	MaxSessions       = 64
	MaxLoginLinks     = 16
	MaxLoginFailures  = 10 // a minute
)

// TokenFile is the name of the file, in the data directory, that holds the
// bearer token of the command line [API-3].
const TokenFile = "api-token"

// LoadToken reads the bearer token of a data directory, or makes it.
func LoadToken(dir string) (string, error) {
	path := filepath.Join(dir, TokenFile)
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) == 64 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("api: %w", err)
	}
	token := secret()
	if err := durable.WriteFile(path, []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("api: %w", err)
	}
	return token, nil
}

func secret() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Guard decides who may speak to a node: the command line by its bearer token,
// a browser by a session that began with a one-time link. It is safe for use
// by several goroutines.
type Guard struct {
	token  [sha256.Size]byte
	hosts  []string
	cookie string
	now    func() time.Time

	mu       sync.Mutex // guards all below
	links    map[[sha256.Size]byte]time.Time
	sessions map[[sha256.Size]byte]time.Time
	failures []time.Time
}

// NewGuard returns the guard of a listener: requests must name it as localhost
// or by its own address.
func NewGuard(token string, listen net.Addr) (*Guard, error) {
	host, port, err := net.SplitHostPort(listen.String())
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsLoopback() {
		return nil, service.Errorf(service.CodeForbidden, "the API listens on loopback addresses only, not on %s; reach it from elsewhere through an SSH tunnel", listen)
	}
	return &Guard{
		token:    sha256.Sum256([]byte(token)),
		hosts:    []string{net.JoinHostPort("localhost", port), net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)},
		cookie:   "pktcloud-" + port,
		now:      time.Now,
		links:    map[[sha256.Size]byte]time.Time{},
		sessions: map[[sha256.Size]byte]time.Time{},
	}, nil
}

// Origin returns the one origin of the web pages.
func (g *Guard) Origin() string { return "http://" + g.hosts[0] }

// LoginLink returns an address that logs one browser in, once, until it
// expires [API-5].
func (g *Guard) LoginLink() (link string, expires time.Time) {
	code := secret()
	expires = g.now().Add(LoginLinkLifetime)
	g.mu.Lock()
	defer g.mu.Unlock()
	evict(g.links, g.now(), MaxLoginLinks-1)
	g.links[sha256.Sum256([]byte(code))] = expires
	return g.Origin() + "/login?code=" + code, expires
}

// Login answers a login link: a session cookie and the first page, or a
// refusal.
func (g *Guard) Login(w http.ResponseWriter, r *http.Request) error {
	if strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") {
		return service.Errorf(service.CodeForbidden, "a login link is opened by a person, not fetched ahead")
	}
	key := sha256.Sum256([]byte(r.URL.Query().Get("code")))
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	expires, ok := g.links[key]
	delete(g.links, key)
	if !ok || !now.Before(expires) {
		g.failures = slices.DeleteFunc(g.failures, func(t time.Time) bool { return now.Sub(t) > time.Minute })
		if len(g.failures) >= MaxLoginFailures {
			return service.Errorf(service.CodeRateLimited, "too many failed logins; run \"pktcloud login\" for a new link")
		}
		g.failures = append(g.failures, now)
		return service.Errorf(service.CodeUnauthorized, "this login link was used already or has expired; run \"pktcloud login\" for a new one")
	}
	session := secret()
	evict(g.sessions, now, MaxSessions-1)
	g.sessions[sha256.Sum256([]byte(session))] = now.Add(SessionLifetime)
	http.SetCookie(w, &http.Cookie{
		Name: g.cookie, Value: session, Path: "/", HttpOnly: true,
		SameSite: http.SameSiteStrictMode, MaxAge: int(SessionLifetime / time.Second),
	})
	return nil
}

// Logout ends the browser's session.
func (g *Guard) Logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(g.cookie); err == nil {
		g.mu.Lock()
		delete(g.sessions, sha256.Sum256([]byte(c.Value)))
		g.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: g.cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
}

// evict drops what has expired and then the soonest to expire, until at most
// keep are left.
func evict(m map[[sha256.Size]byte]time.Time, now time.Time, keep int) {
	for k, t := range m {
		if !now.Before(t) {
			delete(m, k)
		}
	}
	for len(m) > keep {
		var first [sha256.Size]byte
		var when time.Time
		for k, t := range m {
			if when.IsZero() || t.Before(when) {
				first, when = k, t
			}
		}
		delete(m, first)
	}
}

// Check says whether a request may be served. It comes by the right name, from
// this node's own pages or from no page at all [API-4], and carries the token
// or a session [API-3]. Errors match [service.CodeForbidden] or
// [service.CodeUnauthorized].
func (g *Guard) Check(r *http.Request) error {
	if err := g.CheckPlace(r); err != nil {
		return err
	}
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		sum := sha256.Sum256([]byte(bearer))
		if subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1 {
			return nil
		}
		return service.Errorf(service.CodeUnauthorized, "the token is not the one in %s of the data directory", TokenFile)
	}
	if !g.hasSession(r) {
		return service.Errorf(service.CodeUnauthorized, "log in first: run \"pktcloud login\" and open the address that it prints")
	}
	if !safe(r.Method) && r.Header.Get("Origin") != "http://"+r.Host {
		return service.Errorf(service.CodeForbidden, "a browser may change something from this node's own pages only")
	}
	return nil
}

// CheckPlace says whether a request names this node rightly and comes from its
// own pages, or from no page at all.
func (g *Guard) CheckPlace(r *http.Request) error {
	if !slices.Contains(g.hosts, r.Host) {
		return service.Errorf(service.CodeForbidden, "no such host here; use %s", g.Origin())
	}
	if o := r.Header.Get("Origin"); o != "" && o != "http://"+r.Host {
		return service.Errorf(service.CodeForbidden, "requests from other sites are refused")
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return nil
	}
	if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return nil
	}
	return service.Errorf(service.CodeForbidden, "requests from other sites are refused")
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

func (g *Guard) hasSession(r *http.Request) bool {
	c, err := r.Cookie(g.cookie)
	if err != nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := g.sessions[sha256.Sum256([]byte(c.Value))]
	return ok && g.now().Before(until)
}
