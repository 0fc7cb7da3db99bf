// Package client asks a running node over its HTTP API. A [Client] is a
// service.Service like the node itself.
//
// Start with [Dial]. The package keeps no state but the address and the token.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 16 << 20

// Client speaks to one node. It may be used from several goroutines.
type Client struct {
	address string // host:port
	token   string
	dir     string // that Dial read, or empty
	http    *http.Client
}

var _ service.Service = (*Client)(nil)

// Dial finds the node that runs on a data directory. It opens no connection
// yet. Errors match [service.CodeNoNode].
func Dial(dir string) (*Client, error) {
	address, err := os.ReadFile(filepath.Join(dir, api.AddressFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, notRunning(dir)
	}
	if err != nil {
		return nil, &service.Error{Code: service.CodeNoNode, Detail: "cannot read the node's address", Err: err}
	}
	token, err := os.ReadFile(filepath.Join(dir, api.TokenFile))
	if err != nil {
		return nil, &service.Error{Code: service.CodeNoNode, Detail: "cannot read the node's token", Err: err}
	}
	c := New(strings.TrimSpace(string(address)), strings.TrimSpace(string(token)))
	c.dir = dir
	return c, nil
}

// New returns a client of the node at a loopback address.
func New(address, token string) *Client {
	return &Client{address: address, token: token, http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 8,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
	}}}
}

func notRunning(dir string) error {
	return service.Errorf(service.CodeNoNode, "no node runs on %s; start one with \"pktcloud node --dir %s\"", dir, dir)
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request sends one and returns the answer with its body open, or the refusal.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, &service.Error{Code: service.CodeInvalid, Detail: "the request cannot be encoded", Err: err}
		}
		send = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: c.address, Path: api.Base + path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), send)
	if err != nil {
		return nil, &service.Error{Code: service.CodeInternal, Err: err}
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.transport(ctx, err)
	}
	if answer.StatusCode >= 400 {
		return nil, refusal(answer)
	}
	return answer, nil
}

func (c *Client) transport(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	start := "pktcloud node"
	if c.dir != "" {
		start += " --dir " + c.dir
	}
	return &service.Error{Code: service.CodeNoNode, Detail: "no node answers at " + c.address + "; start one with \"" + start + "\"", Err: err}
}

func refusal(answer *http.Response) error {
	defer answer.Body.Close()
	var p api.Problem
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&p); err != nil || p.Code == "" {
		return service.Errorf(service.CodeInternal, "the node answered %s", answer.Status)
	}
	text := []string{p.Detail}
	if len(p.Errors) > 0 && p.Detail == "validation failed" { // the API library's own words
		text = nil
	}
	for _, e := range p.Errors {
		_, word, _ := strings.Cut(e.Location, ".")
		text = append(text, cmp.Or(word, e.Location)+": "+e.Message)
	}
	return service.Errorf(p.Code, "%s", strings.Join(text, "; "))
}

func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	var v T
	answer, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return v, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&v); err != nil {
		return v, &service.Error{Code: service.CodeInternal, Detail: "the node's answer is malformed", Err: err}
	}
	return v, nil
}

func resourceQuery(r service.Resources) url.Values {
	q := url.Values{}
	for name, v := range map[string]uint64{"cpu": r.MilliCPU, "memory": r.MemoryBytes, "disk": r.DiskBytes} {
		if v != 0 {
			q.Set(name, strconv.FormatUint(v, 10))
		}
	}
	return q
}

// Offers asks for offers.
func (c *Client) Offers(ctx context.Context, o service.OfferQuery) (service.OfferPage, error) {
	q := resourceQuery(o.Resources)
	q.Set("max_rate", strconv.FormatUint(uint64(o.MaxRate), 10))
	q.Set("region", o.Region)
	q.Set("class", o.Class)
	q.Set("limit", strconv.Itoa(o.Limit))
	q.Set("cursor", o.Cursor)
	if o.Network.Egress {
		q.Set("egress", "true")
	}
	if o.Volumes {
		q.Set("volumes", "true")
	}
	q.Set("ports", strconv.FormatUint(o.Network.Ports, 10))
	q.Set("bandwidth", strconv.FormatUint(o.Network.BytesPerSecond, 10))
	return call[service.OfferPage](ctx, c, http.MethodGet, "/offers", q, nil)
}

// Offer asks for one offer.
func (c *Client) Offer(ctx context.Context, id pktcloud.ID, r service.Resources) (service.Offer, error) {
	return call[service.Offer](ctx, c, http.MethodGet, "/offers/"+id.String(), resourceQuery(r), nil)
}

// PublishOffer publishes an offer of the node.
func (c *Client) PublishOffer(ctx context.Context, s service.OfferSpec) (service.Offer, error) {
	return call[service.Offer](ctx, c, http.MethodPost, "/offers", nil, s)
}

