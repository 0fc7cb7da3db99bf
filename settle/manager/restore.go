package manager

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	// otherGrace is how many blocks after its expiry a channel of another
	// machine is left to that machine.
	otherGrace = 12
	// settledDepth is how deep the end of a restored channel lies before it is
	// no longer looked at.
	settledDepth = settle.ReorgMargin
)

// restoredRecord is a channel of the phrase that this store did not open.
type restoredRecord struct {
	Funding   []byte          `cbor:"funding"`
	Height    uint64          `cbor:"height"` // of the funding's block, when it was found
	Other     bool            `cbor:"other"`  // funded by another machine since this store began
	PayTo     []byte          `cbor:"pay_to"` // of the refund, once there is one
	End       []byte          `cbor:"end"`
	EndFee    pktcloud.Amount `cbor:"end_fee"`
	EndHeight uint64          `cbor:"end_height"`
	Spent     settle.Spent    `cbor:"spent"`
	Returned  pktcloud.Amount `cbor:"returned"` // by a refund
}

// restored is a restoredRecord and what its funding says. The manager's mutex
// guards it; only whoever follows the restored channels changes a record.
type restored struct {
	restoredRecord
	what pktchain.Restored
}

// Restored is what a manager knows of a channel of its phrase that its store did
// not open: it was lost with another store, or belongs to another machine with
// the same phrase. As payer it never pays; it is refunded from its expiry height
// on [SETTLE-63], unless the payee shows a voucher. As payee it is claimed late
// from its late height on [SETTLE-112], unless the payer shows more. See
// [Manager.Resume].
type Restored struct {
	Role         settle.Role
	Funding      settle.Outpoint
	Capacity     pktcloud.Amount
	Expiry       uint64          // height from which the payer can refund it
	From         uint64          // height from which this side ends it: as payer the expiry, as payee the late height
	Height       uint64          // of the funding's block
	Claim        pktcloud.Amount // as payee: what the late claim takes, reserve and fee included
	Other        bool            // another machine with this phrase opened it meanwhile
	Adopted      bool            // it is a channel of this manager by now
	Refunded     bool            // its end, if known, pays the payer alone
	Returned     pktcloud.Amount // by a refund; as payee what an end paid to this side
	ClosingTxID  [32]byte
	ClosingDepth uint64
}

// Done reports whether nothing is left to do for the channel.
func (r Restored) Done() bool { return r.ClosingDepth >= settledDepth }

// Restored returns the channels that the phrase has on the chain beside those
// of the store, in no order: as payer as far as the chain was searched, as payee
// as far as towers gave them back.
func (m *Manager) Restored() []Restored {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Restored
	for at, r := range m.restored {
		_, adopted := m.funded[at]
		list = append(list, Restored{
			Role: settle.Payer, Funding: at, Capacity: r.what.Capacity, Expiry: r.what.Expiry, From: r.what.Expiry, Height: r.Height,
			Other: r.Other, Adopted: adopted,
			Refunded: r.Spent.Refund, Returned: r.Returned, ClosingTxID: r.Spent.TxID, ClosingDepth: r.Spent.Depth,
		})
	}
	for at, r := range m.recalled {
		_, adopted := m.funded[at]
		p := r.what.Channel.Params
		list = append(list, Restored{
			Role: settle.Payee, Funding: at, Capacity: p.Capacity, Expiry: p.ExpiryHeight, From: p.LateHeight(), Height: r.Height,
			Claim: r.what.Late.Total, Other: r.Other, Adopted: adopted,
			Refunded: r.Spent.Refund, Returned: r.Earned, ClosingTxID: r.Spent.TxID, ClosingDepth: r.Spent.Depth,
		})
	}
	return list
}

// txText is a transaction's id as people write it.
func txText(id [32]byte) string {
	slices.Reverse(id[:])
	return hex.EncodeToString(id[:])
}

func restoredKey(at settle.Outpoint) string { return keyRestored + placeOf(at) }

func placeOf(at settle.Outpoint) string {
	return fmt.Sprintf("%s-%d", hex.EncodeToString(at.TxID[:]), at.Index)
}

// loadRestored takes a stored record back.
func (m *Manager) loadRestored(key string, record restoredRecord) error {
	all, err := m.cfg.Keychain.RestoreAll(record.Funding, pktchain.RefundKeys{})
	if err != nil {
		return err
	}
	for _, r := range all { // the key says which of them
		at := r.Detail.Funding
		if restoredKey(at) != key {
			continue
		}
		m.restored[at] = &restored{record, r}
		if record.Spent.Depth < settledDepth {
			m.watchRestored(at, record)
		}
	}
	return nil
}

// watchRestored names a restored channel's funding to the ledger.
func (m *Manager) watchRestored(at settle.Outpoint, record restoredRecord) {
	if w, ok := m.cfg.Ledger.(settle.Watcher); ok {
		w.Watch(settle.Watch{At: at, From: settle.Birthday(record.Height)})
	}
}

