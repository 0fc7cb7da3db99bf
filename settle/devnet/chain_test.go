package devnet

import (
	"bytes"
	"testing"

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
