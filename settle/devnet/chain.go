// Package devnet is a private chain inside the program: btcd's own consensus,
// mempool and mining packages over a directory, with units and names like
// PKT's. It is for demonstrations and tests; its money is worth nothing, and
// the key of its faucet is public.
//
// Start with [Open]; a [Chain] is a settle.Ledger, and [Chain.Serve] answers
// JSON-RPC as a pktd does. It does not speak to peers. It follows btcd's rules,
// not PKT's: median time spans 11 blocks instead of 111, no reward goes to a
// steward, and amounts above 2.1e15 units are refused. The rules and the
// layout of the directory are those of spec/ledger.md.
package devnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/database"
	_ "github.com/btcsuite/btcd/database/ffldb" // the one store that blockchain can use
	"github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/mining"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

const (
	// MaxMine is the most blocks that one call mines.
	MaxMine = 10_000
	// defaultInitialBlocks leaves 200 mature rewards for the faucet.
	defaultInitialBlocks = 300
	// MinBlockMaxWeight is the least that a Config may allow a block.
	MinBlockMaxWeight     = 4_000
	defaultBlockMaxWeight = 3_000_000
	blocksDir             = "blocks"
	utxoCacheBytes        = 32 << 20
	sigCacheEntries       = 10_000
	maxOrphanBytes        = 100_000
)

// Config says how a chain runs. The zero value mines on demand only.
type Config struct {
	// BlockInterval is the time between blocks of [Chain.Run]; zero means that
	// blocks come on demand only.
	BlockInterval time.Duration
	// InitialBlocks is how many blocks a new chain begins with; zero means 300,
	// so that the faucet has coins to give, and a negative number none.
	InitialBlocks int
	// BlockMaxWeight is how much a mined block holds, from MinBlockMaxWeight on;
	// zero means 3,000,000, as nodes have it. A small block is soon full.
	BlockMaxWeight uint32
}

// Chain is a running devnet. It is safe for concurrent use.
type Chain struct {
	cfg   Config
	db    database.DB
	chain *blockchain.BlockChain
	pool  *mempool.TxPool
	gen   *mining.BlkTmplGenerator

	mu      sync.Mutex // guards all below, and every change of chain and pool
	view    *chainview.View
	extra   uint64        // makes two blocks of one height differ
	changed chan struct{} // closed and replaced at each new tip
	closed  bool
	failure error // of a callback, until the call that caused it returns
}

