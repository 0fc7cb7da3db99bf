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
	key, err := parseKey(m.Key)
	if err != nil {
		return err
	}
	return verifyDER(moneyDigest(m.Rail, identity), key, m.Proof)
}

// moneyDigest is what a money key signs [SETTLE-61]: the hash of what [ID-6]
// has every rail's key sign.
func moneyDigest(rail string, identity pktcloud.PublicKey) []byte {
	digest := sha256.Sum256(pktcloud.MoneyProofInput(identity, rail))
	return digest[:]
}
