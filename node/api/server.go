package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/durable"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// AddressFile is the name of the file, in the data directory, that tells where
// the API listens while the node runs.
const AddressFile = "api-address"

const shutdownTime = 3 * time.Second

// Pages are the web pages, as the server sees them. They ask for nothing
// themselves: the server has let the request in.
type Pages interface {
	http.Handler
	// ServeLogin shows the page for those who have no session; err says why a
	// login failed and is nil for a first visit.
	ServeLogin(w http.ResponseWriter, r *http.Request, err error)
}

// Server serves the API and, unless Pages is nil, the web pages.
type Server struct {
	API   http.Handler
	Pages Pages
	Guard *Guard
}

// Handler returns what answers requests.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/", s.API)
	if s.Pages != nil {
		mux.HandleFunc("GET /login", s.login)
		mux.HandleFunc("POST /logout", s.logout)
		mux.HandleFunc("GET /assets/", s.place(s.Pages.ServeHTTP))
		mux.HandleFunc("/", s.place(s.page))
	}
	return mux
}

// place lets a request through that names this node rightly and comes from its
// own pages.
func (s *Server) place(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.Guard.CheckPlace(r); err != nil {
			http.Error(w, err.Error(), service.CodeOf(err).Status())
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxRequestBytes)
		next(w, r)
	}
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	switch err := s.Guard.Check(r); {
	case err == nil:
		s.Pages.ServeHTTP(w, r)
	case errors.Is(err, service.CodeUnauthorized):
		s.Pages.ServeLogin(w, r, nil)
	default:
		http.Error(w, err.Error(), service.CodeOf(err).Status())
	}
}

// login takes a link from anywhere: its code is the proof, and the host must
// be right, or the cookie would stick to another name.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if "http://"+r.Host != s.Guard.Origin() {
		http.Error(w, "open the login link at "+s.Guard.Origin(), http.StatusForbidden)
		return
	}
	if !r.URL.Query().Has("code") {
		s.Pages.ServeLogin(w, r, nil)
		return
	}
	if err := s.Guard.Login(w, r); err != nil {
		s.Pages.ServeLogin(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if err := s.Guard.Check(r); err == nil {
		s.Guard.Logout(w, r)
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// Serve answers requests on a listener until ctx ends, then closes all
// connections.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-base.Done():
			return
		}
		cancel() // streams end with it
		end, stop := context.WithTimeout(context.Background(), shutdownTime)
		defer stop()
		if srv.Shutdown(end) != nil {
			srv.Close() //nolint:errcheck // nothing is left to do
		}
	})
	err := srv.Serve(l)
	cancel()
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// WriteAddress tells the command line where the API listens. The returned
// function takes it back.
func WriteAddress(dir string, a net.Addr) (remove func() error, err error) {
	path := filepath.Join(dir, AddressFile)
	if err := durable.WriteFile(path, []byte(a.String()+"\n")); err != nil {
		return nil, err
	}
	return func() error { return os.Remove(path) }, nil
}
