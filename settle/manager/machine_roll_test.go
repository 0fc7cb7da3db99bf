package manager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// The rolls of a life: what the machine knows of them, and what always holds.

// roll is one that the payer offered.
type roll struct {
	from, to  *account
	offer     settle.RollOffer
	answer    []byte // with both signatures, once the payee gave it
	completed bool   // the payer has it
	refused   bool   // the payee said no
	withdrawn bool
	published bool // by the payee, behind its manager's back
	adopted   bool // the payee's manager has the successor
	over      bool // both channels are at rest
}

// GoString is short, for rapid prints it.
func (r *roll) GoString() string { return fmt.Sprintf("roll of %#v into %#v", r.from, r.to) }

// accountAt is the channel over an output, also one that only the payer has.
func (m *life) accountAt(at settle.Outpoint) *account {
	for _, c := range m.channels {
		if c.outpoint == at {
			return c
		}
	}
	for _, r := range m.rolls {
		if r.to.outpoint == at {
			return r.to
		}
	}
	return nil
}

// phase is what a side says of a channel; zero when it does not have it.
func (m *life) phase(a *actor, c *account) settle.Phase {
	st, err := a.m.Status(context.Background(), c.id)
	if err != nil {
		return 0
	}
	return st.Phase
}

// adopt takes note of successors that the payee has by now, and of offers that a
// payer took back before it died.
func (m *life) adopt() {
	for _, r := range m.rolls {
		if st, err := m.payer.m.Status(context.Background(), r.from.id); err == nil && st.Into != r.to.id {
			r.withdrawn = true
		}
		st, err := m.payee.m.Status(context.Background(), r.to.id)
		if err != nil || r.adopted {
			continue
		}
		r.adopted, r.to.held = true, st.Paid
		m.channels = append(m.channels, r.to)
		if st.Paid != m.total(m.payee, r.from) || st.From != r.from.id {
			m.t.Fatalf("a successor began with %d units paid, %d were", st.Paid, m.total(m.payee, r.from))
		}
	}
}

// remembersRolls: a crash forgets no offer and no answer.
func (m *life) remembersRolls() {
	ctx := context.Background()
	for _, r := range m.rolls {
		if r.over {
			continue
		}
		if !r.withdrawn {
			o, err := m.payer.m.Roll(ctx, r.from.id, manager.RollRequest{})
			if err != nil || !bytes.Equal(o.Tx, r.offer.Tx) || !bytes.Equal(o.Signature, r.offer.Signature) {
				m.t.Fatalf("after a crash: the payer offers %x, %v, it had offered %x", o.Tx, err, r.offer.Tx)
			}
		}
		if r.answer != nil {
			if raw, err := m.payee.m.AcceptRoll(ctx, r.offer); err != nil || !bytes.Equal(raw, r.answer) {
				m.t.Fatalf("after a crash: the payee answers %x, %v, it had answered %x", raw, err, r.answer)
			}
		}
	}
}

// rolled reports whether the payee takes a successor's vouchers alone.
func (m *life) rolled(to *account) bool {
	st, err := m.payee.m.Status(context.Background(), to.id)
	m.must(err)
	return m.phase(m.payee, to.from) == settle.Rolled && st.Depth >= to.params.MinDepth
}

// secured is what the payee has of a successor should its roll fail.
func (m *life) secured(c *account) pktcloud.Amount {
	if c.from == nil {
		return 0
	}
	return m.total(m.payee, c.from)
}

// checkRolls holds after every step: the payee has everything twice, until the
// roll is done, but for what it trusts unconfirmed.
func (m *life) checkRolls() {
	for _, r := range m.rolls {
		if r.over {
			continue
		}
		m.covered(m.payer, r, !r.withdrawn)
		m.covered(m.payee, r, r.adopted)
		r.over = m.atRest(m.payer, r) && (!r.adopted || m.atRest(m.payee, r))
	}
}

