package wallet

import (
	"context"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// foreignKey are version bytes of other networks' keys.
var foreignKey = map[byte]string{0x80: "Bitcoin", 0xb0: "Litecoin", 0xe0: "pkt", 0xef: "a test network"}

// ForeignKey is a private key from elsewhere. It prints as "foreign key".
type ForeignKey struct {
	key        *btcec.PrivateKey
	compressed bool
}

// ParseKey reads a private key in wallet import format, of network n
// [WALLET-45]. Errors match settle.ErrMalformed and never repeat the key.
func ParseKey(n pktchain.Network, wif string) (ForeignKey, error) {
	bad := func(format string, args ...any) (ForeignKey, error) {
		return ForeignKey{}, settle.Refuse(settle.ErrMalformed, format, args...)
	}
	if len(wif) > 60 {
		return bad("this is no private key: one has 51 or 52 characters")
	}
	secret, version, err := base58.CheckDecode(wif)
	if err != nil {
		return bad("this is no private key, or a character of it is wrong")
	}
	if version != n.PrivateKey {
		if found := foreignKey[version]; found != "" {
			return bad("this is a key of %s; this wallet is of %s", found, n.Rail)
		}
		return bad("this is no private key of %s", n.Rail)
	}
	compressed := len(secret) == 33 && secret[32] == 1
	if len(secret) != 32 && !compressed {
		return bad("this private key has a wrong length")
	}
	var scalar btcec.ModNScalar
	if overflow := scalar.SetByteSlice(secret[:32]); overflow || scalar.IsZero() {
		return bad("this private key is out of range")
	}
	return ForeignKey{btcec.PrivKeyFromScalar(&scalar), compressed}, nil
}

// String keeps the key out of logs.
func (ForeignKey) String() string { return "foreign key" }

// GoString keeps the key out of %#v.
func (k ForeignKey) GoString() string { return k.String() }

// lock is an output script that a key opens, and how.
type lock struct {
	script []byte
	legacy bool   // by a signature script
	nested []byte // the witness script's hash form within P2SH
}

// locks are the scripts that a key opens [WALLET-46].
func (k ForeignKey) locks() []lock {
	pub := k.key.PubKey()
	bytes := pub.SerializeUncompressed()
	if k.compressed {
		bytes = pub.SerializeCompressed()
	}
	legacy := append([]byte{txscript.OP_DUP, txscript.OP_HASH160, 20}, address.Hash160(bytes)...)
	list := []lock{{script: append(legacy, txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG), legacy: true}}
	if !k.compressed { // no node relays a witness by such a key
		return list
	}
	witness := witnessScript(pub)
	nested := append([]byte{txscript.OP_HASH160, 20}, address.Hash160(witness)...)
	return append(list, lock{script: witness}, lock{script: append(nested, txscript.OP_EQUAL), nested: witness})
}

// Scripts are the output scripts whose coins a sweep takes [WALLET-46]: P2PKH,
// and for a compressed key P2WPKH and the same within P2SH.
func (k ForeignKey) Scripts() [][]byte {
	var scripts [][]byte
	for _, l := range k.locks() {
		scripts = append(scripts, l.script)
	}
	return scripts
}

// Sweep is what a foreign key's coins give.
type Sweep struct {
	TxID   [32]byte // zero for one that was only planned
	Coins  int
	More   bool // there are more coins than one transaction spends: sweep again
	Amount pktcloud.Amount
	Fee    pktcloud.Amount
}

// PlanSweep says what Sweep would give, and changes nothing.
func (w *Wallet) PlanSweep(ctx context.Context, key ForeignKey, feeRate pktcloud.Amount) (Sweep, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, s, err := w.sweep(ctx, key, feeRate)
	return s, err
}

// Sweep pays all confirmed coins of a key to a fresh address of the wallet. The
// key itself is not kept: the phrase restores what was swept, and nobody else
// who knows the key can take it any more. Errors are those of Send; ErrFunds
// when the key has no coins.
func (w *Wallet) Sweep(ctx context.Context, key ForeignKey, feeRate, maxFee pktcloud.Amount) (Sweep, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, s, err := w.sweep(ctx, key, feeRate)
	if err != nil {
		return Sweep{}, err
	}
	if s.Fee > maxFee {
		return Sweep{}, fmt.Errorf("%w: it would be %s, the limit is %s", ErrFee, s.Fee, maxFee)
	}
	script, err := w.fresh(ctx, w.branch(0, external))
	if err != nil {
		return Sweep{}, err
	}
	tx.TxOut[0].PkScript = script
	if err := key.sign(ctx, w.cfg.Ledger, tx); err != nil {
		return Sweep{}, err
	}
	s.TxID, err = w.commit(ctx, tx, sentRecord{Paid: 1}, nil, "swept from a key")
	return s, err
}

// sweep drafts the transaction, signatures and output script of the right
// length in it.
func (w *Wallet) sweep(ctx context.Context, key ForeignKey, feeRate pktcloud.Amount) (*wire.MsgTx, Sweep, error) {
	rate, err := w.cfg.Ledger.FeeRate(ctx)
	if err != nil {
		return nil, Sweep{}, err
	}
	if rate = max(rate, feeRate); rate > MaxFeeRate {
		return nil, Sweep{}, settle.Refuse(settle.ErrFee, "a fee of %d units per 1000 bytes; the wallet pays at most %d", uint64(rate), uint64(MaxFeeRate))
	}
	tx := wire.NewMsgTx(2)
	var s Sweep
	var sum pktcloud.Amount
	for _, l := range key.locks() {
		coins, err := w.cfg.Ledger.Coins(ctx, l.script)
		if err != nil {
			return nil, Sweep{}, fmt.Errorf("ask for the key's coins: %w", err)
		}
		for _, c := range coins {
			if c.Depth == 0 || c.Coinbase && c.Depth < CoinbaseMaturity {
				continue
			}
			if s.More = len(tx.TxIn) == MaxSendInputs; s.More {
				break
			}
			in := &wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: c.At.TxID, Index: c.At.Index}, Sequence: replaceableSequence}
			l.fill(in, make([]byte, 72), make([]byte, 65))
			tx.AddTxIn(in)
			if sum, err = sum.Add(c.Amount); err != nil {
				return nil, Sweep{}, fmt.Errorf("sweep: %w", err)
			}
		}
	}
	if len(tx.TxIn) == 0 {
		return nil, Sweep{}, fmt.Errorf("%w: the key has no confirmed coin", ErrFunds)
	}
	tx.AddTxOut(wire.NewTxOut(0, changeProbe[:]))
	s.Coins, s.Fee = len(tx.TxIn), pktchain.Fee(vsize(tx), rate)
	if sum < s.Fee+w.cfg.Network.Dust(changeProbe[:]) {
		return nil, Sweep{}, fmt.Errorf("%w: the key has %s, and to move it costs %s", ErrFunds, sum, s.Fee)
	}
	s.Amount = sum - s.Fee
	tx.TxOut[0].Value = int64(s.Amount)
	return tx, s, nil
}

