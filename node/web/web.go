package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

//go:embed assets/*.js assets/*.css assets/*.svg assets/*.txt
var assets embed.FS

//go:embed templates/*.html
var sources embed.FS

// policy is the content security policy of every page: everything from here,
// no script or style inline, never in a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Web serves the pages of one node. It may be used from several goroutines.
type Web struct {
	svc   service.Service
	log   *slog.Logger
	mux   *http.ServeMux
	pages map[string]*template.Template

	mu      sync.Mutex // guards address and sweep
	address string     // the one shown last; a page view takes no fresh one
	sweep   reviewedSweep
}

// New returns the pages of a node. Log may be nil.
func New(svc service.Service, log *slog.Logger) (*Web, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &Web{svc: svc, log: log, mux: http.NewServeMux(), pages: map[string]*template.Template{}}
	hashes, err := assetHashes()
	if err != nil {
		return nil, err
	}
	funcs := helpers()
	funcs["asset"] = func(name string) string { return "/assets/" + name + "?v=" + hashes[name] }
	for _, name := range []string{"login", "failure", "market", "deploy", "leases", "lease", "amend", "wallet", "send", "review", "roll", "tx", "coins", "keys", "channels", "channel"} {
		t, err := template.New(name).Funcs(funcs).ParseFS(sources, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
		w.pages[name] = t
	}
	w.routes()
	return w, nil
}

func assetHashes() (map[string]string, error) {
	hashes := map[string]string{}
	err := fs.WalkDir(assets, "assets", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(path)
		sum := sha256.Sum256(b)
		hashes[strings.TrimPrefix(path, "assets/")] = hex.EncodeToString(sum[:6])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	return hashes, nil
}

func (w *Web) routes() {
	files := http.FileServerFS(assets)
	w.mux.HandleFunc("GET /assets/", func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("v") {
			rw.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		files.ServeHTTP(rw, r)
	})
	w.mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/market", http.StatusSeeOther) })
	w.mux.HandleFunc("GET /market", w.market)
	w.mux.HandleFunc("GET /deploy", w.deployForm)
	w.mux.HandleFunc("POST /deploy", w.deploy)
	w.mux.HandleFunc("GET /deploy/price", w.deployPrice)
	w.mux.HandleFunc("POST /deploy/preview", w.deployPreview)
	w.mux.HandleFunc("GET /leases", w.leases)
	w.mux.HandleFunc("GET /leases/{lease}", w.lease)
	w.mux.HandleFunc("GET /leases/{lease}/live", w.live)
	w.mux.HandleFunc("POST /leases/{lease}/close", w.closeLease)
	w.mux.HandleFunc("GET /leases/{lease}/amend", w.amendForm)
	w.mux.HandleFunc("POST /leases/{lease}/amend", w.reviewAmend)
	w.mux.HandleFunc("POST /leases/{lease}/amend/confirm", w.amendLease)
	w.mux.HandleFunc("GET /wallet", w.wallet)
	w.mux.HandleFunc("POST /wallet/address", w.newAddress)
	w.mux.HandleFunc("GET /wallet/qr", w.qr)
	w.mux.HandleFunc("GET /wallet/history.csv", w.export)
	w.mux.HandleFunc("GET /wallet/history.json", w.export)
	w.mux.HandleFunc("GET /wallet/send", w.sendForm)
	w.mux.HandleFunc("POST /wallet/send", w.review)
	w.mux.HandleFunc("POST /wallet/pay", w.pay)
	w.mux.HandleFunc("GET /wallet/tx/{tx}", w.tx)
	w.mux.HandleFunc("POST /wallet/tx/{tx}/label", w.labelTx)
	w.mux.HandleFunc("POST /wallet/tx/{tx}/raise", w.raise)
	w.mux.HandleFunc("GET /wallet/coins", w.coins)
	w.mux.HandleFunc("POST /wallet/coins/freeze", w.freeze)
	w.mux.HandleFunc("GET /wallet/keys", w.keys)
	w.mux.HandleFunc("POST /wallet/accounts", w.addAccount)
	w.mux.HandleFunc("POST /wallet/sweep", w.reviewSweep)
	w.mux.HandleFunc("POST /wallet/sweep/confirm", w.sweepKey)
	w.mux.HandleFunc("POST /wallet/password", w.password)
	w.mux.HandleFunc("POST /wallet/lock", w.lock)
	w.mux.HandleFunc("POST /wallet/unlock", w.unlock)
	w.mux.HandleFunc("GET /channels", w.channels)
	w.mux.HandleFunc("GET /channels/{channel}", w.channel)
	w.mux.HandleFunc("POST /channels/{channel}/close", w.closeChannel)
	w.mux.HandleFunc("GET /channels/{channel}/roll", w.rollForm)
	w.mux.HandleFunc("POST /channels/{channel}/roll", w.reviewRoll)
	w.mux.HandleFunc("POST /channels/{channel}/roll/confirm", w.rollChannel)
	w.mux.HandleFunc("POST /channels/deposit", w.deposit)
	w.mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		w.fail(rw, r, service.Errorf(service.CodeNotFound, "There is no page %s.", r.URL.Path))
	})
}

