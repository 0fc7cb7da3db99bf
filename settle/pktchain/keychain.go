package pktchain

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// purpose is the first step of channel key paths [SETTLE-60]:
//
//	m / 390' / coin' / role' / index'
//
// It lies outside BIP 84, and every step is hardened: an account's extended
// public key and one leaked channel key reveal nothing.
const purpose = 390

// Roles of channel keys: the third step of their paths.
const (
	roleSpender = iota
	roleRefund
	rolePayee
	roleSeal
	roleMoney
	roles
)

// MaxIndex is the last index of a channel key.
const MaxIndex = hdkeychain.HardenedKeyStart - 1

// Keychain holds the channel keys of one phrase on one network. It is safe for
// concurrent use. Its keys never leave it: it signs.
type Keychain struct {
	network Network
	roles   [roles]*hdkeychain.ExtendedKey
	seal    []byte // key of sealed notes
	nonce   []byte // key of their nonces
}

// NewKeychain derives the channel keys of a BIP 39 seed (64 bytes).
func NewKeychain(n Network, seed []byte) (*Keychain, error) {
	// Only version bytes come from the parameters, and they are not used.
	node, err := hdkeychain.NewMaster(seed, &chaincfg.MainNetParams)
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "seed: %w", err)
	}
	for _, step := range []uint32{purpose, n.CoinType} {
		if node, err = node.Derive(hdkeychain.HardenedKeyStart + step); err != nil {
			return nil, settle.Refuse(settle.ErrMalformed, "derive: %w", err)
		}
	}
	k := &Keychain{network: n}
	for role := range k.roles {
		if k.roles[role], err = node.Derive(hdkeychain.HardenedKeyStart + uint32(role)); err != nil {
			return nil, settle.Refuse(settle.ErrMalformed, "derive: %w", err)
		}
	}
	secret, err := k.key(roleSeal, 0)
	if err != nil {
		return nil, err
	}
	k.seal = label(secret.Serialize(), "pktcloud/v1/channel-note")
	k.nonce = label(secret.Serialize(), "pktcloud/v1/channel-note-nonce")
	return k, nil
}

// label is HMAC-SHA256 of a label under a secret.
func label(secret []byte, text string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// Network returns the keychain's network.
func (k *Keychain) Network() Network { return k.network }

// String keeps the secrets out of logs.
func (k *Keychain) String() string { return "keychain of " + k.network.Rail }

// GoString keeps the secrets out of %#v.
func (k *Keychain) GoString() string { return k.String() }

func (k *Keychain) key(role, index uint32) (*btcec.PrivateKey, error) {
	if index > MaxIndex {
		return nil, settle.Refuse(settle.ErrMalformed, "key index %d", index)
	}
	child, err := k.roles[role].Derive(hdkeychain.HardenedKeyStart + index)
	if errors.Is(err, hdkeychain.ErrInvalidChild) {
		return nil, settle.Refuse(settle.ErrMalformed, "key %d does not exist; use the next index: %w", index, err)
	}
	if err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "derive: %w", err)
	}
	return child.ECPrivKey()
}

func (k *Keychain) public(role, index uint32) ([]byte, error) {
	key, err := k.key(role, index)
	if err != nil {
		return nil, err
	}
	return key.PubKey().SerializeCompressed(), nil
}

// SpenderKey returns the public key that signs vouchers of the payer's channel
// with this index.
func (k *Keychain) SpenderKey(index uint32) ([]byte, error) { return k.public(roleSpender, index) }

// RefundKey returns the public key that takes the refund of the payer's
// channel with this index.
func (k *Keychain) RefundKey(index uint32) ([]byte, error) { return k.public(roleRefund, index) }

// PayeeKey returns the public key of the payee's half of a channel.
func (k *Keychain) PayeeKey(index uint32) ([]byte, error) { return k.public(rolePayee, index) }

// Signer signs as the payer of a channel, with the spender's key of this index.
// Errors match [settle.ErrParams] when the channel has another spender.
func (k *Keychain) Signer(c Channel, index uint32) (*Signer, error) {
	key, err := k.key(roleSpender, index)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(c.Detail.Spender, key.PubKey().SerializeCompressed()) {
		return nil, settle.Refuse(settle.ErrParams, "the channel has another spender")
	}
	return &Signer{channel: c, key: key}, nil
}

