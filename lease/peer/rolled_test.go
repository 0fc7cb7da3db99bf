package peer_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/leasetest"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// rollRail is the rail of chainBank.
const rollRail = "pkt-devnet"

// chainBank is both sides' channel managers over a twin of the chain: the leases of
// these tests are paid by real channels, which roll.
type chainBank struct {
	t      testing.TB
	ledger *settletest.Ledger
	sides  [2]*manager.Manager // payer, payee
	wallet *settletest.Wallet
	cfgs   [2]manager.Config
	stops  [2]func()
}

func newChainBank(t testing.TB, devices [2]pktcloud.PrivateKey) *chainBank {
	t.Helper()
	n, ok := pktchain.NetworkOf(rollRail)
	if !ok {
		t.Fatal("no devnet")
	}
	b := &chainBank{t: t, ledger: settletest.NewLedger(n)}
	for i, name := range []string{"payer", "payee"} {
		seed := sha256.Sum256([]byte(name + t.Name()))
		keys, err := pktchain.NewKeychain(n, append(seed[:], seed[:]...))
		if err != nil {
			t.Fatal(err)
		}
		wallet := settletest.NewWallet(n, b.ledger, name)
		if i == 0 {
			b.wallet = wallet
			script, err := wallet.ReceiveScript(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 4 {
				b.ledger.Mint(script, 1<<26)
			}
		}
		b.cfgs[i] = manager.Config{
			Network: n, Ledger: b.ledger, Store: settletest.NewStore(), Wallet: wallet, Keychain: keys, DeviceKey: devices[i], Reserve: 20_000, MarginBlocks: 10,
		}
		b.start(i)
		t.Cleanup(func() { b.stops[i]() })
	}
	return b
}

func (b *chainBank) start(i int) {
	b.t.Helper()
	m, err := manager.New(context.Background(), b.cfgs[i])
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := m.Run(ctx); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.sides[i], b.stops[i] = m, sync.OnceFunc(func() { cancel(); wait.Wait() })
}

// crash ends a side's manager and starts it from what its store holds.
func (b *chainBank) crash(i int) {
	b.t.Helper()
	b.stops[i]()
	b.cfgs[i].Store = b.cfgs[i].Store.(*settletest.Store).Clone()
	b.start(i)
}

func (b *chainBank) Payer(pktcloud.PrivateKey) peer.Payer { return chainSide{b.sides[0]} }
func (b *chainBank) Payee() peer.Payee                    { return chainSide{b.sides[1]} }
func (b *chainBank) Confirm(n uint64)                     { b.ledger.Mine(int(n)) }
func (b *chainBank) Refuse(bool)                          { b.t.Fatal("this bank does not refuse") }

// Settled is what the payee's script received.
func (b *chainBank) Settled(channel pktcloud.ID) (pktcloud.Amount, bool) {
	st, err := b.sides[1].Status(b.t.Context(), channel)
	return st.End.Payee, err == nil && st.Phase == settle.Closed
}

type chainSide struct{ *manager.Manager }

func (c chainSide) Open(ctx context.Context, r peer.OpenRequest) (settle.Params, []byte, error) {
	return c.Manager.Open(ctx, manager.OpenRequest(r))
}

func (c chainSide) ChannelStatus(ctx context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	s, err := c.Status(ctx, channel)
	return peer.ChannelStatus{
		Params: s.Params, Phase: s.Phase, Funded: s.Funded, Depth: s.Depth, Height: s.Height, OutOfSight: s.OutOfSight, Paid: s.Paid, ClosingTx: s.ClosingTxID,
	}, err
}

func (c chainSide) Payment(channel pktcloud.ID) (peer.Payment, bool) {
	p, ok := c.Manager.Payment(channel)
	return peer.Payment(p), ok
}

func (c chainSide) PayRolling(ctx context.Context, successor pktcloud.ID, e settle.Entry) (peer.Payment, error) {
	p, err := c.Manager.PayRolling(ctx, successor, e)
	return peer.Payment(p), err
}

func (c chainSide) ReceiveRolling(ctx context.Context, p peer.Payment) error {
	return c.Manager.ReceiveRolling(ctx, manager.RollPayment(p))
}

// newRollWorld is a world whose channels roll.
func newRollWorld(t *testing.T) (*world, *chainBank) {
	t.Helper()
	if *railFlag != leasetest.RailName {
		t.Skip("channels of the second rail do not roll")
	}
	var b *chainBank
	w := newWorldOver(t, market.Rail{Name: rollRail, MinDepth: 1, MaxUnconfirmed: 1 << 30, MinCapacity: 1, MaxCapacity: 1<<25 - 1}, func(w *world) bank {
		b = newChainBank(t, w.devices)
		return b
	})
	return w, b
}

// ask puts the payer's offer to the payee, whose leases judge it.
func (w *world) askRoll(b *chainBank, channel pktcloud.ID) (pktcloud.ID, error) {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- b.sides[1].ServeRoll(context.Background(), there, w.devices[0].Public(), func(_ context.Context, p manager.RollProposal) error {
			return w.provider.AdmitRoll(p.Channel, p.Successor, p.Latest)
		})
	}()
	to, err := b.sides[0].AskRoll(w.t.Context(), here, channel)
	<-done
	return to, err
}

