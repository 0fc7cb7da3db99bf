package pktcloud_test

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
)

var update = flag.Bool("update", false, "write the vectors anew")

const encodingVectors = "spec/vectors/encoding"

// sample is the sample record of spec/encoding.md: one field of each kind.
type sample struct {
	Version uint64            `cbor:"v"`
	Name    string            `cbor:"name"`
	Data    []byte            `cbor:"data"`
	Link    pktcloud.ID       `cbor:"link"`
	List    []uint64          `cbor:"list"`
	Delta   int64             `cbor:"delta"`
	Inner   inner             `cbor:"inner"`
	Ext     map[string][]byte `cbor:"ext"`
}

type inner struct {
	Amount pktcloud.Amount `cbor:"amount"`
	Yes    bool            `cbor:"yes"`
}

const maxSample = 512

func goodSample() sample {
	return sample{
		Version: 1, Name: "PKT ☁", Data: []byte{0, 255}, Link: pktcloud.IDOf([]byte("x")), List: []uint64{0, 23, 24, 255, 256, 1 << 40},
		Delta: -500, Inner: inner{Amount: pktcloud.UnitsPerPKT, Yes: true}, Ext: map[string][]byte{"b": {1}, "aa": {}},
	}
}

// fault makes a malformed sample by replacing bytes that stand once in the good
// one.
type fault struct{ name, old, new, about string }

