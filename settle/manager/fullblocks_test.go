package manager_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// fundedBy opens a channel to payee, mines it by mine, which lets both sides
// look, and pays from it.
func (payee *party) fundedBy(t *testing.T, payer *party, blocks uint64, units pktcloud.Amount, mine func() settle.Tip) pktchain.Channel {
	t.Helper()
	ctx := t.Context()
	detail, err := payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	params, funding, err := payer.m.Open(ctx, manager.OpenRequest{
		Payee: payee.device, PayeeDetail: detail, Capacity: capacity, Unconfirmed: 50_000, MinDepth: 1, LifetimeBlocks: blocks,
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := payee.m.Accept(ctx, params, funding)
	if err != nil {
		t.Fatal(err)
	}
	if err := payer.m.Announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	mine()
	paid(t, payer, payee, id, units)
	chain, err := pktchain.ChannelOf(payee.cfg.Network, params)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// TestFullBlocksNearExpiry fills every block from the payee's deadline on with
// transactions that pay more than its claim does at first. The payee raises its
// fee by itself, beyond a tenth of its money in the last margin, and is paid
// before the payer may refund. Were its fee fixed, the payer's would win.
func TestFullBlocksNearExpiry(t *testing.T) {
	const margin, rate, units = 24, 500_000, 400_000
	chain, err := devnet.Open(t.TempDir(), devnet.Config{BlockMaxWeight: crowdBlock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	n := network(t)
	payer := seat{network: n, ledger: chain, store: settletest.NewStore(), secret: seedOf("b"), machine: 1}.party(t)
	payee := seat{network: n, ledger: chain, store: settletest.NewStore(), secret: seedOf("c"), machine: 2}.party(t)
	for _, p := range []*party{payer, payee} {
		p.cfg.MarginBlocks = margin
		p.make()
	}
	c := newCrowd(t, chain, rate, nil)
	script, err := payer.wallet.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Faucet(t.Context(), script, 2*capacity); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Faucet(t.Context(), c.script, 1_000_000_000); err != nil {
		t.Fatal(err)
	}
	c.split(1_000_000_000, 20_000_000)
	mine := func() settle.Tip {
		t.Helper()
		if _, err := chain.Mine(1, nil); err != nil {
			t.Fatal(err)
		}
		for _, side := range []*party{payee, payer} {
			if err := side.m.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		tip, err := chain.Tip(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return tip
	}
	rush{crowd: c, paid: units, mine: mine, chain: payee.fundedBy(t, payer, 2*margin+4, units, mine)}.run(t)
}