func (w *world) roll(b *chainBank, channel pktcloud.ID, r manager.RollRequest) pktcloud.ID {
	w.t.Helper()
	if _, err := b.sides[0].Roll(w.t.Context(), channel, r); err != nil {
		w.t.Fatal(err)
	}
	to, err := w.askRoll(b, channel)
	if err != nil {
		w.t.Fatal(err)
	}
	return to
}

// paidOn waits until both count some more payments of a lease.
func (w *world) paidOn(what string, id pktcloud.ID) {
	w.t.Helper()
	before, _ := w.views(id)
	w.until(what, func() bool {
		a, b := w.views(id)
		return min(a.Paid, b.Paid) >= before.Paid+2*unitsPerSecond && b.Phase == lease.Active
	})
}

// done waits until both see the successor alone pay.
func (w *world) rollDone(b *chainBank, to pktcloud.ID) {
	w.t.Helper()
	b.ledger.Mine(3)
	w.until("the roll is done", func() bool {
		x, errX := b.sides[0].Status(w.t.Context(), to)
		y, errY := b.sides[1].Status(w.t.Context(), to)
		return errX == nil && errY == nil && x.Phase == settle.Open && y.Phase == settle.Open
	})
}

// TestLeaseGoesOnThroughRolls shows [LEASE-29] and [LEASE-30]: a lease is paid on
// while its channel rolls, after it, and over the next successor, with both sides
// restarted in the middle of each; its end closes the last one, at its record.
func TestLeaseGoesOnThroughRolls(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	id := w.settledLease(w.patient())
	first := w.channelOf(id)
	at := first
	for n := range pktcloud.Amount(2) {
		w.paidOn("it is paid before the roll", id)
		to := w.roll(b, at, manager.RollRequest{Capacity: 1<<24 + (n+1)<<20, LifetimeBlocks: peer.DefaultLifetimeBlocks + 100})
		w.paidOn("it is paid while the roll waits for a block", id)
		again := w.listenAgain()
		w.stops[1]()
		w.stops[0]()
		b.crash(0)
		b.crash(1)
		w.startProvider(again)
		w.startTenant()
		w.paidOn("it is paid after a restart of both, in the middle", id)
		x, y := w.views(id)
		if x.Channel != to || y.Channel != to || x.Terms.Channel != first {
			t.Errorf("got channels %s and %s, want the successor", x.Channel, y.Channel)
		}
		w.rollDone(b, to)
		w.paidOn("it is paid once the roll is done", id)
		at = to
	}
	second := w.create(w.patient()) // beside it, on what the second roll made
	if got := w.channelOf(second); got != at {
		t.Errorf("a further lease is paid over %s, want the channel %s that came of the rolls", got, at)
	}
	w.paidOn("both are paid", second)
	sum := w.closed(id, second)
	b.ledger.Mine(3)
	w.until("the close is deep", func() bool { _, ok := b.Settled(at); return ok })
	if got, _ := b.Settled(at); got != sum {
		t.Errorf("the chain paid %d units, the records say %d", got, sum)
	}
	checkRolledJournal(t, w, id)
}

