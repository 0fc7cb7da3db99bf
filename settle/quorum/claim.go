package quorum

import (
	"bytes"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// place is where a transaction is in the chain.
type place struct {
	height   uint64
	position uint64
	time     int64
	coinbase bool
}

func placeOf(s settle.TxState) place { return place{s.Height, s.Position, s.Time, s.Coinbase} }

// verdict is what the claims of several servers make of a transaction.
type verdict int

const (
	absent    verdict = iota // in no block, and not in the mempool
	unmined                  // enough know it, but not in the same block
	mined                    // in a block
	undecided                // neither enough know it nor enough deny it
)

// judge makes one of what servers claim of a transaction; nil is a claim that
// there is none. Blocks above tip are none that enough servers have. A
// transaction that was known before stays known until enough deny it
// [LEDGER-60].
func judge(claims []*settle.TxState, need int, tip uint64, known bool) (settle.TxState, verdict) {
	places := map[place]int{}
	rewards, denied, inBlocks := 0, 0, 0
	for _, c := range claims {
		switch {
		case c == nil:
			denied++
			continue
		case c.Coinbase:
			rewards++
		}
		if c.Height > 0 && c.Height <= tip {
			places[placeOf(*c)]++
			inBlocks++
		}
	}
	at, n := most(places)
	knows := len(claims) - denied
	switch {
	case n >= need:
		of := settle.TxState{Raw: bytesOf(claims), Coinbase: at.coinbase, Height: at.height, Position: at.position, Time: at.time}
		return of, mined
	case denied >= need || 2*rewards > knows: // a reward is in its block or nowhere
		return settle.TxState{}, absent
	case knows >= need:
		return settle.TxState{Raw: bytesOf(claims)}, unmined
	case inBlocks > 0:
		return settle.TxState{}, undecided
	case known:
		return settle.TxState{Raw: bytesOf(claims)}, unmined
	}
	return settle.TxState{}, absent
}

// bytesOf returns the bytes that most servers show of a transaction: they may
// differ in its witnesses.
func bytesOf(claims []*settle.TxState) []byte {
	var best []byte
	most := 0
	for i, c := range claims {
		if c == nil || bytes.Equal(c.Raw, best) {
			continue
		}
		n := 0
		for _, other := range claims[i:] {
			if other != nil && bytes.Equal(c.Raw, other.Raw) {
				n++
			}
		}
		if n > most {
			best, most = c.Raw, n
		}
	}
	return best
}
