// Package servicetest has an in-memory twin of a node's service, for tests of
// what is built on it: the API, the web pages, the command line.
//
// Start with [New].
package servicetest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Twin is a node that only pretends. Its fields may be set before it is used.
type Twin struct {
	// Page is what the one service of every lease answers over HTTP.
	Page string
	// Now is the clock.
	Now func() time.Time

	mu       sync.Mutex // guards all below
	offers   []service.Offer
	leases   []service.Lease
	requests []service.LeaseRequest // of the leases
	wait     map[chan service.Event]struct{}
	sequence uint64
	money    money
}

var _ service.Service = (*Twin)(nil)

// New returns a twin with two offers and no lease.
func New() *Twin {
	t := &Twin{
		Page: "<!doctype html><title>It works</title><h1>It works</h1>",
		Now:  time.Now, wait: map[chan service.Event]struct{}{},
	}
	for i, region := range []string{"DE-BE", "FI"} {
		classes := [][]string{{"userns"}, {"gvisor", "userns"}}[i]
		t.offers = append(t.offers, t.offer(uint64(i), region, classes, pktcloud.Rate(20_000_000+9_000_000*i)))
	}
	return t
}

// Key returns one of the twin's keys.
func Key(n byte) pktcloud.PrivateKey { return pktcloud.NewPrivateKey([32]byte{31: n}) }

func (t *Twin) offer(slot uint64, region string, classes []string, price pktcloud.Rate) service.Offer {
	provider := Key(byte(slot + 1)).Public()
	now := t.Now().Unix()
	body := market.Offer{
		Version: market.OfferVersion, Provider: provider, Device: provider, Slot: slot, Sequence: 1,
		Issued: now, Expires: now + 3600, Region: region,
		Addresses:      []string{"/ip4/127.0.0.1/tcp/4001/p2p/" + provider.PeerID()},
		Capacity:       market.Resources{MilliCPU: 4000, MemoryBytes: 8 << 30, DiskBytes: 100 << 30},
		Prices:         market.Prices{CPUPerCoreHour: price, MemoryPerGiBHour: price / 4, DiskPerGiBHour: price / 100},
		Rails:          []market.Rail{{Name: "pkt-devnet", MinDepth: 1, MaxUnconfirmed: 1 << 30, MaxCapacity: 1 << 40}},
		Limits:         market.Limits{MaxCreditSeconds: 60, MinIntervalSeconds: 1},
		MinTermSeconds: 60, MaxTermSeconds: 30 * 24 * 3600, Isolation: classes, Software: "pktcloud",
		Network: market.Network{Egress: slot%2 == 0, Ports: 10 * slot}, Volumes: slot%2 == 0,
	}
	b, err := pktcloud.Marshal(body)
	if err != nil {
		panic(err) // the twin's own record
	}
	return service.Offer{ID: pktcloud.IDOf(b), Body: body}
}

// Offers returns those with the capacity, the network, the region and the price.
func (t *Twin) Offers(_ context.Context, q service.OfferQuery) (service.OfferPage, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	page := service.OfferPage{Offers: []service.Offer{}}
	for _, o := range t.offers {
		want := market.Resources(q.Resources)
		o.Rate = rate(o, q.Resources)
		if want.Within(o.Body.Capacity) && q.Network.Within(o.Body.Network) && (!q.Volumes || o.Body.Volumes) && (q.MaxRate == 0 || o.Rate <= q.MaxRate) && strings.HasPrefix(o.Body.Region, q.Region) &&
			(q.Class == "" || slices.Contains(o.Body.Isolation, q.Class)) {
			page.Offers = append(page.Offers, o)
		}
	}
	if len(page.OffersOfOthers()) == 0 {
		lacks := market.Explain(func(yield func(market.Offer) bool) {
			for _, o := range t.offers {
				if !o.Own && !yield(o.Body) {
					return
				}
			}
		}, market.Query{For: market.Resources(q.Resources), MaxRate: q.MaxRate, Region: q.Region, Isolation: q.Class, Network: q.Network, Volumes: q.Volumes})
		page.Lacks = &lacks
	}
	return page, nil
}

func rate(o service.Offer, r service.Resources) pktcloud.Rate {
	if r == (service.Resources{}) {
		r = service.Resources(market.Reference)
	}
	v, err := o.Body.Rate(market.Resources(r))
	if err != nil {
		panic(err) // the twin's own prices
	}
	return v
}

// Offer returns one offer.
func (t *Twin) Offer(_ context.Context, id pktcloud.ID, r service.Resources) (service.Offer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.offers {
		if o.ID == id {
			o.Rate = rate(o, r)
			return o, nil
		}
	}
	return service.Offer{}, service.Errorf(service.CodeNotFound, "no offer %s", id)
}

