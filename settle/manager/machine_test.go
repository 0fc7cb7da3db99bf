package manager_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"pgregory.net/rapid"
)

// The machine's channels are short, so that histories reach their end.
const (
	machineMargin  = 12
	machineDepth   = 3 // more than what a reorganisation takes back
	machineReorg   = machineDepth - 1
	machineUnproof = 60_000 // paid at most before the funding has depth
	machinePrice   = 20_000 // of the fullest blocks, per 1000 virtual bytes
	machineFull    = 6      // full blocks in a row
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

// allCodes are the refusals of spec/settle.md.
func allCodes() []settle.Code {
	var all []settle.Code
	for c := settle.ErrMalformed; !strings.HasPrefix(c.String(), "code "); c++ {
		all = append(all, c)
	}
	return all
}

// report prints the histograms and fails where an action was rare or a refusal
// never given.
func (c *census) report(t *testing.T) {
	t.Helper()
	t.Logf("%d steps", c.steps)
	for _, name := range slices.Sorted(maps.Keys(c.actions)) {
		n := c.actions[name]
		t.Logf("%-22s %8d  %5.1f %%", name, n, 100*float64(n)/float64(c.steps))
		if 100*n < c.steps {
			t.Errorf("%s: got %d of %d steps, want 1 %%", name, n, c.steps)
		}
	}
	for _, code := range allCodes() {
		t.Logf("refused %-15s %7d", code.String(), c.codes[code])
		if c.codes[code] == 0 {
			t.Errorf("no step was refused as %s", code.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.ends)) {
		t.Logf("ended by %-14s %7d", name, c.ends[name])
	}
	for _, name := range []string{"close", "claim", "refund", "nothing"} {
		if c.ends[name] == 0 {
			t.Errorf("no channel ended by %s", name)
		}
	}
}

// actor is a party: its manager, run by hand, and what outlives it. A tower
// will be a third one.
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
	signer   *pktchain.Signer // a payer's that says anything
	signed   pktcloud.Amount  // the highest total that left the payer
	held     pktcloud.Amount  // the highest total that the payee acknowledged
	sequence uint64           // of that voucher
	final    pktcloud.Amount  // of the close that the payee signed
	closed   bool
	spoilt   bool // the payer took the funding's coins elsewhere, until a reorganisation
}

// message is under way from payer to payee.
type message struct {
	to      *account
	voucher *pktcloud.Signed[settle.Voucher]
	offer   *settle.CloseOffer
}

// life is one history: two parties, a chain, and a network between them.
type life struct {
	t            *rapid.T
	count        *census
	ledger       *settletest.Ledger
	payer, payee *actor
	channels     []*account
	net          []message
	offset       time.Duration // of the machines' clocks
	height       uint64
	down         uint64 // the height at which the chain went out of sight
	full         int    // full blocks in a row
}

func newLife(t *rapid.T, n pktchain.Network, count *census) *life {
	m := &life{t: t, count: count, ledger: settletest.NewLedger(n)}
	m.payer, m.payee = m.actor(n, "payer"), m.actor(n, "payee")
	for range 6 {
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
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // what Join made
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
		MinDepth: machineDepth, LifetimeBlocks: uint64(rapid.IntRange(2*machineMargin+2, 90).Draw(m.t, "lifetime")),
	})
	if m.saw(err); err != nil {
		return nil
	}
	id, err := m.payee.m.Accept(ctx, params, funding)
	if m.saw(err); err != nil {
		return nil
	}
	chain, err := pktchain.ChannelOf(m.payer.cfg.Network, params)
	m.must(err)
	c := &account{id: id, params: params, funding: funding, chain: chain, outpoint: chain.Detail.Funding}
	for index := uint32(0); c.signer == nil; index++ {
		if c.signer, err = m.payer.cfg.Keychain.Signer(chain, index); index > 1000 {
			m.must(err)
		}
	}
	m.channels = append(m.channels, c)
	return c
}

func (m *life) actOpen() {
	if m.live() >= 4 {
		m.t.Skip("enough channels")
	}
	c := m.open()
	if c == nil || m.chance(3, "kept back") {
		return
	}
	m.saw(m.payee.m.Announce(context.Background(), c.id))
	if m.down == 0 && m.chance(2, "settled") {
		m.mined(machineDepth, 0)
	}
}

