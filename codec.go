package pktcloud

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// MaxRecordBytes is the largest record that any protocol here accepts [ENC-4].
const MaxRecordBytes = 1 << 20

// modes holds the two halves of the strict subset of DAG-CBOR [ENC-1], built
// once. They hold no state between calls.
var modes = sync.OnceValues(func() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.EncOptions{
		Sort:          cbor.SortBytewiseLexical,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode()
	if err != nil {
		panic("pktcloud: encoder options: " + err.Error()) //nolint:forbidigo // constant options: a broken build
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   16,
		MaxArrayElements:  1 << 16,
		MaxMapPairs:       1 << 16,
	}.DecMode()
	if err != nil {
		panic("pktcloud: decoder options: " + err.Error()) //nolint:forbidigo // constant options: a broken build
	}
	return enc, dec
})

// Marshal returns the one encoding of v: the strict subset of DAG-CBOR of
// spec/encoding.md [ENC-1]. Struct fields carry `cbor:"name"` tags. It fails
// only for a type that the subset cannot express.
func Marshal(v any) ([]byte, error) {
	enc, _ := modes()
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	return b, nil
}

// Unmarshal decodes data into v, a pointer, and refuses anything but the one
// encoding that [Marshal] would give back: unknown or missing fields, unsorted
// or repeated keys, long integers, other tags, trailing bytes [ENC-2]. Longer
// input than maxBytes is refused unread. Errors match [ErrEncoding] or
// [ErrTooLarge]; v is then in no defined state.
func Unmarshal(data []byte, v any, maxBytes int) error {
	if len(data) > maxBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), maxBytes)
	}
	enc, dec := modes()
	if err := dec.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	again, err := enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("%w: not the shortest and sorted form", ErrEncoding)
	}
	return nil
}
