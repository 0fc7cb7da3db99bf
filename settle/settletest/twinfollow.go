package settletest

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
)

var _ settle.TxFollower = (*Ledger)(nil)

// Follower tells what changed on a twin's chain, with numbers of its own. It
// names every transaction, whatever is followed.
type Follower struct {
	chain *Ledger

	mu    sync.Mutex
	first uint64
	log   [][32]byte
	known map[[32]byte]settle.TxState
}

// NewFollower returns a follower whose changes are numbered from first on; zero
// is none.
func NewFollower(chain *Ledger, first uint64) *Follower {
	return &Follower{chain: chain, first: first, known: map[[32]byte]settle.TxState{}}
}

// Follow implements settle.TxFollower.
func (l *Ledger) Follow(ctx context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	return l.follower.Follow(ctx, since, added)
}

// Follow implements settle.TxFollower.
func (f *Follower) Follow(ctx context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chain.mu.Lock()
	defer f.chain.mu.Unlock()
	if err := f.chain.available(ctx); err != nil {
		return settle.Changes{}, err
	}
	f.look()
	c := settle.Changes{Tip: f.chain.tip(), Next: f.first + uint64(len(f.log))}
	if since != 0 && (since < f.first || since > c.Next) {
		c.Lost = true
		return c, nil
	}
	ids := f.touching(added)
	if since != 0 {
		ids = append(ids, f.log[since-f.first:]...)
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			continue
		}
		state, ok := f.known[id]
		if !ok {
			state = settle.TxState{TxID: id, Gone: true}
		}
		c.Txs = append(c.Txs, state)
	}
	return c, nil
}

// look notes what changed since it last did. The chain is locked.
func (f *Follower) look() {
	now := map[[32]byte]settle.TxState{}
	note := func(s settle.TxState, tx *wire.MsgTx) {
		s.TxID, s.Raw = f.chain.id(tx), rawOf(tx)
		now[s.TxID] = s
		old, ok := f.known[s.TxID]
		if !ok || old.Height != s.Height || old.Position != s.Position {
			f.log = append(f.log, s.TxID)
		}
	}
	for i, block := range f.chain.blocks {
		tip := f.chain.tipAt(uint64(i + 1))
		for at, tx := range block {
			note(settle.TxState{Height: tip.Height, Position: uint64(at), Time: tip.Time}, tx)
		}
	}
	for _, tx := range f.chain.pool {
		note(settle.TxState{}, tx)
	}
	for id := range f.known {
		if _, ok := now[id]; !ok {
			f.log = append(f.log, id)
		}
	}
	f.known = now
}

// touching returns the transactions that pay or spend an output of a script. The
// chain is locked.
func (f *Follower) touching(scripts [][]byte) (ids [][32]byte) {
	own := map[wire.OutPoint]bool{}
	for t := range f.chain.all {
		touches := false
		for i, out := range t.tx.TxOut {
			if slices.ContainsFunc(scripts, func(s []byte) bool { return bytes.Equal(s, out.PkScript) }) {
				own[wire.OutPoint{Hash: f.chain.id(t.tx), Index: uint32(i)}] = true
				touches = true
			}
		}
		for _, in := range t.tx.TxIn {
			touches = touches || own[in.PreviousOutPoint]
		}
		if touches {
			ids = append(ids, f.chain.id(t.tx))
		}
	}
	return ids
}
