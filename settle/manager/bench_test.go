package manager_test

import (
	"crypto/sha256"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// BenchmarkVoucher pays and accepts one voucher over stores in memory.
func BenchmarkVoucher(b *testing.B) {
	w := newWorld(b)
	id := w.open(func(r *manager.OpenRequest) { r.Unconfirmed = 9_000_000 })
	sum := pktcloud.Amount(0)
	for b.Loop() {
		sum++
		v, err := w.payer.m.Pay(b.Context(), id, settle.Entry{Lease: pktcloud.ID{1}, Cumulative: sum})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.payee.m.Receive(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareECDSA signs and verifies once: what no voucher can do without.
func BenchmarkBareECDSA(b *testing.B) {
	key, pub := btcec.PrivKeyFromBytes(sha256.New().Sum(nil))
	digest := sha256.Sum256([]byte("x"))
	for b.Loop() {
		if !ecdsa.Sign(key, digest[:]).Verify(digest[:], pub) {
			b.Fatal("does not verify")
		}
	}
}
