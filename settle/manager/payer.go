package manager

import (
	"context"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Open makes a channel to a payee and the transaction that funds it, whose
// coins it reserves. Both are durable when it returns, and nothing has been
// broadcast: give them to the payee, then call [Manager.Announce], or
// [Manager.Abandon] if it does not want them.
func (m *Manager) Open(ctx context.Context, r OpenRequest) (params settle.Params, funding []byte, err error) {
	all, funding, err := m.OpenMany(ctx, r)
	if err != nil {
		return settle.Params{}, nil, err
	}
	return all[0], funding, nil
}

// begin makes new channels durable, all or none, and takes them in. Call it with
// m.beginning held.
func (m *Manager) begin(ctx context.Context, records ...channelRecord) error {
	m.mu.Lock()
	since := settle.Birthday(m.sight.Tip.Height) // the funding is not mined yet
	m.mu.Unlock()
	states := make([]state, len(records))
	for i, r := range records {
		c, err := settle.NewChannel(r.Params, r.Role, m.height())
		if err != nil {
			return err
		}
		states[i] = state{Channel: c, seen: seenRecord{Since: since}}
	}
	return m.beginAll(ctx, records, states)
}

// beginAs is begin for a channel that is in a state already. More records become
// durable with it.
func (m *Manager) beginAs(ctx context.Context, r channelRecord, st state, more ...put) error {
	return m.beginAll(ctx, []channelRecord{r}, []state{st}, more...)
}

func (m *Manager) beginAll(ctx context.Context, records []channelRecord, states []state, more ...put) error {
	m.mu.Lock()
	order := m.order
	m.mu.Unlock()
	puts := more
	channels := make([]*channel, len(records))
	for i, r := range records {
		r.Order = order + uint64(i)
		ch, err := newChannel(m.cfg.Network, r, states[i])
		if err != nil {
			return err
		}
		channels[i] = ch
		puts = append(puts, put{keyChannels + ch.id.Hex(), r}, put{keyStates + ch.id.Hex(), states[i]}, put{keySeen + ch.id.Hex(), states[i].seen})
	}
	if err := m.apply(ctx, puts...); err != nil {
		return err
	}
	for _, ch := range channels {
		m.add(ch)
	}
	return nil
}

// Abandon gives up a channel that the payee did not take, with all that the same
// transaction funds, and releases its coins. It is idempotent, and refused with
// [settle.ErrClosed] once the funding has been announced. Should the payee bring
// the funding on the chain after all, the channels live again and end in a
// refund.
func (m *Manager) Abandon(ctx context.Context, channel pktcloud.ID) error {
	ch, err := m.channel(channel)
	if err != nil {
		return err
	}
	fresh := false
	err = m.changeAll(ctx, m.run(ch), func(st state) (state, effect, error) {
		if st.Announced {
			return st, unchanged, settle.Refuse(settle.ErrClosed, "the funding has been announced")
		}
		if st.Channel.Phase == settle.Abandoned {
			return st, unchanged, nil
		}
		if !st.Channel.From.Channel.IsZero() {
			return st, unchanged, settle.Refuse(settle.ErrRolling, "the channel is what another one rolls into: withdraw the roll")
		}
		c, err := st.Channel.Abandon()
		st.Channel, fresh = c, true
		return st, persist, err
	})
	if err != nil || !fresh { // the coins of one given up before may be another's by now
		return err
	}
	return m.cfg.Wallet.Release(ctx, ch.funding)
}

// Unannounced returns the channels opened here whose funding never left, in
// the order of their opening. After a crash the caller abandons those that it
// has no use for: their coins are reserved until then.
func (m *Manager) Unannounced(context.Context) ([]pktcloud.ID, error) {
	var ids []pktcloud.ID
	for _, s := range m.List() {
		if s.Role == settle.Payer && s.Phase == settle.Opening && !s.Announced && !s.Funded && s.From.IsZero() {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

// Announce broadcasts the funding transaction; both sides may. It is
// idempotent, and announces all of the payer's channels that the transaction
// funds. From then on Run broadcasts it again until it is mined, also after an
// error.
func (m *Manager) Announce(ctx context.Context, channel pktcloud.ID) error {
	ch, err := m.channel(channel)
	if err != nil {
		return err
	}
	var raw []byte
	err = m.changeAll(ctx, m.run(ch), func(st state) (state, effect, error) {
		if st.Channel.Phase == settle.Abandoned {
			return st, unchanged, settle.Refuse(settle.ErrClosed, "the channel was abandoned")
		}
		if raw = m.fundingOf(ch, st.Channel); len(raw) == 0 {
			return st, unchanged, settle.Refuse(settle.ErrRolling, "the payee has not signed the roll")
		}
		if st.Announced {
			return st, unchanged, nil
		}
		st.Announced = true
		return st, persist, nil
	})
	if err != nil || ch.state.Load().Channel.Depth > 0 { // mined: a node may not know it any more
		return err
	}
	return m.cfg.Ledger.Broadcast(ctx, raw)
}

// Pay raises one lease's entry of a channel and returns the voucher, which is
// durable. The same entry again returns the same voucher. Errors are those of
// [settle.Channel.Next].
func (m *Manager) Pay(ctx context.Context, channel pktcloud.ID, e settle.Entry) (pktcloud.Signed[settle.Voucher], error) {
	ch, err := m.channel(channel)
	if err != nil {
		return pktcloud.Signed[settle.Voucher]{}, err
	}
	restored := m.isRestored(ch)
	st, err := m.change(ctx, ch, func(st state) (state, effect, error) {
		if restored {
			return st, unchanged, settle.Refuse(settle.ErrClosed, "the channel came back by its phrase: its vouchers may be lost, so it pays no more; close it")
		}
		if err := m.aloneOnly(st.Channel); err != nil {
			return st, unchanged, err
		}
		v, err := st.Channel.Next(e)
		if err != nil || v.Sequence == st.Channel.Latest.Body.Sequence {
			return st, unchanged, err
		}
		signer, err := ch.signer(m.cfg.Keychain)
		if err != nil {
			return st, unchanged, err
		}
		if v.Proof, err = signer.SignVoucher(v.Total); err != nil {
			return st, unchanged, err
		}
		signed, err := pktcloud.Seal(m.cfg.DeviceKey, v)
		if err != nil {
			return st, unchanged, err
		}
		st.Channel, err = st.Channel.Issue(signed)
		return st, persist, err
	})
	if err != nil {
		return pktcloud.Signed[settle.Voucher]{}, err
	}
	return st.Channel.Latest, nil
}

// OfferClose signs a cooperative close that pays the payee exactly final; the
// closing fee comes from the payer's part. The channel pays nothing more from
// then on. The same final again gives the same offer. A rest that would be dust
// goes to the fee [SETTLE-33]. Errors match [settle.ErrClose],
// [settle.ErrClosed], [settle.ErrDust] or [settle.ErrRole].
func (m *Manager) OfferClose(ctx context.Context, channel pktcloud.ID, final pktcloud.Amount) (settle.CloseOffer, error) {
	ch, err := m.channel(channel)
	if err != nil {
		return settle.CloseOffer{}, err
	}
	rate, err := m.rate(ctx, closeFeeFactor)
	if err != nil {
		rate = closeFeeFactor * m.cfg.Network.RelayFloor // out of sight: closing must not wait
	}
	st, err := m.change(ctx, ch, func(st state) (state, effect, error) {
		if c := st.Channel.Close; c.Version != 0 && c.Final == final {
			return st, unchanged, nil
		}
		o := settle.CloseOffer{Version: settle.CloseOfferVersion, Channel: ch.id, Final: final, Fee: ch.chain.CloseFee(rate)}
		rest := st.Channel.Params.Capacity.SubFloor(final)
		if rest.SubFloor(o.Fee) < m.cfg.Network.Dust(ch.chain.Detail.PayerScript) {
			o.Fee = rest
		}
		signer, err := ch.signer(m.cfg.Keychain)
		if err != nil {
			return st, unchanged, err
		}
		if o.Signature, err = signer.SignClose(o.Final, o.Fee); err != nil {
			return st, unchanged, err
		}
		st.Channel, err = st.Channel.OfferClose(o)
		return st, persist, err
	})
	if err != nil {
		return settle.CloseOffer{}, err
	}
	return st.Channel.Close, nil
}
