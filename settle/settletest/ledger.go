package settletest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// LedgerFixture is a ledger under test and the power over its chain that the
// test needs. Nobody else may use the chain meanwhile.
type LedgerFixture struct {
	Ledger settle.Ledger
	// Salt makes the test's scripts others than those of earlier runs on the same
	// chain; empty where there are none.
	Salt string
	// Mine adds n blocks; what waits in the mempool goes into the first.
	Mine func(ctx context.Context, n int) error
	// Fund pays amount to script in a confirmed transaction with one such output.
	Fund func(ctx context.Context, script []byte, amount pktcloud.Amount) error
	// Invalidate takes the best n blocks back, or lets n+1 empty ones overtake
	// them; what they held waits in the mempool again. nil where the chain cannot.
	Invalidate func(ctx context.Context, n int) error
	// Restart returns a ledger over the same chain that has learnt nothing yet;
	// nil where a ledger keeps all there is.
	Restart func() (settle.Ledger, error)
	// Break makes the chain unreachable, for good; nil where that cannot be.
	Break func() error
}

const (
	ledgerFee = 1000 // of a test transaction of about 110 virtual bytes
	ledgerSum = 5_000_000
	// waitLimit bounds a wait that should end at once.
	waitLimit = 30 * time.Second
)

// TestLedger tries each promise of [settle.Ledger] and returns an error that
// names the first one broken, by its rule in spec/ledger.md. Every driver and
// twin passes it.
func TestLedger(ctx context.Context, f LedgerFixture) error {
	steps := []struct {
		name string
		run  func(context.Context, LedgerFixture) error
	}{
		{"LEDGER-2", ledgerTips},
		{"LEDGER-5", ledgerUnknown},
		{"LEDGER-6", ledgerLife},
		{"LEDGER-4", ledgerRefusals},
		{"LEDGER-8", ledgerCoins},
		{"LEDGER-12", ledgerReplacement},
		{"LEDGER-15", ledgerWatch},
		{"LEDGER-17", ledgerFollow},
		{"LEDGER-1", ledgerOneState},
		{"LEDGER-18", ledgerSearch},
		{"LEDGER-9", ledgerReorg},
		{"LEDGER-10", ledgerFeeRate},
		{"LEDGER-11", ledgerBroken},
	}
	for i, s := range steps {
		if err := s.run(ctx, f); err != nil {
			return fmt.Errorf("[%s] step %d: %w", s.name, i+1, err)
		}
	}
	return nil
}

func ledgerTips(ctx context.Context, f LedgerFixture) error {
	first, err := f.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if tip, err := f.Ledger.WaitTip(bounded, first); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("WaitTip on an unchanged chain: got %v, %v; want the context's error", tip, err)
	}
	waited := make(chan error, 1)
	go func() {
		bounded, cancel := context.WithTimeout(ctx, waitLimit)
		defer cancel()
		tip, err := f.Ledger.WaitTip(bounded, first)
		if err == nil && tip == first {
			err = errors.New("WaitTip returned the block that it was given")
		}
		waited <- err
	}()
	if err := errors.Join(f.Mine(ctx, 1), <-waited); err != nil {
		return err
	}
	second, err := f.Ledger.WaitTip(ctx, first) // returns at once
	if err != nil {
		return err
	}
	if second.Height != first.Height+1 || second.Hash == first.Hash || second.Time <= 0 {
		return fmt.Errorf("after one block: got %+v after %+v", second, first)
	}
	return nil
}

func ledgerUnknown(ctx context.Context, f LedgerFixture) error {
	out, err := f.Ledger.Output(ctx, settle.Outpoint{TxID: [32]byte{1, 2, 3}, Index: 4})
	if err != nil {
		return fmt.Errorf("unknown output: %w", err)
	}
	if out.Known || out.Spend != nil {
		return fmt.Errorf("unknown output: got %+v", out)
	}
	coins, err := f.Ledger.Coins(ctx, f.key("nobody").script)
	if err != nil {
		return fmt.Errorf("coins of an unused script: %w", err)
	}
	if len(coins) != 0 {
		return fmt.Errorf("coins of an unused script: got %d", len(coins))
	}
	return nil
}

// fundKey pays a fresh key and returns its coin.
func fundKey(ctx context.Context, f LedgerFixture, name string) (testKey, settle.Coin, error) {
	key := f.key(name)
	if err := f.Fund(ctx, key.script, ledgerSum); err != nil {
		return key, settle.Coin{}, fmt.Errorf("fund: %w", err)
	}
	coins, err := f.Ledger.Coins(ctx, key.script)
	if err != nil {
		return key, settle.Coin{}, err
	}
	if len(coins) != 1 {
		return key, settle.Coin{}, fmt.Errorf("coins of a funded script: got %d, want 1", len(coins))
	}
	c := coins[0]
	if c.Amount != ledgerSum || !bytes.Equal(c.Script, key.script) || c.Depth == 0 {
		return key, c, fmt.Errorf("coin of a funded script: got %+v", c)
	}
	return key, c, nil
}

