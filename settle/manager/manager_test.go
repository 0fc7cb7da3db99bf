package manager_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

const (
	capacity = 10_000_000
	reserve  = 20_000
	lifetime = 600
)

// side is one party: a manager, and what a restart keeps of it.
type side struct {
	t      testing.TB
	name   string
	cfg    manager.Config
	wallet *settletest.Wallet
	store  *settletest.Store
	m      *manager.Manager
	stop   func()
}

// world is a payer and a payee over one chain.
type world struct {
	t            testing.TB
	net          pktchain.Network
	ledger       *settletest.Ledger
	clock        *clock
	payer, payee *side
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func network(t testing.TB) pktchain.Network {
	t.Helper()
	n, ok := pktchain.NetworkOf("pkt-devnet")
	if !ok {
		t.Fatal("no devnet")
	}
	return n
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, network(t))
}

func newWorldOn(t testing.TB, n pktchain.Network) *world {
	t.Helper()
	w := &world{t: t, net: n, ledger: settletest.NewLedger(n), clock: &clock{now: time.Unix(1_800_000_000, 0)}}
	w.payer, w.payee = w.side("payer"), w.side("payee")
	script, err := w.payer.wallet.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ledger.Mint(script, 30_000_000)
	w.ledger.Mint(script, 30_000_000)
	return w
}

func (w *world) side(name string) *side {
	seed := sha256.Sum256([]byte(name))
	keys, err := pktchain.NewKeychain(w.net, append(seed[:], seed[:]...))
	if err != nil {
		w.t.Fatal(err)
	}
	s := &side{t: w.t, name: name, wallet: settletest.NewWallet(w.net, w.ledger, name), store: settletest.NewStore()}
	s.cfg = manager.Config{
		Network: w.net, Ledger: w.ledger, Store: s.store, Wallet: s.wallet, Keychain: keys,
		DeviceKey: pktcloud.NewPrivateKey(seed), Reserve: reserve, Now: w.clock.Now,
	}
	s.start()
	w.t.Cleanup(func() { s.stop() })
	return s
}

// start begins to run the side from its store.
func (s *side) start() {
	s.t.Helper()
	var err error
	if s.m, err = manager.New(context.Background(), s.cfg); err != nil {
		s.t.Fatal(err)
	}
	s.stop = run(s.t, s.name, s.m.Run)
}

// crash ends the side and starts it from what its store holds.
func (s *side) crash() {
	s.t.Helper()
	s.stop()
	s.cfg.Store = s.store.Clone()
	s.store = s.cfg.Store.(*settletest.Store)
	s.start()
}

