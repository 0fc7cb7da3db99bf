package node_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
)

// TestAnotherChain: coins of another chain are worth nothing here. A node that
// is pointed at one sees no chain at all, whatever it answers.
func TestAnotherChain(t *testing.T) {
	chain, err := devnet.Open(t.TempDir(), devnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cookie := filepath.Join(t.TempDir(), ".cookie")
	auth, err := devnet.NewCookie(cookie)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- chain.Serve(ctx, l, auth) }()
	defer func() { cancel(); <-done; chain.Close() }()
	for network, right := range map[string]bool{"pkt": false, "btc-regtest": false, "pkt-devnet": true} {
		dir := filepath.Join(t.TempDir(), network)
		if _, err := node.Init(node.InitConfig{Dir: dir, Unattended: true}); err != nil {
			t.Fatal(err)
		}
		n, err := node.Open(ctx, node.Config{Dir: dir, Network: network, Chain: node.Chain{URL: "http://" + l.Addr().String(), CookieFile: cookie}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.WalletBalance(ctx); (err == nil) != right {
			t.Errorf("a node of %s over a devnet: got %v, want an answer: %v", network, err, right)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}
