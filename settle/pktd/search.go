package pktd

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// search is one pass over old blocks for all that is watched and was not
// searched for yet. A pass that fails goes on where it was.
type search struct {
	open bool
	from uint64         // the first block of the pass
	next uint64         // the first block not looked at
	last chainhash.Hash // of the block before next; zero if that is none of the pass
}

// include makes the pass cover the blocks from a height on.
func (s *search) include(from uint64) {
	from = max(from, 1) // no chain lets the very first block's reward be spent
	switch {
	case !s.open:
		*s = search{open: true, from: from, next: from}
	case from < s.next:
		s.from = min(s.from, from)
		s.next, s.last = from, chainhash.Hash{}
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
			d.points[at] = max(w.From, d.cfg.Birthday)
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

// watch makes the view follow one thing. The caller holds d.mu.
func (d *Driver) watch(w settle.Watch) {
	w.From = max(w.From, d.cfg.Birthday)
	if len(w.Script) > 0 {
		if from, ok := d.scripts[string(w.Script)]; ok && from <= w.From {
			return
		}
		d.scripts[string(w.Script)] = w.From
		d.view.WatchScript(w.Script)
	} else {
		at := wire.OutPoint{Hash: w.At.TxID, Index: w.At.Index}
		if from, ok := d.points[at]; ok && from <= w.From {
			return
		}
		d.points[at] = w.From
		d.view.WatchPoint(at)
	}
	d.search.include(w.From)
}

// searchScript is searchNamed for a script that may not have been named. The
// caller holds d.mu.
func (d *Driver) searchScript(ctx context.Context, script []byte) error {
	if err := d.searchNamed(ctx); err != nil || d.view.Watched(script) {
		return err
	}
	d.watch(settle.Watch{Script: script, From: d.cfg.Birthday})
	return d.searchNamed(ctx)
}

// searchNamed looks at old blocks for what was named since the last search. The
// caller holds d.mu and has a fresh view.
func (d *Driver) searchNamed(ctx context.Context) error {
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
	s := &d.search
	if !s.open {
		return nil
	}
	if err := d.resume(ctx); err != nil {
		return err
	}
	for tip := d.view.Tip(); s.next <= tip.Height; {
		hash, err := d.blockHash(ctx, s.next)
		if err != nil {
			return unavailable("search the chain", err)
		}
		b, err := d.rawBlock(ctx, hash)
		if err != nil {
			return err
		}
		if s.last != (chainhash.Hash{}) && b.header.PrevBlock != s.last || s.next == tip.Height && hash != tip.Hash {
			s.next, s.last = s.from, chainhash.Hash{}
			return fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, errMoved)
		}
		d.view.Rescan(b.forView(s.next))
		s.next, s.last = s.next+1, hash
	}
	*s = search{}
	d.keepFirst(nil)
	return nil
}

// resume lets a search that was interrupted begin again if its blocks are no
// longer those of the best chain.
func (d *Driver) resume(ctx context.Context) error {
	s := &d.search
	if s.last == (chainhash.Hash{}) {
		return nil
	}
	if s.next <= d.view.Tip().Height+1 {
		hash, err := d.blockHash(ctx, s.next-1)
		if err == nil && hash == s.last {
			return nil
		}
		if err != nil && !isCode(err, codeOutOfRange) {
			return unavailable("search the chain", err)
		}
	}
	s.next, s.last = s.from, chainhash.Hash{}
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
