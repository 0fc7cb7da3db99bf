package settle

import "time"

const (
	// SecondsPerBlock is how fast blocks are assumed to come while a chain is out
	// of sight: faster than they do, so that safety comes early [SETTLE-23].
	SecondsPerBlock = 45
	// StaleBlocks is for how many block times a chain may bring no block before
	// it counts as out of sight [SETTLE-34]. Where blocks come by chance, not one
	// in 10^13 takes as long.
	StaleBlocks = 30
)

// Sight is what a side last saw of its chain, in Unix seconds of its own clock.
type Sight struct {
	Tip   Tip
	First int64 // when the side first saw that block
	Last  int64 // when the ledger last answered
	Lost  bool  // the ledger does not answer
}

// See returns the sight after the ledger answered with a best block.
func (s Sight) See(tip Tip, now int64) Sight {
	if s.First == 0 || s.Tip.Height != tip.Height || s.Tip.Hash != tip.Hash && s.Tip.Hash != ([32]byte{}) {
		s.First = now
	}
	return Sight{Tip: tip, First: s.First, Last: now}
}

// Stale reports whether the best block is too old for a chain whose blocks come
// every blockTime: by its own time, as with a node that is still reading the
// chain, or by the time since it came, as with one that stands still. On a chain
// without a blockTime, where blocks come on demand, none is too old [SETTLE-34].
func (s Sight) Stale(now int64, blockTime time.Duration) bool {
	limit := StaleBlocks * int64(blockTime/time.Second)
	return limit > 0 && now-s.since() > limit
}

// since is the earlier of the two times that the best block has.
func (s Sight) since() int64 {
	if s.Tip.Time == 0 {
		return s.First
	}
	return min(s.Tip.Time, s.First)
}

// OutOfSight reports whether nothing that the ledger said of the best block
// holds any more.
func (s Sight) OutOfSight(now int64, blockTime time.Duration) bool {
	return s.Lost || s.Stale(now, blockTime)
}

// Height is the best block's height; while the chain is out of sight, what it
// may have become [SETTLE-23]. It is zero before a block was ever seen.
func (s Sight) Height(now int64, blockTime time.Duration) uint64 {
	since := s.Last
	switch {
	case s.Tip.Height == 0:
		return 0
	case s.Stale(now, blockTime):
		since = s.since()
	case !s.Lost:
		return s.Tip.Height
	}
	return s.Tip.Height + uint64(max(0, now-since))/SecondsPerBlock
}
