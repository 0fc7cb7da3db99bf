package peer_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// settledLease is a lease whose channel has its depth, and room for more.
func (w *world) settledLease(r peer.Request) pktcloud.ID {
	w.t.Helper()
	id := w.create(r)
	w.until("both know of the funding", func() bool { a, b := w.views(id); return a.Phase >= lease.Funded && b.Phase >= lease.Funded })
	w.bank.Confirm(3)
	w.until("both see the depth", func() bool { a, b := w.views(id); return a.Confirmed && b.Confirmed })
	return id
}

func (w *world) channelOf(id pktcloud.ID) pktcloud.ID {
	w.t.Helper()
	v, _ := w.views(id)
	return v.Terms.Channel
}

// closed asks the tenant to end leases, all at once, and waits for the records.
func (w *world) closed(ids ...pktcloud.ID) (paid pktcloud.Amount) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var wait sync.WaitGroup
	for _, id := range ids {
		wait.Go(func() {
			if err := w.tenant.Close(ctx, id); err != nil {
				w.t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, id := range ids {
		w.until("both have the record", func() bool { a, b := w.views(id); return a.Countersigned && b.Countersigned })
		a, b := w.views(id)
		if a.Record.Paid != b.Record.Paid || a.Record.Paid != a.Record.Due || a.Record.Paid == 0 {
			w.t.Errorf("lease %s: got records of %d and %d units, %d due, want one and the same", id, a.Record.Paid, b.Record.Paid, a.Record.Due)
		}
		paid += a.Record.Paid
	}
	return paid
}

// TestTwoLeasesOneChannel shows [LEASE-27]: a second lease opens no channel, each
// is paid by its own entry, the end of one leaves the other alone, and the last
// one closes the channel, which pays both records to the unit.
func TestTwoLeasesOneChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.settledLease(w.patient())
	second := w.create(w.patient())
	channel := w.channelOf(first)
	if got := w.channelOf(second); got != channel {
		t.Fatalf("the second lease is paid over %s, want the open channel %s", got, channel)
	}
	w.until("both are paid", func() bool {
		_, a := w.views(first)
		_, b := w.views(second)
		return a.Paid >= 2*unitsPerSecond && b.Paid >= 2*unitsPerSecond
	})
	// What stops one lease does not stop the other.
	if err := w.workload.SetFrozen(first, true); err != nil {
		t.Fatal(err)
	}
	_, before := w.views(second)
	w.until("the other is paid on", func() bool { _, v := w.views(second); return v.Paid >= before.Paid+3*unitsPerSecond })
	if err := w.workload.SetFrozen(first, false); err != nil {
		t.Fatal(err)
	}
	w.until("the first is paid again", func() bool { a, _ := w.views(first); return a.Paid == a.Due && a.Phase == lease.Active })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.tenant.Close(ctx, first); err != nil {
		t.Fatal(err)
	}
	w.until("both have the record", func() bool { a, b := w.views(first); return a.Countersigned && b.Countersigned })
	a, b := w.views(first)
	if a.Record.Paid != b.Record.Paid || b.Paid != b.Record.Paid {
		t.Errorf("got records of %d and %d units, vouchers of %d, want one sum", a.Record.Paid, b.Record.Paid, b.Paid)
	}
	if _, settled := w.bank.Settled(channel); settled {
		t.Fatal("the end of one lease closed the channel of the other")
	}
	_, before = w.views(second)
	w.until("the second is paid after the first has ended", func() bool { _, v := w.views(second); return v.Paid >= before.Paid+2*unitsPerSecond })
	third := w.create(w.patient()) // in the place of the first
	if got := w.channelOf(third); got != channel {
		t.Errorf("the third lease is paid over %s, want the open channel", got)
	}
	w.until("the third is paid", func() bool { _, v := w.views(third); return v.Paid > 0 })
	sum := a.Record.Paid + w.closed(second) + w.closed(third)
	if got, ok := w.bank.Settled(channel); !ok || got != sum {
		t.Errorf("the chain paid %d units, %v, the three records say %d", got, ok, sum)
	}
}

// TestLeasesCloseTogether: leases that end at the same moment do not leave their
// channel open between them.
func TestLeasesCloseTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := []pktcloud.ID{w.settledLease(w.patient())}
	for range 3 {
		ids = append(ids, w.create(w.patient()))
	}
	for _, id := range ids {
		w.until("each is paid", func() bool { _, v := w.views(id); return v.Paid > 0 })
	}
	sum := w.closed(ids...)
	if got, ok := w.bank.Settled(w.channelOf(ids[0])); !ok || got != sum {
		t.Errorf("the chain paid %d units, %v, the records say %d", got, ok, sum)
	}
}

// TestOwnChannel: a lease gets a channel of its own where it asks for one, and
// where the open one has no room, is not deep, or ends too soon.
func TestOwnChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shallow := w.create(w.patient())
	second := w.create(w.patient())
	if w.channelOf(shallow) == w.channelOf(second) {
		t.Error("a second lease on a channel that the chain may still lose")
	}
	w.bank.Confirm(3)
	w.until("all see the depth", func() bool {
		a, b := w.views(shallow)
		c, d := w.views(second)
		return a.Confirmed && b.Confirmed && c.Confirmed && d.Confirmed
	})
	for name, change := range map[string]func(r *peer.Request){
		"asked for": func(r *peer.Request) { r.OwnChannel = true },
		"no room":   func(r *peer.Request) { r.Limits.Prepaid = 1 << 24 },
	} {
		r := w.patient()
		change(&r)
		r.Capacity = 1 << 26
		id := w.create(r)
		if c := w.channelOf(id); c == w.channelOf(shallow) || c == w.channelOf(second) {
			t.Errorf("%s: the lease shares a channel", name)
		}
	}
}

