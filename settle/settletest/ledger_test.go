package settletest_test

import (
	"context"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// The twin keeps the promises of a real ledger; its reorganisations forget
// transactions, so that part is not run on it.
func TestLedgerTwin(t *testing.T) {
	network, ok := pktchain.NetworkOf("pkt-devnet")
	if !ok {
		t.Fatal("no network pkt-devnet")
	}
	twin := settletest.NewLedger(network)
	err := settletest.TestLedger(t.Context(), settletest.LedgerFixture{
		Ledger: twin,
		Mine: func(_ context.Context, n int) error {
			twin.Mine(n)
			return nil
		},
		Fund: func(_ context.Context, script []byte, amount pktcloud.Amount) error {
			twin.Mint(script, amount)
			return nil
		},
		Break: func() error {
			twin.SetDown(true)
			return nil
		},
	})
	if err != nil {
		t.Error(err)
	}
}