func (m *life) actAnnounce() {
	c := m.pick()
	if st, err := m.payer.m.Status(context.Background(), c.id); err == nil && st.Announced && !m.chance(4, "again") {
		m.t.Skip("announced")
	}
	a := rapid.SampledFrom([]*actor{m.payer, m.payee}).Draw(m.t, "who")
	m.saw(a.m.Announce(context.Background(), c.id))
}

func (m *life) actAbandon() {
	c := m.pick()
	if !m.chance(4, "given up") {
		m.t.Skip("kept")
	}
	m.saw(m.payer.m.Abandon(context.Background(), c.id))
}

// actPay lets the payer pay; what it signed is under way.
func (m *life) actPay() {
	c := m.pick()
	latest, _ := m.payer.m.Latest(c.id)
	e := entry(fmt.Sprint(rapid.IntRange(1, 3).Draw(m.t, "lease")), 0)
	old, _ := latest.Body.Entry(e.Lease)
	e.Cumulative = old.Cumulative + pktcloud.Amount(rapid.SampledFrom([]int{1, 900, 30_000, 200_000, 4_000_000, capacity}).Draw(m.t, "more"))
	if m.chance(12, "falls") {
		e.Cumulative = old.Cumulative.SubFloor(1)
	}
	m.pay(c, e)
	if n := len(m.net); n > 0 && m.chance(2, "arrives at once") {
		m.deliver(m.net[n-1])
	}
}

func (m *life) pay(c *account, e settle.Entry) {
	v, err := m.payer.m.Pay(context.Background(), c.id, e)
	if m.saw(err); err != nil {
		return
	}
	if v.Body.Total < c.signed {
		m.t.Fatalf("the payer signed %d units after %d", v.Body.Total, c.signed)
	}
	c.signed = v.Body.Total
	m.net = append(m.net, message{to: c, voucher: &v})
}

// take chooses a message; keep leaves it under way.
func (m *life) take(keep bool) message {
	if len(m.net) == 0 {
		m.t.Skip("nothing is under way")
	}
	i := rapid.IntRange(max(0, len(m.net)-8), len(m.net)-1).Draw(m.t, "message")
	msg := m.net[i]
	if !keep {
		m.net = slices.Delete(m.net, i, i+1)
	}
	return msg
}

// deliver hands a message to the payee and judges what it does.
func (m *life) deliver(msg message) {
	if msg.offer != nil {
		m.deliverOffer(msg.to, *msg.offer)
		return
	}
	c, v := msg.to, *msg.voucher
	before, _ := m.payee.m.Latest(c.id)
	err := m.payee.m.Receive(context.Background(), v)
	m.saw(err)
	after, _ := m.payee.m.Latest(c.id)
	if err != nil {
		if after.Sig != before.Sig {
			m.t.Fatalf("a voucher that was refused (%v) took the other's place", err)
		}
		return
	}
	m.accepted(c, v.Body, before.Body)
}

// accepted states what a voucher that was taken must be, in the machine's words.
func (m *life) accepted(c *account, v, before settle.Voucher) {
	p := c.params
	st, err := m.payee.m.Status(context.Background(), c.id)
	m.must(err)
	sum := pktcloud.Amount(0)
	for _, e := range v.Entries {
		sum += e.Cumulative
	}
	again := v.Sequence == before.Sequence
	switch {
	case v.Channel != c.id || v.Payer != p.Payer:
		m.t.Fatal("accepted a foreign voucher")
	case sum != v.Total || v.Total < c.held || v.Sequence < c.sequence:
		m.t.Fatalf("accepted a total of %d units, entries of %d, after %d", v.Total, sum, c.held)
	case v.Total+p.Reserve+p.MinChange > p.Capacity:
		m.t.Fatalf("accepted %d units of %d", v.Total, p.Capacity)
	case !again && c.closed:
		m.t.Fatal("accepted after it signed a close")
	case !again && st.Depth < p.MinDepth && v.Total > p.Unconfirmed:
		m.t.Fatalf("accepted %d units at depth %d", v.Total, st.Depth)
	case !again && st.Height+2*p.MarginBlocks >= p.ExpiryHeight:
		m.t.Fatalf("accepted at height %d, expiry %d", st.Height, p.ExpiryHeight)
	case c.chain.VerifyVoucher(v.Total, v.Proof) != nil:
		m.t.Fatal("accepted without proof")
	}
	for _, old := range before.Entries {
		if e, ok := v.Entry(old.Lease); !ok || e.Cumulative < old.Cumulative {
			m.t.Fatalf("accepted an entry that fell below %d", old.Cumulative)
		}
	}
	c.held, c.sequence = v.Total, v.Sequence
}

