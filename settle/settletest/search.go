package settletest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
)

var _ settle.Searcher = (*Ledger)(nil)

// Search implements settle.Searcher.
func (l *Ledger) Search(ctx context.Context, after settle.Tip, match func(script []byte) bool) ([]settle.Found, settle.Tip, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.available(ctx); err != nil {
		return nil, after, err
	}
	count := uint64(len(l.blocks))
	onChain := after.Height > 0 && after.Height <= count && l.tipAt(after.Height) == after
	from := settle.SearchFrom(after, onChain)
	var found []settle.Found
	last := after
	for h := from; h <= count && h < from+settle.MaxSearchBlocks; h++ {
		for _, tx := range l.blocks[h-1] {
			if slices.ContainsFunc(tx.TxOut, func(o *wire.TxOut) bool { return match(o.PkScript) }) {
				found = append(found, settle.Found{Raw: rawOf(tx), Height: h})
			}
		}
		last = l.tipAt(h)
	}
	return found, last, nil
}

// TipAt returns the block at a height.
func (l *Ledger) TipAt(ctx context.Context, height uint64) (settle.Tip, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.available(ctx); err != nil {
		return settle.Tip{}, err
	}
	if height == 0 || height > uint64(len(l.blocks)) {
		return settle.Tip{}, fmt.Errorf("%w: no block %d", settle.ErrLedgerUnavailable, height)
	}
	return l.tipAt(height), nil
}

// ledgerSearch looks for a script as somebody who knows only what it looks like.
func ledgerSearch(ctx context.Context, f LedgerFixture) error {
	searcher, ok := f.Ledger.(settle.Searcher)
	if !ok {
		return nil
	}
	to := f.key("search to").script
	match := func(script []byte) bool { return bytes.Equal(script, to) }
	_, after, err := searchAll(ctx, searcher, settle.Tip{}, match)
	if err != nil {
		return err
	}
	tip, err := f.Ledger.Tip(ctx)
	if err != nil || after != tip {
		return fmt.Errorf("a search to the end came to %+v, %w; the best block is %+v", after, orNone(err), tip)
	}
	key, coin, err := fundKey(ctx, f, "search")
	if err != nil {
		return err
	}
	tx, err := key.spend(coin, to, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, tx.raw); err != nil {
		return err
	}
	if found, _, err := searchAll(ctx, searcher, after, match); err != nil || len(found) != 0 {
		return fmt.Errorf("a search found %d transactions of the mempool, %w", len(found), orNone(err))
	}
	if err := f.Mine(ctx, 1); err != nil {
		return err
	}
	for _, from := range []settle.Tip{after, {}, {Height: after.Height, Hash: [32]byte{1}}, {Height: after.Height + settle.ReorgMargin}} {
		found, _, err := searchAll(ctx, searcher, from, match)
		if err != nil {
			return err
		}
		if len(found) != 1 || !bytes.Equal(found[0].Raw, tx.raw) || found[0].Height <= after.Height {
			return fmt.Errorf("a search from %d found %d transactions, want the one of block %d", from.Height, len(found), after.Height+1)
		}
	}
	return ledgerSearchReorg(ctx, f, searcher, match, tx)
}

// ledgerSearchReorg wants a search to notice that blocks behind it were lost.
func ledgerSearchReorg(ctx context.Context, f LedgerFixture, s settle.Searcher, match func([]byte) bool, tx testTx) error {
	if f.Invalidate == nil {
		return nil
	}
	_, end, err := searchAll(ctx, s, settle.Tip{}, match)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Invalidate(ctx, 1), f.Mine(ctx, 2)); err != nil {
		return err
	}
	found, _, err := s.Search(ctx, end, match)
	if err != nil {
		return err
	}
	if len(found) != 1 || !bytes.Equal(found[0].Raw, tx.raw) {
		return fmt.Errorf("after a reorganisation the search found %d transactions, want 1 again", len(found))
	}
	return nil
}

// searchAll searches to the best block.
func searchAll(ctx context.Context, s settle.Searcher, after settle.Tip, match func(script []byte) bool) ([]settle.Found, settle.Tip, error) {
	var all []settle.Found
	for {
		found, next, err := s.Search(ctx, after, match)
		if err != nil {
			return nil, after, fmt.Errorf("search: %w", err)
		}
		all = append(all, found...)
		if next == after {
			return all, after, nil
		}
		after = next
	}
}