// fill puts a signature and a key where the script wants them.
func (l lock) fill(in *wire.TxIn, signature, pub []byte) {
	if l.legacy {
		in.SignatureScript = append(append([]byte{byte(len(signature))}, signature...), append([]byte{byte(len(pub))}, pub...)...)
		return
	}
	in.Witness = wire.TxWitness{signature, pub[:33]}
	if l.nested != nil {
		in.SignatureScript = append([]byte{byte(len(l.nested))}, l.nested...)
	}
}

// sign signs every input for the output that it spends.
func (k ForeignKey) sign(ctx context.Context, ledger settle.Ledger, tx *wire.MsgTx) error {
	locks := map[string]lock{}
	for _, l := range k.locks() {
		locks[string(l.script)] = l
	}
	prev := txscript.NewMultiPrevOutFetcher(nil)
	for _, in := range tx.TxIn {
		out, err := ledger.Output(ctx, settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index})
		if err != nil {
			return err
		}
		if _, ours := locks[string(out.Script)]; !ours {
			return fmt.Errorf("%w: it is gone from the chain", ErrCoin)
		}
		prev.AddPrevOut(in.PreviousOutPoint, wire.NewTxOut(int64(out.Amount), out.Script))
	}
	hashes := txscript.NewTxSigHashes(tx, prev)
	for i, in := range tx.TxIn {
		out := prev.FetchPrevOutput(in.PreviousOutPoint)
		l := locks[string(out.PkScript)]
		var err error
		if l.legacy {
			in.SignatureScript, err = txscript.SignatureScript(tx, i, out.PkScript, txscript.SigHashAll, k.key, k.compressed)
		} else {
			subscript := out.PkScript
			if l.nested != nil {
				subscript = l.nested
			}
			in.Witness, err = txscript.WitnessSignature(tx, hashes, i, out.Value, subscript, txscript.SigHashAll, k.key, true)
		}
		if err != nil {
			return fmt.Errorf("sign input %d: %w", i, err)
		}
	}
	return nil
}