func (m *life) deliverOffer(c *account, o settle.CloseOffer) {
	_, err := m.payee.m.CompleteClose(context.Background(), c.id, o)
	m.saw(err)
	var refusal *settle.Error
	if errors.As(err, &refusal) || errors.Is(err, settletest.ErrStore) {
		return
	}
	if o.Final < c.held || c.closed && c.final != o.Final {
		m.t.Fatalf("the payee signed a final of %d units, it holds %d", o.Final, c.held)
	}
	c.closed, c.final = true, o.Final
}

// actForge lets a dishonest payer sign a voucher that is not the next one.
func (m *life) actForge() {
	paid := slices.DeleteFunc(slices.Clone(m.channels), func(c *account) bool { return c.signed == 0 || !m.lives(c) })
	if len(paid) == 0 || m.chance(8, "any") {
		paid = m.channels
	}
	if len(paid) == 0 {
		m.t.Skip("no channel")
	}
	c := rapid.SampledFrom(paid).Draw(m.t, "channel")
	from := m.payer
	if m.chance(2, "the payee's") {
		from = m.payee
	}
	latest, ok := from.m.Latest(c.id)
	if !ok {
		m.t.Skip("no voucher")
	}
	v := latest.Body
	v.Entries = slices.Clone(v.Entries)
	v.Sequence += uint64(rapid.IntRange(0, 2).Draw(m.t, "sequence"))
	key := m.payer.cfg.DeviceKey
	i := rapid.IntRange(0, len(v.Entries)-1).Draw(m.t, "entry")
	how := rapid.SampledFrom([]string{"less", "more", "gone", "payer", "channel", "total", "proof", "nothing"}).Draw(m.t, "how")
	switch how {
	case "less":
		v.Entries[i].Cumulative = max(1, v.Entries[i].Cumulative.SubFloor(500))
	case "more":
		v.Entries[i].Cumulative += pktcloud.Amount(rapid.IntRange(1, 2*capacity).Draw(m.t, "more"))
	case "gone":
		v.Entries = slices.Delete(v.Entries, i, i+1)
	case "payer":
		key = m.payee.cfg.DeviceKey
		v.Payer = key.Public()
	case "channel":
		v.Channel = pktcloud.IDOf([]byte("no channel"))
	}
	v.Total = 0
	for _, e := range v.Entries {
		v.Total += e.Cumulative
	}
	if proof, err := c.signer.SignVoucher(v.Total); err == nil {
		v.Proof = proof
	}
	if how == "proof" {
		v.Proof = slices.Clone(latest.Body.Proof)
		v.Entries[i].Cumulative++
		v.Total++
	}
	s, err := pktcloud.Seal(key, v)
	if err != nil {
		s = pktcloud.Signed[settle.Voucher]{Body: v} // no shape at all
	}
	if how == "total" {
		s.Body.Total++
	}
	m.deliver(message{to: c, voucher: &s})
}

func (m *life) actOfferClose() {
	c := m.pick()
	final := m.total(m.payer, c) + pktcloud.Amount(rapid.SampledFrom([]int{0, 0, 1, 500}).Draw(m.t, "more"))
	if m.chance(4, "odd") {
		final = rapid.SampledFrom([]pktcloud.Amount{1, 100, final.SubFloor(1), capacity}).Draw(m.t, "final")
	}
	o, err := m.payer.m.OfferClose(context.Background(), c.id, final)
	if m.saw(err); err == nil {
		m.net = append(m.net, message{to: c, offer: &o})
	}
}

