package gossip

import (
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	b := newBuckets[string](3, 2)
	at := time.Unix(1000, 0)
	for n := range 3 {
		if wait := b.take("x", at); wait != 0 {
			t.Fatalf("token %d: got a wait of %s, want none", n, wait)
		}
	}
	wait := b.take("x", at)
	if wait < 400*time.Millisecond || wait > 600*time.Millisecond {
		t.Fatalf("got a wait of %s, want half a second", wait)
	}
	if b.take("y", at) != 0 {
		t.Error("one key's tokens were taken from another")
	}
	if b.take("x", at.Add(wait)) != 0 {
		t.Error("no token after the wait")
	}
	if b.take("x", at.Add(-time.Hour)) == 0 {
		t.Error("a clock that went back gave a token")
	}
}

func TestBucketsForget(t *testing.T) {
	b := newBuckets[int](3, 2)
	for n := range 3 * maxRemembered {
		b.take(n, time.Unix(1000, 0))
	}
	if len(b.levels) > maxRemembered {
		t.Errorf("got %d buckets, want at most %d", len(b.levels), maxRemembered)
	}
}
