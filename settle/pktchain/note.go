package pktchain

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Note is what the funding transaction says to the payer's own phrase, sealed
// in an OP_RETURN output, so that the phrase and the chain together rebuild
// the scripts and the refunds [SETTLE-53].
type Note struct {
	Script byte   // version of the funding scripts
	Index  uint32 // of the first channel's keys; those of the others follow
	Expiry uint32
	Payee  [33]byte
	Count  byte // channels, 1 to MaxRun
}

// Sizes of a sealed note: of one channel, and of several.
const (
	noteBytes      = 1 + 4 + 4 + 33
	nonceBytes     = 12
	tagBytes       = 16
	SealedBytes    = nonceBytes + noteBytes + tagBytes // within the 80 that nodes relay
	SealedRunBytes = SealedBytes + 1
)

// sealNote encrypts a note [SETTLE-53] [SETTLE-58]:
//
//	plain  = script (1) || index (4, big-endian) || expiry (4, big-endian) || payee key (33) [ || count (1) ]
//	nonce  = HMAC-SHA256(nonce key, plain)[:12]
//	sealed = nonce (12) || AES-256-GCM(seal key, nonce, plain, aad = rail name) (42 or 43, + 16)
//
// The count is left out where it is 1. The nonce comes from the plain text, so
// that sealing needs no randomness and never uses one nonce for two texts.
func (k *Keychain) sealNote(n Note) ([]byte, error) {
	plain := append([]byte{n.Script}, binary.BigEndian.AppendUint32(nil, n.Index)...)
	plain = binary.BigEndian.AppendUint32(plain, n.Expiry)
	plain = append(plain, n.Payee[:]...)
	if n.Count > 1 {
		plain = append(plain, n.Count)
	}
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	nonce := k.nonceOf(plain)
	return aead.Seal(bytes.Clone(nonce), nonce, plain, []byte(k.network.Rail)), nil
}

func (k *Keychain) nonceOf(plain []byte) []byte {
	mac := hmac.New(sha256.New, k.nonce)
	mac.Write(plain)
	return mac.Sum(nil)[:nonceBytes]
}

func (k *Keychain) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.seal)
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "seal: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "seal: %w", err)
	}
	return aead, nil
}

// IsNote reports whether an output script is a note that this phrase sealed.
func (k *Keychain) IsNote(script []byte) bool {
	_, ok := k.open(script)
	return ok
}

// open decrypts the sealed note in an output script; false means that it is not
// this phrase's.
func (k *Keychain) open(script []byte) (Note, bool) {
	if n := len(script) - 2; n != SealedBytes && n != SealedRunBytes || script[0] != txscript.OP_RETURN || int(script[1]) != n {
		return Note{}, false
	}
	aead, err := k.aead()
	if err != nil {
		return Note{}, false
	}
	nonce, sealed := script[2:2+nonceBytes], script[2+nonceBytes:]
	plain, err := aead.Open(nil, nonce, sealed, []byte(k.network.Rail))
	if err != nil || !hmac.Equal(nonce, k.nonceOf(plain)) {
		return Note{}, false
	}
	n := Note{
		Script: plain[0],
		Index:  binary.BigEndian.Uint32(plain[1:5]),
		Expiry: binary.BigEndian.Uint32(plain[5:9]),
		Payee:  [33]byte(plain[9:noteBytes]),
		Count:  1,
	}
	if len(plain) > noteBytes {
		n.Count = plain[noteBytes]
	}
	return n, true
}

// Plan is a channel about to be funded, before its outpoint is known.
type Plan struct {
	Index    uint32 // of the payer's keys
	Payee    PayeeDetail
	Expiry   uint64
	Capacity pktcloud.Amount
	// Refund names other refund keys than the phrase's own. Empty means the
	// phrase's own.
	Refund      RefundKeys
	PayerScript []byte // where the payer's change and refund go
}

// refundOf returns the refund keys of a plan and the version of its script.
func (k *Keychain) refundOf(index uint32, other RefundKeys) (RefundKeys, byte, error) {
	if len(other.Keys) > 0 {
		return other, scriptMulti, other.validate()
	}
	own, err := k.RefundKey(index)
	return RefundKeys{Required: 1, Keys: [][]byte{own}}, scriptSingle, err
}

// FundingOutputs returns the outputs that a funding transaction begins with:
// those of its channels, in their order, and the sealed note [SETTLE-52]
// [SETTLE-53]. Nodes relay one note a transaction, so several channels are to
// one payee key with one expiry and one set of refund keys, and their indexes
// follow each other [SETTLE-58]. Errors match [settle.ErrParams] or
// [settle.ErrMalformed].
func (k *Keychain) FundingOutputs(plans ...Plan) ([]settle.Payment, error) {
	if len(plans) == 0 || len(plans) > MaxRun {
		return nil, settle.Refuse(settle.ErrParams, "%d channels in a funding transaction, 1 to %d", len(plans), MaxRun)
	}
	first := plans[0]
	_, version, err := k.refundOf(first.Index, first.Refund)
	if err != nil {
		return nil, err
	}
	var outputs []settle.Payment
	for i, p := range plans {
		if !bytes.Equal(p.Payee.Key, first.Payee.Key) || p.Expiry != first.Expiry || !p.Refund.equal(first.Refund) || p.Index != first.Index+uint32(i) {
			return nil, settle.Refuse(settle.ErrParams,
				"channels of one funding transaction go to one payee key, with one expiry and one refund: its note has room for no more")
		}
		script, err := k.planned(p)
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, settle.Payment{Script: witnessScriptHash(script), Amount: p.Capacity})
	}
	sealed, err := k.sealNote(Note{
		Script: version, Index: first.Index, Expiry: uint32(first.Expiry), Payee: [33]byte(first.Payee.Key), Count: byte(len(plans)),
	})
	if err != nil {
		return nil, err
	}
	note, err := txscript.NullDataScript(sealed)
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "sealed note: %w", err)
	}
	return append(outputs, settle.Payment{Script: note}), nil
}

