package settletest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// ErrFunds is what a Wallet answers when it has too little.
var ErrFunds = errors.New("the wallet twin has too little money")

// Wallet is a wallet of P2WPKH coins over any ledger, a manager.Wallet.
type Wallet struct {
	network pktchain.Network
	ledger  settle.Ledger
	name    string

	mu       sync.Mutex
	keys     []*btcec.PrivateKey
	scripts  [][]byte
	reserved map[wire.OutPoint]bool
}

// NewWallet returns a wallet whose keys come from a name. One with the same
// name has the same keys in the same order.
func NewWallet(n pktchain.Network, ledger settle.Ledger, name string) *Wallet {
	return &Wallet{network: n, ledger: ledger, name: name, reserved: map[wire.OutPoint]bool{}}
}

// ReceiveScript returns a fresh script of the wallet.
func (w *Wallet) ReceiveScript(context.Context) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fresh(), nil
}

func (w *Wallet) fresh() []byte {
	secret := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(w.name), uint32(len(w.keys))))
	key, pub := btcec.PrivKeyFromBytes(secret[:])
	script := append([]byte{0, 20}, address.Hash160(pub.SerializeCompressed())...)
	w.keys, w.scripts = append(w.keys, key), append(w.scripts, script)
	return script
}

// Balance returns the wallet's confirmed coins, reserved ones included.
func (w *Wallet) Balance(ctx context.Context) (pktcloud.Amount, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum pktcloud.Amount
	for _, script := range w.scripts {
		coins, err := w.ledger.Coins(ctx, script)
		if err != nil {
			return 0, err
		}
		for _, c := range coins {
			if c.Depth > 0 {
				sum += c.Amount
			}
		}
	}
	return sum, nil
}

// Fund builds, signs and reserves a transaction with these outputs first.
func (w *Wallet) Fund(ctx context.Context, outputs []settle.Payment, feeRate pktcloud.Amount) ([]byte, error) {
	return w.fund(ctx, settle.Coin{}, 0, outputs, feeRate)
}

// FundRoll does so for a transaction whose first input spends a foreign coin,
// which it leaves unsigned. It is a manager.RollWallet.
func (w *Wallet) FundRoll(ctx context.Context, first settle.Coin, vbytes uint64, outputs []settle.Payment, feeRate pktcloud.Amount) ([]byte, error) {
	return w.fund(ctx, first, vbytes, outputs, feeRate)
}

func (w *Wallet) fund(ctx context.Context, first settle.Coin, vbytes uint64, outputs []settle.Payment, feeRate pktcloud.Amount) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx := wire.NewMsgTx(2)
	var need pktcloud.Amount
	have := first.Amount
	for _, o := range outputs {
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
		need += o.Amount
	}
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	signers := map[int]*btcec.PrivateKey{}
	if vbytes > 0 {
		at := wire.OutPoint{Hash: first.At.TxID, Index: first.At.Index}
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: wire.MaxTxInSequenceNum - 2})
		fetch.AddPrevOut(at, wire.NewTxOut(int64(first.Amount), first.Script))
	}
	fee := func() pktcloud.Amount { // with a change output and two-item witnesses
		return pktchain.Fee(sizeOf(tx)+32+28*uint64(len(tx.TxIn))+vbytes, feeRate)
	}
	for i := 0; i < len(w.scripts) && have < need+fee(); i++ {
		coins, err := w.ledger.Coins(ctx, w.scripts[i])
		if err != nil {
			return nil, err
		}
		for _, c := range coins {
			at := wire.OutPoint{Hash: c.At.TxID, Index: c.At.Index}
			if c.Depth == 0 || w.reserved[at] || have >= need+fee() {
				continue
			}
			tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: wire.MaxTxInSequenceNum - 1})
			fetch.AddPrevOut(at, wire.NewTxOut(int64(c.Amount), c.Script))
			signers[len(tx.TxIn)-1] = w.keys[i]
			have += c.Amount
		}
	}
	if have < need+fee() {
		return nil, ErrFunds
	}
	if change := have - need - fee(); len(w.scripts) > 0 && change >= w.network.Dust(w.scripts[0]) {
		tx.AddTxOut(wire.NewTxOut(int64(change), w.fresh()))
	}
	hashes := txscript.NewTxSigHashes(tx, fetch)
	for i, in := range tx.TxIn {
		if signers[i] == nil { // another's
			continue
		}
		prev := fetch.FetchPrevOutput(in.PreviousOutPoint)
		witness, err := txscript.WitnessSignature(tx, hashes, i, prev.Value, prev.PkScript, txscript.SigHashAll, signers[i], true)
		if err != nil {
			return nil, err
		}
		in.Witness = witness
		w.reserved[in.PreviousOutPoint] = true
	}
	return rawOf(tx), nil
}

// Elsewhere returns a transaction that pays the wallet's coins of another one
// back to it: a double spend. It reserves nothing.
func (w *Wallet) Elsewhere(ctx context.Context, raw []byte, feeRate pktcloud.Amount) ([]byte, error) {
	other := new(wire.MsgTx)
	if err := other.Deserialize(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	tx := wire.NewMsgTx(2)
	fetch := txscript.NewMultiPrevOutFetcher(nil)
	var signers []*btcec.PrivateKey
	var have pktcloud.Amount
	for _, in := range other.TxIn {
		at := in.PreviousOutPoint
		out, err := w.ledger.Output(ctx, settle.Outpoint{TxID: at.Hash, Index: at.Index})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(w.scripts, func(s []byte) bool { return bytes.Equal(s, out.Script) })
		if i < 0 {
			continue // another's, or not there
		}
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: wire.MaxTxInSequenceNum - 1})
		fetch.AddPrevOut(at, wire.NewTxOut(int64(out.Amount), out.Script))
		signers = append(signers, w.keys[i])
		have += out.Amount
	}
	if len(signers) == 0 {
		return nil, ErrFunds
	}
	tx.AddTxOut(wire.NewTxOut(0, w.fresh()))
	fee := pktchain.Fee(sizeOf(tx)+28*uint64(len(signers)), feeRate)
	tx.TxOut[0].Value = int64(have.SubFloor(fee))
	hashes := txscript.NewTxSigHashes(tx, fetch)
	for i, in := range tx.TxIn {
		prev := fetch.FetchPrevOutput(in.PreviousOutPoint)
		witness, err := txscript.WitnessSignature(tx, hashes, i, prev.Value, prev.PkScript, txscript.SigHashAll, signers[i], true)
		if err != nil {
			return nil, err
		}
		in.Witness = witness
	}
	return rawOf(tx), nil
}

// Reserve reserves the coins of a transaction again.
func (w *Wallet) Reserve(_ context.Context, raw []byte) error { return w.mark(raw, true) }

// Release gives the coins of a transaction back.
func (w *Wallet) Release(_ context.Context, raw []byte) error { return w.mark(raw, false) }

func (w *Wallet) mark(raw []byte, reserved bool) error {
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, in := range tx.TxIn {
		w.reserved[in.PreviousOutPoint] = reserved
	}
	return nil
}

// Reserved returns how many coins are reserved.
func (w *Wallet) Reserved() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.reserved {
		if r {
			n++
		}
	}
	return n
}