// ledgerLife follows an output from its creation to its spend.
func ledgerLife(ctx context.Context, f LedgerFixture) error {
	key, coin, err := fundKey(ctx, f, "life")
	if err != nil {
		return err
	}
	before, err := f.Ledger.Output(ctx, coin.At)
	if err != nil {
		return err
	}
	if !before.Known || before.Amount != ledgerSum || before.Depth != coin.Depth || before.Spend != nil || !bytes.Equal(before.Script, key.script) {
		return fmt.Errorf("funded output: got %+v", before)
	}
	to := f.key("life to")
	spend, err := key.spend(coin, to.script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	made := settle.Outpoint{TxID: spend.txid}
	if err := wantOutput(ctx, f, made, settle.Output{}); err != nil {
		return fmt.Errorf("before broadcast: %w", err)
	}
	for depth := range uint64(3) {
		for range 2 { // twice: idempotent, before and after it is mined
			if err := f.Ledger.Broadcast(ctx, spend.raw); err != nil {
				return fmt.Errorf("[LEDGER-3] broadcast at depth %d: %w", depth, err)
			}
		}
		if err := wantSpent(ctx, f, coin, spend, before.Depth+depth, depth); err != nil {
			return err
		}
		want := settle.Output{Known: true, Amount: ledgerSum - ledgerFee, Script: to.script, Depth: depth}
		if err := wantOutput(ctx, f, made, want); err != nil {
			return err
		}
		if err := f.Mine(ctx, 1); err != nil {
			return err
		}
	}
	return ledgerSpentAgain(ctx, f, to, spend)
}

// ledgerSpentAgain spends the spend's output too: the chain then knows the
// first spend only by its history, and it must still be welcome.
func ledgerSpentAgain(ctx context.Context, f LedgerFixture, key testKey, first testTx) error {
	coins, err := f.Ledger.Coins(ctx, key.script)
	if err != nil || len(coins) != 1 {
		return fmt.Errorf("coins of the spend: got %d, %w", len(coins), err)
	}
	second, err := key.spend(coins[0], f.key("life end").script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	if err := errors.Join(f.Ledger.Broadcast(ctx, second.raw), f.Mine(ctx, 1)); err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, first.raw); err != nil {
		return fmt.Errorf("[LEDGER-3] broadcast of a mined transaction whose outputs are spent: %w", err)
	}
	return nil
}

func wantSpent(ctx context.Context, f LedgerFixture, coin settle.Coin, by testTx, outDepth, spendDepth uint64) error {
	want := settle.Output{
		Known: true, Amount: coin.Amount, Script: coin.Script, Depth: outDepth,
		Spend: &settle.Spend{TxID: by.txid, Raw: by.raw, Depth: spendDepth},
	}
	if err := wantOutput(ctx, f, coin.At, want); err != nil {
		return fmt.Errorf("[LEDGER-7] %w", err)
	}
	coins, err := f.Ledger.Coins(ctx, coin.Script)
	if err != nil {
		return err
	}
	if len(coins) != 0 {
		return fmt.Errorf("[LEDGER-8] coins of a script whose coin is spent at depth %d: got %d", spendDepth, len(coins))
	}
	return nil
}

func wantOutput(ctx context.Context, f LedgerFixture, at settle.Outpoint, want settle.Output) error {
	got, err := f.Ledger.Output(ctx, at)
	if err != nil {
		return err
	}
	if got.Known != want.Known || got.Amount != want.Amount || !bytes.Equal(got.Script, want.Script) || got.Depth != want.Depth {
		return fmt.Errorf("output: got %+v, want %+v", got, want)
	}
	switch {
	case (got.Spend == nil) != (want.Spend == nil):
		return fmt.Errorf("spend: got %v, want %v", got.Spend, want.Spend)
	case got.Spend != nil && (got.Spend.TxID != want.Spend.TxID || !bytes.Equal(got.Spend.Raw, want.Spend.Raw) || got.Spend.Depth != want.Spend.Depth):
		return fmt.Errorf("spend: got %x at depth %d, want %x at depth %d", got.Spend.TxID, got.Spend.Depth, want.Spend.TxID, want.Spend.Depth)
	}
	return nil
}

func ledgerRefusals(ctx context.Context, f LedgerFixture) error {
	key, coin, err := fundKey(ctx, f, "refusals")
	if err != nil {
		return err
	}
	tip, err := f.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	missing := coin
	missing.At.TxID[0] ^= 1
	to := f.key("refusals to").script
	for _, c := range []struct {
		name string
		coin settle.Coin
		by   testKey
		fee  pktcloud.Amount
		opt  spendOptions
	}{
		{"wrong key", coin, f.key("thief"), ledgerFee, spendOptions{prevScript: key.script}},
		{"fee below the floor", coin, key, 1, spendOptions{}},
		{"dust", coin, key, ledgerSum - 10, spendOptions{}},
		{"locked until a later block", coin, key, ledgerFee, spendOptions{lockTime: uint32(tip.Height) + 5}},
		{"unknown input", missing, key, ledgerFee, spendOptions{}},
	} {
		tx, err := c.by.spend(c.coin, to, c.fee, c.opt)
		if err != nil {
			return err
		}
		if err := f.Ledger.Broadcast(ctx, tx.raw); !errors.Is(err, settle.ErrRejected) {
			return fmt.Errorf("%s: got %w, want ErrRejected", c.name, orNone(err))
		}
	}
	if err := f.Ledger.Broadcast(ctx, []byte("no transaction")); !errors.Is(err, settle.ErrRejected) {
		return fmt.Errorf("bytes that are no transaction: got %w, want ErrRejected", orNone(err))
	}
	want := settle.Output{Known: true, Amount: coin.Amount, Script: coin.Script, Depth: coin.Depth}
	if err := wantOutput(ctx, f, coin.At, want); err != nil {
		return fmt.Errorf("after refusals: %w", err)
	}
	// A lock that has passed is no reason any more.
	late, err := key.spend(coin, to, ledgerFee, spendOptions{lockTime: uint32(tip.Height) + 5})
	if err != nil {
		return err
	}
	if err := f.Mine(ctx, 5); err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, late.raw); err != nil {
		return fmt.Errorf("a lock that has passed: %w", err)
	}
	return f.Mine(ctx, 1)
}