// PublishOffer adds an offer.
func (t *Twin) PublishOffer(_ context.Context, s service.OfferSpec) (service.Offer, error) {
	o := t.offer(s.Slot+2, s.Region, []string{"userns"}, s.CPUPerCoreHour)
	o.Own = true
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offers = append(t.offers, o)
	return o, nil
}

// PullImage has every image.
func (t *Twin) PullImage(_ context.Context, ref string) (service.Image, error) {
	return service.Image{Ref: ref, Digest: "sha256:" + strings.Repeat("0", 64), SizeBytes: 1}, nil
}

// Images has one image.
func (t *Twin) Images(context.Context) (service.ImageStore, error) {
	return service.ImageStore{
		Images: []service.StoredImage{{
			Image:         service.Image{Ref: "example/x:1", Digest: "sha256:" + strings.Repeat("0", 64), SizeBytes: 1},
			UnpackedBytes: 2, Layers: 1, InUse: true, LastUsed: 1_790_000_000,
		}},
		UsedBytes: 3, MaxBytes: 4,
	}, nil
}

// PruneImages removes nothing: its image is in use.
func (t *Twin) PruneImages(context.Context, time.Duration) (service.PrunedImages, error) {
	return service.PrunedImages{Digests: []string{}}, nil
}

// Requests returns what was asked for in each lease.
func (t *Twin) Requests() []service.LeaseRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.requests)
}

// CreateLease makes a lease that is active at once.
func (t *Twin) CreateLease(ctx context.Context, r service.LeaseRequest) (service.Lease, error) {
	services := []service.LeaseService{{Name: "web", Image: r.Image, Ports: []uint16{}, Resources: r.Resources}}
	var volumes []service.LeaseVolume
	for _, v := range r.Volumes {
		volumes = append(volumes, service.LeaseVolume{Name: v.Name, Size: v.Size, Mounts: []service.LeaseMount{{Service: "web", Path: v.Path}}})
	}
	if r.Manifest != nil {
		volumes = service.VolumesOf(*r.Manifest)
		r.Resources, r.Image = service.Resources(r.Manifest.Resources()), r.Manifest.ProbeService().Image
		services = nil
		for _, s := range r.Manifest.Services {
			services = append(services, service.LeaseService{Name: s.Name, Image: s.Image, Job: s.Job, Ports: []uint16{}, Resources: service.Resources(s.Resources)})
		}
	}
	o, err := t.Offer(ctx, r.Offer, r.Resources)
	if err != nil {
		return service.Lease{}, err
	}
	if o.Rate > r.MaxRate {
		return service.Lease{}, service.Errorf(service.CodeMoney, "the offer costs %s an hour, your limit is %s", pktcloud.Amount(o.Rate), pktcloud.Amount(r.MaxRate))
	}
	if r.Class != "" && !slices.Contains(o.Body.Isolation, r.Class) {
		return service.Lease{}, service.Errorf(service.CodeRefused, "the lease demands isolation %s, the offer has %s", r.Class, strings.Join(o.Body.Isolation, " and "))
	}
	if strings.Contains(r.Image, "no-such") {
		return service.Lease{}, service.Errorf(service.CodeRefused, "the provider refused: image %s: there is no such image", r.Image)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests = append(t.requests, r)
	id := pktcloud.IDOf(fmt.Appendf(nil, "lease %d", len(t.leases)))
	now := t.Now().Unix()
	l := service.Lease{
		ID: id, Label: id.Hex()[:8], Role: "tenant", Phase: "active", Peer: o.Body.Provider, Connected: true, Offer: o.ID, Image: r.Image, Port: r.Port,
		Class: r.Class, Resources: r.Resources, Rate: o.Rate, Interval: max(r.IntervalSeconds, 1), Term: r.TermSeconds, Created: now, Ends: now + int64(r.TermSeconds),
		Served: 42, Intervals: 42, Due: 303_030, Paid: 300_000,
		Exposure: []service.Exposure{
			{Name: "credit", Bears: "provider", Now: 3_030, Peak: 7_215, Limit: 14_430},
			{Name: "prepaid", Bears: "tenant", Now: 0, Peak: 0, Limit: 7_215},
			{Name: "unconfirmed", Bears: "provider", Now: 300_000, Peak: 300_000, Limit: 6_493_500},
		},
		Channel:  service.Channel{ID: id, Capacity: 30_000_000, Paid: 300_000, Phase: "open", Funding: strings.Repeat("ab", 32)},
		Services: services, Volumes: volumes,
		History: []service.Entry{
			{Time: now * 1000, Kind: "agreed", Text: "The provider acknowledged the lease."},
			{Time: now*1000 + 412, Kind: "active", Text: "The service answered for the first time."},
		},
	}
	if r.Port != 0 {
		l.Endpoint = "http://web." + l.Label + ".localhost:7391/"
	}
	t.leases = append(t.leases, l)
	t.tell(service.Event{Kind: "lease", Lease: l.Label, Text: "active"})
	return l, nil
}

func (t *Twin) find(name string) (int, error) {
	for i, l := range t.leases {
		if name != "" && (strings.HasPrefix(l.Label, name) || l.ID.String() == name) {
			return i, nil
		}
	}
	return 0, service.Errorf(service.CodeNotFound, "no lease %q", name)
}

// Lease returns one lease.
func (t *Twin) Lease(_ context.Context, name string) (service.Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, err := t.find(name)
	if err != nil {
		return service.Lease{}, err
	}
	return t.leases[i], nil
}

// AwaitLease returns one lease, as it is: the twin's never wait.
func (t *Twin) AwaitLease(ctx context.Context, name string, _ time.Duration) (service.Lease, error) {
	return t.Lease(ctx, name)
}

// Leases returns all leases.
func (t *Twin) Leases(context.Context) ([]service.Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]service.Lease{}, t.leases...), nil
}

