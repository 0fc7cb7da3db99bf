package settle_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"pgregory.net/rapid"
)

// party is a side of the model: what it thinks, and what a crash leaves.
type party struct {
	now     settle.Channel
	durable []byte
}

// model is a channel with both parties, a network that loses, doubles and
// reorders, and a chain. Beside the code under test it keeps by itself what
// each side must come out with.
type model struct {
	payer, payee party
	net          []pktcloud.Signed[settle.Voucher]
	offers       []settle.CloseOffer

	height, depth uint64
	mined         bool // the funding
	gone          bool // the payer spent the coins elsewhere

	accepted map[pktcloud.ID]pktcloud.Amount // by the payee, its highest of each lease
	total    pktcloud.Amount                 // of accepted
	closed   pktcloud.Amount                 // final of the close that the payee signed; zero means none
	last     uint64                          // sequence of the latest accepted voucher

	ended         bool
	toPayee       pktcloud.Amount
	toPayer, fees pktcloud.Amount
}

const modelFee = 300

func (m *model) save(t *rapid.T, p *party) {
	b, err := pktcloud.Marshal(p.now)
	if err != nil {
		t.Fatal(err)
	}
	p.durable = b
}

func (m *model) crash(t *rapid.T, p *party) {
	p.now = settle.Channel{}
	if err := pktcloud.Unmarshal(p.durable, &p.now, 1<<20); err != nil {
		t.Fatal(err)
	}
}

func (m *model) observe() {
	o := settle.Observation{Height: m.height, Funded: m.mined && !m.gone, Depth: m.depth}
	m.payer.now, m.payee.now = m.payer.now.Observe(o), m.payee.now.Observe(o)
}

// pay lets the payer make a voucher; it may crash before or after it is durable.
func (m *model) pay(t *rapid.T) {
	e := entry(byte(rapid.IntRange(1, 3).Draw(t, "lease")), 0)
	old, _ := m.payer.now.Latest.Body.Entry(e.Lease)
	e.Cumulative = old.Cumulative + pktcloud.Amount(rapid.SampledFrom([]int{0, 1, 100, 900, 60_000}).Draw(t, "more"))
	v, err := m.payer.now.Next(e)
	if err != nil {
		return
	}
	if v.Sequence == m.payer.now.Latest.Body.Sequence {
		m.net = append(m.net, m.payer.now.Latest) // sent again
		return
	}
	signed := seal(t, m.payer.now.Params, v)
	next, err := m.payer.now.Issue(signed)
	if err != nil {
		t.Fatalf("the payer refuses its own voucher: %v", err)
	}
	switch rapid.IntRange(0, 9).Draw(t, "crash") {
	case 0: // before the write: nothing left the machine
		m.crash(t, &m.payer)
		return
	case 1: // after the write, before it was sent
		m.payer.now = next
		m.save(t, &m.payer)
		m.crash(t, &m.payer)
		return
	}
	m.payer.now = next
	m.save(t, &m.payer)
	m.net = append(m.net, signed)
}

// deliver hands the payee any voucher ever sent, and judges what it does.
func (m *model) deliver(t *rapid.T) {
	if len(m.net) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.net)-1).Draw(t, "which")
	v := m.net[i]
	if rapid.Bool().Draw(t, "lost") {
		m.net = append(m.net[:i:i], m.net[i+1:]...)
		return
	}
	m.receive(t, v)
}

// hostile hands the payee a voucher that a dishonest payer signed.
func (m *model) hostile(t *rapid.T) {
	v := m.payer.now.Latest.Body
	if b := m.payee.now.Latest.Body; b.Sequence > 0 && rapid.Bool().Draw(t, "behind") {
		v = b
	}
	if v.Sequence == 0 {
		return
	}
	v.Sequence += uint64(rapid.IntRange(0, 3).Draw(t, "sequence"))
	v.Entries = append([]settle.Entry(nil), v.Entries...)
	for range rapid.IntRange(1, 2).Draw(t, "changes") {
		i := rapid.IntRange(0, len(v.Entries)-1).Draw(t, "entry")
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			v.Entries[i].Cumulative = max(1, v.Entries[i].Cumulative.SubFloor(pktcloud.Amount(rapid.IntRange(0, 200).Draw(t, "less"))))
		case 1:
			v.Entries[i].Cumulative += pktcloud.Amount(rapid.IntRange(0, 120_000).Draw(t, "more"))
		case 2:
			if len(v.Entries) > 1 {
				v.Entries = append(v.Entries[:i:i], v.Entries[i+1:]...)
			}
		case 3:
			v.Channel = lease(byte(rapid.IntRange(1, 2).Draw(t, "channel")))
		}
	}
	v.Total = 0
	for _, e := range v.Entries {
		v.Total += e.Cumulative
	}
	s := seal(t, m.payer.now.Params, v)
	if rapid.IntRange(0, 4).Draw(t, "proof") == 0 {
		s.Body.Proof = stubProof(m.payer.now.Params, v.Total+1)
		s, _ = pktcloud.Seal(payerKey, s.Body)
	}
	m.receive(t, s)
}

