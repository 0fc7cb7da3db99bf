//go:build system

package manager_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// newParty is a party on a real node.
func newParty(t *testing.T, node *nodetest.Node, seed byte) *party {
	t.Helper()
	return newDevice(t, node, seed, seed)
}

// newDevice is a party on a machine of its own, with nothing but the seed.
func newDevice(t *testing.T, node *nodetest.Node, seed, machine byte) *party {
	t.Helper()
	p := sat(t, node, seed, machine)
	p.start()
	return p
}

// sat is a party that does not run yet.
func sat(t *testing.T, node *nodetest.Node, seed, machine byte) *party {
	t.Helper()
	ledger, err := node.Driver()
	if err != nil {
		t.Fatal(err)
	}
	return seatAt(node, ledger, seed, machine).party(t)
}

// seatAt is a seat at a node, whose chain may be longer than the test.
func seatAt(node *nodetest.Node, ledger settle.Ledger, seed, machine byte) seat {
	return seat{
		network: node.Network, ledger: ledger, store: settletest.NewStore(),
		secret: node.Secret(seed), machine: machine, birthday: node.Config().Birthday,
	}
}

// opened makes a channel that both sides see as settled on the chain.
func opened(t *testing.T, node *nodetest.Node, payer, payee *party) pktcloud.ID {
	t.Helper()
	ctx := t.Context()
	detail, err := payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	params, funding, err := payer.m.Open(ctx, manager.OpenRequest{
		Payee: payee.device, PayeeDetail: detail, Capacity: capacity, Unconfirmed: 50_000, MinDepth: 2, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := payee.m.Accept(ctx, params, funding)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*party{payee, payer} {
		if err := p.m.Announce(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	mine(t, node, 2)
	payer.until(t, id, "open channel", phase(settle.Open))
	payee.until(t, id, "open channel", phase(settle.Open))
	return id
}

func mine(t *testing.T, node *nodetest.Node, blocks int) {
	t.Helper()
	if err := node.Mine(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
}

// funded gives a party coins of so many units each.
func funded(t *testing.T, node *nodetest.Node, p *party, coins int, units pktcloud.Amount) {
	t.Helper()
	for range coins {
		script, err := p.wallet.ReceiveScript(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Fund(t.Context(), script, units); err != nil {
			t.Fatal(err)
		}
	}
	mine(t, node, 1)
}

// TestChannelLifeOverNode runs every way that a channel can end on a real node
// under standard policy, through the JSON-RPC driver.
func TestChannelLifeOverNode(t *testing.T) {
	node := nodetest.New(t)
	payer, payee := newParty(t, node, 1), newParty(t, node, 2)
	funded(t, node, payer, 3, 2*capacity)

	t.Run("cooperative close", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		paid(t, payer, payee, id, 40_000)
		paid(t, payer, payee, id, 123_457)
		offer, err := payer.m.OfferClose(t.Context(), id, 123_457)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := payee.m.CompleteClose(t.Context(), id, offer); err != nil {
			t.Fatal(err)
		}
		mine(t, node, 2)
		payer.until(t, id, "close", phase(settle.Closed))
		if st := payee.until(t, id, "close", phase(settle.Closed)); st.Settled != 123_457 {
			t.Errorf("the chain paid %d units, want 123457", uint64(st.Settled))
		}
	})
	t.Run("claim before expiry", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		paid(t, payer, payee, id, 77_000)
		mine(t, node, lifetime-2*144)
		payee.until(t, id, "claim", func(s manager.Status) bool { return endOf(t, payee.cfg.Ledger, node.Network, s) != [32]byte{} })
		mine(t, node, 2)
		st := payee.until(t, id, "end", phase(settle.Closed))
		if fee := 77_000 + reserve - st.Settled; fee < 180 || fee > 1_000 {
			t.Errorf("the chain paid %d units, want 77000 and the reserve less a small fee", uint64(st.Settled))
		}
	})
	t.Run("refund after expiry", func(t *testing.T) {
		id := opened(t, node, payer, payee) // nothing was ever paid
		mine(t, node, lifetime+1)
		payer.until(t, id, "refund on its way", func(s manager.Status) bool { return endOf(t, payer.cfg.Ledger, node.Network, s) != [32]byte{} })
		mine(t, node, 2)
		payer.until(t, id, "refund", phase(settle.Refunded))
	})
	t.Run("restore from the phrase", func(t *testing.T) { restoredFromSeed(t, node, payer, payee) })
	b, err := payee.wallet.Balance(t.Context())
	if err != nil || b.Confirmed < 123_457+77_000 {
		t.Errorf("the payee's wallet has %d units (%v), want what both closes paid", uint64(b.Confirmed), err)
	}
}

// restoredFromSeed loses the payer's machine with two open channels, one of them
// paid from, while the payee withholds everything. From the seed alone a new
// machine gets all of it back, also through a reorganisation.
func restoredFromSeed(t *testing.T, node *nodetest.Node, payer, payee *party) {
	ctx := t.Context()
	funded(t, node, payer, 2, 2*capacity)
	id := opened(t, node, payer, payee)
	paid(t, payer, payee, id, 60_000)
	opened(t, node, payer, payee)
	before, err := payer.wallet.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	payer.stop()
	payee.stop()
	again := newDevice(t, node, 1, 3)
	open := func() (n int) {
		for _, r := range again.m.Restored() {
			if r.ClosingTxID == ([32]byte{}) {
				n++
			}
		}
		return n
	}
	eventually(t, "two open channels", func() bool { _, done := again.m.Searched(); return done && open() == 2 })
	if err := again.wallet.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	if err := node.TakeBack(ctx, 1); err != nil {
		t.Fatal(err)
	}
	mine(t, node, lifetime+2)
	for _, r := range again.m.Restored() {
		spender(t, node, r.Funding, "refund", any1)
	}
	mine(t, node, 2)
	eventually(t, "refunds in a block", func() bool {
		for _, r := range again.m.Restored() {
			if r.ClosingTxID == ([32]byte{}) || r.ClosingDepth == 0 {
				return false
			}
		}
		return true
	})
	after, err := again.wallet.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if lost := before.Confirmed + 2*capacity - after.Confirmed; lost > 2_000 {
		t.Errorf("%d units before and %d in channels, %d after: %d were lost, want two fees", uint64(before.Confirmed), 2*capacity, uint64(after.Confirmed), uint64(lost))
	}
}
