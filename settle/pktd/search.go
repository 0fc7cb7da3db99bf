package pktd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// search is one pass over old blocks for all that is watched and was not
// searched for yet. A pass that fails goes on where it was. Blocks that come
// meanwhile are none of it: they are followed with all that is watched.
type search struct {
	open bool
	from uint64         // the first block of the pass
	next uint64         // the first block not looked at
	end  uint64         // the last block of the pass
	last chainhash.Hash // of the block before next; zero if that is none of the pass
}

// watched is from what height something is watched, and by the end of which
// pass it was searched for.
type watched struct{ from, pass uint64 }

// include makes the pass cover the blocks from a height to the best one.
func (s *search) include(from, best uint64) {
	from = max(from, 1) // no chain lets the very first block's reward be spent
	s.end = best
	switch {
	case !s.open:
		*s = search{open: true, from: from, next: from, end: best}
	case from < s.next:
		s.from = min(s.from, from)
		s.next, s.last = from, chainhash.Hash{}
	}
}

// back notes that the blocks above tip are none of the chain any more: those
// that come in their place are followed.
func (s *search) back(tip settle.Tip) {
	s.end = min(s.end, tip.Height)
	if s.next > tip.Height+1 {
		s.next, s.last = tip.Height+1, tip.Hash
	}
}

// Watch implements settle.Watcher: one pass over the chain serves all that was
// named before it [LEDGER-15].
func (d *Driver) Watch(list ...settle.Watch) {
	d.naming.Lock()
	defer d.naming.Unlock()
	for _, w := range list {
		w.Script = slices.Clone(w.Script)
		d.named = append(d.named, w)
	}
}

// take makes the view follow one thing that was named. An output that was
// unspent in a block when somebody asked about it is found by that block alone,
// if it still is: no search is needed. The caller holds d.mu.
func (d *Driver) take(ctx context.Context, w settle.Watch) error {
	at := wire.OutPoint{Hash: w.At.TxID, Index: w.At.Index}
	if _, known := d.points[at]; len(w.Script) == 0 && !known && d.asked.has(at) {
		found, err := d.locate(ctx, at)
		if err != nil {
			return err
		}
		if found {
			d.points[at] = watched{from: max(w.From, d.cfg.Birthday)}
			return nil
		}
	}
	d.watch(w)
	return nil
}

// maxAsked is how many of the outputs that Unspent found are remembered.
const maxAsked = 4096

// asked are the outputs that Unspent found last.
type asked struct {
	known map[wire.OutPoint]bool
	order []wire.OutPoint // oldest first
}

func (a *asked) has(at wire.OutPoint) bool { return a.known[at] }

func (a *asked) add(at wire.OutPoint) {
	if a.known[at] {
		return
	}
	if a.known == nil {
		a.known = map[wire.OutPoint]bool{}
	}
	if len(a.order) >= maxAsked {
		delete(a.known, a.order[0])
		a.order = a.order[1:]
	}
	a.known[at] = true
	a.order = append(a.order, at)
}

// watch makes the view follow one thing. The caller holds d.mu and has a view.
func (d *Driver) watch(w settle.Watch) {
	w.From = max(w.From, d.cfg.Birthday)
	now := watched{w.From, d.passes + 1}
	if len(w.Script) > 0 {
		if had, ok := d.scripts[string(w.Script)]; ok && had.from <= w.From {
			return
		}
		d.scripts[string(w.Script)] = now
		d.view.WatchScript(w.Script)
	} else {
		at := wire.OutPoint{Hash: w.At.TxID, Index: w.At.Index}
		if had, ok := d.points[at]; ok && had.from <= w.From {
			return
		}
		d.points[at] = now
		d.view.WatchPoint(at)
	}
	d.search.include(w.From, d.view.Tip().Height)
}

// needsScripts reports whether one of these has to be searched for. The caller
// holds d.mu.
func (d *Driver) needsScripts(scripts ...[]byte) bool {
	needs := false
	for _, script := range scripts {
		if !d.view.Watched(script) {
			d.watch(settle.Watch{Script: script, From: d.cfg.Birthday})
		}
		needs = needs || d.scripts[string(script)].pass > d.passes
	}
	return needs
}

// unsearched reports whether the search has yet to tell what became of an output
// that is named or known. The caller holds d.mu.
func (d *Driver) unsearched(at wire.OutPoint) bool {
	if named, ok := d.points[at]; ok {
		return named.pass > d.passes
	}
	script, _ := d.view.ScriptOf(at)
	return d.scripts[string(script)].pass > d.passes
}

// needsPoint reports whether an output, or what spends it, has to be searched
// for. The caller holds d.mu.
func (d *Driver) needsPoint(ctx context.Context, at wire.OutPoint) (bool, error) {
	_, named := d.points[at]
	switch {
	case d.view.InPool(at.Hash):
		return false, nil
	case named || d.view.Has(at):
		return d.unsearched(at), nil
	case d.search.open:
		return true, nil // it may come upon it
	}
	if found, err := d.locate(ctx, at); found || err != nil {
		return false, err
	}
	d.watch(settle.Watch{At: settle.Outpoint{TxID: at.Hash, Index: at.Index}, From: d.cfg.Birthday})
	return true, nil
}

