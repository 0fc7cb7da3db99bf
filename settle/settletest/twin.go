// Package settletest has in-memory twins of what a channel works with (a
// ledger, a store, a wallet), and TestLedger, which any ledger can be run
// against. The twins are honest: the ledger runs scripts, lock times, fees and
// replacement as nodes of the PKT chain do.
package settletest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Ledger is a chain in memory, a settle.Ledger. Blocks come when Mine is
// called. It knows no coinbase maturity, no relative and no time locks; an
// input that asks for one is refused.
type Ledger struct {
	network  pktchain.Network
	follower *Follower

	mu      sync.Mutex
	blocks  [][]*wire.MsgTx // from height 1 on
	salt    byte            // parts the blocks of one branch from another's
	pool    []*wire.MsgTx
	rate    pktcloud.Amount
	down    bool
	minted  uint64
	changed chan struct{}                  // closed at the next new tip
	ids     map[*wire.MsgTx]chainhash.Hash // of the transactions above: hashing is most of a search
}

// NewLedger returns a chain of one block.
func NewLedger(n pktchain.Network) *Ledger {
	l := &Ledger{
		network: n, rate: n.RelayFloor, blocks: make([][]*wire.MsgTx, 1),
		changed: make(chan struct{}), ids: map[*wire.MsgTx]chainhash.Hash{},
	}
	l.follower = NewFollower(l, 1)
	return l
}

// id is a transaction's, computed once.
func (l *Ledger) id(tx *wire.MsgTx) chainhash.Hash {
	id, ok := l.ids[tx]
	if !ok {
		id = tx.TxHash()
		l.ids[tx] = id
	}
	return id
}

// SetDown makes every call fail with ErrLedgerUnavailable, or lets them work
// again.
func (l *Ledger) SetDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	l.announce()
}

// SetFeeRate sets what FeeRate answers.
func (l *Ledger) SetFeeRate(rate pktcloud.Amount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// Mint pays amount to script in a block of its own.
func (l *Ledger) Mint(script []byte, amount pktcloud.Amount) settle.Outpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.minted++
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), binary.BigEndian.AppendUint64(nil, l.minted), nil))
	tx.AddTxOut(wire.NewTxOut(int64(amount), script))
	l.blocks = append(l.blocks, []*wire.MsgTx{tx})
	l.announce()
	return settle.Outpoint{TxID: tx.TxHash()}
}

// Mine adds n blocks; the first takes the whole mempool.
func (l *Ledger) Mine(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.blocks = append(l.blocks, l.pool)
		l.pool = nil
	}
	l.announce()
}

// MineFull adds n blocks that others fill at a rate, in units per 1000 virtual
// bytes: of the mempool only what pays as much or more finds room.
func (l *Ledger) MineFull(n int, rate pktcloud.Amount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var block, left []*wire.MsgTx
	waits := map[chainhash.Hash]bool{}
	for _, tx := range l.pool {
		child := slices.ContainsFunc(tx.TxIn, func(in *wire.TxIn) bool { return waits[in.PreviousOutPoint.Hash] })
		if child || l.feeOf(tx) < pktchain.Fee(sizeOf(tx), rate) {
			waits[l.id(tx)] = true
			left = append(left, tx)
			continue
		}
		block = append(block, tx)
	}
	l.pool = left
	l.blocks = append(l.blocks, block)
	l.blocks = append(l.blocks, make([][]*wire.MsgTx, n-1)...)
	l.announce()
}

// Reorg drops the last n blocks and puts as many empty ones and one more in
// their place. Their transactions are forgotten: whoever wants them mined
// broadcasts them again. Minted coins move to the new branch.
func (l *Ledger) Reorg(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cut := len(l.blocks) - n
	for _, block := range l.blocks[cut:] {
		for _, tx := range block {
			if isMint(tx) {
				l.blocks[cut-1] = append(slices.Clone(l.blocks[cut-1]), tx)
			}
		}
	}
	l.salt++
	l.pool = nil
	l.blocks = append(l.blocks[:cut:cut], make([][]*wire.MsgTx, n+1)...)
	l.announce()
}

func isMint(tx *wire.MsgTx) bool {
	return tx.TxIn[0].PreviousOutPoint.Index == wire.MaxPrevOutIndex
}

// Pool returns the transactions that wait for a block.
func (l *Ledger) Pool() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var raws [][]byte
	for _, tx := range l.pool {
		raws = append(raws, rawOf(tx))
	}
	return raws
}

func (l *Ledger) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Ledger) tip() settle.Tip { return l.tipAt(uint64(len(l.blocks))) }

