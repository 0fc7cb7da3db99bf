package node

import (
	"context"
	"time"
)

// rebroadcastEvery is how often the wallet offers its payments again.
const rebroadcastEvery = 10 * time.Minute

// keepWallet finds what the seed owns already, then offers its payments again
// from time to time.
func (n *Node) keepWallet(ctx context.Context) error {
	restored := false
	wait := time.Second
	for {
		var err error
		if !restored {
			err = n.wallet.Restore(ctx)
			restored = err == nil
			if restored {
				err = n.keepBirthday()
			}
		} else {
			err = n.wallet.Rebroadcast(ctx)
		}
		if err != nil && ctx.Err() == nil {
			n.cfg.Log.Debug("the wallet asks the chain", "error", err)
		}
		pause := rebroadcastEvery
		if n.vault.overdue(time.Now()) {
			n.wallet.Lock()
			n.hub.tell("wallet", "", "locked")
		}
		if idle := n.cfg.LockAfter; idle > 0 {
			pause = min(pause, max(idle/10, time.Second))
		}
		if !restored {
			pause, wait = wait, min(2*wait, time.Minute)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}
