package netstack

import (
	"context"
	"sync"
	"time"
)

// bucket bounds bytes a second. A nil bucket bounds nothing.
type bucket struct {
	rate, burst float64

	mu    sync.Mutex
	level float64 // negative: borrowed, and waited for
	at    time.Time
}

func newBucket(rate uint64) *bucket {
	if rate == 0 {
		return nil
	}
	b := &bucket{rate: float64(rate), burst: max(float64(rate)/10, 16<<10), at: time.Now()}
	b.level = b.burst
	return b
}

func (b *bucket) refill(now time.Time) {
	b.level = min(b.burst, b.level+b.rate*now.Sub(b.at).Seconds())
	b.at = now
}

// wait takes n bytes and waits until they are due.
func (b *bucket) wait(ctx context.Context, n int) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	b.refill(time.Now())
	b.level -= float64(n)
	due := time.Duration(-b.level / b.rate * float64(time.Second))
	b.mu.Unlock()
	if due <= 0 {
		return nil
	}
	t := time.NewTimer(due)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take takes n bytes if they are there, and else none.
func (b *bucket) take(n int) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(time.Now())
	if b.level < float64(n) && b.level < b.burst {
		return false
	}
	b.level -= float64(n)
	return true
}