// ServeHTTP answers a request of somebody who may see the pages.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	headers(rw)
	w.mux.ServeHTTP(rw, r)
}

func headers(rw http.ResponseWriter) {
	h := rw.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	// With "no-referrer" browsers would send "Origin: null" with our own forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// page is what every template sees.
type page struct {
	Title string
	Nav   []navItem
	Error string
	Foot  string
}

type navItem struct {
	Name, Path string
	Current    bool
}

func (w *Web) page(r *http.Request, title string, err error) page {
	p := page{Title: title}
	for _, n := range []navItem{{Name: "Market", Path: "/market"}, {Name: "Leases", Path: "/leases"}, {Name: "Wallet", Path: "/wallet"}, {Name: "Channels", Path: "/channels"}} {
		n.Current = strings.HasPrefix(r.URL.Path, n.Path) || n.Path == "/market" && r.URL.Path == "/deploy"
		p.Nav = append(p.Nav, n)
	}
	if err != nil {
		p.Error = sentence(err)
	}
	if info, err := w.svc.Info(r.Context()); err == nil {
		p.Foot = fmt.Sprintf("Node %s · network %s · block %d · %s", short(info.Identity.String()), info.Network, info.Height, count(info.Peers, "peer"))
		if p.Error == "" {
			p.Error = info.Problem
		}
	}
	return p
}

// withoutCommands leaves out of an error what only a terminal can do: parts that
// name a command or a flag.
func withoutCommands(s string) string {
	s = strings.ReplaceAll(s, `an address of "pktcloud wallet address"`, "an address that the page Wallet shows")
	parts := strings.Split(s, "; ")
	rest := slices.DeleteFunc(parts[1:], func(part string) bool { return strings.Contains(part, `"pktcloud `) || strings.Contains(part, " --") })
	return strings.Join(append(parts[:1], rest...), "; ")
}

// sentence begins an error with a capital and ends it with a full stop.
func sentence(err error) string {
	s := withoutCommands(err.Error())
	if s == "" {
		return "Something went wrong."
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// show renders a page whole before it sends the first byte.
func (w *Web) show(rw http.ResponseWriter, status int, name string, data any) {
	w.render(rw, status, name, "layout", data)
}

func (w *Web) render(rw http.ResponseWriter, status int, name, part string, data any) {
	b, err := w.part(name, part, data)
	if err != nil {
		w.log.Error("render a page", "page", name, "error", err)
		http.Error(rw, "This page could not be made; the log of the node says why.", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	rw.Write(b) //nolint:errcheck // the browser has left
}

func (w *Web) part(name, part string, data any) ([]byte, error) {
	var b bytes.Buffer
	err := w.pages[name].ExecuteTemplate(&b, part, data)
	return b.Bytes(), err
}

// fail shows a refusal as a page of its own.
func (w *Web) fail(rw http.ResponseWriter, r *http.Request, err error) {
	code := service.CodeOf(err)
	title := "This did not work"
	if errors.Is(err, service.CodeNotFound) {
		title = "Not found"
	}
	w.show(rw, code.Status(), "failure", w.page(r, title, err))
}

// ServeLogin shows the page for those who have no session.
func (w *Web) ServeLogin(rw http.ResponseWriter, r *http.Request, err error) {
	headers(rw)
	if r.Header.Get("HX-Request") != "" {
		rw.Header().Set("HX-Refresh", "true") // the page shows the login, not a part of it
	}
	p, status := page{Title: "Log in"}, http.StatusUnauthorized
	if err != nil {
		p.Error, status = sentence(err), service.CodeOf(err).Status()
	}
	w.show(rw, status, "login", p)
}