// actForgeClose lets a dishonest payer sign any close.
func (m *life) actForgeClose() {
	c := m.pick()
	o := settle.CloseOffer{
		Version: settle.CloseOfferVersion, Channel: c.id, Fee: rapid.SampledFrom([]pktcloud.Amount{1, 5_000, capacity}).Draw(m.t, "fee"),
		Final: rapid.SampledFrom([]pktcloud.Amount{c.held, c.held.SubFloor(1), 100, c.held + 1}).Draw(m.t, "final"),
	}
	if sig, err := c.signer.SignClose(o.Final, o.Fee); err == nil && m.chance(2, "signed") {
		o.Signature = sig
	} else {
		o.Signature = []byte{1}
	}
	m.deliverOffer(c, o)
}

func (m *life) actClaim() {
	if !m.chance(2, "really") {
		m.t.Skip("not yet")
	}
	_, err := m.payee.m.Claim(context.Background(), m.pick().id)
	m.saw(err)
}

// actDoubleSpend lets the payer pay for something before its funding is mined,
// and take the coins elsewhere.
func (m *life) actDoubleSpend() {
	ctx := context.Background()
	if m.down > 0 || m.live() >= 4 {
		m.t.Skip("no chain, or enough channels")
	}
	c := m.open()
	if c == nil {
		return
	}
	m.pay(c, entry("1", 20_000))
	if n := len(m.net); n > 0 && m.net[n-1].to == c && m.chance(2, "arrives") {
		m.deliver(m.net[n-1])
	}
	m.must(m.payer.wallet.Release(ctx, c.funding))
	raw, err := m.payer.wallet.Fund(ctx, []settle.Payment{{Script: c.chain.Detail.PayerScript, Amount: capacity}}, 50_000)
	if m.saw(err); err != nil {
		return
	}
	err = m.ledger.Broadcast(ctx, raw)
	m.saw(err)
	m.ledger.Mine(1)
	m.see()
	m.saw(m.payee.m.Announce(ctx, c.id))
	out, err := m.ledger.Output(ctx, c.outpoint)
	m.must(err)
	c.spoilt = !out.Known
}

// near reports whether blocks must not pass unseen: the payee has a margin to
// see its deadline, and one more to be mined.
func (m *life) away() bool { return m.down > 0 && m.height >= m.down+machineMargin/2 }

// mined lets blocks come, and both look at them, the payee first or last.
func (m *life) mined(n int, rate pktcloud.Amount) {
	if m.away() {
		m.back()
	}
	if rate > 0 {
		m.full++
		m.ledger.MineFull(n, rate)
	} else {
		m.full = 0
		m.ledger.Mine(n)
	}
	m.see()
	m.lookBoth()
}

func (m *life) lookBoth() {
	sides := []*actor{m.payee, m.payer}
	if m.chance(2, "order") {
		slices.Reverse(sides)
	}
	for _, a := range sides {
		m.look(a)
	}
}

func (m *life) actBlock()  { m.mined(1, 0) }
func (m *life) actBlocks() { m.mined(rapid.IntRange(2, machineMargin/2).Draw(m.t, "blocks"), 0) }

// actFullBlock is a block without room for those who pay little, and a ledger
// that may not have noticed yet.
func (m *life) actFullBlock() {
	if m.full >= machineFull {
		m.t.Skip("enough full blocks")
	}
	m.mined(1, machinePrice)
}

func (m *life) actFees() {
	m.ledger.SetFeeRate(pktcloud.Amount(rapid.SampledFrom([]int{1_000, 1_000, 3_000, machinePrice}).Draw(m.t, "rate")))
}

func (m *life) actReorg() {
	if m.down > 0 {
		m.t.Skip("out of sight")
	}
	m.ledger.Reorg(rapid.IntRange(1, machineReorg).Draw(m.t, "blocks"))
	m.see()
	m.lookBoth()
}

// actSight takes the chain out of sight, or brings it back.
func (m *life) actSight() {
	if m.down > 0 {
		m.back()
	} else {
		m.down = m.height
		m.ledger.SetDown(true)
	}
	m.lookBoth()
}