// followRestored brings the restored channels up to date with a block.
func (m *Manager) followRestored(ctx context.Context, tip settle.Tip) error {
	m.reviving.Lock()
	defer m.reviving.Unlock()
	m.mu.Lock()
	var open []settle.Outpoint
	for at, r := range m.restored {
		if _, adopted := m.funded[at]; !adopted && r.Spent.Depth < settledDepth {
			open = append(open, at)
		}
	}
	m.mu.Unlock()
	var errs []error
	for _, at := range open {
		if err := m.followOneRestored(ctx, at, tip); err != nil {
			errs = append(errs, fmt.Errorf("channel of the phrase at %x: %w", at.TxID, err))
		}
	}
	errs = append(errs, m.followRecalled(ctx, tip))
	return errors.Join(errs...)
}

func (m *Manager) followOneRestored(ctx context.Context, at settle.Outpoint, tip settle.Tip) error {
	m.mu.Lock()
	r := *m.restored[at]
	m.mu.Unlock()
	out, err := m.cfg.Ledger.Output(ctx, at)
	if err != nil {
		return err
	}
	if !out.Known { // a reorganisation took it back
		return m.tolerateRestored(at, m.cfg.Ledger.Broadcast(ctx, r.Funding))
	}
	was := r.Spent
	r.Spent, r.Returned = settle.Spent{}, 0
	if out.Spend != nil {
		end := r.endOf(m.cfg.Network, out.Spend.Raw)
		r.Spent = settle.Spent{Known: true, TxID: out.Spend.TxID, Depth: out.Spend.Depth, Refund: end.Refund}
		if end.Refund {
			r.Returned = r.what.Capacity - end.Fee
		}
	}
	settled := r.Spent.Depth >= settledDepth
	if was.TxID != r.Spent.TxID || settled {
		if err := m.keepRestored(ctx, at, r); err != nil {
			return err
		}
		m.cfg.Log.Info("a channel of the phrase has ended", "funding", txText(at.TxID), "ended by", txText(r.Spent.TxID), "refund", r.Spent.Refund)
	} else {
		m.showRestored(at, r)
	}
	if r.Spent.Depth > 0 {
		return nil
	}
	return m.refundRestored(ctx, at, r, tip)
}

// endOf reads a transaction that spends the channel; of one that it cannot read
// nothing is known.
func (r restored) endOf(n pktchain.Network, raw []byte) pktchain.End {
	chain, err := r.what.Channel(n, bytes.Clone(anyScript))
	if err != nil {
		return pktchain.End{}
	}
	end, err := chain.EndOf(raw)
	if err != nil {
		return pktchain.End{}
	}
	return end
}

// anyScript stands for a payer's script where none is needed.
var anyScript = append([]byte{0, 20}, make([]byte, 20)...)

// refundRestored brings a restored channel's money back once it may.
func (m *Manager) refundRestored(ctx context.Context, at settle.Outpoint, r restored, tip settle.Tip) error {
	from := r.what.Expiry
	if r.Other {
		from += otherGrace // it has a machine that does so
	}
	if tip.Height < from {
		return nil
	}
	next, err := m.makeRefund(ctx, r, tip)
	switch {
	case errors.Is(err, settle.ErrDust), errors.Is(err, settle.ErrFee):
		m.cfg.Log.Warn("no fee is left to raise", "channel of the phrase", at, "err", err)
		next = r // it is broadcast as it is, or waits for a lower rate
	case err != nil:
		return err
	}
	if len(next.End) == 0 {
		return nil
	}
	if next.EndFee != r.EndFee {
		if err := m.keepRestored(ctx, at, next); err != nil {
			return err
		}
		r = next
	}
	return m.tolerateRestored(at, m.cfg.Ledger.Broadcast(ctx, r.End))
}

// makeRefund makes the first refund of a restored channel, or in time one that
// pays more [SETTLE-28] [SETTLE-36]. It goes to one script of the wallet.
func (m *Manager) makeRefund(ctx context.Context, r restored, tip settle.Tip) (restored, error) {
	rate, err := m.rate(ctx, closeFeeFactor)
	if err != nil {
		return r, err
	}
	if len(r.PayTo) == 0 {
		if r.PayTo, err = m.cfg.Wallet.ReceiveScript(ctx); err != nil {
			return r, err
		}
	}
	chain, err := r.what.Channel(m.cfg.Network, r.PayTo)
	if err != nil {
		return r, err
	}
	raise := settle.Raise{
		Fee: r.EndFee, Made: r.EndHeight, Market: chain.RefundFee(rate), Step: chain.RefundFee(0),
		Part: r.what.Capacity.SubFloor(m.cfg.Network.Dust(r.PayTo)),
	}
	fee := raise.Market
	if len(r.End) > 0 {
		var ok bool
		if fee, ok = raise.Next(tip.Height); !ok {
			return r, nil // it is broadcast as it is
		}
	}
	raws, err := m.cfg.Keychain.RefundLadder(chain, r.what.Index, []pktcloud.Amount{fee})
	if err != nil {
		return r, err
	}
	r.End, r.EndFee, r.EndHeight = raws[0], fee, tip.Height
	return r, nil
}