// receive states what an accepted voucher must be, in the model's own words.
func (m *model) receive(t *rapid.T, v pktcloud.Signed[settle.Voucher]) {
	before := m.payee.now
	after, err := before.Accept(v, stubRail{})
	if err != nil || after.Latest.Body.Sequence == before.Latest.Body.Sequence {
		if after.Paid() != before.Paid() || after.Phase != before.Phase {
			t.Fatalf("a voucher that was not taken changed the channel: %v", err)
		}
		return
	}
	p, b := before.Params, v.Body
	switch {
	case b.Sequence <= m.last || b.Channel != before.ID:
		t.Fatalf("accepted sequence %d of channel %v after %d", b.Sequence, b.Channel, m.last)
	case b.Total+p.Reserve+p.MinChange > p.Capacity:
		t.Fatalf("accepted %d units of %d", b.Total, p.Capacity)
	case m.depth < p.MinDepth && b.Total > p.Unconfirmed:
		t.Fatalf("accepted %d units at depth %d", b.Total, m.depth)
	case m.height+2*p.MarginBlocks >= p.ExpiryHeight:
		t.Fatalf("accepted at height %d, expiry %d", m.height, p.ExpiryHeight)
	case m.closed != 0 || m.ended && !m.gone:
		t.Fatal("accepted after a signed close")
	case string(b.Proof) != string(stubProof(p, b.Total)):
		t.Fatal("accepted without proof")
	}
	found := map[pktcloud.ID]pktcloud.Amount{}
	sum := pktcloud.Amount(0)
	for _, e := range b.Entries {
		found[e.Lease] = e.Cumulative
		sum += e.Cumulative
	}
	for l, was := range m.accepted {
		if found[l] < was {
			t.Fatalf("the entry of a lease fell from %d to %d", was, found[l])
		}
	}
	if sum != b.Total || sum < m.total {
		t.Fatalf("a total of %d units, entries sum to %d, before %d", b.Total, sum, m.total)
	}
	if rapid.IntRange(0, 9).Draw(t, "crash") == 0 { // before the write: not acknowledged
		m.crash(t, &m.payee)
		return
	}
	m.payee.now = after
	m.save(t, &m.payee)
	m.accepted, m.total, m.last = found, sum, b.Sequence
}

func (m *model) block(t *rapid.T) {
	m.height += uint64(rapid.SampledFrom([]int{1, 1, 2, 50, 200}).Draw(t, "blocks"))
	switch {
	case m.mined && rapid.IntRange(0, 9).Draw(t, "reorganised") == 0:
		m.depth = uint64(rapid.IntRange(1, int(m.depth)).Draw(t, "depth"))
	case m.mined:
		m.depth++
	case !m.gone:
		m.mined, m.depth = true, 1
	}
	m.observe()
	m.decide(t)
}

// doubleSpend takes the coins of a funding that is not mined elsewhere.
func (m *model) doubleSpend() {
	if m.mined || m.gone {
		return
	}
	m.gone, m.ended = true, true
}

func (m *model) offerClose(t *rapid.T) {
	final := m.payer.now.Paid() + pktcloud.Amount(rapid.IntRange(0, 500).Draw(t, "more"))
	if rapid.IntRange(0, 3).Draw(t, "cheat") == 0 {
		final = final.SubFloor(700)
	}
	o := offer(m.payer.now.Params, final, modelFee)
	m.offers = append(m.offers, o) // a dishonest payer sends it in any case
	if next, err := m.payer.now.OfferClose(o); err == nil {
		m.payer.now = next
		m.save(t, &m.payer)
	}
}

