// Package chainview keeps what a ledger driver has learnt of a chain: the
// outputs that somebody asked for, who spends them, and the mempool laid over
// both. It is pure: the driver feeds it blocks and asks it questions.
//
// Start with [New]. It checks no proof of work and no script; the node behind
// the driver did. Its answers are those that spec/ledger.md promises.
package chainview

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// UndoDepth is how many blocks a view can take back. A driver that meets a
// deeper reorganisation begins again with a new view.
const UndoDepth = 1000

// Block is what a view needs of a block.
type Block struct {
	Height uint64
	Hash   chainhash.Hash
	Time   int64
	Txs    []*wire.MsgTx
}

// View is the chain up to a tip, and a mempool. The zero View is not usable.
// It is not safe for concurrent use.
type View struct {
	all     bool // every output is kept, not only the watched ones
	scripts map[string]bool
	points  map[wire.OutPoint]bool

	outputs  map[wire.OutPoint]*output
	byScript map[string]map[wire.OutPoint]bool
	undo     []step // one a block, the tip last
	tip      settle.Tip
	run      []step     // of blocks looked at again in a row, below those of undo
	runTip   settle.Tip // the last of them

	pool       map[chainhash.Hash]*poolTx
	poolSpends map[wire.OutPoint]chainhash.Hash
	poolScript map[string][]wire.OutPoint

	journal journal
}

type output struct {
	amount   pktcloud.Amount
	script   []byte
	height   uint64
	order    uint64 // position in its block: oldest first
	coinbase bool
	spend    *spend
}

type spend struct {
	tx     *wire.MsgTx
	height uint64
}

type poolTx struct {
	tx    *wire.MsgTx
	order int
}

// step is what taking a block back must undo.
type step struct {
	tip     settle.Tip
	created []wire.OutPoint
	spent   []wire.OutPoint
	noted   []chainhash.Hash
}

// New returns an empty view. With all it keeps every output it meets, which
// suits small chains; otherwise only those that Watch named.
func New(all bool) *View {
	return &View{
		all:      all,
		scripts:  map[string]bool{},
		points:   map[wire.OutPoint]bool{},
		outputs:  map[wire.OutPoint]*output{},
		byScript: map[string]map[wire.OutPoint]bool{},
		pool:     map[chainhash.Hash]*poolTx{},
		journal:  newJournal(),
	}
}

// Watched reports whether the view already follows a script.
func (v *View) Watched(script []byte) bool { return v.all || v.scripts[string(script)] }

// WatchedPoint reports whether the view already follows an outpoint, by itself
// or since it pays a script that is followed.
func (v *View) WatchedPoint(at wire.OutPoint) bool { return v.all || v.points[at] || v.Has(at) }

// WatchScript makes the view keep outputs that pay script from now on; blocks
// connected earlier are for the caller to Rescan.
func (v *View) WatchScript(script []byte) { v.scripts[string(script)] = true }

// WatchPoint makes the view keep one output from now on.
func (v *View) WatchPoint(at wire.OutPoint) { v.points[at] = true }

// Unwatch forgets an output that a failed rescan began to watch.
func (v *View) Unwatch(at wire.OutPoint) { delete(v.points, at) }

// Has reports whether the view knows an output of a block.
func (v *View) Has(at wire.OutPoint) bool { return v.outputs[at] != nil }

// ScriptOf returns what an output of a block pays, if the view knows it. The
// script may not be changed.
func (v *View) ScriptOf(at wire.OutPoint) (script []byte, ok bool) {
	o := v.outputs[at]
	if o == nil {
		return nil, false
	}
	return o.script, true
}

// Tip returns the block connected last.
func (v *View) Tip() settle.Tip { return v.tip }

// HashAt returns the block that the view has at a height. It remembers no more
// of them than it can take back.
func (v *View) HashAt(height uint64) (hash chainhash.Hash, ok bool) {
	below := v.tip.Height - height
	switch {
	case below == 0:
		return v.tip.Hash, true
	case below <= uint64(len(v.undo)):
		return v.undo[uint64(len(v.undo))-below].tip.Hash, true
	}
	return hash, false
}

// Start sets the tip that the first connected block must follow.
func (v *View) Start(tip settle.Tip) { v.tip, v.undo, v.run, v.runTip = tip, nil, nil, settle.Tip{} }

// Connect adds the block that follows the tip.
func (v *View) Connect(b Block) {
	if len(v.undo) > 0 && b.Height != v.tip.Height+1 {
		panic(fmt.Sprintf("chainview: block %d connected on %d", b.Height, v.tip.Height))
	}
	s := step{tip: v.tip}
	v.scan(b, &s)
	v.tip = settle.Tip{Height: b.Height, Hash: b.Hash, Time: b.Time}
	v.undo = latest(append(v.undo, s))
}