// keepRestored makes a restored channel's record durable, then shows it.
func (m *Manager) keepRestored(ctx context.Context, at settle.Outpoint, r restored) error {
	if err := m.apply(ctx, put{restoredKey(at), r.restoredRecord}); err != nil {
		return err
	}
	m.showRestored(at, r)
	return nil
}

func (m *Manager) showRestored(at settle.Outpoint, r restored) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restored[at] = &r
}

// tolerateRestored is tolerate for a restored channel.
func (m *Manager) tolerateRestored(at settle.Outpoint, err error) error {
	if errors.Is(err, settle.ErrRejected) {
		m.cfg.Log.Warn("the network refused a transaction", "channel of the phrase", txText(at.TxID), "err", err)
		return nil
	}
	return err
}

// Adopt takes back a restored channel as its payer, from the parameters and the
// latest voucher that its payee shows. Both must fit what the phrase funded, and
// the voucher must bear the phrase's own signature [SETTLE-64]: so that a payee
// cannot put a script of its own in place of the payer's. An adopted channel
// pays nothing more [SETTLE-65]: it can be closed with [Manager.OfferClose], and
// is refunded like any other. A higher voucher may be shown later; a lower one
// changes nothing. Errors match [settle.ErrUnknown], [settle.ErrParams],
// [settle.ErrLate] or are those of [settle.Channel.Adopt].
func (m *Manager) Adopt(ctx context.Context, p settle.Params, v pktcloud.Signed[settle.Voucher]) (pktcloud.ID, error) {
	chain, err := pktchain.ChannelOf(m.cfg.Network, p)
	if err != nil {
		return pktcloud.ID{}, err
	}
	at := chain.Detail.Funding
	m.mu.Lock()
	r, ok := m.restored[at]
	id, adopted := m.funded[at]
	m.mu.Unlock()
	switch {
	case !ok:
		return pktcloud.ID{}, settle.Refuse(settle.ErrUnknown, "this phrase has no restored channel at %x", at.TxID)
	case p.Capacity != r.what.Capacity || !bytes.Equal(chain.Script(), r.what.Script):
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "the parameters are not those that this phrase funded")
	}
	if !adopted {
		return m.adoptNew(ctx, p, v, chain, *r)
	}
	ch, err := m.channel(id)
	if err != nil {
		return pktcloud.ID{}, err
	}
	_, err = m.change(ctx, ch, func(st state) (state, effect, error) {
		was := st.Channel.Latest.Body.Sequence
		c, err := st.Channel.Adopt(v, ch.chain.Rail())
		if err != nil || c.Latest.Body.Sequence == was {
			return st, unchanged, err
		}
		st.Channel = c
		return st, persist, nil
	})
	return id, err
}

func (m *Manager) adoptNew(ctx context.Context, p settle.Params, v pktcloud.Signed[settle.Voucher], chain pktchain.Channel, r restored) (pktcloud.ID, error) {
	tip, err := m.askTip(ctx)
	if err != nil {
		return pktcloud.ID{}, err
	}
	out, err := m.cfg.Ledger.Output(ctx, chain.Detail.Funding)
	if err != nil {
		return pktcloud.ID{}, err
	}
	c, err := settle.NewChannel(p, settle.Payer, tip.Height)
	if err != nil {
		return pktcloud.ID{}, err
	}
	if out.Spend != nil {
		return pktcloud.ID{}, settle.Refuse(settle.ErrClosed, "the funding output is spent")
	}
	c = c.Observe(settle.Observation{Height: tip.Height, Funded: out.Known, Depth: out.Depth})
	if c, err = c.Adopt(v, chain.Rail()); err != nil {
		return pktcloud.ID{}, err
	}
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	_, adopted := m.funded[chain.Detail.Funding]
	m.mu.Unlock()
	if adopted { // by another call meanwhile, which may have shown less
		return pktcloud.ID{}, settle.Refuse(settle.ErrParams, "the channel is being adopted; show the voucher again")
	}
	record := channelRecord{Params: p, Role: settle.Payer, Index: uint64(r.what.Index), Funding: r.Funding}
	return c.ID, m.beginAs(ctx, record, state{Channel: c, Announced: true, seen: seenRecord{Since: settle.Birthday(r.Height)}})
}

// CameBack reports whether a channel came back by its phrase [SETTLE-65]: as
// payer it pays no more.
func (m *Manager) CameBack(channel pktcloud.ID) bool {
	ch, err := m.channel(channel)
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, payer := m.restored[ch.chain.Detail.Funding]
	_, payee := m.recalled[ch.chain.Detail.Funding]
	return payer || payee
}

// isRestored reports whether a channel of this payer came back by its phrase.
func (m *Manager) isRestored(ch *channel) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.restored[ch.chain.Detail.Funding]
	return ok
}
