// Pay-vouchers opens a channel, pays over it without the chain, and closes it.
package main

import (
	"context"
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

func main() {
	ctx := context.Background()
	payer, payee, mine := parties(ctx)
	params, funding, err := payer.Open(ctx, manager.OpenRequest{
		Payee: payeeKey.Public(), PayeeDetail: must(payee.PayeeDetail(ctx)),
		Capacity: 10_000_000, Unconfirmed: 50_000, LifetimeBlocks: 1000,
	})
	check(err)
	id := must(payee.Accept(ctx, params, funding))
	check(payee.Announce(ctx, id))
	for sum := pktcloud.Amount(1000); sum <= 5000; sum += 1000 {
		voucher := must(payer.Pay(ctx, id, settle.Entry{Lease: pktcloud.IDOf([]byte("lease")), Cumulative: sum}))
		check(payee.Receive(ctx, voucher))
	}
	must(payee.CompleteClose(ctx, id, must(payer.OfferClose(ctx, id, 5000))))
	fmt.Println("the payee's wallet holds", mine(), "units")
}
