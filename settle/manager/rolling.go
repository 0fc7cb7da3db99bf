package manager

import (
	"bytes"
	"context"
	"errors"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// errUnchanged ends a change of a pair that changes nothing.
var errUnchanged = errors.New("settle: nothing to change")

// hold takes the channel's turn.
func (ch *channel) hold(ctx context.Context) (done func(), err error) { return take(ctx, ch.turn) }

// take waits for the token and returns what gives it back.
func take(ctx context.Context, turn chan struct{}) (done func(), err error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-turn:
	}
	return func() { turn <- struct{}{} }, nil
}

// changePair is change for a predecessor and its successor: both states become
// durable together, or neither. The predecessor's turn comes first.
func (m *Manager) changePair(ctx context.Context, from, to *channel, fn func(from, to state) (state, state, []put, error)) error {
	for _, ch := range []*channel{from, to} {
		done, err := ch.hold(ctx)
		if err != nil {
			return err
		}
		defer done()
	}
	a, b := *from.state.Load(), *to.state.Load()
	height := m.height()
	a.Channel, b.Channel = a.Channel.At(height), b.Channel.At(height)
	a, b, more, err := fn(a, b)
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(a.Channel.Check(), b.Channel.Check()); err != nil {
		return err
	}
	if err := m.apply(ctx, append(more, put{keyStates + from.id.Hex(), a}, put{keyStates + to.id.Hex(), b})...); err != nil {
		return err
	}
	from.state.Store(&a)
	to.state.Store(&b)
	return nil
}

// pair returns a successor and its predecessor.
func (m *Manager) pair(successor pktcloud.ID) (from, to *channel, err error) {
	if to, err = m.channel(successor); err != nil {
		return nil, nil, err
	}
	link := to.state.Load().Channel.From
	if link.Channel.IsZero() {
		return nil, nil, settle.Refuse(settle.ErrUnknown, "channel %s is no successor", successor)
	}
	from, err = m.channel(link.Channel)
	return from, to, err
}

// aloneOnly refuses a payment of one channel where a roll is under way.
func (m *Manager) aloneOnly(c settle.Channel) error {
	if c.From.Channel.IsZero() {
		return nil // the core refuses for a predecessor
	}
	from, err := m.channel(c.From.Channel)
	if err != nil {
		return err
	}
	if p := (settle.Pair{From: from.state.Load().Channel, To: c}); !p.Done() {
		return settle.Refuse(settle.ErrRolling, "the roll has %d of %d confirmations: until then a payment is signed for both channels", c.Depth, c.Params.MinDepth)
	}
	return nil
}

// PayRolling raises one lease's entry of a successor, and of its predecessor as
// far as that can pay, and returns the vouchers, which are durable [ROLL-6]. Once
// the roll is done it does what [Manager.Pay] does. The same entry again gives the
// same vouchers. Errors are those of [settle.Pair.Next], or match
// [settle.ErrUnknown] for a channel that is no successor.
func (m *Manager) PayRolling(ctx context.Context, successor pktcloud.ID, e settle.Entry) (RollPayment, error) {
	from, to, err := m.pair(successor)
	if err != nil {
		return RollPayment{}, err
	}
	var paid RollPayment
	err = m.changePair(ctx, from, to, func(a, b state) (state, state, []put, error) {
		p := settle.Pair{From: a.Channel, To: b.Channel}
		if p.To.Role != settle.Payer {
			return a, b, nil, settle.Refuse(settle.ErrRole, "only the payer makes vouchers")
		}
		v, w, err := m.vouchersOf(from, to, p, e)
		if err != nil {
			return a, b, nil, err
		}
		if v.Body.Sequence == p.To.Latest.Body.Sequence {
			paid = RollPayment{To: p.To.Latest, From: p.From.Latest}
			return a, b, nil, errUnchanged
		}
		if p, err = p.Issue(v, w); err != nil {
			return a, b, nil, err
		}
		a.Channel, b.Channel = p.From, p.To
		paid = RollPayment{To: p.To.Latest, From: p.From.Latest}
		return a, b, nil, p.Check()
	})
	return paid, err
}

// vouchersOf signs what [settle.Pair.Next] says.
func (m *Manager) vouchersOf(from, to *channel, p settle.Pair, e settle.Entry) (v, w pktcloud.Signed[settle.Voucher], err error) {
	next, part, err := p.Next(e)
	if err != nil || next.Sequence == p.To.Latest.Body.Sequence {
		return p.To.Latest, w, err
	}
	sign := func(ch *channel, v settle.Voucher) (s pktcloud.Signed[settle.Voucher], err error) {
		signer, err := ch.signer(m.cfg.Keychain)
		if err != nil {
			return s, err
		}
		if v.Proof, err = signer.SignVoucher(v.Total); err != nil {
			return s, err
		}
		return pktcloud.Seal(m.cfg.DeviceKey, v)
	}
	if v, err = sign(to, next); err == nil && part.Sequence > 0 {
		w, err = sign(from, part)
	}
	return v, w, err
}

