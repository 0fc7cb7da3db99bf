package audit

import (
	"bytes"
	"fmt"
	"math/big"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// segment is a part of a lease at one rate.
type segment struct {
	from, rate uint64
	limits     lease.Limits
}

// checkAmendments follows the amendments: signed by the two devices, one after
// the other, each at the price of its offer, and from a second at which a
// statement ends. The segments that they make are what is due by [AMEND-9].
func (c *caseFile) checkAmendments() {
	c.segments = []segment{{0, uint64(c.terms.Rate), c.terms.Limits}}
	ends := map[uint64]bool{}
	last := uint64(0) // revision that the tenant has a statement of
	for _, s := range c.statements {
		ends[s.Body.To] = true
	}
	if c.tenant != nil {
		for _, s := range c.tenant.statements {
			last = max(last, s.Body.Revision())
		}
	}
	attempt := uint64(0)
	for n := uint64(1); ; n++ {
		name := fmt.Sprintf("amendment %d", n)
		a, ok := c.amendment(n, last)
		if !ok {
			break
		}
		b, x := a.Amendment.Body, a.Acceptance.Body
		before := c.segments[n-1]
		switch {
		case b.Lease != c.id || b.Tenant != c.terms.TenantDevice || x.Provider != c.terms.ProviderDevice:
			c.find(name, "is of another lease or device")
		case b.Revision != n || b.Attempt <= attempt:
			c.find(name, "says revision %d in attempt %d after %d", b.Revision, b.Attempt, attempt)
		case x.From < before.from || !ends[x.From]:
			c.find(name, "counts from second %d, at which no statement ends", x.From)
		case a.Offer.Body.Provider != c.terms.Provider || a.Offer.Body.Device != c.terms.ProviderDevice:
			c.find(name, "is priced by another provider's offer")
		}
		if rate := price(a.Offer.Body, b.Resources); rate.Cmp(new(big.Int).SetUint64(uint64(b.Rate))) != 0 {
			c.find(name, "says %d units an hour, its offer asks %s", uint64(b.Rate), rate)
		}
		c.segments = append(c.segments, segment{x.From, uint64(b.Rate), b.Limits})
		attempt, c.result.Revisions = b.Attempt, n
	}
	for n := uint64(1); n <= uint64(len(c.statements)); n++ {
		if r := c.statements[n].Body.Revision(); r > c.result.Revisions {
			c.find(fmt.Sprintf("statement %d", n), "was issued under revision %d, there are %d", r, c.result.Revisions)
		}
	}
}

// amendment is the n-th one, as both sides have it. The tenant may not have heard
// of the last one, if it never accepted what was stated under it.
func (c *caseFile) amendment(n, seen uint64) (a lease.Countersigned, ok bool) {
	name := fmt.Sprintf("amendment %d", n)
	var bytesOf [][]byte
	for i, j := range []*journal{c.provider, c.tenant} {
		var have bool
		if j != nil {
			var one lease.Countersigned
			if one, have = j.amendments[n]; have {
				a, ok = one, true
				b, err := pktcloud.Marshal(one)
				if err != nil {
					c.find(name, "cannot be encoded: %v", err)
				}
				bytesOf = append(bytesOf, b)
			}
		}
		switch {
		case have:
		case i == 0 && c.tenant != nil && c.tenant.hasAmendment(n):
			c.find(name, "is accepted by the provider, who has no record of it")
		case i == 1 && ok && seen >= n:
			c.find(name, "has statements that the tenant accepted, and no record of the tenant's")
		}
	}
	if len(bytesOf) == 2 && !bytes.Equal(bytesOf[0], bytesOf[1]) {
		c.find(name, "differs between the two sides")
	}
	return a, ok
}

func (j *journal) hasAmendment(n uint64) bool {
	_, ok := j.amendments[n]
	return ok
}

// due is what is asked after so many seconds: the sum of rate * seconds over the
// segments / 3600, rounded up.
func (c *caseFile) due(seconds uint64) *big.Int {
	sum := new(big.Int)
	for i, s := range c.segments {
		end := seconds
		if i+1 < len(c.segments) {
			end = min(end, c.segments[i+1].from)
		}
		if end > s.from {
			sum.Add(sum, new(big.Int).Mul(new(big.Int).SetUint64(s.rate), new(big.Int).SetUint64(end-s.from)))
		}
	}
	return ceil(sum, big.NewInt(3600))
}

// under returns the limits of a revision.
func (c *caseFile) under(revision uint64) lease.Limits {
	return c.segments[min(revision, uint64(len(c.segments)-1))].limits
}