// PullImage brings an image to the provider.
func (c *Client) PullImage(ctx context.Context, ref string) (service.Image, error) {
	return call[service.Image](ctx, c, http.MethodPost, "/images", nil, map[string]string{"ref": ref})
}

// Images lists the provider's images.
func (c *Client) Images(ctx context.Context) (service.ImageStore, error) {
	return call[service.ImageStore](ctx, c, http.MethodGet, "/images", nil, nil)
}

// PruneImages removes images that were not used for so long.
func (c *Client) PruneImages(ctx context.Context, unused time.Duration) (service.PrunedImages, error) {
	return call[service.PrunedImages](ctx, c, http.MethodPost, "/images/prune", nil, map[string]int64{"unused": int64(unused / time.Second)})
}

// CreateLease agrees a lease.
func (c *Client) CreateLease(ctx context.Context, r service.LeaseRequest) (service.Lease, error) {
	return call[service.Lease](ctx, c, http.MethodPost, "/leases", nil, r)
}

// Lease asks for one lease.
func (c *Client) Lease(ctx context.Context, name string) (service.Lease, error) {
	return call[service.Lease](ctx, c, http.MethodGet, leasePath(name), nil, nil)
}

// AwaitLease asks for one lease once its service runs, or never will.
func (c *Client) AwaitLease(ctx context.Context, name string, most time.Duration) (service.Lease, error) {
	q := url.Values{"wait": {strconv.FormatInt(int64(min(most, service.MaxWait)/time.Second), 10)}}
	return call[service.Lease](ctx, c, http.MethodGet, leasePath(name), q, nil)
}

func leasePath(name string) string { return "/leases/" + url.PathEscape(name) }

// Leases asks for all leases.
func (c *Client) Leases(ctx context.Context) ([]service.Lease, error) {
	return call[[]service.Lease](ctx, c, http.MethodGet, "/leases", nil, nil)
}

// CloseLease ends a lease.
func (c *Client) CloseLease(ctx context.Context, name string) (service.Lease, error) {
	return call[service.Lease](ctx, c, http.MethodPost, leasePath(name)+"/close", nil, nil)
}

// AmendLease changes a lease that runs.
func (c *Client) AmendLease(ctx context.Context, name string, r service.AmendRequest) (service.Amendment, error) {
	return call[service.Amendment](ctx, c, http.MethodPost, leasePath(name)+"/amend", nil, r)
}

// LeaseServices says how a lease's services stand.
func (c *Client) LeaseServices(ctx context.Context, name string) ([]service.Standing, error) {
	return call[[]service.Standing](ctx, c, http.MethodGet, leasePath(name)+"/services", nil, nil)
}

// LeaseMetrics says what a lease's services have used over time.
func (c *Client) LeaseMetrics(ctx context.Context, name string) ([]service.Metrics, error) {
	name, part, _ := strings.Cut(name, "/")
	return call[[]service.Metrics](ctx, c, http.MethodGet, leasePath(name)+"/metrics", url.Values{"service": {part}}, nil)
}

// LeaseVolumes says how a lease's volumes stand.
func (c *Client) LeaseVolumes(ctx context.Context, name string) ([]service.VolumeStanding, error) {
	return call[[]service.VolumeStanding](ctx, c, http.MethodGet, leasePath(name)+"/volumes", nil, nil)
}

// Logs copies log lines to w.
func (c *Client) Logs(ctx context.Context, name string, r service.LogRequest, w io.Writer) error {
	q := url.Values{"follow": {strconv.FormatBool(r.Follow)}, "tail": {strconv.Itoa(r.Tail)}}
	if !r.Since.IsZero() {
		q.Set("since", r.Since.UTC().Format(time.RFC3339Nano))
	}
	name, part, named := strings.Cut(name, "/")
	if named {
		q.Set("service", part)
	}
	answer, err := c.request(ctx, http.MethodGet, leasePath(name)+"/logs", q, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return c.transport(ctx, err)
	}
	return nil
}

// Towers asks how the towers are supplied.
func (c *Client) Towers(ctx context.Context) (service.TowerReport, error) {
	return call[service.TowerReport](ctx, c, http.MethodGet, "/towers", nil, nil)
}

// Deposit has all towers brought up to date.
func (c *Client) Deposit(ctx context.Context) (service.TowerReport, error) {
	return call[service.TowerReport](ctx, c, http.MethodPost, "/towers/deposits", nil, nil)
}

// Info asks about the node.
func (c *Client) Info(ctx context.Context) (service.Info, error) {
	return call[service.Info](ctx, c, http.MethodGet, "/info", nil, nil)
}

// Doctor asks what the machine lacks.
func (c *Client) Doctor(ctx context.Context) (service.Report, error) {
	return call[service.Report](ctx, c, http.MethodGet, "/doctor", nil, nil)
}

// LoginLink asks for a one-time address for a browser.
func (c *Client) LoginLink(ctx context.Context) (api.LoginLink, error) {
	return call[api.LoginLink](ctx, c, http.MethodPost, "/login-links", nil, nil)
}
