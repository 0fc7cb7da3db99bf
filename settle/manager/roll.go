package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// keyRolls begins the keys of rolls; the predecessor's id in hexadecimal
// follows.
const keyRolls = "settle/roll/"

// RollWallet is what a [Wallet] may offer besides: coins for a roll that adds
// money to a channel.
type RollWallet interface {
	// FundRoll is Fund for a transaction whose first input spends the coin
	// first, of another owner: it is left unsigned, with sequence 0xfffffffd, and
	// takes vbytes once it is signed. The wallet's own inputs cover what the
	// outputs and the fee ask for beyond that coin.
	FundRoll(ctx context.Context, first settle.Coin, vbytes uint64, outputs []settle.Payment, feeRate pktcloud.Amount) (raw []byte, err error)
}

// RollRequest says what a channel rolls into.
type RollRequest struct {
	// Capacity of the successor, at least the predecessor's: the difference and
	// the fee come from the wallet. Zero means what the predecessor has, less the
	// fee; the wallet adds nothing.
	Capacity pktcloud.Amount
	// LifetimeBlocks makes the successor expire at the tip and this; zero means
	// when the predecessor does.
	LifetimeBlocks uint64
	// ExtendBlocks, with no LifetimeBlocks, makes it expire so many blocks later
	// than the predecessor.
	ExtendBlocks uint64
	// MinDepth is the successor's, if that is more than the predecessor's.
	MinDepth uint64
}

// RollPayment is a payment while a roll is under way: the successor's voucher
// and the predecessor's. From has sequence 0 when the predecessor never paid.
type RollPayment struct {
	To   pktcloud.Signed[settle.Voucher]
	From pktcloud.Signed[settle.Voucher]
}

// rollRecord is a roll, by its predecessor.
type rollRecord struct {
	Offer []byte         `cbor:"offer"`
	Raw   []byte         `cbor:"raw"` // with both signatures; empty at a payer without an answer
	Level pktchain.Level `cbor:"level"`
}

// loadRolls reads the rolls from the store.
func (m *Manager) loadRolls(ctx context.Context) error {
	return m.cfg.Store.Load(ctx, keyRolls, func(key string, value []byte) error {
		var r rollRecord
		if err := pktcloud.Unmarshal(value, &r, maxStored); err != nil {
			return fmt.Errorf("%w: %s: %w", errStored, key, err)
		}
		for id := range m.channels { // New has it alone as yet
			if id.Hex() == strings.TrimPrefix(key, keyRolls) {
				m.rolls[id] = r
				return nil
			}
		}
		return fmt.Errorf("%w: %s has no channel", errStored, key)
	})
}

func (m *Manager) rollOf(predecessor pktcloud.ID) (rollRecord, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rolls[predecessor]
	return r, ok
}

// Roll offers, as payer, to end a channel by a transaction that funds its
// successor, in which what was paid over it is paid already. The offer is durable
// when it returns, and nothing can be broadcast before the payee answers it with
// [Manager.AcceptRoll]: give the answer to [Manager.CompleteRoll], or call
// [Manager.WithdrawRoll] if the payee refuses. Until the roll has depth, pay with
// [Manager.PayRolling]. While a roll is under way, the same offer is returned
// again, whatever is asked for. Errors match [settle.ErrRole], [settle.ErrClosed],
// [settle.ErrUnconfirmed], [settle.ErrLate], [settle.ErrParams],
// [settle.ErrCapacity], [settle.ErrFee] or [settle.ErrLedgerUnavailable], or are
// the Wallet's.
func (m *Manager) Roll(ctx context.Context, channel pktcloud.ID, r RollRequest) (settle.RollOffer, error) {
	return m.rollWithin(ctx, channel, r, nil)
}

// RollWithin is Roll for a fee that must not be above most: [settle.ErrFee].
func (m *Manager) RollWithin(ctx context.Context, channel pktcloud.ID, r RollRequest, most pktcloud.Amount) (settle.RollOffer, error) {
	return m.rollWithin(ctx, channel, r, &most)
}

