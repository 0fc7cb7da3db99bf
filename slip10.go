package pktcloud

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
)

// Paths of the Ed25519 keys of a seed [ID-8]; every step is hardened.
var (
	identityPath = []uint32{44, 390, 0, 0}
	backupPath   = []uint32{44, 390, 1, 0}
)

// IdentityKey derives the identity of a BIP39 seed: SLIP-0010 path
// m/44'/390'/0'/0' [ID-8].
func IdentityKey(seed []byte) PrivateKey { return NewPrivateKey(DeriveEd25519(seed, identityPath)) }

// BackupKey derives the root of the backup keys of a BIP39 seed: SLIP-0010
// path m/44'/390'/1'/0' [ID-8].
func BackupKey(seed []byte) [32]byte { return DeriveEd25519(seed, backupPath) }

// DeriveEd25519 is SLIP-0010 for Ed25519: every index of path is hardened, so
// give it without the hardening bit.
func DeriveEd25519(seed []byte, path []uint32) [32]byte {
	node := hmac512([]byte("ed25519 seed"), seed)
	for _, index := range path {
		data := make([]byte, 0, 37)
		data = append(data, 0)
		data = append(data, node[:32]...)
		data = binary.BigEndian.AppendUint32(data, index|1<<31)
		node = hmac512(node[32:], data)
	}
	return [32]byte(node[:32])
}

func hmac512(key, data []byte) []byte {
	mac := hmac.New(sha512.New, key)
	mac.Write(data)
	return mac.Sum(nil)
}
