package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/keystore"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// vault says when the wallet was used last, and keeps guesses of its password
// one behind the other.
type vault struct {
	opening sync.Mutex    // held while a password is tried: each try costs a second
	stored  chan struct{} // holds one token when a payment waits for the chain

	mu    sync.Mutex // guards all below
	idle  time.Duration
	since time.Time
}

func (v *vault) touch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since = time.Now()
}

// overdue reports whether nobody paid for too long.
func (v *vault) overdue(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.idle > 0 && now.Sub(v.since) >= v.idle
}

// openVault begins the time of idleness.
func (n *Node) openVault() error {
	if n.cfg.LockAfter > 0 && n.unattended() {
		return service.Errorf(service.CodeConflict, "the keystore in %s starts unattended, its password lies beside it, so a lock would guard nothing; set one with \"pktcloud wallet password\"", n.cfg.Dir)
	}
	n.vault.idle = n.cfg.LockAfter
	n.vault.touch()
	return nil
}

// unattended reports whether the password lies in the data directory.
func (n *Node) unattended() bool {
	_, err := os.Stat(filepath.Join(n.cfg.Dir, passwordFile))
	return !errors.Is(err, os.ErrNotExist)
}

func (n *Node) lockState() service.LockState {
	return service.LockState{Locked: n.wallet.Locked(), Unattended: n.unattended(), AfterIdle: uint64(n.cfg.LockAfter.Seconds())}
}

// WalletLock forgets the wallet's keys until WalletUnlock.
func (n *Node) WalletLock(context.Context) (service.LockState, error) {
	if n.unattended() {
		return service.LockState{}, service.Errorf(service.CodeConflict, "the password lies in the data directory, so a lock would guard nothing; set one with \"pktcloud wallet password\" first")
	}
	n.wallet.Lock()
	n.hub.tell("wallet", "", "locked")
	return n.lockState(), nil
}

// WalletUnlock reads the keys from the keystore again.
func (n *Node) WalletUnlock(_ context.Context, r service.UnlockRequest) (service.LockState, error) {
	n.vault.opening.Lock()
	defer n.vault.opening.Unlock()
	if n.wallet.Locked() {
		k, err := keystore.Open(filepath.Join(n.cfg.Dir, keystoreFile), r.Password)
		if err != nil {
			return service.LockState{}, wrongPassword(err)
		}
		seed := k.Seed()
		k.Forget()
		err = n.wallet.Unlock(seed)
		clear(seed)
		if err != nil {
			return service.LockState{}, translate(err)
		}
		n.hub.tell("wallet", "", "unlocked")
	}
	n.vault.touch()
	return n.lockState(), nil
}

// WalletPassword changes the keystore's password. An unattended keystore asks
// for it at the next start.
func (n *Node) WalletPassword(_ context.Context, r service.PasswordRequest) (service.LockState, error) {
	n.vault.opening.Lock()
	defer n.vault.opening.Unlock()
	if r.New == "" {
		return service.LockState{}, service.Errorf(service.CodeInvalid, "the new password is empty")
	}
	path, beside := filepath.Join(n.cfg.Dir, keystoreFile), filepath.Join(n.cfg.Dir, passwordFile)
	old := r.Old
	if n.unattended() {
		stored, err := readPassword(n.cfg.Dir)
		if err != nil {
			return service.LockState{}, translate(err)
		}
		old = stored
	}
	if err := keystore.ChangePassword(path, old, r.New, 0); err != nil {
		return service.LockState{}, wrongPassword(err)
	}
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return service.LockState{}, translate(err)
	}
	return n.lockState(), nil
}

// wrongPassword is a refusal of what was asked, not of who asked: the token or
// session was right.
func wrongPassword(err error) error {
	if errors.Is(err, keystore.ErrPassword) {
		return service.Errorf(service.CodeForbidden, "the password is wrong")
	}
	return translate(err)
}
