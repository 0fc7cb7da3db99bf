// Package pktd is a settle.Ledger over a node's JSON-RPC: a pktd of the PKT
// chain, a btcd, or this module's devnet. It asks only what all three answer
// alike, takes amounts and scripts from raw bytes alone, and keeps in memory
// what it learnt of the scripts and outpoints that its caller asked for.
//
// Start with [New]; [Driver.Run] is for who wants to see a new block at once. It
// trusts its node for consensus: it checks that blocks
// hash to what was asked for, follow one another and match their merkle roots,
// not their work. The rules are those of spec/ledger.md.
package pktd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

// DefaultPollInterval is how often WaitTip asks for a new block.
const DefaultPollInterval = time.Second

// Config says which node to ask and how. URL and either CookieFile or User
// and Password are required.
type Config struct {
	URL        string // http://host:port or https://host:port
	User       string
	Password   string
	CookieFile string // user:password, as a pktd leaves it in its directory
	CertFile   string // PEM, for a node with a certificate of its own

	// Birthday is a height below which nothing of the caller's can be found. A
	// script or a spent output that was not named by Watch is searched from
	// there to the tip.
	Birthday uint64
	// PollInterval is the time between questions of WaitTip; zero means
	// DefaultPollInterval.
	PollInterval time.Duration
	// Magic is the network that the node must follow; zero means any.
	Magic uint32
	// FeeRate is what FeeRate answers, in base units per 1000 virtual bytes;
	// below settle.RelayFloor it is the floor. Nodes of this chain have no
	// estimate worth asking for.
	FeeRate pktcloud.Amount
}

// Driver is the ledger of one node. It is safe for concurrent use, and owns no
// goroutine but those of Run.
type Driver struct {
	cfg  Config
	rpc  *client
	bell bell

	maxFound int // MaxFoundBytes, but in tests

	naming sync.Mutex
	named  []settle.Watch // not taken into the view yet

	reading  gate // of who reads old blocks for the search; others wait for it
	progress atomic.Pointer[search]

	keeping sync.Mutex // never held while the node is asked
	kept    []*block   // those read last

	first atomic.Pointer[block] // the one that the view began with, until it was searched

	mu      gate // guards all below; held while the node is asked, but not for a search
	checked bool // the node's network is the right one
	view    *chainview.View
	scripts map[string]watched        // by the view
	points  map[wire.OutPoint]watched // likewise
	asked   asked
	search  search
	passes  uint64 // searches that came to their end
	pool    map[chainhash.Hash]*wire.MsgTx
	seen    []chainhash.Hash // the pool in the order of arrival
	fresh   time.Time        // when the last refresh that succeeded began
	failed  time.Time        // when the last one that failed began
	failure error            // why it did
}

var (
	_ settle.Ledger     = (*Driver)(nil)
	_ settle.Watcher    = (*Driver)(nil)
	_ settle.CoinReader = (*Driver)(nil)
	_ settle.TxFollower = (*Driver)(nil)
)

// New returns a driver. It does not ask the node yet.
func New(cfg Config) (*Driver, error) {
	rpc, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = DefaultPollInterval
	}
	cfg.FeeRate = max(cfg.FeeRate, settle.RelayFloor)
	return &Driver{
		cfg: cfg, rpc: rpc, maxFound: MaxFoundBytes, reading: newGate(), mu: newGate(),
		scripts: map[string]watched{}, points: map[wire.OutPoint]watched{},
	}, nil
}

// Tip implements settle.Ledger.
func (d *Driver) Tip(ctx context.Context) (settle.Tip, error) {
	unlock, err := d.lockFresh(ctx)
	if err != nil {
		return settle.Tip{}, err
	}
	defer unlock()
	return d.view.Tip(), nil
}

// WaitTip implements settle.Ledger. It asks every PollInterval, and as soon as
// the node tells of a block while Run runs.
func (d *Driver) WaitTip(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	for {
		announced := d.Announced()
		tip, err := d.Tip(ctx)
		if err != nil || tip != last {
			return tip, err
		}
		pause := d.cfg.PollInterval
		if d.bell.live.Load() {
			pause = max(pause, quietPoll)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return settle.Tip{}, ctx.Err()
		case <-timer.C:
		case <-announced:
			timer.Stop()
		}
	}
}

