package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// What a lease request that leaves it open gets.
const (
	defaultTerm = 3600
	labelDigits = 8
	// probePath is what the tenant's own probe asks of a service with a port.
	probePath    = "/"
	probeSeconds = 5
)

// CreateLease agrees a lease under an offer.
func (n *Node) CreateLease(ctx context.Context, r service.LeaseRequest) (service.Lease, error) {
	offer, err := n.offer(r.Offer)
	if err != nil {
		return service.Lease{}, err
	}
	request, err := n.request(offer, r)
	if err != nil {
		return service.Lease{}, err
	}
	id, err := n.tenant.Create(ctx, request)
	if errors.Is(err, wallet.ErrFunds) {
		return service.Lease{}, n.tooLittle(ctx, err)
	}
	if err != nil && !errors.Is(err, peer.ErrUnanswered) { // an error would make people order twice
		return service.Lease{}, translate(err)
	}
	v, ok := n.tenant.Lease(id)
	if !ok {
		return service.Lease{}, service.Errorf(service.CodeInternal, "lease %s was agreed and is not there", id)
	}
	return n.leaseOf(ctx, v, n.labels()), nil
}

// tooLittle says what to do about money that is missing.
func (n *Node) tooLittle(ctx context.Context, err error) error {
	remedy := "send more to an address of \"pktcloud wallet address\""
	if b, e := n.WalletBalance(ctx); e == nil && b.Unconfirmed > 0 {
		remedy = "wait for the next block, which confirms what is on its way, or " + remedy
	}
	return &service.Error{Code: service.CodeMoney, Err: &told{plain(err).Error() + "; " + remedy, err}}
}

// request turns what the owner asked for into what lease/peer wants.
func (n *Node) request(offer pktcloud.Signed[market.Offer], r service.LeaseRequest) (peer.Request, error) {
	if r.MaxRate == 0 {
		return peer.Request{}, service.Errorf(service.CodeMoney, "say how much the lease may cost at most; no limit is not offered")
	}
	m, err := Manifest(r)
	if err != nil {
		return peer.Request{}, err
	}
	r.Resources = service.Resources(m.Resources())
	rate, err := offer.Body.Rate(m.Resources())
	if err != nil {
		return peer.Request{}, translate(err)
	}
	if err := lease.CheckNetwork(offer.Body, m); err != nil {
		return peer.Request{}, translate(err)
	}
	if rate > r.MaxRate {
		return peer.Request{}, service.Errorf(service.CodeMoney, "the offer costs %s an hour for these resources, your limit is %s; raise it or ask for less",
			pktcloud.Amount(rate), pktcloud.Amount(r.MaxRate))
	}
	secrets, err := credentialsOf(r.Credentials, m)
	if err != nil {
		return peer.Request{}, err
	}
	interval, term := periods(offer.Body, r)
	var limits service.ExposureRequest
	if r.Limits != nil {
		limits = *r.Limits
	} else {
		limits = Exposure(offer.Body, r, GivenExposure{})
	}
	if limits.CreditSeconds+limits.PrepaidSeconds == 0 {
		return peer.Request{}, service.Errorf(service.CodeInvalid, "with neither credit nor anything prepaid not one second can be served; raise one of the two limits")
	}
	price := func(seconds uint64) pktcloud.Amount {
		a, e := rate.For(seconds)
		if e != nil {
			err = e
		}
		return a
	}
	request := peer.Request{
		Offer: offer, Manifest: m, Credentials: secrets, IntervalSeconds: interval, TermSeconds: term, MaxRate: r.MaxRate, Rail: n.network.Rail,
		LifetimeBlocks: n.cfg.ChannelBlocks,
		Capacity:       r.Capacity,
		OwnChannel:     r.OwnChannel,
		Limits: lease.Limits{
			Credit: price(limits.CreditSeconds), Prepaid: price(limits.PrepaidSeconds), Unconfirmed: price(limits.UnconfirmedSeconds),
		},
	}
	if request.Capacity == 0 {
		// What the term costs, what may be prepaid, and what never leaves the
		// payer's side of the channel.
		request.Capacity = price(term) + request.Limits.Prepaid + DefaultReserve + n.network.Dust(make([]byte, 34))
	}
	request.Limits.Unconfirmed = min(request.Limits.Unconfirmed, request.Capacity) // more is never at risk
	if err != nil {
		return peer.Request{}, translate(err)
	}
	return request, nil
}

