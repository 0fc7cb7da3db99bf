package wallet

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	// MaxSendInputs is how many coins a payment spends at most: well below the
	// size of a standard transaction, and of the 500 inputs of some kinds that
	// the nodes of the chain take.
	MaxSendInputs = 400
	// MaxFeeRate is the highest rate that a payment takes, in units per 1000
	// virtual bytes: a hundred thousand times the relay floor [WALLET-17].
	MaxFeeRate = 100_000 * settle.RelayFloor
	// Of the inputs of a funding, which must never be replaced, and of those of
	// a payment, which may be. Both let lock times count [WALLET-10].
	finalSequence       = wire.MaxTxInSequenceNum - 1
	replaceableSequence = wire.MaxTxInSequenceNum - 2
)

// Fund implements manager.Wallet: it builds and signs a transaction with these
// outputs first, in order, and change after them. It spends confirmed coins of
// account 0 only, at a fee of ten times the relay floor or more, since such a
// fee can never be raised [WALLET-11]. Its coins are reserved until Release or
// until they are spent on the chain. Errors match ErrFunds, ErrLocked,
// settle.ErrDust or settle.ErrLedgerUnavailable.
func (w *Wallet) Fund(ctx context.Context, outputs []settle.Payment, feeRate pktcloud.Amount) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, err := w.build(ctx, request{
		outputs: outputs, rate: max(feeRate, pktchain.FundingFeeFactor*w.cfg.Network.RelayFloor),
		maxInputs: pktchain.MaxFundingInputs, sequence: finalSequence,
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

// request is what a transaction shall do.
type request struct {
	outputs   []settle.Payment
	all       bool // the first output gets all there is
	rate      pktcloud.Amount
	account   uint32
	from      []*coin // to be spent in any case
	only      bool    // spend nothing else
	maxInputs int
	ownChange bool // unconfirmed change of the wallet's own may be spent
	sequence  uint32
	change    []byte // where change goes; nil: a fresh script
	foreign   foreignInput
}

// draft is a transaction before it has change and signatures.
type draft struct {
	request
	picked []*coin
	rest   pktcloud.Amount // for change, its fee paid; zero: there is none
	fee    pktcloud.Amount
	size   uint64 // in virtual bytes
}

// build selects coins, adds change and signs. The caller holds w.mu.
func (w *Wallet) build(ctx context.Context, r request) (*wire.MsgTx, error) {
	if w.keys.coin == nil {
		return nil, ErrLocked
	}
	if err := w.refresh(ctx); err != nil {
		return nil, err
	}
	d, err := w.draft(r)
	if err != nil {
		return nil, err
	}
	return w.finish(ctx, d)
}

// finish makes the transaction of a draft.
func (w *Wallet) finish(ctx context.Context, d draft) (*wire.MsgTx, error) {
	if w.keys.coin == nil {
		return nil, ErrLocked
	}
	tx := wire.NewMsgTx(2)
	d.foreign.begin(tx)
	for _, c := range d.picked {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: c.at.TxID, Index: c.at.Index}, Sequence: d.sequence})
	}
	for _, o := range d.outputs {
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
	}
	if d.rest > 0 {
		script := d.change
		if script == nil {
			var err error
			if script, err = w.fresh(ctx, w.branch(d.account, change)); err != nil {
				return nil, err
			}
		}
		tx.AddTxOut(wire.NewTxOut(int64(d.rest), script))
	}
	return tx, w.sign(tx, d.picked, d.foreign)
}

