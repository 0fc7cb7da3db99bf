package pktd

import (
	"context"
	"time"
)

// AskedSince reports whether the node was asked for its best block since then.
func (d *Driver) AskedSince(t time.Time) bool {
	if d.mu.enter(context.Background()) != nil {
		return false
	}
	defer d.mu.leave()
	return d.fresh.After(t)
}
