package manager

import (
	"context"
	"errors"
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// MaxPayeeIndexes is how many indexes of payee's keys are tried to find the one
// of a channel that a tower gave back.
const MaxPayeeIndexes = 1 << 20

// recalledRecord is a channel that this phrase earned by, taken back from the
// late claims that a tower kept.
type recalledRecord struct {
	Txs       [][]byte        `cbor:"txs"` // the late claims, lowest fee first
	Index     uint64          `cbor:"index"`
	Capacity  pktcloud.Amount `cbor:"capacity"`
	Script    []byte          `cbor:"script"` // of the funding output
	Height    uint64          `cbor:"height"` // of the funding's block, when it was taken back
	Other     bool            `cbor:"other"`  // funded since this store began
	Least     pktcloud.Amount `cbor:"least"`  // the fee that replaces an older claim of this side
	End       []byte          `cbor:"end"`
	EndFee    pktcloud.Amount `cbor:"end_fee"`
	EndHeight uint64          `cbor:"end_height"`
	Spent     settle.Spent    `cbor:"spent"`
	Earned    pktcloud.Amount `cbor:"earned"` // by the transaction that ended it
}

// recalled is a record and what its late claims say. The manager's mutex guards
// the map; who holds reviving changes a record.
type recalled struct {
	recalledRecord
	what pktchain.Recalled
}

func (r recalledRecord) read(n pktchain.Network) (recalled, error) {
	what, err := pktchain.Recall(n, r.Txs, settle.Output{Known: true, Amount: r.Capacity, Script: r.Script})
	return recalled{r, what}, err
}

func (m *Manager) loadRecalled(record recalledRecord) error {
	r, err := record.read(m.cfg.Network)
	if err != nil {
		return err
	}
	at := r.what.Channel.Detail.Funding
	m.recalled[at] = &r
	if r.Spent.Depth < settledDepth {
		m.watchRecalled(at, r.Height)
	}
	return nil
}

func (m *Manager) watchRecalled(at settle.Outpoint, height uint64) {
	if w, ok := m.cfg.Ledger.(settle.Watcher); ok {
		w.Watch(settle.Watch{At: at, From: settle.Birthday(height)})
	}
}

// Recaller is what a [Wallet] may offer besides: one that counts scripts.
type Recaller interface {
	// Recall counts a script as given out that the wallet's seed gave out
	// before, with a store that was lost, so that what it is paid is seen.
	Recall(ctx context.Context, script []byte) error
}

// Recall takes back, as payee, the channels of which towers kept deposits
// [SETTLE-110]: parcels are what towers answered, from wherever, in any order, as
// often as one likes. What the store has already, what has ended, and a deposit
// that claims less than another changes nothing; what does not hold is left out
// and returned as bad, each with its refusal. A channel taken back is durable when
// Recall returns, and Run claims it from its late height on. With an error, of
// the ledger, the store or the context, not all was judged: ask again.
func (m *Manager) Recall(ctx context.Context, parcels []Parcel) (bad []error, err error) {
	client, err := m.cfg.Keychain.TowerKey()
	if err != nil {
		return nil, err
	}
	if err := m.searchBegun(ctx); err != nil {
		return nil, err
	}
	tip, err := m.askTip(ctx)
	if err != nil {
		return nil, err
	}
	m.reviving.Lock()
	defer m.reviving.Unlock()
	for i, p := range parcels {
		err := m.recallOne(ctx, p, client.Public(), tip)
		if err == nil {
			continue
		}
		if _, refused := errors.AsType[*settle.Error](err); !refused { // the chain or the store
			return bad, err
		}
		bad = append(bad, fmt.Errorf("deposit %d of a tower: %w", i, err))
	}
	return bad, m.followRecalled(ctx, tip) // not only with the next block
}

// searchBegun makes sure that it is known when this store began.
func (m *Manager) searchBegun(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.searching:
	}
	defer func() { m.searching <- struct{}{} }()
	return m.beginSearch(ctx)
}

