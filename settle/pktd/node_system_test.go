//go:build system

package pktd_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// A real node keeps every promise through the driver, without a transaction
// index, and through reorganisations.
func TestLedgerOverNode(t *testing.T) {
	node := nodetest.New(t)
	if err := settletest.TestLedger(t.Context(), node.Fixture()); err != nil {
		t.Error(err)
	}
	if node.Named() {
		t.Log("left out: LEDGER-11, a node that PKTD_RPC names is not ours to stop")
	}
}