func (m *life) covered(a *actor, r *roll, both bool) {
	if !both {
		return
	}
	to, from := m.total(a, r.to), m.total(a, r.from)
	if to < from || m.phase(a, r.from) == settle.Rolling && to-from > r.to.params.Unconfirmed {
		m.t.Fatalf("%#v: %d units are paid over the successor, %d over the predecessor", r, to, from)
	}
}

func (m *life) atRest(a *actor, r *roll) bool {
	rests := func(p settle.Phase) bool { return p == settle.Closed || p == settle.Refunded }
	st, err := a.m.Status(context.Background(), r.from.id)
	m.must(err)
	to := m.phase(a, r.to)
	return (rests(st.Phase) || st.Phase == settle.Rolled && st.ClosingDepth > settle.ReorgMargin) && (rests(to) || to == settle.Abandoned)
}

// offerRoll lets the payer offer one; it is under way then.
func (m *life) offerRoll(c *account, q manager.RollRequest) *roll {
	o, err := m.payer.m.Roll(context.Background(), c.id, q)
	if m.saw(err); err != nil {
		return nil
	}
	for _, r := range m.rolls {
		if r.from != c || r.withdrawn {
			continue
		}
		if !bytes.Equal(o.Tx, r.offer.Tx) {
			m.t.Fatalf("%#v: the payer offers another one", r)
		}
		m.net = append(m.net, message{to: r.to, roll: r})
		return r
	}
	id, err := o.Successor.ID()
	m.must(err)
	r := &roll{from: c, to: m.account(id, o.Successor, o.Tx), offer: o}
	r.to.from, r.to.signed = c, o.First.Body.Total
	c.signed = max(c.signed, r.to.signed)
	if paid := m.total(m.payer, c); r.to.signed != paid || m.phase(m.payer, c) != settle.Rolling {
		m.t.Fatalf("an offer that carries %d units over, %d are paid", r.to.signed, paid)
	}
	m.rolls = append(m.rolls, r)
	m.net = append(m.net, message{to: r.to, roll: r})
	return r
}

// deliverRoll hands the payee an offer, and judges its answer.
func (m *life) deliverRoll(r *roll) {
	before := m.total(m.payee, r.from)
	st, err := m.payee.m.Status(context.Background(), r.from.id)
	m.must(err)
	raw, err := m.payee.m.AcceptRoll(context.Background(), r.offer)
	m.saw(err)
	had := r.adopted
	m.adopt()
	var refusal *settle.Error
	switch {
	case errors.As(err, &refusal) && r.answer != nil:
		m.t.Fatalf("%#v: refused after it was accepted: %v", r, err)
	case errors.As(err, &refusal) && r.adopted:
		return // what a payee that dies had begun
	case errors.As(err, &refusal):
		r.refused = true
		if m.chance(2, "the payer hears it") {
			m.withdraw(r)
		}
	case err != nil:
	case r.answer != nil && !bytes.Equal(raw, r.answer):
		m.t.Fatalf("%#v: another answer than before", r)
	case !r.adopted:
		m.t.Fatalf("%#v: accepted, and forgotten", r)
	case !had && (st.Phase != settle.Open || r.offer.First.Body.Total != before || st.Height+2*st.Params.MarginBlocks+r.to.params.MinDepth >= st.Params.ExpiryHeight):
		m.t.Fatalf("%#v: accepted a total of %d units after %d, at height %d in %s", r, r.offer.First.Body.Total, before, st.Height, st.Phase)
	default:
		r.answer, r.refused = raw, false
		m.net = append(m.net, message{to: r.to, roll: r, answer: true})
	}
}

// deliverAnswer hands the payer the payee's.
func (m *life) deliverAnswer(r *roll) {
	err := m.payer.m.CompleteRoll(context.Background(), r.from.id, r.answer)
	m.saw(err)
	var refusal *settle.Error
	switch {
	case errors.Is(err, settletest.ErrStore):
	case !errors.As(err, &refusal):
		r.completed = true
	case !r.withdrawn:
		m.t.Fatalf("%#v: the payer refuses the answer: %v", r, err)
	}
}

