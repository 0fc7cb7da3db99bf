package wallet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	// maxSendInputs keeps a payment well below the size of a standard
	// transaction; the nodes of the chain take no more than 500 of some kinds.
	maxSendInputs = 400
	// sequence lets lock times count and signals no replacement [WALLET-10].
	sequence = wire.MaxTxInSequenceNum - 1
)

// ErrFunds marks a payment that the wallet's coins do not cover. The error's
// text says what is missing and what may come.
var ErrFunds = errors.New("not enough money in the wallet")

// Fund implements manager.Wallet: it builds and signs a transaction with these
// outputs first, in order, and change after them. It spends confirmed coins
// only, at a fee of ten times the relay floor or more, since such a fee can
// never be raised [WALLET-11]. Its coins are reserved until Release or until
// they are spent on the chain. Errors match ErrFunds, settle.ErrDust or
// settle.ErrLedgerUnavailable.
func (w *Wallet) Fund(ctx context.Context, outputs []settle.Payment, feeRate pktcloud.Amount) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, err := w.build(ctx, request{
		outputs: outputs, rate: max(feeRate, pktchain.FundingFeeFactor*w.cfg.Network.RelayFloor),
		maxInputs: pktchain.MaxFundingInputs,
	})
	if err != nil {
		return nil, err
	}
	raw, err := encodeTx(tx)
	if err != nil {
		return nil, err
	}
	w.mark(tx, true)
	return raw, nil
}

// request is what a transaction shall do.
type request struct {
	outputs   []settle.Payment
	rate      pktcloud.Amount
	maxInputs int
	ownChange bool // unconfirmed change of the wallet's own may be spent
}

// build selects coins, adds change and signs. The caller holds w.mu.
func (w *Wallet) build(ctx context.Context, r request) (*wire.MsgTx, error) {
	if len(r.outputs) == 0 {
		return nil, settle.Refuse(settle.ErrMalformed, "a payment without outputs")
	}
	var total pktcloud.Amount
	tx := wire.NewMsgTx(2)
	for _, o := range r.outputs {
		if err := w.checkOutput(o); err != nil {
			return nil, err
		}
		var err error
		if total, err = total.Add(o.Amount); err != nil {
			return nil, fmt.Errorf("payment: %w", err)
		}
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
	}
	all, err := w.coins(ctx)
	if err != nil {
		return nil, err
	}
	picked, rest, err := w.pick(tx, all, total, r)
	if err != nil {
		return nil, err
	}
	if err := w.addChange(ctx, tx, rest, r.rate); err != nil {
		return nil, err
	}
	return tx, w.sign(tx, picked)
}

// checkOutput refuses what nodes would not carry. An output that begins with
// OP_RETURN holds data, and may hold no money.
func (w *Wallet) checkOutput(o settle.Payment) error {
	if len(o.Script) > 0 && o.Script[0] == txscript.OP_RETURN {
		if o.Amount != 0 {
			return settle.Refuse(settle.ErrMalformed, "money in a data output would be lost")
		}
		return nil
	}
	if !pktchain.Payable(o.Script) {
		return settle.Refuse(settle.ErrMalformed, "an output script of no known form")
	}
	if dust := w.cfg.Network.Dust(o.Script); o.Amount < dust {
		return settle.Refuse(settle.ErrDust, "an output of %d units; nodes carry %d or more", uint64(o.Amount), uint64(dust))
	}
	return nil
}

