package manager

import (
	"context"
	"errors"
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// keyLates begins the keys of what is deposited at towers; the channel's id in
// hexadecimal follows.
const keyLates = "settle/late/"

// lateRecord is what towers should hold of a channel: the transactions follow
// from it, the same each time.
type lateRecord struct {
	Number uint64            `cbor:"number"` // 1 for the first deposit
	Proof  settle.LateProof  `cbor:"proof"`  // of a payee; empty for a payer's refund
	Fees   []pktcloud.Amount `cbor:"fees"`
	Top    pktchain.Level    `cbor:"top"` // the highest of all deposits so far
}

// lateState is a record and the parcel made from it, when first needed.
type lateState struct {
	record lateRecord
	parcel Parcel
}

// Parcel is what towers should hold of a channel: its late claims or refunds
// with rising fees, lowest first, and the owner's signature that names
// pktchain.Keychain.TowerKey as their client.
type Parcel = struct {
	Owner []byte
	Txs   [][]byte
}

// loadLates reads what was deposited from the store.
func (m *Manager) loadLates(ctx context.Context) error {
	places := make(map[string]pktcloud.ID, len(m.channels)) // New has them alone as yet
	for id := range m.channels {
		places[keyLates+id.Hex()] = id
	}
	return m.cfg.Store.Load(ctx, keyLates, func(key string, value []byte) error {
		var r lateRecord
		if err := pktcloud.Unmarshal(value, &r, maxStored); err != nil {
			return fmt.Errorf("%w: %s: %w", errStored, key, err)
		}
		if id, ok := places[key]; ok {
			m.lates[id] = lateState{record: r}
			return nil
		}
		return fmt.Errorf("%w: %s has no channel", errStored, key)
	})
}

func (m *Manager) lateOf(id pktcloud.ID) lateState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lates[id]
}

// LateProof signs, as payer, a late proof of the latest voucher's total, which
// the payee may ask for at any time [SETTLE-81]. The same total gives the same
// proof. Errors match [settle.ErrRole], [settle.ErrClosed], [settle.ErrLate] or,
// without a voucher, [settle.ErrClose].
func (m *Manager) LateProof(ctx context.Context, channel pktcloud.ID) (settle.LateProof, error) {
	ch, err := m.channel(channel)
	if err != nil {
		return settle.LateProof{}, err
	}
	var l settle.LateProof
	_, err = m.change(ctx, ch, func(st state) (state, effect, error) {
		var err error
		if l, err = st.Channel.Late(); err != nil {
			return st, unchanged, err
		}
		if _, err = ch.signer(m.cfg.Keychain); err != nil {
			return st, unchanged, err
		}
		l.Signature, err = ch.signs.SignLate(l.Total)
		return st, unchanged, err
	})
	if err != nil {
		return settle.LateProof{}, err
	}
	return l, nil
}

// WantLate returns the channels for which this payee should ask the payer for a
// late proof now [SETTLE-84], oldest first.
func (m *Manager) WantLate() []pktcloud.ID { return m.WantLateAfter(m.cfg.DepositEvery) }

// WantLateAfter is like [Manager.WantLate] for every so many further units;
// none after zero.
func (m *Manager) WantLateAfter(every pktcloud.Amount) []pktcloud.ID {
	if every == 0 {
		return nil
	}
	var ids []pktcloud.ID
	height := m.height()
	for _, ch := range m.all() {
		if c := ch.state.Load().Channel.At(height); c.LateDue(m.lateOf(ch.id).record.Proof.Total, every) {
			ids = append(ids, ch.id)
		}
	}
	return ids
}

// TakeLate takes a late proof as payee. When it returns, what towers should
// hold is durable, and [Manager.Parcels] has it; the fees are above those of all
// earlier deposits of the channel [SETTLE-85]. A proof of the same total again
// changes nothing. Errors are those of [settle.Channel.CheckLate], or match
// [settle.ErrFee] when the total is not worth the fee.
func (m *Manager) TakeLate(ctx context.Context, l settle.LateProof) error {
	ch, err := m.channel(l.Channel)
	if err != nil {
		return err
	}
	rate := m.lateRate(ctx)
	_, err = m.change(ctx, ch, func(st state) (state, effect, error) {
		old := m.lateOf(ch.id).record
		if err := st.Channel.CheckLate(l, old.Proof.Total, ch.chain.LateRail()); err != nil || l.Total == old.Proof.Total {
			return st, unchanged, err
		}
		fees, err := ch.chain.LateFees(l.Total, rate, old.Top)
		if err != nil {
			return st, unchanged, err
		}
		return st, unchanged, m.keepLate(ctx, ch, lateRecord{Number: old.Number + 1, Proof: l, Fees: fees})
	})
	return err
}