// Manifest is what a request wants to run: the manifest that it has, or one
// service, with whose end the lease ends.
func Manifest(r service.LeaseRequest) (lease.Manifest, error) {
	if r.Manifest != nil && (r.Image != "" || len(r.Command) != 0 || len(r.Env) != 0 || r.Port != 0 || r.Restart != "" ||
		len(r.Egress) != 0 || len(r.Publish) != 0 || r.Bandwidth != 0 || len(r.Volumes) != 0 || r.Resources != service.Resources{}) {
		return lease.Manifest{}, service.Errorf(service.CodeInvalid, "give either a manifest, or image, command, environment, port, resources, volumes and network of one service")
	}
	m := lease.Manifest{
		Version: lease.ManifestVersion,
		Services: []lease.Service{{
			Name: lease.DefaultServiceName, Image: r.Image, Args: r.Command, Env: r.Env, Resources: market.Resources(r.Resources),
			Restart: lease.Restart{Policy: cmp.Or(r.Restart, lease.RestartNo)},
		}},
		Probe: lease.Probe{Service: lease.DefaultServiceName, Port: uint64(r.Port), TimeoutSeconds: probeSeconds},
	}
	if r.Port != 0 {
		m.Services[0].Ports, m.Probe.HTTPPath = []uint64{uint64(r.Port)}, probePath
	}
	s, err := &m.Services[0], error(nil)
	s.Bandwidth = r.Bandwidth
	if s.Egress, err = manifest.Egress(r.Egress); err == nil {
		s.Publish, err = manifest.Publish(r.Publish)
	}
	if err != nil {
		return m, &service.Error{Code: service.CodeInvalid, Err: plain(err)}
	}
	for _, v := range r.Volumes {
		m.Volumes = append(m.Volumes, lease.Volume{Name: v.Name, SizeBytes: v.Size})
		m.Services[0].Mounts = append(m.Services[0].Mounts, lease.Mount{Volume: v.Name, Path: v.Path})
	}
	if r.Manifest != nil {
		m = *r.Manifest
		m.Version = lease.ManifestVersion
		m.Services = slices.Clone(m.Services)
	}
	if r.Class != "" {
		m.Demand(r.Class)
	}
	for i, v := range m.Services {
		if at := strings.LastIndex(v.Image, "@sha256:"); at > 0 && v.Digest == "" {
			m.Services[i].Digest = v.Image[at+1:]
		}
	}
	if err := m.Validate(); err != nil {
		return m, &service.Error{Code: service.CodeInvalid, Err: plain(err)}
	}
	return m, nil
}

// periods are the interval and the term that a request asks for or gets.
func periods(o market.Offer, r service.LeaseRequest) (interval, term uint64) {
	interval = cmp.Or(r.IntervalSeconds, max(lease.DefaultIntervalSeconds, o.Limits.MinIntervalSeconds))
	return interval, cmp.Or(r.TermSeconds, min(max(defaultTerm, o.MinTermSeconds), o.MaxTermSeconds))
}

// GivenExposure are the limits that somebody chose, in seconds of price; nil
// means the default.
type GivenExposure struct{ Credit, Prepaid, Unconfirmed *uint64 }

// Exposure returns the limits of a request under an offer: what was given, and
// the default for each of the others.
func Exposure(o market.Offer, r service.LeaseRequest, given GivenExposure) service.ExposureRequest {
	interval, term := periods(o, r)
	or := func(p *uint64, otherwise uint64) uint64 {
		if p != nil {
			return *p
		}
		return otherwise
	}
	e := service.ExposureRequest{
		CreditSeconds:      or(given.Credit, min(max(lease.DefaultCreditSeconds, 2*interval), o.Limits.MaxCreditSeconds)),
		UnconfirmedSeconds: or(given.Unconfirmed, min(lease.DefaultUnconfirmed, term)),
	}
	e.PrepaidSeconds = or(given.Prepaid, interval-min(interval, e.CreditSeconds)) // only what the credit leaves open
	return e
}

// views returns all leases of both roles, newest first.
func (n *Node) views() []peer.View {
	views := n.tenant.List()
	if n.provider != nil {
		views = append(views, n.provider.List()...)
	}
	newestFirst(views)
	return views
}