func (m *Manager) rollWithin(ctx context.Context, channel pktcloud.ID, r RollRequest, most *pktcloud.Amount) (settle.RollOffer, error) {
	ch, err := m.channel(channel)
	if err != nil {
		return settle.RollOffer{}, err
	}
	if record, rolls := m.rollOf(channel); rolls && ch.role == settle.Payer {
		return settle.ParseRollOffer(record.Offer)
	}
	p, err := m.successorOf(ctx, ch, r)
	if err != nil {
		return settle.RollOffer{}, err
	}
	if err := m.ready(ctx); err != nil {
		return settle.RollOffer{}, err
	}
	index, err := m.takeIndex(ctx, settle.Payer, nil)
	if err != nil {
		return settle.RollOffer{}, err
	}
	plan, raw, err := m.planRoll(ctx, ch, p, index, r.Capacity > 0)
	if err != nil {
		return settle.RollOffer{}, err
	}
	p.Capacity = plan.Capacity
	if err = m.cheap(ctx, ch, raw, most); err != nil {
		return settle.RollOffer{}, errors.Join(err, m.cfg.Wallet.Release(ctx, raw))
	}
	offer, err := m.offerRoll(ctx, ch, p, plan, raw)
	if err != nil {
		if e := m.cfg.Wallet.Release(ctx, raw); e != nil {
			m.cfg.Log.Warn("coins of a roll that was not offered stay reserved until a restart", "err", e)
		}
	}
	return offer, err
}

// PlanRoll says what [Manager.Roll] would make of a channel: the successor's
// parameters but for the detail, and the fee. It changes nothing. Errors are those
// of Roll.
func (m *Manager) PlanRoll(ctx context.Context, channel pktcloud.ID, r RollRequest) (p settle.Params, fee pktcloud.Amount, err error) {
	ch, err := m.channel(channel)
	if err != nil {
		return p, 0, err
	}
	if _, rolls := m.rollOf(channel); rolls {
		return p, 0, settle.Refuse(settle.ErrRolling, "the channel rolls already")
	}
	if p, err = m.successorOf(ctx, ch, r); err != nil {
		return p, 0, err
	}
	plan, raw, err := m.planRoll(ctx, ch, p, 0, r.Capacity > 0)
	if err != nil {
		return p, 0, err
	}
	p.Capacity, p.Detail = plan.Capacity, nil
	fee, err = m.rollFee(ctx, ch, raw)
	return p, fee, errors.Join(err, m.cfg.Wallet.Release(ctx, raw))
}

// rollFee is what a roll of this side's pays.
func (m *Manager) rollFee(ctx context.Context, ch *channel, raw []byte) (pktcloud.Amount, error) {
	return ch.chain.RollFee(raw, func(at settle.Outpoint) (settle.Output, error) { return m.cfg.Ledger.Output(ctx, at) })
}

// cheap holds a roll to the most that its fee may be, if that was said.
func (m *Manager) cheap(ctx context.Context, ch *channel, raw []byte, most *pktcloud.Amount) error {
	if most == nil {
		return nil
	}
	fee, err := m.rollFee(ctx, ch, raw)
	if err == nil && fee > *most {
		err = settle.Refuse(settle.ErrFee, "the fee is above the limit: it would be %s, the limit is %s", fee, *most)
	}
	return err
}

// successorOf are the parameters of what a channel would roll into, but for the
// detail and what a fee takes.
func (m *Manager) successorOf(ctx context.Context, ch *channel, r RollRequest) (settle.Params, error) {
	switch {
	case ch.role != settle.Payer:
		return settle.Params{}, settle.Refuse(settle.ErrRole, "only the payer offers a roll")
	case m.isRestored(ch):
		return settle.Params{}, settle.Refuse(settle.ErrClosed, "the channel came back by its phrase: what it paid may be lost, so it does not roll")
	}
	tip, err := m.askTip(ctx)
	if err != nil {
		return settle.Params{}, err
	}
	p := ch.chain.Params
	p.MinDepth = max(p.MinDepth, r.MinDepth)
	if p.ExpiryHeight += min(r.ExtendBlocks, math.MaxUint32); r.LifetimeBlocks > 0 {
		p.ExpiryHeight = tip.Height + r.LifetimeBlocks
	}
	switch {
	case r.Capacity >= p.Capacity:
		p.Capacity = r.Capacity
	case r.Capacity > 0:
		return settle.Params{}, settle.Refuse(settle.ErrParams, "a roll takes no money out of a channel of %d units", uint64(p.Capacity))
	}
	return p, ch.state.Load().Channel.At(tip.Height).CanRoll(p) // before anything is spent on it
}

