package pktcloud_test

import (
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
)

func idCases() []vector.Case {
	id := pktcloud.IDOf([]byte{0xa0})
	text := id.String()
	refuse := func(name, text, about string) vector.Case {
		return vector.New("id-"+name, "id", about).With("text", text)
	}
	return []vector.Case{
		vector.New("id-good", "ok", "the id of an empty map").With("body", []byte{0xa0}).With("digest", id[:]).With("text", text),
		vector.New("id-zero", "ok", "the digest of zeros, which names nothing but is well formed").
			With("digest", make([]byte, 32)).With("text", pktcloud.ID{}.String()),
		refuse("empty", "", "no text"),
		refuse("upper-case", strings.ToUpper(text), "base32 in upper case"),
		refuse("short", text[:len(text)-1], "a character is missing"),
		refuse("long", text+"a", "a character too many"),
		refuse("other-base", "z"+text[1:], "another multibase prefix"),
		refuse("raw-codec", "bafkrei"+text[7:], "a CID of raw bytes"),
		refuse("version-0", "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n", "a CID of version 0"),
		refuse("loose-bits", text[:len(text)-1]+string(text[len(text)-1]+1), "unused bits of the last character are set"),
		refuse("alphabet", text[:20]+"1"+text[21:], "a character outside the alphabet"),
	}
}

func TestIDVectors(t *testing.T) {
	cases, err := vector.Sync(encodingVectors, "id-", idCases(), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		id, err := pktcloud.ParseID(c.Value("text"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err == nil && (id != pktcloud.ID(c.Bytes("digest")) || id.String() != c.Value("text")) {
			t.Errorf("%s: got %x, %s", c.Name, id[:], id)
		}
		if body := c.Bytes("body"); len(body) > 0 && pktcloud.IDOf(body) != id {
			t.Errorf("%s: got id %s of the body, want %s", c.Name, pktcloud.IDOf(body), id)
		}
	}
}