// recallOne takes one deposit back. Call it with m.reviving held.
func (m *Manager) recallOne(ctx context.Context, p Parcel, client pktcloud.PublicKey, tip settle.Tip) error {
	if len(p.Txs) == 0 {
		return settle.Refuse(settle.ErrMalformed, "a deposit without transactions")
	}
	first, err := pktchain.ReadEnding(m.cfg.Network, p.Txs[0])
	if err != nil {
		return err
	}
	if err := first.VerifyClient(client, p.Owner); err != nil {
		return err
	}
	if first.Kind == pktchain.EndRefund || m.claims(first) {
		return nil // a payer's note on the chain tells more than its refund
	}
	out, height, err := m.fundingSeen(ctx, first.Funding, tip)
	if err != nil || !out.Known {
		return err
	}
	record := recalledRecord{Txs: p.Txs, Capacity: out.Amount, Script: out.Script, Height: height}
	r, err := record.read(m.cfg.Network)
	if err != nil {
		return err
	}
	m.mu.Lock()
	old, known := m.recalled[first.Funding]
	_, own := m.funded[first.Funding]
	r.Other = height > m.search.Began && !own
	m.mu.Unlock()
	if known {
		r.Index, r.Other, r.Least = old.Index, old.Other, old.above()
	} else if r.Index, err = m.indexOf(r.what.Channel.Detail.Payee); err != nil {
		return err
	}
	if w, ok := m.cfg.Wallet.(Recaller); ok { // first: a tower's claim pays there too
		if err := w.Recall(ctx, r.what.Channel.Detail.PayeeScript); err != nil {
			return err
		}
	}
	if err := m.keepRecalled(ctx, first.Funding, r); err != nil {
		return err
	}
	if !known {
		m.watchRecalled(first.Funding, height)
	}
	m.tellRecalled(first.Funding, r, own)
	return nil
}

// fundingSeen asks the chain for a funding output and the height of its block. It
// is not known when it is not unspent in a block; another time it may be.
func (m *Manager) fundingSeen(ctx context.Context, at settle.Outpoint, tip settle.Tip) (out settle.Output, height uint64, err error) {
	if coins, ok := m.cfg.Ledger.(settle.CoinReader); ok {
		out, err = coins.Unspent(ctx, at)
	} else {
		out, err = m.cfg.Ledger.Output(ctx, at)
	}
	if out.Depth == 0 || out.Spend != nil && out.Spend.Depth > 0 {
		return settle.Output{}, 0, err
	}
	return out, tip.Height + 1 - min(out.Depth, tip.Height), err
}

// indexOf finds the index of a payee's key.
func (m *Manager) indexOf(key []byte) (uint64, error) {
	m.mu.Lock()
	issued, ok := m.payees[keyText(key)]
	m.mu.Unlock()
	if ok {
		return issued.Index, nil
	}
	index, found := m.cfg.Keychain.FindPayee(key, MaxPayeeIndexes)
	if !found {
		return 0, settle.Refuse(settle.ErrParams, "the payee's key is not one of the first %d of this phrase", MaxPayeeIndexes)
	}
	return uint64(index), nil
}

// above is the fee that replaces the claim of this side that was sent last.
func (r recalled) above() pktcloud.Amount {
	if len(r.End) == 0 {
		return r.Least
	}
	level, err := r.what.Channel.LevelOf(r.End)
	if err != nil {
		return r.Least
	}
	return r.what.Channel.FeeAbove(level)
}

// claims reports whether this side claims as much of a channel as a deposit does
// without it [SETTLE-110].
func (m *Manager) claims(e pktchain.Ending) bool {
	m.mu.Lock()
	r, known := m.recalled[e.Funding]
	id, own := m.funded[e.Funding]
	m.mu.Unlock()
	if known && r.Capacity.SubFloor(e.ToPayer) <= r.what.Late.Total {
		return true
	}
	ch, err := m.channel(id)
	return own && err == nil && !ch.claimsLess(ch.chain.Params.Capacity.SubFloor(e.ToPayer))
}

// claimsLess reports whether a payee's own claim takes less than a late claim
// does, reserve included: its store is an old copy.
func (ch *channel) claimsLess(late pktcloud.Amount) bool {
	c := ch.state.Load().Channel
	return ch.role == settle.Payee && c.Paid()+c.Params.Reserve < late
}

// outdone reports whether a deposit claims more of a channel than the store does.
func (m *Manager) outdone(ch *channel) bool {
	m.mu.Lock()
	r, ok := m.recalled[ch.chain.Detail.Funding]
	m.mu.Unlock()
	return ok && ch.claimsLess(r.what.Late.Total)
}

func (m *Manager) tellRecalled(at settle.Outpoint, r recalled, own bool) {
	p := r.what.Channel.Params
	with := []any{"funding", txText(at.TxID), "block", r.Height, "units", uint64(r.what.Late.Total), "claimed from", p.LateHeight()}
	switch {
	case own:
		m.cfg.Log.Error("this store is an old copy: a tower keeps a later state of a channel, which is claimed instead", with...)
	case r.Other:
		m.cfg.Log.Error("another machine uses this phrase: a tower keeps a deposit of a channel that is not in this store; let one machine alone use a phrase", with...)
	default:
		m.cfg.Log.Info("a tower gave a channel of this phrase back; it is claimed by itself", with...)
	}
}

