package devnet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

const (
	// MaxRequestBytes bounds a request: the largest standard transaction in
	// hexadecimal, and some.
	MaxRequestBytes = 2 << 20
	// CookieUser is the name that goes with a cookie file, as in a pktd.
	CookieUser = "__PKT_COOKIE__"

	headerTimeout   = 10 * time.Second
	requestTimeout  = time.Minute
	shutdownTimeout = 5 * time.Second
)

// Auth is what a client of the RPC must present [LEDGER-30].
type Auth struct {
	User     string
	Password string
}

// NewCookie draws a password and leaves it in a file that only the owner can
// read, as "__PKT_COOKIE__:<hex>".
func NewCookie(path string) (Auth, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return Auth{}, fmt.Errorf("draw cookie: %w", err)
	}
	a := Auth{User: CookieUser, Password: hex.EncodeToString(secret[:])}
	if err := durable.WriteFile(path, []byte(a.User+":"+a.Password)); err != nil {
		return Auth{}, fmt.Errorf("write cookie: %w", err)
	}
	return a, nil
}

// Serve answers JSON-RPC over HTTP POST on l until ctx ends, and then returns
// nil. It closes l.
func (c *Chain) Serve(ctx context.Context, l net.Listener, auth Auth) error {
	if auth.User == "" || auth.Password == "" {
		return errors.Join(errors.New("devnet RPC: name a user and a password"), l.Close())
	}
	server := &http.Server{
		Handler:           &handler{chain: c, auth: auth, methods: c.methods()},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(bounded)
		if err != nil {
			err = server.Close()
		}
		done <- err
	})
	err := server.Serve(l)
	if stop() {
		return fmt.Errorf("devnet RPC: %w", err) // ended by itself
	}
	return <-done
}

type handler struct {
	chain   *Chain
	auth    Auth
	methods map[string]method
}

// method answers one call. Errors are *rpcError, or become one with code -32603.
type method func(ctx context.Context, a arguments) (any, error)

// rpcError is the error object of a reply.
type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

type request struct {
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	ID     json.RawMessage   `json:"id"`
}

type reply struct {
	Result any             `json:"result"`
	Error  *rpcError       `json:"error"`
	ID     json.RawMessage `json:"id"`
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	if !ok || !equal(user, h.auth.User) || !equal(password, h.auth.Password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="devnet RPC"`)
		http.Error(w, "401 Unauthorized.", http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "405: send a POST", http.StatusMethodNotAllowed)
		return
	}
	var q request
	var p reply
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxRequestBytes)).Decode(&q); err != nil {
		p.Error = &rpcError{codeParse, "Failed to parse request: " + err.Error()}
	} else {
		p = h.call(r.Context(), q)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(p); err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
}

func (h *handler) call(ctx context.Context, q request) reply {
	p := reply{ID: q.ID}
	do, ok := h.methods[q.Method]
	if !ok {
		p.Error = &rpcError{codeNoMethod, "Method not found"}
		return p
	}
	result, err := do(ctx, q.Params)
	if err == nil {
		p.Result = result
		return p
	}
	if !errors.As(err, &p.Error) {
		p.Error = &rpcError{codeInternal, err.Error()}
	}
	return p
}

// equal compares without telling by its time where two texts differ.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
