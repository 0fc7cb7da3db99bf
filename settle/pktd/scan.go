package pktd

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

var _ settle.Searcher = (*Driver)(nil)

// MaxFoundBytes is how much one search returns: it ends early with the block in
// which it found that much, so that blocks made up by a node fill no memory.
const MaxFoundBytes = 8 << 20

// Search implements settle.Searcher. It reads each block from the node and
// keeps none; other calls go on meanwhile.
func (d *Driver) Search(ctx context.Context, after settle.Tip, match func(script []byte) bool) ([]settle.Found, settle.Tip, error) {
	if err := d.rightNetwork(ctx); err != nil {
		return nil, after, err
	}
	var count uint64
	if err := d.rpc.call(ctx, &count, "getblockcount"); err != nil {
		return nil, after, unavailable("ask for the height", err)
	}
	onChain := false
	if after.Height > 0 && after.Height <= count {
		hash, err := d.blockHash(ctx, after.Height)
		if err != nil {
			return nil, after, unavailable("search the chain", err)
		}
		onChain = hash == after.Hash
	}
	from := settle.SearchFrom(after, onChain)
	var previous chainhash.Hash
	if onChain {
		previous = after.Hash
	}
	var found []settle.Found
	last, size := after, 0
	for h := from; h <= count && h < from+settle.MaxSearchBlocks && size < d.maxFound; h++ {
		b, err := d.blockAt(ctx, h)
		if err != nil {
			return nil, after, err
		}
		if previous != (chainhash.Hash{}) && b.header.PrevBlock != previous {
			return nil, after, fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, errMoved)
		}
		previous = b.header.BlockHash()
		more, err := foundIn(b.txs, h, match)
		if err != nil {
			return nil, after, err
		}
		for _, f := range more {
			size += len(f.Raw)
		}
		found = append(found, more...)
		last = settle.Tip{Height: h, Hash: previous, Time: b.header.Timestamp.Unix()}
	}
	return found, last, nil
}

// TipAt returns the block of the best chain at a height. Errors match
// settle.ErrLedgerUnavailable, also for a height that the chain has not reached.
func (d *Driver) TipAt(ctx context.Context, height uint64) (settle.Tip, error) {
	if err := d.rightNetwork(ctx); err != nil {
		return settle.Tip{}, err
	}
	b, err := d.blockAt(ctx, height)
	if err != nil {
		return settle.Tip{}, err
	}
	return settle.Tip{Height: height, Hash: b.header.BlockHash(), Time: b.header.Timestamp.Unix()}, nil
}

// foundIn returns the transactions of a block with an output that passes match.
func foundIn(txs []*wire.MsgTx, height uint64, match func(script []byte) bool) ([]settle.Found, error) {
	var found []settle.Found
	for _, tx := range txs {
		if !slices.ContainsFunc(tx.TxOut, func(o *wire.TxOut) bool { return match(o.PkScript) }) {
			continue
		}
		raw, err := chainview.Raw(tx)
		if err != nil {
			return nil, err
		}
		found = append(found, settle.Found{Raw: raw, Height: height})
	}
	return found, nil
}

// rightNetwork is checkNetwork for callers that do not hold d.mu.
func (d *Driver) rightNetwork(ctx context.Context) error {
	if err := d.mu.enter(ctx); err != nil {
		return err
	}
	defer d.mu.leave()
	return d.checkNetwork(ctx)
}

// blockAt reads the block at a height of the best chain.
func (d *Driver) blockAt(ctx context.Context, height uint64) (*block, error) {
	hash, err := d.blockHash(ctx, height)
	if err != nil {
		return nil, unavailable("read the chain", err)
	}
	return d.rawBlock(ctx, hash)
}
