package main

import (
	"context"
	"log"
	"net/rpc"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

var payerKey, payeeKey = pktcloud.NewPrivateKey([32]byte{1}), pktcloud.NewPrivateKey([32]byte{2})

// party is a side's manager. A program that keeps real money puts settle/wallet
// and a store of its own in the twins' places.
func party(ctx context.Context, ledger settle.Ledger, key pktcloud.PrivateKey) (*manager.Manager, *settletest.Wallet) {
	network, _ := pktchain.NetworkOf("pkt-devnet")
	seed := key.Seed()
	wallet := settletest.NewWallet(network, ledger, key.Public().String())
	return must(manager.New(ctx, manager.Config{
		Network: network, Ledger: ledger, Store: settletest.NewStore(), Wallet: wallet,
		Keychain: must(pktchain.NewKeychain(network, seed[:])), DeviceKey: key, Reserve: 20_000,
	})), wallet
}

// remote is the payee's program, as the payer's sees it.
type remote struct{ *rpc.Client }

func dial(address string) remote { return remote{must(rpc.Dial("tcp", address))} }

// payer makes the payer's manager, over the chain's RPC, with coins in its wallet.
func (r remote) payer(ctx context.Context) *manager.Manager {
	network, _ := pktchain.NetworkOf("pkt-devnet")
	script := must(settletest.NewWallet(network, nil, payerKey.Public().String()).ReceiveScript(ctx))
	var at Ledger
	check(r.Call("Payee.Chain", script, &at))
	ledger := must(pktd.New(pktd.Config{URL: at.URL, User: at.User, Password: at.Password, Magic: network.Magic}))
	m, wallet := party(ctx, ledger, payerKey)
	must(wallet.ReceiveScript(ctx)) // the one that was paid
	return m
}

// terms are a channel for this payee.
func (r remote) terms() manager.OpenRequest {
	var detail []byte
	check(r.Call("Payee.Detail", struct{}{}, &detail))
	return manager.OpenRequest{
		Payee: payeeKey.Public(), PayeeDetail: detail, Capacity: 10_000_000, Unconfirmed: 50_000, LifetimeBlocks: 1000,
	}
}

func (r remote) accept(p settle.Params, funding []byte) (id pktcloud.ID) {
	check(r.Call("Payee.Accept", Channel{p, funding}, &id))
	return id
}

func (r remote) receive(v pktcloud.Signed[settle.Voucher]) { check(r.Call("Payee.Receive", v, nil)) }

func (r remote) close(o settle.CloseOffer) { check(r.Call("Payee.Close", o, nil)) }

func must[T any](v T, err error) T { check(err); return v }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
