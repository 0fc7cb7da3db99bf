package pktd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	// MaxReplyBytes bounds what is read of one answer: a block of four million
	// bytes and a PacketCrypt proof, in hexadecimal, with room.
	MaxReplyBytes = 20 << 20
	// callTimeout bounds one question, beside the caller's context.
	callTimeout  = 30 * time.Second
	maxCookie    = 1 << 10
	maxErrorText = 300

	// BusyTries is how often a question is put to a node that has no room for it,
	// with a longer pause each time. A pktd answers ten at once, whoever asks.
	BusyTries = 7
	busyPause = 20 * time.Millisecond // before the second try
)

// errBusy marks a question that the node did not look at.
var errBusy = errors.New("the node answers too many questions at once (HTTP 503); if this stays, start it with a higher --rpcmaxclients")

// client asks one node, one question a POST.
type client struct {
	url      string
	user     string
	password string
	cookie   string      // path; read anew for each question, since a node redraws it
	tls      *tls.Config // nil: the machine's own authorities
	http     *http.Client
	id       atomic.Uint64
}

func newClient(cfg Config) (*client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("node address %q: want http://host:port or https://host:port", cfg.URL)
	}
	if (cfg.CookieFile == "") == (cfg.User == "") {
		return nil, errors.New("node access: name either a cookie file or a user and a password")
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
	if cfg.CertFile != "" {
		pem, err := os.ReadFile(cfg.CertFile)
		if err != nil {
			return nil, fmt.Errorf("node certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("node certificate: %s holds no PEM certificate", cfg.CertFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &client{
		tls: transport.TLSClientConfig.Clone(), // Clone of nil is nil
		url: cfg.URL, user: cfg.User, password: cfg.Password, cookie: cfg.CookieFile,
		http: &http.Client{
			Transport: transport,
			Timeout:   callTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // a node never redirects; do not carry the password elsewhere
			},
		},
	}, nil
}

// nodeError is the error object of an answer.
type nodeError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *nodeError) Error() string {
	line, _, _ := strings.Cut(e.Message, "\n") // a pktd adds its stack
	if len(line) > maxErrorText {
		line = line[:maxErrorText] + "…"
	}
	return fmt.Sprintf("node says %d: %s", e.Code, strings.ToValidUTF8(line, "?"))
}

// call asks the node and decodes its result. An error object in the answer
// comes back as *nodeError; every other failure matches
// settle.ErrLedgerUnavailable, or is the context's.
func (c *client) call(ctx context.Context, result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": c.id.Add(1), "method": method, "params": params})
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	reply, err := c.ask(ctx, body)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %s: %w", settle.ErrLedgerUnavailable, method, err)
	}
	var envelope struct {
		Result json.RawMessage `json:"result"`
		Error  *nodeError      `json:"error"`
	}
	if err := json.Unmarshal(reply, &envelope); err != nil {
		return fmt.Errorf("%w: %s: not a JSON-RPC answer: %w", settle.ErrLedgerUnavailable, method, err)
	}
	if envelope.Error != nil {
		return envelope.Error
	}
	if err := json.Unmarshal(envelope.Result, result); err != nil {
		return fmt.Errorf("%w: %s: unexpected result: %w", settle.ErrLedgerUnavailable, method, err)
	}
	return nil
}

// ask is post for a node that may be busy [LEDGER-62].
func (c *client) ask(ctx context.Context, body []byte) (reply []byte, err error) {
	for try := range BusyTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(busyPause << (try - 1)):
			}
		}
		if reply, err = c.post(ctx, body); !errors.Is(err, errBusy) {
			return reply, err
		}
	}
	return nil, err
}

func (c *client) post(ctx context.Context, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	user, password, err := c.login()
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(user, password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, MaxReplyBytes+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("the node refuses this user and password (HTTP %d)", resp.StatusCode)
	case resp.StatusCode == http.StatusServiceUnavailable:
		return nil, errBusy
	case len(reply) > MaxReplyBytes:
		return nil, fmt.Errorf("answer longer than %d bytes", MaxReplyBytes)
	case len(reply) == 0:
		return nil, fmt.Errorf("empty answer (HTTP %d)", resp.StatusCode)
	}
	return reply, nil // some nodes send an error object with status 500
}

func (c *client) login() (user, password string, err error) {
	if c.cookie == "" {
		return c.user, c.password, nil
	}
	f, err := os.Open(c.cookie)
	if err != nil {
		return "", "", fmt.Errorf("cookie file: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCookie))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", "", fmt.Errorf("cookie file: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !ok {
		return "", "", errors.New("cookie file: want user:password")
	}
	return user, password, nil
}

// isCode reports whether err is the node's answer with one of these codes.
func isCode(err error, codes ...int) bool {
	e, ok := errors.AsType[*nodeError](err)
	return ok && slices.Contains(codes, e.Code)
}

// unavailable turns what the node says of a question that it should have
// answered into an error matching settle.ErrLedgerUnavailable.
func unavailable(doing string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*nodeError](err); ok {
		return fmt.Errorf("%w: %s: %w", settle.ErrLedgerUnavailable, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
