package node

import (
	"context"
	"errors"
	"math"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// AmendLease changes a lease of this tenant that runs, or with Plan says what
// that would cost.
func (n *Node) AmendLease(ctx context.Context, name string, r service.AmendRequest) (service.Amendment, error) {
	v, err := n.find(name)
	if err != nil {
		return service.Amendment{}, err
	}
	if v.Role != lease.RoleTenant {
		return service.Amendment{}, service.Errorf(service.CodeInvalid, "only the tenant amends a lease; publish another offer, and tell it")
	}
	if v.Phase != lease.Active {
		return service.Amendment{}, service.Errorf(service.CodeConflict, "the lease is %s; only one that runs is amended", v.Phase)
	}
	request, err := n.amendRequest(v, r)
	if err != nil {
		return service.Amendment{}, err
	}
	out := service.Amendment{Lease: n.labels()[v.ID], Revision: v.Revision + 1, Before: termsOf(v.Terms)}
	a, err := n.tenant.PlanAmendment(ctx, v.ID, request)
	if err != nil {
		return service.Amendment{}, amendError(err)
	}
	out.After = termsOf(v.Terms.Amended(a))
	if r.Plan {
		return out, nil
	}
	now, err := n.tenant.Amend(ctx, v.ID, request)
	if out.Pending = errors.Is(err, peer.ErrAmending); err != nil && !out.Pending {
		return service.Amendment{}, amendError(err)
	}
	if !out.Pending {
		out.Revision, out.After = now.Revision, termsOf(now.Terms)
	}
	return out, nil
}

// amendError says what to do about a refusal.
func amendError(err error) error {
	switch {
	case errors.Is(err, lease.CodeChannel):
		return &service.Error{Code: service.CodeMoney, Err: &told{plain(err).Error() + `; "pktcloud channel roll" does`, err}}
	case errors.Is(err, lease.CodeMalformed):
		return &service.Error{Code: service.CodeInvalid, Err: &told{plain(err).Error(), err}}
	}
	return translate(err)
}

func termsOf(t lease.Terms) service.LeaseTerms {
	return service.LeaseTerms{
		Rate: t.Rate, Resources: service.Resources(t.Resources), Term: t.TermSeconds, Credit: t.Limits.Credit, Prepaid: t.Limits.Prepaid,
	}
}

// amendRequest is a request in the words of lease/peer.
func (n *Node) amendRequest(v peer.View, r service.AmendRequest) (peer.AmendRequest, error) {
	out := peer.AmendRequest{TermSeconds: r.Term, MaxRate: r.MaxRate}
	if r.Plan && r.MaxRate == 0 {
		out.MaxRate = math.MaxUint64
	}
	m, err := resized(v.Manifest, r)
	if err != nil {
		return out, err
	}
	out.Manifest = m
	prices, ok := n.tenant.PricesOf(v.ID)
	if r.Offer != nil {
		if out.Offer, err = n.offer(*r.Offer); err != nil {
			return out, err
		}
		prices = out.Offer.Body
	} else if !ok {
		return out, service.Errorf(service.CodeNotFound, "no lease %s", v.ID)
	}
	rate, err := prices.Rate(m.Resources())
	if err != nil {
		return out, translate(err)
	}
	limits, err := amendedLimits(v.Terms, prices, rate, r)
	out.Limits = &limits
	return out, err
}

// amendedLimits are as many seconds of price as before, unless the request says
// otherwise; of what was agreed in the offer's units nothing changes with the
// rate alone.
func amendedLimits(t lease.Terms, o market.Offer, rate pktcloud.Rate, r service.AmendRequest) (lease.Limits, error) {
	limits := t.Limits
	set := func(of *pktcloud.Amount, seconds *uint64, most uint64) error {
		if seconds == nil && (rate == t.Rate || *of == 0) {
			return nil
		}
		count := min(t.SecondsFor(*of), most)
		if seconds != nil {
			count = *seconds
		} else if t.Rate == 0 {
			count = lease.DefaultCreditSeconds
		}
		var err error
		*of, err = rate.For(count)
		return err
	}
	err := errors.Join(set(&limits.Credit, r.Credit, o.Limits.MaxCreditSeconds), set(&limits.Prepaid, r.Prepaid, lease.MaxTermSeconds))
	return limits, translate(err)
}

// resized is a manifest with the sizes of a request.
func resized(m lease.Manifest, r service.AmendRequest) (lease.Manifest, error) {
	m.Services, m.Volumes = slices.Clone(m.Services), slices.Clone(m.Volumes)
	change := func(of *market.Resources, to service.Resources) {
		for _, f := range []struct{ of, to *uint64 }{{&of.MilliCPU, &to.MilliCPU}, {&of.MemoryBytes, &to.MemoryBytes}, {&of.DiskBytes, &to.DiskBytes}} {
			if *f.to != 0 {
				*f.of = *f.to
			}
		}
	}
	if r.Resources != (service.Resources{}) {
		if len(m.Services) != 1 {
			return m, service.Errorf(service.CodeInvalid, "the lease has %d services; say which one is to change", len(m.Services))
		}
		change(&m.Services[0].Resources, r.Resources)
	}
	for name, to := range r.Services {
		i := slices.IndexFunc(m.Services, func(s lease.Service) bool { return s.Name == name })
		if i < 0 {
			return m, service.Errorf(service.CodeNotFound, "the lease has no service %.40q", name)
		}
		change(&m.Services[i].Resources, to)
	}
	for name, size := range r.Volumes {
		i := slices.IndexFunc(m.Volumes, func(v lease.Volume) bool { return v.Name == name })
		if i < 0 {
			return m, service.Errorf(service.CodeNotFound, "the lease has no volume %.40q", name)
		}
		m.Volumes[i].SizeBytes = size
	}
	if err := m.Validate(); err != nil {
		return m, &service.Error{Code: service.CodeInvalid, Err: plain(err)}
	}
	return m, nil
}

// admitAmendment lets a lease grow when there is room for it; peer.ProviderConfig
// asks.
func (n *Node) admitAmendment(_ context.Context, id pktcloud.ID, o market.Offer, t lease.Terms, m lease.Manifest) error {
	if err := fitsClass(container.Class(m.Isolation()), m.Services); err != nil {
		return err
	}
	if v, ok := n.provider.Lease(id); ok && t.Resources.Within(v.Terms.Resources) {
		return nil // what it gives back is no question
	}
	n.own.mu.Lock()
	slot, ok := n.own.slots[o.Slot]
	n.own.mu.Unlock()
	if !ok || !t.Resources.Within(slot.Spec.Capacity.Minus(n.used(id))) {
		return lease.Refusal(lease.CodeCapacity, "no room here for this lease to grow so much; ask for less, or make a new lease")
	}
	return nil
}

// Resize implements peer.Resizer.
func (w *workload) Resize(ctx context.Context, id pktcloud.ID, m lease.Manifest) error {
	to := services.Sizes{Limits: map[string]container.Limits{}, Volumes: map[string]uint64{}}
	for _, v := range m.Services {
		to.Limits[v.Name] = limitsOf(v)
	}
	for _, v := range m.Volumes {
		to.Volumes[v.Name] = v.SizeBytes
	}
	err := w.sets.Resize(ctx, id.Hex(), to)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, container.CodeNotRunning), errors.Is(err, container.CodeNotFound):
		return err // nothing is said yet
	case errors.Is(err, container.CodeDiskFull):
		return lease.Refusal(lease.CodeCapacity, "the provider's disk has no room for so much now")
	case errors.Is(err, container.CodeVolumeConflict), errors.Is(err, container.CodeNoVolume):
		return lease.Refusal(lease.CodeManifest, "a volume can only grow")
	case errors.Is(err, container.CodeDoesNotFit):
		return lease.Refusal(lease.CodeCapacity, "a service uses more than it would have, or its disk would shrink; free some of it first, or ask for more")
	}
	w.log.Warn("a lease could not be resized", "lease", id, "error", err)
	if errors.Is(err, container.CodeMissingFeature) {
		return lease.Refusal(lease.CodeCapacity, "the provider's machine cannot make a disk larger that is in use; change the rest without it")
	}
	return lease.Refusal(lease.CodeInternal, "the provider's machine could not do it")
}

func limitsOf(v lease.Service) container.Limits {
	return container.Limits{
		MilliCPU: v.Resources.MilliCPU, MemoryBytes: v.Resources.MemoryBytes, DiskBytes: max(v.Resources.DiskBytes, container.MinDisk), Pids: maxPids,
	}
}
