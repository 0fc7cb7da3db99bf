package pktchain_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// output0 is the fixture's funding output, as the chain has it.
func (f fixture) output0() settle.Output {
	return settle.Output{Known: true, Depth: 3, Amount: capacity, Script: f.channel.PkScript()}
}

// recalled is what the fixture's payee has back from late claims.
func (f fixture) recalled(t testing.TB, total pktcloud.Amount, fees ...pktcloud.Amount) pktchain.Recalled {
	t.Helper()
	r, err := pktchain.Recall(network(t), f.lateClaims(t, total, fees...), f.output0())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRecall: late claims alone give everything that claims them again, to the
// byte, at any fee.
func TestRecall(t *testing.T) {
	for _, refund := range []pktchain.RefundKeys{{}, multiKeys(t)} {
		f := fund(t, refund, nil)
		r := f.recalled(t, 1_000_000, 400, 1_600)
		p := r.Channel.Params
		if p.Capacity != capacity || p.ExpiryHeight != expiry || p.LateHeight() != f.params.LateHeight() || r.Late.Total != 1_000_000+reserve {
			t.Errorf("got %+v with %d units", p, uint64(r.Late.Total))
		}
		if r.Channel.Detail.Funding != f.channel.Detail.Funding || !bytes.Equal(r.Channel.Detail.Spender, f.channel.Detail.Spender) ||
			!bytes.Equal(r.Channel.Script(), f.channel.Script()) || !bytes.Equal(r.Channel.PkScript(), f.channel.PkScript()) {
			t.Error("another channel came back")
		}
		if len(r.Fees) != 2 || r.Fees[0] != 400 || r.Fees[1] != 1_600 || r.Top.Fee != 1_600 {
			t.Errorf("got fees %v, top %+v", r.Fees, r.Top)
		}
		index, ok := f.payee.FindPayee(r.Channel.Detail.Payee, 5)
		if !ok || index != 4 {
			t.Fatalf("got index %d, %v, want 4", index, ok)
		}
		for fee, want := range map[pktcloud.Amount][]byte{400: f.lateClaims(t, 1_000_000, 400)[0], 77_000: f.lateClaims(t, 1_000_000, 77_000)[0]} {
			raws, err := f.payee.LateClaims(r.Channel, index, r.Late, []pktcloud.Amount{fee})
			if err != nil || !bytes.Equal(raws[0], want) {
				t.Errorf("at a fee of %d: got another late claim (%v)", uint64(fee), err)
			}
		}
		end, err := r.Channel.EndOf(f.lateClaims(t, 1_000_000, 400)[0])
		if err != nil || end.Payee != 1_000_000+reserve-400 || end.Refund {
			t.Errorf("its end: got %+v, %v", end, err)
		}
		chain, late, err := r.Fits(f.params)
		id, _ := f.params.ID()
		if err != nil || late.Total != 1_000_000 || late.Channel != id || chain.Params.Reserve != reserve {
			t.Errorf("its own parameters: got %+v, %v", late, err)
		}
	}
}

// TestFindPayee: indexes from 0 to below the end are tried, and no others.
func TestFindPayee(t *testing.T) {
	k := keychain(t, "payee")
	key, err := k.PayeeKey(4)
	if err != nil {
		t.Fatal(err)
	}
	if i, ok := k.FindPayee(key, 5); !ok || i != 4 {
		t.Errorf("got %d, %v, want 4", i, ok)
	}
	if _, ok := k.FindPayee(key, 4); ok {
		t.Error("an index beyond the end was tried")
	}
	if _, ok := keychain(t, "payer").FindPayee(key, 9); ok {
		t.Error("another phrase has the key")
	}
}

// TestResumeProof: only the two sides let a device be shown a channel, each by
// its own key, for one device and one channel.
func TestResumeProof(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	at, device := f.channel.Detail.Funding, payerDevice.Public()
	sign := func(k *pktchain.Keychain, role settle.Role, index uint32, device pktcloud.PublicKey, at settle.Outpoint) []byte {
		t.Helper()
		b, err := k.SignResume(role, index, device, at)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for role, proof := range map[settle.Role][]byte{
		settle.Payer: sign(f.payer, settle.Payer, 7, device, at), settle.Payee: sign(f.payee, settle.Payee, 4, device, at),
	} {
		if got, err := f.channel.VerifyResume(device, proof); err != nil || got != role {
			t.Errorf("got %v, %v, want %v", got, err, role)
		}
	}
	next := at
	next.Index++
	other := at
	other.TxID[0]++
	for name, proof := range map[string][]byte{
		"nothing": nil, "another device": sign(f.payer, settle.Payer, 7, payeeDevice.Public(), at), "another output": sign(f.payer, settle.Payer, 7, device, next),
		"another transaction": sign(f.payer, settle.Payer, 7, device, other), "another index": sign(f.payer, settle.Payer, 8, device, at),
		"the payer's key as payee": sign(f.payer, settle.Payee, 7, device, at), "a client's proof": clientProof(t, f, device),
	} {
		if role, err := f.channel.VerifyResume(device, proof); err == nil {
			t.Errorf("%s: got %v, want a refusal", name, role)
		} else {
			wantCode(t, err, settle.ErrProof)
		}
	}
	if _, err := f.payer.SignResume(settle.Payer, pktchain.MaxIndex+1, device, at); err == nil {
		t.Error("an index that does not exist signed")
	}
}

// clientProof is a signature of the same key for another purpose.
func clientProof(t *testing.T, f fixture, device pktcloud.PublicKey) []byte {
	t.Helper()
	b, err := f.payee.SignClient(f.channel, pktchain.EndLate, 4, device)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFunds: the funding transaction, and no other.
func TestFunds(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	if err := f.channel.Funds(encode(f.funding)); err != nil {
		t.Error(err)
	}
	other := f.funding.Copy()
	other.LockTime++
	wantCode(t, f.channel.Funds(encode(other)), settle.ErrFunding)
	wantCode(t, f.channel.Funds([]byte{1}), settle.ErrMalformed)
	wantCode(t, f.channel.Funds(make([]byte, pktchain.MaxFundingBytes)), settle.ErrMalformed)
	wantCode(t, f.channel.Funds(make([]byte, pktchain.MaxFundingBytes+1)), settle.ErrFunding)
	beyond := f.channel
	beyond.Detail.Funding.Index = uint32(len(f.funding.TxOut))
	wantCode(t, beyond.Funds(encode(f.funding)), settle.ErrFunding)
	beyond.Detail.Funding.Index--
	if err := beyond.Funds(encode(f.funding)); err != nil {
		t.Errorf("its last output: %v", err)
	}
}

// restoreVectors are what a phrase has back: from notes on the chain, from
// deposits, and from what the other side shows.
func restoreVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	note := func(name, about, rail string, funding []byte) vector.Case {
		expect := "funding"
		if name == "half" {
			expect = "malformed"
		}
		return vector.New("note-"+name, expect, about).With("rail", rail).With("seed", seedOf("payer")).With("funding", funding)
	}
	altered := func(alter func(tx *wire.MsgTx)) []byte {
		tx := f.funding.Copy()
		alter(tx)
		return encode(tx)
	}
	rail := f.params.Rail
	whole := encode(f.funding)
	recall := func(name, expect, about string, amount pktcloud.Amount, txs ...[]byte) vector.Case {
		c := vector.New("recall-"+name, expect, about).With("rail", rail).With("seed", seedOf("payee")).With("amount", uint64(amount)).With("script", f.channel.PkScript())
		for _, raw := range txs {
			c = c.With("transaction", raw)
		}
		if expect == "ok" {
			c = c.With("index", 4).With("expiry", expiry).With("late-height", f.params.LateHeight()).With("takes", 1_000_000+reserve)
		}
		return c
	}
	late := f.lateClaims(t, 1_000_000, 400, 1_600, 1_601)
	more := f.lateClaims(t, 1_000_001, 1_600)[0]
	multi := fund(t, multiKeys(t), nil)
	shown := func(name, expect, about string, change func(p *settle.Params, d *pktchain.Detail)) vector.Case {
		p := f.params
		d, err := pktchain.ParseDetail(p.Detail)
		if err != nil {
			t.Fatal(err)
		}
		change(&p, &d)
		p.Detail = mustEncode(t, d)
		c := vector.New("shown-"+name, expect, about).With("amount", capacity).With("transaction", late[0]).With("params", mustEncode(t, p))
		if expect == "ok" {
			c = c.With("total", 1_000_000)
		}
		return c
	}
	mine := script("somebody else's")
	resume := func(name, expect, about string, k *pktchain.Keychain, role settle.Role, index uint32) vector.Case {
		proof, err := k.SignResume(role, index, payerDevice.Public(), f.channel.Detail.Funding)
		if err != nil {
			t.Fatal(err)
		}
		c := vector.New("resume-"+name, expect, about).With("params", mustEncode(t, f.params)).With("device", payerDevice.Public().String()).With("proof", proof)
		if expect == "ok" {
			c = c.With("side", role.String())
		}
		return c
	}
	return []vector.Case{
		note("tampered", "one bit of the sealed text changed", rail, altered(func(tx *wire.MsgTx) { tx.TxOut[1].PkScript[40] ^= 1 })),
		note("other-rail", "the note of another chain", "pkt", whole),
		note("moved", "a note without its output", rail, altered(func(tx *wire.MsgTx) { tx.TxOut[0].PkScript[9] ^= 1 })),
		note("foreign-refund", "refund keys that the phrase does not have", rail, encode(multi.funding)),
		note("half", "half a transaction", rail, whole[:len(whole)/2]),
		recall("good", "ok", "the late claims of a deposit give the channel back", capacity, late[0], late[1]),
		recall("one", "ok", "one late claim is enough", capacity, late[0]),
		recall("nothing", "malformed", "no late claim", capacity),
		recall("refund", "wrong-side", "the payer's refund", capacity, f.refunds(t, 400)[0]),
		recall("claim", "malformed", "a claim without lock time", capacity, mustClaim(t, f)),
		recall("two-totals", "malformed", "two late claims with other amounts to the payer", capacity, late[0], more),
		recall("fees", "fee", "a second late claim that does not replace the first", capacity, late[1], late[2]),
		recall("amount", "proof", "an output of one unit more", capacity+1, late[0]),
		recall("script", "funding", "an output with another script", capacity, multi.lateClaims(t, 1_000_000, 400)[0]),
		recall("signature", "proof", "a changed signature of the payer", capacity, spoiled(t, late[0])),
		shown("good", "ok", "the parameters that the deposit was made under", func(*settle.Params, *pktchain.Detail) {}),
		shown("payee-script", "params", "another script for the payee's part", func(_ *settle.Params, d *pktchain.Detail) { d.PayeeScript = mine }),
		shown("payer-script", "params", "another script for the payer's part", func(_ *settle.Params, d *pktchain.Detail) { d.PayerScript = mine }),
		shown("funding", "params", "another output", func(_ *settle.Params, d *pktchain.Detail) { d.Funding.Index++ }),
		shown("capacity", "params", "another capacity", func(p *settle.Params, _ *pktchain.Detail) { p.Capacity++ }),
		shown("margin", "params", "another margin, so another late height", func(p *settle.Params, _ *pktchain.Detail) { p.MarginBlocks++ }),
		shown("expiry", "params", "another expiry, so another script", func(p *settle.Params, _ *pktchain.Detail) { p.ExpiryHeight++ }),
		shown("reserve", "params", "a reserve of all that the late claim takes", func(p *settle.Params, _ *pktchain.Detail) { p.Reserve = 1_000_000 + reserve }),
		shown("least-change", "capacity", "a least change above what the payer gets", func(p *settle.Params, _ *pktchain.Detail) { p.MinChange = capacity - 1_000_000 }),
		resume("payer", "ok", "the payer lets a device be shown the channel", f.payer, settle.Payer, 7),
		resume("payee", "ok", "the payee lets a device be shown the channel", f.payee, settle.Payee, 4),
		resume("stranger", "proof", "another phrase", keychain(t, "stranger"), settle.Payer, 7),
		resume("other-index", "proof", "another channel's key", f.payer, settle.Payer, 8),
	}
}

func mustClaim(t *testing.T, f fixture) []byte {
	t.Helper()
	raw, err := f.payee.Claim(f.channel, 4, f.voucher(t, 1_000_000), 400)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// spoiled changes the payer's signature of a late claim.
func spoiled(t *testing.T, raw []byte) []byte {
	t.Helper()
	tx := decode(t, raw)
	tx.TxIn[0].Witness[2][20] ^= 1
	return encode(tx)
}

func runRecall(t *testing.T, c vector.Case) error {
	var txs [][]byte
	for _, l := range c.Lines {
		if l.Key == "transaction" {
			raw, err := hex.DecodeString(l.Value)
			if err != nil {
				t.Fatal(err)
			}
			txs = append(txs, raw)
		}
	}
	r, err := pktchain.Recall(networkOf(t, c.Value("rail")), txs, settle.Output{Known: true, Amount: amount(t, c, "amount"), Script: c.Bytes("script")})
	if err != nil {
		return err
	}
	p := r.Channel.Params
	index, ok := keychainOf(t, c.Value("rail"), c.Bytes("seed")).FindPayee(r.Channel.Detail.Payee, 10)
	if !ok || uint64(index) != number(t, c, "index") || p.ExpiryHeight != number(t, c, "expiry") || p.LateHeight() != number(t, c, "late-height") || r.Late.Total != amount(t, c, "takes") {
		t.Errorf("got index %d, %v, %+v with %d units", index, ok, p, uint64(r.Late.Total))
	}
	return nil
}

func runShown(t *testing.T, c vector.Case) error {
	p, err := settle.ParseParams(c.Bytes("params"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := pktchain.ReadEnding(networkOf(t, p.Rail), c.Bytes("transaction"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(decode(t, c.Bytes("transaction")).TxIn[0].Witness[4])
	r, err := pktchain.Recall(networkOf(t, p.Rail), [][]byte{e.Raw()}, settle.Output{Known: true, Amount: amount(t, c, "amount"), Script: append([]byte{0, 32}, hash[:]...)})
	if err != nil {
		t.Fatal(err)
	}
	_, late, err := r.Fits(p)
	if err == nil && late.Total != amount(t, c, "total") {
		t.Errorf("got a late proof of %d units", uint64(late.Total))
	}
	return err
}

func runResume(t *testing.T, c vector.Case) error {
	device, err := pktcloud.ParsePublicKey(c.Value("device"))
	if err != nil {
		t.Fatal(err)
	}
	side, err := channelOf(t, c).VerifyResume(device, c.Bytes("proof"))
	if err == nil && side.String() != c.Value("side") {
		t.Errorf("got the %s", side)
	}
	return err
}
