//go:build system

package systemtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestRestoreFromPhrase: a tenant's machine is lost while a lease runs, and the
// provider is gone too. From the phrase alone, in an empty directory, the node
// finds the channel on the chain, says when it comes back, and gets everything
// back. Nothing of the channel's money is lost but the refund's fee.
func TestRestoreFromPhrase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	w.tenant.stop(t)
	w.tenant = w.fromPhrase("lost")
	const channelBlocks = 600
	w.tenant.flags = append(w.tenant.flags, "--bootstrap", w.provider.info.Addresses[0], "--channel-blocks", strconv.Itoa(channelBlocks))
	w.tenant.start()
	w.fund(w.tenant, "100 PKT")
	l := w.rent()
	l = w.paidIntervals(l.ID, 2)
	w.mine(2)
	w.provider.kill()
	w.provider.removeLeftovers()
	before, err := w.tenant.client().WalletBalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.tenant.kill()

	again := w.fromPhrase("again")
	again.start()
	c := again.client()
	eventually(t, "the channel is found", func() (bool, error) {
		b, err := c.WalletBalance(t.Context())
		return b.Reserved == l.Channel.Capacity && b.Spendable == before.Spendable, err
	})
	moves, err := c.WalletHistory(t.Context(), service.HistoryQuery{})
	if err != nil || !slices.ContainsFunc(moves, func(m service.Movement) bool { return strings.Contains(m.Note, "returns from block") }) {
		t.Errorf("history: got %+v, %v; want the channel and when it returns", moves, err)
	}
	w.mine(channelBlocks + 1)
	eventually(t, "the refund is mined", func() (bool, error) {
		b, err := c.WalletBalance(t.Context())
		return b.Reserved == 0 && b.Spendable > before.Spendable, err
	})
	after, err := c.WalletBalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lost := before.Spendable + l.Channel.Capacity - after.Spendable; lost > 1_000 {
		t.Errorf("%d units were lost, want a fee", uint64(lost))
	}
	again.stop(t)
}

// fromPhrase makes a data directory from a phrase that "pktcloud restore" reads
// from its standard input.
func (w *world) fromPhrase(name string, flags ...string) *party {
	w.t.Helper()
	p := w.newParty(name, flags...)
	if err := os.RemoveAll(p.dir); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(w.bin, "restore", "--unattended", "--dir", filepath.Clean(p.dir))
	cmd.Stdin = strings.NewReader(goodPhrase + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("restore: %v: %s", err, out)
	}
	return p
}
