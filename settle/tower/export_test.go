package tower

import (
	"context"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// Look does what Run does at a tip.
func (t *Tower) Look(ctx context.Context, tip settle.Tip) error { return t.look(ctx, tip) }

// CheckBook states what always holds.
func (t *Tower) CheckBook() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.book.Check()
}
