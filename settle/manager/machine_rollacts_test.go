package manager_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"pgregory.net/rapid"
)

// attackRate is the fee rate of a coin that is taken elsewhere.
const attackRate = 50_000

// What can happen to the rolls of a life, one function for each action.

func (m *life) rollActs() map[string]act {
	return map[string]act{
		"offer a roll": {m.actOfferRoll, 4}, "deliver a roll": {m.actDeliverRoll, 3}, "lose a roll": {m.actLoseRoll, 4},
		"tamper with a roll": {m.actTamperRoll, 5}, "withdraw a roll": {m.actWithdrawRoll, 5}, "pay rolling": {m.actPayRolling, 5},
		"receive rolling": {m.actReceiveRolling, 5}, "forge a rolling payment": {m.actForgeRolling, 4}, "publish a roll": {m.actPublishRoll, 7},
		"rob a roll": {m.actRobRoll, 9}, "reorganise a roll": {m.actReorgRoll, 5}, "die in a roll": {m.actDieRolling, 3},
	}
}

// request is what the payer asks for, mostly something that makes sense.
func (m *life) request(c *account) manager.RollRequest {
	left := max(1, c.params.ExpiryHeight-min(c.params.ExpiryHeight, m.height))
	more := c.params.Capacity + pktcloud.Amount(rapid.SampledFrom([]int{0, 1_000_000, 5_000_000}).Draw(m.t, "top-up"))
	later := min(100, left+uint64(rapid.IntRange(0, 60).Draw(m.t, "extension")))
	switch rapid.SampledFrom([]string{"top-up", "extension", "both", "both", "deeper", "odd"}).Draw(m.t, "request") {
	case "top-up":
		return manager.RollRequest{Capacity: more}
	case "extension":
		return manager.RollRequest{LifetimeBlocks: later}
	case "deeper":
		return manager.RollRequest{Capacity: more, LifetimeBlocks: later, MinDepth: machineDepth + 1}
	case "odd":
		return rapid.SampledFrom([]manager.RollRequest{
			{Capacity: c.params.Capacity - 1}, {LifetimeBlocks: left - 1}, {MinDepth: 90}, {Capacity: 100 * capacity}, {LifetimeBlocks: 1},
		}).Draw(m.t, "odd")
	}
	return manager.RollRequest{Capacity: more, LifetimeBlocks: later}
}

// actOfferRoll lets the payer offer one, mostly of a channel that paid already;
// offer and answer may arrive at once.
func (m *life) actOfferRoll() {
	c := m.anyOpen()
	if c == nil {
		m.t.Skip("no channel is open")
	}
	if c.held == 0 && m.chance(2, "paid before") {
		m.payHere(c)
	}
	r := m.offerRoll(c, m.request(c))
	if r != nil && m.chance(2, "accepted") {
		m.deliverRoll(r)
		if r.answer != nil && m.chance(2, "answered") {
			m.deliverAnswer(r)
		}
	}
}

// payHere pays and delivers.
func (m *life) payHere(c *account) {
	sent := len(m.net)
	m.pay(c, entry("1", m.entryOf(c, "1")+40_000))
	for _, msg := range m.net[sent:] {
		m.deliver(msg)
	}
}

// entryOf is what a lease has got over a channel, as the payer knows it.
func (m *life) entryOf(c *account, lease string) pktcloud.Amount {
	latest, _ := m.payer.m.Latest(c.id)
	old, _ := latest.Body.Entry(entry(lease, 0).Lease)
	return old.Cumulative
}

// some is a roll under way, accepted or not; made if there is none.
func (m *life) some(accepted bool) *roll {
	fit := slices.DeleteFunc(slices.Clone(m.rolls), func(r *roll) bool {
		p := m.phase(m.payee, r.from)
		return r.withdrawn || r.adopted != accepted || p != settle.Open && p != settle.Rolling || m.height >= r.from.params.Deadline()
	})
	if len(fit) > 0 {
		return rapid.SampledFrom(fit).Draw(m.t, "roll")
	}
	c := m.anyOpen()
	if c == nil {
		m.t.Skip("no channel is open")
	}
	if m.chance(2, "paid before") {
		m.payHere(c)
	}
	r := m.offerRoll(c, manager.RollRequest{Capacity: c.params.Capacity + 1_000_000})
	if r == nil {
		m.t.Skip("it does not roll")
	}
	if accepted {
		if m.deliverRoll(r); !r.adopted {
			m.t.Skip("refused")
		}
	}
	return r
}

func ofRoll(msg message) bool { return msg.roll != nil && msg.pair == nil }

// actDeliverRoll hands an offer or an answer over; it may come again.
func (m *life) actDeliverRoll() {
	if !slices.ContainsFunc(m.net, ofRoll) {
		m.some(false)
	}
	m.deliver(m.take(m.chance(2, "doubled"), ofRoll))
}

func (m *life) actLoseRoll() {
	if !slices.ContainsFunc(m.net, ofRoll) {
		m.some(false)
	}
	m.take(false, ofRoll)
}

