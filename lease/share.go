package lease

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Share is what a lease may take of its channel in all: the price of its term
// and what may be prepaid, or what the channel can pay if that is less
// [LEASE-26].
func (t Terms) Share(p settle.Params) pktcloud.Amount {
	price, err := t.DueAfter(t.TermSeconds)
	if err != nil {
		return 0 // Validate refuses such terms
	}
	return min(price+t.Limits.Prepaid, p.Spendable())
}

// rolled counts the share against a successor. It never falls: what the channel
// could pay before, the successor can [LEASE-31].
func (s *State) rolled(p settle.Params) error {
	if s.Phase < Agreed || s.Phase >= Closed {
		return s.refusePhase("a roll of its channel")
	}
	s.Spendable, s.Rolls = max(s.Spendable, s.share(p)), s.Rolls+1
	return nil
}

// Left is what a channel has for a further lease: what it can pay in all, less
// its latest voucher, less what that one has not yet paid of the shares of the
// leases that live on it. The limits and hold deposits of a lease lie within its
// share, so that none of them can be used up by another lease [LEASE-17].
func Left(p settle.Params, latest settle.Voucher, shares map[pktcloud.ID]pktcloud.Amount) pktcloud.Amount {
	left := p.Spendable().SubFloor(latest.Total)
	for id, share := range shares {
		e, _ := latest.Entry(id)
		left = left.SubFloor(share.SubFloor(e.Cumulative))
	}
	return left
}

// Fits says whether a channel has room for a further lease: for its share, and
// for its entry in a voucher [LEASE-17]. Errors match [CodeChannel].
func Fits(p settle.Params, latest settle.Voucher, shares map[pktcloud.ID]pktcloud.Amount, t Terms) error {
	if left, share := Left(p, latest, shares), t.Share(p); left < share {
		return Refusal(CodeChannel, "the channel has %s left beside its other leases, this one takes up to %s; open a channel for it", left, share)
	}
	entries := len(latest.Entries)
	for id := range shares {
		if _, paid := latest.Entry(id); !paid {
			entries++
		}
	}
	if entries >= settle.MaxEntries {
		return Refusal(CodeChannel, "the channel has paid %d leases, and takes no more; open another", entries)
	}
	return nil
}
