package pktcloud_test

import (
	"encoding/hex"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

func TestTmp(t *testing.T) {
	var seed [32]byte
	k := pktcloud.NewPrivateKey(seed)
	a := pktcloud.Account{Version: 1, Identity: k.Public(), Devices: []pktcloud.Device{{Key: k.Public(), Expires: 100}}}
	s, err := pktcloud.Seal(k, a)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Encode()
	t.Log(hex.EncodeToString(b), err)
	if _, err := pktcloud.ParseAccount(b); err != nil {
		t.Fatal(err)
	}
	p, err := pktcloud.ParsePublicKey(k.Public().String())
	t.Log(p, err, p.DID())
	id := pktcloud.IDOf([]byte("x"))
	type L struct {
		L pktcloud.ID     `cbor:"l"`
		A pktcloud.Amount `cbor:"a"`
	}
	b, _ = pktcloud.Marshal(L{id, 5})
	t.Log(hex.EncodeToString(b))
	var l L
	if err := pktcloud.Unmarshal(b, &l, 100); err != nil || l.L != id {
		t.Fatal(err)
	}
	for _, s := range []string{"0.1", "1.5 PKT", "0.0000000009", "250 units", "5999040000"} {
		a, err := pktcloud.ParseAmount(s)
		t.Log(s, uint64(a), a, err)
	}
}