// CloseLease closes a lease.
func (t *Twin) CloseLease(_ context.Context, name string) (service.Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, err := t.find(name)
	if err != nil {
		return service.Lease{}, err
	}
	t.leases[i].Phase, t.leases[i].CloseReason, t.leases[i].Endpoint = "closed", "requested", ""
	t.tell(service.Event{Kind: "lease", Lease: t.leases[i].Label, Text: "closed"})
	return t.leases[i], nil
}

// AmendLease changes it at once, at the price of its offer.
func (t *Twin) AmendLease(_ context.Context, name string, r service.AmendRequest) (service.Amendment, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, err := t.find(name)
	if err != nil {
		return service.Amendment{}, err
	}
	l := t.leases[i]
	if l.Phase != "active" {
		return service.Amendment{}, service.Errorf(service.CodeConflict, "the lease is %s; only one that runs is amended", l.Phase)
	}
	terms := func(l service.Lease) service.LeaseTerms {
		return service.LeaseTerms{Rate: l.Rate, Resources: l.Resources, Term: l.Term}
	}
	out := service.Amendment{Lease: l.Label, Revision: l.Revision + 1, Before: terms(l)}
	l.Resources.MilliCPU = cmp.Or(r.Resources.MilliCPU, l.Resources.MilliCPU)
	l.Resources.MemoryBytes = cmp.Or(r.Resources.MemoryBytes, l.Resources.MemoryBytes)
	l.Resources.DiskBytes = cmp.Or(r.Resources.DiskBytes, l.Resources.DiskBytes)
	l.Volumes = slices.Clone(l.Volumes)
	for j, v := range l.Volumes {
		if size, ok := r.Volumes[v.Name]; ok {
			l.Resources.DiskBytes += size - v.Size
			l.Volumes[j].Size = size
		}
	}
	l.Term, l.Revision = cmp.Or(r.Term, l.Term), l.Revision+1
	for _, o := range t.offers {
		if o.ID == l.Offer {
			l.Rate = rate(o, l.Resources)
		}
	}
	out.After = terms(l)
	if out.Before == out.After {
		return service.Amendment{}, service.Errorf(service.CodeInvalid, "the amendment changes nothing")
	}
	if !r.Plan && l.Rate > r.MaxRate {
		return service.Amendment{}, service.Errorf(service.CodeMoney, "it would cost %s an hour, at most %s is allowed", pktcloud.Amount(l.Rate), pktcloud.Amount(r.MaxRate))
	}
	if !r.Plan {
		t.leases[i] = l
	}
	return out, nil
}

// LeaseServices has a web service that runs and a job that is done.
func (t *Twin) LeaseServices(ctx context.Context, name string) ([]service.Standing, error) {
	l, err := t.Lease(ctx, name)
	if err != nil {
		return nil, err
	}
	exit, since := 0, l.Created
	return []service.Standing{
		{Name: "web", State: "running", Health: "healthy", Restarts: 2, Exit: new(137), OOM: true, Since: since, CPU: 1500, Memory: 64 << 20, Network: &service.StandingNetwork{
			BytesIn: 1 << 20, BytesOut: 1000, Refused: 3, Open: 1, Published: []service.PublishedAt{{Port: 8080, Protocol: "tcp", Address: "203.0.113.9:20017"}},
		}},
		{Name: "migrate", Job: true, State: "done", Exit: &exit, Since: since, Text: "ended with exit code 0"},
	}, nil
}