// TestSharedChannelRestarts: both sides die and come back with two leases on one
// channel; the money is that of the records.
func TestSharedChannelRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.settledLease(w.patient())
	second := w.create(w.patient())
	w.until("both are paid", func() bool {
		_, a := w.views(first)
		_, b := w.views(second)
		return a.Paid > 0 && b.Paid > 0
	})
	again := w.listenAgain()
	w.stops[0]()
	w.stops[1]()
	w.startProvider(again)
	w.startTenant()
	_, a := w.views(first)
	_, b := w.views(second)
	w.until("both are paid again", func() bool {
		_, x := w.views(first)
		_, y := w.views(second)
		return x.Paid >= a.Paid+2*unitsPerSecond && y.Paid >= b.Paid+2*unitsPerSecond
	})
	sum := w.closed(second, first)
	if got, ok := w.bank.Settled(w.channelOf(first)); !ok || got != sum {
		t.Errorf("the chain paid %d units, %v, the records say %d", got, ok, sum)
	}
}

// TestTenantGoneFromBoth: a provider left alone claims once, when the last lease
// of the channel has ended, and gets all that both had paid.
func TestTenantGoneFromBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.patient()
	r.GraceSeconds = 3
	first := w.settledLease(r)
	second := w.create(r)
	channel := w.channelOf(first)
	w.until("both are paid", func() bool {
		_, a := w.views(first)
		_, b := w.views(second)
		return a.Paid > 0 && b.Paid > 0
	})
	w.stops[0]() // the tenant is gone for good
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.provider.Close(ctx, first); err != nil {
		t.Fatal(err)
	}
	if _, settled := w.bank.Settled(channel); settled {
		t.Fatal("the provider claimed the channel of a lease that goes on")
	}
	if err := w.provider.Close(ctx, second); err != nil {
		t.Fatal(err)
	}
	a, _ := w.provider.Lease(first)
	b, _ := w.provider.Lease(second)
	w.until("the claim", func() bool { _, ok := w.bank.Settled(channel); return ok })
	if got, _ := w.bank.Settled(channel); got != a.Paid+b.Paid || got == 0 {
		t.Errorf("the claim is of %d units, the leases had paid %d and %d", got, a.Paid, b.Paid)
	}
}

