//go:build system

package pktd_test

import (
	"net/url"
	"os"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

// TestRealPktd reads from the node that PKTD_RPC names, as in
// https://user:password@host:port. It cannot mine, so it changes nothing.
func TestRealPktd(t *testing.T) {
	address := os.Getenv("PKTD_RPC")
	if address == "" {
		t.Skip("PKTD_RPC names no real PKT node")
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("PKTD_RPC is no address")
	}
	password, _ := u.User.Password()
	cfg := pktd.Config{User: u.User.Username(), Password: password, CertFile: os.Getenv("PKTD_CERT")}
	u.User = nil
	cfg.URL = u.String()
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