// withdraw lets the payer take an offer back.
func (m *life) withdraw(r *roll) {
	if r.withdrawn {
		return
	}
	err := m.payer.m.WithdrawRoll(context.Background(), r.from.id)
	m.saw(err)
	if m.adopt(); err == nil && r.completed {
		m.t.Fatalf("%#v: withdrawn after the answer", r)
	}
}

// payRolling lets the payer pay over both channels; what it signed is under way.
func (m *life) payRolling(r *roll, e settle.Entry) {
	p, err := m.payer.m.PayRolling(context.Background(), r.to.id, e)
	if m.saw(err); err != nil {
		return
	}
	if p.To.Body.Total < r.to.signed || p.From.Body.Total < r.from.signed {
		m.t.Fatalf("the payer signed %d and %d units after %d and %d", p.To.Body.Total, p.From.Body.Total, r.to.signed, r.from.signed)
	}
	r.to.signed, r.from.signed = p.To.Body.Total, p.From.Body.Total
	m.net = append(m.net, message{to: r.to, roll: r, pair: &p})
}

// deliverPair hands the payee a payment over both channels, honest or not, and
// judges what it does.
func (m *life) deliverPair(r *roll, p manager.RollPayment) {
	to, _ := m.payee.m.Latest(r.to.id)
	from, _ := m.payee.m.Latest(r.from.id)
	err := m.payee.m.ReceiveRolling(context.Background(), p)
	m.saw(err)
	toNow, _ := m.payee.m.Latest(r.to.id)
	fromNow, _ := m.payee.m.Latest(r.from.id)
	if err != nil {
		if toNow.Sig != to.Sig || fromNow.Sig != from.Sig {
			m.t.Fatalf("a payment that was refused (%v) took another's place", err)
		}
		return
	}
	if p.To.Body.Channel != r.to.id {
		m.t.Fatal("accepted a foreign payment")
	}
	st, err := m.payee.m.Status(context.Background(), r.from.id)
	m.must(err)
	if toNow.Sig != to.Sig && !m.rolled(r.to) && (st.Phase != settle.Rolling || st.Height >= st.Params.Deadline()) {
		m.t.Fatalf("accepted at height %d while the predecessor is %s", st.Height, st.Phase)
	}
	m.accepted(r.to, toNow.Body, to.Body)
	if fromNow.Body.Sequence > 0 {
		m.accepted(r.from, fromNow.Body, from.Body)
	}
	for _, e := range fromNow.Body.Entries {
		if have, _ := toNow.Body.Entry(e.Lease); have.Cumulative < e.Cumulative {
			m.t.Fatalf("accepted an entry of %d units of the successor, %d of the predecessor", have.Cumulative, e.Cumulative)
		}
	}
}

// publish lets a payee sign and broadcast a roll behind its manager's back.
func (m *life) publish(r *roll) {
	raw := r.answer
	if raw == nil {
		read, err := r.from.chain.ReadRoll(r.to.chain, r.offer.Tx)
		m.must(err)
		raw, err = m.payee.cfg.Keychain.CompleteRoll(read, m.payeeIndex(r.from), r.offer.Signature)
		m.must(err)
	}
	err := m.ledger.Broadcast(context.Background(), raw)
	m.saw(err)
	r.published = r.published || err == nil
}

// payeeIndex is that of the payee's key.
func (m *life) payeeIndex(c *account) uint32 {
	for index := uint32(len(m.payeeKeys)); index < 1_000; index++ {
		if index, ok := m.payeeKeys[string(c.chain.Detail.Payee)]; ok {
			return index
		}
		key, err := m.payee.cfg.Keychain.PayeeKey(index)
		m.must(err)
		m.payeeKeys[string(key)] = index
	}
	m.t.Fatal("a key that is not the payee's")
	return 0
}

