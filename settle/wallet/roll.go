package wallet

import (
	"context"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// foreignInput is an input that is not the wallet's: it comes first, and others sign
// it.
type foreignInput struct {
	coin   settle.Coin
	vbytes uint64 // of the whole input, once it is signed; zero: there is none
}

// begin puts the foreign input first. Its transaction may be replaced: see
// FundRoll.
func (f foreignInput) begin(tx *wire.MsgTx) {
	if f.vbytes > 0 {
		at := wire.OutPoint{Hash: f.coin.At.TxID, Index: f.coin.At.Index}
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: replaceableSequence})
	}
}

// show names the foreign input's output to those who sign the others, and
// returns the index of the first one of these.
func (f foreignInput) show(prev *txscript.MultiPrevOutFetcher) int {
	if f.vbytes == 0 {
		return 0
	}
	prev.AddPrevOut(wire.OutPoint{Hash: f.coin.At.TxID, Index: f.coin.At.Index}, wire.NewTxOut(int64(f.coin.Amount), f.coin.Script))
	return 1
}

// FundRoll implements manager.RollWallet: it is Fund for a transaction that
// spends a foreign coin as well, in its first input, which it leaves unsigned
// and which takes vbytes once it is signed. Its own inputs cover what the
// outputs, beyond that coin, and the fee ask for. That first input signals
// replacement, as each end of a channel does [ROLL-21]; its own do not.
func (w *Wallet) FundRoll(ctx context.Context, first settle.Coin, vbytes uint64, outputs []settle.Payment, feeRate pktcloud.Amount) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, err := w.build(ctx, request{
		outputs: outputs, rate: max(feeRate, pktchain.FundingFeeFactor*w.cfg.Network.RelayFloor),
		maxInputs: pktchain.MaxFundingInputs - 1, sequence: finalSequence, foreign: foreignInput{coin: first, vbytes: vbytes},
	})
	if err != nil {
		return nil, err
	}
	raw, err := encodeTx(tx)
	if err != nil {
		return nil, err
	}
	w.fundings[tx.TxHash()] = true
	w.mark(tx, true)
	return raw, nil
}
