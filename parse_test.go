package pktcloud_test

import (
	"bytes"
	"runtime"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
)

// seeds adds a value of each vector of a folder to the corpus.
func seeds(f *testing.F, dir, prefix string, add func(vector.Case)) {
	f.Helper()
	cases, err := vector.Load(dir, prefix)
	if err != nil || len(cases) == 0 {
		f.Fatal(len(cases), err)
	}
	for _, c := range cases {
		add(c)
	}
}

func FuzzParseAmount(f *testing.F) {
	seeds(f, encodingVectors, "amount-", func(c vector.Case) { f.Add(c.Value("text")) })
	f.Fuzz(func(t *testing.T, text string) {
		a, err := pktcloud.ParseAmount(text)
		if err != nil {
			return
		}
		if again, err := pktcloud.ParseAmount(a.String()); err != nil || again != a {
			t.Errorf("%q: got %d, %v by way of %s, want %d", text, again, err, a, a)
		}
	})
}

func FuzzParseID(f *testing.F) {
	seeds(f, encodingVectors, "id-", func(c vector.Case) { f.Add(c.Value("text")) })
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := pktcloud.ParseID(text); err == nil && id.String() != text {
			t.Errorf("got %s, want %s", id, text)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	seeds(f, identityVectors, "key-", func(c vector.Case) { f.Add(c.Value("text")) })
	f.Fuzz(func(t *testing.T, text string) {
		k, err := pktcloud.ParsePublicKey(text)
		if err != nil {
			return
		}
		if k.String() != text && k.DID() != text {
			t.Errorf("got %s, want %s", k, text)
		}
		if again, err := pktcloud.ParsePublicKey(k.String()); err != nil || again != k {
			t.Errorf("got %s, %v, want %s", again, err, k)
		}
	})
}

func FuzzParseAccount(f *testing.F) {
	seeds(f, identityVectors, "account-", func(c vector.Case) { f.Add(c.Bytes("record")) })
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := pktcloud.ParseAccount(data)
		if err != nil {
			return
		}
		if again, err := a.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want %x", again, err, data)
		}
	})
}

// note is a small record whose signer is part of it.
type note struct {
	Version uint64             `cbor:"v"`
	By      pktcloud.PublicKey `cbor:"by"`
	Text    string             `cbor:"text"`
	Ext     map[string][]byte  `cbor:"ext"`
}

func (note) RecordType() string           { return "note" }
func (n note) Signer() pktcloud.PublicKey { return n.By }
func (n note) Validate() error {
	if n.Version != 1 {
		return pktcloud.ErrRecord
	}
	return n.By.Validate()
}

func FuzzParseSigned(f *testing.F) {
	s, err := pktcloud.Seal(testKey(1), note{Version: 1, By: testKey(1).Public(), Text: "hello"})
	if err != nil {
		f.Fatal(err)
	}
	good, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := pktcloud.ParseSigned[note](data, 1024)
		if err != nil {
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want %x", again, err, data)
		}
	})
}

// TestParseAllocates shows that hostile input costs no more memory than its own
// length allows, whatever lengths it claims.
func TestParseAllocates(t *testing.T) {
	for name, data := range map[string][]byte{
		"a huge text":     []byte("\xa2\x63sig\x7b\x00\x00\x00\x7f\xff\xff\xff\xff"),
		"a huge array":    []byte("\xa1\x64body\xa1\x67devices\x9a\x00\x01\x00\x00"),
		"a huge map":      []byte("\xa1\x64body\xa1\x63ext\xba\x00\x01\x00\x00"),
		"many tiny items": append([]byte("\xa1\x64body\xa1\x67devices\x99\x30\x00"), bytes.Repeat([]byte{0xa0}, 0x3000)...),
	} {
		got := ^uint64(0) // the least of some: others allocate too, and the first makes what stays
		for range 6 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := pktcloud.ParseAccount(data); err == nil {
				t.Fatalf("%s: accepted", name)
			}
			runtime.ReadMemStats(&after)
			got = min(got, after.TotalAlloc-before.TotalAlloc)
		}
		if limit := uint64(64<<10 + 400*len(data)); got > limit {
			t.Errorf("%s: got %d bytes allocated for %d of input, want at most %d", name, got, len(data), limit)
		}
	}
}