// judgeRolled reports whether a channel ended by a roll, and what both say then.
func (m *life) judgeRolled(c *account, spend *settle.Spend) bool {
	i := slices.IndexFunc(m.rolls, func(r *roll) bool { return r.from == c && r.to.outpoint.TxID == spend.TxID })
	if i < 0 {
		return false
	}
	r := m.rolls[i]
	if p := m.phase(m.payer, c); !r.withdrawn && p != settle.Rolled {
		m.t.Fatalf("%#v: the payer says %s", r, p)
	}
	if p := m.phase(m.payee, c); r.adopted && p != settle.Rolled {
		m.t.Fatalf("%#v: the payee says %s", r, p)
	}
	if r.answer == nil && !r.adopted && !r.published {
		m.t.Fatalf("%#v: mined without the payee", r)
	}
	return true
}

// judgeFailed judges a successor that was never funded: its payee has what the
// predecessor's vouchers say, and loses what it trusted unconfirmed at most.
func (m *life) judgeFailed(c *account) string {
	if lost := m.total(m.payee, c).SubFloor(m.total(m.payee, c.from)); lost > c.params.Unconfirmed {
		m.t.Fatalf("%#v: the roll failed and the payee lost %d units, it trusted %d", c, lost, c.params.Unconfirmed)
	}
	for _, a := range []*actor{m.payer, m.payee} {
		if p := m.phase(a, c); p != settle.Abandoned {
			m.t.Fatalf("%#v: the roll failed and the successor is %s", c, p)
		}
	}
	return "failed roll"
}

// judgeStrays judges the rolls that only the payee's keys published: the payer
// loses what the first voucher says at most.
func (m *life) judgeStrays() {
	for _, r := range m.rolls {
		out, err := m.ledger.Output(context.Background(), r.to.outpoint)
		m.must(err)
		if r.adopted || !out.Known {
			continue
		}
		if out.Spend == nil || out.Spend.Depth < machineDepth {
			m.t.Fatalf("%#v: the successor never ended: %+v", r, out)
		}
		end, err := r.to.chain.EndOf(out.Spend.Raw)
		m.must(err)
		if end.Payee+end.Payer+end.Fee != r.to.params.Capacity || !end.Refund && end.Payer < r.to.params.Capacity-r.offer.First.Body.Total-r.to.params.Reserve {
			m.t.Fatalf("%#v: the payer gets %+v", r, end)
		}
		m.count.ends["stray roll"]++
	}
}

// dueRolls are those that nothing on the chain stands against, while a side that
// has both signatures is there.
func (m *life) dueRolls() []*roll {
	return slices.DeleteFunc(slices.Clone(m.rolls), func(r *roll) bool {
		payer, payee := r.completed && !m.towers.away[m.payer], r.answer != nil && !m.towers.away[m.payee]
		if r.withdrawn || !payer && !payee || m.phase(m.payee, r.from) != settle.Rolling {
			return true
		}
		return slices.ContainsFunc(r.inputs(), func(at settle.Outpoint) bool {
			out, err := m.ledger.Output(context.Background(), at)
			m.must(err)
			return !out.Known || out.Depth == 0 || out.Spend != nil && out.Spend.TxID != r.to.outpoint.TxID
		})
	})
}

// broadcastAgain wants the rolls in the mempool that a reorganisation took back,
// after all have looked.
func (m *life) broadcastAgain() {
	for _, r := range m.dueRolls() {
		if out, err := m.ledger.Output(context.Background(), r.to.outpoint); err != nil || !out.Known {
			m.t.Fatalf("%#v: nobody broadcasts it again", r)
		}
	}
}

// judgeDue wants the rolls on the chain that had to be mined.
func (m *life) judgeDue(due []*roll) {
	for _, r := range due {
		if out, err := m.ledger.Output(context.Background(), r.to.outpoint); err != nil || !out.Known {
			m.t.Fatalf("%#v: both had signed it, and nobody brought it on the chain", r)
		}
	}
}

// inputs are what a roll spends.
func (r *roll) inputs() []settle.Outpoint {
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(r.offer.Tx)); err != nil {
		return nil
	}
	var list []settle.Outpoint
	for _, in := range tx.TxIn {
		list = append(list, settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index})
	}
	return list
}

