package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Limits that every offer of this node states.
const (
	offerPrefix        = "node/offer/"
	maxCreditSeconds   = 300
	minIntervalSeconds = 1
	defaultMaxTerm     = 30 * 24 * 3600
	// unconfirmedSeconds is how much service an offer accepts on funding below
	// its depth.
	unconfirmedSeconds = 3600
)

// ownOffers are the offers of this node: what the owner asked for, durable,
// and the records made from it that have not expired.
type ownOffers struct {
	mu     sync.Mutex // guards all below
	slots  map[uint64]ownOffer
	issued map[pktcloud.ID]pktcloud.Signed[market.Offer]
}

// ownOffer is what the owner asked for in a slot, and the last record.
type ownOffer struct {
	Spec   offerSpec                     `cbor:"spec"`
	Record pktcloud.Signed[market.Offer] `cbor:"record"`
}

// offerSpec is a service.OfferSpec as it is stored.
type offerSpec struct {
	Region   string           `cbor:"region"`
	Capacity market.Resources `cbor:"capacity"`
	Prices   market.Prices    `cbor:"prices"`
	MinTerm  uint64           `cbor:"min_term"`
	MaxTerm  uint64           `cbor:"max_term"`
	Lifetime uint64           `cbor:"lifetime"`
}

func (n *Node) loadOffers(ctx context.Context) error {
	n.own.slots, n.own.issued = map[uint64]ownOffer{}, map[pktcloud.ID]pktcloud.Signed[market.Offer]{}
	return n.store.Load(ctx, offerPrefix, func(key string, value []byte) error {
		var o ownOffer
		if err := pktcloud.Unmarshal(value, &o, pktcloud.MaxRecordBytes); err != nil {
			return fmt.Errorf("stored offer %s: %w", key, err)
		}
		id, err := o.Record.ID()
		if err != nil {
			return err
		}
		n.own.slots[o.Record.Body.Slot], n.own.issued[id] = o, o.Record
		return nil
	})
}

// Offers returns offers that match, cheapest first.
func (n *Node) Offers(_ context.Context, q service.OfferQuery) (service.OfferPage, error) {
	want := market.Resources(q.Resources)
	if err := want.Validate(); err != nil {
		return service.OfferPage{}, translate(err)
	}
	if q.Limit > market.MaxQueryLimit {
		return service.OfferPage{}, service.Errorf(service.CodeInvalid, "at most %d offers at once", market.MaxQueryLimit)
	}
	query := market.Query{
		For: want, MaxRate: q.MaxRate, Region: q.Region, Isolation: q.Class, Rail: n.network.Rail, Network: q.Network, Volumes: q.Volumes, Limit: q.Limit, Cursor: q.Cursor,
	}
	page, err := n.book.Query(query, time.Now())
	if err != nil {
		return service.OfferPage{}, translate(err)
	}
	out := service.OfferPage{Offers: []service.Offer{}, Next: page.Next}
	for _, l := range page.Listings {
		n.shown.remember(l.ID, l.Offer)
		out.Offers = append(out.Offers, service.Offer{ID: l.ID, Rate: l.Rate, Own: l.Offer.Body.Device == n.device.Public(), Body: l.Offer.Body})
	}
	if q.Cursor == "" && out.Next == "" && len(out.OffersOfOthers()) == 0 {
		lacks := market.Explain(n.offersOfOthers(), query)
		out.Lacks = &lacks
	}
	return out, nil
}

// offersOfOthers yields what is offered by other devices than this one.
func (n *Node) offersOfOthers() iter.Seq[market.Offer] {
	return func(yield func(market.Offer) bool) {
		for o := range n.book.All(time.Now()) {
			if o.Device != n.device.Public() && !yield(o) {
				return
			}
		}
	}
}

