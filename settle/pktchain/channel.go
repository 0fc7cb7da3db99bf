package pktchain

import (
	"bytes"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// What all transactions that end a channel have in common [SETTLE-47]. The
// sequence signals replacement: whoever pays the fee may raise it.
const (
	endSequence = 0xfffffffd
	txVersion   = 2
)

// maxSignature is the longest DER signature with low S, and its type byte.
const maxSignature = 72

// Channel is a channel as this chain sees it: parameters whose detail was read
// and judged, and the script of its funding output. It is a value and safe for
// concurrent use.
type Channel struct {
	Network  Network
	Params   settle.Params
	Detail   Detail
	script   []byte
	pkScript []byte
	spender  *btcec.PublicKey // Detail.Spender, read once
}

// ChannelOf reads the detail of params and checks that this chain can settle
// them [SETTLE-43] [SETTLE-45]. Errors match [settle.ErrParams] or
// [settle.ErrMalformed].
func ChannelOf(n Network, p settle.Params) (Channel, error) {
	if err := p.Validate(); err != nil {
		return Channel{}, err
	}
	if p.Rail != n.Rail {
		return Channel{}, settle.Refuse(settle.ErrParams, "a channel of rail %q, this side settles on %q", p.Rail, n.Rail)
	}
	d, spender, err := parseDetail(p.Detail)
	if err != nil {
		return Channel{}, err
	}
	if dust := n.Dust(d.PayerScript); p.MinChange < dust {
		return Channel{}, settle.Refuse(settle.ErrParams, "a least change of %d units is dust (below %d)", uint64(p.MinChange), uint64(dust))
	}
	script, err := FundingScript(d.Payee, d.Spender, p.ExpiryHeight, d.Refund)
	if err != nil {
		return Channel{}, err
	}
	c := Channel{Network: n, Params: p, Detail: d, script: script, pkScript: witnessScriptHash(script), spender: spender}
	return c, c.checkWorth()
}

// checkWorth refuses a channel that is worth no claim, even where everything is
// paid: its money could end nowhere but in the refund, if that [SETTLE-57].
func (c Channel) checkWorth() error {
	most, least := c.Params.Spendable()+c.Params.Reserve, c.Network.Dust(c.Detail.PayeeScript)+c.ClaimFee(0)
	if most < least {
		return settle.Refuse(settle.ErrDust, "a channel of %d units pays its payee at most %d, and a claim takes %d", uint64(c.Params.Capacity), uint64(most), uint64(least))
	}
	return nil
}

// Worth is the part of [ChannelOf] that can be checked of a plan, before
// anything is spent on it: that its amounts are no dust [SETTLE-45] [SETTLE-57].
// Errors match [settle.ErrDust], [settle.ErrParams] or [settle.ErrMalformed].
func (k *Keychain) Worth(p settle.Params, plan Plan) error {
	script, err := k.planned(plan)
	if err != nil {
		return err
	}
	if dust := k.network.Dust(plan.PayerScript); p.MinChange < dust {
		return settle.Refuse(settle.ErrParams, "a least change of %d units is dust (below %d)", uint64(p.MinChange), uint64(dust))
	}
	return Channel{
		Network: k.network, Params: p, script: script, Detail: Detail{PayerScript: plan.PayerScript, PayeeScript: plan.Payee.Script},
	}.checkWorth()
}

// Script returns the witness script of the funding output.
func (c Channel) Script() []byte { return bytes.Clone(c.script) }

// PkScript returns the P2WSH script of the funding output.
func (c Channel) PkScript() []byte { return bytes.Clone(c.pkScript) }

// spend begins a transaction that spends the funding output.
func (c Channel) spend(lockTime uint32) *wire.MsgTx {
	tx := wire.NewMsgTx(txVersion)
	tx.LockTime = lockTime
	tx.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Hash: c.Detail.Funding.TxID, Index: c.Detail.Funding.Index},
		Sequence:         endSequence,
	})
	return tx
}

