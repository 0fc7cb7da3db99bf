package settletest

import (
	"bytes"
	"crypto/sha256"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// testKey is a key drawn from a name, and its P2WPKH script.
type testKey struct {
	key    *btcec.PrivateKey
	script []byte
}

// key is a key of this run of the test.
func (f LedgerFixture) key(name string) testKey {
	seed := sha256.Sum256([]byte("settletest " + f.Salt + name))
	key, _ := btcec.PrivKeyFromBytes(seed[:])
	hash := address.Hash160(key.PubKey().SerializeCompressed())
	return testKey{key, append([]byte{txscript.OP_0, txscript.OP_DATA_20}, hash...)}
}

type testTx struct {
	raw  []byte
	txid [32]byte
}

type spendOptions struct {
	lockTime    uint32
	replaceable bool
	prevScript  []byte // sign as if the coin had this script
}

// spend pays a coin, less the fee, to a script.
func (k testKey) spend(coin settle.Coin, to []byte, fee pktcloud.Amount, o spendOptions) (testTx, error) {
	prevScript := coin.Script
	if o.prevScript != nil {
		prevScript = o.prevScript
	}
	tx := wire.NewMsgTx(2)
	tx.LockTime = o.lockTime
	in := wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Hash: coin.At.TxID, Index: coin.At.Index},
		Sequence:         wire.MaxTxInSequenceNum - 1, // a lock counts, a replacement is not signalled
	}
	if o.replaceable {
		in.Sequence = wire.MaxTxInSequenceNum - 2
	}
	tx.AddTxIn(&in)
	tx.AddTxOut(wire.NewTxOut(int64(coin.Amount-fee), to))
	prev := txscript.NewCannedPrevOutputFetcher(prevScript, int64(coin.Amount))
	witness, err := txscript.WitnessSignature(tx, txscript.NewTxSigHashes(tx, prev), 0, int64(coin.Amount), prevScript, txscript.SigHashAll, k.key, true)
	if err != nil {
		return testTx{}, err
	}
	tx.TxIn[0].Witness = witness
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		return testTx{}, err
	}
	return testTx{raw: b.Bytes(), txid: tx.TxHash()}, nil
}

// emptyTx decodes, and no chain accepts it: one input that exists nowhere and
// one output of nothing.
var emptyTx = func() []byte {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{})
	tx.AddTxOut(wire.NewTxOut(0, nil))
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		return nil // a buffer does not fail
	}
	return b.Bytes()
}()
