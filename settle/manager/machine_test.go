package manager_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
	"pgregory.net/rapid"
)

// The machine's channels are short, so that histories reach their end. Of each
// margin trouble takes a part at most: that is what margins are for.
const (
	machineMargin  = 16
	machineDepth   = 3 // more than what a reorganisation takes back
	machineReorg   = machineDepth - 1
	machineTrouble = 10               // heights in which somebody may be kept from acting
	machineCalm    = machineDepth + 1 // blocks that make good for them
	machineUnproof = 60_000           // paid at most before the funding has depth
	machinePrice   = 20_000           // of the fullest blocks, per 1000 virtual bytes
)

// census counts what the machine did over all its histories.
type census struct {
	steps   int
	actions map[string]int
	codes   map[settle.Code]int
	ends    map[string]int
}

func newCensus() *census {
	return &census{actions: map[string]int{}, codes: map[settle.Code]int{}, ends: map[string]int{}}
}

// add takes in what another one counted.
func (c *census) add(o *census) {
	c.steps += o.steps
	for name, n := range o.actions {
		c.actions[name] += n
	}
	for code, n := range o.codes {
		c.codes[code] += n
	}
	for name, n := range o.ends {
		c.ends[name] += n
	}
}

// allCodes are the refusals of spec/settle.md.
func allCodes() []settle.Code {
	var all []settle.Code
	for c := range settle.Code(256) {
		if !strings.HasPrefix(c.String(), "code ") {
			all = append(all, c)
		}
	}
	return all
}

// enough is the number of steps from which on the histograms are judged: in
// fewer, an action may be rare by bad luck.
const enough = 20_000

