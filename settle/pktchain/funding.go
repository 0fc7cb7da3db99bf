package pktchain

import (
	"bytes"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// CheckFunding is the payee's check of a funding transaction before it takes a
// channel [SETTLE-52]: it pays the capacity to the channel's script, no one can
// change its id, and it is valid and pays enough to be mined unaided. output
// answers for the outputs that it spends, as settle.Ledger does. Errors match
// [settle.ErrFunding], [settle.ErrMalformed], [settle.ErrFee], or are those of
// output.
func (c Channel) CheckFunding(raw []byte, output func(settle.Outpoint) (settle.Output, error)) error {
	if len(raw) > MaxFundingBytes {
		return settle.Refuse(settle.ErrFunding, "%d bytes, at most %d", len(raw), MaxFundingBytes)
	}
	tx, err := decodeTx(raw)
	if err != nil {
		return err
	}
	if err := c.checkShape(tx); err != nil {
		return err
	}
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	prev := make([]settle.Output, len(tx.TxIn))
	var in pktcloud.Amount
	for i, txIn := range tx.TxIn {
		at := settle.Outpoint{TxID: txIn.PreviousOutPoint.Hash, Index: txIn.PreviousOutPoint.Index}
		if prev[i], err = output(at); err != nil {
			return err
		}
		if err := checkInput(prev[i], tx.TxHash()); err != nil {
			return err
		}
		if in, err = in.Add(prev[i].Amount); err != nil {
			return settle.Refuse(settle.ErrFunding, "inputs: %w", err)
		}
		fetch.AddPrevOut(txIn.PreviousOutPoint, wire.NewTxOut(int64(prev[i].Amount), prev[i].Script))
	}
	if err := c.checkFee(tx, in); err != nil { // costs nothing, scripts do
		return err
	}
	for i := range tx.TxIn {
		if err := runScript(tx, i, prev[i].Script, prev[i].Amount, fetch); err != nil {
			return settle.Refuse(settle.ErrFunding, "%w", err)
		}
	}
	return nil
}

// checkShape judges what the transaction shows by itself.
func (c Channel) checkShape(tx *wire.MsgTx) error {
	at := c.Detail.Funding
	switch {
	case tx.TxHash() != at.TxID || uint64(at.Index) >= uint64(len(tx.TxOut)):
		return settle.Refuse(settle.ErrFunding, "the parameters name another outpoint")
	case tx.Version != 1 && tx.Version != 2 || tx.LockTime != 0:
		return settle.Refuse(settle.ErrFunding, "version %d or lock time %d", tx.Version, tx.LockTime)
	case len(tx.TxIn) == 0 || len(tx.TxIn) > MaxFundingInputs:
		return settle.Refuse(settle.ErrFunding, "%d inputs, at most %d", len(tx.TxIn), MaxFundingInputs)
	}
	out := tx.TxOut[at.Index]
	if out.Value < 0 || pktcloud.Amount(out.Value) != c.Params.Capacity || !bytes.Equal(out.PkScript, c.pkScript) {
		return settle.Refuse(settle.ErrFunding, "output %d does not pay the capacity to the channel's script", at.Index)
	}
	seen := make(map[wire.OutPoint]bool, len(tx.TxIn))
	for i, in := range tx.TxIn {
		switch {
		case seen[in.PreviousOutPoint]:
			return settle.Refuse(settle.ErrFunding, "input %d is listed twice", i)
		case len(in.SignatureScript) > 0 || len(in.Witness) == 0:
			return settle.Refuse(settle.ErrFunding, "input %d is no native segwit input: the id could change", i)
		case in.Sequence < wire.MaxTxInSequenceNum-1:
			return settle.Refuse(settle.ErrFunding, "input %d signals replacement", i)
		}
		seen[in.PreviousOutPoint] = true
	}
	return nil
}

// checkInput judges an output that the funding spends.
func checkInput(o settle.Output, txid [32]byte) error {
	switch {
	case !o.Known || o.Depth == 0:
		return settle.Refuse(settle.ErrFunding, "an input that is not confirmed")
	case o.Spend != nil && o.Spend.TxID != txid:
		return settle.Refuse(settle.ErrFunding, "an input that is spent elsewhere")
	case !txscript.IsPayToWitnessPubKeyHash(o.Script):
		return settle.Refuse(settle.ErrFunding, "an input that is not P2WPKH: its id could change, or it costs more to check than one signature")
	}
	return nil
}

func (c Channel) checkFee(tx *wire.MsgTx, in pktcloud.Amount) error {
	var out pktcloud.Amount
	for _, o := range tx.TxOut {
		if o.Value < 0 || out > in || pktcloud.Amount(o.Value) > in-out {
			return settle.Refuse(settle.ErrFunding, "outputs exceed inputs")
		}
		out += pktcloud.Amount(o.Value)
	}
	if floor := Fee(vsize(tx), FundingFeeFactor*c.Network.RelayFloor); in-out < floor {
		return settle.Refuse(settle.ErrFee, "a funding fee of %d units, want %d: nothing can raise it later", uint64(in-out), uint64(floor))
	}
	return nil
}
