//go:build system

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// newOwner is a party that deposits with towers.
func newOwner(t *testing.T, node *nodetest.Node, seed byte) *party {
	t.Helper()
	p := sat(t, node, seed, seed)
	p.cfg.DepositEvery = 50_000
	p.start()
	return p
}

// supply brings towers up to date over TCP.
func (p *party) supply(towers ...tower.Target) {
	p.t.Helper()
	key, err := p.keys.TowerKey()
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := tower.NewDepositor(p.t.Context(), tower.DepositorConfig{Network: p.cfg.Network, Key: key, Parcels: p.m.Parcels, Store: p.store, Towers: towers})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := d.Supply(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// keep runs a tower on the node, reached over TCP. stop ends it.
func keep(t *testing.T, node *nodetest.Node, key byte, store *settletest.Store) (target tower.Target, stop func()) {
	t.Helper()
	ledger, err := node.Driver()
	if err != nil {
		t.Fatal(err)
	}
	tw, err := tower.New(t.Context(), tower.Config{Network: node.Network, Ledger: ledger, Store: store, Key: pktcloud.NewPrivateKey([32]byte{key})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	runs := run(t, "tower", tw.Run)
	serves := run(t, "tower", func(ctx context.Context) error { return tw.Serve(ctx, l) })
	stop = func() { runs(); serves() }
	t.Cleanup(stop)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	return tower.Target{Name: l.Addr().String(), Key: tw.Key(), Dial: dial}, stop
}

// chainOf is a channel's ledger view.
func (p *party) funding(id pktcloud.ID) settle.Outpoint {
	p.t.Helper()
	st, err := p.m.Status(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := pktchain.ParseDetail(st.Params.Detail)
	if err != nil {
		p.t.Fatal(err)
	}
	return d.Funding
}

// spender waits until the mempool or a block has a spender of an output that
// ok likes.
func spender(t *testing.T, node *nodetest.Node, at settle.Outpoint, what string, ok func(*settle.Spend) bool) *settle.Spend {
	t.Helper()
	var found *settle.Spend
	eventually(t, what, func() bool {
		o, err := node.Ledger.Output(t.Context(), at)
		if err == nil && o.Spend != nil && ok(o.Spend) {
			found = o.Spend
		}
		return found != nil
	})
	return found
}

func any1(*settle.Spend) bool { return true }

func is(raw []byte) func(*settle.Spend) bool {
	return func(s *settle.Spend) bool { return bytes.Equal(s.Raw, raw) }
}

// pay pays and deposits every total in turn; it returns the parcels.
func payAndDeposit(t *testing.T, payer, payee *party, id pktcloud.ID, towers []tower.Target, totals ...pktcloud.Amount) []manager.Parcel {
	t.Helper()
	var parcels []manager.Parcel
	for _, total := range totals {
		paid(t, payer, payee, id, total)
		if ids := payee.m.WantLate(); len(ids) != 1 || ids[0] != id {
			t.Fatalf("got %v wanted, want the channel", ids)
		}
		l, err := payer.m.LateProof(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := payee.m.TakeLate(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		payee.supply(towers...)
		list, err := payee.m.Parcels(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("got %d parcels, %v", len(list), err)
		}
		parcels = append(parcels, list[0])
	}
	return parcels
}

// mineUntil mines to a height, in steps that a ledger of a poor machine follows.
func mineUntil(t *testing.T, node *nodetest.Node, height uint64) {
	t.Helper()
	tip, err := node.Ledger.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if height > tip.Height {
		mine(t, node, int(height-tip.Height))
	}
}

func (p *party) lockOf(id pktcloud.ID) (late, expiry uint64) {
	p.t.Helper()
	st, err := p.m.Status(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return st.Params.LateHeight(), st.Params.ExpiryHeight
}

func outputOf(t *testing.T, raw []byte, i int) pktcloud.Amount {
	t.Helper()
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return pktcloud.Amount(tx.TxOut[i].Value)
}

// refused demands that the node takes none of a parcel's transactions.
func refused(t *testing.T, node *nodetest.Node, what string, p manager.Parcel) {
	t.Helper()
	for i, raw := range p.Txs {
		if err := node.Ledger.Broadcast(t.Context(), raw); !errors.Is(err, settle.ErrRejected) {
			t.Errorf("%s, level %d: got %v, want a refusal", what, i, err)
		}
	}
}

// TestTowerOverNode has owners that are away while a real node under standard
// policy mines past the lock times, towers that act for them, and towers in
// wrong hands.
func TestTowerOverNode(t *testing.T) {
	node := nodetest.New(t)
	payer, payee := newOwner(t, node, 1), newOwner(t, node, 2)
	funded(t, node, payer, 5, 2*capacity)

	t.Run("the payee is away, the payer waits for the refund", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		at := payee.funding(id)
		honest, _ := keep(t, node, 11, settletest.NewStore())
		second, stop := keep(t, node, 12, settletest.NewStore())
		parcels := payAndDeposit(t, payer, payee, id, []tower.Target{honest, second}, 300_000, 700_000)
		stop() // one of the two is not there when it counts
		late, expiry := payee.lockOf(id)
		mineUntil(t, node, late-200) // before the deadline
		payee.stop()
		mineUntil(t, node, late-1)
		refused(t, node, "a late claim before its height", parcels[1])
		mine(t, node, 1)
		sent := spender(t, node, at, "late claim of the tower", any1)
		refused(t, node, "an older deposit", parcels[0])
		mineUntil(t, node, expiry+2)
		payee.start()
		for name, p := range map[string]*party{"payer": payer, "payee": payee} {
			st := p.until(t, id, "end", phase(settle.Closed))
			if st.ClosingTxID != sent.TxID || st.Settled != outputOf(t, parcels[1].Txs[0], 1) {
				t.Errorf("%s: got %d units by %x, want the tower's %x", name, uint64(st.Settled), st.ClosingTxID, sent.TxID)
			}
		}
		if got := outputOf(t, sent.Raw, 0); got != capacity-700_000-reserve {
			t.Errorf("the payer got %d units, want %d", uint64(got), capacity-700_000-reserve)
		}
		if !bytes.Equal(sent.Raw, parcels[1].Txs[0]) {
			t.Error("what was mined is not the newest deposit")
		}
	})
	t.Run("a hostile tower is first with an older deposit", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		at := payee.funding(id)
		store := settletest.NewStore()
		honest, stop := keep(t, node, 13, store)
		parcels := payAndDeposit(t, payer, payee, id, []tower.Target{honest}, 200_000, 400_000, 900_000)
		late, expiry := payee.lockOf(id)
		payee.stop()
		stop()
		mineUntil(t, node, late)
		for _, p := range parcels[:2] { // each older deposit, each level that the node takes
			for _, raw := range p.Txs {
				if err := node.Ledger.Broadcast(t.Context(), raw); err != nil && !errors.Is(err, settle.ErrRejected) {
					t.Fatal(err)
				}
			}
		}
		spender(t, node, at, "hostile claim", is(parcels[1].Txs[0]))
		keep(t, node, 13, store.Clone()) // the honest one restarts
		spender(t, node, at, "replacement", is(parcels[2].Txs[0]))
		for _, p := range parcels[:2] {
			refused(t, node, "an older deposit after the replacement", p)
		}
		mineUntil(t, node, expiry+2)
		payee.start()
		if st := payee.until(t, id, "end", phase(settle.Closed)); st.Settled != outputOf(t, parcels[2].Txs[0], 1) {
			t.Errorf("got %d units, want those of the newest deposit", uint64(st.Settled))
		}
	})
	t.Run("a hostile tower against an online payee", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		at := payee.funding(id)
		parcels := payAndDeposit(t, payer, payee, id, nil, 200_000, 400_000)
		paid(t, payer, payee, id, 430_000) // after the last deposit
		late, _ := payee.lockOf(id)
		mineUntil(t, node, late-margin) // the deadline
		claim := spender(t, node, at, "claim", any1)
		for _, p := range parcels {
			refused(t, node, "a late claim at the deadline", p)
		}
		mine(t, node, 1)
		mineUntil(t, node, late+1)
		for _, p := range parcels {
			refused(t, node, "a late claim after the claim", p)
		}
		st := payee.until(t, id, "end", phase(settle.Closed))
		if st.ClosingTxID != claim.TxID || st.Settled+1_000 < 430_000+reserve {
			t.Errorf("got %d units by %x, want all that was paid by the payee's claim", uint64(st.Settled), st.ClosingTxID)
		}
	})
	t.Run("the payer is away, its refund ladder is kept", func(t *testing.T) {
		id := opened(t, node, payer, payee)
		at := payee.funding(id)
		honest, _ := keep(t, node, 14, settletest.NewStore())
		payer.supply(honest)
		list, err := payer.m.Parcels(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("got %d parcels, %v", len(list), err)
		}
		_, expiry := payee.lockOf(id)
		payer.stop()
		mineUntil(t, node, expiry-1)
		refused(t, node, "a refund before expiry", list[0])
		mine(t, node, 1)
		sent := spender(t, node, at, "refund of the tower", any1)
		mine(t, node, 3)
		payer.start()
		st := payer.until(t, id, "refund", phase(settle.Refunded))
		if st.ClosingTxID != sent.TxID || !bytes.Equal(sent.Raw, list[0].Txs[0]) {
			t.Errorf("got the refund %x, want the tower's %x", st.ClosingTxID, sent.TxID)
		}
	})
	t.Run("the payee's machine is lost, with one tower left", func(t *testing.T) {
		lostPayee(t, node, payer, payee)
	})
}

// lostPayee loses the payee's machine while the payer withholds everything. A new
// machine with the seed alone asks two towers, of which one is gone.
func lostPayee(t *testing.T, node *nodetest.Node, payer, payee *party) {
	id := opened(t, node, payer, payee)
	at := payee.funding(id)
	honest, _ := keep(t, node, 15, settletest.NewStore())
	gone, stop := keep(t, node, 16, settletest.NewStore())
	parcels := payAndDeposit(t, payer, payee, id, []tower.Target{honest, gone}, 300_000, 700_000)
	paid(t, payer, payee, id, 730_000) // after the last deposit
	late, _ := payee.lockOf(id)
	stop()
	payer.stop()
	payee.stop()
	again := newOwner(t, node, 2)
	if err := again.wallet.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := again.wallet.Balance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := again.keys.TowerKey()
	if err != nil {
		t.Fatal(err)
	}
	d, err := tower.NewDepositor(t.Context(), tower.DepositorConfig{
		Network: node.Network, Key: key, Parcels: again.m.Parcels, Store: again.store, Towers: []tower.Target{gone, honest},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Recall(t.Context(), false, again.m.Recall); err == nil {
		t.Error("a tower that is gone answered")
	}
	if list := again.m.Restored(); len(list) != 1 || list[0].Claim != 700_000+reserve || list[0].From != late {
		t.Fatalf("given back: got %+v", list)
	}
	mineUntil(t, node, late)
	sent := spender(t, node, at, "late claim", is(parcels[1].Txs[0]))
	mine(t, node, 1)
	eventually(t, "the claim in a block", func() bool { return again.m.Restored()[0].ClosingDepth > 0 })
	r := again.m.Restored()[0]
	if want := outputOf(t, parcels[1].Txs[0], 1); r.ClosingTxID != sent.TxID || r.Returned != want {
		t.Errorf("got %d units by %x, want %d by %x", uint64(r.Returned), r.ClosingTxID, uint64(want), sent.TxID)
	}
	after, err := again.wallet.Balance(t.Context())
	if err != nil || after.Confirmed != before.Confirmed+r.Returned {
		t.Errorf("the wallet: got %d units after %d (%v), want the claim's in it", uint64(after.Confirmed), uint64(before.Confirmed), err)
	}
}