// Offer returns one offer, priced for r.
func (n *Node) Offer(_ context.Context, id pktcloud.ID, r service.Resources) (service.Offer, error) {
	signed, err := n.offer(id)
	if err != nil {
		return service.Offer{}, err
	}
	n.shown.remember(id, signed)
	want := market.Resources(r)
	if want.IsZero() {
		want = market.Reference
	}
	rate, err := signed.Body.Rate(want)
	if err != nil {
		return service.Offer{}, translate(err)
	}
	return service.Offer{ID: id, Rate: rate, Own: signed.Body.Device == n.device.Public(), Body: signed.Body}, nil
}

func (n *Node) offer(id pktcloud.ID) (pktcloud.Signed[market.Offer], error) {
	signed, ok := n.book.Offer(id)
	if !ok {
		signed, ok = n.shown.get(id)
	}
	if !ok {
		return signed, service.Errorf(service.CodeNotFound, "no offer %s is known; it may have been replaced or have expired: look at the market again", id)
	}
	err := market.Admit(signed.Body, time.Now())
	if errors.Is(err, market.CodeExpired) {
		return signed, service.Errorf(service.CodeExpired, "the offer %v; look at the market again", plain(err))
	}
	return signed, translate(err)
}

// PublishOffer signs an offer of this node and tells the peers.
func (n *Node) PublishOffer(ctx context.Context, s service.OfferSpec) (service.Offer, error) {
	if n.provider == nil {
		return service.Offer{}, service.Errorf(service.CodeMissing, "this node rents only; start it with --provider to offer")
	}
	spec := offerSpec{
		Region: s.Region, Capacity: market.Resources(s.Capacity), MinTerm: s.MinTermSeconds, MaxTerm: s.MaxTermSeconds, Lifetime: s.LifetimeSeconds,
		Prices: market.Prices{CPUPerCoreHour: s.CPUPerCoreHour, MemoryPerGiBHour: s.MemoryPerGiBHour, DiskPerGiBHour: s.DiskPerGiBHour},
	}
	whole := machine(n.cfg.Dir)
	for _, part := range []struct{ given, has *uint64 }{
		{&spec.Capacity.MilliCPU, &whole.MilliCPU}, {&spec.Capacity.MemoryBytes, &whole.MemoryBytes}, {&spec.Capacity.DiskBytes, &whole.DiskBytes},
	} {
		*part.given = cmp.Or(*part.given, *part.has) // nobody rents what has no processor or no memory
	}
	if err := withinMachine(spec.Capacity, n.cfg.Dir); err != nil {
		return service.Offer{}, err
	}
	if spec.MaxTerm == 0 {
		spec.MaxTerm = defaultMaxTerm
	}
	if spec.Lifetime == 0 {
		spec.Lifetime = uint64(DefaultOfferLifetime / time.Second)
	}
	return n.publish(ctx, s.Slot, spec)
}

// publish issues the slot's next record: signed, durable, then told.
func (n *Node) publish(ctx context.Context, slot uint64, spec offerSpec) (service.Offer, error) {
	used, network := n.used(pktcloud.ID{}), n.granted(pktcloud.ID{})
	n.own.mu.Lock()
	defer n.own.mu.Unlock()
	body, err := n.offerBody(slot, spec, spec.Capacity.Minus(used), network)
	if err != nil {
		return service.Offer{}, err
	}
	signed, err := pktcloud.Seal(n.identity, body)
	if err != nil {
		return service.Offer{}, translate(err)
	}
	id, err := signed.ID()
	if err != nil {
		return service.Offer{}, translate(err)
	}
	kept := ownOffer{Spec: spec, Record: signed}
	value, err := pktcloud.Marshal(kept)
	if err != nil {
		return service.Offer{}, translate(err)
	}
	if err := n.store.Apply(ctx, []put{{Key: fmt.Sprintf("%s%02d", offerPrefix, slot), Value: value}}); err != nil {
		return service.Offer{}, translate(err)
	}
	n.own.slots[slot], n.own.issued[id] = kept, signed
	if err := n.gossip.Publish(ctx, signed); err != nil {
		return service.Offer{}, translate(err)
	}
	n.hub.tell("offer", "", "published "+id.String())
	rate, err := body.Rate(market.Reference)
	return service.Offer{ID: id, Rate: rate, Own: true, Body: body}, translate(err)
}