var encodingFaults = []fault{
	{"int-non-minimal", "\x61v\x01", "\x61v\x18\x01", "an integer in two bytes that fits one"},
	{"int-non-minimal-8", "\x19\x01\x00", "\x1b\x00\x00\x00\x00\x00\x00\x01\x00", "256 in eight bytes"},
	{"int-negative-non-minimal", "\x39\x01\xf3", "\x3a\x00\x00\x01\xf3", "a negative integer in four bytes that fits two"},
	{"length-non-minimal", "\x64data\x42", "\x64data\x58\x02", "a length in two bytes that fits one"},
	{"key-length-non-minimal", "\x61v", "\x78\x01v", "the length of a key in two bytes"},
	{"float-16", "\x61v\x01", "\x61v\xf9\x3c\x00", "1.0 as a half-precision float"},
	{"float-32", "\x61v\x01", "\x61v\xfa\x3f\x80\x00\x00", "1.0 as a single-precision float"},
	{"float-64", "\x61v\x01", "\x61v\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", "1.0 as a double-precision float"},
	{"bignum", "\x61v\x01", "\x61v\xc2\x41\x01", "1 as a bignum, tag 2"},
	{"negative-for-unsigned", "\x61v\x01", "\x61v\x20", "-1 where only unsigned integers stand"},
	{"too-large-for-64-bits", "\x39\x01\xf3", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "-2^64 where a 64-bit signed integer stands"},
	{"tag-on-int", "\x61v\x01", "\x61v\xc1\x01", "a tag before an integer"},
	{"self-described", "", "\xd9\xd9\xf7", "the self-described CBOR tag before the record"},
	{"null-for-text", "\x67PKT \xe2\x98\x81", "\xf6", "null where text stands"},
	{"null-for-bytes", "\x42\x00\xff", "\xf6", "null where bytes stand"},
	{"null-for-map", "\xa2\x61b\x41\x01\x62aa\x40", "\xf6", "null where a map stands"},
	{"undefined", "yes\xf5", "yes\xf7", "undefined where a boolean stands"},
	{"int-for-bool", "yes\xf5", "yes\x01", "1 where a boolean stands"},
	{"bool-non-minimal", "yes\xf5", "yes\xf8\x15", "true in two bytes"},
	{"bytes-for-text", "\x67PKT", "\x47PKT", "a byte string where text stands"},
	{"text-for-bytes", "\x42\x00\xff", "\x62ab", "text where a byte string stands"},
	{"array-for-bytes", "\x42\x00\xff", "\x82\x00\x18\xff", "an array of integers where a byte string stands"},
	{"map-for-array", "\x86\x00\x17\x18\x18", "\xa3\x00\x17\x18\x18", "a map where an array stands"},
	{"utf8-invalid", "\xe2\x98\x81", "\xe2\x98\xff", "text that is not UTF-8"},
	{"utf8-surrogate", "\xe2\x98\x81", "\xed\xa0\x80", "text that holds a surrogate"},
	{"indefinite-array", "\x86\x00\x17\x18\x18\x18\xff\x19\x01\x00\x1b\x00\x00\x01\x00\x00\x00\x00\x00", "\x9f\x00\xff", "an array of indefinite length"},
	{"indefinite-bytes", "\x42\x00\xff", "\x5f\x42\x00\xff\xff", "a byte string in chunks"},
	{"indefinite-text", "\x67PKT \xe2\x98\x81", "\x7f\x63PKT\xff", "text in chunks"},
	{"indefinite-inner-map", "\xa2\x63yes\xf5\x66amount\x1a\x40\x00\x00\x00", "\xbf\x63yes\xf5\x66amount\x1a\x40\x00\x00\x00\xff", "a map of indefinite length"},
	{"unknown-field", "\x63yes\xf5", "\x63yet\xf5", "a field that the record does not have"},
	{"key-other-case", "\x63yes\xf5", "\x63Yes\xf5", "a key in other case"},
	{"key-is-bytes", "\x63yes", "\x43yes", "a key that is a byte string"},
	{"missing-field", "\xa2\x63yes\xf5", "\xa1", "a record without one of its fields"},
	{"duplicate-key", "\xa2\x63yes\xf5", "\xa3\x63yes\xf5\x63yes\xf5", "a field that stands twice"},
	{"duplicate-key-ext", "\x61b\x41\x01\x62aa\x40", "\x61b\x41\x01\x61b\x40", "a key of a map that stands twice"},
	{"inner-unsorted", "\x63yes\xf5\x66amount\x1a\x40\x00\x00\x00", "\x66amount\x1a\x40\x00\x00\x00\x63yes\xf5", "a longer key before a shorter one"},
	{"ext-unsorted", "\x61b\x41\x01\x62aa\x40", "\x62aa\x40\x61b\x41\x01", "the keys of a map out of order"},
	{"link-without-tag", "\xd8\x2a\x58\x25", "\x58\x25", "a link without tag 42"},
	{"link-other-tag", "\xd8\x2a\x58\x25", "\xd8\x2b\x58\x25", "tag 43 where a link stands"},
	{"link-tag-non-minimal", "\xd8\x2a\x58\x25", "\xd9\x00\x2a\x58\x25", "tag 42 in three bytes"},
	{"link-without-zero", "\x25\x00\x01\x71", "\x25\x01\x01\x71", "a link that does not begin with a zero byte"},
	{"link-raw-codec", "\x00\x01\x71\x12\x20", "\x00\x01\x55\x12\x20", "a link to raw bytes"},
	{"link-other-hash", "\x00\x01\x71\x12\x20", "\x00\x01\x71\x1e\x20", "a link by blake3"},
	{"reserved-info", "\x61v\x01", "\x61v\x1c", "the reserved additional information 28"},
	{"break-alone", "\x61v\x01", "\x61v\xff", "a break outside anything indefinite"},
}

