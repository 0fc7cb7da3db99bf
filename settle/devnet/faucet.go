package devnet

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	// MaxFaucet is the most that one call of the faucet gives: a thousand
	// rewards, which still fit into one standard transaction.
	MaxFaucet pktcloud.Amount = 900 * BlockReward
	// maxFaucetInputs keeps the faucet's transactions standard.
	maxFaucetInputs = 1000
	// faucetFeePerInput is twice the relay floor for 68 virtual bytes.
	faucetFeePerInput = 136
	faucetFeeBase     = 400
	dustUnits         = 1000
)

// faucetKey is public by design: the coins are worth nothing, and a chain can
// be continued from its directory alone.
func faucetKey() *btcec.PrivateKey {
	seed := sha256.Sum256([]byte("pkt-devnet faucet"))
	key, _ := btcec.PrivKeyFromBytes(seed[:])
	return key
}

// FaucetScript is where blocks pay that name no script.
func FaucetScript() []byte {
	hash := address.Hash160(faucetKey().PubKey().SerializeCompressed())
	return append([]byte{txscript.OP_0, txscript.OP_DATA_20}, hash...)
}

// Faucet pays units to script out of the faucet's mature coins and mines one
// block over the payment. It first mines as many blocks as it takes for the
// coins to suffice.
func (c *Chain) Faucet(ctx context.Context, script []byte, units pktcloud.Amount) (chainhash.Hash, error) {
	if units < dustUnits || units > MaxFaucet {
		return chainhash.Hash{}, fmt.Errorf("faucet: %s; ask for %s to %s", units, pktcloud.Amount(dustUnits), MaxFaucet)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return chainhash.Hash{}, err
		}
		coins, enough := c.faucetCoins(units)
		if !enough {
			if _, err := c.mine(CoinbaseMaturity, nil); err != nil {
				return chainhash.Hash{}, err
			}
			continue
		}
		tx, err := faucetTx(coins, script, units)
		if err != nil {
			return chainhash.Hash{}, fmt.Errorf("faucet: %w", err)
		}
		if err := c.accept(btcutil.NewTx(tx)); err != nil {
			return chainhash.Hash{}, fmt.Errorf("faucet: %w", err)
		}
		_, err = c.mine(1, nil)
		return tx.TxHash(), err
	}
}

// faucetCoins picks mature coins for units and the fee.
func (c *Chain) faucetCoins(units pktcloud.Amount) (picked []settle.Coin, enough bool) {
	need := units + faucetFeeBase + dustUnits
	var sum pktcloud.Amount
	for _, coin := range c.view.Coins(FaucetScript()) {
		if coin.Depth == 0 || coin.Coinbase && coin.Depth < CoinbaseMaturity {
			continue
		}
		picked = append(picked, coin)
		sum += coin.Amount
		need += faucetFeePerInput
		if sum >= need {
			return picked, true
		}
		if len(picked) == maxFaucetInputs {
			break
		}
	}
	return nil, false
}

func faucetTx(coins []settle.Coin, script []byte, units pktcloud.Amount) (*wire.MsgTx, error) {
	key := faucetKey()
	prev := txscript.NewMultiPrevOutFetcher(nil)
	tx := wire.NewMsgTx(2)
	var sum pktcloud.Amount
	for _, coin := range coins {
		at := wire.OutPoint{Hash: coin.At.TxID, Index: coin.At.Index}
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: wire.MaxTxInSequenceNum - 1})
		prev.AddPrevOut(at, wire.NewTxOut(int64(coin.Amount), coin.Script))
		sum += coin.Amount
	}
	fee := faucetFeeBase + faucetFeePerInput*pktcloud.Amount(len(coins))
	tx.AddTxOut(wire.NewTxOut(int64(units), script))
	tx.AddTxOut(wire.NewTxOut(int64(sum-units-fee), FaucetScript()))
	hashes := txscript.NewTxSigHashes(tx, prev)
	for i, coin := range coins {
		witness, err := txscript.WitnessSignature(tx, hashes, i, int64(coin.Amount), coin.Script, txscript.SigHashAll, key, true)
		if err != nil {
			return nil, err
		}
		tx.TxIn[i].Witness = witness
	}
	return tx, nil
}
