package keystore_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
)

var update = flag.Bool("update", false, "write the vectors anew")

// official are the vectors of 12 and 24 English words that BIP39 publishes,
// with the seed that the passphrase "TREZOR" gives.
var official = []struct{ phrase, seed string }{
	{"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about", "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04"},
	{"legal winner thank year wave sausage worth useful legal winner thank yellow", "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd381ee6260e8d9739fce1f607"},
	{"letter advice cage absurd amount doctor acoustic avoid letter advice cage above", "d71de856f81a8acc65e6fc851a38d4d7ec216fd0796d0a6827a3ad6ed5511a30fa280f12eb2e47ed2ac03b5c462a0358d18d69fe4f985ec81778c1b370b652a8"},
	{"zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong", "ac27495480225222079d7be181583751e86f571027b0497b5b5d11218e0a8a13332572917f0f8e5a589620c6f15b11c61dee327651a14c34e18231052e48c069"},
	{"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art", "bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3de6f5d4a10be8ed2a5e608d68f92fcc8"},
	{"legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title", "bc09fca1804f7e69da93c2f2028eb238c227f2e9dda30cd63699232578480a4021b146ad717fbb7e451ce9eb835f43620bf5c514db0f8add49f5d121449d3e87"},
	{"letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless", "c0c519bd0e91a2ed54357d9d1ebef6f5af218a153624cf4f2da911a0ed8f7a09e2ef61af0aca007096df430022f7a2b6fb91661a9589097069720d015e4e982f"},
	{"zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote", "dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad"},
	{"jelly better achieve collect unaware mountain thought cargo oxygen act hood bridge", "b5b6d0127db1a9d2226af0c3346031d77af31e918dba64287a1b44b8ebf63cdd52676f672a290aae502472cf2d602c051f3e6f18055e84e4c43897fc4e51a6ff"},
	{"dignity pass list indicate nasty swamp pool script soccer toe leaf photo multiply desk host tomato cradle drill spread actor shine dismiss champion exotic", "ff7f3184df8696d8bef94b6c03114dbee0ef89ff938712301d27ed8336ca89ef9635da20af07d4175f2bf5f3de130f39c9d9e8dd0472489c19b1a020a940da67"},
	{"afford alter spike radar gate glance object seek swamp infant panel yellow", "65f93a9f36b6c85cbe634ffc1f99f2b82cbb10b31edc7f087b4f6cb9e976e9faf76ff41f8f27c99afdf38f7a303ba1136ee48a4c1e7fcd3dba7aa876113a36e4"},
	{"clutch control vehicle tonight unusual clog visa ice plunge glimpse recipe series open hour vintage deposit universe tip job dress radar refuse motion taste", "fe908f96f46668b2d5b37d82f558c77ed0d69dd0e7e043a5b0511c48c2f1064694a956f86360c93dd04052a8899497ce9e985ebe0c8c52b955e6ae86d4ff4449"},
	{"turtle front uncle idea crush write shrug there lottery flower risk shell", "bdfb76a0759f301b0b899a1e3985227e53b3f51e67e3f2a65363caedf3e32fde42a66c404f18d7b05818c95ef3ca1e5146646856c461c073169467511680876c"},
	{"exile ask congress lamp submit jacket era scheme attend cousin alcohol catch course end lucky hurt sentence oven short ball bird grab wing top", "095ee6f817b4c2cb30a5a797360a81a40ab0f9a4e25ecd672a3f58a0b5ba0687c096a6b14d2c0deb3bdefce4f61d01ae07417d502429352e27695163f7447a8c"},
	{"board flee heavy tunnel powder denial science ski answer betray cargo cat", "6eff1bb21562918509c73cb990260db07c0ce34ff0e3cc4a8cb3276129fbcb300bddfe005831350efd633909f476c45c88253276d9fd0df6ef48609e8bb7dca8"},
	{"beyond stage sleep clip because twist token leaf atom beauty genius food business side grid unable middle armed observe pair crouch tonight away coconut", "b15509eaa2d09d3efd3e006ef42151b30367dc6e3aa5e44caba3fe4d3e352e65101fbdb86a96776b91946ff06f8eac594dc6ee1d3e82a42dfe1b40fef6bcc3fd"},
}

func phraseCases(t *testing.T) []vector.Case {
	t.Helper()
	var cases []vector.Case
	for n, v := range official {
		seed, err := hex.DecodeString(v.seed)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, vector.New(fmt.Sprintf("bip39-%02d", n+1), "ok", "an official vector of BIP39").
			With("phrase", v.phrase).With("passphrase", "TREZOR").With("seed", seed).
			With("identity", pktcloud.IdentityKey(seed).Public()))
	}
	own := read(t, art)
	for name, passphrase := range map[string]string{"no-passphrase": "", "composed": "\u00fc", "decomposed": "u\u0308"} {
		seed := own.Seed(passphrase)
		cases = append(cases, vector.New("bip39-"+name, "ok", "a passphrase is brought to NFKD before it counts").
			With("phrase", strings.TrimSpace(art)).With("passphrase", passphrase).With("seed", seed).
			With("identity", pktcloud.IdentityKey(seed).Public()))
	}
	refuse := func(name, about, phrase string) {
		cases = append(cases, vector.New("bip39-"+name, "phrase", about).With("phrase", phrase))
	}
	refuse("checksum", "the last word does not fit", strings.Replace(art, "art", "zoo", 1))
	refuse("unknown-word", "a word that is not on the list", strings.Replace(about, "about", "pktcash", 1))
	refuse("eleven", "eleven words", strings.TrimPrefix(about, "abandon "))
	refuse("fifteen", "fifteen words, as pktwallet has", strings.Repeat("abandon ", 14)+"address")
	refuse("eighteen", "eighteen words: valid BIP39, but not used here", strings.Repeat("abandon ", 17)+"agent")
	return cases
}

func TestPhraseVectors(t *testing.T) {
	cases, err := vector.Sync("../../spec/vectors/identity", "bip39-", phraseCases(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		p, err := keystore.ReadPhrase(c.Value("phrase"))
		if err != nil {
			if !errors.Is(err, keystore.ErrPhrase) || c.Value("expect") != "phrase" {
				t.Errorf("%s: got %v, want %s", c.Name, err, c.Value("expect"))
			}
			continue
		}
		if c.Value("expect") != "ok" {
			t.Errorf("%s: accepted, want %s", c.Name, c.Value("expect"))
			continue
		}
		seed := p.Seed(c.Value("passphrase"))
		if !bytes.Equal(seed, c.Bytes("seed")) {
			t.Errorf("%s: got seed %x, want %s", c.Name, seed, c.Value("seed"))
		}
		if got := pktcloud.IdentityKey(seed).Public().String(); got != c.Value("identity") {
			t.Errorf("%s: got identity %s, want %s", c.Name, got, c.Value("identity"))
		}
	}
}