// newestFirst orders leases that come oldest first from each role: those of one
// second too.
func newestFirst(views []peer.View) {
	slices.Reverse(views)
	slices.SortStableFunc(views, func(a, b peer.View) int { return cmp.Compare(b.Agreed, a.Agreed) })
}

// labels returns a short unique name for each lease.
func (n *Node) labels() map[pktcloud.ID]string {
	taken := map[string]pktcloud.ID{}
	views := n.views()
	slices.SortStableFunc(views, func(a, b peer.View) int { return cmp.Compare(a.Agreed, b.Agreed) })
	labels := map[pktcloud.ID]string{}
	for _, v := range views { // the older one keeps the shorter name
		name := v.ID.Hex()
		size := labelDigits
		for ; size < len(name); size++ {
			if other, ok := taken[name[:size]]; !ok || other == v.ID {
				break
			}
		}
		taken[name[:size]], labels[v.ID] = v.ID, name[:size]
	}
	return labels
}

// find returns the one lease that a name means: an id, or a beginning of its
// hexadecimal form.
func (n *Node) find(name string) (peer.View, error) {
	if id, err := pktcloud.ParseID(name); err == nil {
		name = id.Hex()
	}
	name = strings.ToLower(name)
	var found []peer.View
	for _, v := range n.views() {
		if name == "" || !strings.HasPrefix(v.ID.Hex(), name) {
			continue
		}
		if n.labels()[v.ID] == name {
			return v, nil
		}
		found = append(found, v)
	}
	switch len(found) {
	case 0:
		return peer.View{}, service.Errorf(service.CodeNotFound, "no lease %q; list them with \"pktcloud lease list\"", name)
	case 1:
		return found[0], nil
	}
	return peer.View{}, service.Errorf(service.CodeAmbiguous, "%q fits %d leases; give more of the name", name, len(found))
}

// Lease returns one lease.
func (n *Node) Lease(ctx context.Context, name string) (service.Lease, error) {
	v, err := n.find(name)
	if err != nil {
		return service.Lease{}, err
	}
	return n.withServices(ctx, v, n.leaseOf(ctx, v, n.labels()), true), nil
}

// AwaitLease returns a lease once its service runs, or never will.
func (n *Node) AwaitLease(ctx context.Context, name string, most time.Duration) (service.Lease, error) {
	v, err := n.find(name)
	if err != nil {
		return service.Lease{}, err
	}
	of, subscribe := n.tenant.Lease, n.tenant.Subscribe
	if v.Role == lease.RoleProvider {
		of, subscribe = n.provider.Lease, n.provider.Subscribe
	}
	changes, cancel := subscribe()
	defer cancel()
	late := time.NewTimer(min(most, service.MaxWait))
	defer late.Stop()
	for waiting := true; waiting; {
		if v, _ = of(v.ID); v.Phase >= lease.Active {
			break
		}
		select {
		case <-changes:
		case <-late.C:
			waiting = false
		case <-ctx.Done():
			return service.Lease{}, translate(ctx.Err())
		}
	}
	return n.leaseOf(ctx, v, n.labels()), nil
}

// Leases returns all leases, newest first.
func (n *Node) Leases(ctx context.Context) ([]service.Lease, error) {
	labels, out := n.labels(), []service.Lease{}
	for _, v := range n.views() {
		out = append(out, n.withServices(ctx, v, n.leaseOf(ctx, v, labels), false))
	}
	return out, nil
}

// CloseLease ends a lease. It is idempotent.
func (n *Node) CloseLease(ctx context.Context, name string) (service.Lease, error) {
	v, err := n.find(name)
	if err != nil {
		return service.Lease{}, err
	}
	if !v.Phase.Final() {
		if v.Role == lease.RoleProvider {
			err = n.provider.Close(ctx, v.ID)
		} else {
			err = n.tenant.Close(ctx, v.ID)
		}
		if errors.Is(err, peer.ErrUnanswered) {
			err = nil // the lease says what becomes of it
		}
		if err != nil {
			return service.Lease{}, translate(err)
		}
	}
	return n.Lease(ctx, v.ID.String())
}