// claimTx is the payee's claim of total without signatures [SETTLE-49]. Output
// 0, which the payer's signature covers, is the payer's; the payee's part
// follows, less the fee. For the payer's own digest fee does not matter.
//
//	version 2, lock time 0
//	input 0:  funding output, sequence 0xfffffffd
//	output 0: capacity - total - reserve  to the payer's script
//	output 1: total + reserve - fee       to the payee's script
func (c Channel) claimTx(total, fee pktcloud.Amount) *wire.MsgTx {
	tx := c.spend(0)
	change := c.Params.Capacity - total - c.Params.Reserve
	tx.AddTxOut(wire.NewTxOut(int64(change), c.Detail.PayerScript))
	tx.AddTxOut(wire.NewTxOut(int64(total+c.Params.Reserve-fee), c.Detail.PayeeScript))
	return tx
}

// checkTotal keeps claimTx from going below zero.
func (c Channel) checkTotal(total pktcloud.Amount) error {
	if total == 0 || total > c.Params.Spendable() {
		return settle.Refuse(settle.ErrCapacity, "a total of %d units, the channel pays 1 to %d", uint64(total), uint64(c.Params.Spendable()))
	}
	return nil
}

// closeTx is the cooperative close without signatures [SETTLE-50]. An output
// of zero is left out.
//
//	version 2, lock time 0
//	input 0:  funding output, sequence 0xfffffffd
//	output:   capacity - final - fee  to the payer's script
//	output:   final                   to the payee's script
func (c Channel) closeTx(final, fee pktcloud.Amount) (*wire.MsgTx, error) {
	need, err := final.Add(fee)
	if err != nil || need > c.Params.Capacity {
		return nil, settle.Refuse(settle.ErrClose, "final %d and fee %d units exceed the capacity", uint64(final), uint64(fee))
	}
	tx := c.spend(0)
	for _, out := range []settle.Payment{
		{Script: c.Detail.PayerScript, Amount: c.Params.Capacity - need},
		{Script: c.Detail.PayeeScript, Amount: final},
	} {
		if out.Amount == 0 {
			continue
		}
		if dust := c.Network.Dust(out.Script); out.Amount < dust {
			return nil, settle.Refuse(settle.ErrDust, "a close with an output of %d units; the network carries none below %d, except zero", uint64(out.Amount), uint64(dust))
		}
		tx.AddTxOut(wire.NewTxOut(int64(out.Amount), out.Script))
	}
	if len(tx.TxOut) == 0 {
		return nil, settle.Refuse(settle.ErrClose, "a close that pays nobody")
	}
	if floor := Fee(c.twoOfTwoSize(tx), c.Network.RelayFloor); fee < floor {
		return nil, settle.Refuse(settle.ErrFee, "a close with a fee of %d units; nodes relay from %d", uint64(fee), uint64(floor))
	}
	return tx, nil
}

// refundTx is the payer's refund without signatures [SETTLE-51]. Nodes accept
// it when their tip is at the expiry height.
//
//	version 2, lock time = expiry height
//	input 0:  funding output, sequence 0xfffffffd
//	output 0: capacity - fee  to the payer's script
func (c Channel) refundTx(fee pktcloud.Amount) (*wire.MsgTx, error) {
	dust := c.Network.Dust(c.Detail.PayerScript)
	if fee > c.Params.Capacity-dust {
		return nil, settle.Refuse(settle.ErrFee, "a refund fee of %d units leaves dust", uint64(fee))
	}
	tx := c.spend(uint32(c.Params.ExpiryHeight))
	tx.AddTxOut(wire.NewTxOut(int64(c.Params.Capacity-fee), c.Detail.PayerScript))
	if floor := Fee(c.refundSize(tx), c.Network.RelayFloor); fee < floor {
		return nil, settle.Refuse(settle.ErrFee, "a refund with a fee of %d units; nodes relay from %d", uint64(fee), uint64(floor))
	}
	return tx, nil
}

// twoOfTwoWitness spends by both keys: the payee's signature comes first, as
// its key does.
func (c Channel) twoOfTwoWitness(payee, spender []byte) wire.TxWitness {
	return wire.TxWitness{nil, payee, spender, {1}, c.script}
}

