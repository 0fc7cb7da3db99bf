package settletest

import (
	"context"
	"errors"
	"fmt"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// ledgerWatch tries a ledger that was told what to look for before the chain
// has it, and one that was told afterwards and knows nothing else.
func ledgerWatch(ctx context.Context, f LedgerFixture) error {
	w, ok := f.Ledger.(settle.Watcher)
	if !ok {
		return nil
	}
	tip, err := f.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	from := tip.Height + 1
	name := f.key("watched")
	w.Watch(settle.Watch{Script: name.script, From: from})
	key, coin, err := fundKey(ctx, f, "watched")
	if err != nil {
		return err
	}
	to := f.key("watched to")
	tx, err := key.spend(coin, to.script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	made := settle.Outpoint{TxID: tx.txid}
	w.Watch(settle.Watch{Script: to.script, From: from}, settle.Watch{At: made, From: from})
	if err := errors.Join(f.Ledger.Broadcast(ctx, tx.raw), f.Mine(ctx, 2)); err != nil {
		return err
	}
	if err := watched(ctx, f, key, coin, tx); err != nil || f.Restart == nil {
		return err
	}
	again, err := f.Restart()
	if err != nil {
		return err
	}
	if w, ok = again.(settle.Watcher); !ok {
		return errors.New("the restarted ledger is no Watcher")
	}
	f.Ledger = again
	w.Watch(settle.Watch{At: coin.At, From: tip.Height + 100}) // a height that is wrong, and then put right
	if _, err := again.Output(ctx, coin.At); err != nil {
		return err
	}
	w.Watch(
		settle.Watch{Script: key.script, From: from}, settle.Watch{At: coin.At, From: from},
		settle.Watch{Script: to.script, From: from}, settle.Watch{At: made, From: from},
	)
	if err := watched(ctx, f, key, coin, tx); err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	return nil
}

// watched wants a spent coin and the output that it became.
func watched(ctx context.Context, f LedgerFixture, key testKey, coin settle.Coin, tx testTx) error {
	if err := wantSpent(ctx, f, coin, tx, coin.Depth+2, 2); err != nil {
		return err
	}
	to := f.key("watched to").script
	want := settle.Output{Known: true, Amount: coin.Amount - ledgerFee, Script: to, Depth: 2}
	if err := wantOutput(ctx, f, settle.Outpoint{TxID: tx.txid}, want); err != nil {
		return err
	}
	w := f.Ledger.(settle.Watcher)
	for _, script := range [][]byte{key.script, to} {
		used, err := w.Used(ctx, script)
		if err != nil {
			return err
		}
		if !used {
			return fmt.Errorf("[LEDGER-13] script %x: got not used, want used", script)
		}
	}
	used, err := w.Used(ctx, f.key("watched by nobody").script)
	if err == nil && used {
		err = errors.New("[LEDGER-13] a script that was never paid: got used")
	}
	return err
}
