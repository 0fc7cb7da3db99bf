package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	// pollInterval is how often Run looks at the channels when no block comes.
	pollInterval = 30 * time.Second
	// retryInterval is how long Run waits for a ledger out of reach.
	retryInterval = 2 * time.Second
	// sinceStep is how far a channel's birthday moves at once, since each move is
	// a write.
	sinceStep = 1000
)

// Run follows the ledger until ctx ends, and then returns nil. With each block
// it learns where the channels stand; it broadcasts again what is not mined,
// claims by the deadline, refunds after expiry, and raises fees [SETTLE-20] to
// [SETTLE-25]. While the ledger is out of reach it does nothing but let the
// height run on by the clock; while its best block is too old, it lets the height
// run on as well, for what needs one: vouchers and new channels [SETTLE-34]. Call
// it once, as long as the Manager is used.
func (m *Manager) Run(ctx context.Context) error {
	var search sync.WaitGroup
	search.Go(func() { m.searchOn(ctx) })
	defer search.Wait()
	var last settle.Tip
	said := ""
	for ctx.Err() == nil {
		tip, err := m.wait(ctx, last)
		if err == nil {
			err = m.look(ctx, tip)
		}
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			last, said = tip, ""
			continue
		}
		last = settle.Tip{}
		if text := err.Error(); text != said { // once, not with each attempt
			m.cfg.Log.Warn("channels are not up to date", "err", err)
			said = text
		}
		if errors.Is(err, settle.ErrLedgerUnavailable) {
			m.mu.Lock()
			m.sight.Lost = true
			m.mu.Unlock()
		}
		timer := time.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// wait returns at the next block, or with the same one after pollInterval.
func (m *Manager) wait(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	poll, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	tip, err := m.cfg.Ledger.WaitTip(poll, last)
	if err != nil && poll.Err() != nil && ctx.Err() == nil {
		return m.cfg.Ledger.Tip(ctx)
	}
	return tip, err
}

// look brings all channels up to date with a block.
func (m *Manager) look(ctx context.Context, tip settle.Tip) error {
	sight := m.see(tip)
	m.mu.Lock()
	stored := m.stored
	m.mu.Unlock()
	if stored != tip.Height { // an older time of the same block only makes a guess safer
		if err := m.apply(ctx, put{keyTip, tipRecord{Height: tip.Height, Seen: sight.First}}); err != nil {
			return err
		}
		m.mu.Lock()
		m.stored = tip.Height
		m.mu.Unlock()
	}
	var errs []error
	for _, ch := range m.all() {
		if err := m.follow(ctx, ch, tip); err != nil {
			errs = append(errs, fmt.Errorf("channel %s: %w", ch.id, err))
		}
	}
	errs = append(errs, m.followRestored(ctx, tip))
	select {
	case m.blocks <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}

// follow brings one channel up to date and does what it needs.
func (m *Manager) follow(ctx context.Context, ch *channel, tip settle.Tip) error {
	st := ch.state.Load()
	if !followed(st.Channel) {
		return nil
	}
	out, err := m.cfg.Ledger.Output(ctx, ch.chain.Detail.Funding)
	if err != nil {
		return err
	}
	next, err := m.observe(ctx, ch, tip, out)
	if err != nil {
		return err
	}
	if err := m.followRoll(ctx, ch, next, out); err != nil {
		return err
	}
	if next.Channel.Phase.Final() {
		m.cfg.Log.Debug("channel at rest", "channel", ch.id, "phase", next.Channel.Phase)
		return nil
	}
	if raw := m.fundingOf(ch, next.Channel); next.Announced && !next.Channel.Spent.Known && next.Channel.Depth == 0 && len(raw) > 0 {
		if err := m.tolerate(ch, "funding", m.cfg.Ledger.Broadcast(ctx, raw)); err != nil {
			return err
		}
	}
	if next, err = m.act(ctx, ch, tip); err != nil {
		return err
	}
	return m.tolerate(ch, "end", m.broadcastEnd(ctx, ch, next))
}

// followed reports whether the chain is asked about a channel. An abandoned one
// may be funded at any time, by who has the transaction [SETTLE-29]; a
// reorganisation may take a roll back [ROLL-8].
func followed(c settle.Channel) bool {
	if c.Phase == settle.Rolled {
		return c.Spent.Depth < settle.ReorgMargin
	}
	return c.Phase != settle.Closed && c.Phase != settle.Refunded
}

// tolerate logs a refusal of the network, which passes or is answered by a
// higher fee, and returns other errors.
func (m *Manager) tolerate(ch *channel, what string, err error) error {
	if errors.Is(err, settle.ErrRejected) {
		m.cfg.Log.Warn("the network refused a transaction", "channel", ch.id, "transaction", what, "err", err)
		return nil
	}
	return err
}

// observe takes in what the chain says of the funding output. What a restart
// finds out again by itself, such as a depth, is not worth a sync.
func (m *Manager) observe(ctx context.Context, ch *channel, tip settle.Tip, out settle.Output) (state, error) {
	o := settle.Observation{Height: tip.Height, Funded: out.Known, Depth: out.Depth}
	var seen pktchain.End
	if out.Spend != nil {
		end, err := ch.chain.EndOf(out.Spend.Raw)
		if out.Spend.TxID == ch.state.Load().Channel.Into.TxID { // it pays nobody
			end, err = pktchain.End{TxID: out.Spend.TxID}, nil
		}
		if err != nil {
			m.cfg.Log.Error("the funding output is spent in an unknown way", "channel", ch.id, "err", err)
		}
		o.Spent = settle.Spent{Known: true, TxID: out.Spend.TxID, Depth: out.Spend.Depth, Refund: end.Refund}
		seen = end
	}
	since := tip.Height // a funding that is not mined will be mined above
	if out.Depth > 0 {
		since -= min(since, out.Depth-1)
	}
	return m.change(ctx, ch, func(st state) (state, effect, error) {
		was := st.Channel
		st.Channel, st.Settled = was.Observe(o), seen.Payee
		st.seen.End = endRecord(seen)
		moved := settle.Birthday(since) >= st.seen.Since+sinceStep
		if moved {
			st.seen.Since = settle.Birthday(since)
		}
		deeper := st.Channel.Phase == settle.Rolled && followed(st.Channel) // no sync for each of its blocks
		if st.Channel.Phase == was.Phase && (st.Channel.Spent == was.Spent || deeper) {
			if moved {
				return st, persist, nil
			}
			return st, remember, nil
		}
		m.cfg.Log.Info("channel", "channel", ch.id, "phase", st.Channel.Phase, "height", tip.Height, "depth", o.Depth)
		return st, persist, nil
	})
}

// act does what a channel needs at this block. No estimate of the height makes a
// side claim or refund [SETTLE-35]: a chain out of sight would not take it.
func (m *Manager) act(ctx context.Context, ch *channel, tip settle.Tip) (state, error) {
	st := *ch.state.Load()
	st.Channel.Height = tip.Height
	decision := st.Channel.Decide(tip.Height)
	if decision != settle.ClaimNow && decision != settle.RefundNow {
		return st, nil
	}
	if decision == settle.ClaimNow && m.outdone(ch) {
		return st, nil // the store is older than the deposit, which is claimed instead [SETTLE-113]
	}
	rate, err := m.rate(ctx, closeFeeFactor)
	if err != nil {
		return st, err
	}
	return m.change(ctx, ch, func(st state) (state, effect, error) {
		raise := m.raise(ch, st, decision, rate)
		fee := raise.Market
		if len(st.End) > 0 {
			var ok bool
			if fee, ok = raise.Next(tip.Height); !ok {
				return st, unchanged, nil // it is broadcast as it is
			}
		}
		var next state
		var what effect
		var err error
		if decision == settle.ClaimNow {
			next, what, err = m.claim(ch, st, fee)
		} else {
			next, what, err = m.refund(ch, st, fee)
		}
		if errors.Is(err, settle.ErrDust) || errors.Is(err, settle.ErrFee) {
			m.cfg.Log.Warn("no fee is left to raise", "channel", ch.id, "err", err)
			return st, unchanged, nil
		}
		return next, what, err
	})
}

// raise says what the fee of a claim or refund may become.
func (m *Manager) raise(ch *channel, st state, d settle.Decision, rate pktcloud.Amount) settle.Raise {
	p := st.Channel.Params
	r := settle.Raise{Fee: st.EndFee, Made: st.EndHeight}
	if d == settle.ClaimNow {
		r.Market, r.Step = max(ch.chain.ClaimFee(rate), m.aboveDeposits(ch, st), m.aboveRoll(ch)), ch.chain.ClaimFee(0)
		r.Part = m.claimable(ch, st.Channel)
		r.Last, r.Margin = p.ExpiryHeight, p.MarginBlocks
		return r
	}
	r.Market, r.Step = ch.chain.RefundFee(rate), ch.chain.RefundFee(0)
	r.Part = p.Capacity.SubFloor(m.cfg.Network.Dust(ch.chain.Detail.PayerScript))
	return r
}

// refund makes the refund at a fee.
func (m *Manager) refund(ch *channel, st state, fee pktcloud.Amount) (state, effect, error) {
	c, err := st.Channel.Refund()
	if err != nil {
		return st, unchanged, err
	}
	raws, err := m.cfg.Keychain.RefundLadder(ch.chain, ch.index, []pktcloud.Amount{fee})
	if err != nil {
		return st, unchanged, err
	}
	st.Channel = c
	return m.ending(ch, st, raws[0], fee)
}
