package pktchain

import (
	"crypto/sha256"

	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// MoneyKey returns the phrase's money key with its proof that it belongs to an
// identity [SETTLE-61]. The identity's own signature over its Account record
// completes the bond.
func (k *Keychain) MoneyKey(identity pktcloud.PublicKey) (pktcloud.MoneyKey, error) {
	key, err := k.key(roleMoney, 0)
	if err != nil {
		return pktcloud.MoneyKey{}, err
	}
	digest := moneyDigest(k.network.Rail, identity)
	return pktcloud.MoneyKey{
		Rail: k.network.Rail, Key: key.PubKey().SerializeCompressed(), Proof: ecdsa.Sign(key, digest).Serialize(),
	}, nil
}

// VerifyMoneyKey checks that a money key signed the identity [SETTLE-61].
// Errors match [settle.ErrProof] or [settle.ErrMalformed].
func VerifyMoneyKey(m pktcloud.MoneyKey, identity pktcloud.PublicKey) error {
	if _, ok := NetworkOf(m.Rail); !ok {
		return settle.Refuse(settle.ErrMalformed, "a money key of the unknown rail %q", m.Rail)
	}
	if err := checkKey(m.Key); err != nil {
		return err
	}
	return verifyDER(moneyDigest(m.Rail, identity), m.Key, m.Proof)
}

// moneyDigest is what a money key signs [SETTLE-61]:
//
//	sha256("pktcloud/v1/money-key" || 0x00 || rail || 0x00 || identity (32))
func moneyDigest(rail string, identity pktcloud.PublicKey) []byte {
	h := sha256.New()
	h.Write([]byte("pktcloud/v1/money-key\x00" + rail + "\x00"))
	h.Write(identity[:])
	return h.Sum(nil)
}