func (m *life) back() {
	m.down = 0
	m.ledger.SetDown(false)
	m.lookBoth()
}

// actClock sets the clocks wrong, or right again.
func (m *life) actClock() {
	if m.offset == 0 {
		m.offset = rapid.SampledFrom([]time.Duration{-time.Hour, 10 * time.Minute, 3 * time.Hour, 40 * time.Hour}).Draw(m.t, "clock")
		m.lookBoth()
		if !m.chance(3, "for long") {
			m.offset = 0
		}
		return
	}
	m.offset = 0
	m.lookBoth()
}

func (m *life) actCrashPayer() { m.restart(m.payer) }
func (m *life) actCrashPayee() { m.restart(m.payee) }

// actDie lets a side die at a write, before or after it, and start again.
func (m *life) actDie() {
	a, step := m.payer, m.actPay
	switch rapid.SampledFrom([]string{"pay", "offer", "deliver", "look", "claim"}).Draw(m.t, "step") {
	case "offer":
		step = m.actOfferClose
	case "deliver":
		a, step = m.payee, func() { m.deliver(m.take(true)) }
	case "look":
		step = func() { m.look(m.payer) }
	case "claim":
		a, step = m.payee, m.actClaim
	}
	if len(m.channels) == 0 || len(m.net) == 0 {
		m.t.Skip("nothing to do")
	}
	a.store.DieAt(1, m.chance(2, "after"))
	defer m.restart(a) // also when the step has nothing to do
	step()
}

// actWrong makes the calls that no honest program makes.
func (m *life) actWrong() {
	if !m.chance(2, "dared") {
		m.t.Skip("not dared")
	}
	ctx := context.Background()
	c := m.pick()
	_, err := m.payee.m.Pay(ctx, c.id, entry("1", 1<<30))
	m.saw(err)
	_, err = m.payer.m.CompleteClose(ctx, c.id, settle.CloseOffer{Version: settle.CloseOfferVersion, Channel: c.id, Signature: []byte{1}})
	m.saw(err)
	_, err = m.payee.m.Claim(ctx, pktcloud.IDOf([]byte("no channel")))
	m.saw(err)
	_, err = m.payee.m.Accept(ctx, c.params, c.funding) // again
	m.must(err)
	other := c.params
	other.ExpiryHeight++
	_, err = m.payee.m.Accept(ctx, other, c.funding)
	if m.saw(err); err == nil {
		m.t.Fatal("the payee took a channel that its funding does not pay")
	}
	other = c.params
	other.MarginBlocks--
	_, err = m.payee.m.Accept(ctx, other, c.funding)
	if m.saw(err); err == nil {
		m.t.Fatal("the payee took a channel of a smaller margin")
	}
	// A side that does not trust its manager, and refunds by itself.
	own, err := settle.NewChannel(c.params, settle.Payer, 1)
	m.must(err)
	_, err = own.Refund()
	m.saw(err)
	if ladder, err := m.ladder(c); err == nil && m.down == 0 && m.height < c.params.ExpiryHeight {
		if err := m.ledger.Broadcast(ctx, ladder); !errors.Is(err, settle.ErrRejected) {
			m.t.Fatalf("a refund at height %d, expiry %d: got %v", m.height, c.params.ExpiryHeight, err)
		}
	}
}

// ladder is a refund of the channel.
func (m *life) ladder(c *account) ([]byte, error) {
	for index := uint32(0); index < 1000; index++ {
		key, err := m.payer.cfg.Keychain.RefundKey(index)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(key, c.chain.Detail.Refund.Keys[0]) {
			raws, err := m.payer.cfg.Keychain.RefundLadder(c.chain, index, []pktcloud.Amount{2_000})
			if err != nil {
				return nil, err
			}
			return raws[0], nil
		}
	}
	return nil, errors.New("no such key")
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
}

// finish lets time pass until all channels are at rest, and counts the money.
func (m *life) finish() {
	m.offset, m.full = 0, 0
	if m.down > 0 {
		m.back()
	}
	m.ledger.SetFeeRate(1_000)
	for last := m.height + 90 + 4*machineMargin; m.height < last; {
		m.mined(4, 0)
	}
	for _, c := range m.channels {
		m.count.ends[m.judge(c)]++
	}
}

