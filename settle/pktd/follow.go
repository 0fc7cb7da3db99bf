package pktd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

const (
	// MaxPoolTxs is how many unconfirmed transactions the driver follows; those
	// beyond are seen when they are mined.
	MaxPoolTxs = 20_000
	// maxAttempts is how often a refresh begins again because the chain moved
	// under it.
	maxAttempts = 8
)

// errMoved marks a chain that changed while it was read.
var errMoved = errors.New("the chain moved while it was read")

// gate is a lock for which nobody waits longer than for an answer.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) leave() { <-g }

// lockFresh locks the driver with a view that is not older than the call. Calls
// that wait for the same lock share one refresh, also one that fails.
func (d *Driver) lockFresh(ctx context.Context) (unlock func(), err error) {
	called := time.Now()
	if err := d.mu.enter(ctx); err != nil {
		return nil, err
	}
	if d.failed.After(called) {
		d.mu.leave()
		return nil, d.failure
	}
	if !d.fresh.After(called) {
		began := time.Now()
		if err := d.refresh(ctx); err != nil {
			if ctx.Err() == nil {
				d.failed, d.failure = began, err
			}
			d.mu.leave()
			return nil, err
		}
		d.fresh = began
	}
	return d.mu.leave, nil
}

// refresh brings blocks and mempool to one state of the node.
func (d *Driver) refresh(ctx context.Context) error {
	if err := d.checkNetwork(ctx); err != nil {
		return err
	}
	for range maxAttempts {
		err := d.refreshOnce(ctx)
		if err == nil || !errors.Is(err, errMoved) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", settle.ErrLedgerUnavailable, errMoved)
}

func (d *Driver) checkNetwork(ctx context.Context) error {
	if d.checked || d.cfg.Magic == 0 {
		return nil
	}
	var magic uint32
	if err := d.rpc.call(ctx, &magic, "getcurrentnet"); err != nil {
		return unavailable("ask for the network", err)
	}
	if magic != d.cfg.Magic {
		return fmt.Errorf("%w: the node is of another network, %08x instead of %08x: check its address, and which network is wanted",
			settle.ErrLedgerUnavailable, magic, d.cfg.Magic)
	}
	d.checked = true
	return nil
}

func (d *Driver) refreshOnce(ctx context.Context) error {
	best, err := d.hash(ctx, "getbestblockhash")
	if err != nil {
		return unavailable("ask for the best block", err)
	}
	if d.view == nil || best != d.view.Tip().Hash {
		if err := d.follow(ctx); err != nil {
			return err
		}
	}
	if err := d.refreshPool(ctx); err != nil {
		return err
	}
	again, err := d.hash(ctx, "getbestblockhash")
	if err != nil {
		return unavailable("ask for the best block", err)
	}
	if again != d.view.Tip().Hash {
		return errMoved
	}
	return nil
}

// follow moves the view to the node's best block: back to the common ancestor,
// then forward.
func (d *Driver) follow(ctx context.Context) error {
	var count uint64
	if err := d.rpc.call(ctx, &count, "getblockcount"); err != nil {
		return unavailable("ask for the height", err)
	}
	if d.view == nil {
		return d.begin(ctx, count)
	}
	for {
		tip := d.view.Tip()
		if tip.Height <= count {
			hash, err := d.blockHash(ctx, tip.Height)
			if err != nil {
				return moved(err)
			}
			if hash == tip.Hash {
				break
			}
		}
		if !d.view.Disconnect() {
			return d.begin(ctx, count)
		}
	}
	d.search.back(d.view.Tip())
	return d.connectTo(ctx, count)
}

// begin makes a new view, at the best block. What is watched has to be searched
// for again, since older blocks may have changed.
func (d *Driver) begin(ctx context.Context, count uint64) error {
	hash, err := d.blockHash(ctx, count)
	if err != nil {
		return moved(err)
	}
	b, err := d.rawBlock(ctx, hash)
	if err != nil {
		return err
	}
	view := chainview.New(false)
	if d.view != nil {
		view.Succeed(d.view)
	}
	d.search = search{}
	for s, w := range d.scripts {
		view.WatchScript([]byte(s))
		d.search.include(w.from, count)
		d.scripts[s] = watched{w.from, d.passes + 1}
	}
	for at, w := range d.points {
		if d.asked.has(at) { // perhaps its block alone is enough again
			delete(d.points, at)
			d.Watch(settle.Watch{At: settle.Outpoint{TxID: at.Hash, Index: at.Index}, From: w.from})
			continue
		}
		view.WatchPoint(at)
		d.search.include(w.from, count)
		d.points[at] = watched{w.from, d.passes + 1}
	}
	first := b.forView(count)
	view.Start(settle.Tip{Height: first.Height, Hash: first.Hash, Time: first.Time})
	d.view = view
	d.first.Store(b)
	return nil
}

func (d *Driver) connectTo(ctx context.Context, count uint64) error {
	for tip := d.view.Tip(); tip.Height < count; tip = d.view.Tip() {
		hash, err := d.blockHash(ctx, tip.Height+1)
		if err != nil {
			return moved(err)
		}
		b, err := d.rawBlock(ctx, hash)
		if err != nil {
			return err
		}
		if b.header.PrevBlock != tip.Hash {
			return errMoved
		}
		d.view.Connect(b.forView(tip.Height + 1))
	}
	return nil
}

// moved makes of a height that is suddenly out of range a reason to begin again.
func moved(err error) error {
	if isCode(err, codeOutOfRange, codeNotFound) {
		return errMoved
	}
	return unavailable("follow the chain", err)
}

// refreshPool fetches the unconfirmed transactions that are new, and forgets
// those that are gone.
func (d *Driver) refreshPool(ctx context.Context) error {
	var texts []string
	if err := d.rpc.call(ctx, &texts, "getrawmempool"); err != nil {
		return unavailable("ask for the mempool", err)
	}
	now := make(map[chainhash.Hash]*wire.MsgTx, len(texts))
	seen := make([]chainhash.Hash, 0, len(texts))
	var added []chainhash.Hash
	for _, text := range texts[:min(len(texts), MaxPoolTxs)] {
		txid, err := parseHash(text)
		if err != nil {
			return err
		}
		if now[txid] = d.pool[txid]; now[txid] == nil {
			added = append(added, txid)
		}
	}
	for _, txid := range added {
		tx, err := d.poolTx(ctx, txid)
		if err != nil {
			return err
		}
		if tx == nil {
			delete(now, txid)
			continue
		}
		now[txid] = tx
	}
	txs := make([]*wire.MsgTx, 0, len(now))
	for _, txid := range append(d.seen, added...) {
		if tx := now[txid]; tx != nil {
			seen, txs = append(seen, txid), append(txs, tx)
		}
	}
	d.pool, d.seen = now, seen
	d.view.SetPool(txs)
	return nil
}

// poolTx reads one unconfirmed transaction; nil when it has left the mempool
// since it was listed.
func (d *Driver) poolTx(ctx context.Context, txid chainhash.Hash) (*wire.MsgTx, error) {
	var text string
	err := d.rpc.call(ctx, &text, "getrawtransaction", txid.String(), 0)
	if isCode(err, codeNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable("read transaction "+txid.String(), err)
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: transaction %s: %w", settle.ErrLedgerUnavailable, txid, err)
	}
	tx, err := parseTx(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: transaction %s: %w", settle.ErrLedgerUnavailable, txid, err)
	}
	if tx.TxHash() != txid {
		return nil, fmt.Errorf("%w: transaction %s: the node sent another", settle.ErrLedgerUnavailable, txid)
	}
	return tx, nil
}