// TestHostileSharing: what a tenant says of a channel that other leases have is
// refused where it would cost those, and nothing changes [LEASE-17] [LEASE-26].
func TestHostileSharing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.settledLease(w.patient())
	w.until("an interval is paid", func() bool { _, v := w.views(id); return v.Paid > 0 })
	_, v := w.views(id)
	payer := w.bank.Payer(w.devices[0])
	st, err := payer.ChannelStatus(t.Context(), v.Terms.Channel)
	if err != nil {
		t.Fatal(err)
	}
	r := w.raw() // takes the tenant's place
	nonce := byte(0)
	commit := func(change func(*lease.Terms), params settle.Params) (lease.Commit, pktcloud.ID) {
		nonce++
		p := w.propose(nonce)
		change(&p.Draft)
		r.send(p)
		quote, ok := r.await(lease.TypeQuote).(lease.Quote)
		if !ok {
			t.Fatal("no quote")
		}
		q, err := market.ParseQuote(quote.Quote)
		if err != nil {
			t.Fatal(err)
		}
		c := lease.Commit{Version: 1, Terms: p.Draft, Account: p.Account, Quote: quote.Quote, Manifest: p.Manifest, Params: params}
		c.Terms.Rate, c.Terms.CommitBy = q.Body.Rate, q.Body.Expires
		c.Terms.Quote, _ = q.ID()
		c.Terms.Channel, _ = params.ID()
		if c.Signature, err = lease.SignTerms(w.devices[0], c.Terms); err != nil {
			t.Fatal(err)
		}
		other, _ := c.Terms.ID()
		return c, other
	}
	refused := func(what string, c lease.Commit, want lease.Code) {
		r.send(c)
		if m, ok := r.await(lease.TypeAck, lease.TypeRefuse).(lease.Refuse); !ok || m.Code != want {
			t.Errorf("%s: got %+v, want a refusal of the %s", what, m, want)
		}
	}
	// It would fit if the first lease needed no more than it has paid.
	c, _ := commit(func(d *lease.Terms) { d.Limits.Prepaid = st.Params.Spendable() - 900*unitsPerSecond }, st.Params)
	refused("a share of more than is left", c, lease.CodeChannel)
	unknown, _, err := payer.Open(t.Context(), peer.OpenRequest{
		Payee: w.devices[1].Public(), PayeeDetail: []byte("payee"), Capacity: 1 << 24, Unconfirmed: 1 << 20, MinDepth: 1, LifetimeBlocks: 1000,
	})
	if err != nil {
		t.Skipf("this rail reads its payee's detail: %v", err)
	}
	c, _ = commit(func(*lease.Terms) {}, unknown)
	refused("a channel that was never accepted", c, lease.CodeChannel)

	good, other := commit(func(*lease.Terms) {}, st.Params)
	r.send(good)
	if m, ok := r.await(lease.TypeAck, lease.TypeRefuse).(lease.Ack); !ok {
		t.Fatalf("got %+v, want room for a second lease", m)
	}
	pay := func(to pktcloud.ID, units pktcloud.Amount) lease.VoucherMessage {
		s, err := payer.Pay(t.Context(), v.Terms.Channel, settle.Entry{Lease: to, Cumulative: units, Statement: to})
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return lease.VoucherMessage{Version: 1, Lease: other, Voucher: b}
	}
	// One that comes after a newer one of another lease is no fault: it says nothing new.
	older := pay(other, 100)
	r.send(pay(id, v.Paid+1))
	r.send(older)
	w.until("the payment counts", func() bool { v, _ := w.provider.Lease(other); return v.Paid == 100 })
	r.send(lease.Attach{Version: 1, Lease: other, Sequence: 1 << 40})
	if m, ok := r.await(lease.TypeRefuse).(lease.Refuse); !ok || m.Code != lease.CodeSequence {
		t.Errorf("got %+v before the refusal of what follows it, want the older voucher taken", m)
	}

	latest, _ := w.bank.Payee().Latest(v.Terms.Channel)
	hostile := func(what string, m lease.VoucherMessage) {
		r.send(m)
		if m, ok := r.await(lease.TypeRefuse).(lease.Refuse); !ok || m.Code != lease.CodePayment {
			t.Errorf("%s: got %+v, want a refusal of the payment", what, m)
		}
		if now, _ := w.bank.Payee().Latest(v.Terms.Channel); now.Body.Total != latest.Body.Total {
			t.Errorf("%s: the channel took a voucher of %d units after %d", what, now.Body.Total, latest.Body.Total)
		}
	}
	share := good.Terms.Share(st.Params)
	hostile("beyond its share", pay(other, share+1))
	if v, _ := w.provider.Lease(other); v.Text != "" || v.Paid != 100 {
		t.Errorf("got %q and %d paid, want nothing changed", v.Text, v.Paid)
	}
	hostile("to nobody's lease", pay(pktcloud.IDOf([]byte("nobody")), 1))
}

// blindPayee has a chain out of sight, whose height may be past every deadline.
type blindPayee struct {
	peer.Payee
	blind *atomic.Bool
}

func (p blindPayee) ChannelStatus(ctx context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	st, err := p.Payee.ChannelStatus(ctx, channel)
	if p.blind.Load() {
		st.OutOfSight, st.Height = true, st.Params.ExpiryHeight
	}
	return st, err
}

// TestChainOutOfSight shows [LEASE-28]: an estimate of the height freezes a lease
// and ends none; it goes on when the chain is seen again.
func TestChainOutOfSight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var blind atomic.Bool
	w.payee = func(p peer.Payee) peer.Payee { return blindPayee{p, &blind} }
	again := w.listenAgain()
	w.stops[1]()
	w.startProvider(again)
	id := w.create(w.patient()) // shallow: looked at each second
	w.until("an interval is paid", func() bool { _, v := w.views(id); return v.Paid > 0 })
	blind.Store(true)
	w.until("the workload stands still", func() bool {
		_, v := w.views(id)
		st, err := w.workload.Status(t.Context(), id)
		return err == nil && st == peer.WorkloadFrozen && v.Phase == lease.Suspended
	})
	blind.Store(false)
	_, before := w.views(id)
	w.until("it goes on and is paid", func() bool { _, v := w.views(id); return v.Paid >= before.Paid+2*unitsPerSecond })
	w.closeAndCheck(id)
}
