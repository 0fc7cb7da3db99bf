package wallet_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
	"github.com/tyler-smith/go-bip39"
)

var update = flag.Bool("update", false, "write the vectors anew")

const (
	vectorDir = "../../spec/vectors/wallet"
	mnemonic  = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
)

// networkNamed knows, beside the rails, the coin type 0 of BIP 84's own
// vectors.
func networkNamed(t testing.TB, name string) pktchain.Network {
	if name == "bitcoin" {
		return pktchain.Network{Rail: name, HRP: "bc", PubKeyHash: 0x00, ScriptHash: 0x05, RelayFloor: settle.RelayFloor}
	}
	return network(t, name)
}

// derived are the addresses of the mnemonic. The first three are BIP 84's own;
// the others were computed by this package and are fixed since.
var derived = []struct{ name, network, path, address string }{
	{"bip84-receive-0", "bitcoin", "m/84'/0'/0'/0/0", "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"},
	{"bip84-receive-1", "bitcoin", "m/84'/0'/0'/0/1", "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"},
	{"bip84-change-0", "bitcoin", "m/84'/0'/0'/1/0", "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"},
	{"pkt-receive-0", "pkt", "m/84'/390'/0'/0/0", ""},
	{"pkt-receive-1", "pkt", "m/84'/390'/0'/0/1", ""},
	{"pkt-change-0", "pkt", "m/84'/390'/0'/1/0", ""},
	{"devnet-receive-0", "pkt-devnet", "m/84'/1'/0'/0/0", ""},
}

