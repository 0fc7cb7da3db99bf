package pktchain

import (
	"bytes"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// MaxRollFeeFactor is how many times the relay floor a roll pays at most: so
// that a claim can always replace it [ROLL-23].
const MaxRollFeeFactor = 1000

// Roll is a transaction that ends one channel and funds its successor, without
// the payee's signature [ROLL-20]:
//
//	version 2, lock time 0
//	input 0:   funding output of the predecessor, sequence 0xfffffffd
//	inputs:    coins of the payer's wallet, if any, sequence 0xfffffffe or more
//	output:    capacity of the successor, to its script
//	outputs:   the sealed note; change of the payer's
//
// Its id is final: nothing but witnesses is missing.
type Roll struct {
	TxID [32]byte
	// Level is what it pays once it is signed. It is exact but for the length of
	// signatures.
	Level Level

	from Channel
	tx   *wire.MsgTx
}

// RollBytes is the most virtual bytes that the predecessor's input takes.
func (c Channel) RollBytes() uint64 {
	tx := c.spend(0)
	return c.twoOfTwoSize(tx) - vsize(wire.NewMsgTx(txVersion))
}

// RollInput is the coin that a roll of the channel spends first.
func (c Channel) RollInput() settle.Coin {
	return settle.Coin{At: c.Detail.Funding, Amount: c.Params.Capacity, Script: c.PkScript()}
}

// RollAlone returns the roll into a planned successor that no wallet adds a coin
// to: the successor has the capacity of this channel less the fee, at a rate in
// units per 1000 virtual bytes. It sets the plan's capacity. Errors match
// [settle.ErrFee], [settle.ErrParams] or [settle.ErrMalformed].
func (k *Keychain) RollAlone(c Channel, p *Plan, rate pktcloud.Amount) ([]byte, error) {
	build := func(capacity pktcloud.Amount) (*wire.MsgTx, error) {
		p.Capacity = capacity
		outputs, err := k.FundingOutputs(*p)
		if err != nil {
			return nil, err
		}
		tx := c.spend(0)
		for _, o := range outputs {
			tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
		}
		return tx, nil
	}
	tx, err := build(c.Params.Capacity)
	if err != nil {
		return nil, err
	}
	fee := Fee(c.twoOfTwoSize(tx), max(rate, FundingFeeFactor*c.Network.RelayFloor))
	if fee >= c.Params.Capacity {
		return nil, settle.Refuse(settle.ErrFee, "a fee of %d units leaves nothing of %d", uint64(fee), uint64(c.Params.Capacity))
	}
	if tx, err = build(c.Params.Capacity - fee); err != nil {
		return nil, err
	}
	return encodeTx(tx), nil
}

// SignRoll returns the payer's signature of a roll of the channel, with
// SIGHASH_ALL [ROLL-20]. Signing the same again gives the same bytes.
func (s *Signer) SignRoll(r Roll) ([]byte, error) { return s.channel.sign(r.tx, wholeSig, s.key) }

// RollFee is what a roll of the channel pays, as its payer knows it: output
// answers for the wallet's coins. Errors match [settle.ErrMalformed] or
// [settle.ErrRoll], or are those of output.
func (c Channel) RollFee(raw []byte, output func(settle.Outpoint) (settle.Output, error)) (pktcloud.Amount, error) {
	tx, err := decodeTx(raw)
	if err != nil {
		return 0, err
	}
	in := c.Params.Capacity
	for _, from := range tx.TxIn[1:] { // decodeTx wants one at least
		o, err := output(settle.Outpoint{TxID: from.PreviousOutPoint.Hash, Index: from.PreviousOutPoint.Index})
		if err != nil {
			return 0, err
		}
		if in, err = in.Add(o.Amount); err != nil {
			return 0, settle.Refuse(settle.ErrRoll, "inputs: %w", err)
		}
	}
	var out pktcloud.Amount
	for _, o := range tx.TxOut {
		out += pktcloud.Amount(o.Value)
	}
	if out > in {
		return 0, settle.Refuse(settle.ErrRoll, "outputs exceed inputs")
	}
	return in - out, nil
}

// ReadRoll reads a roll of this channel into a successor and judges what it
// shows by itself [ROLL-20] to [ROLL-22]. Errors match [settle.ErrRoll],
// [settle.ErrParams] or [settle.ErrMalformed].
func (c Channel) ReadRoll(to Channel, raw []byte) (Roll, error) {
	if len(raw) > settle.MaxRollBytes {
		return Roll{}, settle.Refuse(settle.ErrMalformed, "a roll of %d bytes, at most %d", len(raw), settle.MaxRollBytes)
	}
	tx, err := decodeTx(raw)
	if err != nil {
		return Roll{}, err
	}
	d, s := c.Detail, to.Detail
	if !bytes.Equal(d.Payee, s.Payee) || !bytes.Equal(d.PayeeScript, s.PayeeScript) || !bytes.Equal(d.PayerScript, s.PayerScript) {
		return Roll{}, settle.Refuse(settle.ErrParams, "the successor has another payee's key, or pays to other scripts")
	}
	if err := c.checkRollShape(to, tx); err != nil {
		return Roll{}, err
	}
	return Roll{TxID: tx.TxHash(), from: c, tx: tx}, nil
}

func (c Channel) checkRollShape(to Channel, tx *wire.MsgTx) error {
	at := to.Detail.Funding
	switch {
	case tx.TxHash() != at.TxID || uint64(at.Index) >= uint64(len(tx.TxOut)):
		return settle.Refuse(settle.ErrRoll, "the successor's parameters name another outpoint")
	case tx.Version != txVersion || tx.LockTime != 0:
		return settle.Refuse(settle.ErrRoll, "version %d or lock time %d", tx.Version, tx.LockTime)
	case len(tx.TxIn) == 0 || len(tx.TxIn) > MaxFundingInputs:
		return settle.Refuse(settle.ErrRoll, "%d inputs, at most %d", len(tx.TxIn), MaxFundingInputs)
	}
	out := tx.TxOut[at.Index]
	if out.Value < 0 || pktcloud.Amount(out.Value) != to.Params.Capacity || !bytes.Equal(out.PkScript, to.pkScript) {
		return settle.Refuse(settle.ErrRoll, "output %d does not pay the capacity to the successor's script", at.Index)
	}
	seen := make(map[wire.OutPoint]bool, len(tx.TxIn))
	for i, in := range tx.TxIn {
		first := i == 0
		switch {
		case seen[in.PreviousOutPoint]:
			return settle.Refuse(settle.ErrRoll, "input %d is listed twice", i)
		case first && in.PreviousOutPoint != wire.OutPoint{Hash: c.Detail.Funding.TxID, Index: c.Detail.Funding.Index}:
			return settle.Refuse(settle.ErrRoll, "input 0 does not spend the predecessor's funding")
		case first && in.Sequence != endSequence:
			return settle.Refuse(settle.ErrRoll, "input 0 has sequence %#x: a claim could not replace the roll", in.Sequence)
		case first && len(in.Witness) > 0, len(in.SignatureScript) > 0, !first && len(in.Witness) == 0:
			return settle.Refuse(settle.ErrRoll, "input %d is signed in an unexpected way", i)
		case !first && in.Sequence < wire.MaxTxInSequenceNum-1:
			return settle.Refuse(settle.ErrRoll, "input %d signals replacement by itself", i)
		}
		seen[in.PreviousOutPoint] = true
	}
	return nil
}

// Verify is the payee's check of a roll before it signs: the payer's signature,
// the wallet's inputs, and the fee [ROLL-22] [ROLL-23] [ROLL-24]. output answers
// for the outputs that it spends beside the predecessor's, as settle.Ledger does.
// It returns the roll with its level. Errors match [settle.ErrProof],
// [settle.ErrRoll], [settle.ErrFunding], [settle.ErrFee], or are those of
// output.
func (r Roll) Verify(to Channel, sig []byte, output func(settle.Outpoint) (settle.Output, error)) (Roll, error) {
	if err := r.from.verify(r.tx, wholeSig, sig); err != nil {
		return Roll{}, err
	}
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	fetch.AddPrevOut(r.tx.TxIn[0].PreviousOutPoint, wire.NewTxOut(int64(r.from.Params.Capacity), r.from.pkScript))
	var added pktcloud.Amount
	prev := make([]settle.Output, len(r.tx.TxIn))
	for i, in := range r.tx.TxIn[1:] {
		o, err := output(settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index})
		if err != nil {
			return Roll{}, err
		}
		if err := checkInput(o, r.TxID); err != nil {
			return Roll{}, err
		}
		if added, err = added.Add(o.Amount); err != nil {
			return Roll{}, settle.Refuse(settle.ErrRoll, "inputs: %w", err)
		}
		prev[i+1] = o
		fetch.AddPrevOut(in.PreviousOutPoint, wire.NewTxOut(int64(o.Amount), o.Script))
	}
	r, err := r.weigh(to, added)
	if err != nil { // costs nothing, scripts do
		return Roll{}, err
	}
	for i := 1; i < len(r.tx.TxIn); i++ {
		if err := runScript(r.tx, i, prev[i].Script, prev[i].Amount, fetch); err != nil {
			return Roll{}, settle.Refuse(settle.ErrRoll, "%w", err)
		}
	}
	return r, nil
}

