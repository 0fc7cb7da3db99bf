package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

const (
	maxRedirects  = 5        // how often a registry may send a pull somewhere else
	maxErrorBytes = 64 << 10 // of a text that says why not
)

// accepted are the manifests that a registry is asked for.
var accepted = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ", ")

// remote is a repository that has let a caller in.
type remote struct {
	client *http.Client
	idle   *http.Transport
	repo   name.Repository
}

// connect asks a registry how it lets callers in, and gives it the credentials.
func (s *Store) connect(ctx context.Context, repo name.Repository, o container.PullOptions) (*remote, error) {
	if s.cfg.Dial == nil {
		return nil, &container.Error{Code: container.CodeForbiddenHost, Detail: "this store pulls from no registry"}
	}
	tr := &http.Transport{
		DialContext: s.cfg.Dial, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: s.cfg.Stall,
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	auth := authn.Anonymous
	if o.Username != "" || o.Password != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: o.Username, Password: o.Password})
	}
	retry := transport.NewRetry(&boundedTransport{tr, s.cfg.Stall}, transport.WithRetryBackoff(transport.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Steps: 2}))
	in, err := transport.NewWithContext(ctx, repo.Registry, auth, transport.NewUserAgent(retry, "pktcloud"), []string{repo.Scope(transport.PullScope)})
	if err != nil {
		tr.CloseIdleConnections()
		return nil, withoutQuery(err)
	}
	return &remote{client: &http.Client{Transport: in, CheckRedirect: checkRedirect}, idle: tr, repo: repo}, nil
}

// close lets go of connections that nobody uses.
func (r *remote) close() { r.idle.CloseIdleConnections() }

// checkRedirect follows a registry to where it keeps its blobs. The dialer judges
// the address; a redirect to an unencrypted one is refused here.
func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return &container.Error{Code: container.CodeRegistry, Detail: fmt.Sprintf("more than %d redirects", maxRedirects)}
	}
	if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return &container.Error{Code: container.CodeForbiddenHost, Detail: "a redirect from an encrypted address to an unencrypted one"}
	}
	return nil
}

// do asks for something of the repository. A status that is not wanted is an
// error.
func (r *remote) do(ctx context.Context, method, kind, id string, header http.Header, want ...int) (*http.Response, error) {
	u := url.URL{Scheme: r.repo.Scheme(), Host: r.repo.RegistryStr(), Path: fmt.Sprintf("/v2/%s/%s/%s", r.repo.RepositoryStr(), kind, id)}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, withoutQuery(err)
	}
	if !slices.Contains(want, resp.StatusCode) {
		resp.Body = limited{io.LimitReader(resp.Body, maxErrorBytes), resp.Body}
	}
	if err := transport.CheckError(resp, want...); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// limited is a body that is cut.
type limited struct {
	io.Reader
	io.Closer
}

// withoutQuery takes from an error what a registry signed for this caller only:
// errors are logged.
func withoutQuery(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		e.URL, _, _ = strings.Cut(e.URL, "?")
	}
	return err
}

// manifest fetches a manifest or an index by tag or digest.
func (r *remote) manifest(ctx context.Context, id string) ([]byte, error) {
	resp, err := r.do(ctx, http.MethodGet, "manifests", id, http.Header{"Accept": {accepted}}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	return readSmall(resp.Body)
}

// small fetches a blob that is read whole: a configuration.
func (r *remote) small(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	resp, err := r.do(ctx, http.MethodGet, "blobs", d.Digest.String(), http.Header{}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	return readSmall(resp.Body)
}

func readSmall(body io.ReadCloser) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, MaxManifestBytes+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	if len(b) > MaxManifestBytes {
		return nil, &container.Error{Code: container.CodeTooLarge, Detail: fmt.Sprintf("an answer of more than %d bytes", MaxManifestBytes)}
	}
	return b, nil
}

// blob opens a layer from an offset on, or from its beginning where the registry
// does not know ranges; it returns where.
func (r *remote) blob(ctx context.Context, d v1.Descriptor, from int64) (io.ReadCloser, int64, error) {
	header := http.Header{}
	if from > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, d.Size-1))
	}
	resp, err := r.do(ctx, http.MethodGet, "blobs", d.Digest.String(), header, http.StatusOK, http.StatusPartialContent)
	if te, ok := errors.AsType[*transport.Error](err); ok && from > 0 && te.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return r.blob(ctx, d, 0)
	}
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, 0, nil
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)) {
		return nil, 0, errors.Join(&container.Error{Code: container.CodeRegistry, Detail: "an answer for another range"}, resp.Body.Close())
	}
	return resp.Body, from, nil
}