// draft checks the outputs, selects coins and computes fee and change. It
// changes nothing.
func (w *Wallet) draft(r request) (draft, error) {
	if len(r.outputs) == 0 {
		return draft{}, settle.Refuse(settle.ErrMalformed, "a payment without outputs")
	}
	if r.rate > MaxFeeRate {
		return draft{}, settle.Refuse(settle.ErrFee, "a fee of %d units per 1000 bytes; the wallet pays at most %d", uint64(r.rate), uint64(MaxFeeRate))
	}
	d := draft{request: r}
	if r.all {
		return d, w.pickAll(&d)
	}
	var total pktcloud.Amount
	for _, o := range r.outputs {
		if err := w.checkOutput(o); err != nil {
			return draft{}, err
		}
		var err error
		if total, err = total.Add(o.Amount); err != nil {
			return draft{}, fmt.Errorf("payment: %w", err)
		}
	}
	total = total.SubFloor(r.foreign.coin.Amount)
	rest, err := w.pick(&d, total)
	if err != nil {
		return draft{}, err
	}
	d.addChange(rest, w.cfg.Network)
	return d, nil
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

// candidates yields the coins that a request may spend: those it names, then
// the others, the largest first. later is what waits for a block.
func (w *Wallet) candidates(r request) (free []*coin, later pktcloud.Amount) {
	named := map[settle.Outpoint]bool{}
	for _, c := range r.from {
		named[c.at] = true
	}
	free = append(free, r.from...)
	if r.only {
		return free, 0
	}
	for _, c := range w.index.coins(r.account) {
		switch {
		case c.reserved, c.frozen, named[c.at]:
		case w.index.confirmed(c), r.ownChange && c.own && c.place.chain == change && !c.coinbase:
			if free = append(free, c); len(free) >= r.maxInputs {
				return free, later
			}
		default:
			later += c.amount
		}
	}
	return free, later
}

// pick selects the largest coins first, until they cover total and the fee, and
// returns what is left over both. Two libraries were looked at: the selectors
// of btcutil's coinset do not count the fee that each input adds, and
// btcwallet's txauthor refuses amounts above 2.1e15 units. Largest first is
// done after one pass over coins that are kept in that order, needs the fewest
// inputs, and unlike a search for a sum without change gives the same answer
// for the same coins. Small coins stay until nothing else is left: they can be
// gathered by choosing them.
func (w *Wallet) pick(d *draft, total pktcloud.Amount) (rest pktcloud.Amount, err error) {
	free, later := w.candidates(d.request)
	var sum, need pktcloud.Amount
	for i, c := range free[:min(len(free), d.maxInputs)] {
		d.picked = append(d.picked, c)
		if sum, err = sum.Add(c.amount); err != nil {
			return 0, fmt.Errorf("payment: %w", err)
		}
		d.size = d.sizeWith(len(d.picked), false)
		need = total + pktchain.Fee(d.size, d.rate)
		if sum >= need && i+1 >= len(d.from) {
			return sum - need, nil
		}
	}
	need = max(need, total)
	text := fmt.Sprintf("%s needed with the fee, %s at hand in %s, %s not yet confirmed", need, sum, coins(len(d.picked)), later)
	if len(d.picked) == d.maxInputs {
		text += fmt.Sprintf("; one payment spends at most %d coins, so send less at a time", d.maxInputs)
	}
	return 0, fmt.Errorf("%w: %s", ErrFunds, text)
}

// pickAll gives everything that can be spent to the first output.
func (w *Wallet) pickAll(d *draft) error {
	free, later := w.candidates(d.request)
	d.picked = free[:min(len(free), d.maxInputs)]
	var sum pktcloud.Amount
	for _, c := range d.picked {
		var err error
		if sum, err = sum.Add(c.amount); err != nil {
			return fmt.Errorf("payment: %w", err)
		}
	}
	d.size = d.sizeWith(len(d.picked), false)
	d.fee = pktchain.Fee(d.size, d.rate)
	if sum <= d.fee {
		return fmt.Errorf("%w: %s at hand in %s, a fee of %s, %s not yet confirmed", ErrFunds, sum, coins(len(d.picked)), d.fee, later)
	}
	d.outputs = []settle.Payment{{Script: d.outputs[0].Script, Amount: sum - d.fee}}
	return w.checkOutput(d.outputs[0])
}

// addChange returns what is left to the wallet, unless that would be dust or
// cost more than it is: then it goes to the fee.
func (d *draft) addChange(rest pktcloud.Amount, n pktchain.Network) {
	d.fee = pktchain.Fee(d.size, d.rate)
	size := d.sizeWith(len(d.picked), true)
	cost := pktchain.Fee(size, d.rate) - d.fee
	if rest < cost+n.Dust(changeProbe[:]) {
		d.fee += rest
		return
	}
	d.rest, d.size, d.fee = rest-cost, size, d.fee+cost
}

// changeProbe is as long as a P2WPKH script.
var changeProbe = [22]byte{1: 20}

// An input that spends a P2WPKH coin: outpoint, empty script and sequence; and
// its witness, a signature of 72 bytes, the longest that sign makes, and a key
// of 33.
const (
	inputBytes   = 32 + 4 + 1 + 4
	witnessBytes = 1 + 1 + 72 + 1 + 33
)

// sizeWith is the virtual size of the draft with so many inputs: a quarter of
// its weight, rounded up.
func (d *draft) sizeWith(inputs int, change bool) uint64 {
	tx := wire.MsgTx{}
	for _, o := range d.outputs {
		tx.TxOut = append(tx.TxOut, wire.NewTxOut(int64(o.Amount), o.Script))
	}
	if change {
		tx.TxOut = append(tx.TxOut, wire.NewTxOut(0, changeProbe[:]))
	}
	base := tx.SerializeSizeStripped() - 1 + wire.VarIntSerializeSize(uint64(inputs)) + inputs*inputBytes
	return uint64(4*base+2+inputs*witnessBytes+3)/4 + d.foreign.vbytes
}

// sign signs the inputs that spend picked coins; they follow the foreign one.
func (w *Wallet) sign(tx *wire.MsgTx, picked []*coin, f foreignInput) error {
	prev := txscript.NewMultiPrevOutFetcher(nil)
	first := f.show(prev)
	scripts := make([][]byte, len(picked))
	for i, c := range picked {
		var err error
		if scripts[i], err = w.keys.script(c.place); err != nil {
			return err
		}
		prev.AddPrevOut(tx.TxIn[first+i].PreviousOutPoint, wire.NewTxOut(int64(c.amount), scripts[i]))
	}
	hashes := txscript.NewTxSigHashes(tx, prev)
	for i, c := range picked {
		key, err := w.keys.private(c.place)
		if err != nil {
			return err
		}
		witness, err := txscript.WitnessSignature(tx, hashes, first+i, int64(c.amount), scripts[i], txscript.SigHashAll, key, true)
		if err != nil {
			return fmt.Errorf("sign input %d: %w", first+i, err)
		}
		tx.TxIn[first+i].Witness = witness
	}
	return nil
}

// vsize is a transaction's size in virtual bytes.
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

// coins is a number of them, for a sentence.
func coins(n int) string {
	if n == 1 {
		return "1 coin"
	}
	return strconv.Itoa(n) + " coins"
}
