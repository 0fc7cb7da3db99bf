package gossip

import "time"

// buckets is one token bucket for each key. The caller guards it.
type buckets[K comparable] struct {
	burst     float64
	perSecond float64
	levels    map[K]level
}

type level struct {
	tokens float64
	at     time.Time
}

func newBuckets[K comparable](burst, perSecond float64) *buckets[K] {
	return &buckets[K]{burst: burst, perSecond: perSecond, levels: map[K]level{}}
}

// take takes a token of key and returns zero, or returns how long to wait for
// the next one.
func (b *buckets[K]) take(key K, now time.Time) time.Duration {
	l, ok := b.levels[key]
	if !ok {
		b.makeRoom(now)
		l = level{tokens: b.burst, at: now}
	}
	l = b.refill(l, now)
	if l.tokens < 1 {
		b.levels[key] = l
		return time.Duration((1-l.tokens)/b.perSecond*float64(time.Second)) + time.Millisecond
	}
	l.tokens--
	b.levels[key] = l
	return 0
}

func (b *buckets[K]) refill(l level, now time.Time) level {
	if passed := now.Sub(l.at).Seconds(); passed > 0 {
		l.tokens = min(b.burst, l.tokens+passed*b.perSecond)
	}
	l.at = now
	return l
}

// makeRoom forgets full buckets, which say nothing, and then any others until
// a quarter is free: memory is bounded before fairness.
func (b *buckets[K]) makeRoom(now time.Time) {
	if len(b.levels) < maxRemembered {
		return
	}
	for key, l := range b.levels {
		if b.refill(l, now).tokens >= b.burst {
			delete(b.levels, key)
		}
	}
	for key := range b.levels {
		if len(b.levels) <= maxRemembered*3/4 {
			return
		}
		delete(b.levels, key)
	}
}
