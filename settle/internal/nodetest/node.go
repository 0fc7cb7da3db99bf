// Package nodetest gives tests of the system tier a real node: a chain that this
// module did not write, under standard policy.
//
// Begin with [New]. It hands out the node that the environment variable PKTD_RPC
// names, where blocks can be made at will there, or runs a btcd. All that is
// different between these is in this package: see [Node.TakeBack] and
// [Node.Named].
package nodetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"net/http"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

const (
	// Rail is the network's name in settle/pktchain.
	Rail = "btc-regtest"
	// MinerAddress is where the rewards of a node must go: the first address of
	// the tests' own wallet.
	MinerAddress = "bcrt1q83cyxanfwcj725v7zygnswppr8ckz0laku86sh"

	minerSeed = 0xbd
	// A pktd takes a new connection for each question.
	pollInterval      = 20 * time.Millisecond
	pollIntervalNamed = 100 * time.Millisecond
	// matureBlocks makes fifty rewards spendable.
	matureBlocks = 150
	// witnessHeight is when a pktd's miners have voted for segregated witness; a
	// btcd has it from the start.
	witnessHeight = 470
)

// Node is a running node with a wallet that owns its rewards.
type Node struct {
	Ledger  *pktd.Driver   // follows the node from its first block
	Wallet  *wallet.Wallet // of the miner
	Network pktchain.Network

	cfg  pktd.Config
	salt []byte // of secrets: a chain that was there before has others' channels
	http *http.Client
	btcd *process // nil where PKTD_RPC names the node
}

// New returns a node for the length of a test. options are of btcd, for where
// that is run.
func New(t testing.TB, options ...string) *Node {
	t.Helper()
	n, err := open(t.Context(), t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func open(ctx context.Context, dir string, options []string) (*Node, error) {
	network, ok := pktchain.NetworkOf(Rail)
	if !ok {
		return nil, fmt.Errorf("no network %s", Rail)
	}
	n := &Node{Network: network, http: http.DefaultClient}
	named, err := n.useNamed(ctx)
	if err != nil {
		return nil, err
	}
	if !named {
		if err := n.runBtcd(ctx, dir, append(options, "--miningaddr="+MinerAddress)); err != nil {
			return nil, err
		}
	}
	if err := n.begin(ctx); err != nil {
		_ = n.close() // the first error is the one to read
		return nil, err
	}
	return n, nil
}

// begin gives the miner money that can be spent.
func (n *Node) begin(ctx context.Context) error {
	var err error
	if n.Ledger, err = n.Driver(); err != nil {
		return err
	}
	n.Wallet, err = wallet.Open(ctx, bytes.Repeat([]byte{minerSeed}, wallet.SeedBytes), wallet.Config{
		Network: n.Network, Ledger: n.Ledger, Store: settletest.NewStore(),
	})
	if err != nil {
		return err
	}
	if address, err := n.Wallet.NewAddress(ctx); err != nil || address != MinerAddress {
		return fmt.Errorf("the miner's address is %s, not %s: %w", address, MinerAddress, err)
	}
	if n.btcd != nil {
		return n.Mine(ctx, matureBlocks)
	}
	tip, err := n.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	if tip.Height < witnessHeight {
		if err := n.Mine(ctx, int(witnessHeight-tip.Height)); err != nil {
			return err
		}
	}
	b, err := n.Wallet.Balance(ctx)
	if err != nil {
		return err
	}
	if b.Confirmed == 0 {
		return fmt.Errorf("the node of %s pays its rewards to others: start it anew with --miningaddr=%s", Env, MinerAddress)
	}
	if tip, err = n.Ledger.Tip(ctx); err != nil {
		return err
	}
	n.cfg.Birthday = tip.Height // what was there before is none of this test's
	n.salt = make([]byte, 16)
	_, err = rand.Read(n.salt)
	return err
}

// Named reports whether PKTD_RPC names the node: it was there before, goes on
// after the test, and has the options that its owner gave it.
func (n *Node) Named() bool { return n.btcd == nil }

// Config is how to reach the node.
func (n *Node) Config() pktd.Config { return n.cfg }

// Driver returns another driver of the same node.
func (n *Node) Driver() (*pktd.Driver, error) { return pktd.New(n.cfg) }

// Secret returns a wallet's seed that no other test on this chain has used.
func (n *Node) Secret(name byte) []byte {
	sum := sha512.Sum512(append(bytes.Clone(n.salt), name))
	return sum[:wallet.SeedBytes]
}

// Mine makes blocks that pay the node's wallet.
func (n *Node) Mine(ctx context.Context, blocks int) error {
	return n.call(ctx, nil, "generate", blocks)
}

// Fund pays amount to script from the node's wallet, in a block.
func (n *Node) Fund(ctx context.Context, script []byte, amount pktcloud.Amount) error {
	if _, err := n.Wallet.Send(ctx, wallet.SendRequest{To: settle.Payment{Script: script, Amount: amount}, MaxFee: 1 << 20}); err != nil {
		return err
	}
	return n.Mine(ctx, 1)
}

// Fixture is the node as settletest.TestLedger wants it.
func (n *Node) Fixture() settletest.LedgerFixture {
	f := settletest.LedgerFixture{
		Ledger: n.Ledger, Salt: string(n.salt), Mine: n.Mine, Fund: n.Fund, Invalidate: n.TakeBack,
		Restart: func() (settle.Ledger, error) { return n.Driver() },
	}
	if !n.Named() {
		f.Break = n.close
	}
	return f
}

// close ends what New began. A second close does nothing.
func (n *Node) close() error {
	if n.btcd == nil {
		return nil
	}
	return n.btcd.close()
}
