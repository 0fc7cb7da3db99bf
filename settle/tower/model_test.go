package tower_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// away is a payee that made deposits of a channel and went away.
type away struct {
	c        channel
	l        *settletest.Ledger
	parcels  []tower.Parcel
	totals   []pktcloud.Amount
	towers   []*tower.Tower // the honest ones
	holdings []int          // the newest parcel of each, -1 for none
	newest   int            // the newest parcel that an honest tower holds
}

func newAway(t *testing.T, rt *rapid.T) *away {
	l := settletest.NewLedger(network(t))
	a := &away{c: open(t, l, 0), l: l, newest: -1}
	for range rapid.IntRange(1, 3).Draw(rt, "honest towers") {
		w, err := tower.New(t.Context(), tower.Config{Network: network(t), Ledger: l, Store: settletest.NewStore(), Key: pktcloud.NewPrivateKey([32]byte{9})})
		if err != nil {
			rt.Fatal(err)
		}
		a.towers, a.holdings = append(a.towers, w), append(a.holdings, -1)
	}
	return a
}

// deposit makes a further deposit as a manager does; it may miss some towers.
func (a *away) deposit(rt *rapid.T, total pktcloud.Amount) {
	above := levelsOf(a.c, a.parcels)
	fees, err := a.c.chain.LateFees(total, pktcloud.Amount(rapid.IntRange(1_000, 8_000).Draw(rt, "rate")), above)
	if err != nil {
		rt.Fatal(err)
	}
	a.parcels = append(a.parcels, a.c.late(total, fees...))
	a.totals = append(a.totals, total)
	n := len(a.parcels) - 1
	for i, w := range a.towers {
		if !rapid.Bool().Draw(rt, fmt.Sprintf("tower %d reached", i)) {
			continue
		}
		if _, err := w.Accept(context.Background(), a.c.deposit(a.c.payee, a.parcels[n])); err != nil {
			rt.Fatal(err)
		}
		a.holdings[i], a.newest = n, n
	}
}

// levelsOf is the highest level of some parcels.
func levelsOf(c channel, parcels []tower.Parcel) (top pktchain.Level) {
	for _, p := range parcels {
		for _, raw := range p.Txs {
			if l, err := c.chain.LevelOf(raw); err == nil && l.Fee > top.Fee {
				top = l
			}
		}
	}
	return top
}

// attack broadcasts an older claim, as a tower in wrong hands or the payer may.
func (a *away) attack(rt *rapid.T) {
	p := a.parcels[rapid.IntRange(0, a.newest).Draw(rt, "older deposit")]
	raw := p.Txs[rapid.IntRange(0, len(p.Txs)-1).Draw(rt, "level")]
	if err := a.l.Broadcast(context.Background(), raw); err != nil && !errors.Is(err, settle.ErrRejected) {
		rt.Fatal(err)
	}
}

// look lets the honest towers look, in some order, some of them later.
func (a *away) look(rt *rapid.T, all bool) {
	for _, i := range rapid.Permutation(indexes(len(a.towers))).Draw(rt, "order") {
		if !all && rapid.Bool().Draw(rt, "asleep") {
			continue
		}
		tip, err := a.l.Tip(context.Background())
		if err == nil {
			err = a.towers[i].Look(context.Background(), tip)
		}
		if err = errors.Join(err, a.towers[i].CheckBook()); err != nil {
			rt.Fatal(err)
		}
	}
}

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// One honest tower that holds the newest deposit suffices: whatever older
// deposit others broadcast and when, what is mined is the newest. Only a block
// between an attack and the tower's next look could help the attacker, and the
// tower looks within seconds.
func TestOneHonestTowerSuffices(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := newAway(t, rt)
		total := pktcloud.Amount(0)
		for range rapid.IntRange(1, 4).Draw(rt, "deposits") {
			total += pktcloud.Amount(rapid.IntRange(100_000, 900_000).Draw(rt, "more"))
			a.deposit(rt, total)
		}
		if a.newest < 0 {
			rt.Skip("no tower was reached")
		}
		mineTo(t, a.l, uint64(rapid.IntRange(lock-3, lock).Draw(rt, "height")))
		for spent(t, a.l, a.c) == nil || spent(t, a.l, a.c).Depth == 0 {
			for range rapid.IntRange(0, 3).Draw(rt, "attacks") {
				a.attack(rt)
				a.look(rt, false)
			}
			a.look(rt, true) // before the next block
			if rapid.IntRange(0, 2).Draw(rt, "full block") == 0 {
				a.l.Reorg(0) // an empty block; the mempool forgets
				continue
			}
			a.l.Mine(1)
		}
		end, err := a.c.chain.EndOf(spent(t, a.l, a.c).Raw)
		if err != nil {
			rt.Fatal(err)
		}
		want := a.totals[a.newest]
		if end.Payee+end.Fee != want+reserve || end.Payer != capacity-want-reserve {
			rt.Fatalf("the newest deposit of %d units is not what was mined: %+v", want, end)
		}
	})
}