// keepRecalled makes a record durable, then shows it. No key of the phrase that
// it names is handed out again.
func (m *Manager) keepRecalled(ctx context.Context, at settle.Outpoint, r recalled) error {
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	next := m.next
	m.mu.Unlock()
	puts := []put{{keyRecalled + placeOf(at), r.recalledRecord}}
	if next.Payee <= r.Index {
		next.Payee = r.Index + 1
		puts = append(puts, put{keyIndexes, next})
	}
	if err := m.apply(ctx, puts...); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = next
	m.recalled[at] = &r
	return nil
}

// followRecalled brings the channels that towers gave back up to date with a
// block. Call it with m.reviving held.
func (m *Manager) followRecalled(ctx context.Context, tip settle.Tip) error {
	m.mu.Lock()
	open := map[settle.Outpoint]*recalled{}
	for at, r := range m.recalled {
		ch := m.channels[m.funded[at]]
		if r.Spent.Depth < settledDepth && (ch == nil || ch.claimsLess(r.what.Late.Total)) { // else it is claimed as any other
			open[at] = r
		}
	}
	m.mu.Unlock()
	var errs []error
	for at, r := range open {
		if err := m.followOneRecalled(ctx, at, *r, tip); err != nil {
			errs = append(errs, fmt.Errorf("channel of the phrase at %x: %w", at.TxID, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) followOneRecalled(ctx context.Context, at settle.Outpoint, r recalled, tip settle.Tip) error {
	out, err := m.cfg.Ledger.Output(ctx, at)
	if err != nil || !out.Known { // a reorganisation took it back: it may return
		return err
	}
	was := r.Spent
	r.Spent, r.Earned = settle.Spent{}, 0
	if s := out.Spend; s != nil {
		r.Spent = settle.Spent{Known: true, TxID: s.TxID, Depth: s.Depth}
		if end, err := r.what.Channel.EndOf(s.Raw); err == nil {
			r.Spent.Refund, r.Earned = end.Refund, end.Payee
		}
	}
	if was.TxID != r.Spent.TxID || r.Spent.Depth >= settledDepth {
		if err := m.keepRecalled(ctx, at, r); err != nil {
			return err
		}
		m.cfg.Log.Info("channel of the phrase", "funding", txText(at.TxID), "ended by", txText(r.Spent.TxID), "earned", uint64(r.Earned))
	} else {
		m.mu.Lock()
		m.recalled[at] = &r
		m.mu.Unlock()
	}
	from := r.what.Channel.Params.LateHeight()
	if r.Other { // it has a machine that does so
		from += min(otherGrace, r.what.Channel.Params.MarginBlocks/2)
	}
	if r.Spent.Depth > 0 || tip.Height < from {
		return nil
	}
	return m.claimRecalled(ctx, at, r, tip)
}

// claimRecalled broadcasts the late claim of a channel that a tower gave back,
// first as it was deposited where that pays enough, then with rising fees
// [SETTLE-112].
func (m *Manager) claimRecalled(ctx context.Context, at settle.Outpoint, r recalled, tip settle.Tip) error {
	rate, err := m.rate(ctx, closeFeeFactor)
	if err != nil {
		return err
	}
	chain := r.what.Channel
	p := chain.Params
	raise := settle.Raise{
		Fee: r.EndFee, Made: r.EndHeight, Market: chain.ClaimFee(rate), Step: chain.ClaimFee(0),
		Part: r.what.Late.Total.SubFloor(m.cfg.Network.Dust(chain.Detail.PayeeScript)), Last: p.ExpiryHeight, Margin: p.MarginBlocks,
	}
	fee, more := min(max(raise.Market, r.what.Fees[0], r.Least), raise.Part), true
	if len(r.End) > 0 {
		fee, more = raise.Next(tip.Height)
	}
	if more {
		raws, err := m.cfg.Keychain.LateClaims(chain, uint32(r.Index), r.what.Late, []pktcloud.Amount{fee})
		if errors.Is(err, settle.ErrFee) || errors.Is(err, settle.ErrDust) { // too little for another fee
			raws, fee, err = r.Txs, r.what.Fees[0], nil
		}
		if err != nil {
			return err
		}
		r.End, r.EndFee, r.EndHeight = raws[0], fee, tip.Height
		if err := m.keepRecalled(ctx, at, r); err != nil {
			return err
		}
	}
	return m.tolerateRestored(at, m.cfg.Ledger.Broadcast(ctx, r.End))
}
