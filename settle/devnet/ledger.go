package devnet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

var (
	_ settle.Ledger     = (*Chain)(nil)
	_ settle.Watcher    = (*Chain)(nil)
	_ settle.TxFollower = (*Chain)(nil)
)

// Codes with which a pktd refuses a transaction.
const (
	codeMissingInput   = -25
	codeRejected       = -26
	codeAlreadyInChain = -27
	// codeDeserialization answers bytes that are no transaction.
	codeDeserialization = -22
)

// Tip implements settle.Ledger.
func (c *Chain) Tip(context.Context) (settle.Tip, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return settle.Tip{}, errClosed()
	}
	return c.view.Tip(), nil
}

// WaitTip implements settle.Ledger.
func (c *Chain) WaitTip(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	for {
		c.mu.Lock()
		tip, changed, closed := c.view.Tip(), c.changed, c.closed
		c.mu.Unlock()
		if closed {
			return settle.Tip{}, errClosed()
		}
		if tip != last {
			return tip, nil
		}
		select {
		case <-ctx.Done():
			return settle.Tip{}, ctx.Err()
		case <-changed:
		}
	}
}

// Broadcast implements settle.Ledger.
func (c *Chain) Broadcast(_ context.Context, raw []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed()
	}
	tx, err := parseTx(raw)
	if err != nil {
		return &settle.Rejection{Code: codeDeserialization, Reason: err.Error()}
	}
	if c.pool.IsTransactionInPool(tx.Hash()) {
		return nil
	}
	err = c.accept(tx)
	var refused *settle.Rejection
	if errors.As(err, &refused) && (refused.Code == codeAlreadyInChain || refused.Code == codeMissingInput) && c.mined(tx) {
		return nil
	}
	return err
}

// parseTx reads a transaction that fills raw completely.
func parseTx(raw []byte) (*btcutil.Tx, error) {
	var msg wire.MsgTx
	r := bytes.NewReader(raw)
	if err := msg.Deserialize(r); err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes follow the transaction", r.Len())
	}
	return btcutil.NewTx(&msg), nil
}

// mined reports whether a transaction stands in the chain. The view knows all
// outputs, so the first is enough.
func (c *Chain) mined(tx *btcutil.Tx) bool {
	out, err := c.view.Output(settle.Outpoint{TxID: *tx.Hash()})
	return err == nil && out.Depth > 0
}

// accept gives a transaction to the mempool. Refusals are *settle.Rejection
// with a pktd's code.
func (c *Chain) accept(tx *btcutil.Tx) error {
	_, err := c.pool.ProcessTransaction(tx, false, false, 0)
	if err == nil {
		c.syncPool()
		return nil
	}
	var rule mempool.RuleError
	if !errors.As(err, &rule) {
		return fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, err)
	}
	return &settle.Rejection{Code: c.refusalCode(tx, rule), Reason: rule.Error()}
}

// refusalCode tells pktd's three codes apart by looking, since btcd's errors
// differ by their text alone.
func (c *Chain) refusalCode(tx *btcutil.Tx, rule mempool.RuleError) int {
	if _, ok := errors.AsType[blockchain.RuleError](rule.Err); ok {
		return codeRejected
	}
	txid := *tx.Hash()
	for n := range tx.MsgTx().TxOut {
		out, err := c.view.Output(settle.Outpoint{TxID: txid, Index: uint32(n)})
		if err == nil && out.Depth > 0 && (out.Spend == nil || out.Spend.Depth == 0) {
			return codeAlreadyInChain
		}
	}
	for _, in := range tx.MsgTx().TxIn {
		at := settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index}
		out, err := c.view.Output(at)
		if err == nil && (!out.Known || out.Spend != nil && out.Spend.Depth > 0) {
			return codeMissingInput
		}
	}
	return codeRejected
}

// syncPool shows the view the mempool as it is now. The caller holds c.mu.
func (c *Chain) syncPool() {
	descs := c.pool.TxDescs()
	slices.SortFunc(descs, func(a, b *mempool.TxDesc) int {
		return cmp.Or(a.Added.Compare(b.Added), bytes.Compare(a.Tx.Hash()[:], b.Tx.Hash()[:]))
	})
	txs := make([]*wire.MsgTx, 0, len(descs))
	for _, d := range descs {
		txs = append(txs, d.Tx.MsgTx())
	}
	c.view.SetPool(txs)
}

// Output implements settle.Ledger.
func (c *Chain) Output(_ context.Context, at settle.Outpoint) (settle.Output, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return settle.Output{}, errClosed()
	}
	return c.view.Output(at)
}

// Coins implements settle.Ledger.
func (c *Chain) Coins(_ context.Context, script []byte) ([]settle.Coin, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed()
	}
	return c.view.Coins(script), nil
}

// Watch implements settle.Watcher; everything is watched anyway.
func (c *Chain) Watch(...settle.Watch) {}

// Used implements settle.Watcher.
func (c *Chain) Used(_ context.Context, script []byte) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, errClosed()
	}
	return c.view.Used(script), nil
}

// Follow implements settle.TxFollower; everything is watched anyway.
func (c *Chain) Follow(_ context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return settle.Changes{}, errClosed()
	}
	return c.view.Follow(since, added), nil
}

// FeeRate implements settle.Ledger: the relay floor, as a node that estimates
// nothing.
func (c *Chain) FeeRate(context.Context) (pktcloud.Amount, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, errClosed()
	}
	return settle.RelayFloor, nil
}