func (l *Ledger) tipAt(h uint64) settle.Tip {
	head := binary.BigEndian.AppendUint64([]byte{l.salt}, h)
	for _, tx := range l.blocks[h-1] {
		id := l.id(tx)
		head = append(head, id[:]...)
	}
	return settle.Tip{Height: h, Hash: sha256.Sum256(head), Time: 1_700_000_000 + int64(h)*60}
}

// Tip returns the best block.
func (l *Ledger) Tip(ctx context.Context) (settle.Tip, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tip(), l.available(ctx)
}

func (l *Ledger) available(ctx context.Context) error {
	if l.down {
		return settle.ErrLedgerUnavailable
	}
	return ctx.Err()
}

// WaitTip returns once the best block differs from last.
func (l *Ledger) WaitTip(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	for {
		l.mu.Lock()
		tip, changed, err := l.tip(), l.changed, l.available(ctx)
		l.mu.Unlock()
		if err != nil || tip != last {
			return tip, err
		}
		select {
		case <-ctx.Done():
			return settle.Tip{}, ctx.Err()
		case <-changed:
		}
	}
}

// FeeRate returns what SetFeeRate set, at first the relay floor.
func (l *Ledger) FeeRate(ctx context.Context) (pktcloud.Amount, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate, l.available(ctx)
}

// found is a transaction with its depth: 0 in the mempool.
type found struct {
	tx    *wire.MsgTx
	depth uint64
}

// all yields every transaction, oldest first, the mempool last.
func (l *Ledger) all(yield func(found) bool) {
	for i, block := range l.blocks {
		for _, tx := range block {
			if !yield(found{tx, uint64(len(l.blocks) - i)}) {
				return
			}
		}
	}
	for _, tx := range l.pool {
		if !yield(found{tx, 0}) {
			return
		}
	}
}

func (l *Ledger) output(at wire.OutPoint) settle.Output {
	var o settle.Output
	for f := range l.all {
		if int(at.Index) < len(f.tx.TxOut) && l.id(f.tx) == at.Hash {
			out := f.tx.TxOut[at.Index]
			o.Known, o.Depth, o.Amount, o.Script = true, f.depth, pktcloud.Amount(out.Value), out.PkScript
		}
		for _, in := range f.tx.TxIn {
			if in.PreviousOutPoint == at {
				o.Spend = &settle.Spend{TxID: l.id(f.tx), Raw: rawOf(f.tx), Depth: f.depth}
			}
		}
	}
	return o
}

// Output reports on one output.
func (l *Ledger) Output(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.available(ctx); err != nil {
		return settle.Output{}, err
	}
	return l.output(wire.OutPoint{Hash: at.TxID, Index: at.Index}), nil
}

// Coins returns the unspent outputs that pay script, oldest first.
func (l *Ledger) Coins(ctx context.Context, script []byte) ([]settle.Coin, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.available(ctx); err != nil {
		return nil, err
	}
	var coins []settle.Coin
	for f := range l.all {
		for i, out := range f.tx.TxOut {
			at := wire.OutPoint{Hash: l.id(f.tx), Index: uint32(i)}
			if bytes.Equal(out.PkScript, script) && l.output(at).Spend == nil {
				coins = append(coins, settle.Coin{
					At: settle.Outpoint{TxID: at.Hash, Index: at.Index}, Amount: pktcloud.Amount(out.Value),
					Script: out.PkScript, Depth: f.depth,
				})
			}
		}
	}
	return coins, nil
}

// Broadcast takes a transaction into the mempool as a node with standard
// policy does. Refusals match settle.ErrRejected.
func (l *Ledger) Broadcast(ctx context.Context, raw []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.available(ctx); err != nil {
		return err
	}
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		return reject("no transaction: %v", err)
	}
	id := tx.TxHash()
	for f := range l.all {
		if l.id(f.tx) == id {
			return nil
		}
	}
	fee, err := l.judge(tx)
	if err != nil {
		return err
	}
	if err := l.replace(tx, fee); err != nil {
		return err
	}
	l.pool = append(l.pool, tx)
	return nil
}

func reject(format string, args ...any) error {
	return &settle.Rejection{Code: -26, Reason: fmt.Sprintf(format, args...)}
}