// Signer signs vouchers and close offers of one channel. It is safe for
// concurrent use.
type Signer struct {
	channel Channel
	key     *btcec.PrivateKey
}

// SignVoucher returns the SIGHASH_SINGLE signature over the claim of total
// [SETTLE-49]. Signing the same again gives the same bytes. Errors match
// [settle.ErrCapacity].
func (s *Signer) SignVoucher(total pktcloud.Amount) ([]byte, error) {
	if err := s.channel.checkTotal(total); err != nil {
		return nil, err
	}
	return s.channel.sign(s.channel.claimTx(total, 0), voucherSig, s.key)
}

// SignClose returns the payer's signature of a cooperative close [SETTLE-50].
// Signing the same again gives the same bytes. Errors match [settle.ErrClose],
// [settle.ErrDust] or [settle.ErrFee].
func (s *Signer) SignClose(final, fee pktcloud.Amount) ([]byte, error) {
	tx, err := s.channel.closeTx(final, fee)
	if err != nil {
		return nil, err
	}
	return s.channel.sign(tx, wholeSig, s.key)
}

// Claim returns the payee's signed claim of a voucher, at a fee of its choice:
// the fee comes from the payee's part [SETTLE-49]. index is that of the payee's
// key. Errors match [settle.ErrFee], [settle.ErrDust], [settle.ErrCapacity] or
// [settle.ErrProof].
func (k *Keychain) Claim(c Channel, index uint32, v settle.Voucher, fee pktcloud.Amount) ([]byte, error) {
	if err := c.checkTotal(v.Total); err != nil {
		return nil, err
	}
	if err := c.checkClaimFee(v.Total, fee); err != nil {
		return nil, err
	}
	return k.countersign(c, index, c.claimTx(v.Total, fee), v.Proof)
}

// CompleteClose returns the cooperative close with both signatures
// [SETTLE-50]. Errors match [settle.ErrFee], [settle.ErrDust],
// [settle.ErrClose] or [settle.ErrProof].
func (k *Keychain) CompleteClose(c Channel, index uint32, o settle.CloseOffer) ([]byte, error) {
	tx, err := c.closeTx(o.Final, o.Fee)
	if err != nil {
		return nil, err
	}
	return k.countersign(c, index, tx, o.Signature)
}

func (k *Keychain) countersign(c Channel, index uint32, tx *wire.MsgTx, spender []byte) ([]byte, error) {
	key, err := k.key(rolePayee, index)
	if err != nil {
		return nil, err
	}
	sig, err := c.sign(tx, wholeSig, key)
	if err != nil {
		return nil, err
	}
	tx.TxIn[0].Witness = c.twoOfTwoWitness(sig, spender)
	if err := c.execute(tx); err != nil {
		return nil, err
	}
	return encodeTx(tx), nil
}

// SignRefund returns this phrase's signature of the refund at a fee, one of
// those that [Channel.Refund] needs. Errors match [settle.ErrFee].
func (k *Keychain) SignRefund(c Channel, index uint32, fee pktcloud.Amount) ([]byte, error) {
	tx, err := c.refundTx(fee)
	if err != nil {
		return nil, err
	}
	key, err := k.key(roleRefund, index)
	if err != nil {
		return nil, err
	}
	return c.sign(tx, wholeSig, key)
}

// Refund returns the refund with its signatures, in the order of the refund
// keys. Errors match [settle.ErrFee] or [settle.ErrProof].
func (c Channel) Refund(fee pktcloud.Amount, sigs [][]byte) ([]byte, error) {
	tx, err := c.refundTx(fee)
	if err != nil {
		return nil, err
	}
	tx.TxIn[0].Witness = c.refundWitness(sigs)
	if err := c.execute(tx); err != nil {
		return nil, err
	}
	return encodeTx(tx), nil
}

// RefundLadder returns refunds by this phrase's key alone, one for each fee.
// Errors match [settle.ErrFee] or [settle.ErrProof].
func (k *Keychain) RefundLadder(c Channel, index uint32, fees []pktcloud.Amount) ([][]byte, error) {
	ladder := make([][]byte, 0, len(fees))
	for _, fee := range fees {
		sig, err := k.SignRefund(c, index, fee)
		if err != nil {
			return nil, err
		}
		raw, err := c.Refund(fee, [][]byte{sig})
		if err != nil {
			return nil, err
		}
		ladder = append(ladder, raw)
	}
	return ladder, nil
}