// Open opens the chain in dir, or begins one there. Only one program at a time
// can have it open.
func Open(dir string, cfg Config) (*Chain, error) {
	switch {
	case cfg.BlockMaxWeight == 0:
		cfg.BlockMaxWeight = defaultBlockMaxWeight
	case cfg.BlockMaxWeight < MinBlockMaxWeight || cfg.BlockMaxWeight > defaultBlockMaxWeight:
		return nil, fmt.Errorf("blocks of weight %d: want %d to %d", cfg.BlockMaxWeight, MinBlockMaxWeight, defaultBlockMaxWeight)
	}
	path := filepath.Join(dir, blocksDir)
	saved, err := rawBlocks(path)
	if err != nil {
		return nil, err
	}
	db, fresh, err := openDB(path)
	if refused, ok := errors.AsType[database.Error](err); ok && errors.Is(refused.Err, syscall.EAGAIN) {
		return nil, fmt.Errorf("another devnet uses %s; stop it, or choose another directory", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open devnet in %s: %w", dir, err)
	}
	c := &Chain{cfg: cfg, db: db, view: chainview.New(true), changed: make(chan struct{}), extra: uint64(time.Now().UnixNano())}
	if err := c.start(saved); err != nil {
		return nil, errors.Join(fmt.Errorf("open devnet in %s: %w", dir, err), db.Close())
	}
	if fresh && cfg.InitialBlocks >= 0 {
		n := cfg.InitialBlocks
		if n == 0 {
			n = defaultInitialBlocks
		}
		if _, err := c.Mine(n, nil); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func openDB(path string) (db database.DB, fresh bool, err error) {
	if _, err := os.Stat(filepath.Join(path, "metadata")); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, false, err
		}
		db, err := database.Create("ffldb", path, wire.BitcoinNet(Magic))
		return db, true, err
	}
	db, err = database.Open("ffldb", path, wire.BitcoinNet(Magic))
	return db, false, err
}

// start builds the chain's parts over the open database, gives it the blocks
// that an unclean end cut off, and reads every block into the view.
func (c *Chain) start(saved [][]byte) error {
	sigs, hashes := txscript.NewSigCache(sigCacheEntries), txscript.NewHashCache(sigCacheEntries)
	clock := blockchain.NewMedianTime()
	chain, err := blockchain.New(&blockchain.Config{
		DB: c.db, UtxoCacheMaxSize: utxoCacheBytes, ChainParams: params(),
		TimeSource: clock, SigCache: sigs, HashCache: hashes,
	})
	if err != nil {
		return err
	}
	c.chain = chain
	if err := c.restore(saved); err != nil {
		return err
	}
	c.pool = mempool.New(&mempool.Config{
		Policy: mempool.Policy{
			DisableRelayPriority: true, // never relay for free: every node would not
			MaxOrphanTxSize:      maxOrphanBytes,
			MaxSigOpCostPerTx:    blockchain.MaxBlockSigOpsCost / 4,
			MinRelayTxFee:        btcutil.Amount(settle.RelayFloor),
			MaxTxVersion:         2,
		},
		ChainParams:    params(),
		FetchUtxoView:  chain.FetchUtxoView,
		BestHeight:     func() int32 { return chain.BestSnapshot().Height },
		MedianTimePast: func() time.Time { return chain.BestSnapshot().MedianTime },
		CalcSequenceLock: func(tx *btcutil.Tx, view *blockchain.UtxoViewpoint) (*blockchain.SequenceLock, error) {
			return chain.CalcSequenceLock(tx, view, true)
		},
		IsDeploymentActive: chain.IsDeploymentActive,
		SigCache:           sigs,
		HashCache:          hashes,
	})
	c.gen = mining.NewBlkTmplGenerator(&mining.Policy{
		BlockMaxWeight: c.cfg.BlockMaxWeight, BlockMaxSize: c.cfg.BlockMaxWeight / 4, TxMinFreeFee: btcutil.Amount(settle.RelayFloor),
	}, params(), c.pool, chain, clock, sigs, hashes)
	if err := c.load(); err != nil {
		return err
	}
	chain.Subscribe(c.onBlock)
	return nil
}

// restore connects again what the block files hold beyond the database's last
// flush: btcd writes its index every few minutes, and cuts the files back to
// it when it opens after an unclean end.
func (c *Chain) restore(saved [][]byte) error {
	for _, raw := range saved {
		block, err := btcutil.NewBlockFromBytes(raw)
		if err != nil {
			return fmt.Errorf("block file: %w", err)
		}
		if have, err := c.chain.HaveBlock(block.Hash()); err != nil || have {
			if err != nil {
				return err
			}
			continue
		}
		if _, _, err := c.chain.ProcessBlock(block, blockchain.BFNone); err != nil {
			return fmt.Errorf("connect block %s again: %w", block.Hash(), err)
		}
	}
	return nil
}

func (c *Chain) load() error {
	best := c.chain.BestSnapshot()
	for h := int32(0); h <= best.Height; h++ {
		block, err := c.chain.BlockByHeight(h)
		if err != nil {
			return err
		}
		if h == 0 {
			c.view.Start(settle.Tip{Hash: *block.Hash(), Time: block.MsgBlock().Header.Timestamp.Unix()})
			continue
		}
		c.view.Connect(viewBlock(block, h))
	}
	return nil
}

func viewBlock(b *btcutil.Block, height int32) chainview.Block {
	return chainview.Block{
		Height: uint64(height), Hash: *b.Hash(),
		Time: b.MsgBlock().Header.Timestamp.Unix(), Txs: b.MsgBlock().Transactions,
	}
}

// onBlock keeps mempool and view in step with the chain. btcd calls it from
// within ProcessBlock and InvalidateBlock, so c.mu is held.
func (c *Chain) onBlock(n *blockchain.Notification) {
	block, ok := n.Data.(*btcutil.Block)
	if !ok {
		return
	}
	switch n.Type {
	case blockchain.NTBlockConnected:
		for _, tx := range block.Transactions()[1:] {
			c.pool.RemoveTransaction(tx, false)
			c.pool.RemoveDoubleSpends(tx)
		}
		height, err := c.chain.BlockHeightByHash(block.Hash())
		if err != nil {
			c.failure = err
			return
		}
		c.view.Connect(viewBlock(block, height))
	case blockchain.NTBlockDisconnected:
		for _, tx := range block.Transactions()[1:] {
			if _, _, err := c.pool.MaybeAcceptTransaction(tx, false, false); err != nil {
				c.pool.RemoveTransaction(tx, true)
			}
		}
		if !c.view.Disconnect() {
			c.failure = errors.New("reorganisation deeper than the view can undo")
		}
	case blockchain.NTBlockAccepted:
	}
}

// Mine makes n blocks at once and returns their hashes. Their rewards pay
// script; nil means the faucet.
func (c *Chain) Mine(n int, script []byte) ([]chainhash.Hash, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mine(n, script)
}

func (c *Chain) mine(n int, script []byte) ([]chainhash.Hash, error) {
	if c.closed {
		return nil, errClosed()
	}
	if n < 0 || n > MaxMine {
		return nil, fmt.Errorf("mine %d blocks: want 0 to %d", n, MaxMine)
	}
	if script == nil {
		script = FaucetScript()
	}
	defer func() {
		c.syncPool()
		c.wake()
	}()
	hashes := make([]chainhash.Hash, 0, n)
	for range n {
		hash, err := c.mineOne(script)
		if err != nil {
			return hashes, fmt.Errorf("mine a block: %w", err)
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

func (c *Chain) mineOne(script []byte) (chainhash.Hash, error) {
	t, err := c.gen.NewBlockTemplate(nil)
	if err != nil {
		return chainhash.Hash{}, err
	}
	t.Block.Transactions[0].TxOut[0].PkScript = script
	c.extra++
	if err := c.gen.UpdateExtraNonce(t.Block, t.Height, c.extra); err != nil {
		return chainhash.Hash{}, err
	}
	solve(&t.Block.Header)
	_, orphan, err := c.chain.ProcessBlock(btcutil.NewBlock(t.Block), blockchain.BFNone)
	if err == nil && orphan {
		err = errors.New("own block is an orphan")
	}
	if err == nil {
		err, c.failure = c.failure, nil
	}
	return t.Block.BlockHash(), err
}

// Invalidate takes the best n blocks back, as a reorganisation would. Their
// transactions return to the mempool where they still fit.
func (c *Chain) Invalidate(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed()
	}
	height := c.chain.BestSnapshot().Height - int32(n) + 1
	if n < 1 || n > chainview.UndoDepth || height < 1 {
		return fmt.Errorf("take %d blocks back: too many or too few", n)
	}
	hash, err := c.chain.BlockHashByHeight(height)
	if err != nil {
		return err
	}
	if err := c.chain.InvalidateBlock(hash); err != nil {
		return fmt.Errorf("take %d blocks back: %w", n, err)
	}
	c.syncPool()
	c.wake()
	err, c.failure = c.failure, nil
	return err
}

// wake ends every WaitTip. The caller holds c.mu.
func (c *Chain) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Run mines a block each BlockInterval until ctx ends, and then returns nil.
func (c *Chain) Run(ctx context.Context) error {
	if c.cfg.BlockInterval <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(c.cfg.BlockInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := c.Mine(1, nil); err != nil {
				return err
			}
		}
	}
}

// Close writes the chain's state to disk and releases the directory. The
// mempool is lost, as a node's is. A second Close does nothing.
func (c *Chain) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.wake()
	return errors.Join(c.chain.FlushUtxoCache(blockchain.FlushRequired), c.db.Close())
}

func errClosed() error {
	return fmt.Errorf("%w: the devnet is closed", settle.ErrLedgerUnavailable)
}