// actTamperRoll spoils an offer, or an answer, on its way.
func (m *life) actTamperRoll() {
	ctx := context.Background()
	if r := m.some(m.chance(3, "the answer")); r.answer == nil {
		all := m.forgedOffers(r)
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(all))).Draw(m.t, "how")
		before := m.phase(m.payee, r.from)
		raw, err := m.payee.m.AcceptRoll(ctx, all[name])
		if m.saw(err); err == nil {
			m.t.Fatalf("%#v: accepted with another %s: %x", r, name, raw)
		}
		if after := m.phase(m.payee, r.from); after != before {
			m.t.Fatalf("%#v: %s after the offer was refused: %v", r, after, err)
		}
	} else {
		for _, raw := range [][]byte{r.offer.Tx, r.answer[:len(r.answer)/2], r.from.funding, nil} {
			err := m.payer.m.CompleteRoll(ctx, r.from.id, raw)
			if m.saw(err); err == nil {
				m.t.Fatalf("%#v: completed with %x", r, raw)
			}
		}
	}
}

// actWithdrawRoll lets the payer take an offer back that was refused, or try to
// take another one back; or it has the payee refuse one first.
func (m *life) actWithdrawRoll() {
	if i := slices.IndexFunc(m.rolls, func(r *roll) bool { return !r.withdrawn && (r.refused || r.completed && !r.over) }); i >= 0 && m.chance(2, "this one") {
		m.withdraw(m.rolls[i])
		return
	}
	r := m.some(false)
	if r.offer.First.Body.Sequence == 0 || m.total(m.payee, r.from) == r.offer.First.Body.Total {
		// A voucher that its payer's manager does not know: the offer is behind.
		latest, _ := m.payee.m.Latest(r.from.id)
		v := latest.Body
		v.Version, v.Channel, v.Payer, v.Sequence = settle.VoucherVersion, r.from.id, r.from.params.Payer, v.Sequence+1
		e := entry("forged", 1)
		old, _ := v.Entry(e.Lease)
		e.Cumulative += old.Cumulative
		v.Entries = raised(v.Entries, e)
		v.Total++
		s := m.signs(r.from, v)
		m.deliver(message{to: r.from, voucher: &s})
	}
	m.deliverRoll(r)
	if r.refused {
		m.withdraw(r)
	}
}

// raised are entries with one in its place.
func raised(entries []settle.Entry, e settle.Entry) []settle.Entry {
	all := slices.DeleteFunc(slices.Clone(entries), func(o settle.Entry) bool { return o.Lease == e.Lease })
	all = append(all, e)
	slices.SortFunc(all, func(a, b settle.Entry) int { return slices.Compare(a.Lease[:], b.Lease[:]) })
	return all
}

// actPayRolling lets the payer pay over both channels, up to what the
// predecessor can and beyond.
func (m *life) actPayRolling() {
	r := m.some(!m.chance(8, "not accepted yet"))
	lease := fmt.Sprint(rapid.IntRange(1, 3).Draw(m.t, "lease"))
	room := r.from.params.Spendable().SubFloor(m.total(m.payer, r.from))
	more := rapid.SampledFrom([]pktcloud.Amount{1, 900, 30_000, 200_000, room, room + 1_000, room + machineUnproof, room + machineUnproof + 1}).Draw(m.t, "more")
	m.payRolling(r, entry(lease, m.entryOf(r.to, lease)+more))
	if n := len(m.net); n > 0 && m.net[n-1].pair != nil && m.chance(2, "arrives at once") {
		m.deliver(m.net[n-1])
	}
}

// actReceiveRolling hands a payment over, perhaps again, or with another one's
// half.
func (m *life) actReceiveRolling() {
	pair := func(msg message) bool { return msg.pair != nil && msg.roll.adopted }
	if !slices.ContainsFunc(m.net, pair) {
		r := m.some(true)
		m.payRolling(r, entry("1", m.entryOf(r.to, "1")+5_000))
	}
	msg := m.take(m.chance(3, "doubled"), pair)
	p := *msg.pair
	switch rapid.IntRange(0, 5).Draw(m.t, "half") {
	case 0:
		p.From = m.take(true, func(o message) bool { return o.pair != nil }).pair.From
	case 1:
		p.From = pktcloud.Signed[settle.Voucher]{}
	}
	m.deliverPair(msg.roll, p)
}

