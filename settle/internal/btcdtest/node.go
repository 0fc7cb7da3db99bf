// Package btcdtest runs a real btcd in regression test mode for tests of the
// system tier: a chain that this module did not write, under standard policy.
//
// Start with [Start]. The binary is the one that the environment variable
// PKTCLOUD_BTCD names; without it, btcd v0.26.2 is built once into the user's
// cache folder, for which the Go module proxy must be reachable or the module
// in the cache.
package btcdtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

const (
	// Version is the btcd that is built when none is named.
	Version = "v0.26.2"
	// Rail is the network's name in settle/pktchain.
	Rail = "btc-regtest"
	// Magic is what the node answers to getcurrentnet.
	Magic = 0xdab5bffa

	startLimit = 30 * time.Second
	stopLimit  = 10 * time.Second
	// matureBlocks makes fifty rewards spendable.
	matureBlocks = 150
)

// Node is a running btcd with a wallet that owns its rewards.
type Node struct {
	Ledger  *pktd.Driver   // follows the node from its first block
	Wallet  *wallet.Wallet // of the miner
	Network pktchain.Network

	cfg    pktd.Config
	cmd    *exec.Cmd
	exited chan struct{} // closed once the process has ended
}

// Start runs a node whose files lie in dir, with money in its wallet, and with
// further options of btcd. Close ends it.
func Start(ctx context.Context, dir string, options ...string) (*Node, error) {
	binary, err := Binary(ctx)
	if err != nil {
		return nil, err
	}
	network, ok := pktchain.NetworkOf(Rail)
	if !ok {
		return nil, fmt.Errorf("no network %s", Rail)
	}
	rpc, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	var secret [16]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	n := &Node{Network: network, exited: make(chan struct{}), cfg: pktd.Config{
		URL: "http://" + rpc, User: "test", Password: hex.EncodeToString(secret[:]),
		Magic: Magic, PollInterval: 20 * time.Millisecond,
	}}
	if n.Ledger, err = n.Driver(); err != nil {
		return nil, err
	}
	n.Wallet, err = wallet.Open(ctx, bytes.Repeat([]byte{0xbd}, wallet.SeedBytes), wallet.Config{
		Network: network, Ledger: n.Ledger, Store: settletest.NewStore(),
	})
	if err != nil {
		return nil, err
	}
	miner, err := n.Wallet.NewAddress(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.run(ctx, binary, dir, append(options, "--rpclisten="+rpc, "--miningaddr="+miner)); err != nil {
		return nil, err
	}
	if err := errors.Join(n.Mine(ctx, matureBlocks)); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) run(ctx context.Context, binary, dir string, options []string) error {
	config := filepath.Join(dir, "btcd.conf") // empty: the user's own must not count
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return err
	}
	logPath := filepath.Join(dir, "btcd.out")
	out, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer out.Close()
	n.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, append([]string{
		"--regtest", "--rejectnonstd", "--notls", "--nolisten", "--nodnsseed",
		"--configfile=" + config, "--datadir=" + filepath.Join(dir, "data"), "--logdir=" + filepath.Join(dir, "log"),
		"--rpcuser=" + n.cfg.User, "--rpcpass=" + n.cfg.Password,
	}, options...)...)
	n.cmd.Stdout, n.cmd.Stderr = out, out
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		defer close(n.exited)
		_ = n.cmd.Wait() // its exit code says nothing about the test
	}()
	deadline := time.Now().Add(startLimit)
	for {
		_, err := n.Ledger.Tip(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-n.exited:
			text, _ := os.ReadFile(logPath)
			return fmt.Errorf("btcd ended at once: %s", text)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), n.Close())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("btcd does not answer: %w", err), n.Close())
		}
	}
}

// Config is how to reach the node.
func (n *Node) Config() pktd.Config { return n.cfg }

// Driver returns another driver of the same node.
func (n *Node) Driver() (*pktd.Driver, error) { return pktd.New(n.cfg) }

// Mine makes blocks that pay the node's wallet.
func (n *Node) Mine(ctx context.Context, blocks int) error {
	_, err := n.call(ctx, "generate", blocks)
	return err
}

// Fund pays amount to script from the node's wallet, in a block.
func (n *Node) Fund(ctx context.Context, script []byte, amount pktcloud.Amount) error {
	if _, err := n.Wallet.Send(ctx, wallet.SendRequest{To: settle.Payment{Script: script, Amount: amount}, MaxFee: 1 << 20}); err != nil {
		return err
	}
	return n.Mine(ctx, 1)
}

// Invalidate takes the best blocks back.
func (n *Node) Invalidate(ctx context.Context, blocks int) error {
	tip, err := n.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	hash, err := n.call(ctx, "getblockhash", tip.Height-uint64(blocks)+1)
	if err != nil {
		return err
	}
	_, err = n.call(ctx, "invalidateblock", hash)
	return err
}

// Fixture is the node as settletest.TestLedger wants it.
func (n *Node) Fixture() settletest.LedgerFixture {
	return settletest.LedgerFixture{
		Ledger: n.Ledger, Mine: n.Mine, Fund: n.Fund, Invalidate: n.Invalidate, Break: n.Close,
		Restart: func() (settle.Ledger, error) { return n.Driver() },
	}
}

// Close ends the node. A second Close does nothing.
func (n *Node) Close() error {
	select {
	case <-n.exited:
		return nil
	default:
	}
	err := n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
		return nil
	case <-time.After(stopLimit):
		err = errors.Join(err, n.cmd.Process.Kill())
		<-n.exited
		return err
	}
}

// call asks the node what the driver has no use for.
func (n *Node) call(ctx context.Context, method string, params ...any) (result any, err error) {
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(n.cfg.User, n.cfg.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var reply struct {
		Result any `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, pktd.MaxReplyBytes)).Decode(&reply); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	if reply.Error != nil {
		return nil, fmt.Errorf("%s: %s", method, reply.Error.Message)
	}
	return reply.Result, nil
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Binary returns the path of btcd, built if need be.
func Binary(ctx context.Context) (string, error) {
	if path := os.Getenv("PKTCLOUD_BTCD"); path != "" {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "pkt-cloud", "btcd-"+Version)
	path := filepath.Join(dir, "btcd")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// go install writes the file in one step, so that two tests may race.
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/btcsuite/btcd@"+Version)
	cmd.Dir = dir // outside of this module
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod", "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build btcd %s (set PKTCLOUD_BTCD to a binary to avoid it): %w: %s", Version, err, strings.TrimSpace(string(out)))
	}
	return path, nil
}