// parsed are address texts. Those with a script were accepted by a PKT node's
// validateaddress.
var parsed = []struct{ name, about, network, address, script, expect, found string }{
	{"p2wpkh", "pay to a key", "pkt", "pkt1q99y9lgfnnzr2sx8jl7knsy9equ68xz966ck568", "001429485fa1339886a818f2ffad3810b907347308ba", "ok", ""},
	{"p2wsh", "pay to a witness script", "pkt", "pkt1qg89377gy8qqlux0tgmkz774ux6f7vu4pwt3lwje5a5xjzrsj8f3s4wg7hg", "", "ok", ""},
	{"p2pkh", "the old form of pay to a key", "pkt", "p9JrcB14A6d33r6UihK5PgPmL4eCDwmStJ", "", "ok", ""},
	{"p2sh", "the old form of pay to a script", "pkt", "PbznoqFnzPQqi2bCgWPtKMsrv4AVsnQzNc", "", "ok", ""},
	{"devnet", "the same key on the devnet", "pkt-devnet", "", "001429485fa1339886a818f2ffad3810b907347308ba", "ok", ""},
	{"bitcoin", "an address of Bitcoin", "pkt", "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "", "malformed", "Bitcoin"},
	{"bitcoin-p2pkh", "an old address of Bitcoin", "pkt", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "", "malformed", "Bitcoin"},
	{"pkttest", "an address of PKT's test network", "pkt", "tpk1q99y9lgfnnzr2sx8jl7knsy9equ68xz96fa2pet", "", "malformed", "PKT's test network"},
	{"pkt-on-devnet", "an address of PKT in a wallet of the devnet", "pkt-devnet", "pkt1q99y9lgfnnzr2sx8jl7knsy9equ68xz966ck568", "", "malformed", "pkt"},
	{"ethereum", "an address of the PKT token on Base", "pkt", "0x917F39Bb33B2483Dd19546b1E8D2f09ce481ee44", "", "malformed", "Ethereum or Base (the PKT token there is not the coin of this chain)"},
	{"upper-case", "not the usual spelling", "pkt", "PKT1Q99Y9LGFNNZR2SX8JL7KNSY9EQU68XZ966CK568", "", "malformed", ""},
	{"typing-error", "one letter changed", "pkt", "pkt1q99y9lgfnnzr2sx8jl7knsy9equ68xz966ck569", "", "malformed", ""},
	{"taproot", "a witness version that the nodes of PKT refuse", "pkt", "pkt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq", "", "malformed", ""},
	{"empty", "no address at all", "pkt", "", "", "malformed", ""},
	{"long", "longer than any address", "pkt", "pkt1" + strings.Repeat("q", 90), "", "malformed", ""},
}

// keyed are private keys in wallet import format. The first was made by a PKT
// node's own code for the address that validateaddress accepted.
var keyed = []struct{ name, about, network, wif, expect, found string }{
	{"compressed", "the key of address-p2wpkh", "pkt", "aEy8CEu5SjeXzn52Yhf7eQomHuB4b6owXpoUCZKbUEY75iEiEgTV", "ok", ""},
	{"uncompressed", "the key 1, from before keys were compressed", "pkt", wif(0xe0, key1), "ok", ""},
	{"devnet", "the key 1 on a test network", "pkt-devnet", wif(0xef, append(key1, 1)), "ok", ""},
	{"bitcoin", "a key of another network", "pkt", wif(0x80, append(key1, 1)), "malformed", "Bitcoin"},
	{"test-network", "a key of another network", "pkt", wif(0xef, append(key1, 1)), "malformed", "a test network"},
	{"typing-error", "one letter changed", "pkt", "aEy8CEu5SjeXzn52Yhf7eQomHuB4b6owXpoUCZKbUEY75iEiEgTW", "malformed", ""},
	{"zero", "no key at all", "pkt", wif(0xe0, append(make([]byte, 32), 1)), "malformed", ""},
	{"out-of-range", "the order of the curve", "pkt", wif(0xe0, append(bytes.Clone(curveOrder), 1)), "malformed", ""},
	{"short", "31 bytes", "pkt", wif(0xe0, key1[1:]), "malformed", ""},
	{"flag", "another byte than 1 behind the key", "pkt", wif(0xe0, append(key1, 2)), "malformed", ""},
	{"empty", "nothing", "pkt", "", "malformed", ""},
}

var (
	key1          = slices.Clip(append(make([]byte, 31), 1))
	curveOrder, _ = hex.DecodeString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
)

func wif(version byte, secret []byte) string { return base58.CheckEncode(secret, version) }

func keyVector(t *testing.T, n pktchain.Network, c vector.Case, wif string) vector.Case {
	t.Helper()
	c = c.With("network", n.Rail).With("wif", wif)
	key, err := wallet.ParseKey(n, wif)
	if err != nil {
		return c
	}
	for i, script := range key.Scripts() {
		address, err := n.Address(script)
		if err != nil {
			t.Fatal(err)
		}
		c = c.With([]string{"p2pkh", "p2wpkh", "p2sh"}[i], address)
	}
	return c
}

func makeVectors(t *testing.T) []vector.Case {
	t.Helper()
	var cases []vector.Case
	for _, d := range derived {
		n := networkNamed(t, d.network)
		script := derive(t, n, d.path)
		address, err := n.Address(script)
		if err != nil {
			t.Fatal(err)
		}
		if d.address != "" && d.address != address {
			t.Errorf("%s: got %s, want %s", d.name, address, d.address)
		}
		cases = append(cases, vector.New("derive-"+d.name, "ok", "the address of a phrase without a passphrase").
			With("mnemonic", mnemonic).With("seed", bip39.NewSeed(mnemonic, "")).With("network", d.network).
			With("path", d.path).With("script", script).With("address", address))
	}
	for _, p := range parsed {
		n := networkNamed(t, p.network)
		if p.address == "" && p.script != "" {
			var err error
			if p.address, err = n.Address(mustHex(t, p.script)); err != nil {
				t.Fatal(err)
			}
		}
		c := vector.New("address-"+p.name, p.expect, p.about).With("network", p.network).With("address", p.address)
		if p.expect == "ok" {
			script, err := wallet.ParseAddress(n, p.address)
			if err != nil {
				t.Fatal(err)
			}
			if p.script != "" && !bytes.Equal(script, mustHex(t, p.script)) {
				t.Errorf("%s: got script %x, want %s", p.name, script, p.script)
			}
			c = c.With("script", script)
		} else if p.found != "" {
			c = c.With("found", p.found)
		}
		cases = append(cases, c)
	}
	for _, k := range keyed {
		c := keyVector(t, networkNamed(t, k.network), vector.New("wif-"+k.name, k.expect, k.about), k.wif)
		if k.found != "" {
			c = c.With("found", k.found)
		}
		cases = append(cases, c)
	}
	return cases
}

// derive gets an address's script from a wallet, by asking for addresses or,
// for change, by making it give change.
func derive(t *testing.T, n pktchain.Network, path string) []byte {
	t.Helper()
	ledger := settletest.NewLedger(n)
	w, err := wallet.Open(t.Context(), bip39.NewSeed(mnemonic, ""), wallet.Config{Network: n, Ledger: ledger, Store: settletest.NewStore()})
	if err != nil {
		t.Fatal(err)
	}
	var purpose, coinType, account, chain, index uint32
	if _, err := fmt.Sscanf(path, "m/%d'/%d'/%d'/%d/%d", &purpose, &coinType, &account, &chain, &index); err != nil {
		t.Fatal(err)
	}
	if purpose != 84 || coinType != n.CoinType || account != 0 || chain > 1 || chain == 1 && index > 0 {
		t.Fatalf("no wallet has path %s", path)
	}
	var script []byte
	for range index + 1 {
		if script, err = w.ReceiveScript(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if chain == 0 {
		return script
	}
	ledger.Mint(script, coin)
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: script, Amount: 1000}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, raw).TxOut[1].PkScript
}

func TestVectors(t *testing.T) {
	cases, err := vector.Sync(vectorDir, "", slices.Concat(makeVectors(t), callVectors(), shapeVectors(t)), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if strings.HasPrefix(c.Name, "call-") {
				testCall(t, c)
				return
			}
			if strings.HasPrefix(c.Name, "tx-") {
				testShape(t, c)
				return
			}
			n := networkNamed(t, c.Value("network"))
			if strings.HasPrefix(c.Name, "wif-") {
				testKey(t, n, c)
				return
			}
			if path := c.Value("path"); path != "" {
				if got := derive(t, n, path); !bytes.Equal(got, c.Bytes("script")) {
					t.Errorf("script: got %x, want %x", got, c.Bytes("script"))
				}
			}
			script, err := wallet.ParseAddress(n, c.Value("address"))
			if c.Value("expect") == "ok" {
				if err != nil || !bytes.Equal(script, c.Bytes("script")) {
					t.Errorf("got %x, %v; want %x", script, err, c.Bytes("script"))
				}
				return
			}
			var refused *wallet.AddressError
			if !errors.Is(err, settle.ErrMalformed) || !errors.As(err, &refused) {
				t.Fatalf("got %x, %v; want an AddressError", script, err)
			}
			if refused.Found != c.Value("found") || refused.Want != n.Rail {
				t.Errorf("got an address of %q for %q, want %q", refused.Found, refused.Want, c.Value("found"))
			}
		})
	}
}