// leaseOf shows a lease.
func (n *Node) leaseOf(ctx context.Context, v peer.View, labels map[pktcloud.ID]string) service.Lease {
	t := v.Terms
	other := t.Provider
	if v.Role == lease.RoleProvider {
		other = t.Tenant
	}
	l := service.Lease{
		ID: v.ID, Label: cmp.Or(labels[v.ID], v.ID.Hex()[:labelDigits]), Role: v.Role.String(), Phase: v.Phase.String(), Peer: other, Connected: v.Connected, Offer: t.Offer,
		Image: v.Manifest.ProbeService().Image, Port: uint16(v.Manifest.Probe.Port), Class: v.Manifest.Isolation(), Resources: service.Resources(t.Resources), Rate: t.Rate,
		Interval: t.IntervalSeconds, Term: t.TermSeconds, Created: v.Agreed, Ends: v.Agreed + int64(t.TermSeconds),
		Revision: v.Revision, Amending: v.Amending != nil,
		Served: v.Served, Intervals: v.Sequence, Due: v.Due, Paid: v.Paid, CloseReason: string(v.Reason), Problem: problemOf(v),
		Exposure: []service.Exposure{
			{Name: "credit", Bears: "provider", Now: v.Exposure.Credit, Peak: v.Max.Credit, Limit: t.Limits.Credit},
			{Name: "prepaid", Bears: "tenant", Now: v.Exposure.Prepaid, Peak: v.Max.Prepaid, Limit: t.Limits.Prepaid},
			{Name: "unconfirmed", Bears: "provider", Now: v.Exposure.Unconfirmed, Peak: v.Max.Unconfirmed, Limit: t.Limits.Unconfirmed},
		},
		History: []service.Entry{}, Services: []service.LeaseService{}, Volumes: service.VolumesOf(v.Manifest),
	}
	for _, s := range v.Manifest.Services {
		out := service.LeaseService{Name: s.Name, Image: s.Image, Job: s.Job, Ports: []uint16{}, Resources: service.Resources(s.Resources)}
		for _, p := range s.Ports {
			out.Ports = append(out.Ports, uint16(p))
		}
		out.Egress, out.Bandwidth = s.Egress, s.Bandwidth
		for _, p := range s.Publish {
			out.Publish = append(out.Publish, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
		l.Services = append(l.Services, out)
	}
	if !v.Fault.IsZero() {
		l.Fault = &service.Fault{Code: string(v.Fault.Code), Text: v.Fault.Text}
	}
	if v.Role == lease.RoleTenant && v.Phase.Running() && l.Port != 0 && n.cfg.ProxyPort != 0 {
		l.Endpoint = fmt.Sprintf("http://web.%s.localhost:%d/", l.Label, n.cfg.ProxyPort)
	}
	for _, e := range v.Events {
		l.History = append(l.History, service.Entry{Time: e.At, Kind: e.Kind, Text: cmp.Or(strings.TrimSuffix(e.Text, ": "), e.Phase.String())})
	}
	if !v.Channel.IsZero() {
		l.Channel = n.channelOf(ctx, n.lastOf(v.Channel))
	}
	return l
}

// lastOf is what a channel rolled into at last: it pays out what the channel paid.
func (n *Node) lastOf(channel pktcloud.ID) pktcloud.ID {
	if links := n.manager.Successors(channel); len(links) > 0 {
		if id, err := links[len(links)-1].ID(); err == nil {
			return id
		}
	}
	return channel
}

// channelOf shows a lease's channel; what is not known stays zero.
func (n *Node) channelOf(ctx context.Context, id pktcloud.ID) service.Channel {
	c := service.Channel{ID: id}
	s, err := n.manager.Status(ctx, id)
	if err != nil {
		n.cfg.Log.Debug("a lease's channel", "channel", id, "error", err)
		return c
	}
	c.Capacity, c.Paid, c.Phase, c.Depth, c.Closed = s.Params.Capacity, s.Paid, s.Phase.String(), s.Depth, s.ClosingDepth
	c.Funding, c.Closing, c.Reserve = txid(s.FundingTxID), txid(s.ClosingTxID), s.Params.Reserve
	if c.Closing != "" {
		if end, ok := n.endOf(ctx, s); ok {
			c.Claimed, c.Fee = end.Payee, end.Fee
		}
	}
	return c
}

// txid is a transaction's id as people write it, or nothing.
func txid(id [32]byte) string {
	if id == ([32]byte{}) {
		return ""
	}
	slices.Reverse(id[:])
	return hex.EncodeToString(id[:])
}
