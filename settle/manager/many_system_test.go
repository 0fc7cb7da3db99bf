//go:build system

package manager_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// manyCapacity is of the first channel; each further one has a thousand more.
const manyCapacity = 1_000_000

// fundedTogether opens as many channels as one transaction may fund.
func fundedTogether(t *testing.T, payer, payee *party) []pktcloud.ID {
	t.Helper()
	ctx := t.Context()
	detail, err := payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var rs []manager.OpenRequest
	for i := range pktchain.MaxRun {
		rs = append(rs, manager.OpenRequest{
			Payee: payee.device, PayeeDetail: detail, Capacity: manyCapacity + 1_000*pktcloud.Amount(i),
			Unconfirmed: 50_000, MinDepth: 2, LifetimeBlocks: lifetime,
		})
	}
	params, funding, err := payer.m.OpenMany(ctx, rs...)
	if err != nil {
		t.Fatal(err)
	}
	var ids []pktcloud.ID
	for _, p := range params {
		id, err := payee.m.Accept(ctx, p, funding)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := payer.m.Announce(ctx, ids[len(ids)/2]); err != nil { // one for all
		t.Fatal(err)
	}
	return ids
}

// TestOpenManyOverNode funds channels by one transaction on a real node under
// standard policy. The chain is asked what became of each: also of those whose
// funding or end went back to the mempool.
func TestOpenManyOverNode(t *testing.T) {
	node := nodetest.New(t)
	payer, payee := newParty(t, node, 1), newParty(t, node, 2)
	funded(t, node, payer, 2, 2*capacity)
	had, err := payer.wallet.Balance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := fundedTogether(t, payer, payee)
	paid(t, payer, payee, ids[3], 50_000) // before a block
	wantTogether(t, node, payer, ids, 0)
	mine(t, node, 1)
	wantTogether(t, node, payer, ids, 1)
	if err := node.TakeBack(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	wantTogether(t, node, payer, ids, 0)
	mine(t, node, 2)
	wantTogether(t, node, payer, ids, 2)
	for _, id := range ids {
		payer.until(t, id, "open channel", phase(settle.Open))
		payee.until(t, id, "open channel", phase(settle.Open))
	}

	// One closes, one is claimed at once, two before their expiry, all others were
	// not paid from and go back.
	totals := map[int]pktcloud.Amount{0: 123_457, 1: 77_000, 2: 200_000, 3: 50_000}
	for _, i := range []int{0, 1, 2} {
		paid(t, payer, payee, ids[i], totals[i])
	}
	offer, err := payer.m.OfferClose(t.Context(), ids[0], totals[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := payee.m.CompleteClose(t.Context(), ids[0], offer); err != nil {
		t.Fatal(err)
	}
	if _, err := payee.m.Claim(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	mine(t, node, 1)
	if err := node.TakeBack(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	mine(t, node, 2)
	for _, i := range []int{0, 1} {
		payer.until(t, ids[i], "end", phase(settle.Closed))
		payee.until(t, ids[i], "end", phase(settle.Closed))
	}
	mine(t, node, lifetime-2*144)
	for _, i := range []int{2, 3} {
		payee.until(t, ids[i], "claim", func(s manager.Status) bool { return endOf(t, payee.cfg.Ledger, node.Network, s) != [32]byte{} })
	}
	mine(t, node, 2*144)
	for _, id := range ids[4:] {
		payer.until(t, id, "refund on its way", func(s manager.Status) bool { return endOf(t, payer.cfg.Ledger, node.Network, s) != [32]byte{} })
	}
	mine(t, node, 2)
	var fees, given pktcloud.Amount
	for i, id := range ids {
		total, ok := totals[i]
		want := settle.Closed
		if !ok {
			want = settle.Refunded
		}
		payer.until(t, id, "end", phase(want))
		end := payer.endOf(t, node, id)
		if end.Refund != !ok || ok && (end.Payee > total+reserve || end.Payee+end.Fee < total) {
			t.Errorf("channel %d, of which %d units were paid: the chain has %+v", i, uint64(total), end)
		}
		given += end.Payee
		fees += end.Fee
	}
	has, err := payer.wallet.Balance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lost := had.Confirmed - has.Confirmed; lost < given || lost > given+fees+pktchain.FundingFeeFactor*1_200 { // of a funding of 16 channels
		t.Errorf("the payer has %d units less, want the %d that the payee has, and fees of %d", uint64(lost), uint64(given), uint64(fees))
	}
}

// chainOf is a channel as the chain has it.
func (p *party) chainOf(t *testing.T, id pktcloud.ID) pktchain.Channel {
	t.Helper()
	st, err := p.m.Status(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pktchain.ChannelOf(p.cfg.Network, st.Params)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// endOf is what the chain says of a channel's end, in a block.
func (p *party) endOf(t *testing.T, node *nodetest.Node, id pktcloud.ID) pktchain.End {
	t.Helper()
	c := p.chainOf(t, id)
	out, err := node.Ledger.Output(t.Context(), c.Detail.Funding)
	if err != nil || out.Spend == nil || out.Spend.Depth == 0 {
		t.Fatalf("got %+v, %v, want an end in a block", out, err)
	}
	end, err := c.EndOf(out.Spend.Raw)
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// wantTogether demands that the chain has all channels, unspent, in one
// transaction.
func wantTogether(t *testing.T, node *nodetest.Node, payer *party, ids []pktcloud.ID, depth uint64) {
	t.Helper()
	seen := map[settle.Outpoint]bool{}
	first := payer.chainOf(t, ids[0]).Detail.Funding.TxID
	for i, id := range ids {
		at := payer.chainOf(t, id).Detail.Funding
		out, err := node.Ledger.Output(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if !out.Known || out.Spend != nil || out.Depth != depth || out.Amount != manyCapacity+1_000*pktcloud.Amount(i) || at.TxID != first || seen[at] {
			t.Errorf("channel %d of %x: the chain has %+v, want it unspent at depth %d", i, first, out, depth)
		}
		seen[at] = true
	}
}
