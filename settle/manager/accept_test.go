package manager_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// TestAcceptTakesChannelAndVouchersOrNeither: a bad first voucher leaves no
// channel behind, neither in memory nor in the store.
func TestAcceptTakesChannelAndVouchersOrNeither(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	detail, err := w.payee.m.PayeeDetail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	params, funding, err := w.payer.m.Open(ctx, manager.OpenRequest{
		Payee: w.payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, Unconfirmed: 50_000, MinDepth: 2, LifetimeBlocks: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := params.ID()
	if err != nil {
		t.Fatal(err)
	}
	lease := pktcloud.ID{7}
	v, err := w.payer.m.Pay(ctx, id, settle.Entry{Lease: lease, Cumulative: 40_000, Statement: lease})
	if err != nil {
		t.Fatal(err)
	}
	forged := v.Body
	forged.Entries = []settle.Entry{{Lease: lease, Cumulative: 45_000, Statement: lease}}
	forged.Total = 45_000 // the proof is that of 40,000
	bad, err := pktcloud.Seal(w.payer.cfg.DeviceKey, forged)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.payee.m.Accept(ctx, params, funding, bad)
	code(t, "a forged first voucher", err, settle.ErrProof)
	if n := len(w.payee.m.List()); n != 0 {
		t.Errorf("got %d channels, want none", n)
	}
	w.payee.crash()
	if n := len(w.payee.m.List()); n != 0 {
		t.Errorf("got %d channels after a restart, want none", n)
	}
	for range 2 {
		if got, err := w.payee.m.Accept(ctx, params, funding, v); err != nil || got != id {
			t.Fatalf("got %v, %v, want the channel", got, err)
		}
	}
	w.payee.crash()
	if latest, ok := w.payee.m.Latest(id); !ok || latest.Body.Total != 40_000 {
		t.Errorf("got a voucher of %d units after a restart, %v, want the first", uint64(latest.Body.Total), ok)
	}
}