// actForgeRolling lets a dishonest payer sign halves that do not go together.
func (m *life) actForgeRolling() {
	r := m.some(true)
	to, _ := m.payee.m.Latest(r.to.id)
	from, _ := m.payee.m.Latest(r.from.id)
	forged := func(c *account, v settle.Voucher, most pktcloud.Amount) pktcloud.Signed[settle.Voucher] {
		v.Version, v.Channel, v.Payer, v.Sequence = settle.VoucherVersion, c.id, c.params.Payer, v.Sequence+1
		e := entry(fmt.Sprint(rapid.IntRange(1, 3).Draw(m.t, "lease")), most)
		old, _ := v.Entry(e.Lease)
		e.Cumulative += old.Cumulative
		v.Entries = raised(v.Entries, e)
		v.Total += most
		return m.signs(c, v)
	}
	amounts := []pktcloud.Amount{1, 1_000, machineUnproof, machineUnproof + 1, 200_000, capacity}
	p := manager.RollPayment{To: to, From: from}
	if how := rapid.SampledFrom([]string{"to", "both", "both", "from"}).Draw(m.t, "raised"); how != "from" {
		p.To = forged(r.to, to.Body, rapid.SampledFrom(amounts).Draw(m.t, "to"))
		if how == "both" {
			p.From = forged(r.from, from.Body, rapid.SampledFrom(amounts).Draw(m.t, "from"))
		}
	} else {
		p.From = forged(r.from, from.Body, rapid.SampledFrom(amounts).Draw(m.t, "from"))
	}
	m.deliverPair(r, p)
	if m.chance(2, "alone") { // a half alone is refused until the roll is done
		m.deliver(message{to: r.from, voucher: &p.From})
		m.deliver(message{to: r.to, voucher: &p.To})
	}
}

// actPublishRoll lets the payee publish a roll that it did not answer, or that
// was withdrawn, and take what it can.
func (m *life) actPublishRoll() {
	var r *roll
	old := slices.DeleteFunc(slices.Clone(m.rolls), func(r *roll) bool { return r.adopted || !r.withdrawn || r.over })
	if len(old) > 0 && m.chance(2, "withdrawn") {
		r = rapid.SampledFrom(old).Draw(m.t, "roll")
	} else {
		r = m.some(false)
	}
	m.publish(r)
	if m.chance(2, "mined") {
		m.mined(1, 0)
	}
	if p := m.phase(m.payee, r.from); p != settle.Open && m.chance(2, "claimed") {
		m.claimStray(r) // its manager will not accept it any more
	}
}

// elsewhere lets the payer spend the coins of a roll for itself.
func (m *life) elsewhere(r *roll) {
	raw, err := m.payer.wallet.Elsewhere(context.Background(), r.offer.Tx, attackRate)
	if m.saw(err); err == nil {
		m.saw(m.ledger.Broadcast(context.Background(), raw))
	}
}

// actRobRoll lets the payer take a roll's coins elsewhere, also while a
// reorganisation has taken it back.
func (m *life) actRobRoll() {
	fit := slices.DeleteFunc(slices.Clone(m.rolls), func(r *roll) bool { return r.over || !r.coins() || m.phase(m.payee, r.from) != settle.Rolling })
	var r *roll
	if len(fit) > 0 {
		r = rapid.SampledFrom(fit).Draw(m.t, "roll")
	} else if r = m.some(true); !r.coins() {
		m.t.Skip("it has no coins")
	}
	out, err := m.ledger.Output(context.Background(), r.to.outpoint)
	if m.saw(err); out.Depth > 0 && out.Depth <= machineReorg {
		m.takeBack(int(out.Depth), func() { m.elsewhere(r) })
	} else {
		m.elsewhere(r)
	}
	if m.chance(2, "mined") {
		m.mined(1, 0)
	}
}

// actReorgRoll mines a roll and takes it back.
func (m *life) actReorgRoll() {
	r := m.some(true)
	for range machineCalm {
		m.mined(1, 0)
		if out, err := m.ledger.Output(context.Background(), r.to.outpoint); err == nil && out.Depth > 0 && out.Depth <= machineReorg && m.takeBack(int(out.Depth), func() {}) {
			return
		}
	}
}

// actDieRolling lets a side die at a write of a roll, before or after it, and
// start again.
func (m *life) actDieRolling() {
	step := rapid.SampledFrom([]string{"offer", "accept", "accept", "complete", "pay", "receive", "withdraw", "payer looks", "payee looks"}).Draw(m.t, "step")
	a, do := m.payer, func() {}
	switch step {
	case "offer":
		c := m.anyOpen()
		if c == nil {
			m.t.Skip("no channel is open")
		}
		q := m.request(c)
		do = func() { m.offerRoll(c, q) }
	case "accept":
		r := m.some(false)
		a, do = m.payee, func() { m.deliverRoll(r) }
	case "complete":
		r := m.some(true)
		if r.answer == nil {
			m.t.Skip("no answer")
		}
		do = func() { m.deliverAnswer(r) }
	case "pay":
		r := m.some(true)
		do = func() { m.payRolling(r, entry("1", m.entryOf(r.to, "1")+3_000)) }
	case "receive":
		r := m.some(true)
		m.payRolling(r, entry("1", m.entryOf(r.to, "1")+3_000))
		msg := m.take(true, func(msg message) bool { return msg.pair != nil })
		a, do = m.payee, func() { m.deliver(msg) }
	case "withdraw":
		r := m.some(false)
		if r.refused {
			do = func() { m.withdraw(r) }
		}
	default:
		m.some(true)
		if step == "payee looks" {
			a = m.payee
		}
		m.ledger.Mine(1)
		m.see()
		m.calm++
		do = func() { m.look(a) }
	}
	a.store.DieAt(rapid.IntRange(1, 2).Draw(m.t, "write"), m.chance(2, "after"))
	defer m.restart(a)
	do()
}
