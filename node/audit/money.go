package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// channel is a channel as its parameters describe it, with the script that
// they imply, written out here from [SETTLE-46].
type channel struct {
	id     pktcloud.ID
	params settle.Params
	detail pktchain.Detail
	script []byte
	at     wire.OutPoint
}

func newChannel(p settle.Params) (*channel, error) {
	d, err := pktchain.ParseDetail(p.Detail)
	if err != nil {
		return nil, err
	}
	id, err := p.ID()
	if err != nil {
		return nil, err
	}
	c := &channel{id: id, params: p, detail: d, at: wire.OutPoint{Hash: d.Funding.TxID, Index: d.Funding.Index}}
	c.script = c.fundingScript()
	return c, nil
}

// fundingScript spells the script byte by byte: a 2-of-2 of payee and spender,
// or the refund keys from the expiry height on [SETTLE-46].
func (c *channel) fundingScript() []byte {
	const opIf, op1, op2, opElse, opEndIf = 0x63, 0x51, 0x52, 0x67, 0x68
	const opDrop, opCheckSig, opCheckMultiSig, opCLTV = 0x75, 0xac, 0xae, 0xb1
	var s []byte
	push := func(data []byte) { s = append(append(s, byte(len(data))), data...) }
	s = append(s, opIf, op2)
	push(c.detail.Payee)
	push(c.detail.Spender)
	s = append(s, op2, opCheckMultiSig, opElse)
	if h := c.params.ExpiryHeight; h <= 16 {
		s = append(s, op1-1+byte(h))
	} else {
		push(scriptNumber(h))
	}
	s = append(s, opCLTV, opDrop)
	if keys := c.detail.Refund.Keys; len(keys) == 1 {
		push(keys[0])
		s = append(s, opCheckSig)
	} else {
		s = append(s, op1-1+byte(c.detail.Refund.Required))
		for _, k := range keys {
			push(k)
		}
		s = append(s, op1-1+byte(len(keys)), opCheckMultiSig)
	}
	return append(s, opEndIf)
}

// scriptNumber is the little-endian form with a sign bit that scripts use.
func scriptNumber(n uint64) []byte {
	var b []byte
	for ; n > 0; n >>= 8 {
		b = append(b, byte(n))
	}
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		b = append(b, 0)
	}
	return b
}

func (c *channel) pkScript() []byte {
	h := sha256.Sum256(c.script)
	return append([]byte{0x00, 0x20}, h[:]...)
}

// verifyVoucher checks the payer's signature for total over the claim that the
// payee would complete: SIGHASH_SINGLE, so that output 0 alone counts [SETTLE-49].
func (c *channel) verifyVoucher(total uint64, proof []byte) error {
	change := new(big.Int).SetUint64(uint64(c.params.Capacity))
	change.Sub(change, new(big.Int).SetUint64(total)).Sub(change, new(big.Int).SetUint64(uint64(c.params.Reserve)))
	if change.Sign() < 0 || change.Cmp(new(big.Int).SetUint64(uint64(c.params.MinChange))) < 0 {
		return errors.New("leaves the payer less than the agreed change")
	}
	if len(proof) == 0 || proof[len(proof)-1] != byte(txscript.SigHashSingle) {
		return errors.New("has a proof that is not SIGHASH_SINGLE")
	}
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: c.at, Sequence: 0xfffffffd})
	tx.AddTxOut(&wire.TxOut{Value: change.Int64(), PkScript: c.detail.PayerScript})
	value := int64(c.params.Capacity)
	fetch := txscript.NewCannedPrevOutputFetcher(c.pkScript(), value)
	digest, err := txscript.CalcWitnessSigHash(c.script, txscript.NewTxSigHashes(tx, fetch), txscript.SigHashSingle, tx, 0, value)
	if err != nil {
		return fmt.Errorf("has no digest: %w", err)
	}
	key, err := btcec.ParsePubKey(c.detail.Spender)
	if err != nil {
		return fmt.Errorf("names a spender that is no key: %w", err)
	}
	sig, err := ecdsa.ParseDERSignature(proof[:len(proof)-1])
	if err != nil || !sig.Verify(digest, key) {
		return errors.New("has a proof that does not verify under the spender's key")
	}
	return nil
}

