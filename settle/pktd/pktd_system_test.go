//go:build system

package pktd_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

// TestRealPktd reads from the node that PKTD_RPC names, of whatever network: it
// makes no block and changes nothing.
func TestRealPktd(t *testing.T) {
	cfg, ok, err := nodetest.Named()
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		t.Skip("PKTD_RPC names no real PKT node")
	}
	d, err := pktd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tip, err := d.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Broadcast(t.Context(), []byte{0}); err == nil {
		t.Error("a transaction of one byte: accepted")
	}
	cfg.Birthday = tip.Height
	if d, err = pktd.New(cfg); err != nil {
		t.Fatal(err)
	}
	if out, err := d.Output(t.Context(), settle.Outpoint{TxID: [32]byte{1}}); err != nil || out.Known {
		t.Errorf("unknown output: got %+v, %v", out, err)
	}
}