// lockSearched locks the driver with a view that is not older than the call and
// that needs no search any more. It holds the lock for no search: other
// questions go on meanwhile [LEDGER-48].
func (d *Driver) lockSearched(ctx context.Context, needs func() (bool, error)) (unlock func(), err error) {
	for moves := 0; moves < maxAttempts; {
		unlock, err := d.lockFresh(ctx)
		if err != nil {
			return nil, err
		}
		more := false
		if err = d.takeNamed(ctx); err == nil {
			more, err = needs()
		}
		if err == nil && !more {
			return unlock, nil
		}
		pass := d.passes + 1
		unlock()
		if err != nil {
			return nil, err
		}
		moved, err := d.searchOn(ctx, pass)
		if err != nil {
			return nil, err
		}
		if moved {
			moves++
		}
	}
	return nil, fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, errMoved)
}

// takeNamed watches what was named. The caller holds d.mu.
func (d *Driver) takeNamed(ctx context.Context) error {
	d.naming.Lock()
	named := d.named
	d.named = nil
	d.naming.Unlock()
	for i, w := range named {
		if err := d.take(ctx, w); err != nil {
			d.Watch(named[i:]...)
			return err
		}
	}
	return nil
}

// searchOn goes on with the search until a pass has come to its end, or waits for
// who does. It returns a *settle.Searching when that takes too long or fails, and
// no error when the chain moved under it.
func (d *Driver) searchOn(ctx context.Context, pass uint64) (moved bool, err error) {
	if err = d.reading.enter(ctx); err == nil {
		err = d.readOn(ctx, pass)
		d.reading.leave()
	}
	if err == nil || errors.Is(err, errMoved) {
		return err != nil, nil
	}
	s := &settle.Searching{Cause: err}
	if p := d.progress.Load(); p != nil {
		s.Next, s.End = p.next, p.end
	}
	return false, s
}

// readOn is searchOn for the one that reads.
func (d *Driver) readOn(ctx context.Context, pass uint64) error {
	for {
		s, err := d.pending(ctx, pass)
		if err != nil || !s.open {
			return err
		}
		b, err := d.blockAt(ctx, s.next)
		if isCode(err, codeOutOfRange, codeNotFound) {
			return errMoved
		}
		if err != nil {
			return err
		}
		if err := d.lookAt(ctx, s, b); err != nil {
			return err
		}
	}
}

// pending returns what is still to be searched in a pass, if anything.
func (d *Driver) pending(ctx context.Context, pass uint64) (search, error) {
	if err := d.mu.enter(ctx); err != nil {
		return search{}, err
	}
	defer d.mu.leave()
	if d.search.open && d.search.next > d.search.end {
		d.search = search{}
		d.passes++
		d.releaseFirst()
	}
	if d.passes >= pass {
		return search{}, nil
	}
	now := d.search
	d.progress.Store(&now)
	return now, nil
}

// lookAt looks at the next block of the search as it was before the block was
// read. It returns errMoved when the chain moved under the search, which then
// begins again.
func (d *Driver) lookAt(ctx context.Context, was search, b *block) error {
	if err := d.mu.enter(ctx); err != nil {
		return err
	}
	defer d.mu.leave()
	s := &d.search
	if *s != was {
		return nil // somebody named more, or the view began anew
	}
	hash := b.header.BlockHash()
	moved := s.last != (chainhash.Hash{}) && b.header.PrevBlock != s.last
	if s.next == s.end {
		at, ok := d.view.HashAt(s.end)
		moved = moved || ok && at != hash
	}
	if moved {
		s.next, s.last = s.from, chainhash.Hash{}
		return errMoved
	}
	d.view.Rescan(b.forView(s.next))
	s.next, s.last = s.next+1, hash
	return nil
}

// locate follows one output that the node still has unspent in a block: that
// block tells all. It reports whether there is one. The caller holds d.mu.
func (d *Driver) locate(ctx context.Context, at wire.OutPoint) (found bool, err error) {
	height, err := d.place(ctx, at)
	if err != nil || height == 0 {
		return false, err
	}
	d.view.WatchPoint(at)
	if err := d.rescan(ctx, height); err != nil {
		if _, named := d.points[at]; !named {
			d.view.Unwatch(at)
		}
		return false, err
	}
	return true, nil
}

// place returns the height of the block that holds an output which the node
// still has unspent; zero if there is none. The caller holds d.mu.
func (d *Driver) place(ctx context.Context, at wire.OutPoint) (height uint64, err error) {
	var coin *struct {
		BestBlock     string `json:"bestblock"`
		Confirmations uint64 `json:"confirmations"`
	}
	err = d.rpc.call(ctx, &coin, "gettxout", at.Hash.String(), at.Index, false)
	if err != nil && !isCode(err, codeNotFound) {
		return 0, unavailable("look up output "+at.String(), err)
	}
	if err != nil || coin == nil || coin.Confirmations == 0 {
		return 0, nil
	}
	tip := d.view.Tip()
	if coin.BestBlock != chainhash.Hash(tip.Hash).String() || coin.Confirmations > tip.Height {
		return 0, fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, errMoved)
	}
	return tip.Height - coin.Confirmations + 1, nil
}

func (d *Driver) rescan(ctx context.Context, height uint64) error {
	hash, err := d.blockHash(ctx, height)
	if err != nil {
		return unavailable("read the chain", err)
	}
	b, err := d.rawBlock(ctx, hash)
	if err != nil {
		return err
	}
	d.view.Rescan(b.forView(height))
	return nil
}
