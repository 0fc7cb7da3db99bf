package manager

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// OpenMany is [Manager.Open] for several channels that one transaction funds:
// one fee and one wait for all. They are to one payee, under one quote, with one
// lifetime, because the note that brings them back from the phrase names one
// payee [SETTLE-58]; capacity, unconfirmed limit and depth are each channel's
// own. The payee accepts each by itself. All are durable or none; they are
// announced together, and abandoned together. Errors match [settle.ErrParams],
// or are those of Open.
func (m *Manager) OpenMany(ctx context.Context, rs ...OpenRequest) (params []settle.Params, funding []byte, err error) {
	if err := checkRun(rs); err != nil {
		return nil, nil, err
	}
	payee, err := pktchain.ParsePayeeDetail(rs[0].PayeeDetail)
	if err != nil {
		return nil, nil, err
	}
	tip, err := m.askTip(ctx)
	if err != nil {
		return nil, nil, err
	}
	rate, err := m.rate(ctx, pktchain.FundingFeeFactor)
	if err != nil {
		return nil, nil, err
	}
	plans := make([]pktchain.Plan, len(rs))
	for i, r := range rs {
		p, plan, err := m.plan(ctx, r, payee, tip)
		if err != nil { // before anything is spent on them
			return nil, nil, err
		}
		params, plans[i] = append(params, p), plan
	}
	if err := m.ready(ctx); err != nil {
		return nil, nil, err
	}
	first, err := m.takeIndexes(ctx, settle.Payer, uint64(len(rs)), nil)
	if err != nil {
		return nil, nil, err
	}
	for i := range plans {
		plans[i].Index = first + uint32(i)
	}
	outputs, err := m.cfg.Keychain.FundingOutputs(plans...)
	if err != nil {
		return nil, nil, err
	}
	if funding, err = m.cfg.Wallet.Fund(ctx, outputs, rate); err != nil {
		return nil, nil, err
	}
	if err = m.opened(ctx, params, plans, funding); err != nil {
		if e := m.cfg.Wallet.Release(ctx, funding); e != nil {
			m.cfg.Log.Warn("coins of a channel that did not open stay reserved until a restart", "err", e)
		}
		return nil, nil, err
	}
	return params, funding, nil
}

// checkRun refuses what no single note could bring back.
func checkRun(rs []OpenRequest) error {
	if len(rs) == 0 || len(rs) > pktchain.MaxRun {
		return settle.Refuse(settle.ErrParams, "%d channels in one funding transaction, 1 to %d", len(rs), pktchain.MaxRun)
	}
	for _, r := range rs[1:] {
		if r.Payee != rs[0].Payee || !bytes.Equal(r.PayeeDetail, rs[0].PayeeDetail) || r.LifetimeBlocks != rs[0].LifetimeBlocks {
			return settle.Refuse(settle.ErrParams, "channels of one funding transaction go to one payee, under one quote, with one lifetime; open the others with another transaction")
		}
	}
	return nil
}

// plan is what a request comes to, but for the index of its keys.
func (m *Manager) plan(ctx context.Context, r OpenRequest, payee pktchain.PayeeDetail, tip settle.Tip) (settle.Params, pktchain.Plan, error) {
	script, err := m.cfg.Wallet.ReceiveScript(ctx)
	if err != nil {
		return settle.Params{}, pktchain.Plan{}, err
	}
	p := settle.Params{
		Version: settle.ParamsVersion, Rail: m.cfg.Network.Rail, Payer: m.self, Payee: r.Payee,
		Capacity: r.Capacity, Reserve: m.cfg.Reserve, MinChange: m.cfg.Network.Dust(script),
		ExpiryHeight: tip.Height + r.LifetimeBlocks, MarginBlocks: m.cfg.MarginBlocks,
		MinDepth: r.MinDepth, Unconfirmed: r.Unconfirmed,
	}
	plan := pktchain.Plan{Payee: payee, Expiry: p.ExpiryHeight, Capacity: p.Capacity, PayerScript: script}
	if _, err := settle.NewChannel(p, settle.Payer, tip.Height); err != nil {
		return p, plan, err
	}
	return p, plan, m.cfg.Keychain.Worth(p, plan)
}

// opened completes the parameters of funded plans, and makes all channels
// durable.
func (m *Manager) opened(ctx context.Context, params []settle.Params, plans []pktchain.Plan, funding []byte) error {
	records := make([]channelRecord, len(plans))
	for i, plan := range plans {
		d, err := m.cfg.Keychain.DetailOf(plan, funding)
		if err != nil {
			return err
		}
		if params[i].Detail, err = d.Encode(); err != nil {
			return err
		}
		records[i] = channelRecord{Params: params[i], Role: settle.Payer, Index: uint64(plan.Index), Funding: funding}
	}
	m.beginning.Lock()
	defer m.beginning.Unlock()
	return m.begin(ctx, records...)
}

// run returns the channels that a payer's channel shares its funding with,
// itself included: all that this side has. A payee's is alone.
func (m *Manager) run(ch *channel) []*channel {
	if ch.role != settle.Payer {
		return []*channel{ch}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := ch.chain.Detail.Funding
	all := []*channel{ch}
	for at.Index = range uint32(pktchain.MaxRun) { // where the wallet puts them
		if other, ok := m.channels[m.funded[at]]; ok && other != ch && other.role == settle.Payer {
			all = append(all, other)
		}
	}
	slices.SortFunc(all, func(a, b *channel) int { return cmp.Compare(a.order, b.order) })
	return all
}

// changeAll is change for several channels at once: all of them, durable in one
// write, or none. fn persists or leaves as it is.
func (m *Manager) changeAll(ctx context.Context, all []*channel, fn func(st state) (state, effect, error)) error {
	for i, ch := range all { // in one order, so that two callers do not wait for each other
		select {
		case <-ctx.Done():
			for _, taken := range all[:i] {
				taken.turn <- struct{}{}
			}
			return ctx.Err()
		case <-ch.turn:
		}
	}
	defer func() {
		for _, ch := range all {
			ch.turn <- struct{}{}
		}
	}()
	var puts []put
	next := make([]*state, len(all))
	for i, ch := range all {
		st := *ch.state.Load()
		st.Channel = st.Channel.At(m.height())
		st, what, err := fn(st)
		if err != nil {
			return err
		}
		if what == unchanged {
			continue
		}
		if err := st.Channel.Check(); err != nil {
			return err
		}
		puts = append(puts, put{keyStates + ch.id.Hex(), st})
		next[i] = &st
	}
	if len(puts) == 0 {
		return nil
	}
	if err := m.apply(ctx, puts...); err != nil {
		return err
	}
	for i, ch := range all {
		if next[i] != nil {
			ch.state.Store(next[i])
		}
	}
	return nil
}
