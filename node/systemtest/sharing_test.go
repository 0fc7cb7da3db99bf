//go:build system

package systemtest

import (
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestTwoLeasesOneChannel rents twice from one provider: the second lease costs
// no transaction, ends without touching the first, and the chain pays both out
// of one channel, to the unit.
func TestTwoLeasesOneChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	c := w.tenant.client()
	offer := w.publish()
	eventually(t, "the offer reaches the tenant", func() (bool, error) {
		_, err := c.Offer(t.Context(), offer.ID, service.Resources{})
		return err == nil, nil
	})
	request := w.request(offer.ID)
	request.Capacity = 5 * pktcloud.UnitsPerPKT
	first := w.agree(offer, request)
	for name, p := range map[string]*party{"tenant": w.tenant, "provider": w.provider} { // each looks at the chain by itself
		eventually(t, "the channel is open for the "+name, func() (bool, error) {
			all, err := p.client().Channels(t.Context())
			return len(all) == 1 && all[0].Phase == "open", err
		})
	}
	w.paidIntervals(first.ID, 1)
	second := w.agree(offer, request)
	w.paidIntervals(second.ID, 2)
	for name, p := range map[string]*party{"tenant": w.tenant, "provider": w.provider} {
		all, err := p.client().Channels(t.Context())
		if err != nil || len(all) != 1 || len(all[0].Leases) != 2 {
			t.Errorf("the %s has %d channels, %v, want one that pays two leases: %+v", name, len(all), err, all)
		}
	}
	if _, err := c.CloseLease(t.Context(), second.ID.String()); err != nil {
		t.Fatal(err)
	}
	w.paidIntervals(first.ID, w.lease(first).Intervals+2) // and goes on
	w.closeLease(first.ID)

	r := w.clean()
	if len(r.Leases) != 2 {
		t.Fatalf("the audit knows %d leases, want 2", len(r.Leases))
	}
	var sum uint64
	for _, l := range r.Leases {
		if l.Paid == 0 || l.Paid != l.Claimed || l.Due != l.Paid || !l.Settled {
			t.Errorf("got due %d, paid %d, claimed %d, settled %v; want all equal and settled", l.Due, l.Paid, l.Claimed, l.Settled)
		}
		sum += l.Claimed
	}
	eventually(t, "the provider's wallet shows the payout", func() (bool, error) {
		b, err := w.provider.client().WalletBalance(t.Context())
		return uint64(b.Spendable+b.Unconfirmed) == sum, err
	})
}
