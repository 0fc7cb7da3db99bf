package node

import (
	"context"
	"time"
)

// rebroadcastEvery is how often the wallet offers its payments again.
const rebroadcastEvery = 10 * time.Minute

// keepWallet finds what the seed owns already, then offers its payments again
// from time to time, and soon again while the chain is out of reach.
func (n *Node) keepWallet(ctx context.Context) error {
	restored := false
	retry := time.Second
	for {
		var err error
		if !restored {
			if err = n.wallet.Restore(ctx); err == nil {
				restored, err = true, n.keepBirthday()
			}
		}
		if restored && err == nil {
			err = n.wallet.Rebroadcast(ctx)
		}
		pause := rebroadcastEvery
		if err == nil {
			retry = time.Second
		} else if ctx.Err() == nil {
			n.cfg.Log.Debug("the wallet asks the chain", "error", err)
			pause, retry = retry, min(2*retry, time.Minute)
		}
		if n.vault.overdue(time.Now()) && !n.wallet.Locked() {
			n.wallet.Lock()
			n.hub.tell("wallet", "", "locked")
		}
		if idle := n.cfg.LockAfter; idle > 0 {
			pause = min(pause, max(idle/10, 100*time.Millisecond))
		}
		select {
		case <-time.After(pause):
		case <-n.vault.stored: // a payment waits for the chain
		case <-ctx.Done():
			return nil
		}
	}
}