// pick adds inputs to tx, the largest coins first, until they cover total and
// the fee, and returns what is left over both. btcutil's coinset was looked at:
// its selectors do not count the fee that each input adds, so the ten lines
// here replace it. Largest first keeps transactions small and, unlike a search
// for an exact match, is done after one pass.
func (w *Wallet) pick(tx *wire.MsgTx, all []coin, total pktcloud.Amount, r request) (picked []coin, rest pktcloud.Amount, err error) {
	var free []coin
	var later pktcloud.Amount
	for _, c := range all {
		switch {
		case w.reserved[c.At]:
		case c.confirmed(), r.ownChange && c.chain == change && !c.Coinbase:
			free = append(free, c)
		default:
			later += c.Amount
		}
	}
	slices.SortStableFunc(free, func(a, b coin) int { return cmp.Compare(b.Amount, a.Amount) })
	var sum, need pktcloud.Amount
	for _, c := range free[:min(len(free), r.maxInputs)] {
		tx.AddTxIn(&wire.TxIn{
			PreviousOutPoint: wire.OutPoint{Hash: c.At.TxID, Index: c.At.Index},
			Sequence:         sequence,
			Witness:          dummyWitness(),
		})
		picked = append(picked, c)
		if sum, err = sum.Add(c.Amount); err != nil {
			return nil, 0, fmt.Errorf("payment: %w", err)
		}
		need = total + pktchain.Fee(vsize(tx), r.rate)
		if sum >= need {
			return picked, sum - need, nil
		}
	}
	need = max(need, total)
	return nil, 0, fmt.Errorf("%w: %s needed with the fee, %s at hand in %d coins, %s not yet confirmed",
		ErrFunds, need, sum, len(picked), later)
}

// addChange returns what is left to the wallet, unless that would be dust or
// cost more than it is: then it goes to the fee.
func (w *Wallet) addChange(ctx context.Context, tx *wire.MsgTx, rest, rate pktcloud.Amount) error {
	before := vsize(tx)
	probe := make([]byte, 22) // as long as a P2WPKH script
	probe[1] = 20
	tx.AddTxOut(wire.NewTxOut(0, probe))
	cost := pktchain.Fee(vsize(tx), rate) - pktchain.Fee(before, rate)
	if rest < cost+w.cfg.Network.Dust(probe) {
		tx.TxOut = tx.TxOut[:len(tx.TxOut)-1]
		return nil
	}
	script, err := w.fresh(ctx, change)
	if err != nil {
		return err
	}
	tx.TxOut[len(tx.TxOut)-1] = wire.NewTxOut(int64(rest-cost), script)
	return nil
}

func (w *Wallet) sign(tx *wire.MsgTx, picked []coin) error {
	prev := txscript.NewMultiPrevOutFetcher(nil)
	for i, c := range picked {
		prev.AddPrevOut(tx.TxIn[i].PreviousOutPoint, wire.NewTxOut(int64(c.Amount), c.Script))
	}
	hashes := txscript.NewTxSigHashes(tx, prev)
	for i, c := range picked {
		key, err := w.keys.private(c.chain, c.index)
		if err != nil {
			return err
		}
		witness, err := txscript.WitnessSignature(tx, hashes, i, int64(c.Amount), c.Script, txscript.SigHashAll, key, true)
		if err != nil {
			return fmt.Errorf("sign input %d: %w", i, err)
		}
		tx.TxIn[i].Witness = witness
	}
	return nil
}

// dummyWitness is as long as the longest that sign makes: a signature of 72
// bytes and a key of 33.
func dummyWitness() wire.TxWitness { return wire.TxWitness{make([]byte, 72), make([]byte, 33)} }

// vsize is a transaction's size in virtual bytes: a quarter of its weight,
// rounded up.
func vsize(tx *wire.MsgTx) uint64 {
	return uint64(3*tx.SerializeSizeStripped()+tx.SerializeSize()+3) / 4
}

func encodeTx(tx *wire.MsgTx) ([]byte, error) {
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		return nil, fmt.Errorf("encode transaction: %w", err)
	}
	return b.Bytes(), nil
}

func decodeTx(raw []byte) (*wire.MsgTx, error) {
	tx := new(wire.MsgTx)
	r := bytes.NewReader(raw)
	if err := tx.Deserialize(r); err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "transaction: %w", err)
	}
	if r.Len() != 0 || len(tx.TxIn) == 0 {
		return nil, settle.Refuse(settle.ErrMalformed, "transaction: bytes left over or no input")
	}
	return tx, nil
}