func (m *model) acceptClose(t *rapid.T) {
	if len(m.offers) == 0 {
		return
	}
	o := m.offers[rapid.IntRange(0, len(m.offers)-1).Draw(t, "which")]
	next, err := m.payee.now.AcceptClose(o, stubRail{})
	if err != nil {
		return
	}
	if o.Final < m.total || m.closed != 0 && m.closed != o.Final+1 {
		t.Fatalf("the payee signed a final of %d units after accepting %d, closed %d", o.Final, m.total, m.closed)
	}
	m.payee.now = next
	m.save(t, &m.payee)
	m.closed = o.Final + 1
	if rapid.Bool().Draw(t, "mined") {
		m.end(t, o.Final, o.Fee)
	}
}

// decide lets both sides do what they must at this height. The payee comes
// first: its deadline lies two margins before expiry.
func (m *model) decide(t *rapid.T) {
	if m.ended {
		return
	}
	p := m.payee.now.Params
	if m.payee.now.Decide(m.height) == settle.ClaimNow && m.mined {
		if m.height < p.ExpiryHeight-2*p.MarginBlocks {
			t.Fatalf("the payee claims at height %d", m.height)
		}
		c, err := m.payee.now.Claim()
		if err != nil {
			t.Fatal(err)
		}
		m.payee.now = c
		m.end(t, c.Paid()+p.Reserve-modelFee, modelFee)
		return
	}
	if m.payer.now.Decide(m.height) == settle.RefundNow && m.mined {
		if m.height < p.ExpiryHeight {
			t.Fatalf("the payer refunds at height %d", m.height)
		}
		if m.total > 0 {
			t.Fatalf("a refund at height %d while the payee holds %d units", m.height, m.total)
		}
		m.end(t, 0, modelFee)
	}
}

// end is a transaction that spends the funding, mined.
func (m *model) end(t *rapid.T, payee, fee pktcloud.Amount) {
	if m.ended || !m.mined {
		return
	}
	m.ended = true
	capacity := m.payee.now.Params.Capacity
	if payee+fee > capacity {
		t.Fatalf("%d units to the payee and a fee of %d exceed the capacity", payee, fee)
	}
	m.toPayee, m.fees, m.toPayer = payee, fee, capacity-payee-fee
	if m.toPayee+m.toPayer+m.fees != capacity {
		t.Fatal("money was made or lost")
	}
	if m.toPayee < m.total {
		t.Fatalf("the payee comes out with %d units, it had accepted %d", m.toPayee, m.total)
	}
	spent := settle.Spent{Known: true, Depth: 5, Refund: payee == 0}
	o := settle.Observation{Height: m.height, Funded: true, Depth: m.depth, Spent: spent}
	m.payer.now, m.payee.now = m.payer.now.Observe(o), m.payee.now.Observe(o)
	if !m.payer.now.Phase.Final() || !m.payee.now.Phase.Final() {
		t.Fatalf("after the end: payer %v, payee %v", m.payer.now.Phase, m.payee.now.Phase)
	}
}

func (m *model) check(t *rapid.T) {
	for _, c := range []settle.Channel{m.payer.now, m.payee.now} {
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if m.gone && m.total > m.payee.now.Params.Unconfirmed {
		t.Fatalf("the payee lost %d units, beyond its limit", m.total)
	}
	if got := m.payee.now.Paid(); got != m.total {
		t.Fatalf("the payee holds %d units, acknowledged %d", got, m.total)
	}
	if paid, got := m.payer.now.Paid(), m.payee.now.Paid(); paid > m.payer.now.Params.Spendable() || got > 0 && m.last == 0 {
		t.Fatalf("paid %d, accepted %d", paid, got)
	}
}

// TestChannelModel runs random histories of a channel with both parties, over
// a network and machines that fail, against a hostile payer.
func TestChannelModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{height: 100, accepted: map[pktcloud.ID]pktcloud.Amount{}}
		for role, p := range map[settle.Role]*party{settle.Payer: &m.payer, settle.Payee: &m.payee} {
			c, err := settle.NewChannel(params(), role, m.height)
			if err != nil {
				t.Fatal(err)
			}
			p.now = c
			m.save(t, p)
		}
		t.Repeat(map[string]func(*rapid.T){
			"pay":          m.pay,
			"pay again":    m.pay,
			"deliver":      m.deliver,
			"deliver more": m.deliver,
			"hostile":      m.hostile,
			"block":        m.block,
			"double spend": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "dare") == 0 {
					m.doubleSpend()
				}
			},
			"offer close": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "now") == 0 {
					m.offerClose(t)
				}
			},
			"accept close": m.acceptClose,
			"crash payer":  func(t *rapid.T) { m.crash(t, &m.payer); m.observe() },
			"crash payee":  func(t *rapid.T) { m.crash(t, &m.payee); m.observe() },
			"":             m.check,
		})
	})
}
