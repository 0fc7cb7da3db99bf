package pktcloud_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
)

const issued = 1_767_225_600 // 2026-01-01 00:00 UTC

func goodAccount() pktcloud.Account {
	return pktcloud.Account{
		Version: pktcloud.AccountVersion, Identity: testKey(1).Public(), Sequence: 7, Issued: issued,
		Devices: []pktcloud.Device{
			{Key: testKey(2).Public(), Name: "laptop", Expires: issued + 86400},
			{Key: testKey(3).Public(), Name: "Büro", Expires: issued + int64(pktcloud.MaxDeviceLifetime/time.Second)},
		},
		Money: []pktcloud.MoneyKey{{Rail: "pkt", Key: bytes.Repeat([]byte{2}, 33), Proof: bytes.Repeat([]byte{3}, 70)}},
		Ext:   map[string][]byte{"note": {1}},
	}
}

// signAccount signs without the checks of Seal.
func signAccount(t *testing.T, recordType string, key pktcloud.PrivateKey, a pktcloud.Account) []byte {
	t.Helper()
	body, err := pktcloud.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	b, err := pktcloud.Signed[pktcloud.Account]{Body: a, Sig: pktcloud.Sign(key, recordType, body)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var accountFaults = []struct {
	name, expect, about string
	edit                func(*pktcloud.Account)
}{
	{"version", "record", "version 2", func(a *pktcloud.Account) { a.Version = 2 }},
	{"issued-negative", "record", "issued before 1970", func(a *pktcloud.Account) { a.Issued = -1 }},
	{"issued-overflow", "record", "times near the end of 64 bits", func(a *pktcloud.Account) {
		a.Issued, a.Devices = math.MaxInt64-1, a.Devices[:1]
		a.Devices[0].Expires = math.MaxInt64
	}},
	{"no-device", "record", "no device", func(a *pktcloud.Account) { a.Devices = nil }},
	{"many-devices", "record", "33 devices", func(a *pktcloud.Account) {
		for n := range byte(pktcloud.MaxDevices + 1) {
			a.Devices = append(a.Devices[:n], pktcloud.Device{Key: testKey(100 + n).Public(), Expires: issued + 1})
		}
	}},
	{"device-twice", "record", "a device is listed twice", func(a *pktcloud.Account) { a.Devices[1].Key = a.Devices[0].Key }},
	{"device-expired-at-issue", "record", "a device that ends when the record is issued", func(a *pktcloud.Account) { a.Devices[0].Expires = issued }},
	{"device-too-long", "record", "a device that acts for a second more than 366 days", func(a *pktcloud.Account) { a.Devices[1].Expires++ }},
	{"device-name-long", "record", "a name of 65 bytes", func(a *pktcloud.Account) { a.Devices[0].Name = strings.Repeat("a", 65) }},
	{"device-name-control", "record", "a name that steers a terminal", func(a *pktcloud.Account) { a.Devices[0].Name = "\x1b[2J" }},
	{"device-weak", "key", "a device key of small order", func(a *pktcloud.Account) { a.Devices[0].Key = pktcloud.PublicKey{0: 1} }},
	{"identity-weak", "key", "an identity of small order", func(a *pktcloud.Account) { a.Identity = pktcloud.PublicKey{0: 1} }},
	{"many-money-keys", "record", "nine money keys", func(a *pktcloud.Account) {
		for n := range byte(pktcloud.MaxMoneyKeys + 1) {
			a.Money = append(a.Money[:n], pktcloud.MoneyKey{Rail: "pkt", Key: []byte{n}})
		}
	}},
	{"money-key-twice", "record", "a money key is listed twice", func(a *pktcloud.Account) { a.Money = append(a.Money, a.Money[0]) }},
	{"money-no-rail", "record", "a money key of no rail", func(a *pktcloud.Account) { a.Money[0].Rail = "" }},
	{"money-no-key", "record", "an empty money key", func(a *pktcloud.Account) { a.Money[0].Key = nil }},
	{"money-key-long", "record", "a money key of 129 bytes", func(a *pktcloud.Account) { a.Money[0].Key = make([]byte, 129) }},
	{"money-proof-long", "record", "a proof of 257 bytes", func(a *pktcloud.Account) { a.Money[0].Proof = make([]byte, 257) }},
}

func accountCases(t *testing.T) []vector.Case {
	t.Helper()
	account := func(name, expect, about string, record []byte) vector.Case {
		return vector.New("account-"+name, expect, about).With("record", record)
	}
	record := signAccount(t, "account", testKey(1), goodAccount())
	id := pktcloud.IDOf(mustMarshal(t, goodAccount()))
	large := goodAccount()
	large.Ext = map[string][]byte{"x": make([]byte, pktcloud.MaxAccountBytes)}
	cases := []vector.Case{
		account("good", "ok", "two devices and a money key", record).With("id", id).With("signer", testKey(1).Public()),
		account("other-type", "signature", "signed as a record of another type", signAccount(t, "offer", testKey(1), goodAccount())),
		account("other-signer", "signature", "signed by a device in place of the identity", signAccount(t, "account", testKey(2), goodAccount())),
		account("too-large", "too-large", "longer than an account may be", signAccount(t, "account", testKey(1), large)),
		account("signature-short", "encoding", "a signature of 63 bytes", bytes.Replace(record, []byte("\x63sig\x58\x40"), []byte("\x63sig\x58\x3f"), 1)[:len(record)-1]),
		account("key-long", "encoding", "an identity of 33 bytes", bytes.Replace(record, append([]byte("\x68identity\x58\x20"), firstKeyByte()), append([]byte("\x68identity\x58\x21\x00"), firstKeyByte()), 1)),
	}
	for _, f := range accountFaults {
		a := goodAccount()
		f.edit(&a)
		cases = append(cases, account(f.name, f.expect, f.about, signAccount(t, "account", testKey(1), a)))
	}
	return cases
}

func firstKeyByte() byte { return testKey(1).Public()[0] }

func mustMarshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := pktcloud.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAccountVectors(t *testing.T) {
	cases, err := vector.Sync(identityVectors, "account-", accountCases(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		a, err := pktcloud.ParseAccount(c.Bytes("record"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err != nil {
			continue
		}
		id, err := a.ID()
		if err != nil || id.String() != c.Value("id") || a.Body.Signer().String() != c.Value("signer") {
			t.Errorf("%s: got id %s, signer %s", c.Name, id, a.Body.Signer())
		}
	}
}

func TestSealRefuses(t *testing.T) {
	if _, err := pktcloud.Seal(testKey(2), goodAccount()); outcome(err) != "key" {
		t.Errorf("another key: got %v, want ErrKey", err)
	}
	if _, err := pktcloud.Seal(pktcloud.PrivateKey{}, goodAccount()); outcome(err) != "key" {
		t.Errorf("no key: got %v, want ErrKey", err)
	}
	bad := goodAccount()
	bad.Devices = nil
	if _, err := pktcloud.Seal(testKey(1), bad); outcome(err) != "record" {
		t.Errorf("an invalid body: got %v, want ErrRecord", err)
	}
}

func TestAccountAllows(t *testing.T) {
	a := goodAccount()
	end := time.Unix(a.Devices[0].Expires, 0)
	for _, tt := range []struct {
		name   string
		device pktcloud.PublicKey
		now    time.Time
		want   string
	}{
		{"in time", a.Devices[0].Key, end.Add(-time.Second), "ok"},
		{"at its end", a.Devices[0].Key, end, "expired"},
		{"not listed", testKey(9).Public(), end.Add(-time.Second), "key"},
		{"the identity itself", a.Identity, end.Add(-time.Second), "key"},
	} {
		if got := outcome(a.Allows(tt.device, tt.now)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestMoneyProofInput(t *testing.T) {
	k := testKey(1).Public()
	want := append([]byte("pktcloud/v1/money\x00pkt\x00"), k[:]...)
	if got := pktcloud.MoneyProofInput(k, "pkt"); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// slip10Vectors are test vectors 1 and 2 of SLIP-0010 for Ed25519; every index
// is hardened.
var slip10Vectors = []struct {
	seed string
	keys []string // after 0, 1, 2 … steps of path
	path []uint32
}{
	{
		"000102030405060708090a0b0c0d0e0f",
		[]string{
			"2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
			"68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
			"b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2",
			"92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9",
			"30d1dc7e5fc04c31219ab25a27ae00b50f6fd66622f6e9c913253d6511d1e662",
			"8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793",
		},
		[]uint32{0, 1, 2, 2, 1000000000},
	},
	{
		"fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a29f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542",
		[]string{
			"171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012",
			"1559eb2bbec5790b0c65d8693e4d0875b1747f4970ae8b650486ed7470845635",
			"ea4f5bfe8694d8bb74b7b59404632fd5968b774ed545e810de9c32a4fb4192f4",
			"3757c7577170179c7868353ada796c839135b3d30554bbb74a4b1e4a5a58505c",
			"5837736c89570de861ebc173b1086da4f505d4adb387c6a1b1342d5e4ac9ec72",
			"551d333177df541ad876a60ea71f00447931c0a9da16f227c11ea080d7391b8d",
		},
		[]uint32{0, 2147483647, 1, 2147483646, 2},
	},
}

func slip10Cases() []vector.Case {
	var cases []vector.Case
	for n, v := range slip10Vectors {
		for steps, key := range v.keys {
			cases = append(cases, vector.New(fmt.Sprintf("slip10-%d-%d", n+1, steps), "ok", "SLIP-0010, Ed25519, test vector "+fmt.Sprint(n+1)).
				With("seed", unhex(v.seed)).With("path", pathText(v.path[:steps])).With("private", unhex(key)))
		}
	}
	seed := unhex(slip10Vectors[1].seed)
	backup, identity := pktcloud.BackupKey(seed), pktcloud.IdentityKey(seed).Seed()
	return append(cases,
		vector.New("slip10-identity", "ok", "the identity of a seed").With("seed", seed).With("path", "m/44'/390'/0'/0'").
			With("private", identity[:]).With("key", pktcloud.IdentityKey(seed).Public()),
		vector.New("slip10-backup", "ok", "the backup root of a seed").With("seed", seed).With("path", "m/44'/390'/1'/0'").With("private", backup[:]))
}

func pathText(path []uint32) string {
	text := "m"
	for _, index := range path {
		text += fmt.Sprintf("/%d'", index)
	}
	return text
}

func TestSLIP10Vectors(t *testing.T) {
	cases, err := vector.Sync(identityVectors, "slip10-", slip10Cases(), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		var path []uint32
		for _, step := range strings.Split(c.Value("path"), "/")[1:] {
			var index uint32
			if _, err := fmt.Sscanf(step, "%d'", &index); err != nil {
				t.Fatal(err)
			}
			path = append(path, index)
		}
		private := pktcloud.DeriveEd25519(c.Bytes("seed"), path)
		if !bytes.Equal(private[:], c.Bytes("private")) {
			t.Errorf("%s: got %x, want %s", c.Name, private, c.Value("private"))
		}
		if key := c.Value("key"); key != "" && pktcloud.NewPrivateKey(private).Public().String() != key {
			t.Errorf("%s: got %s, want %s", c.Name, pktcloud.NewPrivateKey(private).Public(), key)
		}
	}
}
