package tower_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// A deposit's whole life: kept over restarts, sent at its height and not
// before, raised while it is not mined, sent again after a reorganisation, and
// forgotten long after the end.
func TestLateClaimLife(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	p := c.late(1_000_000, 400, 1_600, 6_400)
	r := w.take(c.deposit(c.payee, p))
	if r.Body.Tower != w.Key() || r.Verify() != nil {
		t.Errorf("got the receipt %+v", r)
	}
	w.crash()
	mineTo(t, l, lock-1)
	until(t, "look", func() bool { return len(w.List()) == 1 })
	w.crash()
	if len(l.Pool()) != 0 {
		t.Fatal("broadcast before the lock height")
	}
	l.Mine(1)
	pooled(t, l, "lowest level at the lock height", p.Txs[0])
	l.Reorg(0) // the mempool forgets, and a block comes
	pooled(t, l, "the same level again", p.Txs[0])
	w.stop()
	for range tower.RaiseBlocks - 1 {
		l.Reorg(0)
	}
	w.crash()
	pooled(t, l, "next level", p.Txs[1])
	w.crash()
	pooled(t, l, "same level after a restart", p.Txs[1])
	l.Mine(1)
	until(t, "end", func() bool { return w.List()[0].Watch.Ended > 0 })
	l.Reorg(1) // forgets it
	pooled(t, l, "rebroadcast", p.Txs[1])
	l.Mine(1)
	until(t, "end", func() bool { return w.List()[0].Watch.Ended > 0 })
	if s := spent(t, l, c); s == nil || !bytes.Equal(s.Raw, p.Txs[1]) || w.List()[0].TxID != s.TxID {
		t.Error("the chain has another end than the tower sent")
	}
	l.Mine(tower.FinalDepth + 1)
	w.crash()
	if len(w.List()) != 1 {
		t.Error("the client can no longer see what was done for it")
	}
	l.Mine(tower.RetainBlocks)
	until(t, "forgetting", func() bool { return len(w.List()) == 0 })
	w.crash()
	if len(w.List()) != 0 {
		t.Error("the store still has what was forgotten")
	}
}

func TestRefundLadder(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	p := c.refund(400, 1_600)
	w.take(c.deposit(c.payer, p))
	mineTo(t, l, expiry-1)
	w.crash()
	if len(l.Pool()) != 0 {
		t.Fatal("a refund before expiry")
	}
	l.Mine(1)
	pooled(t, l, "refund", p.Txs[0])
	l.Mine(1)
	if s := spent(t, l, c); s == nil || !bytes.Equal(s.Raw, p.Txs[0]) {
		t.Error("no refund on the chain")
	}
}

// A cooperative close ends a deposit that waits; its place is free again long
// after, without its lock height having come.
func TestDepositOfAnEndedChannel(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	w.take(c.lateDeposit(1_000_000, 400))
	proof, err := c.signer.SignVoucher(1_200_000)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := c.payee.Claim(c.chain, c.index, settle.Voucher{Total: 1_200_000, Proof: proof}, 400)
	if err != nil {
		t.Fatal(err)
	}
	broadcast(t, l, claim)
	l.Mine(1)
	_, err = w.Accept(t.Context(), c.lateDeposit(1_100_000, 9_000))
	wantCode(t, "a deposit for an ended channel", err, settle.ErrFunding)
	l.Mine(2 * tower.SweepBlocks)
	until(t, "notice", func() bool { return w.List()[0].Watch.Ended > 0 })
	mineTo(t, l, lock+5)
	if len(l.Pool()) != 0 {
		t.Error("a late claim of a channel that has ended")
	}
	l.Mine(tower.RetainBlocks + tower.SweepBlocks)
	until(t, "forgetting", func() bool { return len(w.List()) == 0 })
}

// What an older deposit in wrong hands does: it is replaced at once, without a
// block in between, whichever of its levels was used.
func TestOlderDepositIsReplaced(t *testing.T) {
	for level := range 3 {
		l := settletest.NewLedger(network(t))
		c := open(t, l, 0)
		w := newWatch(t, l, nil)
		older := c.late(1_000_000, 400, 1_600, 6_400)
		w.take(c.deposit(c.payee, older))
		newer := c.late(3_000_000, c.chain.FeeAbove(levelOf(t, c, older.Txs[2])))
		w.take(c.deposit(c.payee, newer))
		w.stop() // the hostile one is first
		mineTo(t, l, lock)
		broadcast(t, l, older.Txs[level])
		w.crash()
		pooled(t, l, "replacement", newer.Txs[0])
		l.Mine(1)
		if s := spent(t, l, c); s == nil || !bytes.Equal(s.Raw, newer.Txs[0]) {
			t.Errorf("level %d: the chain has the older claim", level)
		}
	}
}