// An online payee claims a margin before any late claim is valid: no deposit
// gains anybody anything.
func TestLateClaimsNeverBeatAnOnlinePayee(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := newAway(t, rt)
		total := pktcloud.Amount(0)
		for range rapid.IntRange(1, 3).Draw(rt, "deposits") {
			total += pktcloud.Amount(rapid.IntRange(100_000, 900_000).Draw(rt, "more"))
			a.deposit(rt, total)
		}
		a.newest = len(a.parcels) - 1 // all of them in wrong hands
		total += pktcloud.Amount(rapid.IntRange(0, 500_000).Draw(rt, "after the last deposit"))
		proof, err := a.c.signer.SignVoucher(total)
		if err != nil {
			rt.Fatal(err)
		}
		claim, err := a.c.payee.Claim(a.c.chain, 0, settle.Voucher{Total: total, Proof: proof}, 400)
		if err != nil {
			rt.Fatal(err)
		}
		mineTo(t, a.l, expiry-2*margin)
		for delay := rapid.IntRange(0, margin-2).Draw(rt, "blocks until the claim is mined"); delay > 0; delay-- {
			if err := a.l.Broadcast(context.Background(), claim); err != nil {
				rt.Fatal(err)
			}
			if delay%16 == 0 {
				a.attack(rt)
			}
			a.look(rt, false)
			a.l.Reorg(0)
		}
		broadcast(t, a.l, claim)
		a.attack(rt)
		a.l.Mine(1)
		mineTo(t, a.l, lock+1)
		a.attack(rt)
		a.look(rt, true)
		a.l.Mine(1)
		if s := spent(t, a.l, a.c); s == nil || !bytes.Equal(s.Raw, claim) {
			rt.Fatal("something else than the payee's claim was mined")
		}
	})
}

// A book within its quotas, whatever clients send.
func TestBookModel(t *testing.T) {
	l := settletest.NewLedger(network(t))
	const channels = 5
	var cs []channel
	var deposits [][]byte
	var totals []pktcloud.Amount
	var owner []int
	for i := range channels {
		c := open(t, l, uint32(i))
		cs = append(cs, c)
		for n := range 3 {
			total := pktcloud.Amount(1_000_000 + n*100_000)
			deposits, totals, owner = append(deposits, c.lateDeposit(total, pktcloud.Amount(1_000+2_000*n))), append(totals, total), append(owner, i)
		}
		deposits, totals, owner = append(deposits, c.deposit(c.payer, c.refund(400))), append(totals, 0), append(owner, i)
	}
	rapid.Check(t, func(rt *rapid.T) {
		q := tower.Quota{
			ClientDeposits: uint64(rapid.IntRange(1, 4).Draw(rt, "client deposits")), Deposits: uint64(rapid.IntRange(1, 8).Draw(rt, "deposits")),
			ClientBytes: uint64(rapid.IntRange(700, 4_000).Draw(rt, "client bytes")), Bytes: uint64(rapid.IntRange(700, 8_000).Draw(rt, "bytes")),
		}
		b := tower.NewBook(network(t), q, 0)
		plain := map[tower.Key]pktcloud.Amount{} // the total held
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			i := rapid.IntRange(0, len(deposits)-1).Draw(rt, "deposit")
			r, err := tower.Read(network(t), deposits[i])
			if err != nil {
				rt.Fatal(err)
			}
			funding, err := l.Output(t.Context(), cs[owner[i]].chain.Detail.Funding)
			if err != nil {
				rt.Fatal(err)
			}
			before := b.Total()
			e, fresh, err := b.Weigh(r, 20, funding)
			if b.Total() != before {
				rt.Fatal("a judgement changed the book")
			}
			held, ok := plain[r.Key]
			switch {
			case err != nil && !errors.Is(err, settle.ErrQuota) && (!ok || held < totals[i]):
				rt.Fatalf("a deposit that replaces the one before was refused: %v", err)
			case err == nil && ok && totals[i] < held:
				rt.Fatal("a deposit fell")
			case err == nil && fresh:
				b.Put(e)
				plain[r.Key] = totals[i]
			}
			if rapid.IntRange(0, 9).Draw(rt, "drop") == 0 {
				b.Remove(r.Key)
				delete(plain, r.Key)
			}
			if err := b.Check(); err != nil {
				rt.Fatal(err)
			}
			if len(b.Keys()) != len(plain) {
				rt.Fatalf("got %d deposits, want %d", len(b.Keys()), len(plain))
			}
		}
	})
}