// Output implements settle.Ledger.
func (d *Driver) Output(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	point := wire.OutPoint{Hash: at.TxID, Index: at.Index}
	unlock, err := d.lockSearched(ctx, func() (bool, error) { return d.needsPoint(ctx, point) })
	if err != nil {
		return settle.Output{}, err
	}
	defer unlock()
	return d.view.Output(at)
}

// Unspent implements settle.CoinReader. What is asked about is not watched:
// strangers name it, and transactions may be long [LEDGER-14].
func (d *Driver) Unspent(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	unlock, err := d.lockFresh(ctx)
	if err != nil {
		return settle.Output{}, err
	}
	defer unlock()
	point := wire.OutPoint{Hash: at.TxID, Index: at.Index}
	if d.view.Has(point) && !d.unsearched(point) {
		out, err := d.view.Output(at)
		if out.Spend != nil && out.Spend.Depth > 0 {
			out = settle.Output{}
		}
		return out, err
	}
	height, err := d.place(ctx, point)
	if err != nil || height == 0 {
		return settle.Output{}, err
	}
	b, err := d.blockAt(ctx, height)
	if err != nil {
		return settle.Output{}, err
	}
	for _, tx := range b.txs {
		if tx.TxHash() == point.Hash && uint64(point.Index) < uint64(len(tx.TxOut)) {
			d.asked.add(point)
			return d.view.Unspent(point, tx.TxOut[point.Index], height)
		}
	}
	return settle.Output{}, fmt.Errorf("%w: output %s is not in the block that the node named", settle.ErrLedgerUnavailable, point)
}

// Coins implements settle.Ledger.
func (d *Driver) Coins(ctx context.Context, script []byte) ([]settle.Coin, error) {
	unlock, err := d.lockSearched(ctx, func() (bool, error) { return d.needsScripts(script), nil })
	if err != nil {
		return nil, err
	}
	defer unlock()
	return d.view.Coins(script), nil
}

// Used implements settle.Watcher.
func (d *Driver) Used(ctx context.Context, script []byte) (bool, error) {
	unlock, err := d.lockSearched(ctx, func() (bool, error) { return d.needsScripts(script), nil })
	if err != nil {
		return false, err
	}
	defer unlock()
	return d.view.Used(script), nil
}

// Follow implements settle.TxFollower.
func (d *Driver) Follow(ctx context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	unlock, err := d.lockSearched(ctx, func() (bool, error) { return d.needsScripts(added...), nil })
	if err != nil {
		return settle.Changes{}, err
	}
	defer unlock()
	return d.view.Follow(since, added), nil
}

// FeeRate implements settle.Ledger with the configured rate.
func (d *Driver) FeeRate(context.Context) (pktcloud.Amount, error) { return d.cfg.FeeRate, nil }

// Codes of a node's answers that decide something.
const (
	codeDeserialization = -22
	codeMissingInput    = -25 // btcd: a script that fails, too
	codeRejected        = -26 // already in the mempool, too
	codeAlreadyInChain  = -27
	codeNotFound        = -5
	codeOutOfRange      = -1
)

// Broadcast implements settle.Ledger. Nodes answer a transaction that they
// know already with an error; the code and a second look tell that apart from
// a refusal, never the text [LEDGER-44].
func (d *Driver) Broadcast(ctx context.Context, raw []byte) error {
	tx, err := parseTx(raw)
	if err != nil {
		return &settle.Rejection{Code: codeDeserialization, Reason: err.Error()}
	}
	var txid string
	err = d.rpc.call(ctx, &txid, "sendrawtransaction", hex.EncodeToString(raw))
	if err == nil || isCode(err, codeAlreadyInChain) {
		return nil
	}
	if !isCode(err, codeDeserialization, codeMissingInput, codeRejected) {
		return unavailable("broadcast", err)
	}
	known, lookErr := d.known(ctx, tx, isCode(err, codeMissingInput))
	if lookErr != nil {
		return lookErr
	}
	if known {
		return nil
	}
	var node *nodeError
	errors.As(err, &node)
	return &settle.Rejection{Code: node.Code, Reason: node.Error()}
}

