package pktchain

import (
	"bytes"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// sighash is BIP 143's digest of a channel's spending transaction.
func (c Channel) sighash(tx *wire.MsgTx, kind txscript.SigHashType) ([]byte, error) {
	fetch := txscript.NewCannedPrevOutputFetcher(c.pkScript, int64(c.Params.Capacity))
	digest, err := txscript.CalcWitnessSigHash(c.script, txscript.NewTxSigHashes(tx, fetch), kind, tx, 0, int64(c.Params.Capacity))
	if err != nil {
		return nil, settle.Refuse(settle.ErrProof, "signature digest: %w", err)
	}
	return digest, nil
}

// sign returns DER with low S and the type byte. RFC 6979 makes it the same
// each time.
func (c Channel) sign(tx *wire.MsgTx, kind txscript.SigHashType, key *btcec.PrivateKey) ([]byte, error) {
	digest, err := c.sighash(tx, kind)
	if err != nil {
		return nil, err
	}
	return append(ecdsa.Sign(key, digest).Serialize(), byte(kind)), nil
}

// verify checks the spender's signature of a spending transaction.
func (c Channel) verify(tx *wire.MsgTx, kind txscript.SigHashType, sig []byte) error {
	if len(sig) == 0 || sig[len(sig)-1] != byte(kind) {
		return settle.Refuse(settle.ErrProof, "signature type, want %#x", byte(kind))
	}
	digest, err := c.sighash(tx, kind)
	if err != nil {
		return err
	}
	return verifyDER(digest, c.spender, sig[:len(sig)-1])
}

// verifyDER accepts strict DER with low S only [SETTLE-48].
func verifyDER(digest []byte, key *btcec.PublicKey, der []byte) error {
	sig, err := ecdsa.ParseDERSignature(der)
	if err != nil {
		return settle.Refuse(settle.ErrProof, "signature: %w", err)
	}
	if !bytes.Equal(sig.Serialize(), der) {
		return settle.Refuse(settle.ErrProof, "a signature with a high S")
	}
	if !sig.Verify(digest, key) {
		return settle.Refuse(settle.ErrProof, "the signature does not verify")
	}
	return nil
}

// execute runs the scripts of a finished spending transaction under the rules
// of standard relay, so that nothing leaves that the network would refuse.
func (c Channel) execute(tx *wire.MsgTx) error {
	fetch := txscript.NewCannedPrevOutputFetcher(c.pkScript, int64(c.Params.Capacity))
	return runScript(tx, 0, c.pkScript, c.Params.Capacity, fetch)
}

func runScript(tx *wire.MsgTx, index int, script []byte, amount pktcloud.Amount, fetch txscript.PrevOutputFetcher) error {
	vm, err := txscript.NewEngine(script, tx, index, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetch), int64(amount), fetch)
	if err != nil {
		return settle.Refuse(settle.ErrProof, "input %d: %w", index, err)
	}
	if err := vm.Execute(); err != nil {
		return settle.Refuse(settle.ErrProof, "input %d: %w", index, err)
	}
	return nil
}

// encodeTx returns a transaction's bytes with witnesses.
func encodeTx(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	b.Grow(tx.SerializeSize())
	_ = tx.Serialize(&b) // a bytes.Buffer does not fail
	return b.Bytes()
}

// decodeTx reads a whole transaction and refuses other spellings of it.
func decodeTx(raw []byte) (*wire.MsgTx, error) {
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "transaction: %w", err)
	}
	if !bytes.Equal(encodeTx(tx), raw) {
		return nil, settle.Refuse(settle.ErrMalformed, "a transaction in an unusual spelling")
	}
	return tx, nil
}

// vsize is a transaction's size in virtual bytes, rounded up.
func vsize(tx *wire.MsgTx) uint64 {
	return uint64(3*tx.SerializeSizeStripped()+tx.SerializeSize()+3) / 4
}
