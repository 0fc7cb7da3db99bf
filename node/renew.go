package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/gossip"
)

const (
	// renewInterval is how often offers are looked at when no lease begins or ends.
	renewInterval = 15 * time.Second
	// What a lease has of the network is free once nothing of it is left, which
	// nobody tells: offers are looked at again so soon after its end, then after
	// twice as long, and so on.
	afterEnd = time.Second
)

// renewals say when offers are to be issued again. Peers drop what is more than
// they take of one provider [MARKET-11]: half of that is left to the owner.
type renewals struct {
	rooms map[pktcloud.ID]bool // leases that take room
	left  float64              // records that may be issued now
	at    time.Time
}

// changed reports whether a lease has begun, or ceased, to take room.
func (r *renewals) changed(id pktcloud.ID, phase lease.Phase) bool {
	takes := !phase.Final() && phase != lease.Proposed
	if r.rooms[id] == takes {
		return false
	}
	if r.rooms == nil {
		r.rooms = map[pktcloud.ID]bool{}
	}
	if r.rooms[id] = takes; !takes {
		delete(r.rooms, id)
	}
	return true
}

// take takes one record, or returns how long to wait for the next.
func (r *renewals) take(now time.Time) time.Duration {
	const burst, perSecond = gossip.ProviderBurst / 2, gossip.ProviderPerSecond / 2
	if r.at.IsZero() {
		r.left = burst
	} else {
		r.left = min(burst, r.left+max(0, now.Sub(r.at).Seconds())*perSecond)
	}
	if r.at = now; r.left < 1 {
		return time.Duration((1-r.left)/perSecond*float64(time.Second)) + time.Millisecond
	}
	r.left--
	return 0
}

// renewOffers issues each offer again at once, since nobody may have the last
// record, then before it expires and as soon as what is free has changed.
func (n *Node) renewOffers(ctx context.Context) error {
	changes, cancel := n.provider.Subscribe()
	defer cancel()
	var r renewals
	every := cmp.Or(n.cfg.renewEvery, renewInterval)
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	again := renewInterval
	for first := true; ; first = false {
		wait := every
		for slot, spec := range n.dueOffers(first) {
			if w := r.take(time.Now()); w > 0 {
				wait = min(wait, w)
				break
			}
			if _, err := n.publish(ctx, slot, spec); err != nil && ctx.Err() == nil {
				n.cfg.Log.Warn("an offer could not be renewed", "slot", slot, "error", err)
			}
		}
		if again < renewInterval {
			wait = min(wait, again)
			again *= 2
		}
		timer.Reset(wait)
		for quiet := true; quiet; {
			select {
			case id := <-changes:
				if v, ok := n.provider.Lease(id); ok && r.changed(id, v.Phase) {
					again, quiet = afterEnd, false
				}
			case <-timer.C:
				quiet = false
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// dueOffers are the slots whose offer is to be issued again: the first time all.
func (n *Node) dueOffers(first bool) map[uint64]offerSpec {
	n.sweepCredentials(time.Now())
	used, network := n.used(pktcloud.ID{}), n.granted(pktcloud.ID{})
	n.own.mu.Lock()
	defer n.own.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(n.own.issued, func(_ pktcloud.ID, o pktcloud.Signed[market.Offer]) bool { return o.Body.Expires <= now.Unix() })
	due := map[uint64]offerSpec{}
	for slot, o := range n.own.slots {
		b := o.Record.Body
		late := now.Unix() >= b.Issued+(b.Expires-b.Issued)/2
		if first || late || b.Network != network || b.Capacity != o.Spec.Capacity.Minus(used) || !slices.Equal(b.Addresses, n.announced()) {
			due[slot] = o.Spec
		}
	}
	return due
}
