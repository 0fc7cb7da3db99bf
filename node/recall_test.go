package node_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestPayerMeetsPayee: a tenant that lost its directory finds its channel by its
// phrase; the provider that it meets again shows what was paid, and the two close
// it long before its end.
func TestPayerMeetsPayee(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "first")
	phrase, err := node.Init(node.InitConfig{Dir: dir, Unattended: true})
	w.check(err)
	w.tenant.stop()
	w.tenant.config.Dir = dir
	w.tenant = w.start(w.tenant.config)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	l, err := w.tenant.CreateLease(ctx, request(w.offer()))
	w.check(err)
	var own []service.ChannelView
	w.mineUntil("the channel in a block", func() bool { // only there is it found again
		own, err = w.tenant.Channels(ctx)
		w.check(err)
		return len(own) == 1 && own[0].Phase == "open"
	})
	w.until("a payment", func() bool {
		l, err = w.tenant.Lease(ctx, l.Label)
		w.check(err)
		return l.Paid > 0
	})
	w.until("the payment at the provider", func() bool { // who has none has nothing to show
		theirs, err := w.provider.Channel(ctx, own[0].ID)
		w.check(err)
		return theirs.Paid >= l.Paid
	})
	if len(own) != 1 || own[0].Restored {
		t.Fatalf("before: got %+v", own)
	}
	if _, err := w.tenant.CloseChannel(ctx, own[0].Label); !errors.Is(err, service.CodeInvalid) {
		t.Errorf("a channel of a lease closed by hand: got %v", err)
	}
	if _, err := w.provider.CloseChannel(ctx, own[0].ID); !errors.Is(err, service.CodeConflict) {
		t.Errorf("a channel that a lease is paid by closed by its payee: got %v", err)
	}
	w.tenant.stop()

	again := filepath.Join(t.TempDir(), "again")
	_, err = node.Init(node.InitConfig{Dir: again, Unattended: true, Phrase: phrase})
	w.check(err)
	alone := w.tenant.config
	alone.Dir, alone.Bootstrap = again, nil
	n := w.start(alone)
	var c service.ChannelView
	find := func(what string, ok func() bool) {
		t.Helper()
		w.until(what, func() bool {
			list, err := n.Channels(ctx)
			w.check(err)
			if len(list) == 0 {
				return false
			}
			c = list[0]
			return ok()
		})
	}
	find("the channel by its phrase", func() bool { return c.Restored && c.Phase == "restored" })
	if !strings.Contains(c.Now, "returns to the wallet by itself") || c.Role != "payer" || c.Capacity != own[0].Capacity || !c.Peer.IsZero() {
		t.Errorf("restored: got %+v", c)
	}
	if one, err := n.Channel(ctx, c.Label); err != nil || one.ID != c.ID {
		t.Errorf("by its label: got %+v, %v", one, err)
	}
	if _, err := n.CloseChannel(ctx, c.Label); !errors.Is(err, service.CodeInvalid) {
		t.Errorf("a channel that nobody showed closed: got %v", err)
	}
	n.stop()
	alone.Bootstrap = w.tenant.config.Bootstrap
	n = w.start(alone)
	find("the provider to show it", func() bool { return c.Restored && c.Phase == "open" })
	if c.ID != own[0].ID || c.Paid < l.Paid {
		t.Errorf("shown: got %s with %d units, want %s with %d or more", c.ID, uint64(c.Paid), own[0].ID, uint64(l.Paid))
	}
	c, err = n.CloseChannel(ctx, c.Label)
	w.check(err)
	w.mineUntil("the close", func() bool { // which may be broadcast after a block
		list, err := n.Channels(ctx)
		w.check(err)
		c = list[0]
		return c.Phase == "closed"
	})
	b, err := n.WalletBalance(ctx)
	w.check(err)
	if b.Reserved != 0 || b.Spendable < 9*pktcloud.UnitsPerPKT {
		t.Errorf("the wallet: got %+v, want all but what was paid", b)
	}
}
