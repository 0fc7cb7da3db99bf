//go:build system

package systemtest

import (
	"fmt"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestPayeeRestoresFromTowers: a provider's machine is lost while a lease runs,
// with its directory, and the tenant is gone too: it withholds everything. From
// the phrase alone in an empty directory, with one of its three towers left, the
// node has the channel back, says when it claims it, and claims it. It loses
// what was paid after its last deposit, and no more.
func TestPayeeRestoresFromTowers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{})
	const channelBlocks = 600
	w.tenant.stop(t)
	w.provider.stop(t)
	var towers []*party
	var flags []string
	for i := range 3 {
		p := w.newParty(fmt.Sprintf("tower %d", i), "--serve-tower", "--tower-min-value", "0")
		p.start()
		towers = append(towers, p)
		flags = append(flags, "--tower", p.info.Addresses[0])
	}
	const every = pktcloud.Amount(10_000)
	w.provider = w.fromPhrase("lost", append(flags, "--provider", "--allow-dial", w.registry, "--deposit-every", every.String())...)
	w.provider.start()
	w.tenant.flags = []string{"--bootstrap", w.provider.info.Addresses[0], "--channel-blocks", fmt.Sprint(channelBlocks)}
	w.tenant.start()
	l := w.rent()
	w.mine(2)
	w.paidIntervals(l.ID, 2)
	c := w.provider.client()
	var last pktcloud.Amount // that every tower has, at least
	eventually(t, "deposits at all towers", func() (bool, error) {
		before, err := channelOf(t, c)
		if err != nil {
			return false, err
		}
		r, err := c.Deposit(t.Context())
		if err != nil {
			return false, err
		}
		for _, s := range r.Towers {
			if s.Receipts != 1 || s.Missing != 0 {
				return false, nil
			}
		}
		last = before.Paid - min(before.Paid, every)
		return before.Paid > 3*every, nil
	})
	w.tenant.kill()
	now, err := channelOf(t, c)
	if err != nil {
		t.Fatal(err)
	}
	w.provider.kill()
	w.provider.removeLeftovers()
	for _, p := range towers[1:] {
		p.kill()
	}

	again := w.fromPhrase("again", flags...)
	again.start()
	c = again.client()
	var back service.ChannelView
	eventually(t, "the channel is given back", func() (bool, error) {
		back, err = channelOf(t, c)
		return back.Restored, err
	})
	if back.Phase != "restored" || back.Role != "payee" || back.Paid < last || !strings.Contains(back.Now, "claims") {
		t.Errorf("restored: got %+v, want at least %d units claimed later", back, uint64(last))
	}
	said := w.run("channel", "list", "--dir", again.dir) + w.run("channel", "show", back.Label, "--dir", again.dir) + w.run("tower", "list", "--dir", again.dir)
	for _, want := range []string{"restored", "A tower gave it back", "not yet"} {
		if !strings.Contains(said, want) {
			t.Errorf("the commands say %q, want %q in it", said, want)
		}
	}
	info, err := c.Info(t.Context())
	if err != nil || !strings.Contains(info.Problem, "Still asking for earlier channels") {
		t.Errorf("the node says %q, %v; want that two towers are still asked", info.Problem, err)
	}
	w.mine(channelBlocks - 144 + 1) // past the late height; before the expiry
	eventually(t, "the claim is mined", func() (bool, error) {
		w.mine(1)
		back, err = channelOf(t, c)
		return back.Phase == "closed", err
	})
	var b service.Balance
	eventually(t, "the wallet has it", func() (bool, error) {
		b, err = c.WalletBalance(t.Context())
		return b.Spendable > 0, err
	})
	txid := back.Steps[len(back.Steps)-1].TxID
	t.Logf("of %d units paid, %d or more deposited, %d came back by %s", uint64(now.Paid), uint64(last), uint64(b.Spendable), txid)
	if lost := now.Paid - min(now.Paid, b.Spendable); lost > now.Paid-last || txid == "" {
		t.Errorf("%d units were lost by %q, want at most the %d paid after the last deposit", uint64(lost), txid, uint64(now.Paid-last))
	}
	again.stop(t)
}

// channelOf is the only channel of a node.
func channelOf(t *testing.T, c *client.Client) (service.ChannelView, error) {
	list, err := c.Channels(t.Context())
	if err != nil || len(list) == 0 {
		return service.ChannelView{}, err
	}
	return list[0], nil
}