// A tower that holds several levels does not wait for blocks when a foreign
// transaction is in the way of the lowest.
func TestContested(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	p := c.late(3_000_000, 400, 1_600, 6_400)
	w.take(c.deposit(c.payee, p))
	w.stop()
	mineTo(t, l, lock)
	broadcast(t, l, c.late(1_000_000, 2_000).Txs[0])
	w.crash()
	pooled(t, l, "third level", p.Txs[2])
}

func levelOf(t testing.TB, c channel, raw []byte) pktchain.Level {
	t.Helper()
	l, err := c.chain.LevelOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A receipt is given after the deposit is durable, never before.
func TestReceiptIsDurable(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	w.store.FailWhen(func(int) bool { return true })
	data := c.lateDeposit(1_000_000, 400)
	if _, err := w.Accept(t.Context(), data); !errors.Is(err, settletest.ErrStore) {
		t.Errorf("got %v, want the store's error", err)
	}
	if len(w.List()) != 0 {
		t.Error("what the store did not take is kept")
	}
	w.store.FailWhen(nil)
	first := w.take(data)
	w.crash()
	if len(w.List()) != 1 {
		t.Fatal("a deposit with a receipt is lost after a restart")
	}
	if again := w.take(data); again.Body.Deposit != first.Body.Deposit {
		t.Error("the same deposit again: got another receipt")
	}
}

func TestAcceptRefuses(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	other := open(t, l, 1)
	payee, payer := towerKey(t, c.payee), towerKey(t, c.payer)
	record := func(key pktcloud.PrivateKey, p tower.Parcel, change func(*tower.Deposit)) []byte {
		d := tower.Deposit{Version: tower.DepositVersion, Client: key.Public(), Rail: network(t).Rail, Owner: p.Owner, Txs: p.Txs}
		if change != nil {
			change(&d)
		}
		return sealed(t, key, d)
	}
	good := c.late(1_000_000, 400, 1_600)
	held := c.late(1_500_000, 5_000)
	altered := func(change func(tx *wire.MsgTx)) tower.Parcel {
		tx := decode(t, good.Txs[0])
		change(tx)
		return tower.Parcel{Owner: good.Owner, Txs: [][]byte{encode(tx)}}
	}
	unfunded := func() []byte {
		l := settletest.NewLedger(network(t))
		l.Mine(3) // another chain
		return open(t, l, 2).lateDeposit(1_000_000, 400)
	}
	for _, tt := range []struct {
		name   string
		height uint64
		change func(*tower.Config)
		data   []byte
		want   settle.Code
	}{
		{"no deposit", 0, nil, []byte{1}, settle.ErrMalformed},
		{"version", 0, nil, record(payee, good, func(d *tower.Deposit) { d.Version = 2 }), settle.ErrMalformed},
		{"extensions", 0, nil, record(payee, good, func(d *tower.Deposit) { d.Ext = map[string][]byte{"x": {1}} }), settle.ErrMalformed},
		{"no transactions", 0, nil, record(payee, good, func(d *tower.Deposit) { d.Txs = nil }), settle.ErrMalformed},
		{"nine levels", 0, nil, record(payee, good, func(d *tower.Deposit) { d.Txs = slices.Repeat(d.Txs[:1], 9) }), settle.ErrMalformed},
		{"signed by another", 0, nil, sealed(t, payer, tower.Deposit{Version: 1, Client: payee.Public(), Rail: network(t).Rail, Owner: good.Owner, Txs: good.Txs}), settle.ErrMalformed},
		{"another rail", 0, nil, record(payee, good, func(d *tower.Deposit) { d.Rail = "pkt" }), settle.ErrParams},
		{"two totals", 0, nil, record(payee, tower.Parcel{Owner: good.Owner, Txs: [][]byte{good.Txs[0], c.late(1_000_001, 1_600).Txs[0]}}, nil), settle.ErrMalformed},
		{"falling fees", 0, nil, record(payee, tower.Parcel{Owner: good.Owner, Txs: reversed(good.Txs)}, nil), settle.ErrFee},
		{"one level twice", 0, nil, record(payee, tower.Parcel{Owner: good.Owner, Txs: slices.Repeat(good.Txs[:1], 2)}, nil), settle.ErrFee},
		{"a client without the owner's word", 0, nil, record(payer, good, nil), settle.ErrProof},
		{"the owner's word for another channel", 0, nil, record(payee, tower.Parcel{Owner: other.late(1, 400).Owner, Txs: good.Txs}, nil), settle.ErrProof},
		{"a changed signature", 0, nil, record(payee, altered(func(tx *wire.MsgTx) { tx.TxIn[0].Witness[1][10] ^= 1 }), nil), settle.ErrProof},
		{"an unsigned amount", 0, nil, record(payee, altered(func(tx *wire.MsgTx) { tx.TxOut[1].Value-- }), nil), settle.ErrProof},
		{"an output with data", 0, nil, record(payee, altered(func(tx *wire.MsgTx) { tx.TxOut[1].PkScript = []byte{0x6a, 4, 1, 2, 3, 4} }), nil), settle.ErrMalformed},
		{"not funded here", 0, nil, unfunded(), settle.ErrFunding},
		{"at the lock height", lock, nil, record(payee, good, nil), settle.ErrLate},
		{"a small channel", 0, func(c *tower.Config) { c.MinValue = capacity + 1 }, record(payee, good, nil), settle.ErrFunding},
		{"a stranger", 0, func(c *tower.Config) { c.Admit = func(pktcloud.PublicKey) bool { return false } }, record(payee, good, nil), settle.ErrQuota},
		{"less than before", 0, nil, c.lateDeposit(1_499_999, 50_000), settle.ErrFell},
		{"no higher fee than before", 0, nil, c.lateDeposit(1_600_000, 5_100), settle.ErrStale},
		{"higher fee below a level", 0, nil, c.lateDeposit(1_600_000, 400, 4_000), settle.ErrStale},
		{"the client's bytes", 0, func(c *tower.Config) { c.Quota.ClientBytes = 700 }, record(payee, c.late(1_600_000, 6_000, 12_000), nil), settle.ErrQuota},
		{"all bytes", 0, func(c *tower.Config) { c.Quota.Bytes = 700 }, record(payee, c.late(1_600_000, 6_000, 12_000), nil), settle.ErrQuota},
		{"the client's number", 0, func(c *tower.Config) { c.Quota.ClientDeposits = 1 }, other.lateDeposit(1_000_000, 400), settle.ErrQuota},
		{"all numbers", 0, func(c *tower.Config) { c.Quota.Deposits = 1 }, c.deposit(c.payer, c.refund(400)), settle.ErrQuota},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatch(t, l, tt.change)
			w.cfg.Quota = tower.Quota{}
			kept := 0
			if slices.Contains([]settle.Code{settle.ErrFell, settle.ErrStale, settle.ErrQuota}, tt.want) && tt.name != "a stranger" {
				w.take(c.deposit(c.payee, held))
				kept = 1
			}
			if tt.height > 0 {
				l := settletest.NewLedger(network(t))
				c := open(t, l, 0)
				mineTo(t, l, tt.height)
				w = newWatch(t, l, nil)
				tt.data = c.lateDeposit(1_000_000, 400)
			}
			_, err := w.Accept(t.Context(), tt.data)
			wantCode(t, tt.name, err, tt.want)
			if got := len(w.List()); got != kept {
				t.Errorf("got %d deposits after a refusal, want %d", got, kept)
			}
		})
	}
}