// ending is what the chain made of a channel.
type ending struct {
	known       bool
	cooperative bool
	refund      bool
	claimed     uint64 // of the channel's money, to the payee, the fee not counted
}

// settlement finds the funding and the closing transaction of a channel and
// checks both against its parameters.
func (c *channel) settlement(ch *chain, subject string, report *Report) ending {
	funding := ch.txs[c.at.Hash]
	if funding == nil {
		report.add(subject, "has a funding transaction %s that no block contains", c.at.Hash)
		return ending{}
	}
	if int(c.at.Index) >= len(funding.tx.TxOut) {
		report.add(subject, "names output %d of its funding transaction, which has %d", c.at.Index, len(funding.tx.TxOut))
		return ending{}
	}
	out := funding.tx.TxOut[c.at.Index]
	if uint64(out.Value) != uint64(c.params.Capacity) || !bytes.Equal(out.PkScript, c.pkScript()) {
		report.add(subject, "has a funding output that is not its script and capacity")
	}
	end := ch.spends[c.at]
	if end == nil {
		return ending{}
	}
	return c.readEnd(end.tx, subject, report)
}

// rolled reports whether the chain's transaction that spends one channel funds
// the other.
func (ch *chain) rolled(from, to *channel) bool {
	spend := ch.spends[from.at]
	return spend != nil && spend.tx.TxHash() == to.at.Hash
}

// readEnd takes the closing transaction apart.
func (c *channel) readEnd(tx *wire.MsgTx, subject string, report *Report) ending {
	e := ending{known: true}
	var payer, payee, sum uint64
	for _, out := range tx.TxOut {
		sum += uint64(out.Value)
		switch {
		case bytes.Equal(out.PkScript, c.detail.PayerScript):
			payer += uint64(out.Value)
		case bytes.Equal(out.PkScript, c.detail.PayeeScript):
			payee += uint64(out.Value)
		default:
			report.add(subject, "was closed to a script that belongs to neither side")
		}
	}
	if len(tx.TxIn) != 1 || sum > uint64(c.params.Capacity) {
		report.add(subject, "was closed by a transaction that spends more than it")
		return e
	}
	witness := tx.TxIn[0].Witness
	switch {
	case len(witness) == 5 && len(witness[2]) > 0 && witness[2][len(witness[2])-1] == byte(txscript.SigHashSingle):
		// The payee chose the fee and paid it from its own part and the reserve.
		e.claimed = uint64(c.params.Capacity) - uint64(c.params.Reserve) - payer
	case len(witness) == 5:
		e.cooperative = true
		e.claimed = payee
	default:
		e.refund = true
	}
	return e
}

// checkScripts runs every input of every transaction of the best branch.
func (ch *chain) checkScripts(report *Report) {
	for hash, entry := range ch.txs {
		if len(entry.tx.TxIn) == 1 && entry.tx.TxIn[0].PreviousOutPoint.Index == wire.MaxPrevOutIndex {
			continue // a coinbase spends nothing
		}
		fetch := txscript.NewMultiPrevOutFetcher(nil)
		complete := true
		for _, in := range entry.tx.TxIn {
			from := ch.txs[in.PreviousOutPoint.Hash]
			if from == nil || int(in.PreviousOutPoint.Index) >= len(from.tx.TxOut) {
				report.add("transaction "+hash.String(), "spends %v, which no block contains", in.PreviousOutPoint)
				complete = false
				continue
			}
			fetch.AddPrevOut(in.PreviousOutPoint, from.tx.TxOut[in.PreviousOutPoint.Index])
		}
		if complete {
			entry.checkInputs(fetch, report)
		}
	}
}

func (t *chainTx) checkInputs(fetch *txscript.MultiPrevOutFetcher, report *Report) {
	hashes := txscript.NewTxSigHashes(t.tx, fetch)
	for i, in := range t.tx.TxIn {
		out := fetch.FetchPrevOutput(in.PreviousOutPoint)
		vm, err := txscript.NewEngine(out.PkScript, t.tx, i, txscript.StandardVerifyFlags, nil, hashes, out.Value, fetch)
		if err == nil {
			err = vm.Execute()
		}
		if err != nil {
			report.add("transaction "+t.tx.TxHash().String(), "has an input %d whose script fails: %v", i, err)
		}
		report.Checked.Scripts++
	}
}