// refundWitness spends by the refund keys after expiry.
func (c Channel) refundWitness(sigs [][]byte) wire.TxWitness {
	var w wire.TxWitness
	if !c.Detail.Refund.single() {
		w = append(w, nil) // OP_CHECKMULTISIG takes one item too many
	}
	w = append(w, sigs...)
	return append(w, nil, c.script)
}

// twoOfTwoSize is the largest virtual size of tx once both have signed.
func (c Channel) twoOfTwoSize(tx *wire.MsgTx) uint64 {
	full := tx.Copy()
	full.TxIn[0].Witness = c.twoOfTwoWitness(make([]byte, maxSignature), make([]byte, maxSignature))
	return vsize(full)
}

// refundSize is the largest virtual size of tx once the refund is signed.
func (c Channel) refundSize(tx *wire.MsgTx) uint64 {
	full := tx.Copy()
	sigs := make([][]byte, c.Detail.Refund.Required)
	for i := range sigs {
		sigs[i] = make([]byte, maxSignature)
	}
	full.TxIn[0].Witness = c.refundWitness(sigs)
	return vsize(full)
}

// ClaimFee is what a claim pays at a rate in units per 1000 virtual bytes,
// never less than the relay floor asks.
func (c Channel) ClaimFee(rate pktcloud.Amount) pktcloud.Amount {
	return Fee(c.twoOfTwoSize(c.claimTx(c.Params.Spendable(), 0)), max(rate, c.Network.RelayFloor))
}

// CloseFee is what a cooperative close with two outputs pays at a rate.
func (c Channel) CloseFee(rate pktcloud.Amount) pktcloud.Amount { return c.ClaimFee(rate) }

// RefundFee is what a refund pays at a rate.
func (c Channel) RefundFee(rate pktcloud.Amount) pktcloud.Amount {
	tx := c.spend(uint32(c.Params.ExpiryHeight))
	tx.AddTxOut(wire.NewTxOut(0, c.Detail.PayerScript))
	return Fee(c.refundSize(tx), max(rate, c.Network.RelayFloor))
}

// End is what a transaction that spends a channel's funding output does.
type End struct {
	TxID   [32]byte
	Refund bool            // by the refund keys, after expiry
	Payee  pktcloud.Amount // to the payee's script
	Payer  pktcloud.Amount // to the payer's script
	Fee    pktcloud.Amount
}

// EndOf reads a transaction that the chain reports as spending the channel's
// funding output. It verifies no signature: the chain did. Errors match
// [settle.ErrMalformed] or [settle.ErrFunding].
func (c Channel) EndOf(raw []byte) (End, error) {
	tx, err := decodeTx(raw)
	if err != nil {
		return End{}, err
	}
	from := wire.OutPoint{Hash: c.Detail.Funding.TxID, Index: c.Detail.Funding.Index}
	if len(tx.TxIn) != 1 || tx.TxIn[0].PreviousOutPoint != from {
		return End{}, settle.Refuse(settle.ErrFunding, "the transaction spends more or other than the funding output")
	}
	w := tx.TxIn[0].Witness
	if len(w) < 2 || !bytes.Equal(w[len(w)-1], c.script) {
		return End{}, settle.Refuse(settle.ErrFunding, "the transaction shows another script")
	}
	e := End{TxID: tx.TxHash(), Refund: len(w[len(w)-2]) == 0}
	var sum pktcloud.Amount
	for _, out := range tx.TxOut {
		switch {
		case out.Value < 0 || pktcloud.Amount(out.Value) > c.Params.Capacity-sum:
			return End{}, settle.Refuse(settle.ErrFunding, "the transaction pays more than the capacity")
		case bytes.Equal(out.PkScript, c.Detail.PayeeScript):
			e.Payee += pktcloud.Amount(out.Value)
		case bytes.Equal(out.PkScript, c.Detail.PayerScript):
			e.Payer += pktcloud.Amount(out.Value)
		}
		sum += pktcloud.Amount(out.Value)
	}
	e.Fee = c.Params.Capacity - sum
	return e, nil
}

// kinds of signature on a spending transaction.
const (
	voucherSig = txscript.SigHashSingle
	wholeSig   = txscript.SigHashAll
)