// weigh judges what goes in and out.
func (r Roll) weigh(to Channel, added pktcloud.Amount) (Roll, error) {
	in, err := added.Add(r.from.Params.Capacity)
	if err != nil {
		return Roll{}, settle.Refuse(settle.ErrRoll, "inputs: %w", err)
	}
	var out pktcloud.Amount
	for _, o := range r.tx.TxOut {
		if o.Value < 0 || pktcloud.Amount(o.Value) > in-out {
			return Roll{}, settle.Refuse(settle.ErrRoll, "outputs exceed inputs")
		}
		out += pktcloud.Amount(o.Value)
	}
	r.Level = Level{Fee: in - out, VBytes: r.from.twoOfTwoSize(r.tx)}
	if floor := Fee(r.Level.VBytes, FundingFeeFactor*r.from.Network.RelayFloor); r.Level.Fee < floor {
		return Roll{}, settle.Refuse(settle.ErrFee, "a roll with a fee of %d units, want %d: nothing can raise it later", uint64(r.Level.Fee), uint64(floor))
	}
	if most := Fee(r.Level.VBytes, MaxRollFeeFactor*r.from.Network.RelayFloor); r.Level.Fee > most {
		return Roll{}, settle.Refuse(settle.ErrFee, "a roll with a fee of %d units, at most %d: a claim must be able to replace it", uint64(r.Level.Fee), uint64(most))
	}
	if to.Params.Capacity+r.Level.Fee < r.from.Params.Capacity {
		return Roll{}, settle.Refuse(settle.ErrRoll, "a roll that takes %d units out of the channel", uint64(r.from.Params.Capacity-to.Params.Capacity-r.Level.Fee))
	}
	return r, nil
}

