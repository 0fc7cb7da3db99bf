package settle_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"pgregory.net/rapid"
)

// rollSide is a side of the model and what a crash leaves of it.
type rollSide struct {
	now      settle.Pair
	from, to []byte
}

func (s *rollSide) save(t *rapid.T) {
	var err error
	if s.from, err = pktcloud.Marshal(s.now.From); err == nil {
		s.to, err = pktcloud.Marshal(s.now.To)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *rollSide) crash(t *rapid.T) {
	s.now = settle.Pair{}
	for b, c := range map[*[]byte]*settle.Channel{&s.from: &s.now.From, &s.to: &s.now.To} {
		if err := pktcloud.Unmarshal(*b, c, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
}

type rollPayment struct {
	to, from pktcloud.Signed[settle.Voucher]
}

// rollModel is a roll with both sides, a network that loses, doubles and
// reorders, and a chain that takes the roll, or takes it back.
type rollModel struct {
	payer, payee rollSide
	net          []rollPayment
	height       uint64
	seen         bool // the roll is in the mempool or a block
	depth        uint64
	was          bool // it was as deep as agreed at some time
	acknowledged pktcloud.Amount
}

func newRollModel(t *rapid.T) *rollModel {
	m := &rollModel{height: 120}
	c, err := settle.NewChannel(params(), settle.Payer, 100)
	if err != nil {
		t.Fatal(err)
	}
	look := settle.Observation{Height: m.height, Funded: true, Depth: 11}
	payer, payee := c.Observe(look), c
	payee.Role = settle.Payee
	payee = payee.Observe(look)
	if units := rapid.SampledFrom([]pktcloud.Amount{0, 5_000, 97_000}).Draw(t, "paid before"); units > 0 {
		v, err := payer.Next(entry(1, units))
		if err != nil {
			t.Fatal(err)
		}
		s := seal(t, payer.Params, v)
		if payer, err = payer.Issue(s); err == nil {
			payee, err = payee.Accept(s, stubRail{})
		}
		if err != nil {
			t.Fatal(err)
		}
		m.acknowledged = units
	}
	o := offerOf(t, payer, successor())
	if m.payer.now, err = payer.Roll(o, rollTx, nil); err == nil {
		m.payee.now, err = payee.Roll(o, rollTx, stubRail{})
	}
	if err != nil {
		t.Fatal(err)
	}
	m.payer.save(t)
	m.payee.save(t)
	return m
}

// pay lets the payer make a payment; it may crash before or after it is durable.
func (m *rollModel) pay(t *rapid.T) {
	e := entry(byte(rapid.IntRange(1, 3).Draw(t, "lease")), 0)
	old, _ := m.payer.now.To.Latest.Body.Entry(e.Lease)
	e.Cumulative = old.Cumulative + pktcloud.Amount(rapid.SampledFrom([]int{0, 1, 100, 600, 20_000}).Draw(t, "more"))
	room := m.payer.now.Room()
	next, to, from, err := payPair(t, m.payer.now, e)
	if err != nil {
		if more := e.Cumulative - old.Cumulative; more > 0 && more <= room && m.payer.now.From.Phase == settle.Rolling {
			t.Fatalf("%d units with room for %d: %v", uint64(more), uint64(room), err)
		}
		return
	}
	crash := rapid.IntRange(0, 9).Draw(t, "crash")
	if crash > 0 {
		m.payer.now = next
		m.payer.save(t)
	}
	if crash < 2 {
		m.payer.crash(t)
		return
	}
	m.net = append(m.net, rollPayment{to, from})
}

// deliver hands the payee halves of payments that were sent, mostly of one.
func (m *rollModel) deliver(t *rapid.T) {
	if len(m.net) == 0 {
		return
	}
	p := m.net[rapid.IntRange(0, len(m.net)-1).Draw(t, "which")]
	switch rapid.IntRange(0, 7).Draw(t, "half") {
	case 0:
		p.from = m.net[rapid.IntRange(0, len(m.net)-1).Draw(t, "other")].from
	case 1:
		p.from = pktcloud.Signed[settle.Voucher]{}
	}
	m.receive(t, p)
}

// hostile hands the payee what no honest payer signs.
func (m *rollModel) hostile(t *rapid.T) {
	raised := func(c settle.Channel) pktcloud.Signed[settle.Voucher] {
		e := entry(1, 0)
		old, _ := c.Latest.Body.Entry(e.Lease)
		v := c.Latest.Body
		v.Version, v.Channel, v.Payer, v.Sequence = settle.VoucherVersion, c.ID, c.Params.Payer, v.Sequence+1
		e.Cumulative = old.Cumulative + pktcloud.Amount(rapid.SampledFrom([]int{1, 900, 1_001, 60_000}).Draw(t, "forged"))
		v.Total = v.Total - old.Cumulative + e.Cumulative
		v.Entries = []settle.Entry{e}
		for _, o := range c.Latest.Body.Entries {
			if o.Lease != e.Lease {
				return c.Latest // only one lease can be forged so simply
			}
		}
		return seal(t, c.Params, v)
	}
	p := rollPayment{raised(m.payee.now.To), m.payee.now.From.Latest}
	if rapid.Bool().Draw(t, "both") {
		p.from = raised(m.payee.now.From)
	}
	m.receive(t, p)
}

func (m *rollModel) receive(t *rapid.T, p rollPayment) {
	if p.to.Body.Sequence == 0 {
		return
	}
	next, err := m.payee.now.Accept(p.to, p.from, stubRail{}, stubRail{})
	if err != nil {
		return
	}
	crash := rapid.IntRange(0, 9).Draw(t, "payee crash")
	if crash > 0 {
		m.payee.now = next
		m.payee.save(t)
	}
	if crash < 2 {
		m.payee.crash(t)
		return
	}
	m.acknowledged = max(m.acknowledged, next.To.Paid())
}

// chain moves the chain on, or a little back.
func (m *rollModel) chain(t *rapid.T) {
	m.height++
	switch rapid.IntRange(0, 5).Draw(t, "chain") {
	case 0:
		if m.depth < 3 { // a reorganisation is less deep than agreed
			m.seen, m.depth = rapid.Bool().Draw(t, "kept"), 0
		}
	case 1:
		m.seen = true
	default:
		if m.seen {
			m.depth++
		}
	}
	m.was = m.was || m.depth >= 3
	spent := settle.Spent{}
	if m.seen {
		spent = settle.Spent{Known: true, TxID: rollTx, Depth: m.depth}
	}
	for _, s := range []*rollSide{&m.payer, &m.payee} {
		if rapid.IntRange(0, 3).Draw(t, "looks") == 0 { // one side may be behind
			continue
		}
		s.now.From = s.now.From.Observe(settle.Observation{Height: m.height, Funded: true, Depth: 11 + m.height, Spent: spent})
		s.now.To = s.now.To.Observe(settle.Observation{Height: m.height, Funded: m.seen, Depth: m.depth})
		s.save(t)
	}
}

func (m *rollModel) check(t *rapid.T) {
	for _, s := range []rollSide{m.payer, m.payee} {
		if err := s.now.Check(); err != nil {
			t.Fatal(err)
		}
	}
	p := m.payee.now
	if p.To.Paid() < m.acknowledged {
		t.Fatalf("the payee holds %d units, it acknowledged %d", uint64(p.To.Paid()), uint64(m.acknowledged))
	}
	if !m.was && p.From.Paid()+p.To.Params.Unconfirmed < m.acknowledged {
		t.Fatalf("should the roll fail, the payee has %d of %d units, and trusts %d", uint64(p.From.Paid()), uint64(m.acknowledged), uint64(p.To.Params.Unconfirmed))
	}
}

// TestRollModel lets two sides roll over a bad network and a restless chain:
// whatever becomes of the roll, the payee has what it acknowledged, but for what
// it trusted unconfirmed.
func TestRollModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newRollModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"": m.check, "pay": m.pay, "pay more": m.pay, "deliver": m.deliver, "deliver more": m.deliver, "hostile": m.hostile, "chain": m.chain,
		})
	})
}
