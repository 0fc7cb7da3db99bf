package manager

import (
	"bytes"
	"context"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Factors over the relay floor that closes and claims pay at least: a fee at
// the very floor is carried but mined last.
const closeFeeFactor = 2

// PayeeDetail returns the encoding of a fresh payee key and payout script, for
// a quote. The key's index is durable before it returns.
func (m *Manager) PayeeDetail(ctx context.Context) ([]byte, error) {
	script, err := m.cfg.Wallet.ReceiveScript(ctx)
	if err != nil {
		return nil, err
	}
	d := pktchain.PayeeDetail{Version: pktchain.PayeeDetailVersion, Script: script}
	index, err := m.takeIndex(ctx, settle.Payee, func(index uint32) ([]put, error) {
		if d.Key, err = m.cfg.Keychain.PayeeKey(index); err != nil {
			return nil, err
		}
		return []put{{keyPayees + keyText(d.Key), payeeRecord{Index: uint64(index), Script: script}}}, d.Validate()
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.payees[keyText(d.Key)] = payeeRecord{Index: uint64(index), Script: script}
	m.mu.Unlock()
	return d.Encode()
}

// Accept takes a channel as its payee, after it checked that the parameters are
// for this device and a detail that it issued, that time and margin suffice,
// and that the funding pays them and cannot be changed. The vouchers that come
// with it are accepted too, in their order; where one is refused the channel is
// not taken. All is durable when it returns; the same again gives the same id.
// What was agreed about capacity, depth and the unconfirmed limit is the
// caller's to compare. Errors match [settle.ErrParams], [settle.ErrFunding],
// [settle.ErrFee], [settle.ErrLate] or [settle.ErrLedgerUnavailable], or are
// those of [settle.Channel.Accept].
func (m *Manager) Accept(ctx context.Context, p settle.Params, funding []byte, first ...pktcloud.Signed[settle.Voucher]) (pktcloud.ID, error) {
	id, err := m.take(ctx, p, funding, first)
	if err != nil {
		return pktcloud.ID{}, err
	}
	for _, v := range first {
		if err := m.Receive(ctx, v); err != nil {
			return pktcloud.ID{}, err
		}
	}
	return id, nil
}

// take takes a channel whose first vouchers will be accepted.
func (m *Manager) take(ctx context.Context, p settle.Params, funding []byte, first []pktcloud.Signed[settle.Voucher]) (pktcloud.ID, error) {
	chain, err := pktchain.ChannelOf(m.cfg.Network, p)
	if err != nil {
		return pktcloud.ID{}, err
	}
	id, err := p.ID()
	if err != nil {
		return pktcloud.ID{}, err
	}
	if ch, err := m.channel(id); err == nil {
		if ch.role != settle.Payee {
			return pktcloud.ID{}, settle.Refuse(settle.ErrRole, "this side is the channel's payer")
		}
		return id, nil
	}
	m.mu.Lock()
	record, issued := m.payees[keyText(chain.Detail.Payee)]
	m.mu.Unlock()
	switch {
	case p.Payee != m.self:
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "the payee is %s, this device is %s", p.Payee, m.self)
	case !issued || !bytes.Equal(record.Script, chain.Detail.PayeeScript):
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "the payee's key or payout script is not from a quote of this device")
	case p.MarginBlocks < m.cfg.MarginBlocks:
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "a margin of %d blocks, this side wants %d", p.MarginBlocks, m.cfg.MarginBlocks)
	case p.MinDepth < m.cfg.Depth.For(p.Capacity): // [SETTLE-38]
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "settled at a depth of %d, this side wants %d for %d units", p.MinDepth, m.cfg.Depth.For(p.Capacity), uint64(p.Capacity))
	}
	tip, err := m.askTip(ctx)
	if err != nil {
		return pktcloud.ID{}, err
	}
	c, err := settle.NewChannel(p, settle.Payee, tip.Height)
	if err != nil {
		return pktcloud.ID{}, err
	}
	for _, v := range first {
		if c, err = c.Accept(v, chain.Rail()); err != nil {
			return pktcloud.ID{}, err
		}
	}
	output := m.cfg.Ledger.Output
	if coins, ok := m.cfg.Ledger.(settle.CoinReader); ok { // strangers name the inputs
		output = coins.Unspent
	}
	err = chain.CheckFunding(funding, func(at settle.Outpoint) (settle.Output, error) { return output(ctx, at) })
	if err != nil {
		return pktcloud.ID{}, err
	}
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	other, used := m.funded[chain.Detail.Funding]
	m.mu.Unlock()
	switch {
	case used && other == id: // taken by another call meanwhile
		return id, nil
	case used: // only one of the two could be claimed [SETTLE-55]
		return pktcloud.ID{}, settle.Refuse(settle.ErrFunding, "channel %s has this funding output already", other)
	}
	return id, m.begin(ctx, channelRecord{Params: p, Role: settle.Payee, Index: record.Index, Funding: funding})
}

