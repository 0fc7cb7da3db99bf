// Pay-between pays from one program to another: run it without an argument to
// be paid, then again, elsewhere, with the address that the first one prints.
package main

import (
	"context"
	"os"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func main() {
	if len(os.Args) < 2 {
		receive()
		return
	}
	ctx := context.Background()
	payee := dial(os.Args[1])
	payer := payee.payer(ctx)
	params, funding, err := payer.Open(ctx, payee.terms())
	check(err)
	id := payee.accept(params, funding)
	for sum := pktcloud.Amount(1000); sum <= 5000; sum += 1000 {
		payee.receive(must(payer.Pay(ctx, id, settle.Entry{Lease: pktcloud.IDOf([]byte("lease")), Cumulative: sum})))
	}
	payee.close(must(payer.OfferClose(ctx, id, 5000)))
}
