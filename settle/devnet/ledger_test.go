package devnet

import (
	"context"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

func TestLedger(t *testing.T) {
	c := open(t, t.TempDir(), Config{})
	err := settletest.TestLedger(t.Context(), settletest.LedgerFixture{
		Ledger: c,
		Mine: func(_ context.Context, n int) error {
			_, err := c.Mine(n, nil)
			return err
		},
		Fund: func(ctx context.Context, script []byte, amount pktcloud.Amount) error {
			_, err := c.Faucet(ctx, script, amount)
			return err
		},
		Invalidate: func(_ context.Context, n int) error { return c.Invalidate(n) },
		Break:      c.Close,
	})
	if err != nil {
		t.Error(err)
	}
}
