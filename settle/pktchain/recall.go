package pktchain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Recalled is a payee's channel as far as its own late claims and the chain show
// it: what a phrase that lost everything else gets back from a tower [SETTLE-110].
type Recalled struct {
	// Channel serves late claims and nothing else: its parameters lack the two
	// devices, and its reserve is zero.
	Channel Channel
	// Late is the payer's late proof. Its total holds the reserve too, which the
	// claims do not tell apart.
	Late settle.LateProof
	Fees []pktcloud.Amount // of the late claims, lowest first
	Top  Level             // the highest of them
}

// spenderAt is where a funding script has the spender's key: after OP_IF OP_2,
// the payee's key and two push bytes.
const spenderAt = 2 + 1 + 33 + 1

// Recall reads a deposit's late claims and verifies them against the funding
// output, as the chain has it, as a tower does. Errors match
// [settle.ErrMalformed], [settle.ErrRole] for refunds, [settle.ErrFunding],
// [settle.ErrProof] or [settle.ErrFee].
func Recall(n Network, txs [][]byte, funding settle.Output) (Recalled, error) {
	var r Recalled
	var first Ending
	for i, raw := range txs {
		e, err := ReadEnding(n, raw)
		if err != nil {
			return Recalled{}, err
		}
		if e.Kind != EndLate {
			return Recalled{}, settle.Refuse(settle.ErrRole, "a %s, which is the payer's", e.Kind)
		}
		level, err := e.Verify(n, funding)
		if err != nil {
			return Recalled{}, err
		}
		if i == 0 {
			first = e
		}
		if !e.SameAs(first) {
			return Recalled{}, settle.Refuse(settle.ErrMalformed, "late claims that differ in more than the fee")
		}
		if i > 0 && !level.Beats(r.Top, n) {
			return Recalled{}, settle.Refuse(settle.ErrFee, "late claim %d would not replace the one before", i)
		}
		r.Fees, r.Top = append(r.Fees, level.Fee), level
	}
	if len(txs) == 0 {
		return Recalled{}, settle.Refuse(settle.ErrMalformed, "no late claim")
	}
	spender, err := parseKey(first.script[spenderAt : spenderAt+33])
	if err != nil {
		return Recalled{}, err
	}
	r.Channel = Channel{
		Network: n, script: first.script, pkScript: witnessScriptHash(first.script), spender: spender,
		Params: settle.Params{
			Version: settle.ParamsVersion, Rail: n.Rail, Capacity: funding.Amount,
			ExpiryHeight: first.Expiry, MarginBlocks: first.Expiry - first.LockHeight,
		},
		Detail: Detail{
			Version: DetailVersion, Funding: first.Funding, Payee: first.payee, Spender: spender.SerializeCompressed(), Refund: first.refund,
			PayerScript: first.tx.TxOut[0].PkScript, PayeeScript: first.tx.TxOut[1].PkScript,
		},
	}
	r.Late = settle.LateProof{
		Version: settle.LateProofVersion, Total: funding.Amount - first.ToPayer, Signature: first.tx.TxIn[0].Witness[2],
	}
	return r, r.Channel.VerifyLate(r.Late.Total, r.Late.Signature)
}

// Fits judges parameters that the payer shows [SETTLE-119]: they must give the
// very late claims that the payee has. It returns the whole channel and its late
// proof. Errors match [settle.ErrParams], [settle.ErrMalformed],
// [settle.ErrCapacity] or [settle.ErrProof].
func (r Recalled) Fits(p settle.Params) (Channel, settle.LateProof, error) {
	c, err := ChannelOf(r.Channel.Network, p)
	if err != nil {
		return Channel{}, settle.LateProof{}, err
	}
	own := r.Channel
	same := p.Capacity == own.Params.Capacity && p.MarginBlocks == own.Params.MarginBlocks && c.Detail.Funding == own.Detail.Funding &&
		bytes.Equal(c.script, own.script) && bytes.Equal(c.Detail.PayerScript, own.Detail.PayerScript) && bytes.Equal(c.Detail.PayeeScript, own.Detail.PayeeScript)
	if !same || p.Reserve >= r.Late.Total {
		return Channel{}, settle.LateProof{}, settle.Refuse(settle.ErrParams, "the parameters are not those of the late claims that were deposited")
	}
	late := r.Late
	late.Total -= p.Reserve
	if late.Channel, err = p.ID(); err != nil {
		return Channel{}, settle.LateProof{}, err
	}
	return c, late, c.VerifyLate(late.Total, late.Signature)
}

// Funds checks that a transaction has the channel's funding output. Errors match
// [settle.ErrMalformed] or [settle.ErrFunding].
func (c Channel) Funds(raw []byte) error {
	if len(raw) > MaxFundingBytes {
		return settle.Refuse(settle.ErrFunding, "a funding transaction of %d bytes, at most %d", len(raw), MaxFundingBytes)
	}
	tx, err := decodeTx(raw)
	if err != nil {
		return err
	}
	if at := c.Detail.Funding; tx.TxHash() != at.TxID || uint64(at.Index) >= uint64(len(tx.TxOut)) {
		return settle.Refuse(settle.ErrFunding, "not the transaction that funds the channel")
	}
	return nil
}

// FindPayee returns the index below end of a payee's key of this phrase; false
// when there is none. It takes some 50 µs for each index.
func (k *Keychain) FindPayee(key []byte, end uint32) (index uint32, found bool) {
	for i := range end {
		if own, err := k.PayeeKey(i); err == nil && bytes.Equal(own, key) {
			return i, true
		}
	}
	return 0, false
}

// resumeDigest is what one side of a channel signs to be shown it by the other
// [SETTLE-116]:
//
//	SHA-256("pktcloud/v1/channel-resume" || 0x00 || device (32) || txid (32) || index (4, big-endian))
//
// of the funding output.
func resumeDigest(device pktcloud.PublicKey, funding settle.Outpoint) []byte {
	b := append([]byte("pktcloud/v1/channel-resume"), 0)
	b = append(b, device[:]...)
	b = append(b, funding.TxID[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(b, funding.Index))
	return sum[:]
}

// SignResume returns the signature by which this phrase, as a side of a channel,
// lets a device be shown it [SETTLE-116]: of the spender's key with this index as
// payer, of the payee's as payee.
func (k *Keychain) SignResume(role settle.Role, index uint32, device pktcloud.PublicKey, funding settle.Outpoint) ([]byte, error) {
	of := uint32(roleSpender)
	if role == settle.Payee {
		of = rolePayee
	}
	key, err := k.key(of, index)
	if err != nil {
		return nil, err
	}
	return ecdsa.Sign(key, resumeDigest(device, funding)).Serialize(), nil
}

// VerifyResume returns the side of the channel that let a device be shown it
// [SETTLE-116]. Errors match [settle.ErrProof].
func (c Channel) VerifyResume(device pktcloud.PublicKey, proof []byte) (settle.Role, error) {
	digest := resumeDigest(device, c.Detail.Funding)
	if verifyDER(digest, c.spender, proof) == nil {
		return settle.Payer, nil
	}
	payee, err := parseKey(c.Detail.Payee)
	if err != nil {
		return 0, err
	}
	return settle.Payee, verifyDER(digest, payee, proof)
}