// planned is the funding script of a plan.
func (k *Keychain) planned(p Plan) ([]byte, error) {
	if err := p.Payee.Validate(); err != nil {
		return nil, err
	}
	spender, err := k.SpenderKey(p.Index)
	if err != nil {
		return nil, err
	}
	refund, _, err := k.refundOf(p.Index, p.Refund)
	if err != nil {
		return nil, err
	}
	return FundingScript(p.Payee.Key, spender, p.Expiry, refund)
}

// DetailOf returns the detail of a planned channel once its funding
// transaction is known. Errors match [settle.ErrMalformed] or
// [settle.ErrFunding].
func (k *Keychain) DetailOf(p Plan, funding []byte) (Detail, error) {
	all, err := k.RestoreAll(funding, p.Refund)
	if err != nil {
		return Detail{}, err
	}
	for _, r := range all {
		if r.Index == p.Index && r.Expiry == p.Expiry && r.Capacity == p.Capacity && bytes.Equal(r.Detail.Payee, p.Payee.Key) {
			d := r.Detail
			d.PayerScript, d.PayeeScript = p.PayerScript, p.Payee.Script
			return d, d.Validate()
		}
	}
	return Detail{}, settle.Refuse(settle.ErrFunding, "the transaction funds another channel than the planned one")
}

// Restored is a channel of the payer found by its phrase alone.
type Restored struct {
	Index    uint32
	Expiry   uint64
	Capacity pktcloud.Amount
	Script   []byte
	// Detail lacks only the payer's and payee's scripts, which a refund does
	// not need: it may pay to any script of the wallet.
	Detail Detail
}

// Restore is [Keychain.RestoreAll] for a transaction that funds one channel.
// Errors match [settle.ErrFunding], also where there are several, or
// [settle.ErrMalformed].
func (k *Keychain) Restore(funding []byte, refund RefundKeys) (Restored, error) {
	all, err := k.RestoreAll(funding, refund)
	if err != nil {
		return Restored{}, err
	}
	if len(all) != 1 {
		return Restored{}, settle.Refuse(settle.ErrFunding, "the transaction funds %d channels", len(all))
	}
	return all[0], nil
}

// RestoreAll rebuilds the channels of a funding transaction, if it is one of
// this phrase's [SETTLE-54], in the order of their indexes. refund names the
// refund keys where they are not the phrase's own; else it is empty. Errors
// match [settle.ErrFunding] or [settle.ErrMalformed].
func (k *Keychain) RestoreAll(funding []byte, refund RefundKeys) ([]Restored, error) {
	tx, err := decodeTx(funding)
	if err != nil {
		return nil, err
	}
	for _, out := range tx.TxOut {
		if note, ok := k.open(out.PkScript); ok {
			return k.restoreNoted(tx, note, refund)
		}
	}
	return nil, settle.Refuse(settle.ErrFunding, "no note of this phrase")
}

// restoreNoted rebuilds the channels that a note names.
func (k *Keychain) restoreNoted(tx *wire.MsgTx, note Note, refund RefundKeys) ([]Restored, error) {
	var all []Restored
	for range note.Count {
		r, err := k.rebuild(note, refund)
		if err != nil {
			return nil, err
		}
		want := witnessScriptHash(r.Script)
		for i, o := range tx.TxOut {
			if o.Value > 0 && bytes.Equal(o.PkScript, want) {
				r.Detail.Funding = settle.Outpoint{TxID: tx.TxHash(), Index: uint32(i)}
				r.Capacity = pktcloud.Amount(o.Value)
				all = append(all, r)
				break
			}
		}
		note.Index++
	}
	if len(all) == 0 {
		return nil, settle.Refuse(settle.ErrFunding, "the sealed note fits no output; the refund keys may be others")
	}
	return all, nil
}

func (k *Keychain) rebuild(n Note, other RefundKeys) (Restored, error) {
	if n.Script == scriptSingle {
		other = RefundKeys{}
	}
	spender, err := k.SpenderKey(n.Index)
	if err != nil {
		return Restored{}, err
	}
	refund, version, err := k.refundOf(n.Index, other)
	if err != nil {
		return Restored{}, err
	}
	if version != n.Script {
		return Restored{}, settle.Refuse(settle.ErrFunding, "script version %d needs the refund keys that it was made with", n.Script)
	}
	script, err := FundingScript(n.Payee[:], spender, uint64(n.Expiry), refund)
	if err != nil {
		return Restored{}, err
	}
	d := Detail{Version: DetailVersion, Payee: bytes.Clone(n.Payee[:]), Spender: spender, Refund: refund}
	return Restored{Index: n.Index, Expiry: uint64(n.Expiry), Script: script, Detail: d}, nil
}

// Channel returns a channel that can only be refunded, to a script of the
// wallet: what a phrase needs to have its money back [SETTLE-54].
func (r Restored) Channel(n Network, payTo []byte) (Channel, error) {
	if !Payable(payTo) {
		return Channel{}, settle.Refuse(settle.ErrMalformed, "a script that nodes do not relay")
	}
	d := r.Detail
	d.PayerScript = payTo
	spender, err := parseKey(d.Spender)
	if err != nil {
		return Channel{}, err
	}
	p := settle.Params{Version: settle.ParamsVersion, Rail: n.Rail, Capacity: r.Capacity, ExpiryHeight: r.Expiry}
	return Channel{Network: n, Params: p, Detail: d, script: r.Script, pkScript: witnessScriptHash(r.Script), spender: spender}, nil
}