// latest bounds what can be undone.
func latest(steps []step) []step {
	return slices.Delete(steps, 0, max(0, len(steps)-UndoDepth))
}

// Disconnect takes the tip back. It reports false when the view does not reach
// back far enough.
func (v *View) Disconnect() bool {
	if len(v.undo) == 0 {
		return false
	}
	s := v.undo[len(v.undo)-1]
	v.undo = v.undo[:len(v.undo)-1]
	for _, at := range s.spent {
		if o := v.outputs[at]; o != nil {
			o.spend = nil
		}
	}
	for _, at := range s.created {
		v.forget(at)
	}
	for _, txid := range s.noted {
		if n := v.journal.txs[txid]; n != nil && n.height == v.tip.Height {
			v.journal.drop(txid)
		}
	}
	v.tip = s.tip
	return true
}

func (v *View) forget(at wire.OutPoint) {
	o := v.outputs[at]
	if o == nil {
		return
	}
	delete(v.outputs, at)
	key := string(o.script)
	delete(v.byScript[key], at)
	if len(v.byScript[key]) == 0 {
		delete(v.byScript, key)
	}
}

// Rescan looks once more at a block at or below the tip, for what Watch named
// since it was connected. Looking twice changes nothing. Blocks looked at in
// ascending order up to the first one that was connected can be taken back like
// that one.
func (v *View) Rescan(b Block) {
	var s step
	v.scan(b, &s)
	// The undo entry of height h sits as far from the end as h lies below the tip.
	below := v.tip.Height - b.Height
	if i := len(v.undo) - 1 - int(below); below < uint64(len(v.undo)) {
		v.undo[i].created = append(v.undo[i].created, s.created...)
		v.undo[i].spent = append(v.undo[i].spent, s.spent...)
		v.undo[i].noted = append(v.undo[i].noted, s.noted...)
		return
	}
	if v.runTip.Height > 0 && b.Height == v.runTip.Height+1 {
		s.tip = v.runTip
		v.run = latest(append(v.run, s))
	} else {
		v.run = nil // the step of a first block would lack the block before
	}
	v.runTip = settle.Tip{Height: b.Height, Hash: b.Hash, Time: b.Time}
	first := v.tip
	if len(v.undo) > 0 {
		first = v.undo[0].tip
	}
	if v.runTip == first {
		v.undo = latest(append(v.run, v.undo...))
		v.run, v.runTip = nil, settle.Tip{}
	}
}

func (v *View) scan(b Block, s *step) {
	var order uint64
	for i, tx := range b.Txs {
		touched := v.all
		for _, in := range tx.TxIn {
			o := v.outputs[in.PreviousOutPoint]
			touched = touched || o != nil
			if o != nil && o.spend == nil {
				o.spend = &spend{tx: tx, height: b.Height}
			}
			if o != nil && o.spend.height == b.Height { // found on an earlier look, too
				s.spent = append(s.spent, in.PreviousOutPoint)
			}
		}
		txid := tx.TxHash()
		for n, out := range tx.TxOut {
			order++
			at := wire.OutPoint{Hash: txid, Index: uint32(n)}
			if !v.all && !v.scripts[string(out.PkScript)] && !v.points[at] {
				continue
			}
			touched = true
			v.put(at, out, b.Height, order, i == 0)
			if o := v.outputs[at]; o != nil && o.height == b.Height {
				s.created = append(s.created, at)
			}
		}
		if touched {
			v.journal.note(txid, tx, noted{coinbase: i == 0, height: b.Height, position: uint64(i), time: b.Time})
			s.noted = append(s.noted, txid)
		}
	}
}

// put records an output that the view did not know.
func (v *View) put(at wire.OutPoint, out *wire.TxOut, height, order uint64, coinbase bool) {
	if v.outputs[at] != nil || out.Value < 0 {
		return
	}
	v.outputs[at] = &output{
		amount: pktcloud.Amount(out.Value), script: out.PkScript,
		height: height, order: order, coinbase: coinbase,
	}
	key := string(out.PkScript)
	if v.byScript[key] == nil {
		v.byScript[key] = map[wire.OutPoint]bool{}
	}
	v.byScript[key][at] = true
}