// report prints the histograms and fails where in enough steps an action was
// rare, or a refusal or an end never seen.
func (c *census) report(t *testing.T) {
	t.Helper()
	fail := t.Errorf
	if c.steps < enough {
		fail = t.Logf
	}
	t.Logf("%d steps", c.steps)
	for _, name := range slices.Sorted(maps.Keys(c.actions)) {
		n := c.actions[name]
		t.Logf("%-22s %8d  %5.1f %%", name, n, 100*float64(n)/float64(c.steps))
		if 100*n < c.steps {
			fail("%s: got %d of %d steps, want 1 %%", name, n, c.steps)
		}
	}
	for _, code := range allCodes() {
		t.Logf("refused %-15s %7d", code.String(), c.codes[code])
		if c.codes[code] == 0 {
			fail("no step was refused as %s", code.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.ends)) {
		t.Logf("ended by %-14s %7d", name, c.ends[name])
	}
	for _, name := range []string{"close", "claim", "late claim", "refund", "nothing", "roll", "roll after a roll", "failed roll"} {
		if c.ends[name] == 0 {
			fail("no channel ended by %s", name)
		}
	}
}

// actor is a party: its manager, run by hand, and what outlives it.
type actor struct {
	cfg    manager.Config
	wallet *settletest.Wallet
	store  *settletest.Store
	m      *manager.Manager
}

// account is what the machine itself knows of a channel.
type account struct {
	id       pktcloud.ID
	params   settle.Params
	funding  []byte
	outpoint settle.Outpoint
	chain    pktchain.Channel
	index    uint32           // of the payer's keys
	signer   *pktchain.Signer // a payer's that says anything
	signed   pktcloud.Amount  // the highest total that left the payer
	held     pktcloud.Amount  // the highest total that the payee acknowledged
	sequence uint64           // of that voucher
	final    pktcloud.Amount  // of the close that the payee signed
	closed   bool
	spoilt   bool            // the payer took the funding's coins elsewhere, until a reorganisation
	kept     pktcloud.Amount // of the last deposit that the honest tower gave a receipt for
	absent   bool            // the payee was away when it should have claimed
	from     *account        // what rolls into it
}

// GoString is short, for rapid prints it.
func (c *account) GoString() string { return "channel " + c.id.String() }

// GoString is short, for rapid prints it.
func (a *actor) GoString() string { return "actor " + a.cfg.DeviceKey.Public().String() }

// message is under way from payer to payee, or is the answer to a roll.
type message struct {
	to      *account
	voucher *pktcloud.Signed[settle.Voucher]
	offer   *settle.CloseOffer
	roll    *roll
	pair    *manager.RollPayment // of the roll
	answer  bool                 // to it
}

// GoString is short, for rapid prints it.
func (msg message) GoString() string {
	switch {
	case msg.offer != nil:
		return fmt.Sprintf("close of %d units of %#v", msg.offer.Final, msg.to)
	case msg.pair != nil:
		return fmt.Sprintf("payment of %d units over %#v", msg.pair.To.Body.Total, msg.roll)
	case msg.roll != nil:
		return fmt.Sprintf("%#v, answer: %v", msg.roll, msg.answer)
	}
	return fmt.Sprintf("voucher of %d units of %#v", msg.voucher.Body.Total, msg.to)
}

// life is one history: two parties, a chain, and a network between them.
type life struct {
	t            *rapid.T
	count        *census
	ledger       *settletest.Ledger
	payer, payee *actor
	channels     []*account // that both have
	rolls        []*roll
	index        uint32            // that of the payer's next channel, mostly
	payeeKeys    map[string]uint32 // by key
	net          []message
	towers       towers
	offset       time.Duration // of the machines' clocks
	height       uint64
	down         uint64 // the height at which the chain went out of sight
	trouble      int    // heights in which somebody was kept from acting
	calm         int    // blocks since
}

func newLife(t *rapid.T, n pktchain.Network, count *census) *life {
	m := &life{t: t, count: count, ledger: settletest.NewLedger(n), payeeKeys: map[string]uint32{}}
	m.payer, m.payee = m.actor(n, "payer"), m.actor(n, "payee")
	m.payee.cfg.DepositEvery = machineEvery
	m.towers = towers{byTx: map[[32]byte]leak{}, refunds: map[settle.Outpoint]bool{}, away: map[*actor]bool{}}
	m.towers.honest, m.towers.hostile = m.keeper(9, tower.Quota{}), m.keeper(8, tower.Quota{ClientDeposits: 1})
	for range 10 {
		script, err := m.payer.wallet.ReceiveScript(context.Background())
		m.must(err)
		m.ledger.Mint(script, 40_000_000)
	}
	m.see()
	m.start(m.payer)
	m.start(m.payee)
	m.actOpen()
	return m
}

func (m *life) actor(n pktchain.Network, name string) *actor {
	seed := sha256.Sum256([]byte(name))
	keys, err := pktchain.NewKeychain(n, append(seed[:], seed[:]...))
	m.must(err)
	a := &actor{wallet: settletest.NewWallet(n, m.ledger, name), store: settletest.NewStore()}
	a.cfg = manager.Config{
		Network: n, Ledger: m.ledger, Store: a.store, Wallet: a.wallet, Keychain: keys, DeviceKey: pktcloud.NewPrivateKey(seed),
		Reserve: reserve, MarginBlocks: machineMargin, Now: m.now,
	}
	return a
}

// now is the parties' clock: that of the blocks, when it is right.
func (m *life) now() time.Time {
	return time.Unix(1_700_000_000+60*int64(m.height), 0).Add(m.offset)
}

func (m *life) start(a *actor) {
	var err error
	a.m, err = manager.New(context.Background(), a.cfg)
	m.must(err)
}

// restart begins again from what the store holds.
func (m *life) restart(a *actor) {
	a.store = a.store.Clone()
	a.cfg.Store = a.store
	m.start(a)
	m.adopt()
	m.remembers()
}

// remembers: a crash loses nothing that was acknowledged or sent.
func (m *life) remembers() {
	for _, c := range m.channels {
		if got := m.total(m.payee, c); got < c.held {
			m.t.Fatalf("the payee holds %d units after a crash, it acknowledged %d", got, c.held)
		}
		if got := m.total(m.payer, c); got < c.signed {
			m.t.Fatalf("the payer knows of %d units after a crash, it signed %d", got, c.signed)
		}
	}
	m.remembersRolls()
}

func (m *life) total(a *actor, c *account) pktcloud.Amount {
	v, _ := a.m.Latest(c.id)
	return v.Body.Total
}

func (m *life) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// saw counts a refusal. Anything else that is no answer of a chain out of sight
// or refusing is a fault.
func (m *life) saw(err error) {
	var refusal *settle.Error
	switch {
	case errors.As(err, &refusal):
		m.count.codes[refusal.Code]++
	case err == nil, errors.Is(err, settle.ErrLedgerUnavailable), errors.Is(err, settle.ErrRejected),
		errors.Is(err, settletest.ErrFunds), errors.Is(err, settletest.ErrStore):
	default:
		m.t.Fatalf("got %v, which is no refusal", err)
	}
}

// see takes note of the chain's height.
func (m *life) see() {
	m.ledger.SetDown(false)
	tip, err := m.ledger.Tip(context.Background())
	m.must(err)
	m.height = tip.Height
	m.ledger.SetDown(m.down > 0)
}

// look lets a party look at the chain.
func (m *life) look(a *actor) {
	for _, err := range flatten(a.m.Look(context.Background())) {
		m.saw(err)
	}
}

// flatten returns the errors that are joined in one.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

// pick chooses a channel, mostly one that is alive.
func (m *life) pick() *account {
	fit := slices.DeleteFunc(slices.Clone(m.channels), func(c *account) bool { return !m.lives(c) })
	if len(fit) == 0 || m.chance(16, "any") {
		fit = m.channels
	}
	if len(fit) == 0 {
		m.t.Skip("no channel")
	}
	return rapid.SampledFrom(fit).Draw(m.t, "channel")
}

// lives reports whether vouchers may still pass.
func (m *life) lives(c *account) bool {
	st, err := m.payer.m.Status(context.Background(), c.id)
	m.must(err)
	return st.Phase == settle.Open || st.Phase == settle.Opening && (st.Funded || !c.spoilt)
}

func (m *life) chance(one int, what string) bool {
	return rapid.IntRange(1, one).Draw(m.t, what) == 1
}

// live is how many channels are alive.
func (m *life) live() int {
	n := 0
	for _, c := range m.channels {
		if m.lives(c) {
			n++
		}
	}
	return n
}

// open makes a channel that both have.
func (m *life) open() *account {
	ctx := context.Background()
	detail, err := m.payee.m.PayeeDetail(ctx)
	m.must(err)
	params, funding, err := m.payer.m.Open(ctx, manager.OpenRequest{
		Payee: m.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, Unconfirmed: machineUnproof,
		MinDepth: machineDepth, LifetimeBlocks: uint64(rapid.IntRange(2*machineMargin+2, 100).Draw(m.t, "lifetime")),
	})
	if m.saw(err); err != nil {
		return nil
	}
	id, err := m.payee.m.Accept(ctx, params, funding)
	if m.saw(err); err != nil {
		return nil
	}
	c := m.account(id, params, funding)
	m.channels = append(m.channels, c)
	return c
}

// account is that of a new channel of the payer.
func (m *life) account(id pktcloud.ID, params settle.Params, funding []byte) *account {
	chain, err := pktchain.ChannelOf(m.payer.cfg.Network, params)
	m.must(err)
	c := &account{id: id, params: params, funding: funding, chain: chain, outpoint: chain.Detail.Funding}
	for try := uint32(0); c.signer == nil; try++ { // mostly the next one
		c.index = (m.index + try) % 1_000
		if c.signer, err = m.payer.cfg.Keychain.Signer(chain, c.index); try > 1_000 {
			m.must(err)
		}
	}
	m.index = c.index + 1
	return c
}

// check holds after every step.
func (m *life) check() {
	for _, c := range m.channels {
		for _, a := range []*actor{m.payer, m.payee} {
			st, err := a.m.Status(context.Background(), c.id)
			m.must(err)
			if st.Paid > c.params.Spendable() || st.Paid < c.held && a == m.payee {
				m.t.Fatalf("%s: paid %d of %d, held %d", st.Role, st.Paid, c.params.Spendable(), c.held)
			}
		}
	}
	m.checkRolls()
}

// finish lets time pass until all channels are at rest, sometimes without the
// payee, and counts the money.
func (m *life) finish() {
	m.offset = 0
	if m.down > 0 {
		m.back()
	}
	m.ledger.SetFeeRate(1_000)
	m.towers.away[m.payee] = m.chance(2, "without the payee")
	due := slices.DeleteFunc(m.dueRolls(), func(r *roll) bool { return m.height+machineMargin/2 >= r.from.params.Deadline() })
	pass := func(blocks uint64) {
		for last := m.height + blocks; m.height < last; {
			m.mined(4, 0)
		}
	}
	pass(100 + 4*machineMargin)
	clear(m.towers.away)
	m.lookAll()
	pass(12) // for what only a payee that is back brings on the chain
	for _, c := range m.channels {
		m.count.ends[m.judge(c)]++
	}
	m.judgeStrays()
	m.judgeDue(due)
}

// judge compares what the chain paid with what both sides had agreed.
func (m *life) judge(c *account) string {
	out, err := m.ledger.Output(context.Background(), c.outpoint)
	m.must(err)
	if !out.Known {
		if c.from != nil {
			return m.judgeFailed(c)
		}
		if c.held > c.params.Unconfirmed {
			m.t.Fatalf("a channel without funding, the payee holds %d units", c.held)
		}
		return "nothing"
	}
	if out.Spend == nil || out.Spend.Depth < machineDepth {
		m.t.Fatalf("channel %s never ended: %+v", c.id, out)
	}
	if m.judgeRolled(c, out.Spend) {
		if c.from != nil {
			return "roll after a roll"
		}
		return "roll"
	}
	end, err := c.chain.EndOf(out.Spend.Raw)
	m.must(err)
	m.agree(c)
	if end.Payee+end.Payer+end.Fee != c.params.Capacity {
		m.t.Fatalf("money was made or lost: %+v of %d", end, c.params.Capacity)
	}
	total := m.total(m.payee, c)
	st, err := m.payee.m.Status(context.Background(), c.id)
	m.must(err)
	switch {
	case end.Refund:
		if c.held > 0 && !c.absent || c.kept > 0 {
			m.t.Fatalf("%#v: the refund won while the payee held %d units and a tower a deposit of %d", c, c.held, c.kept)
		}
		return "refund"
	case end.Payee == st.Final && end.Payee >= c.held && (!c.closed || c.final == st.Final):
		return "close" // also one that was durable when the payee died, and that it never acknowledged
	case c.absent:
		return m.judgeAbsent(c, end, total)
	case end.Payee+end.Fee != total+c.params.Reserve || total < c.held:
		m.t.Fatalf("%#v: the claim paid %d units and a fee of %d, the payee held %d", c, end.Payee, end.Fee, c.held)
	case end.Payer < c.params.Capacity-c.signed-c.params.Reserve && c.signed >= total:
		m.t.Fatalf("%#v: the payer gets %d units, it had signed %d", c, end.Payer, c.signed)
	}
	return "claim"
}

// act is something that can happen, and how often.
type act struct {
	do     func()
	weight int // more for what often finds nothing to do
}

// acts are all that can happen; those of rolls often times as often.
func (m *life) acts(often int) map[string]act {
	all := map[string]act{
		"open": {m.actOpen, 4}, "announce": {m.actAnnounce, 1}, "abandon": {m.actAbandon, 1}, "pay": {m.actPay, 5},
		"deliver": {func() { m.deliver(m.take(false, nil)) }, 2}, "deliver and double": {func() { m.deliver(m.take(true, nil)) }, 2},
		"lose": {func() { m.take(false, nil) }, 3}, "forge a voucher": {m.actForge, 4}, "offer a close": {m.actOfferClose, 4},
		"forge a close": {m.actForgeClose, 3}, "claim": {m.actClaim, 2}, "double spend": {m.actDoubleSpend, 5},
		"block": {m.actBlock, 1}, "blocks": {m.actBlocks, 1}, "full block": {m.actFullBlock, 3}, "fees move": {m.actFees, 3},
		"reorganise": {m.actReorg, 4}, "chain in and out": {m.actSight, 2}, "clock jumps": {m.actClock, 2},
		"crash payer": {m.actCrashPayer, 2}, "crash payee": {m.actCrashPayee, 1}, "die at a write": {m.actDie, 3}, "wrong call": {m.actWrong, 2},
		"deposit": {m.actDeposit, 4}, "tower looks": {m.lookTower, 3}, "crash tower": {m.actCrashTower, 2},
		"hostile tower": {m.actHostile, 4}, "go away": {m.actAway, 4},
	}
	for name, a := range m.rollActs() {
		all[name] = act{a.do, a.weight * often}
	}
	return all
}

// history runs one.
func history(t *rapid.T, n pktchain.Network, count *census, often int) {
	m := newLife(t, n, count)
	actions := map[string]func(*rapid.T){"": func(t *rapid.T) { m.t = t; m.check() }}
	for name, a := range m.acts(often) {
		for i := range a.weight {
			actions[fmt.Sprint(name, " ", i)] = func(t *rapid.T) {
				m.t = t
				a.do()
				count.steps++
				count.actions[name]++
			}
		}
	}
	t.Repeat(actions)
	m.t = t
	m.finish()
}

// setFlag sets one of rapid's that was not given, until the function that it
// returns is called.
func setFlag(t *testing.T, name, value string) (undo func()) {
	f := flag.Lookup(name)
	if f.Value.String() != f.DefValue {
		return func() {}
	}
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Value.Set(f.DefValue) }
}

