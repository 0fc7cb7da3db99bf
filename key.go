package pktcloud

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

// PublicKey is an Ed25519 public key. Its text form is the multibase part of
// its did:key, "z6Mk…" [ID-2]. Keys compare with ==.
type PublicKey [ed25519.PublicKeySize]byte

// Signature is an Ed25519 signature.
type Signature [ed25519.SignatureSize]byte

// PrivateKey signs as one [PublicKey]. It never appears in a record, in text
// or in a log. The zero value is not usable.
type PrivateKey struct {
	key ed25519.PrivateKey
}

// NewPrivateKey returns the key of a 32-byte seed.
func NewPrivateKey(seed [ed25519.SeedSize]byte) PrivateKey {
	return PrivateKey{key: ed25519.NewKeyFromSeed(seed[:])}
}

// Public returns the public half.
func (k PrivateKey) Public() PublicKey { return PublicKey(k.key.Public().(ed25519.PublicKey)) }

// Seed returns the secret from which [NewPrivateKey] makes the key again.
func (k PrivateKey) Seed() [ed25519.SeedSize]byte { return [ed25519.SeedSize]byte(k.key.Seed()) }

// IsZero reports whether the key is missing.
func (k PrivateKey) IsZero() bool { return k.key == nil }

// String keeps the secret out of logs.
func (k PrivateKey) String() string { return "private key" }

// GoString keeps the secret out of %#v.
func (k PrivateKey) GoString() string { return k.String() }

// Format keeps the secret out of every other verb, such as %d.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// signingDomain opens every signed message [ID-1].
const signingDomain = "pktcloud/v1/"

// signingInput returns what is signed [ID-1]:
//
//	"pktcloud/v1/" || type || 0x00 || sha256(body)
func signingInput(recordType string, body []byte) []byte {
	digest := sha256.Sum256(body)
	in := make([]byte, 0, len(signingDomain)+len(recordType)+1+len(digest))
	in = append(in, signingDomain...)
	in = append(in, recordType...)
	in = append(in, 0)
	return append(in, digest[:]...)
}

// Sign signs the encoding of a record's body as a record of the given type [ID-1].
func Sign(key PrivateKey, recordType string, body []byte) Signature {
	return Signature(ed25519.Sign(key.key, signingInput(recordType, body)))
}

// Verify checks a signature over the encoding of a record's body: the key is
// acceptable, S is below the group order, and the cofactorless equation holds
// [ID-3] [ID-4]. Errors match [ErrKey] or [ErrSignature].
func Verify(key PublicKey, recordType string, body []byte, sig Signature) error {
	if err := key.Validate(); err != nil {
		return err
	}
	if !ed25519.Verify(key[:], signingInput(recordType, body), sig[:]) {
		return fmt.Errorf("%w: record type %q, key %s", ErrSignature, recordType, key)
	}
	return nil
}

// smallOrder lists the y coordinates of the points of small order, sign bit
// cleared. A signature under such a key means nothing: the key 01 00… verifies
// any message.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
}

// Validate refuses keys of small order and keys whose y coordinate is not
// reduced [ID-3]. It does not decompress the point: Verify does. Errors match
// [ErrKey].
func (k PublicKey) Validate() error {
	y := k
	y[31] &= 0x7f
	if slices.Contains(smallOrder, hex.EncodeToString(y[:])) {
		return fmt.Errorf("%w: a point of small order", ErrKey)
	}
	// p = 2^255 - 19: y is at least p only if all upper bytes are full.
	if y[31] == 0x7f && y[0] >= 0xed && allFull(y[1:31]) {
		return fmt.Errorf("%w: a coordinate that is not reduced", ErrKey)
	}
	return nil
}

func allFull(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0xff })
}

// IsZero reports whether the key is missing.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// keyCodec is the multicodec of an Ed25519 public key.
var keyCodec = []byte{0xed, 0x01}

// String returns the multibase base58btc form, "z6Mk…".
func (k PublicKey) String() string {
	return "z" + base58Encode(append(slices.Clone(keyCodec), k[:]...))
}

// DID returns the key as a did:key.
func (k PublicKey) DID() string { return "did:key:" + k.String() }

// peerPrefix is what libp2p puts before an Ed25519 key in a peer id: an identity
// multihash of 36 bytes, holding a protobuf of key type 1 and 32 bytes.
var peerPrefix = []byte{0x24, 0x08, 0x01, 0x12, 0x20}

// PeerID returns the text of the libp2p peer id that has this key,
// "12D3KooW…" [ID-2].
func (k PublicKey) PeerID() string {
	return "1" + base58Encode(append(slices.Clone(peerPrefix), k[:]...)) // "1" is the multihash's code 0x00
}

// keyText is the length of a key's text form.
const keyText = 48

// ParsePublicKey reads "z6Mk…", with or without "did:key:" before it, and
// refuses weak keys [ID-3]. Errors match [ErrKey].
func ParsePublicKey(s string) (PublicKey, error) {
	s = strings.TrimPrefix(s, "did:key:")
	if len(s) != keyText || !strings.HasPrefix(s, "z6Mk") {
		return PublicKey{}, fmt.Errorf("%w: want %d characters that begin with \"z6Mk\"", ErrKey, keyText)
	}
	raw, ok := base58Decode(s[1:])
	if !ok || len(raw) != len(keyCodec)+ed25519.PublicKeySize || !slices.Equal(raw[:2], keyCodec) {
		return PublicKey{}, fmt.Errorf("%w: not an Ed25519 did:key", ErrKey)
	}
	k := PublicKey(raw[2:])
	if err := k.Validate(); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

// MarshalText returns the multibase form.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes. Errors match [ErrKey].
func (k *PublicKey) UnmarshalText(text []byte) error {
	v, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*k = v
	return nil
}

// MarshalText returns the signature in hexadecimal.
func (s Signature) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(s[:])), nil }

// UnmarshalText reads what MarshalText writes. Errors match [ErrSignature].
func (s *Signature) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(s) {
		return fmt.Errorf("%w: want %d bytes in hexadecimal", ErrSignature, len(s))
	}
	copy(s[:], raw)
	return nil
}

const base58Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// base58Encode serves inputs that begin with a non-zero byte, as keyCodec does.
func base58Encode(b []byte) string {
	n, radix, mod := new(big.Int).SetBytes(b), big.NewInt(58), new(big.Int)
	var out []byte
	for n.Sign() > 0 {
		n.DivMod(n, radix, mod)
		out = append(out, base58Alphabet[mod.Int64()])
	}
	slices.Reverse(out)
	return string(out)
}

func base58Decode(s string) ([]byte, bool) {
	n, radix := new(big.Int), big.NewInt(58)
	for i := range len(s) {
		digit := strings.IndexByte(base58Alphabet, s[i])
		if digit < 0 {
			return nil, false
		}
		n.Mul(n, radix).Add(n, big.NewInt(int64(digit)))
	}
	return n.Bytes(), true
}