// lateRate is the fee rate that ladders begin with.
func (m *Manager) lateRate(ctx context.Context) pktcloud.Amount {
	rate, err := m.rate(ctx, closeFeeFactor)
	if err != nil {
		return closeFeeFactor * m.cfg.Network.RelayFloor // out of sight: the ladder climbs all the same
	}
	return rate
}

// keepLate makes a record durable before any of it leaves. Call it with the
// channel's turn.
func (m *Manager) keepLate(ctx context.Context, ch *channel, r lateRecord) error {
	p, err := m.parcelOf(ch, r)
	if err != nil {
		return err
	}
	if r.Top, err = ch.chain.LevelOf(p.Txs[len(p.Txs)-1]); err != nil {
		return err
	}
	if err := m.apply(ctx, put{keyLates + ch.id.Hex(), r}); err != nil {
		return err
	}
	m.mu.Lock()
	m.lates[ch.id] = lateState{record: r, parcel: p}
	m.mu.Unlock()
	return nil
}

// parcelOf makes the transactions of a record.
func (m *Manager) parcelOf(ch *channel, r lateRecord) (p Parcel, err error) {
	kind := pktchain.EndLate
	if ch.role == settle.Payer {
		kind = pktchain.EndRefund
		p.Txs, err = m.cfg.Keychain.RefundLadder(ch.chain, ch.index, r.Fees)
	} else {
		p.Txs, err = m.cfg.Keychain.LateClaims(ch.chain, ch.index, r.Proof, r.Fees)
	}
	if err != nil {
		return Parcel{}, err
	}
	client, err := m.cfg.Keychain.TowerKey()
	if err != nil {
		return Parcel{}, err
	}
	p.Owner, err = m.cfg.Keychain.SignClient(ch.chain, kind, ch.index, client.Public())
	return p, err
}

// Parcels returns what towers should hold now: of each open channel, as payee
// the late claims of the newest late proof, as payer the refund ladder. It is
// what tower.Depositor asks for.
func (m *Manager) Parcels(ctx context.Context) ([]Parcel, error) {
	var list []Parcel
	height := m.height()
	for _, ch := range m.all() {
		c := ch.state.Load().Channel.At(height)
		lock := c.Params.LateHeight()
		if c.Role == settle.Payer {
			lock = c.Params.ExpiryHeight
		}
		rolls := c.Phase == settle.Rolling || c.Phase == settle.Opening && !c.From.Channel.IsZero() && c.Depth > 0
		if c.Phase != settle.Open && !rolls || height >= lock {
			continue
		}
		p, err := m.parcel(ctx, ch)
		switch {
		case errors.Is(err, settle.ErrParams), errors.Is(err, settle.ErrProof), errors.Is(err, settle.ErrFee), errors.Is(err, settle.ErrDust):
			// Refund keys of somebody else: who holds them makes the ladder. Or
			// not worth a refund at today's fee rate: there may be a lower one.
			m.cfg.Log.Warn("nothing to deposit", "channel", ch.id, "err", err)
		case err != nil:
			return nil, err
		case len(p.Txs) > 0:
			list = append(list, p)
		}
	}
	return list, nil
}

// parcel returns a channel's parcel; it is empty while there is nothing to
// deposit.
func (m *Manager) parcel(ctx context.Context, ch *channel) (Parcel, error) {
	s := m.lateOf(ch.id)
	if len(s.parcel.Txs) > 0 || s.record.Number == 0 && ch.role == settle.Payee {
		return s.parcel, nil
	}
	rate := m.lateRate(ctx)
	_, err := m.change(ctx, ch, func(st state) (state, effect, error) {
		r := m.lateOf(ch.id).record
		if r.Number == 0 {
			return st, unchanged, m.keepLate(ctx, ch, lateRecord{Number: 1, Fees: ch.chain.RefundFees(rate)})
		}
		p, err := m.parcelOf(ch, r)
		if err == nil {
			m.mu.Lock()
			m.lates[ch.id] = lateState{record: r, parcel: p}
			m.mu.Unlock()
		}
		return st, unchanged, err
	})
	return m.lateOf(ch.id).parcel, err
}

// aboveDeposits is the fee from which this payee's claim replaces every late
// claim that it deposited, once those are valid: an old one, or the newest, if
// vouchers followed it [SETTLE-89]. Before that it is zero.
func (m *Manager) aboveDeposits(ch *channel, st state) pktcloud.Amount {
	r := m.lateOf(ch.id).record
	c := st.Channel
	if r.Number == 0 || c.Height < c.Params.LateHeight() || r.Number == 1 && r.Proof.Total == c.Paid() {
		return 0
	}
	return ch.chain.FeeAbove(r.Top)
}
