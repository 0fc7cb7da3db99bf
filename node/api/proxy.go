package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// ServiceName is the name of a lease's one service in addresses.
const ServiceName = "web"

// Opener reaches the leases that the proxy opens.
type Opener interface {
	Lease(ctx context.Context, name string) (service.Lease, error)
	Forward(ctx context.Context, name string, port uint16) (net.Conn, error)
}

// Proxy opens running leases to the browsers of this machine: a request for
// http://web.<lease>.localhost:<port>/ goes to the port that the lease serves,
// through its session. Each lease has an origin of its own and shares no
// cookie with the node's pages [API-7].
type Proxy struct {
	open  Opener
	proxy *httputil.ReverseProxy
}

type leaseKey struct{}

// NewProxy returns the proxy.
func NewProxy(open Opener, log *slog.Logger) *Proxy {
	p := &Proxy{open: open}
	p.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: r.In.Host})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			DialContext:           p.dial,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: time.Minute,
			DisableCompression:    true,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			code := service.CodeOf(err)
			if code == service.CodeInternal {
				code = service.CodeUnreachable
			}
			http.Error(w, "The lease does not answer: "+err.Error(), code.Status())
		},
	}
	return p
}

// label returns the lease in "web.<lease>.localhost:<port>".
func label(host string) (string, bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	lease, ok := strings.CutPrefix(strings.ToLower(host), ServiceName+".")
	if !ok {
		return "", false
	}
	lease, ok = strings.CutSuffix(lease, ".localhost")
	return lease, ok && lease != "" && strings.Trim(lease, "0123456789abcdef") == ""
}

// ServeHTTP answers a request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	lease, ok := label(r.Host)
	if !ok {
		http.Error(w, "Open a lease as http://"+ServiceName+".<lease>.localhost and this port.", http.StatusNotFound)
		return
	}
	if crossSite(r) {
		http.Error(w, "Requests from other sites are refused; open the page by its address.", http.StatusForbidden)
		return
	}
	p.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), leaseKey{}, lease)))
}

// crossSite reports whether another site's page sent the request, unless it is
// a person following a link.
func crossSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		// No browser of today, or a connection without these headers.
		o := r.Header.Get("Origin")
		return o != "" && o != "http://"+r.Host
	}
	return r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

func (p *Proxy) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	name, _ := ctx.Value(leaseKey{}).(string)
	lease, err := p.open.Lease(ctx, name)
	if err != nil {
		return nil, err
	}
	if lease.Port == 0 {
		return nil, service.Errorf(service.CodeNotRunning, "the lease serves no port")
	}
	return p.open.Forward(ctx, name, lease.Port)
}