// SetPool replaces the mempool, given oldest first.
func (v *View) SetPool(txs []*wire.MsgTx) {
	v.pool = make(map[chainhash.Hash]*poolTx, len(txs))
	v.poolSpends = make(map[wire.OutPoint]chainhash.Hash, len(txs))
	v.poolScript = make(map[string][]wire.OutPoint, len(txs))
	for i, tx := range txs {
		txid := tx.TxHash()
		v.pool[txid] = &poolTx{tx: tx, order: i}
		for _, in := range tx.TxIn {
			v.poolSpends[in.PreviousOutPoint] = txid
		}
		for n, out := range tx.TxOut {
			key := string(out.PkScript)
			v.poolScript[key] = append(v.poolScript[key], wire.OutPoint{Hash: txid, Index: uint32(n)})
		}
	}
	v.notePool()
}

// Used reports whether any output known to the view pays script.
func (v *View) Used(script []byte) bool {
	return len(v.byScript[string(script)]) > 0 || len(v.poolScript[string(script)]) > 0
}

// InPool reports whether the mempool holds a transaction.
func (v *View) InPool(txid chainhash.Hash) bool { return v.pool[txid] != nil }

// Output answers [settle.Ledger]'s question of the same name.
func (v *View) Output(at settle.Outpoint) (settle.Output, error) {
	p := wire.OutPoint{Hash: at.TxID, Index: at.Index}
	if o := v.outputs[p]; o != nil {
		out := settle.Output{
			Known: true, Amount: o.amount, Script: bytes.Clone(o.script), Depth: v.depth(o.height),
		}
		if o.spend == nil {
			return out, v.poolSpend(p, &out)
		}
		raw, err := Raw(o.spend.tx)
		out.Spend = &settle.Spend{TxID: o.spend.tx.TxHash(), Raw: raw, Depth: v.depth(o.spend.height)}
		return out, err
	}
	tx := v.pool[p.Hash]
	if tx == nil || uint64(p.Index) >= uint64(len(tx.tx.TxOut)) || tx.tx.TxOut[p.Index].Value < 0 {
		return settle.Output{}, nil
	}
	made := tx.tx.TxOut[p.Index]
	out := settle.Output{Known: true, Amount: pktcloud.Amount(made.Value), Script: bytes.Clone(made.PkScript)}
	return out, v.poolSpend(p, &out)
}

// Unspent answers for an output that the view does not follow, and no block
// spends: made is it, height that of its block.
func (v *View) Unspent(at wire.OutPoint, made *wire.TxOut, height uint64) (settle.Output, error) {
	out := settle.Output{Known: true, Amount: pktcloud.Amount(made.Value), Script: bytes.Clone(made.PkScript), Depth: v.depth(height)}
	return out, v.poolSpend(at, &out)
}

func (v *View) poolSpend(p wire.OutPoint, out *settle.Output) error {
	txid, ok := v.poolSpends[p]
	if !ok {
		return nil
	}
	raw, err := Raw(v.pool[txid].tx)
	out.Spend = &settle.Spend{TxID: txid, Raw: raw}
	return err
}

func (v *View) depth(height uint64) uint64 { return v.tip.Height - height + 1 }

// Coins answers [settle.Ledger]'s question of the same name.
func (v *View) Coins(script []byte) []settle.Coin {
	type found struct {
		coin          settle.Coin
		height, order uint64
	}
	var all []found
	for at := range v.byScript[string(script)] {
		o := v.outputs[at]
		if _, spent := v.poolSpends[at]; spent || o.spend != nil {
			continue
		}
		all = append(all, found{settle.Coin{
			At: settle.Outpoint{TxID: at.Hash, Index: at.Index}, Amount: o.amount,
			Script: bytes.Clone(o.script), Depth: v.depth(o.height), Coinbase: o.coinbase,
		}, o.height, o.order})
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.height, b.height), cmp.Compare(a.order, b.order))
	})
	coins := make([]settle.Coin, 0, len(all))
	for _, f := range all {
		coins = append(coins, f.coin)
	}
	for _, at := range v.poolScript[string(script)] {
		out := v.pool[at.Hash].tx.TxOut[at.Index]
		if _, spent := v.poolSpends[at]; spent || out.Value < 0 || v.outputs[at] != nil {
			continue
		}
		coins = append(coins, settle.Coin{
			At:     settle.Outpoint{TxID: at.Hash, Index: at.Index},
			Amount: pktcloud.Amount(out.Value), Script: bytes.Clone(out.PkScript),
		})
	}
	return coins
}

// Raw returns a transaction's bytes, with its witnesses.
func Raw(tx *wire.MsgTx) ([]byte, error) {
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		return nil, fmt.Errorf("encode transaction %s: %w", tx.TxHash(), err)
	}
	return b.Bytes(), nil
}
