package chainview

import (
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// maxLog is how many changes of transactions a view remembers; whoever asks
// for older ones is told to begin again.
const maxLog = 1 << 17

// noted is a transaction that touches something followed.
type noted struct {
	raw      []byte
	coinbase bool
	height   uint64 // zero in the mempool
	position uint64 // in its block
	time     int64  // of its block
}

// journal tells those that follow scripts what became of transactions. The
// change with number first+i is of the transaction log[i].
type journal struct {
	txs   map[chainhash.Hash]*noted
	pool  map[chainhash.Hash]bool // those of txs that no block has
	first uint64
	log   []chainhash.Hash
}

func newJournal() journal {
	return journal{txs: map[chainhash.Hash]*noted{}, pool: map[chainhash.Hash]bool{}, first: 1}
}

// next numbers the change that comes next. It is never zero.
func (j *journal) next() uint64 { return j.first + uint64(len(j.log)) }

func (j *journal) changed(txid chainhash.Hash) {
	if len(j.log) >= maxLog {
		j.first += maxLog / 2
		j.log = slices.Clone(j.log[maxLog/2:])
	}
	j.log = append(j.log, txid)
}

// note records where a transaction is now.
func (j *journal) note(txid chainhash.Hash, tx *wire.MsgTx, at noted) {
	old := j.txs[txid]
	if old != nil && old.height == at.height && old.position == at.position && old.time == at.time {
		return
	}
	if old != nil {
		at.raw = old.raw
	} else {
		raw, err := Raw(tx)
		if err != nil {
			return // a transaction that was decoded encodes again
		}
		at.raw = raw
	}
	j.txs[txid] = &at
	if at.height == 0 {
		j.pool[txid] = true
	} else {
		delete(j.pool, txid)
	}
	j.changed(txid)
}

func (j *journal) drop(txid chainhash.Hash) {
	delete(j.txs, txid)
	delete(j.pool, txid)
	j.changed(txid)
}

// Succeed makes the numbers of a new view's changes follow those of the view
// that it replaces, so that who followed that one is told to begin again.
func (v *View) Succeed(old *View) { v.journal.first = old.journal.next() + 1 }

// notePool records what came to the mempool and what left it.
func (v *View) notePool() {
	for txid := range v.journal.pool {
		if v.pool[txid] == nil {
			v.journal.drop(txid)
		}
	}
	for txid, p := range v.pool {
		if v.journal.txs[txid] == nil && v.touched(p.tx) {
			v.journal.note(txid, p.tx, noted{})
		}
	}
}

// touched reports whether a transaction of the mempool pays or spends
// something followed.
func (v *View) touched(tx *wire.MsgTx) bool {
	if v.all {
		return true
	}
	for _, out := range tx.TxOut {
		if v.scripts[string(out.PkScript)] {
			return true
		}
	}
	for _, in := range tx.TxIn {
		at := in.PreviousOutPoint
		if v.outputs[at] != nil {
			return true
		}
		if p := v.pool[at.Hash]; p != nil && uint64(at.Index) < uint64(len(p.tx.TxOut)) && v.scripts[string(p.tx.TxOut[at.Index].PkScript)] {
			return true
		}
	}
	return false
}

// Follow answers [settle.TxFollower]'s question of the same name. The driver
// has watched the scripts, and searched for them, before.
func (v *View) Follow(since uint64, added [][]byte) settle.Changes {
	if len(added) > 0 {
		v.notePool() // the mempool was last looked at without them
	}
	changes := settle.Changes{Tip: v.tip, Next: v.journal.next()}
	if since != 0 && (since < v.journal.first || since > changes.Next) {
		changes.Lost = true
		return changes
	}
	var ids []chainhash.Hash
	seen := map[chainhash.Hash]bool{}
	add := func(txid chainhash.Hash) {
		if !seen[txid] {
			seen[txid] = true
			ids = append(ids, txid)
		}
	}
	for _, s := range added {
		v.touching(string(s), add)
	}
	if since != 0 {
		for _, txid := range v.journal.log[since-v.journal.first:] {
			add(txid)
		}
	}
	for _, txid := range ids {
		state := settle.TxState{TxID: txid, Gone: true}
		if n := v.journal.txs[txid]; n != nil {
			state = settle.TxState{TxID: txid, Raw: n.raw, Coinbase: n.coinbase, Height: n.height, Position: n.position, Time: n.time}
		}
		changes.Txs = append(changes.Txs, state)
	}
	return changes
}

// touching calls add for each transaction that pays or spends an output with
// this script.
func (v *View) touching(script string, add func(chainhash.Hash)) {
	spent := func(at wire.OutPoint) {
		if txid, ok := v.poolSpends[at]; ok {
			add(txid)
		}
	}
	for at := range v.byScript[script] {
		add(at.Hash)
		if s := v.outputs[at].spend; s != nil {
			add(s.tx.TxHash())
		}
		spent(at)
	}
	for _, at := range v.poolScript[script] {
		add(at.Hash)
		spent(at)
	}
}
