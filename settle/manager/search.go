package manager

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// openPatience is how long Open waits for the search of the chain.
const openPatience = 10 * time.Second

// searchRecord is how far the chain was searched for notes of the phrase.
type searchRecord struct {
	Height uint64   `cbor:"height"` // of the last block looked at
	Hash   [32]byte `cbor:"hash"`
	Time   int64    `cbor:"time"`
	// Began is the best block's height when this store began: whatever the
	// phrase funded above it and is not in the store was made elsewhere.
	Began uint64 `cbor:"began"`
}

// Searched returns the height up to which the chain was searched for channels
// of the phrase, and whether that was the best block.
func (m *Manager) Searched() (height uint64, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.search.Height, m.found
}

// searchOn searches each new block until ctx ends, once the channels are up to
// date with it.
func (m *Manager) searchOn(ctx context.Context) {
	for wait := pollInterval; ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.blocks:
		case <-timer.C:
		}
		timer.Stop()
		known := len(m.Restored())
		err := m.catchUp(ctx)
		if err == nil && len(m.Restored()) > known { // not only with the next block
			m.mu.Lock()
			tip := m.sight.Tip
			m.mu.Unlock()
			err = m.followRestored(ctx, tip)
		}
		if ctx.Err() != nil {
			return
		}
		wait = pollInterval
		if err != nil {
			m.cfg.Log.Warn("the chain was not searched for channels of this phrase", "err", err)
			wait = retryInterval
		}
	}
}

// ready makes sure that the chain was searched before an index is taken, so
// that no index of the phrase is used twice [SETTLE-62].
func (m *Manager) ready(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	err := m.catchUp(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		height, _ := m.Searched()
		return fmt.Errorf("%w: still searching for earlier channels of this phrase, at block %d of %d", settle.ErrLedgerUnavailable, height, m.height())
	}
	return err
}

// catchUp searches to the best block. A ledger that cannot search is left alone.
func (m *Manager) catchUp(ctx context.Context) error {
	searcher, ok := m.cfg.Ledger.(settle.Searcher)
	if !ok {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.searching:
	}
	defer func() { m.searching <- struct{}{} }()
	if err := m.beginSearch(ctx); err != nil {
		return err
	}
	for {
		m.mu.Lock()
		s := m.search
		m.mu.Unlock()
		after := settle.Tip{Height: s.Height, Hash: s.Hash, Time: s.Time}
		found, next, err := searcher.Search(ctx, after, m.cfg.Keychain.IsNote)
		if err != nil {
			return err
		}
		if next == after {
			return m.caughtUp(ctx)
		}
		s.Height, s.Hash, s.Time = next.Height, next.Hash, next.Time
		if err := m.takeFound(ctx, found, s); err != nil {
			return err
		}
	}
}

// caughtUp notes that the search came to the best block.
func (m *Manager) caughtUp(ctx context.Context) error {
	m.mu.Lock()
	s, stored := m.search, m.searchStored
	m.mu.Unlock()
	if s.Height != stored {
		if err := m.apply(ctx, put{keySearch, s}); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.searchStored, m.found = s.Height, true
	return nil
}

// beginSearch decides, once for a store, where the search begins.
func (m *Manager) beginSearch(ctx context.Context) error {
	m.mu.Lock()
	begun := m.search != searchRecord{}
	m.mu.Unlock()
	if begun {
		return nil
	}
	tip, err := m.cfg.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	s := searchRecord{Began: tip.Height, Height: min(m.cfg.Birthday, tip.Height)}
	if err := m.apply(ctx, put{keySearch, s}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.search, m.searchStored = s, s.Height
	return nil
}

// takeFound takes in what a search found, and how far it came, durably where
// that matters: a crash repeats the search of a few blocks at most.
func (m *Manager) takeFound(ctx context.Context, found []settle.Found, s searchRecord) error {
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	next, stored := m.next, m.searchStored
	m.mu.Unlock()
	var puts []put
	fresh := map[settle.Outpoint]*restored{}
	for _, f := range found {
		all, err := m.readFound(f)
		if err != nil {
			m.cfg.Log.Warn("a note of this phrase on the chain leads to no channel", "block", f.Height, "err", err)
			continue
		}
		for _, r := range all {
			at := r.Detail.Funding
			m.mu.Lock()
			_, own := m.funded[at]
			_, known := m.restored[at]
			m.mu.Unlock()
			if own || known {
				continue
			}
			next.Payer = max(next.Payer, uint64(r.Index)+1)
			record := restoredRecord{Funding: f.Raw, Height: f.Height, Other: f.Height > s.Began && !m.isCopy(r)}
			m.tellFound(r, record)
			fresh[at] = &restored{record, r}
			puts = append(puts, put{restoredKey(at), record})
		}
	}
	if len(puts) > 0 {
		puts = append(puts, put{keyIndexes, next})
	}
	if len(puts) > 0 || s.Height > stored+settle.ReorgMargin {
		if err := m.apply(ctx, append(puts, put{keySearch, s})...); err != nil {
			return err
		}
		stored = s.Height
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next, m.search, m.searchStored = next, s, stored
	for at, r := range fresh {
		m.restored[at] = r
		m.watchRestored(at, r.restoredRecord)
	}
	return nil
}

// readFound reads the channels of the phrase that a transaction funds. Anybody
// can copy a note from the chain into a transaction of his own: one that funds
// no channel of this module, or not enough to have it back, is not kept
// [SETTLE-67].
func (m *Manager) readFound(f settle.Found) (kept []pktchain.Restored, err error) {
	if len(f.Raw) > pktchain.MaxFundingBytes {
		return nil, settle.Refuse(settle.ErrFunding, "a transaction of %d bytes, a channel's funding has at most %d", len(f.Raw), pktchain.MaxFundingBytes)
	}
	all, err := m.cfg.Keychain.RestoreAll(f.Raw, pktchain.RefundKeys{})
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		chain, e := r.Channel(m.cfg.Network, bytes.Clone(anyScript))
		if e != nil {
			err = e
			continue
		}
		if least := chain.RefundFee(0) + m.cfg.Network.Dust(anyScript); r.Capacity < least {
			err = settle.Refuse(settle.ErrFunding, "%d units, a refund needs %d", uint64(r.Capacity), uint64(least))
			continue
		}
		kept = append(kept, r)
	}
	if len(kept) > 0 {
		return kept, nil
	}
	return nil, err
}

// isCopy reports whether a found channel repeats the note of one that this
// store has: each has keys of its own, so that somebody copied it.
func (m *Manager) isCopy(r pktchain.Restored) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ch := range m.channels {
		if ch.role == settle.Payer && bytes.Equal(ch.chain.Script(), r.Script) {
			return true
		}
	}
	return false
}

func (m *Manager) tellFound(r pktchain.Restored, record restoredRecord) {
	if record.Other {
		m.cfg.Log.Error("another machine uses this phrase: it opened a channel that is not in this store; let one machine alone use a phrase",
			"funding", txText(r.Detail.Funding.TxID), "block", record.Height, "units", uint64(r.Capacity))
		return
	}
	m.cfg.Log.Info("found a channel of this phrase; it comes back when it expires", "funding", txText(r.Detail.Funding.TxID), "block", record.Height,
		"units", uint64(r.Capacity), "expires", r.Expiry)
}
