package wallet

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// branch is one chain of addresses of one account.
type branch struct {
	account, chain uint32
	next           uint32 // index of the first address that was not given out
	used           uint32 // first index that is not known to be used
	spare          uint32 // counts addresses given out again
	watched        uint32 // addresses named to the ledger
	followed       uint32 // addresses whose transactions the index has
}

func (b *branch) place(index uint32) place { return place{b.account, b.chain, index} }

func (b *branch) key() string {
	if b.account == 0 {
		return nextPrefix + strconv.FormatUint(uint64(b.chain), 10)
	}
	return fmt.Sprintf("%s%d/%d", nextPrefix, b.account, b.chain)
}

func (w *Wallet) branch(account, chain uint32) *branch { return w.branches[chains*account+chain] }

// addBranches derives the next account's keys. It is watched before it is in
// use, so that a restored wallet finds it.
func (w *Wallet) addBranches() error {
	if err := w.keys.add(); err != nil {
		return err
	}
	account := uint32(len(w.keys.accounts) - 1)
	for chain := range uint32(chains) {
		w.branches = append(w.branches, &branch{account: account, chain: chain})
	}
	return nil
}

func (w *Wallet) loadAccounts(ctx context.Context) error {
	err := w.cfg.Store.Load(ctx, accountPrefix, func(key string, value []byte) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(key, accountPrefix), 10, 32)
		if err != nil || n == 0 || n >= MaxAccounts {
			return fmt.Errorf("key %q", key)
		}
		for uint64(len(w.names)) <= n {
			w.names = append(w.names, "")
		}
		w.names[n] = string(value)
		return nil
	})
	if err != nil {
		return err
	}
	for range len(w.names) + 1 {
		if err := w.addBranches(); err != nil {
			return err
		}
	}
	return w.cfg.Store.Load(ctx, nextPrefix, func(key string, value []byte) error {
		for _, b := range w.branches {
			if b.key() == key {
				next, err := strconv.ParseUint(string(value), 10, 31)
				b.next = uint32(next)
				return err
			}
		}
		return fmt.Errorf("key %q", key)
	})
}

// Account is a BIP 84 account of the wallet.
type Account struct {
	Number  uint32 // of the path m/84'/coin'/number'
	Name    string // empty for the first one, unless it was given one
	Balance Balance
}

// Accounts returns the accounts in the order of their numbers.
func (w *Wallet) Accounts(ctx context.Context) ([]Account, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return nil, err
	}
	var all []Account
	for i, name := range w.names {
		b, err := w.balance(uint32(i))
		if err != nil {
			return nil, err
		}
		all = append(all, Account{Number: uint32(i), Name: name, Balance: b})
	}
	return all, nil
}

// AddAccount makes the next account. A wallet that is restored finds accounts
// only up to the first that was never paid, so there is one such at most
// [WALLET-40]. Errors match settle.ErrMalformed, ErrLocked or those of the
// ledger and the store.
func (w *Wallet) AddAccount(ctx context.Context, name string) (number uint32, err error) {
	if err := checkLabel(name); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return 0, err
	}
	last := uint32(len(w.names) - 1)
	if !w.accountUsed(last) {
		return 0, settle.Refuse(settle.ErrMalformed, "account %d was never paid; use it before you make another, or a restored wallet would not find that one", last)
	}
	return last + 1, w.openAccount(ctx, name)
}

func (w *Wallet) accountUsed(account uint32) bool {
	return w.branch(account, external).used+w.branch(account, change).used > 0
}

// openAccount puts the account that is watched ahead in use.
func (w *Wallet) openAccount(ctx context.Context, name string) error {
	number := len(w.names)
	if number >= MaxAccounts {
		return settle.Refuse(settle.ErrMalformed, "a wallet has %d accounts at most", MaxAccounts)
	}
	if w.keys.coin == nil {
		return ErrLocked
	}
	put := Put{Key: accountPrefix + strconv.Itoa(number), Value: []byte(name)}
	if err := w.cfg.Store.Apply(ctx, []Put{put}); err != nil {
		return fmt.Errorf("store account: %w", err)
	}
	w.names = append(w.names, name)
	return w.addBranches()
}

// checkAccount refuses an account that is not there.
func (w *Wallet) checkAccount(account uint32) error {
	if uint64(account) >= uint64(len(w.names)) {
		return settle.Refuse(settle.ErrUnknown, "there is no account %d", account)
	}
	return nil
}

// NewAddress returns an address of account 0 that was not given out before, as
// long as fewer than GapLimit in a row are unused; then one of those again
// [WALLET-6].
func (w *Wallet) NewAddress(ctx context.Context) (string, error) {
	return w.NewAddressOf(ctx, 0)
}

