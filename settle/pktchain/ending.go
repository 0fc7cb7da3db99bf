package pktchain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// EndKind is a kind of transaction that ends a channel and may be kept by a
// third party until its lock time.
type EndKind uint8

// The kinds. Their numbers are stored.
const (
	EndLate   EndKind = 1 // the payee's late claim
	EndRefund EndKind = 2 // the payer's refund
)

// String returns "late claim" or "refund".
func (k EndKind) String() string {
	switch k {
	case EndLate:
		return "late claim"
	case EndRefund:
		return "refund"
	}
	return "unknown end"
}

// MaxEndingBytes bounds a transaction that ends a channel: one input with the
// longest witness, and two outputs.
const MaxEndingBytes = 1 << 10

// Ending is a signed late claim or refund as one reads it who has no more of
// the channel than these bytes: a tower. It holds nothing but what the chain
// will demand, in its one spelling, so that a transaction can carry nothing
// else [SETTLE-86].
type Ending struct {
	Kind       EndKind
	TxID       [32]byte
	Funding    settle.Outpoint
	LockHeight uint64
	Expiry     uint64
	ToPayer    pktcloud.Amount // a late claim's output 0, a refund's only one
	ToPayee    pktcloud.Amount
	VBytes     uint64

	raw    []byte
	tx     *wire.MsgTx
	script []byte
	payee  []byte
	refund RefundKeys
}

// ReadEnding reads a late claim or a refund and judges its shape [SETTLE-86].
// Whether its signatures hold shows [Ending.Verify]. Errors match
// [settle.ErrMalformed].
func ReadEnding(n Network, raw []byte) (Ending, error) {
	if len(raw) > MaxEndingBytes {
		return Ending{}, settle.Refuse(settle.ErrMalformed, "a transaction of %d bytes, at most %d", len(raw), MaxEndingBytes)
	}
	tx, err := decodeTx(raw)
	if err != nil {
		return Ending{}, err
	}
	if tx.Version != txVersion || len(tx.TxIn) != 1 || tx.TxIn[0].Sequence != endSequence || len(tx.TxIn[0].SignatureScript) > 0 || len(tx.TxIn[0].Witness) < 3 {
		return Ending{}, settle.Refuse(settle.ErrMalformed, "not a transaction that ends a channel")
	}
	in := tx.TxIn[0]
	e := Ending{
		TxID: tx.TxHash(), Funding: settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index},
		LockHeight: uint64(tx.LockTime), VBytes: vsize(tx), raw: bytes.Clone(raw), tx: tx, script: in.Witness[len(in.Witness)-1],
	}
	if e.payee, e.Expiry, e.refund, err = readScript(e.script); err != nil {
		return Ending{}, err
	}
	if err := e.classify(n); err != nil {
		return Ending{}, err
	}
	return e, nil
}

// classify tells the kinds apart by their witness and judges lock and outputs.
func (e *Ending) classify(n Network) error {
	w := e.tx.TxIn[0].Witness
	outputs := 1
	switch {
	case len(w) == 5 && len(w[0]) == 0 && bytes.Equal(w[3], []byte{1}):
		e.Kind, outputs = EndLate, 2
		if e.LockHeight == 0 || e.LockHeight >= e.Expiry {
			return settle.Refuse(settle.ErrMalformed, "a late claim with lock time %d and expiry %d", e.LockHeight, e.Expiry)
		}
	case len(w[len(w)-2]) == 0:
		e.Kind = EndRefund
		if e.LockHeight != e.Expiry {
			return settle.Refuse(settle.ErrMalformed, "a refund with lock time %d and expiry %d", e.LockHeight, e.Expiry)
		}
	default:
		return settle.Refuse(settle.ErrMalformed, "neither a late claim nor a refund")
	}
	if len(e.tx.TxOut) != outputs {
		return settle.Refuse(settle.ErrMalformed, "a %s with %d outputs, want %d", e.Kind, len(e.tx.TxOut), outputs)
	}
	amounts := make([]pktcloud.Amount, 2)
	for i, out := range e.tx.TxOut {
		if !Payable(out.PkScript) || out.Value < 0 || pktcloud.Amount(out.Value) > pktcloud.MaxAmount || pktcloud.Amount(out.Value) < n.Dust(out.PkScript) {
			return settle.Refuse(settle.ErrMalformed, "output %d is not one that nodes relay", i)
		}
		amounts[i] = pktcloud.Amount(out.Value)
	}
	e.ToPayer, e.ToPayee = amounts[0], amounts[1]
	return nil
}

// Raw returns the transaction's bytes.
func (e Ending) Raw() []byte { return bytes.Clone(e.raw) }

// Kept returns the ending for who keeps many, once it was judged: with raw, its
// bytes, and without what only the judgement needs. SameAs, Verify and
// VerifyClient are not for it.
func (e Ending) Kept(raw []byte) Ending {
	e.raw, e.tx, e.script, e.payee, e.refund = raw, nil, nil, nil, RefundKeys{}
	return e
}

// SameAs reports whether another ending differs from this one in nothing but
// the fee: same channel and lock, same scripts, same amount to the payer of a
// late claim.
func (e Ending) SameAs(o Ending) bool {
	same := e.Kind == o.Kind && e.Funding == o.Funding && e.LockHeight == o.LockHeight && bytes.Equal(e.script, o.script) &&
		slices.EqualFunc(e.tx.TxOut, o.tx.TxOut, func(a, b *wire.TxOut) bool { return bytes.Equal(a.PkScript, b.PkScript) })
	return same && (e.Kind == EndRefund || e.ToPayer == o.ToPayer)
}

