package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// What a provider earned is deposited: the tenant gives the late proof, the
// tower the receipt.
func TestTowerIsSupplied(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	keeper := w.start(node.Config{Dir: w.init("keeper"), Ledger: w.chain, Tower: true})
	info, err := keeper.Info(ctx)
	w.check(err)
	choosy := w.start(node.Config{Dir: w.init("choosy"), Ledger: w.chain, Tower: true, TowerMinValue: 1000 * pktcloud.UnitsPerPKT})
	other, err := choosy.Info(ctx)
	w.check(err)
	w.provider.stop()
	const every = 100 * pktcloud.UnitsPerPKT // so that only who asks for a deposit gets one
	w.provider.config.Towers, w.provider.config.DepositEvery = []string{info.Addresses[0], other.Addresses[0]}, every
	w.provider = w.start(w.provider.config)
	info, err = w.provider.Info(ctx)
	w.check(err)
	w.tenant.stop()
	w.tenant.config.Bootstrap = info.Addresses
	w.tenant = w.start(w.tenant.config)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	_, err = w.tenant.CreateLease(ctx, request(w.offer()))
	w.check(err)
	w.mineUntil("a deposit at the tower", func() bool {
		r, err := w.provider.Deposit(ctx)
		w.check(err)
		if len(r.Towers) != 2 || r.Every != every || r.Towers[1].Receipts != 0 {
			t.Fatalf("got %+v", r)
		}
		return r.Towers[0].Receipts == 1 && r.Towers[0].Missing == 0 && strings.Contains(r.Towers[1].Problem, "this tower watches those of")
	})
	r, err := keeper.Towers(ctx)
	w.check(err)
	if r.Kept == nil || r.Kept.Deposits != 1 || r.Kept.Bytes == 0 || len(r.Towers) != 0 {
		t.Errorf("the keeper: got %+v", r)
	}
	if _, err := keeper.Deposit(ctx); !errors.Is(err, service.CodeInvalid) {
		t.Errorf("a node without towers deposits: got %v", err)
	}
}

// Towers that are no addresses are refused before anything runs.
func TestTowerAddress(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"example.test:1", "/ip4/127.0.0.1/tcp/1"} {
		_, err := node.Open(context.Background(), node.Config{Dir: w.init("x"), Ledger: w.chain, Towers: []string{address}})
		if !errors.Is(err, service.CodeInvalid) {
			t.Errorf("%q: got %v", address, err)
		}
	}
}