// open makes a channel that both sides have, not announced.
func (w *world) open(change func(*manager.OpenRequest)) pktcloud.ID {
	w.t.Helper()
	ctx := w.t.Context()
	detail, err := w.payee.m.PayeeDetail(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	r := manager.OpenRequest{
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity,
		Unconfirmed: 50_000, MinDepth: 2, LifetimeBlocks: lifetime,
	}
	if change != nil {
		change(&r)
	}
	params, funding, err := w.payer.m.Open(ctx, r)
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := w.payee.m.Accept(ctx, params, funding)
	if err != nil {
		w.t.Fatal(err)
	}
	if again, err := w.payee.m.Accept(ctx, params, funding); err != nil || again != id {
		w.t.Fatalf("the same channel again: got %v, %v", again, err)
	}
	return id
}

// settled opens, announces and mines a channel.
func (w *world) settled() pktcloud.ID {
	w.t.Helper()
	id := w.open(nil)
	if err := w.payer.m.Announce(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Mine(2)
	w.payer.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.payee.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	return id
}

// until polls a channel's status.
func (s *side) until(id pktcloud.ID, what string, ok func(manager.Status) bool) manager.Status {
	s.t.Helper()
	var st manager.Status
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		var err error
		if st, err = s.m.Status(s.t.Context(), id); err != nil {
			s.t.Fatal(err)
		}
		if ok(st) {
			return st
		}
	}
	s.t.Fatalf("%s: no %s within two minutes: %s at height %d, depth %d, closing depth %d", s.name, what, st.Phase, st.Height, st.Depth, st.ClosingDepth)
	return st
}

// endOf is the transaction by which the chain, its mempool included, ends a
// channel; zero while there is none. A manager names its own before it is sent.
func endOf(t testing.TB, l settle.Ledger, n pktchain.Network, s manager.Status) [32]byte {
	t.Helper()
	ch, err := pktchain.ChannelOf(n, s.Params)
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.Output(t.Context(), ch.Detail.Funding)
	if err != nil || out.Spend == nil {
		return [32]byte{}
	}
	return out.Spend.TxID
}

// endOf is that of the twin chain.
func (w *world) endOf(s manager.Status) [32]byte { return endOf(w.t, w.ledger, w.net, s) }

func entry(lease string, units pktcloud.Amount) settle.Entry {
	return settle.Entry{Lease: pktcloud.IDOf([]byte(lease)), Cumulative: units, Statement: pktcloud.IDOf([]byte("statement"))}
}

func (w *world) pay(id pktcloud.ID, lease string, units pktcloud.Amount) pktcloud.Signed[settle.Voucher] {
	w.t.Helper()
	v, err := w.payer.m.Pay(w.t.Context(), id, entry(lease, units))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.payee.m.Receive(w.t.Context(), v); err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) balance(s *side) pktcloud.Amount {
	w.t.Helper()
	b, err := s.wallet.Balance(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func code(t *testing.T, what string, err error, want settle.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// A channel's ordinary life, with both sides restarted at every step.
func TestCooperativeClose(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.open(nil)
	w.payer.crash()
	w.payee.crash()
	if n := len(w.ledger.Pool()); n != 0 {
		t.Fatalf("got %d transactions on the network before the announcement, want 0", n)
	}
	if err := w.payee.m.Announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := w.payer.m.Announce(ctx, id); err != nil {
		t.Fatalf("announced twice: %v", err)
	}
	code(t, "abandon after the announcement", w.payer.m.Abandon(ctx, id), settle.ErrClosed)
	w.pay(id, "a", 30_000) // within the unconfirmed limit
	_, err := w.payer.m.Pay(ctx, id, entry("a", 60_000))
	code(t, "beyond the unconfirmed limit", err, settle.ErrUnconfirmed)
	w.ledger.Mine(2)
	w.payer.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.payee.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open })
	first := w.pay(id, "a", 60_000)
	w.payer.crash()
	w.payee.crash()
	if again := w.pay(id, "a", 60_000); again.Sig != first.Sig {
		t.Error("the same entry after a restart: got another voucher, want the same")
	}
	w.pay(id, "b", 5_000)
	offer, err := w.payer.m.OfferClose(ctx, id, 66_000)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.payer.m.Pay(ctx, id, entry("b", 6_000))
	code(t, "pay after a close offer", err, settle.ErrClosed)
	w.payer.crash()
	w.ledger.SetFeeRate(5_000) // the offer stays what it was
	if again, err := w.payer.m.OfferClose(ctx, id, 66_000); err != nil || again.Fee != offer.Fee || !slices.Equal(again.Signature, offer.Signature) {
		t.Errorf("the same close offer again: got %v, %v, want %v", again, err, offer)
	}
	txid, err := w.payee.m.CompleteClose(ctx, id, offer)
	if err != nil {
		t.Fatal(err)
	}
	w.payee.crash()
	if again, err := w.payee.m.CompleteClose(ctx, id, offer); err != nil || again != txid {
		t.Errorf("the same close again: got %x, %v, want %x", again, err, txid)
	}
	w.ledger.Mine(1)
	w.ledger.Mine(1)
	for _, s := range []*side{w.payer, w.payee} {
		st := s.until(id, "closed", func(s manager.Status) bool { return s.Phase == settle.Closed })
		if st.Settled != 66_000 || st.ClosingTxID != txid {
			t.Errorf("%s: got %d units by %x, want 66000 by %x", s.name, uint64(st.Settled), st.ClosingTxID, txid)
		}
	}
	if got := w.balance(w.payee); got != 66_000 {
		t.Errorf("the payee's wallet: got %d units, want 66000", uint64(got))
	}
	funding := pktcloud.Amount(60_000_000) - w.balance(w.payer) - 66_000 - offer.Fee
	if funding == 0 || funding > 10_000 {
		t.Errorf("the payer's wallet: %d units are missing beyond final and closing fee", uint64(funding))
	}
}

func TestUnilateralClaim(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 400_000)
	w.ledger.Mine(lifetime - 2*144 - 3) // one block before the deadline
	st := w.payee.until(id, "height", func(s manager.Status) bool { return s.Height == s.Params.Deadline()-1 })
	if st.Phase != settle.Open {
		t.Fatalf("one block before the deadline: got %s, want open", st.Phase)
	}
	w.ledger.Mine(1)
	st = w.payee.until(id, "claim", func(s manager.Status) bool { return s.Phase == settle.Closing && len(w.ledger.Pool()) == 1 })
	first := w.ledger.Pool()[0]
	w.payee.crash()
	w.ledger.Reorg(1) // forgets the claim: it must be broadcast again
	w.payee.until(id, "rebroadcast", func(manager.Status) bool { return len(w.ledger.Pool()) == 1 })
	if string(w.ledger.Pool()[0]) != string(first) {
		t.Error("rebroadcast: got another transaction, want the same")
	}
	w.ledger.Mine(2)
	st = w.payee.until(id, "closed", func(s manager.Status) bool { return s.Phase == settle.Closed })
	claimFee := 400_000 + reserve - st.Settled
	if claimFee < 180 || claimFee > 1_000 {
		t.Errorf("got %d units claimed, want 400000 and the reserve less a small fee", uint64(st.Settled))
	}
	code(t, "a voucher after the claim", w.payee.m.Receive(t.Context(), mustSeal(t, w, id)), settle.ErrClosed)
	if st := w.payer.until(id, "closed", func(s manager.Status) bool { return s.Phase == settle.Closed }); st.Settled != 400_000+reserve-claimFee {
		t.Errorf("the payer sees %d units settled", uint64(st.Settled))
	}
}

// mustSeal makes a voucher behind the payer's manager's back.
func mustSeal(t *testing.T, w *world, id pktcloud.ID) pktcloud.Signed[settle.Voucher] {
	t.Helper()
	latest, ok := w.payer.m.Latest(id)
	if !ok {
		t.Fatal("no voucher")
	}
	v := latest.Body
	v.Sequence++
	s, err := pktcloud.Seal(w.payer.cfg.DeviceKey, v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A claim that is not mined pays more and more, within the payee's part.
func TestClaimFeeIsRaised(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 400_000)
	if _, err := w.payee.m.Claim(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.ledger.Reorg(0) // the mempool forgets, and a block comes
	before := w.payee.until(id, "closing", func(s manager.Status) bool { return s.Phase == settle.Closing }).ClosingTxID
	w.payer.stop() // its refund must not come between
	for range lifetime {
		w.ledger.Reorg(0)
	}
	w.payee.until(id, "raise", func(s manager.Status) bool { tx := w.endOf(s); return tx != before && tx != [32]byte{} })
	w.ledger.Mine(2)
	st := w.payee.until(id, "closed", func(s manager.Status) bool { return s.Phase == settle.Closed })
	if fee := 400_000 + reserve - st.Settled; fee < 2*2*180 {
		t.Errorf("got a fee of %d units, want at least twice the first", uint64(fee))
	}
}

func TestRefundAfterExpiry(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 100_000)
	w.payee.stop() // gone for good
	before := w.balance(w.payer)
	st := w.payer.until(id, "status", func(manager.Status) bool { return true })
	w.ledger.Mine(int(st.Params.ExpiryHeight - st.Height - 1))
	st = w.payer.until(id, "height", func(s manager.Status) bool { return s.Height == s.Params.ExpiryHeight-1 })
	if _, err := w.payer.m.Pay(t.Context(), id, entry("a", 200_000)); !errors.Is(err, settle.ErrLate) {
		t.Errorf("pay past the deadline: got %v, want %v", err, settle.ErrLate)
	}
	if st.Phase != settle.Open || len(w.ledger.Pool()) != 0 {
		t.Fatalf("one block before expiry: got %s", st.Phase)
	}
	w.ledger.Mine(1)
	w.payer.until(id, "refund", func(manager.Status) bool { return len(w.ledger.Pool()) == 1 })
	w.payer.crash()
	w.ledger.Mine(2)
	w.payer.until(id, "refunded", func(s manager.Status) bool { return s.Phase == settle.Refunded })
	if got := w.balance(w.payer) - before; got < capacity-1_000 || got >= capacity {
		t.Errorf("got %d units back, want the capacity less a small fee", uint64(got))
	}
}

func TestAbandon(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.open(nil)
	if n := w.payer.wallet.Reserved(); n != 1 {
		t.Fatalf("got %d reserved coins, want 1", n)
	}
	for range 2 { // idempotent
		if err := w.payer.m.Abandon(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.payer.wallet.Reserved(); n != 0 {
		t.Errorf("got %d reserved coins after abandoning, want 0", n)
	}
	code(t, "announce", w.payer.m.Announce(ctx, id), settle.ErrClosed)
	// A payee that funds it all the same locks the money, but cannot keep it.
	if err := w.payee.m.Announce(ctx, id); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(2)
	st := w.payer.until(id, "life", func(s manager.Status) bool { return s.Phase == settle.Open })
	w.ledger.Mine(int(st.Params.ExpiryHeight - st.Height))
	w.payer.until(id, "refund", func(s manager.Status) bool { return s.Phase == settle.Closing && len(w.ledger.Pool()) == 1 })
}

func TestLedgerOutOfSight(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 100_000)
	w.ledger.SetDown(true)
	w.clock.Add(100 * 45 * time.Second)
	w.payee.until(id, "estimate", func(s manager.Status) bool { return s.Height >= 100 })
	w.pay(id, "a", 110_000)
	w.clock.Add(lifetime * 45 * time.Second)
	_, err := w.payer.m.Pay(ctx, id, entry("a", 120_000))
	if err == nil { // the payer may not have noticed yet; the payee has
		t.Log("the payer still pays")
	}
	v := mustSeal(t, w, id)
	code(t, "receive while the deadline may have passed", w.payee.m.Receive(ctx, v), settle.ErrLate)
	if _, err := w.payee.m.Accept(ctx, settle.Params{}, nil); err == nil {
		t.Error("accepted nothing")
	}
	w.ledger.SetDown(false)
	w.ledger.Mine(1)
	w.payer.until(id, "sight", func(s manager.Status) bool { return s.Height < 100 })
	w.payee.until(id, "sight", func(s manager.Status) bool { return s.Height < 100 })
	w.pay(id, "a", 130_000)
}

func TestAcceptRefuses(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	detail, err := w.payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := manager.OpenRequest{Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, LifetimeBlocks: lifetime}
	params, funding, err := w.payer.m.Open(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, want settle.Code, change func(p *settle.Params, d *pktchain.Detail)) {
		t.Helper()
		p := params
		d, err := pktchain.ParseDetail(p.Detail)
		if err != nil {
			t.Fatal(err)
		}
		change(&p, &d)
		if p.Detail, err = d.Encode(); err != nil {
			t.Fatal(err)
		}
		_, err = w.payee.m.Accept(ctx, p, funding)
		code(t, name, err, want)
	}
	try("another capacity", settle.ErrFunding, func(p *settle.Params, _ *pktchain.Detail) { p.Capacity++ })
	try("a later expiry", settle.ErrFunding, func(p *settle.Params, _ *pktchain.Detail) { p.ExpiryHeight++ })
	try("a small margin", settle.ErrParams, func(p *settle.Params, _ *pktchain.Detail) { p.MarginBlocks-- })
	try("no time left", settle.ErrLate, func(p *settle.Params, _ *pktchain.Detail) { p.MarginBlocks = 300 })
	try("another payee", settle.ErrParams, func(p *settle.Params, _ *pktchain.Detail) { p.Payee = pktcloud.NewPrivateKey([32]byte{9}).Public() })
	try("another payout", settle.ErrParams, func(_ *settle.Params, d *pktchain.Detail) { d.PayeeScript[5] ^= 1 })
	try("another outpoint", settle.ErrFunding, func(_ *settle.Params, d *pktchain.Detail) { d.Funding.Index = 1 })
	try("an outpoint that is not there", settle.ErrFunding, func(_ *settle.Params, d *pktchain.Detail) { d.Funding.Index = 1 << 31 })
	if _, err := w.payee.m.Accept(ctx, params, funding); err != nil {
		t.Fatal(err)
	}
	try("a second channel over one output", settle.ErrFunding, func(p *settle.Params, _ *pktchain.Detail) { p.Reserve++ })
	_, err = w.payer.m.Accept(ctx, params, funding)
	code(t, "accept one's own", err, settle.ErrRole)
}

func TestCompleteCloseRefuses(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 100_000)
	offer, err := w.payer.m.OfferClose(ctx, id, 120_000)
	if err != nil {
		t.Fatal(err)
	}
	forged := offer
	forged.Final += 1_000
	_, err = w.payee.m.CompleteClose(ctx, id, forged)
	code(t, "a final that was not signed", err, settle.ErrProof)
	_, err = w.payer.m.OfferClose(ctx, id, 99_999)
	code(t, "offer below the paid sum", err, settle.ErrClose)
	_, err = w.payer.m.CompleteClose(ctx, id, offer)
	code(t, "the payer's own", err, settle.ErrRole)
	low := offer
	low.Final = 50_000
	_, err = w.payee.m.CompleteClose(ctx, id, low)
	code(t, "below the paid sum", err, settle.ErrClose)
	other := offer
	other.Channel = pktcloud.IDOf([]byte("other"))
	_, err = w.payee.m.CompleteClose(ctx, id, other)
	code(t, "another channel's", err, settle.ErrChannel)
	_, err = w.payee.m.CompleteClose(ctx, other.Channel, other)
	code(t, "unknown channel", err, settle.ErrUnknown)
}

// What would be left to the payer as dust goes to the fee.
func TestCloseLeavesNoDust(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	offer, err := w.payer.m.OfferClose(ctx, id, capacity-600)
	if err != nil {
		t.Fatal(err)
	}
	if offer.Fee != 600 {
		t.Errorf("got a fee of %d units, want all of the 600 that remain", uint64(offer.Fee))
	}
	if _, err := w.payee.m.CompleteClose(ctx, id, offer); err != nil {
		t.Fatal(err)
	}
	w.ledger.Mine(2)
	st := w.payee.until(id, "closed", func(s manager.Status) bool { return s.Phase == settle.Closed })
	if st.Settled != capacity-600 {
		t.Errorf("got %d units settled, want %d", uint64(st.Settled), capacity-600)
	}
}