// NewAddressOf is NewAddress for any account.
func (w *Wallet) NewAddressOf(ctx context.Context, account uint32) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.checkAccount(account); err != nil {
		return "", err
	}
	script, err := w.fresh(ctx, w.branch(account, external))
	if err != nil {
		return "", err
	}
	return w.cfg.Network.Address(script)
}

// ReceiveScript is NewAddress as an output script.
func (w *Wallet) ReceiveScript(ctx context.Context) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fresh(ctx, w.branch(0, external))
}

// fresh takes the next script of a chain of addresses; its index is durable
// before the script is known to anybody [WALLET-5]. The caller holds w.mu.
func (w *Wallet) fresh(ctx context.Context, b *branch) ([]byte, error) {
	if b.next-b.used >= GapLimit {
		w.findUsed(ctx, b)
	}
	if open := b.next - b.used; open >= GapLimit {
		b.spare++
		return w.keys.script(b.place(b.used + b.spare%open))
	}
	index := b.next
	script, err := w.keys.script(b.place(index))
	if err != nil {
		return nil, err
	}
	if err := w.beBorn(ctx); err != nil {
		return nil, err
	}
	if err := w.saveNext(ctx, b, index+1); err != nil {
		return nil, err
	}
	return script, nil
}

// Recall counts an address of account 0 as given out that an earlier store of
// this seed gave out, and that was not paid yet, so that no search of the chain
// found it [WALLET-60]. A script that is not among the next 2·GapLimit is left
// alone: no store gave it out.
func (w *Wallet) Recall(ctx context.Context, script []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.branch(0, external)
	for i := b.next; i < b.next+lookAhead; i++ {
		own, err := w.keys.script(b.place(i))
		if err != nil {
			return err
		}
		if bytes.Equal(own, script) {
			return w.saveNext(ctx, b, i+1)
		}
	}
	return nil
}

func (w *Wallet) saveNext(ctx context.Context, b *branch, next uint32) error {
	put := Put{Key: b.key(), Value: strconv.AppendUint(nil, uint64(next), 10)}
	if err := w.cfg.Store.Apply(ctx, []Put{put}); err != nil {
		return fmt.Errorf("store address index: %w", err)
	}
	b.next = next
	return nil
}

// findUsed looks for the last used one of the addresses given out. When the
// chain does not answer, none counts as used: giving an address out twice is
// better than one that a restored wallet would not find.
func (w *Wallet) findUsed(ctx context.Context, b *branch) {
	if w.follower != nil {
		_ = w.refresh(ctx) // notes what is used
		return
	}
	if w.watch(ctx) != nil {
		return
	}
	for i := b.next; i > b.used; i-- {
		script, err := w.keys.script(b.place(i - 1))
		if err != nil {
			return
		}
		used, err := w.wasUsed(ctx, script)
		if err != nil {
			return
		}
		if used {
			b.used = i
			return
		}
	}
}

func (w *Wallet) wasUsed(ctx context.Context, script []byte) (bool, error) {
	if w.watcher != nil {
		return w.watcher.Used(ctx, script)
	}
	coins, err := w.cfg.Ledger.Coins(ctx, script)
	return len(coins) > 0, err
}

// Restore searches the chain for addresses of the seed that were used before,
// until GapLimit in a row were not, in each account up to the first that was
// never used, and makes what it found durable [WALLET-7]. On a ledger that is
// no settle.Watcher only addresses that hold coins count as used. Errors match
// settle.ErrLedgerUnavailable or ErrLocked; calling it again is harmless.
func (w *Wallet) Restore(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.watch(ctx); err != nil {
		return fmt.Errorf("search for used addresses: %w", err)
	}
	for account := uint32(0); ; account++ {
		for chain := range uint32(chains) {
			if err := w.restore(ctx, w.branch(account, chain)); err != nil {
				return err
			}
		}
		if uint64(account) < uint64(len(w.names)) {
			continue
		}
		if !w.accountUsed(account) || len(w.names) >= MaxAccounts {
			return nil
		}
		if err := w.openAccount(ctx, ""); err != nil {
			return err
		}
	}
}

func (w *Wallet) restore(ctx context.Context, b *branch) error {
	found := b.next
	for i := uint32(0); i < found+GapLimit; i++ {
		if i >= b.watched { // beyond what was looked ahead
			if err := w.watchTo(b, i+lookAhead, w.birthday); err != nil {
				return err
			}
		}
		script, err := w.keys.script(b.place(i))
		if err != nil {
			return err
		}
		used, err := w.wasUsed(ctx, script)
		if err != nil {
			return fmt.Errorf("search for used addresses: %w", err)
		}
		if used {
			found, b.used = max(found, i+1), max(b.used, i+1)
		}
	}
	if found > b.next {
		return w.saveNext(ctx, b, found)
	}
	return nil
}