// offerBody makes the slot's next record. The caller holds own.mu.
func (n *Node) offerBody(slot uint64, spec offerSpec, free market.Resources, network market.Network) (market.Offer, error) {
	if slot >= market.MaxSlots {
		return market.Offer{}, service.Errorf(service.CodeInvalid, "slots are numbered 0 to %d", market.MaxSlots-1)
	}
	now := time.Now().Unix()
	known := n.book.Sequence(market.Key{Provider: n.identity.Public(), Slot: slot}) // told by others after the directory was lost
	rate, err := spec.Prices.Rate(spec.Capacity)
	if err != nil {
		return market.Offer{}, translate(err)
	}
	unconfirmed, err := rate.For(unconfirmedSeconds)
	if err != nil {
		return market.Offer{}, translate(err)
	}
	return market.Offer{
		Version: market.OfferVersion, Provider: n.identity.Public(), Device: n.device.Public(),
		Slot: slot, Sequence: max(n.own.slots[slot].Record.Body.Sequence, known) + 1,
		Issued: now, Expires: now + int64(min(spec.Lifetime, market.MaxOfferLifetimeSeconds)),
		Addresses: n.announced(), Region: spec.Region, Capacity: free, Prices: spec.Prices,
		Rails: []market.Rail{{
			Name: n.network.Rail, MinDepth: n.cfg.Depth.Least, DepthStep: n.cfg.Depth.Step, MaxUnconfirmed: unconfirmed, MaxCapacity: pktcloud.MaxAmount,
		}},
		Limits:         market.Limits{MaxCreditSeconds: maxCreditSeconds, MinIntervalSeconds: minIntervalSeconds},
		MinTermSeconds: spec.MinTerm, MaxTermSeconds: spec.MaxTerm, Isolation: n.work.classes(), Network: network, Volumes: n.work.volumes,
		Software: "pktcloud " + Version(),
	}, nil
}

// announced returns the addresses that offers name.
func (n *Node) announced() []string {
	tail := "/p2p/" + n.device.Public().PeerID()
	var out []string
	for _, a := range n.cfg.Announce {
		out = append(out, strings.TrimSuffix(a, tail)+tail)
	}
	if len(out) == 0 {
		for _, a := range n.host.Addrs() {
			out = append(out, a.String()+tail)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), market.MaxAddresses)]
}

// used is what running leases take, one excepted. It asks the provider, so the
// caller holds no lock.
func (n *Node) used(except pktcloud.ID) market.Resources {
	var sum market.Resources
	for _, v := range n.provider.List() {
		if v.Phase.Final() || v.Phase == lease.Proposed || v.ID == except {
			continue
		}
		r := v.Terms.Resources
		if a := v.Amending; a != nil { // it has both until one of them stands
			r.MilliCPU, r.MemoryBytes = max(r.MilliCPU, a.Resources.MilliCPU), max(r.MemoryBytes, a.Resources.MemoryBytes)
			r.DiskBytes = max(r.DiskBytes, a.Resources.DiskBytes)
		}
		sum.MilliCPU += r.MilliCPU
		sum.MemoryBytes += r.MemoryBytes
		sum.DiskBytes += r.DiskBytes
	}
	return sum
}

// openOffer returns an own offer that still stands; peer.ProviderConfig asks.
func (n *Node) openOffer(id pktcloud.ID) (pktcloud.Signed[market.Offer], bool) {
	n.own.mu.Lock()
	defer n.own.mu.Unlock()
	o, ok := n.own.issued[id]
	return o, ok && market.Admit(o.Body, time.Now()) == nil
}