// judge compares what the chain paid with what both sides had agreed.
func (m *life) judge(c *account) string {
	out, err := m.ledger.Output(context.Background(), c.outpoint)
	m.must(err)
	if !out.Known {
		if c.held > c.params.Unconfirmed {
			m.t.Fatalf("a channel without funding, the payee holds %d units", c.held)
		}
		return "nothing"
	}
	if out.Spend == nil || out.Spend.Depth < machineDepth {
		m.t.Fatalf("channel %s never ended: %+v", c.id, out)
	}
	end, err := c.chain.EndOf(out.Spend.Raw)
	m.must(err)
	if end.Payee+end.Payer+end.Fee != c.params.Capacity {
		m.t.Fatalf("money was made or lost: %+v of %d", end, c.params.Capacity)
	}
	total := m.total(m.payee, c)
	st, err := m.payee.m.Status(context.Background(), c.id)
	m.must(err)
	switch {
	case end.Refund:
		if c.held > 0 {
			m.t.Fatalf("the refund won while the payee held %d units", c.held)
		}
		return "refund"
	case end.Payee == st.Final && end.Payee >= c.held && (!c.closed || c.final == st.Final):
		return "close" // also one that was durable when the payee died, and that it never acknowledged
	case end.Payee+end.Fee != total+c.params.Reserve || total < c.held:
		m.t.Fatalf("the claim paid %d units and a fee of %d, the payee held %d", end.Payee, end.Fee, c.held)
	case end.Payer < c.params.Capacity-c.signed-c.params.Reserve && c.signed >= total:
		m.t.Fatalf("the payer gets %d units, it had signed %d", end.Payer, c.signed)
	}
	return "claim"
}

// history runs one.
func history(t *rapid.T, n pktchain.Network, count *census) {
	m := newLife(t, n, count)
	actions := map[string]func(*rapid.T){"": func(t *rapid.T) { m.t = t; m.check() }}
	for name, act := range map[string]func(){
		"open": m.actOpen, "announce": m.actAnnounce, "abandon": m.actAbandon, "pay": m.actPay, "pay more": m.actPay,
		"deliver": func() { m.deliver(m.take(false)) }, "deliver and double": func() { m.deliver(m.take(true)) },
		"lose": func() { m.take(false) }, "forge a voucher": m.actForge, "forge another": m.actForge, "offer a close": m.actOfferClose,
		"forge a close": m.actForgeClose, "claim": m.actClaim, "double spend": m.actDoubleSpend,
		"block": m.actBlock, "blocks": m.actBlocks, "full block": m.actFullBlock, "fees move": m.actFees, "reorganise": m.actReorg,
		"chain in and out": m.actSight, "clock jumps": m.actClock, "crash payer": m.actCrashPayer,
		"crash payee": m.actCrashPayee, "die at a write": m.actDie, "wrong call": m.actWrong,
	} {
		actions[name] = func(t *rapid.T) {
			m.t = t
			act()
			count.steps++
			count.actions[name]++
		}
	}
	t.Repeat(actions)
	m.t = t
	m.finish()
}

// runMachine runs histories of a mean length until there were so many steps.
func runMachine(t *testing.T, steps, length int) {
	for name, value := range map[string]string{"rapid.steps": fmt.Sprint(length), "rapid.checks": fmt.Sprint(max(1, min(100, steps/length/4)))} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
			defer f.Value.Set(f.DefValue) //nolint:errcheck // its own default
		}
	}
	n := network(t)
	n.BlockTime = time.Minute
	count := newCensus()
	for count.steps < steps {
		rapid.Check(t, func(t *rapid.T) { history(t, n, count) })
	}
	count.report(t)
}

// TestMachine lets two managers live through random histories: a chain with
// reorganisations, full blocks and fees that move, a network that loses and
// doubles, clocks that jump, machines that die, and sides that cheat.
func TestMachine(t *testing.T) { runMachine(t, 6_000, 120) }