// Verify checks the transaction against the output that it spends, as the
// chain has it: script, signatures, amounts. It returns the level that the
// transaction pays. Errors match [settle.ErrFunding], [settle.ErrProof] or
// [settle.ErrFee].
func (e Ending) Verify(n Network, funding settle.Output) (Level, error) {
	if !bytes.Equal(funding.Script, witnessScriptHash(e.script)) {
		return Level{}, settle.Refuse(settle.ErrFunding, "the output that it spends has another script")
	}
	fetch := txscript.NewCannedPrevOutputFetcher(funding.Script, int64(funding.Amount))
	if err := runScript(e.tx, 0, funding.Script, funding.Amount, fetch); err != nil {
		return Level{}, err
	}
	out, err := e.ToPayer.Add(e.ToPayee)
	if err != nil || out > funding.Amount {
		return Level{}, settle.Refuse(settle.ErrFunding, "the transaction pays more than the output has")
	}
	l := Level{Fee: funding.Amount - out, VBytes: e.VBytes}
	if floor := Fee(e.VBytes, n.RelayFloor); l.Fee < floor {
		return Level{}, settle.Refuse(settle.ErrFee, "a fee of %d units; nodes relay from %d", uint64(l.Fee), uint64(floor))
	}
	return l, nil
}

// readScript reads a funding script, in the one spelling of [FundingScript].
func readScript(script []byte) (payee []byte, expiry uint64, refund RefundKeys, err error) {
	var keys [][]byte
	var numbers []uint64
	t := txscript.MakeScriptTokenizer(0, script)
	for t.Next() {
		switch op, data := t.Opcode(), t.Data(); {
		case len(data) == 33:
			keys = append(keys, bytes.Clone(data))
		case len(data) > 0 && len(data) <= 5:
			num, err := txscript.MakeScriptNum(data, true, 5)
			if err != nil || num < 0 {
				return nil, 0, RefundKeys{}, settle.Refuse(settle.ErrMalformed, "a number of the funding script")
			}
			numbers = append(numbers, uint64(num))
		case txscript.IsSmallInt(op):
			numbers = append(numbers, uint64(txscript.AsSmallInt(op)))
		}
	}
	if t.Err() != nil || len(keys) < 3 || len(keys)-2 > MaxRefundKeys || len(numbers) < 3 {
		return nil, 0, RefundKeys{}, settle.Refuse(settle.ErrMalformed, "not a channel's funding script")
	}
	refund = RefundKeys{Required: 1, Keys: keys[2:]}
	if len(refund.Keys) > 1 && len(numbers) > 3 {
		refund.Required = numbers[3]
	}
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return nil, 0, RefundKeys{}, err
		}
	}
	if err := refund.validate(); err != nil {
		return nil, 0, RefundKeys{}, err
	}
	again, err := FundingScript(keys[0], keys[1], numbers[2], refund)
	if err != nil || !bytes.Equal(again, script) {
		return nil, 0, RefundKeys{}, settle.Refuse(settle.ErrMalformed, "not a channel's funding script")
	}
	return keys[0], numbers[2], refund, nil
}

// clientDigest is what the owner of an ending signs to name the key that may
// deposit it [SETTLE-87]:
//
//	SHA-256("pktcloud/v1/tower-client" || 0x00 || client (32) || txid (32) || index (4, big-endian))
//
// of the funding output.
func clientDigest(client pktcloud.PublicKey, funding settle.Outpoint) []byte {
	b := append([]byte("pktcloud/v1/tower-client"), 0)
	b = append(b, client[:]...)
	b = append(b, funding.TxID[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(b, funding.Index))
	return sum[:]
}

// VerifyClient checks that the owner of the ending lets client deposit it: the
// payee's key signed for a late claim, any one of the refund keys for a
// refund [SETTLE-87]. Errors match [settle.ErrProof].
func (e Ending) VerifyClient(client pktcloud.PublicKey, proof []byte) error {
	keys := e.refund.Keys
	if e.Kind == EndLate {
		keys = [][]byte{e.payee}
	}
	err := settle.Refuse(settle.ErrProof, "no owner's key")
	for _, k := range keys {
		key, bad := parseKey(k)
		if bad != nil {
			err = settle.Refuse(settle.ErrProof, "the owner's key: %w", bad)
			continue
		}
		if err = verifyDER(clientDigest(client, e.Funding), key, proof); err == nil {
			return nil
		}
	}
	return err
}

// SignClient returns the signature by which the owner of a channel's end lets
// client deposit it: the payee's key with this index for a late claim, the
// refund key for a refund [SETTLE-87].
func (k *Keychain) SignClient(c Channel, kind EndKind, index uint32, client pktcloud.PublicKey) ([]byte, error) {
	role := uint32(rolePayee)
	if kind == EndRefund {
		role = roleRefund
	}
	key, err := k.key(role, index)
	if err != nil {
		return nil, err
	}
	return ecdsa.Sign(key, clientDigest(client, c.Detail.Funding)).Serialize(), nil
}

// TowerKey returns the phrase's key for its deposits at towers [SETTLE-88]. It
// is neither identity nor device: the phrase alone asks for its deposits again,
// and towers learn nothing else from it.
func (k *Keychain) TowerKey() (pktcloud.PrivateKey, error) {
	secret, err := k.key(roleSeal, 0)
	if err != nil {
		return pktcloud.PrivateKey{}, err
	}
	return pktcloud.NewPrivateKey([32]byte(label(secret.Serialize(), "pktcloud/v1/tower-client-key"))), nil
}
