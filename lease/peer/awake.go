package peer

import (
	"context"
	"sync/atomic"
	"time"
)

// awakeParts is into how many parts awake cuts a time.
const awakeParts = 20

// awake is a context that ends after a time in which this process ran. While it
// stands still, or all of the machine does, no more than a part of the time goes
// by: who answers meanwhile is not late.
func awake(parent context.Context, d time.Duration) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var left atomic.Int64
	left.Store(awakeParts)
	var timer *time.Timer
	timer = time.AfterFunc(time.Hour, func() { // it runs after the Reset below
		if left.Add(-1) > 0 {
			timer.Reset(d / awakeParts)
		} else {
			cancel(context.DeadlineExceeded)
		}
	})
	timer.Reset(d / awakeParts)
	return ctx, func() {
		left.Store(0)
		timer.Stop()
		cancel(context.Canceled)
	}
}