func encodingCases(t *testing.T) []vector.Case {
	t.Helper()
	good, err := pktcloud.Marshal(goodSample())
	if err != nil {
		t.Fatal(err)
	}
	empty, err := pktcloud.Marshal(sample{})
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(name, about string, data []byte) vector.Case {
		return vector.New("record-"+name, "encoding", about).With("record", data)
	}
	cases := []vector.Case{
		vector.New("record-good", "ok", "the sample record").With("record", good),
		vector.New("record-zero", "ok", "the sample record with nothing in it").With("record", empty),
		refuse("empty", "no bytes at all", nil),
		refuse("cut", "the last byte is missing", good[:len(good)-1]),
		refuse("trailing-byte", "a byte after the record", append(bytes.Clone(good), 0)),
		refuse("trailing-record", "a second record after the first", append(bytes.Clone(good), good...)),
		refuse("not-a-map", "an integer in place of a record", []byte{1}),
		refuse("null", "null in place of a record", []byte{0xf6}),
		refuse("length-beyond-end", "a byte string that claims more bytes than there are", []byte("\xa1\x64data\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")),
		refuse("array-beyond-end", "an array that claims more elements than there are", []byte("\xa1\x64list\x9b\x00\x00\x00\x01\x00\x00\x00\x00")),
		refuse("deep", "arrays nested a hundred deep", append([]byte("\xa1\x64list"), bytes.Repeat([]byte{0x81}, 100)...)),
		vector.New("record-too-large", "too-large", "one byte more than the kind allows").With("record", bytes.Repeat([]byte{0}, maxSample+1)),
	}
	for _, f := range encodingFaults {
		if f.old != "" && bytes.Count(good, []byte(f.old)) != 1 {
			t.Fatalf("%s: %x stands %d times in %x", f.name, f.old, bytes.Count(good, []byte(f.old)), good)
		}
		cases = append(cases, refuse(f.name, f.about, bytes.Replace(good, []byte(f.old), []byte(f.new), 1)))
	}
	return cases
}

// outcome is the vectors' word for an error.
func outcome(err error) string {
	for _, o := range []struct {
		err  error
		word string
	}{
		{pktcloud.ErrTooLarge, "too-large"},
		{pktcloud.ErrEncoding, "encoding"},
		{pktcloud.ErrKey, "key"},
		{pktcloud.ErrSignature, "signature"},
		{pktcloud.ErrRecord, "record"},
		{pktcloud.ErrExpired, "expired"},
		{pktcloud.ErrID, "id"},
		{pktcloud.ErrAmountSyntax, "amount-syntax"},
		{pktcloud.ErrAmountRange, "amount-range"},
	} {
		if errors.Is(err, o.err) {
			return o.word
		}
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func TestEncodingVectors(t *testing.T) {
	cases, err := vector.Sync(encodingVectors, "record-", encodingCases(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		var s sample
		err := pktcloud.Unmarshal(c.Bytes("record"), &s, maxSample)
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err != nil {
			continue
		}
		if again, err := pktcloud.Marshal(s); err != nil || !bytes.Equal(again, c.Bytes("record")) {
			t.Errorf("%s: got %x, %v after decoding", c.Name, again, err)
		}
	}
}

// TestReencodingIsNeeded shows that the library's strict options alone would
// let malformed spellings through: without the comparison in Unmarshal, the
// vectors named here would be accepted.
func TestReencodingIsNeeded(t *testing.T) {
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	cases, err := vector.Load(encodingVectors, "record-")
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string]bool{}
	for _, c := range cases {
		var s sample
		accepted[strings.TrimPrefix(c.Name, "record-")] = dec.Unmarshal(c.Bytes("record"), &s) == nil
	}
	for _, name := range []string{"int-non-minimal", "length-non-minimal", "inner-unsorted", "ext-unsorted", "missing-field", "null-for-text", "tag-on-int"} {
		if !accepted[name] {
			t.Errorf("%s: refused by the library alone; this test no longer shows anything", name)
		}
	}
}

func TestMarshalFailsForOtherTypes(t *testing.T) {
	for _, v := range []any{make(chan int), func() {}} {
		if _, err := pktcloud.Marshal(v); !errors.Is(err, pktcloud.ErrEncoding) {
			t.Errorf("%T: got %v, want ErrEncoding", v, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	cases, err := vector.Load(encodingVectors, "record-")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("record"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sample
		if pktcloud.Unmarshal(data, &s, maxSample) != nil {
			return
		}
		if again, err := pktcloud.Marshal(s); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want %x", again, err, data)
		}
	})
}