// planRoll makes the roll into a successor with the keys of an index, without its
// first signatures.
func (m *Manager) planRoll(ctx context.Context, ch *channel, p settle.Params, index uint32, wallet bool) (pktchain.Plan, []byte, error) {
	rate, err := m.rate(ctx, pktchain.FundingFeeFactor)
	if err != nil {
		return pktchain.Plan{}, nil, err
	}
	rate = min(rate, (pktchain.MaxRollFeeFactor-1)*m.cfg.Network.RelayFloor)
	d := ch.chain.Detail
	plan := pktchain.Plan{
		Index: index, Expiry: p.ExpiryHeight, Capacity: p.Capacity, PayerScript: d.PayerScript,
		Payee: pktchain.PayeeDetail{Version: pktchain.PayeeDetailVersion, Key: d.Payee, Script: d.PayeeScript},
	}
	if !wallet {
		raw, err := m.cfg.Keychain.RollAlone(ch.chain, &plan, rate)
		return plan, raw, err
	}
	funder, ok := m.cfg.Wallet.(RollWallet)
	if !ok {
		return plan, nil, settle.Refuse(settle.ErrParams, "this wallet adds no money to a channel")
	}
	outputs, err := m.cfg.Keychain.FundingOutputs(plan)
	if err != nil {
		return plan, nil, err
	}
	raw, err := funder.FundRoll(ctx, ch.chain.RollInput(), ch.chain.RollBytes(), outputs, rate)
	return plan, raw, err
}

// offerRoll signs a roll and makes offer and successor durable.
func (m *Manager) offerRoll(ctx context.Context, ch *channel, p settle.Params, plan pktchain.Plan, raw []byte) (settle.RollOffer, error) {
	d, err := m.cfg.Keychain.DetailOf(plan, raw)
	if err != nil {
		return settle.RollOffer{}, err
	}
	if p.Detail, err = d.Encode(); err != nil {
		return settle.RollOffer{}, err
	}
	to, err := pktchain.ChannelOf(m.cfg.Network, p)
	if err != nil {
		return settle.RollOffer{}, err
	}
	roll, err := ch.chain.ReadRoll(to, raw)
	if err != nil {
		return settle.RollOffer{}, err
	}
	done, err := ch.hold(ctx)
	if err != nil {
		return settle.RollOffer{}, err
	}
	defer done()
	if record, rolls := m.rollOf(ch.id); rolls { // by another call meanwhile
		_ = m.cfg.Wallet.Release(ctx, raw) // or at the next restart
		return settle.ParseRollOffer(record.Offer)
	}
	st := *ch.state.Load()
	st.Channel = st.Channel.At(m.height())
	o := settle.RollOffer{Version: settle.RollOfferVersion, Channel: ch.id, Successor: p, Tx: raw}
	if err := m.signOffer(ch, st.Channel, to, plan.Index, roll, &o); err != nil {
		return settle.RollOffer{}, err
	}
	pair, err := st.Channel.Roll(o, roll.TxID, nil)
	if err != nil {
		return settle.RollOffer{}, err
	}
	record := channelRecord{Params: p, Role: settle.Payer, Index: uint64(plan.Index), Funding: raw}
	return o, m.beginRoll(ctx, ch, begunRoll{from: st, pair: pair, record: record, offer: o})
}

// signOffer puts the payer's signatures into an offer.
func (m *Manager) signOffer(ch *channel, c settle.Channel, to pktchain.Channel, index uint32, roll pktchain.Roll, o *settle.RollOffer) error {
	from, err := m.cfg.Keychain.Signer(ch.chain, ch.index)
	if err != nil {
		return err
	}
	if o.Signature, err = from.SignRoll(roll); err != nil || c.Paid() == 0 {
		return err
	}
	signer, err := m.cfg.Keychain.Signer(to, index)
	if err != nil {
		return err
	}
	first := c.Latest.Body
	first.Sequence, first.Ext = 1, nil
	if first.Channel, err = o.Successor.ID(); err != nil {
		return err
	}
	if first.Proof, err = signer.SignVoucher(first.Total); err != nil {
		return err
	}
	if o.First, err = pktcloud.Seal(m.cfg.DeviceKey, first); err != nil {
		return err
	}
	o.Late, err = signer.SignLate(first.Total)
	return err
}

// begunRoll is what becomes durable when a roll begins.
type begunRoll struct {
	from   state // of the predecessor, before
	pair   settle.Pair
	record channelRecord // of the successor
	offer  settle.RollOffer
	roll   rollRecord  // its offer is filled in
	late   *lateRecord // of the successor; nil: nothing is deposited
}