// checkRolledJournal: each side keeps the links and every voucher by its channel.
func checkRolledJournal(t *testing.T, w *world, id pktcloud.ID) {
	t.Helper()
	for i, s := range w.stores {
		kinds := map[string]int{}
		err := s.Load(t.Context(), "lease/"+id.Hex()+"/", func(key string, value []byte) error {
			rest := key[len("lease/"+id.Hex()+"/"):]
			kind, tail := rest[:indexOf(rest)], rest[indexOf(rest):]
			kinds[kind]++
			if kind == "rolled" {
				v, err := settle.ParseVoucher(value)
				if err != nil || tail[1:1+len(v.Body.Channel.Hex())] != v.Body.Channel.Hex() {
					t.Errorf("%s: %v", key, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if kinds["successor"] != 2 || kinds["rolled"] < 6 || kinds["voucher"] < 4 {
			t.Errorf("side %d: got %v, want two links and the vouchers of three channels", i, kinds)
		}
	}
}

func indexOf(rest string) int {
	for i := range rest {
		if rest[i] == '/' {
			return i
		}
	}
	return len(rest)
}

// TestShareGrowsWithTheChannel shows [LEASE-31]: a lease that its channel could not
// pay to the end is served on when money was added.
func TestShareGrowsWithTheChannel(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	r := w.patient()
	r.Capacity, r.Limits.Unconfirmed = 40_000, 10_000
	r.TermSeconds = 600 // the channel pays for some seconds of it
	id := w.settledLease(r)
	if err := w.rollUntilPaid(b, id, 200_000); err != nil {
		t.Fatal(err)
	}
	w.until("more is paid than the first channel could", func() bool { _, v := w.views(id); return v.Paid > 21*unitsPerSecond })
	w.closed(id)
}

// rollUntilPaid adds money to a lease's channel and mines the roll.
func (w *world) rollUntilPaid(b *chainBank, id pktcloud.ID, capacity pktcloud.Amount) error {
	channel := w.channelOf(id)
	if _, err := b.sides[0].Roll(w.t.Context(), channel, manager.RollRequest{Capacity: capacity}); err != nil {
		return err
	}
	to, err := w.askRoll(b, channel)
	if err == nil {
		w.rollDone(b, to)
	}
	return err
}

// TestRollRefusedByLeases shows [LEASE-32]: what the offer of no lease allows is
// refused, the offer taken back, and the lease goes on as before.
func TestRollRefusedByLeases(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	id := w.settledLease(w.patient())
	channel := w.channelOf(id)
	w.paidOn("it is paid", id)
	refused := func(what string, r manager.RollRequest, want settle.Code) {
		t.Helper()
		if _, err := b.sides[0].Roll(t.Context(), channel, r); err != nil {
			t.Fatal(err)
		}
		w.until("the lease waits for an answer", func() bool { return len(b.sides[0].OfferedRolls()) == 1 })
		if _, err := w.askRoll(b, channel); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		w.paidOn("it is paid on after a refusal", id)
	}
	refused("more than the offer allows", manager.RollRequest{Capacity: 1 << 25}, settle.ErrParams)
	refused("less than there is", manager.RollRequest{LifetimeBlocks: peer.DefaultLifetimeBlocks + 50}, settle.ErrCapacity)
	st, err := b.sides[1].Status(t.Context(), channel)
	if err != nil {
		t.Fatal(err)
	}
	p := st.Params
	p.Capacity++
	for what, e := range map[string]settle.Entry{"beyond its share": {Lease: id, Cumulative: 1 << 23}, "nobody's": {Lease: pktcloud.ID{1}, Cumulative: 1}} {
		if err := w.provider.AdmitRoll(st.Params, p, settle.Voucher{Entries: []settle.Entry{e}}); !errors.Is(err, settle.ErrRoll) {
			t.Errorf("a voucher that pays %s: got %v, want a refusal", what, err)
		}
	}
	if rail, ok := w.tenant.RollRail(channel); !ok || rail.MaxCapacity != 1<<25-1 {
		t.Errorf("got %+v, %v, want the rail of the lease's offer", rail, ok)
	}
	sum := w.closed(id)
	b.ledger.Mine(3)
	w.until("the close is deep", func() bool { _, ok := b.Settled(channel); return ok })
	if got, _ := b.Settled(channel); got != sum {
		t.Errorf("the chain paid %d units, the record says %d", got, sum)
	}
	if err := w.provider.AdmitRoll(st.Params, p, settle.Voucher{}); !errors.Is(err, settle.ErrClosed) { // after its end
		t.Errorf("a channel without a lease: got %v, want a refusal", err)
	}
}

// TestRollKeepsTheDepth: while a roll waits for its blocks the predecessor's depth
// counts, also for a lease that has long paid more than its unconfirmed limit.
func TestRollKeepsTheDepth(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	r := w.patient()
	r.Limits.Unconfirmed = 2 * unitsPerSecond
	id := w.settledLease(r)
	w.until("more than the unconfirmed limit is paid", func() bool { _, v := w.views(id); return v.Paid > 4*unitsPerSecond })
	w.roll(b, w.channelOf(id), manager.RollRequest{Capacity: 1<<24 + 1<<20})
	again := w.listenAgain()
	w.stops[1]()
	w.stops[0]()
	w.startProvider(again) // each looks at the channel at once
	w.startTenant()
	before, _ := w.views(id)
	w.until("it is paid on", func() bool {
		a, b := w.views(id)
		return a.Confirmed && b.Confirmed && b.Paid >= before.Paid+11*unitsPerSecond // beyond the next look
	})
	w.closed(id)
}

// TestCloseWhileRolling: a lease that ends before the roll is in a block closes the
// successor, and the chain pays its record.
func TestCloseWhileRolling(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	id := w.settledLease(w.patient())
	w.paidOn("it is paid", id)
	to := w.roll(b, w.channelOf(id), manager.RollRequest{Capacity: 1<<24 + 1<<20})
	w.paidOn("it is paid while the roll waits", id)
	sum := w.closed(id)
	b.ledger.Mine(1)
	b.ledger.Mine(3)
	w.until("the close is deep", func() bool { _, ok := b.Settled(to); return ok })
	if got, _ := b.Settled(to); got != sum {
		t.Errorf("the chain paid %d units, the record says %d", got, sum)
	}
}

// laggingPayee has not seen the depth of a roll that the tenant has.
type laggingPayee struct {
	chainSide
	refused *atomic.Int32
	behind  *atomic.Bool
}

func (p laggingPayee) Receive(ctx context.Context, v pktcloud.Signed[settle.Voucher]) error {
	if p.behind.Load() && len(p.Successors(v.Body.Channel)) == 0 {
		p.refused.Add(1)
		return settle.Refuse(settle.ErrRolling, "the roll has 0 of 1 confirmations")
	}
	return p.chainSide.Receive(ctx, v)
}

// TestVoucherAheadOfTheProvider shows [LEASE-30]: a voucher of the successor alone,
// which the provider takes a moment later, is sent again and counts; nothing else
// would bring it before the next statement, and a frozen workload makes none.
func TestVoucherAheadOfTheProvider(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	var refused atomic.Int32
	var behind atomic.Bool
	w.payee = func(p peer.Payee) peer.Payee { return laggingPayee{p.(chainSide), &refused, &behind} }
	again := w.listenAgain()
	w.stops[1]()
	w.startProvider(again)
	r := w.patient()
	r.Limits.Credit = 10 * unitsPerSecond // less, and a slow machine disputes it all
	id := w.settledLease(r)
	w.paidOn("it is paid", id)
	to := w.roll(b, w.channelOf(id), manager.RollRequest{Capacity: 1<<24 + 1<<20})
	w.paidOn("it is paid while the roll waits", id)
	behind.Store(true)
	w.rollDone(b, to)
	w.until("the workload stands still, and vouchers are refused", func() bool {
		_, v := w.views(id)
		return v.Phase == lease.Suspended && refused.Load() > 0
	})
	behind.Store(false)
	w.paidOn("it goes on and is paid", id)
	w.closed(id)
}

// TestSuccessorIsNoNewChannel: a lease cannot bring what another one's channel rolled
// into as a channel of its own [LEASE-17].
func TestSuccessorIsNoNewChannel(t *testing.T) {
	t.Parallel()
	w, b := newRollWorld(t)
	id := w.settledLease(w.patient())
	w.paidOn("it is paid", id)
	from := w.channelOf(id)
	o, err := b.sides[0].Roll(t.Context(), from, manager.RollRequest{Capacity: 1<<24 + 1<<20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.askRoll(b, from); err != nil {
		t.Fatal(err)
	}
	p := w.propose(1)
	r := w.raw()
	r.send(p)
	quote, ok := r.await(lease.TypeQuote).(lease.Quote)
	if !ok {
		t.Fatal("no quote")
	}
	q, err := market.ParseQuote(quote.Quote)
	if err != nil {
		t.Fatal(err)
	}
	c := lease.Commit{Version: 1, Terms: p.Draft, Account: p.Account, Quote: quote.Quote, Manifest: p.Manifest, Params: o.Successor, Funding: o.Tx}
	c.Terms.Rate, c.Terms.CommitBy = q.Body.Rate, q.Body.Expires
	c.Terms.Quote, _ = q.ID()
	c.Terms.Channel, _ = o.Successor.ID()
	if c.Signature, err = lease.SignTerms(w.devices[0], c.Terms); err != nil {
		t.Fatal(err)
	}
	r.send(c)
	if m, ok := r.await(lease.TypeAck, lease.TypeRefuse).(lease.Refuse); !ok || m.Code != lease.CodeChannel {
		t.Errorf("got %+v, want a refusal of the channel", m)
	}
}
