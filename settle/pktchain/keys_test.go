package pktchain_test

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// derive is BIP 32 for hardened steps, written again from its text.
func derive(t testing.TB, seed []byte, path ...uint32) *btcec.PrivateKey {
	t.Helper()
	sum := func(key, data []byte) []byte {
		mac := hmac.New(sha512.New, key)
		mac.Write(data)
		return mac.Sum(nil)
	}
	node := sum([]byte("Bitcoin seed"), seed)
	for _, step := range path {
		data := append([]byte{0}, node[:32]...)
		child := sum(node[32:], binary.BigEndian.AppendUint32(data, step|1<<31))
		k := new(big.Int).Add(new(big.Int).SetBytes(child[:32]), new(big.Int).SetBytes(node[:32]))
		k.Mod(k, btcec.S256().N).FillBytes(child[:32])
		node = child
	}
	key, _ := btcec.PrivKeyFromBytes(node[:32])
	return key
}

func TestKeychainPaths(t *testing.T) {
	for _, n := range pktchain.Networks() {
		k, err := pktchain.NewKeychain(n, seedOf("paths"))
		if err != nil {
			t.Fatal(err)
		}
		for role, public := range []func(uint32) ([]byte, error){k.SpenderKey, k.RefundKey, k.PayeeKey} {
			for _, index := range []uint32{0, 1, 77, pktchain.MaxIndex} {
				got, err := public(index)
				want := derive(t, seedOf("paths"), 390, n.CoinType, uint32(role), index).PubKey().SerializeCompressed()
				if err != nil || string(got) != string(want) {
					t.Errorf("%s role %d index %d: got %x, %v, want %x", n.Rail, role, index, got, err, want)
				}
			}
		}
		if _, err := k.SpenderKey(pktchain.MaxIndex + 1); err == nil {
			t.Error("an index beyond the hardened range has a key")
		}
		if s := fmt.Sprintf("%v %#v %+v", k, k, k); strings.Contains(s, "ExtendedKey") || !strings.Contains(s, n.Rail) {
			t.Errorf("printed: %s", s)
		}
	}
	if _, err := pktchain.NewKeychain(network(t), []byte("short")); err == nil {
		t.Error("a seed of five bytes makes a keychain")
	}
}

func TestAddresses(t *testing.T) {
	pkt, _ := pktchain.NetworkOf("pkt")
	for _, address := range []string{ // measured on a node of the PKT chain
		"pkt1q99y9lgfnnzr2sx8jl7knsy9equ68xz966ck568", "pkt1qg89377gy8qqlux0tgmkz774ux6f7vu4pwt3lwje5a5xjzrsj8f3s4wg7hg",
		"p9JrcB14A6d33r6UihK5PgPmL4eCDwmStJ", "PbznoqFnzPQqi2bCgWPtKMsrv4AVsnQzNc",
	} {
		script, err := pkt.ParseAddress(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if again, err := pkt.Address(script); err != nil || again != address || !pktchain.Payable(script) {
			t.Errorf("%s: got %q, %v", address, again, err)
		}
		if _, err := network(t).ParseAddress(address); err == nil {
			t.Errorf("%s is taken on the devnet", address)
		}
	}
	for _, bad := range []string{
		"", "pkt1", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "PKT1Q99Y9LGFNNZR2SX8JL7KNSY9EQU68XZ966CK568",
		"pkt1q99y9lgfnnzr2sx8jl7knsy9equ68xz966ck569", "p9JrcB14A6d33r6UihK5PgPmL4eCDwmStK", strings.Repeat("p", 91),
		"pkt1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
	} {
		if script, err := pkt.ParseAddress(bad); err == nil {
			t.Errorf("%q: got %x, want a refusal", bad, script)
		}
	}
	for script, want := range map[string]uint64{
		string(script("x")): 294, "\x00\x20" + strings.Repeat("h", 32): 330, "\x76\xa9\x14" + strings.Repeat("h", 20) + "\x88\xac": 546,
	} {
		if got := pkt.Dust([]byte(script)); uint64(got) != want {
			t.Errorf("%x: got dust below %d, want %d", script, got, want)
		}
	}
}
