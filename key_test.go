package pktcloud_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
)

const identityVectors = "spec/vectors/identity"

func testKey(n byte) pktcloud.PrivateKey { return pktcloud.NewPrivateKey([32]byte{n}) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// weakKeys are the encodings that no key may have: the five y of small order,
// with either sign bit, and y that are not reduced.
var weakKeys = map[string]string{
	"order-1":         "0100000000000000000000000000000000000000000000000000000000000000",
	"order-1-sign":    "0100000000000000000000000000000000000000000000000000000000000080",
	"order-2":         "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"order-2-sign":    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"order-4":         "0000000000000000000000000000000000000000000000000000000000000000",
	"order-4-sign":    "0000000000000000000000000000000000000000000000000000000000000080",
	"order-8-a":       "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"order-8-a-sign":  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"order-8-b":       "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"order-8-b-sign":  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"y-is-p":          "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"y-is-p-sign":     "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"y-is-p-plus-1":   "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"y-is-p-plus-3":   "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"y-is-2-255-1":    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"y-is-all-ones":   "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"y-is-p-2-signed": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func TestWeakKeyList(t *testing.T) {
	eight := big.NewInt(8)
	for name, text := range weakKeys {
		k := pktcloud.PublicKey(unhex(text))
		if outcome(k.Validate()) != "key" {
			t.Errorf("%s: accepted", name)
		}
		if strings.HasPrefix(name, "order-") {
			if p := times(eight, decompress(k[:])); p.x.Sign() != 0 {
				t.Errorf("%s: not of small order; the list is wrong", name)
			}
		}
	}
	for _, good := range []string{
		"ebffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p - 2
		"0200000000000000000000000000000000000000000000000000000000000000",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7e", // not all upper bits
	} {
		if err := pktcloud.PublicKey(unhex(good)).Validate(); err != nil {
			t.Errorf("%s: got %v", good, err)
		}
	}
}

const vectorType = "test"

// signingInput is built here a second time, from the page alone.
func signingInput(recordType string, body []byte) []byte {
	digest := sha256.Sum256(body)
	return append([]byte("pktcloud/v1/"+recordType+"\x00"), digest[:]...)
}

func signatureCase(name, expect, about string, body []byte, key pktcloud.PublicKey, sig pktcloud.Signature) vector.Case {
	return vector.New("signature-"+name, expect, about).
		With("type", vectorType).With("body", body).With("key", key[:]).With("sig", sig[:])
}

func signatureCases(t *testing.T) []vector.Case {
	t.Helper()
	body := []byte{0xa0}
	message := signingInput(vectorType, body)
	good := pktcloud.Sign(testKey(1), vectorType, body)
	key := testKey(1).Public()
	changed := good
	changed[5] ^= 1
	plusOrder := good
	copy(plusOrder[32:], little(new(big.Int).Add(fromLittle(good[32:]), order)))
	cases := []vector.Case{
		signatureCase("good", "ok", "a signature as Sign makes it", body, key, good),
		signatureCase("changed", "signature", "a bit of R is flipped", body, key, changed),
		signatureCase("other-body", "signature", "a signature over another body", []byte{0x80}, key, good),
		signatureCase("other-type", "signature", "signed as a record of another type", body, key, pktcloud.Sign(testKey(1), "other", body)),
		signatureCase("other-key", "signature", "signed by another key", body, key, pktcloud.Sign(testKey(2), vectorType, body)),
		signatureCase("s-plus-order", "signature", "S is not below the group order; the equation holds", body, key, plusOrder),
		signatureCase("zero", "signature", "64 zero bytes", body, key, pktcloud.Signature{}),
		signatureCase("not-a-point", "signature", "a key whose y is on no point of the curve", body, pktcloud.PublicKey{2}, good),
	}
	for name, text := range weakKeys {
		k := pktcloud.PublicKey(unhex(text))
		// R = the neutral point, S = 0: verifies any message under a key of order 1.
		sig := pktcloud.Signature{0: 1}
		cases = append(cases, signatureCase("weak-key-"+name, "key", "R is the neutral point, S is zero, the key is weak", body, k, sig))
	}
	return append(cases, torsionCases(t, body, message)...)
}

// torsionCases are signatures that the cofactored equation accepts and the
// cofactorless one refuses, and one where both accept a key with a torsion
// part.
func torsionCases(t *testing.T, body, message []byte) []vector.Case {
	t.Helper()
	none := point{big.NewInt(0), big.NewInt(1)}
	small := decompress(unhex(weakKeys["order-8-a"]))
	secret := big.NewInt(123456789)

	inR := forger{secret, big.NewInt(987654321), none, small}
	sigR := inR.sign(message)
	if !cofactored(inR.key(), message, sigR) || stdlib(inR.key(), message, sigR) {
		t.Fatal("the torsion of R does not part the two equations")
	}
	cases := []vector.Case{
		signatureCase("torsion-in-r", "signature", "R has a part of order 8: a cofactored or batch verifier accepts this", body, inR.key(), sigR),
	}
	var refused, accepted bool
	for nonce := int64(1); !refused || !accepted; nonce++ {
		f := forger{secret, big.NewInt(nonce), small, none}
		sig := f.sign(message)
		if !cofactored(f.key(), message, sig) {
			t.Fatal("the torsion of A breaks the cofactored equation")
		}
		switch ok := stdlib(f.key(), message, sig); {
		case ok && !accepted:
			accepted = true
			cases = append(cases, signatureCase("torsion-in-key-cancelled", "ok", "the key has a part of order 8 that the challenge happens to cancel", body, f.key(), sig))
		case !ok && !refused:
			refused = true
			cases = append(cases, signatureCase("torsion-in-key", "signature", "the key has a part of order 8: a cofactored or batch verifier accepts this", body, f.key(), sig))
		}
	}
	return cases
}

func TestSignatureVectors(t *testing.T) {
	cases, err := vector.Sync(identityVectors, "signature-", signatureCases(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		err := pktcloud.Verify(pktcloud.PublicKey(c.Bytes("key")), c.Value("type"), c.Bytes("body"), pktcloud.Signature(c.Bytes("sig")))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
	}
}

// TestWeakKeyVerifiesAnything shows the trap that [ID-3] closes.
func TestWeakKeyVerifiesAnything(t *testing.T) {
	weak, sig := pktcloud.PublicKey{0: 1}, pktcloud.Signature{0: 1}
	for _, body := range [][]byte{nil, {1}, []byte("pay me")} {
		if !stdlib(weak, signingInput(vectorType, body), sig) {
			t.Error("the library refuses it now; the list may no longer be needed")
		}
		if outcome(pktcloud.Verify(weak, vectorType, body, sig)) != "key" {
			t.Error("a weak key was accepted")
		}
	}
}

func TestSigningInputIsThatOfThePage(t *testing.T) {
	body := []byte{0xa1, 0x61, 'v', 1}
	sig := pktcloud.Sign(testKey(1), "offer", body)
	if !stdlib(testKey(1).Public(), signingInput("offer", body), sig) {
		t.Error("the signature is not over the layout of spec/identity.md")
	}
}

func keyTextCases() []vector.Case {
	k := testKey(1).Public()
	text := k.String()
	refuse := func(name, text, about string) vector.Case {
		return vector.New("key-"+name, "key", about).With("text", text)
	}
	return []vector.Case{
		vector.New("key-good", "ok", "the multibase form").With("text", text).With("key", k[:]).With("peer", k.PeerID()),
		vector.New("key-did", "ok", "with did:key: before it").With("text", "did:key:"+text).With("key", k[:]).With("peer", k.PeerID()),
		vector.New("key-rfc8032", "ok", "the key of test 1 of RFC 8032").
			With("text", pktcloud.PublicKey(unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")).String()).
			With("key", unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")).With("peer", pktcloud.PublicKey(unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")).PeerID()),
		refuse("empty", "", "no text"),
		refuse("short", text[:47], "a character is missing"),
		refuse("long", text+"1", "a character too many"),
		refuse("alphabet", text[:20]+"0"+text[21:], "a character outside base58"),
		refuse("other-base", "m"+text[1:], "another multibase prefix"),
		refuse("other-codec", "z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc", "an X25519 key"),
		refuse("weak", pktcloud.PublicKey{0: 1}.String(), "a point of small order"),
		refuse("hex", hex.EncodeToString(k[:]), "hexadecimal"),
	}
}

func TestKeyTextVectors(t *testing.T) {
	cases, err := vector.Sync(identityVectors, "key-", keyTextCases(), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		k, err := pktcloud.ParsePublicKey(c.Value("text"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err != nil {
			if !k.IsZero() {
				t.Errorf("%s: a refused key came back", c.Name)
			}
			continue
		}
		if !bytes.Equal(k[:], c.Bytes("key")) || k.PeerID() != c.Value("peer") || k.DID() != "did:key:"+strings.TrimPrefix(c.Value("text"), "did:key:") {
			t.Errorf("%s: got %x, %s, %s", c.Name, k[:], k.PeerID(), k.DID())
		}
	}
}

func TestSignatureText(t *testing.T) {
	sig := pktcloud.Sign(testKey(1), vectorType, nil)
	text, err := sig.MarshalText()
	var back pktcloud.Signature
	if err != nil || back.UnmarshalText(text) != nil || back != sig {
		t.Errorf("got %x, %v, want %x", back, err, sig)
	}
	for _, bad := range []string{"", "00", string(text) + "00", strings.Repeat("x", 128)} {
		if err := back.UnmarshalText([]byte(bad)); outcome(err) != "signature" {
			t.Errorf("%q: got %v, want ErrSignature", bad, err)
		}
	}
}

func TestPrivateKeyDoesNotPrint(t *testing.T) {
	k := testKey(0xab)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		got := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, struct{ K pktcloud.PrivateKey }{k}) + fmt.Sprintf(verb, &k)
		if strings.Contains(strings.ToLower(got), "ab0000") || strings.Contains(got, "171") {
			t.Errorf("%s: got %s", verb, got)
		}
	}
	if got := pktcloud.NewPrivateKey(k.Seed()); got.Public() != k.Public() {
		t.Error("the seed gives another key")
	}
}
