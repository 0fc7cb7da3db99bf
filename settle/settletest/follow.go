package settletest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// ledgerFollow follows a script through a payment, its spend, and the loss of
// the spend's block.
func ledgerFollow(ctx context.Context, f LedgerFixture) error {
	l, ok := f.Ledger.(settle.TxFollower)
	if !ok {
		return nil
	}
	name, to := f.key("followed"), f.key("followed to")
	first, err := l.Follow(ctx, 0, [][]byte{name.script}) // the other is known only later
	if err != nil {
		return err
	}
	if first.Lost || first.Next == 0 || len(first.Txs) != 0 {
		return fmt.Errorf("scripts that nobody paid: got %+v", first)
	}
	key, coin, err := fundKey(ctx, f, "followed")
	if err != nil {
		return err
	}
	funded, err := followed(ctx, l, first.Next, coin.At.TxID)
	if err != nil {
		return err
	}
	if height := funded.Tip.Height + 1 - coin.Depth; funded.state.Height != height || funded.state.Time <= 0 {
		return fmt.Errorf("the payment: got %+v, want it at height %d", funded.state, height)
	}
	spend, err := key.spend(coin, to.script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, spend.raw); err != nil {
		return err
	}
	pooled, err := followed(ctx, l, funded.Next, spend.txid)
	if err != nil {
		return err
	}
	if pooled.state.Height != 0 || !bytes.Equal(pooled.state.Raw, spend.raw) {
		return fmt.Errorf("the spend in the mempool: got %+v", pooled.state)
	}
	if err := f.Mine(ctx, 1); err != nil {
		return err
	}
	mined, err := followed(ctx, l, pooled.Next, spend.txid)
	if err != nil {
		return err
	}
	if mined.state.Height != mined.Tip.Height {
		return fmt.Errorf("the spend in a block: got %+v, tip %d", mined.state, mined.Tip.Height)
	}
	for _, script := range [][]byte{key.script, to.script} { // whoever comes later is told all
		late, err := l.Follow(ctx, 0, [][]byte{script})
		if err != nil {
			return err
		}
		if _, ok := find(late, spend.txid); !ok {
			return fmt.Errorf("a follower that comes later: got %d transactions, the spend is not among them", len(late.Txs))
		}
	}
	return followedBack(ctx, f, l, mined.Changes, spend.txid)
}

// followedBack takes the spend's block back.
func followedBack(ctx context.Context, f LedgerFixture, l settle.TxFollower, mined settle.Changes, txid [32]byte) error {
	if f.Invalidate != nil {
		if err := f.Invalidate(ctx, 1); err != nil {
			return err
		}
		lost, err := followed(ctx, l, mined.Next, txid)
		if err != nil {
			return err
		}
		if !lost.state.Gone && lost.state.Height != 0 {
			return fmt.Errorf("[LEDGER-9] the spend, its block lost: got %+v", lost.state)
		}
		if err := f.Mine(ctx, 1); err != nil {
			return err
		}
	}
	never, err := l.Follow(ctx, mined.Next+1<<40, nil)
	if err != nil {
		return err
	}
	if !never.Lost {
		return errors.New("changes since a moment that never was: got some, want Lost")
	}
	return nil
}

type followedTx struct {
	settle.Changes
	state settle.TxState
}

// followed wants a transaction among what changed, and its bytes to be it.
func followed(ctx context.Context, l settle.TxFollower, since uint64, txid [32]byte) (followedTx, error) {
	changes, err := l.Follow(ctx, since, nil)
	if err != nil {
		return followedTx{}, err
	}
	state, ok := find(changes, txid)
	if changes.Lost || !ok || changes.Next <= since {
		return followedTx{}, fmt.Errorf("changes since %d: got %+v, want transaction %x among them", since, changes, txid)
	}
	if state.Gone {
		return followedTx{changes, state}, nil
	}
	var tx wire.MsgTx
	if err := tx.Deserialize(bytes.NewReader(state.Raw)); err != nil || tx.TxHash() != txid {
		return followedTx{}, fmt.Errorf("transaction %x: got the bytes of %x, %w", txid, tx.TxHash(), orNone(err))
	}
	return followedTx{changes, state}, nil
}

func find(c settle.Changes, txid [32]byte) (settle.TxState, bool) {
	for _, s := range c.Txs {
		if s.TxID == txid {
			return s, true
		}
	}
	return settle.TxState{}, false
}
