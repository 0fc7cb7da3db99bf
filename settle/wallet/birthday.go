package wallet

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// openBirthday reads the birthday, or takes the first one [WALLET-8], and names
// the wallet's addresses to the ledger, so that its first search covers them.
func (w *Wallet) openBirthday(ctx context.Context) error {
	known := false
	err := w.cfg.Store.Load(ctx, birthdayKey, func(_ string, value []byte) (err error) {
		known = true
		w.birthday, err = strconv.ParseUint(string(value), 10, 64)
		return err
	})
	if err != nil {
		return fmt.Errorf("birthday: %w", err)
	}
	unused := !slices.ContainsFunc(w.branches, func(b *branch) bool { return b.next > 0 })
	switch {
	case known:
	case w.cfg.New && unused:
		w.unborn = true
	case unused && w.cfg.Birthday > 0:
		if err := w.saveBirthday(ctx, w.cfg.Birthday); err != nil {
			return err
		}
	}
	if !w.unborn {
		return w.watchAll(w.birthday)
	}
	return nil
}

func (w *Wallet) saveBirthday(ctx context.Context, height uint64) error {
	put := Put{Key: birthdayKey, Value: strconv.AppendUint(nil, height, 10)}
	if err := w.cfg.Store.Apply(ctx, []Put{put}); err != nil {
		return fmt.Errorf("store birthday: %w", err)
	}
	w.birthday, w.unborn = height, false
	return nil
}

// Birthday is a height below which no coin of the seed lies: with the phrase it
// makes a restored wallet find its coins sooner. It is false while a new wallet
// has not seen the chain yet.
func (w *Wallet) Birthday() (height uint64, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.birthday, !w.unborn
}

// beBorn takes the birthday of a new seed from the chain. When the chain does
// not answer, it is zero: an address may be paid before the chain is seen. The
// caller holds w.mu.
func (w *Wallet) beBorn(ctx context.Context) error {
	if !w.unborn {
		return nil
	}
	height := uint64(0)
	if tip, err := w.cfg.Ledger.Tip(ctx); err == nil {
		height = settle.Birthday(tip.Height)
	}
	return w.saveBirthday(ctx, height)
}

// watch names the addresses that were given out since the last call, and some
// ahead of them. What was beyond those then was paid later, if at all: it is
// looked for from the height of that call on. The caller holds w.mu.
func (w *Wallet) watch(ctx context.Context) error {
	if w.watcher == nil {
		return nil
	}
	tip, err := w.cfg.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	if tip.Height < w.birthday && w.cfg.Network.BlockTime == 0 { // a test chain that began anew
		if err := w.saveBirthday(ctx, 0); err != nil {
			return err
		}
		w.seen = 0
		for _, b := range w.branches {
			b.watched = 0
		}
		w.forget()
	}
	if w.unborn {
		if err := w.saveBirthday(ctx, settle.Birthday(tip.Height)); err != nil {
			return err
		}
	}
	if err := w.watchAll(max(w.birthday, settle.Birthday(w.seen))); err != nil {
		return err
	}
	w.seen = tip.Height
	return nil
}

func (w *Wallet) watchAll(from uint64) error {
	for _, b := range w.branches {
		if err := w.watchTo(b, b.next+lookAhead, from); err != nil {
			return err
		}
	}
	return nil
}

// watchTo names the addresses of a chain below an index.
func (w *Wallet) watchTo(b *branch, end uint32, from uint64) error {
	if w.watcher == nil {
		return nil
	}
	for ; b.watched < end; b.watched++ {
		script, err := w.keys.script(b.place(b.watched))
		if err != nil {
			return err
		}
		w.watcher.Watch(settle.Watch{Script: script, From: from})
	}
	return nil
}