// Receive accepts a voucher, which is durable when it returns. The latest
// voucher again is no error. Errors are those of [settle.Channel.Accept].
func (m *Manager) Receive(ctx context.Context, v pktcloud.Signed[settle.Voucher]) error {
	ch, err := m.channel(v.Body.Channel)
	if err != nil {
		return err
	}
	_, err = m.change(ctx, ch, func(st state) (state, effect, error) {
		if err := m.aloneOnly(st.Channel); err != nil {
			return st, unchanged, err
		}
		was := st.Channel.Latest.Body.Sequence
		c, err := st.Channel.Accept(v, ch.chain.Rail())
		if err != nil || c.Latest.Body.Sequence == was {
			return st, unchanged, err
		}
		st.Channel = c
		return st, persist, nil // before it is acknowledged [SETTLE-27]
	})
	return err
}

// CompleteClose signs and broadcasts a cooperative close. The caller has
// agreed to o.Final; a final below the latest voucher is refused all the same.
// The channel accepts nothing more from then on; the same offer again gives the
// same transaction. Run broadcasts it again until it is mined, also after an
// error that matches [settle.ErrLedgerUnavailable] or [settle.ErrRejected].
// Errors match [settle.ErrClose], [settle.ErrClosed], [settle.ErrProof],
// [settle.ErrDust] or [settle.ErrFee].
func (m *Manager) CompleteClose(ctx context.Context, channel pktcloud.ID, o settle.CloseOffer) (txid [32]byte, err error) {
	ch, err := m.channel(channel)
	if err != nil {
		return txid, err
	}
	st, err := m.change(ctx, ch, func(st state) (state, effect, error) {
		c, err := st.Channel.AcceptClose(o, ch.chain.Rail())
		if err != nil || st.Channel.Close.Version != 0 {
			return st, unchanged, err
		}
		st.Channel = c
		raw, err := m.cfg.Keychain.CompleteClose(ch.chain, ch.index, o)
		if err != nil {
			return st, unchanged, err
		}
		return m.ending(ch, st, raw, o.Fee)
	})
	if err != nil {
		return txid, err
	}
	return st.EndTx, m.broadcastEnd(ctx, ch, st)
}

// ending puts the transaction that ends the channel into the state.
func (m *Manager) ending(ch *channel, st state, raw []byte, fee pktcloud.Amount) (state, effect, error) {
	end, err := ch.chain.EndOf(raw)
	if err != nil {
		return st, unchanged, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st.End, st.EndTx, st.EndFee, st.EndHeight = raw, end.TxID, fee, m.sight.Tip.Height // of no estimate: fees rise with blocks
	return st, persist, nil
}

// Claim closes a channel by its latest voucher, without the payer. The channel
// accepts nothing more from then on. A claim again gives the transaction that
// is on its way. Errors match [settle.ErrClosed], [settle.ErrClose] without a
// voucher, or [settle.ErrDust] when the voucher is not worth the fee.
func (m *Manager) Claim(ctx context.Context, channel pktcloud.ID) (txid [32]byte, err error) {
	ch, err := m.channel(channel)
	if err != nil {
		return txid, err
	}
	rate, err := m.rate(ctx, closeFeeFactor)
	if err != nil {
		return txid, err
	}
	st, err := m.change(ctx, ch, func(st state) (state, effect, error) {
		if len(st.End) > 0 {
			return st, unchanged, nil
		}
		return m.claim(ch, st, ch.chain.ClaimFee(rate))
	})
	if err != nil {
		return txid, err
	}
	return st.EndTx, m.broadcastEnd(ctx, ch, st)
}

// claim makes the claim at a fee, or at less where the payee's part is worth no
// more. A claim after another pays more than that one.
func (m *Manager) claim(ch *channel, st state, fee pktcloud.Amount) (state, effect, error) {
	c, err := st.Channel.Claim()
	if err != nil {
		return st, unchanged, err
	}
	part := m.claimable(ch, c)
	fee = min(max(fee, m.aboveRoll(ch)), part)
	if fee < ch.chain.ClaimFee(0) || fee <= st.EndFee {
		return st, unchanged, settle.Refuse(settle.ErrDust, "the payee's part of %d units is not worth a fee beyond %d", uint64(part), uint64(fee))
	}
	raw, err := m.cfg.Keychain.Claim(ch.chain, ch.index, c.Latest.Body, fee)
	if err != nil {
		return st, unchanged, err
	}
	st.Channel = c
	return m.ending(ch, st, raw, fee)
}

// claimable is what the fee of a claim may take: the payee's part but for dust.
func (m *Manager) claimable(ch *channel, c settle.Channel) pktcloud.Amount {
	return (c.Paid() + c.Params.Reserve).SubFloor(m.cfg.Network.Dust(ch.chain.Detail.PayeeScript))
}

// broadcastEnd brings a channel's end on the chain, and its funding before it
// where that is not mined.
func (m *Manager) broadcastEnd(ctx context.Context, ch *channel, st state) error {
	if len(st.End) == 0 || st.Channel.Spent.Depth > 0 {
		return nil
	}
	if raw := m.fundingOf(ch, st.Channel); st.Channel.Depth == 0 && len(raw) > 0 {
		if err := m.cfg.Ledger.Broadcast(ctx, raw); err != nil {
			return err
		}
	}
	return m.cfg.Ledger.Broadcast(ctx, st.End)
}