func testKey(t *testing.T, n pktchain.Network, c vector.Case) {
	t.Helper()
	key, err := wallet.ParseKey(n, c.Value("wif"))
	if c.Value("expect") == "ok" {
		if err != nil {
			t.Fatal(err)
		}
		for i, script := range key.Scripts() {
			name := []string{"p2pkh", "p2wpkh", "p2sh"}[i]
			if got, err := n.Address(script); err != nil || got != c.Value(name) {
				t.Errorf("%s: got %s, %v; want %s", name, got, err, c.Value(name))
			}
		}
		if text := fmt.Sprintf("%v %+v %#v %s", key, key, key, &key); strings.ContainsAny(text, "0123456789") {
			t.Errorf("the key prints as %s", text)
		}
		return
	}
	if !errors.Is(err, settle.ErrMalformed) || !strings.Contains(err.Error(), c.Value("found")) {
		t.Errorf("got %v, want ErrMalformed and %q", err, c.Value("found"))
	}
	if w := c.Value("wif"); w != "" && strings.Contains(err.Error(), w) {
		t.Errorf("the error repeats the key: %v", err)
	}
}

// FuzzParseKey: what is taken is what the key would be written as.
func FuzzParseKey(f *testing.F) {
	for _, k := range keyed {
		f.Add(k.wif)
	}
	n := network(f, "pkt")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := wallet.ParseKey(n, s)
		if err != nil {
			if !errors.Is(err, settle.ErrMalformed) {
				t.Errorf("%q: got %v", s, err)
			}
			return
		}
		secret, version, err := base58.CheckDecode(s)
		if err != nil || wif(version, secret) != s || len(key.Scripts()) == 0 {
			t.Errorf("%q is not how the key is written: %v", s, err)
		}
	})
}

// FuzzParseOutpoint: a coin has one spelling.
func FuzzParseOutpoint(f *testing.F) {
	f.Add(strings.Repeat("ab", 32) + ":0")
	f.Add(strings.Repeat("AB", 32) + ":00")
	f.Add(":")
	f.Fuzz(func(t *testing.T, s string) {
		at, err := wallet.ParseOutpoint(s)
		if err != nil {
			if !errors.Is(err, settle.ErrMalformed) {
				t.Errorf("%q: got %v", s, err)
			}
			return
		}
		if again := wallet.FormatOutpoint(at); again != s {
			t.Errorf("%q came back as %q", s, again)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, p := range parsed {
		f.Add(p.address)
	}
	n := network(f, "pkt")
	f.Fuzz(func(t *testing.T, s string) {
		script, err := wallet.ParseAddress(n, s)
		if err != nil {
			if !errors.Is(err, settle.ErrMalformed) || err.Error() == "" {
				t.Errorf("%q: got %v", s, err)
			}
			return
		}
		again, err := n.Address(script)
		if err != nil || again != s {
			t.Errorf("%q came back as %q, %v", s, again, err)
		}
	})
}
