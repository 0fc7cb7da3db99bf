package devnet

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

var _ settle.Searcher = (*Chain)(nil)

// Search implements settle.Searcher.
func (c *Chain) Search(ctx context.Context, after settle.Tip, match func(script []byte) bool) ([]settle.Found, settle.Tip, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, after, errClosed()
	}
	count := c.view.Tip().Height
	onChain := false
	if after.Height > 0 && after.Height <= count {
		hash, err := c.chain.BlockHashByHeight(int32(after.Height))
		onChain = err == nil && *hash == after.Hash
	}
	from := settle.SearchFrom(after, onChain)
	var found []settle.Found
	last := after
	for h := from; h <= count && h < from+settle.MaxSearchBlocks; h++ {
		if err := ctx.Err(); err != nil {
			return nil, after, err
		}
		block, err := c.chain.BlockByHeight(int32(h))
		if err != nil {
			return nil, after, fmt.Errorf("%w: block %d: %w", settle.ErrLedgerUnavailable, h, err)
		}
		for _, tx := range block.MsgBlock().Transactions {
			if !slices.ContainsFunc(tx.TxOut, func(o *wire.TxOut) bool { return match(o.PkScript) }) {
				continue
			}
			raw, err := chainview.Raw(tx)
			if err != nil {
				return nil, after, err
			}
			found = append(found, settle.Found{Raw: raw, Height: h})
		}
		b := viewBlock(block, int32(h))
		last = settle.Tip{Height: h, Hash: b.Hash, Time: b.Time}
	}
	return found, last, nil
}
