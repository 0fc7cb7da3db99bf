//go:build system

package pktd_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle/internal/btcdtest"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// A real btcd keeps every promise through the driver, without a transaction
// index, and through reorganisations.
func TestLedgerOverBtcd(t *testing.T) {
	node, err := btcdtest.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := settletest.TestLedger(t.Context(), node.Fixture()); err != nil {
		t.Error(err)
	}
}