// judge applies consensus and relay policy, conflicts in the mempool apart.
func (l *Ledger) judge(tx *wire.MsgTx) (fee pktcloud.Amount, err error) {
	if tx.Version < 1 || tx.Version > 2 || len(tx.TxIn) == 0 || len(tx.TxOut) == 0 {
		return 0, reject("version or shape")
	}
	// A lock at height L is open once the next block is L+1.
	final := !slices.ContainsFunc(tx.TxIn, func(in *wire.TxIn) bool { return in.Sequence != wire.MaxTxInSequenceNum })
	if !final && tx.LockTime > uint32(len(l.blocks)) {
		return 0, reject("transaction is not finalized")
	}
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	var in, out pktcloud.Amount
	for _, txIn := range tx.TxIn {
		if tx.Version == 2 && txIn.Sequence&wire.SequenceLockTimeDisabled == 0 {
			return 0, reject("relative locks are not known here")
		}
		prev := l.output(txIn.PreviousOutPoint)
		if !prev.Known || prev.Spend != nil && prev.Spend.Depth > 0 {
			return 0, reject("input %v is unknown or spent", txIn.PreviousOutPoint)
		}
		in += prev.Amount
		fetch.AddPrevOut(txIn.PreviousOutPoint, wire.NewTxOut(int64(prev.Amount), prev.Script))
	}
	for _, o := range tx.TxOut {
		switch {
		case o.Value < 0 || pktcloud.Amount(o.Value) > pktcloud.MaxAmount:
			return 0, reject("amount")
		case txscript.IsNullData(o.PkScript):
		case !pktchain.Payable(o.PkScript):
			return 0, reject("non-standard script form")
		case pktcloud.Amount(o.Value) < l.network.Dust(o.PkScript):
			return 0, reject("dust of %d units", o.Value)
		}
		out += pktcloud.Amount(o.Value)
	}
	if out > in {
		return 0, reject("pays out more than it takes in")
	}
	if floor := pktchain.Fee(sizeOf(tx), l.network.RelayFloor); in-out < floor {
		return 0, reject("insufficient fee %d < %d", uint64(in-out), uint64(floor))
	}
	hashes := txscript.NewTxSigHashes(tx, fetch)
	for i, txIn := range tx.TxIn {
		prev := fetch.FetchPrevOutput(txIn.PreviousOutPoint)
		vm, err := txscript.NewEngine(prev.PkScript, tx, i, txscript.StandardVerifyFlags, nil, hashes, prev.Value, fetch)
		if err == nil {
			err = vm.Execute()
		}
		if err != nil {
			return 0, reject("input %d: %v", i, err)
		}
	}
	return in - out, nil
}

// replace takes what tx conflicts with out of the mempool, if tx may replace
// it: all signal, and it pays more in all and per byte.
func (l *Ledger) replace(tx *wire.MsgTx, fee pktcloud.Amount) error {
	spends := func(t *wire.MsgTx, at wire.OutPoint) bool {
		return slices.ContainsFunc(t.TxIn, func(in *wire.TxIn) bool { return in.PreviousOutPoint == at })
	}
	var old pktcloud.Amount
	gone := map[chainhash.Hash]bool{}
	for _, p := range l.pool {
		direct := slices.ContainsFunc(tx.TxIn, func(in *wire.TxIn) bool { return spends(p, in.PreviousOutPoint) })
		child := slices.ContainsFunc(p.TxIn, func(in *wire.TxIn) bool { return gone[in.PreviousOutPoint.Hash] })
		if !direct && !child {
			continue
		}
		signals := slices.ContainsFunc(p.TxIn, func(in *wire.TxIn) bool { return in.Sequence <= 0xfffffffd })
		if direct && !signals {
			return reject("an output is already spent by %v in the mempool", p.TxHash())
		}
		paid := l.feeOf(p)
		if direct && uint64(fee)*sizeOf(p) <= uint64(paid)*sizeOf(tx) {
			return reject("replacement needs a higher fee rate")
		}
		old += paid
		gone[l.id(p)] = true
	}
	if len(gone) == 0 {
		return nil
	}
	if need := old + pktchain.Fee(sizeOf(tx), l.network.RelayFloor); fee < need {
		return reject("replacement needs a fee of %d", uint64(need))
	}
	l.pool = slices.DeleteFunc(l.pool, func(t *wire.MsgTx) bool { return gone[l.id(t)] })
	return nil
}

func (l *Ledger) feeOf(tx *wire.MsgTx) pktcloud.Amount {
	var fee pktcloud.Amount
	for _, in := range tx.TxIn {
		fee += l.output(in.PreviousOutPoint).Amount
	}
	for _, out := range tx.TxOut {
		fee -= pktcloud.Amount(out.Value)
	}
	return fee
}

func rawOf(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	_ = tx.Serialize(&b) // a bytes.Buffer does not fail
	return b.Bytes()
}

func sizeOf(tx *wire.MsgTx) uint64 {
	return uint64(3*tx.SerializeSizeStripped()+tx.SerializeSize()+3) / 4
}