// known reports whether the node has the very transaction that it refused, in
// the mempool or, if spentToo, mined with its outputs spent since.
func (d *Driver) known(ctx context.Context, tx *wire.MsgTx, spentToo bool) (bool, error) {
	txid := tx.TxHash()
	var raw string
	err := d.rpc.call(ctx, &raw, "getrawtransaction", txid.String(), 0)
	if err == nil || !isCode(err, codeNotFound) {
		return err == nil, unavailable("look for the transaction", err)
	}
	if !spentToo || len(tx.TxIn) == 0 {
		return false, nil
	}
	for i := range tx.TxOut {
		at := settle.Outpoint{TxID: txid, Index: uint32(i)}
		if watched, depth, err := d.minedOutput(ctx, at); watched || err != nil {
			return depth > 0, err
		}
	}
	at := tx.TxIn[0].PreviousOutPoint
	out, err := d.Output(ctx, settle.Outpoint{TxID: at.Hash, Index: at.Index})
	return err == nil && out.Spend != nil && out.Spend.TxID == txid, err
}

// minedOutput returns how deep an output lies, if the view follows it.
func (d *Driver) minedOutput(ctx context.Context, at settle.Outpoint) (watched bool, depth uint64, err error) {
	unlock, err := d.lockSearched(ctx, func() (bool, error) { return d.search.open, nil })
	if err != nil {
		return false, 0, err
	}
	defer unlock()
	if !d.view.WatchedPoint(wire.OutPoint{Hash: at.TxID, Index: at.Index}) {
		return false, 0, nil
	}
	out, err := d.view.Output(at)
	return true, out.Depth, err
}

// keptBlocks is how many of the blocks read last the driver keeps: a new one is
// followed by one caller and searched by another.
const keptBlocks = 4

// rawBlock returns a block, one of the last or from the node.
func (d *Driver) rawBlock(ctx context.Context, hash chainhash.Hash) (*block, error) {
	if b := d.keptBlock(hash); b != nil {
		return b, nil
	}
	b, err := d.readBlock(ctx, hash)
	if err != nil {
		return nil, err
	}
	d.keeping.Lock()
	defer d.keeping.Unlock()
	d.keep(b)
	return b, nil
}

// keep makes a block the one read last. The caller holds d.keeping.
func (d *Driver) keep(b *block) {
	d.kept = append(d.kept[max(0, len(d.kept)-keptBlocks+1):], b)
}

func (d *Driver) keptBlock(hash chainhash.Hash) *block {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	if first := d.first.Load(); first != nil && first.header.BlockHash() == hash {
		return first
	}
	if at := slices.IndexFunc(d.kept, func(b *block) bool { return b.header.BlockHash() == hash }); at >= 0 {
		return d.kept[at]
	}
	return nil
}

// releaseFirst makes the block that the view began with one of those read last,
// for the caller that has not searched it yet.
func (d *Driver) releaseFirst() {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	if first := d.first.Swap(nil); first != nil {
		d.keep(first)
	}
}

// readBlock asks for a block and checks that it is the one asked for.
func (d *Driver) readBlock(ctx context.Context, hash chainhash.Hash) (*block, error) {
	var text string
	if err := d.rpc.call(ctx, &text, "getblock", hash.String(), 0); err != nil {
		return nil, unavailable("read block "+hash.String(), err)
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: block %s: %w", settle.ErrLedgerUnavailable, hash, err)
	}
	b, err := parseBlock(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: block %s: %w", settle.ErrLedgerUnavailable, hash, err)
	}
	if b.header.BlockHash() != hash {
		return nil, fmt.Errorf("%w: block %s: the node sent another", settle.ErrLedgerUnavailable, hash)
	}
	return b, nil
}

func (b *block) forView(height uint64) chainview.Block {
	return chainview.Block{
		Height: height, Hash: b.header.BlockHash(), Time: b.header.Timestamp.Unix(), Txs: b.txs,
	}
}

// blockHash asks for the hash at a height of the best chain.
func (d *Driver) blockHash(ctx context.Context, height uint64) (chainhash.Hash, error) {
	return d.hash(ctx, "getblockhash", height)
}

func (d *Driver) hash(ctx context.Context, method string, params ...any) (chainhash.Hash, error) {
	var text string
	if err := d.rpc.call(ctx, &text, method, params...); err != nil {
		return chainhash.Hash{}, err
	}
	return parseHash(text)
}

func parseHash(text string) (chainhash.Hash, error) {
	h, err := chainhash.NewHashFromStr(text)
	if err != nil || len(text) != 2*chainhash.HashSize {
		return chainhash.Hash{}, fmt.Errorf("%w: the node sent no hash", settle.ErrLedgerUnavailable)
	}
	return *h, nil
}
