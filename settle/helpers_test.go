package settle_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

var (
	payerKey = pktcloud.NewPrivateKey([32]byte{1})
	payeeKey = pktcloud.NewPrivateKey([32]byte{2})
)

// stubRail proves a total by a hash that anybody could make: fast, and enough
// to tell a proof for this total from one for another.
type stubRail struct{}

func (stubRail) Name() string { return "stub" }

func (stubRail) VerifyVoucher(p settle.Params, total pktcloud.Amount, proof []byte) error {
	if string(proof) != string(stubProof(p, total)) {
		return settle.Refuse(settle.ErrProof, "stub proof")
	}
	return nil
}

func (stubRail) VerifyClose(p settle.Params, o settle.CloseOffer) error {
	if string(o.Signature) != string(stubProof(p, o.Final+o.Fee)) {
		return settle.Refuse(settle.ErrProof, "stub signature")
	}
	return nil
}

func stubProof(p settle.Params, total pktcloud.Amount) []byte {
	id, _ := p.ID()
	h := sha256.Sum256(binary.BigEndian.AppendUint64(id[:], uint64(total)))
	return h[:]
}

func params() settle.Params {
	return settle.Params{
		Version: settle.ParamsVersion, Rail: "stub", Payer: payerKey.Public(), Payee: payeeKey.Public(),
		Capacity: 100_000, Reserve: 2_000, MinChange: 294, ExpiryHeight: 1_000, MarginBlocks: 144,
		MinDepth: 3, Unconfirmed: 1_000, Detail: []byte("stub"),
	}
}

func channel(t testing.TB, role settle.Role) settle.Channel {
	t.Helper()
	c, err := settle.NewChannel(params(), role, 100)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// settledChannel is a channel whose funding has the agreed depth.
func settledChannel(t testing.TB, role settle.Role) settle.Channel {
	t.Helper()
	return channel(t, role).Observe(settle.Observation{Height: 110, Funded: true, Depth: 3})
}

func lease(n byte) pktcloud.ID { return pktcloud.IDOf([]byte{n}) }

func entry(n byte, units pktcloud.Amount) settle.Entry {
	return settle.Entry{Lease: lease(n), Cumulative: units, Statement: pktcloud.IDOf([]byte{n, byte(units)})}
}

// seal signs a voucher body with the stub's proof and the payer's device.
func seal(t fataler, p settle.Params, v settle.Voucher) pktcloud.Signed[settle.Voucher] {
	t.Helper()
	v.Proof = stubProof(p, v.Total)
	s, err := pktcloud.Seal(payerKey, v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pay lets a payer raise an entry.
func pay(t testing.TB, c settle.Channel, e settle.Entry) (settle.Channel, pktcloud.Signed[settle.Voucher]) {
	t.Helper()
	v, err := c.Next(e)
	if err != nil {
		t.Fatal(err)
	}
	s := seal(t, c.Params, v)
	next, err := c.Issue(s)
	if err != nil {
		t.Fatal(err)
	}
	return next, s
}

func offer(p settle.Params, final, fee pktcloud.Amount) settle.CloseOffer {
	id, _ := p.ID()
	return settle.CloseOffer{
		Version: settle.CloseOfferVersion, Channel: id, Final: final, Fee: fee, Signature: stubProof(p, final+fee),
	}
}

func wantCode(t testing.TB, err error, want settle.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	var refusal *settle.Error
	if !errors.As(err, &refusal) || refusal.Text == "" {
		t.Errorf("got %v without a sentence", err)
	}
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
}