var errNone = errors.New("no error")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// ledgerCoins wants a script's coins oldest first, the mempool's last.
func ledgerCoins(ctx context.Context, f LedgerFixture) error {
	key := f.key("coins")
	sums := []pktcloud.Amount{30_000, 10_000, 20_000}
	for _, sum := range sums {
		if err := f.Fund(ctx, key.script, sum); err != nil {
			return err
		}
	}
	from, coin, err := fundKey(ctx, f, "coins from")
	if err != nil {
		return err
	}
	tx, err := from.spend(coin, key.script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, tx.raw); err != nil {
		return err
	}
	sums = append(sums, ledgerSum-ledgerFee)
	coins, err := f.Ledger.Coins(ctx, key.script)
	if err != nil {
		return err
	}
	if len(coins) != len(sums) {
		return fmt.Errorf("got %d coins, want %d", len(coins), len(sums))
	}
	for i, c := range coins {
		if c.Amount != sums[i] || (c.Depth == 0) != (i == len(sums)-1) {
			return fmt.Errorf("coin %d: got %d units at depth %d, want %d, oldest first", i, c.Amount, c.Depth, sums[i])
		}
	}
	return f.Mine(ctx, 1)
}

func ledgerReplacement(ctx context.Context, f LedgerFixture) error {
	key, coin, err := fundKey(ctx, f, "replaced")
	if err != nil {
		return err
	}
	low, errLow := key.spend(coin, f.key("low").script, ledgerFee, spendOptions{replaceable: true})
	step, errStep := key.spend(coin, f.key("step").script, ledgerFee+1, spendOptions{replaceable: true})
	high, errHigh := key.spend(coin, f.key("high").script, 5*ledgerFee, spendOptions{})
	other, errOther := key.spend(coin, f.key("other").script, 20*ledgerFee, spendOptions{})
	if err := errors.Join(errLow, errStep, errHigh, errOther); err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, low.raw); err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, step.raw); !errors.Is(err, settle.ErrRejected) {
		return fmt.Errorf("replacement by one unit: got %w, want ErrRejected", orNone(err))
	}
	if err := f.Ledger.Broadcast(ctx, high.raw); err != nil {
		return fmt.Errorf("replacement: %w", err)
	}
	if err := wantOutput(ctx, f, settle.Outpoint{TxID: low.txid}, settle.Output{}); err != nil {
		return fmt.Errorf("what was replaced: %w", err)
	}
	if err := f.Ledger.Broadcast(ctx, other.raw); !errors.Is(err, settle.ErrRejected) {
		return fmt.Errorf("[LEDGER-4] replacing what does not signal it: got %w, want ErrRejected", orNone(err))
	}
	if err := wantSpent(ctx, f, coin, high, coin.Depth, 0); err != nil {
		return err
	}
	if err := f.Mine(ctx, 1); err != nil {
		return err
	}
	if err := wantSpent(ctx, f, coin, high, coin.Depth+1, 1); err != nil {
		return err
	}
	if err := f.Ledger.Broadcast(ctx, low.raw); !errors.Is(err, settle.ErrRejected) {
		return fmt.Errorf("[LEDGER-4] spending what is spent: got %w, want ErrRejected", orNone(err))
	}
	return nil
}