// admit lets a lease in when there is room for it and its image can be had;
// peer.ProviderConfig asks.
func (n *Node) admit(ctx context.Context, t lease.Terms, m lease.Manifest, c lease.Credentials) error {
	o, ok := n.openOffer(t.Offer)
	if !ok {
		return lease.Refusal(lease.CodeOffer, "the offer no longer stands; look at the market again")
	}
	id, err := t.ID()
	if err != nil {
		return err
	}
	if class := m.Isolation(); class != "" && !slices.Contains(n.work.classes(), class) { // it had, when it made the offer
		return lease.Refusal(lease.CodeOffer, "isolation %s is not to be had here any more; choose another offer", class)
	} else if err := fitsClass(container.Class(class), m.Services); err != nil {
		return err
	}
	n.own.mu.Lock()
	whole := n.own.slots[o.Body.Slot].Spec.Capacity
	n.own.mu.Unlock()
	if free := whole.Minus(n.used(id)); !t.Resources.Within(free) {
		return lease.Refusal(lease.CodeCapacity, "no room for this lease now: %s; ask for less or choose another offer", lacksOf(free, t.Resources))
	}
	if err := n.admitNetwork(id, m); err != nil {
		return err
	}
	if err := n.work.admitVolumes(ctx, m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, inspectDeadline) // for all images together
	defer cancel()
	for _, v := range m.Services {
		if err := n.inspect(ctx, t.TenantDevice, v, c); errors.Is(err, lease.CodeBusy) {
			return err
		} else if err != nil {
			n.cfg.Log.Info("an image that a tenant asks for cannot be had", "image", v.Image, "error", err)
			return refuseImage(v.Image, err)
		}
	}
	return nil
}

// lacksOf says what there is of that which lacks.
func lacksOf(free, want market.Resources) string {
	var has []string
	for _, l := range market.Explain(slices.Values([]market.Offer{{Capacity: free}}), market.Query{For: want}).List {
		has = append(has, l.Has)
	}
	return strings.Join(has, ", ")
}

// fitsClass refuses services that a class has no room for [CONTAINER-82].
func fitsClass(class container.Class, list []lease.Service) error {
	for _, v := range list {
		if class == container.ClassGVisor && v.Resources.MemoryBytes < gvisor.MinMemoryBytes {
			return lease.Refusal(lease.CodeManifest, "service %s has %d bytes of memory; with isolation %s it takes at least %d, its own kernel's included",
				v.Name, v.Resources.MemoryBytes, class, gvisor.MinMemoryBytes)
		}
	}
	return nil
}

// refuseImage tells a tenant why there is no lease with an image, in a text
// that fits a refusal.
func refuseImage(ref string, err error) error {
	reason := err.Error()
	if c, ok := errors.AsType[*container.Error](err); ok {
		reason = c.Code.Error()
	}
	if errors.Is(err, container.CodeDiskFull) {
		return lease.Refusal(lease.CodeCapacity, "the provider's disk is full; choose another offer")
	}
	return lease.Refusal(lease.CodeManifest, "image %.120s: %.120s", ref, reason)
}

// withinMachine refuses processors and memory that are not there. Disk comes
// and goes; a lease that finds none is refused when it is asked for.
func withinMachine(r market.Resources, dir string) error {
	if have := uint64(runtime.NumCPU()) * 1000; r.MilliCPU > have {
		return service.Errorf(service.CodeInvalid, "this machine has %d cores, fewer than the %g of the offer; offer no more than it has, less what you need yourself",
			have/1000, float64(r.MilliCPU)/1000)
	}
	if have, _ := space(dir); have > 0 && r.MemoryBytes > have {
		return service.Errorf(service.CodeInvalid, "this machine has %d MiB of memory, less than the %d MiB of the offer; offer no more than it has, less what you need yourself",
			have>>20, r.MemoryBytes>>20)
	}
	return nil
}

// machine is what this machine has to offer: a processor and a quarter of its
// memory stay with the owner.
func machine(dir string) market.Resources {
	memory, disk := space(dir)
	return market.Resources{
		MilliCPU:    uint64(max(runtime.NumCPU()-1, 1)) * 1000,
		MemoryBytes: min(memory/4*3, math.MaxInt64),
		DiskBytes:   min(disk/2, math.MaxInt64),
	}
}
