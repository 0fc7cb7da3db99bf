package manager

import (
	"context"
	"errors"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// Look does for the tests what Run does at a block, without its goroutine.
func (m *Manager) Look(ctx context.Context) error {
	tip, err := m.cfg.Ledger.Tip(ctx)
	if err == nil {
		err = m.look(ctx, tip)
	}
	if errors.Is(err, settle.ErrLedgerUnavailable) {
		m.mu.Lock()
		m.sight.Lost = true
		m.mu.Unlock()
	}
	return err
}