// ledgerOneState reads while blocks come: an output and its spend always move
// together.
func ledgerOneState(ctx context.Context, f LedgerFixture) error {
	key, coin, err := fundKey(ctx, f, "state")
	if err != nil {
		return err
	}
	tx, err := key.spend(coin, f.key("state to").script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	if err := errors.Join(f.Ledger.Broadcast(ctx, tx.raw), f.Mine(ctx, 1)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				out, err := f.Ledger.Output(ctx, coin.At)
				if ctx.Err() != nil {
					return
				}
				if err == nil && (out.Spend == nil || out.Depth != out.Spend.Depth+coin.Depth) {
					err = fmt.Errorf("an output and its spend from two states: %d and %v", out.Depth, out.Spend)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	var mineErr error
	for i := 0; i < 5 && mineErr == nil && ctx.Err() == nil; i++ {
		mineErr = f.Mine(ctx, 1)
	}
	cancel(nil) // the first cause counts
	readers.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return mineErr
}

func ledgerReorg(ctx context.Context, f LedgerFixture) error {
	if f.Invalidate == nil {
		return nil
	}
	key, coin, err := fundKey(ctx, f, "reorg")
	if err != nil {
		return err
	}
	tx, err := key.spend(coin, f.key("reorg to").script, ledgerFee, spendOptions{})
	if err != nil {
		return err
	}
	// The blocks taken back begin below the spend's, so that a spend that is
	// still counted from a lost block shows.
	if err := errors.Join(f.Mine(ctx, 1), f.Ledger.Broadcast(ctx, tx.raw), f.Mine(ctx, 2)); err != nil {
		return err
	}
	before, err := f.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	if err := wantSpent(ctx, f, coin, tx, coin.Depth+3, 2); err != nil {
		return err
	}
	if err := f.Invalidate(ctx, 3); err != nil {
		return fmt.Errorf("invalidate: %w", err)
	}
	low, err := f.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	if low == before {
		return errors.New("after three blocks were taken back: the best block is the same")
	}
	depth := coin.Depth + 3 + low.Height - before.Height
	if err := wantSpent(ctx, f, coin, tx, depth, 0); err != nil {
		return fmt.Errorf("after three blocks were taken back: %w", err)
	}
	// The other branch grows longer than the first.
	if err := f.Mine(ctx, 4); err != nil {
		return err
	}
	after, err := f.Ledger.WaitTip(ctx, before)
	if err != nil {
		return err
	}
	if after.Height != low.Height+4 {
		return fmt.Errorf("height on the other branch: got %d, want %d", after.Height, low.Height+4)
	}
	return wantSpent(ctx, f, coin, tx, depth+4, 4)
}

func ledgerFeeRate(ctx context.Context, f LedgerFixture) error {
	rate, err := f.Ledger.FeeRate(ctx)
	if err == nil && rate < settle.RelayFloor {
		err = fmt.Errorf("got %d, want %d or more", rate, settle.RelayFloor)
	}
	return err
}

func ledgerBroken(ctx context.Context, f LedgerFixture) error {
	if f.Break == nil {
		return nil
	}
	last, err := f.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	if err := f.Break(); err != nil {
		return fmt.Errorf("break: %w", err)
	}
	_, tip := f.Ledger.Tip(ctx)
	_, wait := f.Ledger.WaitTip(ctx, last)
	_, output := f.Ledger.Output(ctx, settle.Outpoint{})
	_, coins := f.Ledger.Coins(ctx, f.key("broken").script)
	send := f.Ledger.Broadcast(ctx, emptyTx)
	for name, err := range map[string]error{"Tip": tip, "WaitTip": wait, "Output": output, "Coins": coins, "Broadcast": send} {
		if !errors.Is(err, settle.ErrLedgerUnavailable) {
			return fmt.Errorf("%s: got %w, want ErrLedgerUnavailable", name, orNone(err))
		}
	}
	return nil
}