// CompleteRoll returns the roll with both signatures; sig is the payer's, index
// that of the payee's key. Errors match [settle.ErrProof].
func (k *Keychain) CompleteRoll(r Roll, index uint32, sig []byte) ([]byte, error) {
	return k.countersign(r.from, index, r.tx.Copy(), sig)
}

// Completed checks that raw is this roll with both signatures of its first
// input: what the payee answers. Errors match [settle.ErrMalformed],
// [settle.ErrRoll] or [settle.ErrProof].
func (r Roll) Completed(raw []byte) error {
	if len(raw) > settle.MaxRollBytes+MaxEndingBytes {
		return settle.Refuse(settle.ErrMalformed, "a roll of %d bytes", len(raw))
	}
	tx, err := decodeTx(raw)
	if err != nil {
		return err
	}
	if tx.TxHash() != r.TxID {
		return settle.Refuse(settle.ErrRoll, "another transaction than the roll that was offered")
	}
	for i := 1; i < len(tx.TxIn); i++ {
		tx.TxIn[i].Witness = r.tx.TxIn[i].Witness // the payer's own: the answer must not spoil them
	}
	if !bytes.Equal(encodeTx(tx), raw) {
		return settle.Refuse(settle.ErrRoll, "the roll's other signatures were changed")
	}
	return r.from.execute(tx)
}
