package settle

import (
	"context"
	"fmt"
)

// Searcher is what a [Ledger] may offer besides [LEDGER-18]: a search of blocks
// for outputs that nobody can name beforehand, such as the sealed notes of a
// phrase.
type Searcher interface {
	// Search looks at blocks of the best chain above after, in ascending order,
	// at most MaxSearchBlocks of them, and returns the transactions with an
	// output whose script passes match, and the last block it looked at. When
	// after is not on the best chain, the search begins ReorgMargin below its
	// height; a zero Tip means the first block. Once it returns after, there
	// are no more blocks. It does not look at the mempool.
	Search(ctx context.Context, after Tip, match func(script []byte) bool) ([]Found, Tip, error)
}

// Found is a transaction that a search came upon.
type Found struct {
	Raw    []byte
	Height uint64 // of its block
}

// SearchFrom is the height of the first block that a search looks at; onChain
// says whether after is on the best chain.
func SearchFrom(after Tip, onChain bool) uint64 {
	if onChain {
		return after.Height + 1
	}
	return max(1, after.Height-min(after.Height, ReorgMargin))
}

// Searching is the answer of a [Ledger] that has to search its chain for what it
// was asked, and has not come to the end yet. It matches ErrLedgerUnavailable and
// Cause. Whoever asks again finds it further on.
type Searching struct {
	Next, End uint64 // the first block not looked at and the last one; zero if not known
	Cause     error  // why the answer could not wait
}

func (s *Searching) Error() string {
	return fmt.Sprintf("the chain is still searched, block %d of %d is next: %v", s.Next, s.End, s.Cause)
}

// Is reports whether target is ErrLedgerUnavailable.
func (s *Searching) Is(target error) bool { return target == ErrLedgerUnavailable }

// Unwrap returns Cause.
func (s *Searching) Unwrap() error { return s.Cause }
