package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
)

// TestBirthdayFile: a new phrase gets the height of its first sight of the chain,
// a restored one what was said of it, and the directory keeps either.
func TestBirthdayFile(t *testing.T) {
	chain, err := devnet.Open(t.TempDir(), devnet.Config{}) // 300 blocks
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Close()
	w := &world{t: t, chain: chain}
	dir := w.init("new")
	birthday := func(dir string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "birthday"))
		w.check(err)
		return strings.TrimSpace(string(text))
	}
	if got := birthday(dir); got != "new" {
		t.Errorf("a new phrase: got %q, want %q", got, "new")
	}
	n := w.start(node.Config{Dir: dir, Ledger: chain})
	w.until("the phrase has a birthday", func() bool { return birthday(dir) == "200" })
	n.stop()

	other := filepath.Join(t.TempDir(), "restored")
	phrase, err := node.Init(node.InitConfig{Dir: filepath.Join(t.TempDir(), "source"), Unattended: true})
	w.check(err)
	_, err = node.Init(node.InitConfig{Dir: other, Unattended: true, Phrase: phrase, Birthday: 50})
	w.check(err)
	n = w.start(node.Config{Dir: other, Ledger: chain})
	n.stop()
	if got := birthday(other); got != "50" {
		t.Errorf("a restored phrase: got %q, want 50", got)
	}
	far := filepath.Join(t.TempDir(), "far")
	_, err = node.Init(node.InitConfig{Dir: far, Unattended: true, Phrase: phrase, Birthday: 99_999})
	w.check(err)
	n = w.start(node.Config{Dir: far, Ledger: chain})
	info, err := n.Info(t.Context())
	if err != nil || !strings.Contains(info.Problem, "birthday is block 99999, and the chain has 300") {
		t.Errorf("a birthday above the chain: got %q, %v", info.Problem, err)
	}
	n.stop()
	w.check(os.WriteFile(filepath.Join(other, "birthday"), []byte("soon\n"), 0o600))
	if _, err := node.Open(t.Context(), node.Config{Dir: other, Ledger: chain}); !errors.Is(err, service.CodeInvalid) {
		t.Errorf("a birthday that is no height: got %v, want %s", err, service.CodeInvalid)
	}
}