// claimStray lets a payee that published a roll claim its successor by the first
// voucher, which its manager never saw.
func (m *life) claimStray(r *roll) {
	first := r.offer.First.Body
	if r.adopted || first.Sequence == 0 {
		return
	}
	fee := r.to.chain.ClaimFee(m.payer.cfg.Network.RelayFloor)
	raw, err := m.payee.cfg.Keychain.Claim(r.to.chain, m.payeeIndex(r.from), first, fee)
	if m.saw(err); err == nil {
		m.saw(m.ledger.Broadcast(context.Background(), raw))
	}
}

// agree: both sides tell the same of a channel that has ended.
func (m *life) agree(c *account) {
	payer, err := m.payer.m.Status(context.Background(), c.id)
	m.must(err)
	payee, err := m.payee.m.Status(context.Background(), c.id)
	m.must(err)
	if payer.Phase != payee.Phase || payer.Settled != payee.Settled || payer.ClosingTxID != payee.ClosingTxID {
		m.t.Fatalf("%#v: the payer says %s with %d units, the payee %s with %d", c, payer.Phase, payer.Settled, payee.Phase, payee.Settled)
	}
}

// forgedOffers are what no honest payer offers, some of it well signed.
func (m *life) forgedOffers(r *roll) map[string]settle.RollOffer {
	all := map[string]settle.RollOffer{}
	forge := func(name string, change func(o *settle.RollOffer)) {
		o := r.offer
		change(&o)
		all[name] = o
	}
	forge("channel", func(o *settle.RollOffer) { o.Channel = pktcloud.IDOf([]byte("no channel")) })
	forge("no transaction", func(o *settle.RollOffer) { o.Tx = nil })
	forge("half a transaction", func(o *settle.RollOffer) { o.Tx = o.Tx[:len(o.Tx)/2] })
	forge("signature", func(o *settle.RollOffer) { o.Signature = slices.Clone(o.Signature); o.Signature[9] ^= 1 })
	forge("unconfirmed", func(o *settle.RollOffer) { o.Successor.Unconfirmed++ })
	forge("reserve", func(o *settle.RollOffer) { o.Successor.Reserve-- })
	forge("capacity", func(o *settle.RollOffer) { o.Successor.Capacity += 1_000 })
	forge("expiry", func(o *settle.RollOffer) { o.Successor.ExpiryHeight++ })
	if r.offer.First.Body.Sequence == 0 {
		return all // and without one nothing but the transaction names the successor
	}
	forge("depth", func(o *settle.RollOffer) { o.Successor.MinDepth++ })
	forge("late proof", func(o *settle.RollOffer) { o.Late = o.Signature })
	if m.total(m.payee, r.from) != r.offer.First.Body.Total {
		return all // a payee that did not get the latest voucher may be right to accept less
	}
	forge("no first voucher", func(o *settle.RollOffer) { o.First, o.Late = pktcloud.Signed[settle.Voucher]{}, nil })
	forge("less paid", func(o *settle.RollOffer) {
		v := o.First.Body
		v.Entries = slices.Clone(v.Entries)
		if i := len(v.Entries) - 1; v.Entries[i].Cumulative > 400 {
			v.Entries[i].Cumulative -= 400
			v.Total -= 400
		} else {
			v.Entries[i].Cumulative++
			v.Total++
		}
		o.First = m.signs(r.to, v)
		o.Late, _ = r.to.signer.SignLate(v.Total)
	})
	return all
}

// signs is a voucher with both signatures of its payer.
func (m *life) signs(c *account, v settle.Voucher) pktcloud.Signed[settle.Voucher] {
	if proof, err := c.signer.SignVoucher(v.Total); err == nil {
		v.Proof = proof
	}
	s, err := pktcloud.Seal(m.payer.cfg.DeviceKey, v)
	if err != nil {
		s = pktcloud.Signed[settle.Voucher]{Body: v} // no shape at all
	}
	return s
}

// coins reports whether a roll spends coins of the payer's wallet.
func (r *roll) coins() bool { return r.to.params.Capacity >= r.from.params.Capacity }