// beginRoll makes both states, the successor and the roll durable, all or
// nothing, and takes the successor in [ROLL-5]. Call it with the predecessor's
// turn.
func (m *Manager) beginRoll(ctx context.Context, ch *channel, b begunRoll) error {
	pair, r, roll, late := b.pair, b.record, b.roll, b.late
	if err := pair.Check(); err != nil {
		return err
	}
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	r.Order = m.order
	since := settle.Birthday(m.sight.Tip.Height)
	m.mu.Unlock()
	next := state{Channel: pair.To, Announced: len(roll.Raw) > 0, seen: seenRecord{Since: since}}
	to, err := newChannel(m.cfg.Network, r, next)
	if err != nil {
		return err
	}
	m.mu.Lock()
	other, used := m.funded[to.chain.Detail.Funding]
	m.mu.Unlock()
	if used {
		return settle.Refuse(settle.ErrFunding, "channel %s has this funding output already", other)
	}
	if roll.Offer, err = b.offer.Encode(); err != nil {
		return err
	}
	st := b.from
	st.Channel = pair.From
	puts := []put{
		{keyStates + ch.id.Hex(), st},
		{keyRolls + ch.id.Hex(), roll},
		{keyChannels + to.id.Hex(), r},
		{keyStates + to.id.Hex(), next},
		{keySeen + to.id.Hex(), next.seen},
	}
	var kept lateState
	if late != nil {
		if kept.parcel, err = m.parcelOf(to, *late); err != nil {
			return err
		}
		if late.Top, err = to.chain.LevelOf(kept.parcel.Txs[len(kept.parcel.Txs)-1]); err != nil {
			return err
		}
		kept.record = *late
		puts = append(puts, put{keyLates + to.id.Hex(), kept.record})
	}
	crash.Point("roll begins")
	if err := m.apply(context.WithoutCancel(ctx), puts...); err != nil { // all of it, or nothing is known of it
		return err
	}
	crash.Point("roll begins")
	m.mu.Lock()
	m.rolls[ch.id] = roll
	if late != nil {
		m.lates[to.id] = kept
	}
	m.mu.Unlock()
	ch.state.Store(&st)
	m.add(to)
	return nil
}

// AcceptRoll takes a roll as payee, and returns it with both signatures: the
// answer to the payer. The successor, its first voucher and, where this side
// deposits at towers, its late claims are durable before it signs [ROLL-5]; from
// then on it takes payments of both channels alone. The same offer again gives
// the same answer. It broadcasts the roll, and Run does so again; what a network
// says of that is no error. Whether the capacity is what was agreed is the
// caller's to compare. Errors are those of [settle.Channel.Roll] and
// [pktchain.Roll.Verify], or match [settle.ErrLedgerUnavailable].
func (m *Manager) AcceptRoll(ctx context.Context, o settle.RollOffer) (raw []byte, err error) {
	ch, err := m.channel(o.Channel)
	if err != nil {
		return nil, err
	}
	if ch.role != settle.Payee {
		return nil, settle.Refuse(settle.ErrRole, "only the payee accepts a roll")
	}
	if raw, err := m.acceptedRoll(ch, o); raw != nil || err != nil {
		return raw, err
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	tip, err := m.askTip(ctx)
	if err != nil {
		return nil, err
	}
	if err := ch.state.Load().Channel.At(tip.Height).CanRoll(o.Successor); err != nil { // before anything that takes longer
		return nil, err
	}
	if want := m.cfg.Depth.For(o.Successor.Capacity); o.Successor.MinDepth < want { // [SETTLE-38]
		return nil, settle.Refuse(settle.ErrParams, "the successor is settled at a depth of %d, this side wants %d for %d units", o.Successor.MinDepth, want, uint64(o.Successor.Capacity))
	}
	to, err := pktchain.ChannelOf(m.cfg.Network, o.Successor)
	if err != nil {
		return nil, err
	}
	roll, err := ch.chain.ReadRoll(to, o.Tx)
	if err != nil {
		return nil, err
	}
	select { // what a stranger's scripts may cost at once [ROLL-35]
	case m.judging <- struct{}{}:
		defer func() { <-m.judging }()
	default:
		return nil, settle.Refuse(settle.ErrBusy, "other rolls are being judged; offer it again")
	}
	output := m.cfg.Ledger.Output
	if coins, ok := m.cfg.Ledger.(settle.CoinReader); ok { // strangers name the inputs
		output = coins.Unspent
	}
	if roll, err = roll.Verify(to, o.Signature, func(at settle.Outpoint) (settle.Output, error) { return output(ctx, at) }); err != nil {
		return nil, err
	}
	late, err := m.lateOfRoll(ctx, to, o)
	if err != nil {
		return nil, err
	}
	done, err := ch.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if raw, err := m.acceptedRoll(ch, o); raw != nil || err != nil { // by another call meanwhile
		return raw, err
	}
	st := *ch.state.Load()
	st.Channel = st.Channel.At(max(tip.Height, m.height()))
	pair, err := st.Channel.Roll(o, roll.TxID, to.Rail())
	if err != nil {
		return nil, err
	}
	if raw, err = m.cfg.Keychain.CompleteRoll(roll, ch.index, o.Signature); err != nil {
		return nil, err
	}
	record := channelRecord{Params: o.Successor, Role: settle.Payee, Index: uint64(ch.index), Funding: raw}
	begun := begunRoll{from: st, pair: pair, record: record, offer: o, roll: rollRecord{Raw: raw, Level: roll.Level}, late: late}
	if err := m.beginRoll(ctx, ch, begun); err != nil {
		return nil, err
	}
	if err := m.cfg.Ledger.Broadcast(ctx, raw); err != nil {
		m.cfg.Log.Warn("a roll was not broadcast yet", "channel", ch.id, "err", err)
	}
	return raw, nil
}

// acceptedRoll returns the answer to an offer that was accepted before; nothing
// while none was.
func (m *Manager) acceptedRoll(ch *channel, o settle.RollOffer) ([]byte, error) {
	record, rolls := m.rollOf(ch.id)
	if !rolls {
		return nil, nil
	}
	b, err := o.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, record.Offer) {
		return nil, settle.Refuse(settle.ErrRolling, "another roll of the channel was accepted")
	}
	return record.Raw, nil
}

