package manager_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"pgregory.net/rapid"
)

// What can happen to a life, one function for each action.

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

// take chooses a message, among those that fit if it is said which; keep leaves
// it under way.
func (m *life) take(keep bool, fits func(message) bool) message {
	if len(m.net) == 0 && fits == nil {
		m.actPay()
	}
	var fit []int
	for i, msg := range m.net {
		if fits == nil || fits(msg) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		m.t.Skip("nothing is under way")
	}
	i := rapid.SampledFrom(fit[max(0, len(fit)-8):]).Draw(m.t, "message")
	msg := m.net[i]
	if !keep {
		m.net = slices.Delete(m.net, i, i+1)
	}
	return msg
}

// deliver hands a message over and judges what becomes of it.
func (m *life) deliver(msg message) {
	switch {
	case msg.offer != nil:
		m.deliverOffer(msg.to, *msg.offer)
		return
	case msg.pair != nil:
		m.deliverPair(msg.roll, *msg.pair)
		return
	case msg.answer:
		m.deliverAnswer(msg.roll)
		return
	case msg.roll != nil:
		m.deliverRoll(msg.roll)
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
	if v.Body.Sequence != before.Body.Sequence && c.from != nil && !m.rolled(c) {
		m.t.Fatal("accepted a voucher of a successor alone")
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
	case !again && st.Depth < p.MinDepth && v.Total > p.Unconfirmed+m.secured(c):
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
	m.pay(c, entry("1", machineUnproof+1)) // beyond what is accepted so early
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

// away reports whether the chain is out of sight for as long as it may be.
func (m *life) away(n int) bool {
	return m.down > 0 && (m.height+uint64(n) > m.down+machineMargin/2 || m.trouble+n > machineTrouble)
}

// mined lets blocks come, full ones if a rate is given, and all look at the last.
// The honest tower looks every few seconds, so that it is never later than the
// block after a hostile one.
func (m *life) mined(n int, rate pktcloud.Amount) {
	if m.away(n) {
		m.back()
	}
	if m.towers.attacked {
		m.lookAll()
	}
	if rate > 0 {
		m.ledger.MineFull(n, rate)
	} else {
		m.ledger.Mine(n)
	}
	switch m.calm += n; {
	case rate > 0 || m.down > 0:
		m.trouble, m.calm = m.trouble+n, 0
	case m.calm >= machineCalm:
		m.trouble, m.calm = n-1, 1 // what came due in between has waited
	default:
		m.trouble += n - 1
	}
	m.see()
	m.lookAll()
}

func (m *life) actBlock() { m.mined(1, 0) }
func (m *life) actBlocks() {
	n := rapid.IntRange(2, machineMargin/3).Draw(m.t, "blocks")
	m.mined(max(1, min(n, machineTrouble-m.trouble)), 0)
}

// actFullBlock is a block without room for those who pay little, and a ledger
// that may not have noticed yet.
func (m *life) actFullBlock() {
	if !m.mayBeFull() {
		m.t.Skip("enough trouble")
	}
	m.mined(1, machinePrice)
}

func (m *life) mayBeFull() bool { return m.trouble < machineTrouble }

func (m *life) actFees() {
	m.ledger.SetFeeRate(pktcloud.Amount(rapid.SampledFrom([]int{1_000, 1_000, 3_000, machinePrice}).Draw(m.t, "rate")))
}

func (m *life) actReorg() {
	if !m.reorg() {
		m.t.Skip("enough trouble")
	}
}

func (m *life) reorg() bool {
	return m.takeBack(rapid.IntRange(1, machineReorg).Draw(m.t, "blocks"), func() {})
}

// takeBack takes blocks back; one more comes in their place, all of them empty.
// meanwhile is what happens before anybody looks.
func (m *life) takeBack(n int, meanwhile func()) bool {
	if m.trouble+n+1 > machineTrouble {
		return false
	}
	if m.down > 0 {
		m.back()
	}
	m.ledger.Reorg(n)
	meanwhile()
	m.trouble, m.calm = m.trouble+n+1, 0
	m.see()
	m.lookAll()
	m.broadcastAgain()
	return true
}

// actSight takes the chain out of sight, or brings it back.
func (m *life) actSight() {
	if m.down > 0 {
		m.back()
	} else {
		m.down = m.height
		m.ledger.SetDown(true)
	}
	m.lookAll()
}

func (m *life) back() {
	m.down = 0
	m.ledger.SetDown(false)
	m.lookAll()
}

// actClock sets the clocks wrong, or right again.
func (m *life) actClock() {
	if m.offset == 0 {
		m.offset = rapid.SampledFrom([]time.Duration{-time.Hour, 10 * time.Minute, 3 * time.Hour, 40 * time.Hour}).Draw(m.t, "clock")
		m.lookAll()
		if !m.chance(3, "for long") {
			m.offset = 0
		}
		return
	}
	m.offset = 0
	m.lookAll()
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
		a, step = m.payee, func() { m.deliver(m.take(true, nil)) }
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
	_, err = m.payer.m.Pay(ctx, c.id, entry("too much", capacity))
	m.saw(err)
	if latest, ok := m.payer.m.Latest(c.id); ok {
		lower := latest.Body.Entries[0]
		lower.Cumulative--
		_, err = m.payer.m.Pay(ctx, c.id, lower)
		m.saw(err)
	}
	for _, id := range []pktcloud.ID{c.id, pktcloud.IDOf([]byte("another channel"))} {
		m.deliverOffer(c, settle.CloseOffer{Version: settle.CloseOfferVersion, Channel: id, Final: c.held + 1_000, Fee: 5_000, Signature: []byte{1}})
	}
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
	ladder, err := m.ladder(c)
	m.must(err)
	if m.down == 0 && m.height < c.params.ExpiryHeight {
		if err := m.ledger.Broadcast(ctx, ladder); !errors.Is(err, settle.ErrRejected) {
			m.t.Fatalf("a refund at height %d, expiry %d: got %v", m.height, c.params.ExpiryHeight, err)
		}
	}
}

// ladder is a refund of the channel.
func (m *life) ladder(c *account) ([]byte, error) {
	raws, err := m.payer.cfg.Keychain.RefundLadder(c.chain, c.index, []pktcloud.Amount{2_000})
	if err != nil {
		return nil, err
	}
	return raws[0], nil
}
