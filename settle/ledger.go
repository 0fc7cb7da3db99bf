package settle

import (
	"context"
	"errors"
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// RelayFloor is the least fee rate that any ledger relays, in base units per
// 1000 virtual bytes [LEDGER-10].
const RelayFloor pktcloud.Amount = 1000

// Errors of a [Ledger]. Match them with errors.Is.
var (
	// ErrLedgerUnavailable marks a question that the chain did not answer.
	// Nothing follows from it: ask again later.
	ErrLedgerUnavailable = errors.New("the chain cannot be reached")
	// ErrRejected marks a transaction that consensus or policy refuses. The
	// same bytes may be acceptable later, once a lock has passed.
	ErrRejected = errors.New("the chain refuses the transaction")
)

// Rejection is a refusal with the node's own code, such as -25 or -26; zero
// when there is none. It matches [ErrRejected].
type Rejection struct {
	Code   int
	Reason string // of the node, for people
}

func (r *Rejection) Error() string {
	return fmt.Sprintf("%v (code %d): %s", ErrRejected, r.Code, r.Reason)
}

// Is reports whether target is ErrRejected.
func (r *Rejection) Is(target error) bool { return target == ErrRejected }

// Ledger is the chain as settle sees it. Implementations may be called from
// several goroutines at once, and pass settletest.TestLedger.
//
// A read answers from one state of the chain, confirmed blocks and mempool
// together. Errors match [ErrLedgerUnavailable] when the chain cannot be
// reached: the caller then knows nothing new, and must not take silence for
// absence.
type Ledger interface {
	// Tip returns the best block.
	Tip(ctx context.Context) (Tip, error)
	// WaitTip returns once the best block differs from last.
	WaitTip(ctx context.Context, last Tip) (Tip, error)
	// Broadcast offers a raw transaction to the network. It is idempotent: nil
	// when the transaction is already known or mined. A refusal by consensus or
	// policy matches [ErrRejected].
	Broadcast(ctx context.Context, raw []byte) error
	// Output reports on one output. An unknown output is no error: its Known
	// is false.
	Output(ctx context.Context, at Outpoint) (Output, error)
	// Coins returns the unspent outputs that pay script, those in the mempool
	// included and those spent in the mempool left out, oldest first.
	Coins(ctx context.Context, script []byte) ([]Coin, error)
	// FeeRate returns what the chain asks today, in base units per 1000
	// virtual bytes; never below its relay floor.
	FeeRate(ctx context.Context) (pktcloud.Amount, error)
}

// Watcher is what a [Ledger] may offer besides [LEDGER-13]: one that keeps no
// index, and has to search its chain for what it is asked about.
type Watcher interface {
	// Watch names what will be asked about. It asks nobody and returns at once:
	// the next question searches the chain, one time for all that was named
	// until then, from the lowest From on [LEDGER-15]. Naming something twice
	// does nothing, unless it is from a lower height.
	Watch(list ...Watch)
	// Used reports whether an output ever paid script, spent or not.
	Used(ctx context.Context, script []byte) (bool, error)
}

// Watch is a script, or without one an output. No block below From holds an
// output that pays the script, or the output; zero is always right.
type Watch struct {
	Script []byte
	At     Outpoint
	From   uint64
}

// Birthday is the height from which to look for what nobody could have mined
// before the best block had the height tip. It leaves room for blocks that are
// taken back: they may return lower.
func Birthday(tip uint64) uint64 { return tip - min(tip, ReorgMargin) }

// CoinReader is what a [Ledger] may offer besides [LEDGER-14].
type CoinReader interface {
	// Unspent reports on an output as far as it is unspent in a block: others
	// are not known. It never searches the chain, so that outpoints which a
	// stranger names cost little.
	Unspent(ctx context.Context, at Outpoint) (Output, error)
}

// TxFollower is what a [Ledger] may offer besides [LEDGER-17]: whoever keeps
// an index of many coins asks for what changed instead of for all of them.
type TxFollower interface {
	// Follow returns each transaction that pays or spends an output of the
	// added scripts, and each whose place changed since an earlier call's Next,
	// of whatever is watched; it may name others. It watches the scripts if
	// nobody did. A since of zero means none: only those of the added scripts.
	// All is of one state of the chain, that of Tip.
	Follow(ctx context.Context, since uint64, added [][]byte) (Changes, error)
}

// Changes is what became of transactions, in no order.
type Changes struct {
	Tip  Tip
	Next uint64 // what to name as since the next time; never zero
	// Lost says that the ledger does not remember what happened since then.
	// Nothing else holds then: begin again at zero, with all scripts.
	Lost bool
	Txs  []TxState
}

// TxState is where a transaction is. Position, from 0, and Time, in Unix
// seconds, are of its block. Raw may not be changed.
type TxState struct {
	TxID     [32]byte // internal byte order
	Gone     bool     // in no block and not in the mempool any more; nothing below holds
	Raw      []byte
	Coinbase bool
	Height   uint64 // zero in the mempool
	Position uint64
	Time     int64
}

// Tip is a best block. Time is the block's own, in Unix seconds.
type Tip struct {
	Height uint64
	Hash   [32]byte
	Time   int64
}

// Outpoint names an output. TxID is in the internal byte order, the reverse of
// the text form.
type Outpoint struct {
	TxID  [32]byte `cbor:"tx"`
	Index uint32   `cbor:"index"`
}

// Output is what the chain says of an output. Depth counts confirmations: 0 in
// the mempool, 1 in the best block.
type Output struct {
	Known  bool
	Amount pktcloud.Amount
	Script []byte
	Depth  uint64
	Spend  *Spend // nil while unspent
}

// Spend is the transaction that spends an output. Depth is as in Output.
type Spend struct {
	TxID  [32]byte
	Raw   []byte
	Depth uint64
}

// Coin is an unspent output.
type Coin struct {
	At       Outpoint
	Amount   pktcloud.Amount
	Script   []byte
	Depth    uint64
	Coinbase bool
}

// Payment is an output that a transaction shall have.
type Payment struct {
	Script []byte
	Amount pktcloud.Amount
}
