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

// A short channel: a block costs the twin's chain time.
const (
	shortExpiry = 40
	shortMargin = 10
	shortLock   = shortExpiry - shortMargin
)

// prepared is a channel and what is deposited of it, one total after the other.
// Signatures are the same each time, so that they are made once.
type prepared struct {
	c       channel
	parcels []tower.Parcel
	records [][]byte
	totals  []pktcloud.Amount
	claims  [][]byte // of an online payee, at these totals
}

func prepare(t *testing.T) prepared {
	t.Helper()
	p := prepared{c: openUntil(t, settletest.NewLedger(network(t)), 0, shortExpiry, shortMargin)}
	var above pktchain.Level
	for i, total := range []pktcloud.Amount{300_000, 500_000, 1_400_000} {
		fees, err := p.c.chain.LateFees(total, []pktcloud.Amount{2_000, 9_000, 1_000}[i], above)
		if err != nil {
			t.Fatal(err)
		}
		parcel := p.c.late(total, fees...)
		if above, err = p.c.chain.LevelOf(parcel.Txs[len(parcel.Txs)-1]); err != nil {
			t.Fatal(err)
		}
		proof, err := p.c.signer.SignVoucher(total)
		if err != nil {
			t.Fatal(err)
		}
		claim, err := p.c.payee.Claim(p.c.chain, 0, settle.Voucher{Total: total, Proof: proof}, 400)
		if err != nil {
			t.Fatal(err)
		}
		p.parcels, p.totals, p.claims = append(p.parcels, parcel), append(p.totals, total), append(p.claims, claim)
		p.records = append(p.records, p.c.deposit(p.c.payee, parcel))
	}
	return p
}

// away is a payee that made deposits of a channel and went away.
type away struct {
	prepared
	l      *settletest.Ledger
	towers []*tower.Tower // the honest ones
	newest int            // the newest parcel that an honest tower holds
}

// newAway begins a chain with the channel on it, and some honest towers.
func newAway(t *testing.T, rt *rapid.T, p prepared) *away {
	a := &away{prepared: p, l: settletest.NewLedger(network(t)), newest: -1}
	if c := openUntil(t, a.l, 0, shortExpiry, shortMargin); c.chain.Detail.Funding != p.c.chain.Detail.Funding {
		rt.Fatal("the channel is another one than was prepared")
	}
	for range rapid.IntRange(1, 2).Draw(rt, "honest towers") {
		w, err := tower.New(t.Context(), tower.Config{Network: network(t), Ledger: a.l, Store: settletest.NewStore(), Key: pktcloud.NewPrivateKey([32]byte{9})})
		if err != nil {
			rt.Fatal(err)
		}
		a.towers = append(a.towers, w)
	}
	return a
}

// deposit makes the next deposit; it may miss some towers.
func (a *away) deposit(rt *rapid.T, n int) {
	for i, w := range a.towers {
		if !rapid.Bool().Draw(rt, fmt.Sprintf("tower %d reached", i)) {
			continue
		}
		if _, err := w.Accept(context.Background(), a.records[n]); err != nil {
			rt.Fatal(err)
		}
		a.newest = n
	}
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
		if err := errors.Join(a.towers[i].Look(context.Background()), a.towers[i].CheckBook()); err != nil {
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
	p := prepare(t)
	rapid.Check(t, func(rt *rapid.T) {
		a := newAway(t, rt, p)
		for n := range rapid.IntRange(1, len(p.parcels)).Draw(rt, "deposits") {
			a.deposit(rt, n)
		}
		if a.newest < 0 {
			return // no tower was reached
		}
		mineTo(t, a.l, uint64(rapid.IntRange(shortLock-3, shortLock).Draw(rt, "height")))
		for s := spent(t, a.l, a.c); s == nil || s.Depth == 0; s = spent(t, a.l, a.c) {
			for range rapid.IntRange(0, 2).Draw(rt, "attacks") {
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
	p := prepare(t)
	rapid.Check(t, func(rt *rapid.T) {
		a := newAway(t, rt, p)
		a.newest = rapid.IntRange(0, len(p.parcels)-1).Draw(rt, "deposits") // all of them in wrong hands
		a.deposit(rt, a.newest)
		claim := a.claims[rapid.IntRange(a.newest, len(p.claims)-1).Draw(rt, "newest voucher")]
		mineTo(t, a.l, shortLock-shortMargin)
		broadcast(t, a.l, claim)
		for range rapid.IntRange(0, shortMargin-2).Draw(rt, "blocks until the claim is mined") {
			a.attack(rt)
			a.look(rt, false)
			a.l.Reorg(0)
			broadcast(t, a.l, claim)
		}
		a.attack(rt)
		a.l.Mine(1)
		mineTo(t, a.l, shortLock+1)
		a.attack(rt)
		a.look(rt, true)
		a.l.Mine(1)
		if s := spent(t, a.l, a.c); s == nil || !bytes.Equal(s.Raw, claim) {
			rt.Fatal("something else than the payee's claim was mined")
		}
	})
}

func reading(t *testing.T, data []byte) tower.Reading {
	t.Helper()
	r, err := tower.Read(network(t), data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A book within its quotas, whatever clients send.
func TestBookModel(t *testing.T) {
	l := settletest.NewLedger(network(t))
	const channels = 5
	var fundings []settle.Output
	var deposits []tower.Reading
	var totals []pktcloud.Amount
	var owner []int
	for i := range channels {
		c := open(t, l, uint32(i))
		funding, err := l.Output(t.Context(), c.chain.Detail.Funding)
		if err != nil {
			t.Fatal(err)
		}
		fundings = append(fundings, funding)
		for n := range 3 {
			total := pktcloud.Amount(1_000_000 + n*100_000)
			deposits, totals, owner = append(deposits, reading(t, c.lateDeposit(total, pktcloud.Amount(1_000+2_000*n)))), append(totals, total), append(owner, i)
		}
		deposits, totals, owner = append(deposits, reading(t, c.deposit(c.payer, c.refund(400)))), append(totals, 0), append(owner, i)
	}
	rapid.Check(t, func(rt *rapid.T) {
		q := tower.Quota{
			ClientDeposits: uint64(rapid.IntRange(1, 4).Draw(rt, "client deposits")), Deposits: uint64(rapid.IntRange(1, 8).Draw(rt, "deposits")),
			ClientBytes: uint64(rapid.IntRange(700, 4_000).Draw(rt, "client bytes")), Bytes: uint64(rapid.IntRange(700, 8_000).Draw(rt, "bytes")),
		}
		b := tower.NewBook(network(t), q, 0)
		plain := map[tower.Key]pktcloud.Amount{} // the total held
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			i := rapid.IntRange(0, len(deposits)-1).Draw(rt, "deposit")
			r := deposits[i]
			before := b.Total()
			e, fresh, err := b.Weigh(r, 20, fundings[owner[i]])
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
