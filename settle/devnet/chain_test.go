package devnet

import (
	"bytes"
	"context"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func open(t *testing.T, dir string, cfg Config) *Chain {
	t.Helper()
	c, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func script(b byte) []byte { return append([]byte{0, 20}, bytes.Repeat([]byte{b}, 20)...) }

func TestFaucetPaysExactly(t *testing.T) {
	c := open(t, t.TempDir(), Config{})
	for _, units := range []pktcloud.Amount{dustUnits, 1 << 30, 100 << 30, 100 << 30} {
		txid, err := c.Faucet(t.Context(), script(7), units)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.Output(t.Context(), settle.Outpoint{TxID: txid})
		if err != nil {
			t.Fatal(err)
		}
		if out.Amount != units || !bytes.Equal(out.Script, script(7)) || out.Depth != 1 {
			t.Errorf("faucet of %d: got %+v", units, out)
		}
	}
	if _, err := c.Faucet(t.Context(), script(7), 0); err == nil {
		t.Error("faucet of 0: accepted")
	}
}

// A chain whose process was killed is back, whole, when it is opened again.
func TestOpenAfterCrash(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Faucet(t.Context(), script(1), 1<<30); err != nil {
		t.Fatal(err)
	}
	want, err := c.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	copyDir(t, dir, copied) // what a killed process leaves behind
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"closed": dir, "killed": copied} {
		t.Run(name, func(t *testing.T) {
			c := open(t, dir, Config{})
			got, err := c.Tip(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("tip: got %v, want %v", got, want)
			}
			coins, err := c.Coins(t.Context(), script(1))
			if err != nil {
				t.Fatal(err)
			}
			if len(coins) != 1 {
				t.Errorf("coins: got %d, want 1", len(coins))
			}
		})
	}
}

// The first block is the same for ever: chains of two versions can be told
// apart by nothing else.
func TestGenesis(t *testing.T) {
	const want = "0b8ccf746bed1a88fa233878b4d32e59b57ba216c67ba328fc6c1596696dce81"
	if got := params().GenesisHash.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c := open(t, t.TempDir(), Config{InitialBlocks: 3})
	for h := int32(1); h <= 3; h++ {
		block, err := c.chain.BlockByHeight(h)
		if err != nil {
			t.Fatal(err)
		}
		reward := block.Transactions()[0].MsgTx().TxOut[0]
		if reward.Value != BlockReward || !bytes.Equal(reward.PkScript, FaucetScript()) {
			t.Errorf("block %d pays %d to %x", h, reward.Value, reward.PkScript)
		}
	}
}

func TestRunMinesOnATimer(t *testing.T) {
	c := open(t, t.TempDir(), Config{InitialBlocks: -1, BlockInterval: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var tip settle.Tip
	for tip.Height < 3 {
		next, err := c.WaitTip(t.Context(), tip)
		if err != nil {
			t.Fatal(err)
		}
		tip = next
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A block holds no more than it was told; what a full one is like shows
// settle/manager TestFullBlocksNearExpiry.
func TestBlockMaxWeight(t *testing.T) {
	for _, weight := range []uint32{1, MinBlockMaxWeight - 1, defaultBlockMaxWeight + 1} {
		if c, err := Open(t.TempDir(), Config{BlockMaxWeight: weight}); err == nil {
			t.Errorf("blocks of weight %d: accepted", weight)
			_ = c.Close()
		}
	}
	c := open(t, t.TempDir(), Config{BlockMaxWeight: MinBlockMaxWeight})
	if _, err := c.Faucet(t.Context(), script(1), 1<<30); err != nil {
		t.Error(err)
	}
}
