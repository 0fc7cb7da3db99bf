package pktcloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
)

// ID names a record: the SHA-256 digest of its body's encoding. Its text form
// is the CIDv1 (dag-cbor, sha2-256) in base32, "bafyrei…"; in an encoding it
// is a link, tag 42 [ENC-6]. IDs compare with ==. The zero ID names nothing.
type ID [sha256.Size]byte

var (
	// cidPrefix is version 1, codec dag-cbor, hash sha2-256, 32 bytes.
	cidPrefix = []byte{0x01, 0x71, 0x12, 0x20}
	// linkPrefix is tag 42 over a 37-byte string: a zero byte and the CID.
	linkPrefix = append([]byte{0xd8, 0x2a, 0x58, 0x25, 0x00}, cidPrefix...)
	base32Text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// idText is the length of an ID's text: "b" and 36 bytes in base32.
const idText = 1 + 58

// IDOf returns the id of a body's encoding.
func IDOf(body []byte) ID { return sha256.Sum256(body) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the CIDv1 text form.
func (id ID) String() string {
	return "b" + base32Text.EncodeToString(append(bytes.Clone(cidPrefix), id[:]...))
}

// Hex returns the digest in hexadecimal, for file names and short labels.
func (id ID) Hex() string { return hex.EncodeToString(id[:]) }

// ParseID reads the CIDv1 text form. Errors match [ErrID].
func ParseID(s string) (ID, error) {
	if len(s) != idText || s[0] != 'b' {
		return ID{}, fmt.Errorf("%w: want %d characters that begin with \"bafyrei\"", ErrID, idText)
	}
	raw, err := base32Text.DecodeString(s[1:])
	if err != nil || !bytes.HasPrefix(raw, cidPrefix) {
		return ID{}, fmt.Errorf("%w: no dag-cbor sha2-256 CIDv1", ErrID)
	}
	id := ID(raw[len(cidPrefix):])
	if id.String() != s {
		return ID{}, fmt.Errorf("%w: not the canonical spelling", ErrID)
	}
	return id, nil
}

// MarshalText returns the CIDv1 text form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the CIDv1 text form. Errors match [ErrID].
func (id *ID) UnmarshalText(text []byte) error {
	v, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

// MarshalCBOR returns the link form.
func (id ID) MarshalCBOR() ([]byte, error) {
	return append(bytes.Clone(linkPrefix), id[:]...), nil
}

// UnmarshalCBOR reads the link form. Errors match [ErrID].
func (id *ID) UnmarshalCBOR(data []byte) error {
	if len(data) != len(linkPrefix)+len(id) || !bytes.HasPrefix(data, linkPrefix) {
		return fmt.Errorf("%w: no dag-cbor sha2-256 link", ErrID)
	}
	copy(id[:], data[len(linkPrefix):])
	return nil
}