// LeaseVolumes has the lease's volumes, each three quarters full.
func (t *Twin) LeaseVolumes(ctx context.Context, name string) ([]service.VolumeStanding, error) {
	l, err := t.Lease(ctx, name)
	if err != nil {
		return nil, err
	}
	out := []service.VolumeStanding{}
	for _, v := range l.Volumes {
		out = append(out, service.VolumeStanding{LeaseVolume: v, Free: v.Size / 4, Ready: true})
	}
	return out, nil
}

// base is the lease of LEASE/SERVICE.
func base(name string) string {
	lease, _, _ := strings.Cut(name, "/")
	return lease
}

// Exec echoes: "where" says by which name it was called, "cat" copies its input, "false" fails, others print themselves.
func (t *Twin) Exec(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
	if _, err := t.Lease(ctx, base(name)); err != nil {
		return 0, err
	}
	switch {
	case len(r.Args) == 1 && r.Args[0] == "where":
		_, err := fmt.Fprintln(s.Stdout, name)
		return 0, err
	case r.Files:
		return 0, service.Errorf(service.CodeMissing, "the twin has no files")
	case len(r.Args) == 0:
		return 0, service.Errorf(service.CodeInvalid, "no program to run")
	case r.Args[0] == "false":
		fmt.Fprintln(s.Stderr, "failed as asked")
		return 3, nil
	case r.Args[0] == "cat":
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 0, err
	}
	_, err := fmt.Fprintln(s.Stdout, strings.Join(r.Args, " "))
	return 0, err
}

// Logs writes three lines, and a line a second while it follows.
func (t *Twin) Logs(ctx context.Context, name string, r service.LogRequest, w io.Writer) error {
	if _, err := t.Lease(ctx, base(name)); err != nil {
		return err
	}
	_, of, named := strings.Cut(name, "/")
	if named {
		of = " of " + of
	}
	for i := 0; i < 3 || r.Follow; i++ {
		if i >= 3 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if _, err := fmt.Fprintf(w, "%s stdout line %d <of the log>%s\n", t.Now().UTC().Format("2006-01-02T15:04:05.000000000Z"), i, of); err != nil {
			return err
		}
	}
	return nil
}

// Forward answers HTTP with Page.
func (t *Twin) Forward(ctx context.Context, name string, _ uint16) (net.Conn, error) {
	if _, err := t.Lease(ctx, base(name)); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		buf := make([]byte, 4096)
		if _, err := far.Read(buf); err == nil {
			fmt.Fprintf(far, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(t.Page), t.Page)
		}
	}()
	return near, nil
}

// Towers returns one tower that has everything.
func (t *Twin) Towers(context.Context) (service.TowerReport, error) {
	return service.TowerReport{
		Towers: []service.TowerSupply{{Address: "/ip4/203.0.113.9/tcp/4001/p2p/" + Key(9).Public().PeerID(), Receipts: 2}},
		Every:  10_000_000, Kept: &service.TowerKept{Deposits: 3, Bytes: 4_000, Ended: 1},
	}, nil
}

// Deposit changes nothing.
func (t *Twin) Deposit(ctx context.Context) (service.TowerReport, error) { return t.Towers(ctx) }

// Info tells about the twin.
func (t *Twin) Info(context.Context) (service.Info, error) {
	k := Key(9).Public()
	return service.Info{
		Version: "test", Identity: k, Device: k, PeerID: k.PeerID(), Peers: 3, Network: "pkt-devnet", Height: 4711,
		Addresses: []string{"/ip4/127.0.0.1/tcp/4001/p2p/" + k.PeerID()},
	}, nil
}

// Doctor finds root missing.
func (t *Twin) Doctor(context.Context) (service.Report, error) {
	return service.Report{OK: true, Checks: []service.Check{
		{Name: "root", Needed: "provider", Detail: "the node runs as an ordinary user", Remedy: "start it as root to offer containers"},
	}}, nil
}

func (t *Twin) tell(e service.Event) {
	t.sequence++
	e.Sequence, e.Time = t.sequence, t.Now().UnixMilli()
	for ch := range t.wait {
		select {
		case ch <- e:
		default:
		}
	}
}

// Events reports what the twin does.
func (t *Twin) Events(ctx context.Context, fn func(service.Event) error) error {
	ch := make(chan service.Event, 16)
	t.mu.Lock()
	t.wait[ch] = struct{}{}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.wait, ch)
		t.mu.Unlock()
	}()
	for {
		select {
		case e := <-ch:
			if err := fn(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Update changes a lease and tells of it.
func (t *Twin) Update(name string, change func(*service.Lease)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, err := t.find(name)
	if err != nil {
		return err
	}
	l := t.leases[i]
	l.Exposure = slices.Clone(l.Exposure)
	change(&l)
	t.leases[i] = l
	t.tell(service.Event{Kind: "lease", Lease: l.Label, Text: l.Phase})
	return nil
}