// ReceiveRolling accepts a payment of [Manager.PayRolling] as payee: both
// vouchers are durable when it returns. The latest payment again is no error.
// Errors are those of [settle.Pair.Accept].
func (m *Manager) ReceiveRolling(ctx context.Context, r RollPayment) error {
	from, to, err := m.pair(r.To.Body.Channel)
	if err != nil {
		return err
	}
	return m.changePair(ctx, from, to, func(a, b state) (state, state, []put, error) {
		was := settle.Pair{From: a.Channel, To: b.Channel}
		p, err := was.Accept(r.To, r.From, to.chain.Rail(), from.chain.Rail())
		if err != nil {
			return a, b, nil, err
		}
		if p.To.Latest.Body.Sequence == was.To.Latest.Body.Sequence && p.From.Latest.Body.Sequence == was.From.Latest.Body.Sequence {
			return a, b, nil, errUnchanged
		}
		a.Channel, b.Channel = p.From, p.To
		return a, b, nil, p.Check() // before it is acknowledged [SETTLE-27]
	})
}

// WithdrawRoll takes the payer's offer back after the payee refused it: the
// channel pays on alone, and the coins of the roll are free. A payee that uses
// the offer all the same has the first voucher alone. It is idempotent. Errors
// match [settle.ErrRole] or [settle.ErrClosed], once the roll was seen or more was
// paid over the successor [ROLL-10].
func (m *Manager) WithdrawRoll(ctx context.Context, channel pktcloud.ID) error {
	return m.withdraw(ctx, channel, nil)
}

// withdraw takes back the offer that was refused, and no other; nil: whichever.
func (m *Manager) withdraw(ctx context.Context, channel pktcloud.ID, refused []byte) error {
	ch, err := m.channel(channel)
	if err != nil {
		return err
	}
	if _, rolls := m.rollOf(channel); !rolls {
		return nil
	}
	to, _, err := m.offeredRoll(ch)
	if err != nil {
		return err
	}
	err = m.changePair(ctx, ch, to, func(a, b state) (state, state, []put, error) {
		record, rolls := m.rollOf(channel)
		if refused != nil && !bytes.Equal(record.Offer, refused) {
			return a, b, nil, settle.Refuse(settle.ErrRolling, "another offer has taken its place")
		}
		if !rolls || len(record.Raw) > 0 {
			return a, b, nil, settle.Refuse(settle.ErrClosed, "the payee has signed the roll")
		}
		p, err := settle.Pair{From: a.Channel, To: b.Channel}.Withdraw()
		if err != nil {
			return a, b, nil, err
		}
		a.Channel, b.Channel = p.From, p.To
		return a, b, []put{{keyRolls + channel.Hex(), nil}}, nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.rolls, channel)
	m.mu.Unlock()
	return m.cfg.Wallet.Release(ctx, to.funding)
}

// fundingOf is the transaction that brings a channel's funding on the chain;
// none for a successor whose roll lacks a signature, or has lost to another end
// of the predecessor.
func (m *Manager) fundingOf(ch *channel, c settle.Channel) []byte {
	if c.From.Channel.IsZero() {
		return ch.funding
	}
	from, err := m.channel(c.From.Channel)
	if err != nil {
		return nil
	}
	if p := from.state.Load().Channel.Phase; p != settle.Rolling && p != settle.Rolled {
		return nil
	}
	record, _ := m.rollOf(from.id)
	return record.Raw
}

// aboveRoll is the fee from which a claim of a predecessor replaces its roll;
// zero where it does not roll [ROLL-9].
func (m *Manager) aboveRoll(ch *channel) pktcloud.Amount {
	record, rolls := m.rollOf(ch.id)
	if !rolls || record.Level.Fee == 0 {
		return 0
	}
	return ch.chain.FeeAbove(record.Level)
}

// rollSides returns the two channels of a roll that one of them takes part in;
// nil when it does not. A channel that rolls is a successor no more.
func (m *Manager) rollSides(ch *channel, c settle.Channel) (from, to *channel, err error) {
	if !c.Into.Channel.IsZero() {
		to, err = m.channel(c.Into.Channel)
		return ch, to, err
	}
	if !c.From.Channel.IsZero() && (c.Phase == settle.Opening || c.Phase == settle.Closing) { // it may look funded until after the predecessor's end
		from, err = m.channel(c.From.Channel)
		return from, ch, err
	}
	return nil, nil, nil
}

// followRoll does what a predecessor's observation means for its roll: it learns
// the payee's signature from the chain, and gives the successor up when the
// predecessor ended otherwise.
func (m *Manager) followRoll(ctx context.Context, ch *channel, st state, out settle.Output) error {
	from, to, err := m.rollSides(ch, st.Channel)
	if from == nil || err != nil {
		return err
	}
	c := from.state.Load().Channel
	if record, _ := m.rollOf(from.id); ch == from && out.Spend != nil && out.Spend.TxID == c.Into.TxID && len(record.Raw) == 0 {
		if err := m.keepRoll(ctx, ch, to, out.Spend.Raw); err != nil {
			return err
		}
	}
	if p := (settle.Pair{From: c, To: to.state.Load().Channel}); p.Fail().To.Phase == p.To.Phase {
		return nil
	}
	err = m.changePair(ctx, from, to, func(a, b state) (state, state, []put, error) {
		p := settle.Pair{From: a.Channel, To: b.Channel}.Fail()
		a.Channel, b.Channel = p.From, p.To
		return a, b, nil, nil
	})
	if err != nil || ch.role != settle.Payer {
		return err
	}
	m.cfg.Log.Info("a roll was not to be", "channel", from.id, "successor", to.id)
	return m.cfg.Wallet.Release(ctx, to.funding)
}
