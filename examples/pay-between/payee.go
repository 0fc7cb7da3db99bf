package main

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"sync"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// Payee answers the payer's program. Its own machine runs the chain.
type Payee struct {
	manager *manager.Manager
	chain   *devnet.Chain
	ledger  Ledger
}

// Ledger is where a program finds the chain.
type Ledger struct{ URL, User, Password string }

// Channel is what a payee must see before it takes a channel.
type Channel struct {
	Params  settle.Params
	Funding []byte
}

// receive is the payee's program: it serves one payer, and ends with it.
func receive() {
	ctx, cancel := context.WithCancel(context.Background())
	dir := must(os.MkdirTemp("", "pay-between-"))
	chain := must(devnet.Open(dir, devnet.Config{}))
	auth := devnet.Auth{User: "example", Password: "of no worth"}
	web, door := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("tcp", "127.0.0.1:0"))
	m, wallet := party(ctx, chain, payeeKey)
	p := &Payee{m, chain, Ledger{"http://" + web.Addr().String(), auth.User, auth.Password}}
	check(rpc.Register(p))
	var wait sync.WaitGroup
	wait.Go(func() { check(chain.Serve(ctx, web, auth)) })
	wait.Go(func() { check(m.Run(ctx)) })
	fmt.Println(door.Addr())
	rpc.ServeConn(must(door.Accept())) // until the payer hangs up
	cancel()
	wait.Wait()
	fmt.Println("the payee's wallet holds", uint64(must(wallet.Balance(context.Background()))), "units")
	check(chain.Close())
	check(os.RemoveAll(dir))
}

// Chain says where the chain is, and gives the payer coins of it.
func (p *Payee) Chain(script []byte, out *Ledger) error {
	*out = p.ledger
	_, err := p.chain.Faucet(context.Background(), script, 20_000_000)
	return err
}

// Detail is where the payee wants its money.
func (p *Payee) Detail(_ struct{}, out *[]byte) (err error) {
	*out, err = p.manager.PayeeDetail(context.Background())
	return err
}

// Accept takes a channel and brings its funding on the chain.
func (p *Payee) Accept(c Channel, out *pktcloud.ID) (err error) {
	if *out, err = p.manager.Accept(context.Background(), c.Params, c.Funding); err != nil {
		return err
	}
	return p.manager.Announce(context.Background(), *out)
}

// Receive takes a voucher.
func (p *Payee) Receive(v pktcloud.Signed[settle.Voucher], _ *struct{}) error {
	return p.manager.Receive(context.Background(), v)
}

// Close signs the close and makes a block of it.
func (p *Payee) Close(o settle.CloseOffer, _ *struct{}) error {
	ctx := context.Background()
	if _, err := p.manager.CompleteClose(ctx, o.Channel, o); err != nil {
		return err
	}
	_, err := p.chain.Mine(1, nil)
	return err
}