// A channel has one deposit of each kind, whose client its owner names first;
// and none for years ahead.
func TestTwoClients(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	w.take(c.lateDeposit(1_000_000, 400))
	_, err := w.Accept(t.Context(), c.by(pktcloud.NewPrivateKey([32]byte{66}), 2_000_000, 9_000))
	wantCode(t, "a second client", err, settle.ErrRole)
	far := openUntil(t, l, 1, tower.MaxAheadBlocks+margin+100, margin)
	_, err = w.Accept(t.Context(), far.lateDeposit(1_000_000, 400))
	wantCode(t, "a lock height years ahead", err, settle.ErrParams)
	if len(w.List()) != 1 {
		t.Error("a refused deposit is kept")
	}
}

// Without an answer of the chain nothing is taken, and nothing held against it.
func TestTowerIsBlind(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	w := newWatch(t, l, nil)
	l.SetDown(true)
	data := c.lateDeposit(1_000_000, 400)
	_, err := w.Accept(t.Context(), data)
	wantCode(t, "blind", err, settle.ErrBusy)
	l.SetDown(false)
	w.take(data)
	l.SetDown(true)
	w.crash() // starts without a ledger
	l.SetDown(false)
	mineTo(t, l, lock)
	until(t, "broadcast", func() bool { return len(l.Pool()) == 1 })
}