// minutes is the network of the machine, whose clock is simple.
func minutes(t *testing.T) pktchain.Network {
	n := network(t)
	n.BlockTime = time.Minute
	return n
}

// runMachine runs histories of a mean length until there were so many steps, by
// so many workers.
func runMachine(t *testing.T, steps, length, workers int) {
	defer setFlag(t, "rapid.steps", fmt.Sprint(length))()
	defer setFlag(t, "rapid.checks", fmt.Sprint(max(1, min(100, steps/length/4/workers))))()
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // little lives, much passes
	n := minutes(t)
	counts := make([]*census, workers)
	t.Run("workers", func(t *testing.T) {
		for i := range counts {
			counts[i] = newCensus()
			t.Run(fmt.Sprint(i+1), func(t *testing.T) {
				t.Parallel()
				for counts[i].steps < steps/workers && !t.Failed() {
					rapid.Check(t, func(t *rapid.T) { history(t, n, counts[i], 1) })
				}
			})
		}
	})
	all := newCensus()
	for _, c := range counts {
		all.add(c)
	}
	all.report(t)
}

// TestMachine lets two managers and two towers live through random histories: a
// chain with reorganisations, full blocks and fees that move, a network that
// loses and doubles, clocks that jump, machines that die, owners that go away,
// channels that roll into others, sides and a tower that cheat.
//
// make soak does a million steps, and judges how often each thing happened.
func TestMachine(t *testing.T) { runMachine(t, 1_000, 250, 1) }

// TestMachineRolls lets them live through histories that are the same each time,
// and full of rolls.
func TestMachineRolls(t *testing.T) {
	defer setFlag(t, "rapid.steps", "120")()
	defer setFlag(t, "rapid.checks", "1")()
	n, count := minutes(t), newCensus()
	for seed := range 12 {
		undo := setFlag(t, "rapid.seed", fmt.Sprint(seed+1))
		rapid.Check(t, func(t *rapid.T) { history(t, n, count, 4) })
		undo()
	}
	count.report(t)
}
