package main

import (
	"context"
	"log"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

var payeeKey = pktcloud.NewPrivateKey([32]byte{2})

// parties are a payer with money and a payee, on a chain in memory; mine makes
// a block and returns what the payee's wallet holds then. A program puts
// settle/pktd, settle/wallet and a store of its own in the twins' places, and
// runs Manager.Run beside each manager.
func parties(ctx context.Context) (payer, payee *manager.Manager, mine func() uint64) {
	network, _ := pktchain.NetworkOf("pkt-devnet")
	chain := settletest.NewLedger(network)
	side := func(name string, key pktcloud.PrivateKey) (*manager.Manager, *settletest.Wallet) {
		seed := key.Seed()
		wallet := settletest.NewWallet(network, chain, name)
		return must(manager.New(ctx, manager.Config{
			Network: network, Ledger: chain, Store: settletest.NewStore(), Wallet: wallet,
			Keychain: must(pktchain.NewKeychain(network, seed[:])), DeviceKey: key, Reserve: 20_000,
		})), wallet
	}
	payer, from := side("payer", pktcloud.NewPrivateKey([32]byte{1}))
	payee, to := side("payee", payeeKey)
	chain.Mint(must(from.ReceiveScript(ctx)), 20_000_000)
	return payer, payee, func() uint64 { chain.Mine(1); return uint64(must(to.Balance(ctx))) }
}

func must[T any](v T, err error) T { check(err); return v }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