// grants reports whether the registry would give this caller a layer.
func (r *remote) grants(ctx context.Context, d v1.Descriptor) bool {
	resp, err := r.do(ctx, http.MethodHead, "blobs", d.Digest.String(), http.Header{}, http.StatusOK)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.ContentLength == d.Size
}

// registryError gives what a registry or the network answered its code.
func registryError(ref string, err error) error {
	var known *container.Error
	var te *transport.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, syscall.ENOSPC):
		return &container.Error{Code: container.CodeDiskFull, Detail: ref, Err: err}
	case errors.As(err, new(*fs.PathError)):
		return &container.Error{Code: container.CodeRuntime, Detail: ref, Err: err}
	case errors.Is(err, dialer.ErrForbidden):
		return &container.Error{Code: container.CodeForbiddenHost, Detail: ref, Err: err}
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound:
		return &container.Error{Code: container.CodeUnknownImage, Detail: ref, Err: err}
	}
	return &container.Error{Code: container.CodeRegistry, Detail: ref, Err: err}
}

// boundedTransport bounds what a registry may send and how slowly: whoever
// reads an answer knows how long it may be, except for the token's and for texts
// of errors, which are cut here.
type boundedTransport struct {
	inner *http.Transport
	stall time.Duration
}

var errStalled = errors.New("the registry stalls")

// RoundTrip cuts a body that is too long and ends one that is too slow.
func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	resp, err := t.inner.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	p := &paced{body: resp.Body, ctx: ctx, cancel: cancel, window: t.stall, left: MaxManifestBytes + 1}
	first := r
	for first.Response != nil {
		first = first.Response.Request
	}
	if strings.Contains(first.URL.Path, "/blobs/") {
		p.left = -1
	}
	p.timer = time.AfterFunc(time.Hour, p.judge) // set before it may run
	p.timer.Reset(p.window)
	resp.Body = p
	return resp, nil
}

// paced is a body that has to bring [MinBytesPerSecond] while somebody reads.
type paced struct {
	body    io.ReadCloser
	ctx     context.Context //nolint:containedctx // of this one body
	cancel  context.CancelCauseFunc
	window  time.Duration
	left    int64 // or negative: no bound here
	timer   *time.Timer
	got     atomic.Int64 // since the last judgement
	reading atomic.Bool
}

// judge runs once a window.
func (p *paced) judge() {
	least := int64(p.window/time.Millisecond) * MinBytesPerSecond / 1000
	if got := p.got.Swap(0); got < least && p.reading.Load() {
		p.cancel(errStalled)
		return
	}
	if p.ctx.Err() == nil {
		p.timer.Reset(p.window)
	}
}

// Read ends with an error when the body stalls.
func (p *paced) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if p.left > 0 {
		b = b[:min(int64(len(b)), p.left)]
	}
	p.reading.Store(true)
	n, err := p.body.Read(b)
	p.reading.Store(false)
	p.got.Add(int64(n))
	if p.left > 0 {
		p.left -= int64(n)
	}
	if err != nil && errors.Is(context.Cause(p.ctx), errStalled) {
		err = &container.Error{Code: container.CodeRegistry, Detail: fmt.Sprintf("less than %d bytes a second for %s", MinBytesPerSecond, p.window), Err: errStalled}
	}
	return n, err
}

// Close ends the answer.
func (p *paced) Close() error {
	p.timer.Stop()
	err := p.body.Close()
	p.cancel(nil)
	return err
}
