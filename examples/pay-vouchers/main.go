// Pay-vouchers opens a channel over a chain in memory, pays over it without the
// chain, and closes it.
package main

import (
	"context"
	"fmt"
	"log"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

func main() {
	ctx := context.Background()
	payer, payee, mine := parties(ctx)
	detail := must(payee.PayeeDetail(ctx)) // travels in the payee's quote
	params, funding, err := payer.Open(ctx, manager.OpenRequest{
		Payee: payeeKey.Public(), PayeeDetail: detail, Capacity: 10_000_000, Unconfirmed: 50_000, LifetimeBlocks: 1000,
	})
	check(err)
	id := must(payee.Accept(ctx, params, funding))
	check(payee.Announce(ctx, id))
	for sum := pktcloud.Amount(1000); sum <= 5000; sum += 1000 {
		voucher := must(payer.Pay(ctx, id, settle.Entry{Lease: pktcloud.IDOf([]byte("lease")), Cumulative: sum}))
		check(payee.Receive(ctx, voucher))
	}
	offer := must(payer.OfferClose(ctx, id, 5000))
	must(payee.CompleteClose(ctx, id, offer))
	fmt.Println("the payee's wallet holds", mine(), "units")
}

func must[T any](v T, err error) T { check(err); return v }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