// lateOfRoll checks an offer's late proof, and returns what to deposit of the
// successor; nil when this side deposits nothing, or that is not worth a fee.
func (m *Manager) lateOfRoll(ctx context.Context, to pktchain.Channel, o settle.RollOffer) (*lateRecord, error) {
	total := o.First.Body.Total
	if o.First.Body.Sequence == 0 {
		return nil, nil
	}
	if err := to.VerifyLate(total, o.Late); err != nil {
		return nil, err
	}
	if m.cfg.DepositEvery == 0 {
		return nil, nil
	}
	fees, err := to.LateFees(total, m.lateRate(ctx), pktchain.Level{})
	if err != nil {
		return nil, nil //nolint:nilerr // not worth the fee: nothing is deposited, as with any channel
	}
	proof := settle.LateProof{Version: settle.LateProofVersion, Channel: o.First.Body.Channel, Total: total, Signature: o.Late}
	return &lateRecord{Number: 1, Proof: proof, Fees: fees}, nil
}

// CompleteRoll takes the payee's answer to [Manager.Roll], as payer, and
// broadcasts the roll. It is idempotent. Errors match [settle.ErrUnknown] without
// a roll, [settle.ErrRoll], [settle.ErrProof], [settle.ErrMalformed], or those of
// the ledger.
func (m *Manager) CompleteRoll(ctx context.Context, channel pktcloud.ID, raw []byte) error {
	ch, err := m.channel(channel)
	if err != nil {
		return err
	}
	to, roll, err := m.offeredRoll(ch)
	if err != nil {
		return err
	}
	if err := roll.Completed(raw); err != nil {
		return err
	}
	crash.Point("roll answered")
	if err := m.keepRoll(ctx, ch, to, raw); err != nil {
		return err
	}
	crash.Point("roll answered")
	return m.cfg.Ledger.Broadcast(ctx, raw)
}

// offeredRoll returns what a channel rolls into and by what.
func (m *Manager) offeredRoll(ch *channel) (*channel, pktchain.Roll, error) {
	record, rolls := m.rollOf(ch.id)
	if !rolls {
		return nil, pktchain.Roll{}, settle.Refuse(settle.ErrUnknown, "channel %s does not roll", ch.id)
	}
	o, err := settle.ParseRollOffer(record.Offer)
	if err != nil {
		return nil, pktchain.Roll{}, err
	}
	id, err := o.Successor.ID()
	if err != nil {
		return nil, pktchain.Roll{}, err
	}
	to, err := m.channel(id)
	if err != nil {
		return nil, pktchain.Roll{}, err
	}
	roll, err := ch.chain.ReadRoll(to.chain, o.Tx)
	return to, roll, err
}

// keepRoll makes a roll with both signatures durable: from then on it is
// broadcast until it is mined.
func (m *Manager) keepRoll(ctx context.Context, ch, to *channel, raw []byte) error {
	var kept rollRecord
	err := m.changePair(ctx, ch, to, func(from, next state) (state, state, []put, error) {
		record, ok := m.rollOf(ch.id)
		if !ok || len(record.Raw) > 0 && next.Announced {
			return from, next, nil, errUnchanged
		}
		record.Raw, next.Announced = raw, true
		kept = record
		return from, next, []put{{keyRolls + ch.id.Hex(), record}}, nil
	})
	if err == nil && len(kept.Raw) > 0 {
		m.mu.Lock()
		m.rolls[ch.id] = kept
		m.mu.Unlock()
	}
	return err
}
