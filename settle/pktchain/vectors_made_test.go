package pktchain_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// mustEncode is the encoding of a record, valid or not.
func mustEncode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := pktcloud.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sealed is a voucher signed by the payer's device, valid or not.
func sealed(t testing.TB, v settle.Voucher) []byte {
	t.Helper()
	return mustEncode(t, pktcloud.Signed[settle.Voucher]{Body: v, Sig: pktcloud.Sign(payerDevice, v.RecordType(), mustEncode(t, v))})
}

// fault is one spoilt copy of a record.
type fault[T any] struct {
	name, expect, about string
	spoil               func(v *T)
}

func faults[T any](prefix string, encode func(T) []byte, good func() T, list []fault[T]) []vector.Case {
	cases := []vector.Case{vector.New(prefix+"good", "ok", "a record in order").With("bytes", encode(good()))}
	for _, f := range list {
		v := good()
		f.spoil(&v)
		cases = append(cases, vector.New(prefix+f.name, f.expect, f.about).With("bytes", encode(v)))
	}
	return cases
}

func recordVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	cases := faults("params-", func(p settle.Params) []byte { return mustEncode(t, p) }, func() settle.Params { return f.params }, []fault[settle.Params]{
		{"version", "params", "an unknown version", func(p *settle.Params) { p.Version = 2 }},
		{"no-rail", "params", "no rail", func(p *settle.Params) { p.Rail = "" }},
		{"one-key", "params", "payer and payee are one key", func(p *settle.Params) { p.Payee = p.Payer }},
		{"capacity", "params", "more than there can be", func(p *settle.Params) { p.Capacity = pktcloud.MaxAmount + 1 }},
		{"nothing-to-spend", "params", "the reserve takes all", func(p *settle.Params) { p.Reserve = p.Capacity - p.MinChange }},
		{"unconfirmed", "params", "an unconfirmed limit above the capacity", func(p *settle.Params) { p.Unconfirmed = p.Capacity + 1 }},
		{"no-margin", "params", "no margin", func(p *settle.Params) { p.MarginBlocks = 0 }},
		{"early-expiry", "params", "expiry within two margins of the first block", func(p *settle.Params) { p.ExpiryHeight = 288 }},
	})
	v := f.voucher(t, 1_000_000)
	voucher := func() settle.Voucher { c := v; c.Entries = slices.Clone(v.Entries); return c }
	cases = append(cases, faults("voucher-", func(v settle.Voucher) []byte { return sealed(t, v) }, voucher, []fault[settle.Voucher]{
		{"version", "malformed", "an unknown version", func(v *settle.Voucher) { v.Version = 2 }},
		{"sequence-zero", "malformed", "sequence zero", func(v *settle.Voucher) { v.Sequence = 0 }},
		{"no-entries", "malformed", "no entries", func(v *settle.Voucher) { v.Entries, v.Total = nil, 0 }},
		{"sum", "malformed", "a total that is not the sum of the entries", func(v *settle.Voucher) { v.Total++ }},
		{"entry-zero", "malformed", "an entry of zero", func(v *settle.Voucher) { v.Entries[0].Cumulative, v.Total = 0, 0 }},
		{"entry-twice", "malformed", "a lease twice", func(v *settle.Voucher) {
			v.Entries = append(v.Entries, v.Entries[0])
			v.Total *= 2
		}},
		{"unsorted", "malformed", "entries in descending order", func(v *settle.Voucher) {
			v.Entries = []settle.Entry{{Lease: pktcloud.ID{2}, Cumulative: 1}, {Lease: pktcloud.ID{1}, Cumulative: 1}}
			v.Total = 2
		}},
		{"no-proof", "malformed", "no proof", func(v *settle.Voucher) { v.Proof = nil }},
		{"long-proof", "malformed", "a proof of 129 bytes", func(v *settle.Voucher) { v.Proof = make([]byte, 129) }},
		{"many-entries", "malformed", "65 entries", func(v *settle.Voucher) {
			v.Entries, v.Total = nil, 65
			for i := range 65 {
				v.Entries = append(v.Entries, settle.Entry{Lease: pktcloud.ID{byte(i)}, Cumulative: 1})
			}
		}},
	})...)
	other := pktcloud.Signed[settle.Voucher]{Body: v, Sig: pktcloud.Sign(payeeDevice, v.RecordType(), mustEncode(t, v))}
	cases = append(cases,
		vector.New("voucher-signed-by-another", "malformed", "the payee's device signed").With("bytes", mustEncode(t, other)),
		vector.New("voucher-trailing", "malformed", "a byte too many").With("bytes", append(sealed(t, v), 0)))
	o := f.offer(t, 1_000_000, 360)
	return append(cases, faults("close-offer-", func(o settle.CloseOffer) []byte { return mustEncode(t, o) }, func() settle.CloseOffer { return o }, []fault[settle.CloseOffer]{
		{"version", "malformed", "an unknown version", func(o *settle.CloseOffer) { o.Version = 0 }},
		{"amount", "malformed", "more than there can be", func(o *settle.CloseOffer) { o.Final = pktcloud.MaxAmount + 1 }},
		{"no-signature", "malformed", "no signature", func(o *settle.CloseOffer) { o.Signature = nil }},
	})...)
}

func detailVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	payee := func() pktchain.PayeeDetail {
		d := f.plan.Payee
		d.Key, d.Script = slices.Clone(d.Key), slices.Clone(d.Script)
		return d
	}
	cases := faults("payee-detail-", func(d pktchain.PayeeDetail) []byte { return mustEncode(t, d) }, payee, []fault[pktchain.PayeeDetail]{
		{"version", "malformed", "an unknown version", func(d *pktchain.PayeeDetail) { d.Version = 2 }},
		{"short-key", "malformed", "a key of 32 bytes", func(d *pktchain.PayeeDetail) { d.Key = d.Key[1:] }},
		{"key-off-the-curve", "malformed", "an x coordinate without a point", func(d *pktchain.PayeeDetail) { d.Key = append([]byte{2}, make([]byte, 32)...) }},
		{"hybrid-key", "malformed", "a first byte that is not 02 or 03", func(d *pktchain.PayeeDetail) { d.Key[0] = 6 }},
		{"taproot", "malformed", "a payout script that nodes of the chain do not relay", func(d *pktchain.PayeeDetail) {
			d.Script = append([]byte{0x51, 32}, make([]byte, 32)...)
		}},
		{"op-return", "malformed", "a payout script that nobody can spend", func(d *pktchain.PayeeDetail) { d.Script = []byte{0x6a} }},
	})
	detail := func() pktchain.Detail {
		d, err := pktchain.ParseDetail(f.params.Detail)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return append(cases, faults("detail-", func(d pktchain.Detail) []byte { return mustEncode(t, d) }, detail, []fault[pktchain.Detail]{
		{"version", "malformed", "an unknown version", func(d *pktchain.Detail) { d.Version = 0 }},
		{"spender-refunds", "malformed", "the spender's key takes the refund as well", func(d *pktchain.Detail) { d.Refund.Keys[0] = d.Spender }},
		{"spender-is-payee", "malformed", "one key for both sides", func(d *pktchain.Detail) { d.Spender = d.Payee }},
		{"no-refund-key", "malformed", "nobody could refund", func(d *pktchain.Detail) { d.Refund.Keys = nil }},
		{"refund-two-of-one", "malformed", "more signatures than keys", func(d *pktchain.Detail) { d.Refund.Required = 2 }},
		{"refund-key-twice", "malformed", "a refund key twice", func(d *pktchain.Detail) { d.Refund.Keys = append(d.Refund.Keys, d.Refund.Keys[0]) }},
		{"one-script", "malformed", "payer and payee are paid to one script", func(d *pktchain.Detail) { d.PayerScript = d.PayeeScript }},
	})...)
}

func stepVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	first := f.voucher(t, 600_000)
	first.Entries = []settle.Entry{{Lease: pktcloud.ID{1}, Cumulative: 400_000}, {Lease: pktcloud.ID{2}, Cumulative: 200_000}}
	next := func(a, b pktcloud.Amount, spoil func(v *settle.Voucher)) settle.Voucher {
		v := f.voucher(t, a+b)
		v.Sequence = 2
		v.Entries = []settle.Entry{{Lease: pktcloud.ID{1}, Cumulative: a}, {Lease: pktcloud.ID{2}, Cumulative: b}}
		if spoil != nil {
			spoil(&v)
		}
		return v
	}
	base := func(name, expect, about string) vector.Case {
		return vector.New("step-"+name, expect, about).With("params", mustEncode(t, f.params)).With("latest", sealed(t, first))
	}
	step := func(name, expect, about string, height, depth uint64, v settle.Voucher) vector.Case {
		c := base(name, expect, about).With("height", height).With("depth", depth).With("voucher", sealed(t, v))
		if expect == "ok" {
			c = c.With("paid", uint64(v.Total))
		}
		return c
	}
	good := next(500_000, 200_000, nil)
	high := f.params.Spendable()
	tooMuch := next(500_000, 200_000, func(v *settle.Voucher) {
		v.Entries[0].Cumulative, v.Total = high+1-200_000, high+1
	})
	closeOffer := f.offer(t, 600_000, 360)
	lowOffer := f.offer(t, 599_999, 360)
	begin := step("first", "ok", "the first voucher, before the funding is deep, within the unconfirmed limit", 150, 0, f.voucher(t, 90_000))
	tooSoon := step("unconfirmed", "unconfirmed", "beyond the unconfirmed limit at depth 2 of 3", 150, 2, f.voucher(t, 90_001))
	for _, c := range []*vector.Case{&begin, &tooSoon} {
		c.Lines = slices.DeleteFunc(c.Lines, func(l vector.Line) bool { return l.Key == "latest" })
	}
	return []vector.Case{
		begin, tooSoon,
		step("next", "ok", "one entry rises", 150, 3, good),
		step("same-again", "ok", "the latest voucher again changes nothing", 150, 3, first),
		step("all", "ok", "all that the channel can pay", 150, 3, next(high-200_000, 200_000, nil)),
		step("last-block", "ok", "one block before the deadline", 1711, 3, good),
		step("other-channel", "wrong-channel", "another channel's voucher", 150, 3, next(500_000, 200_000, func(v *settle.Voucher) { v.Channel = pktcloud.ID{7} })),
		step("stale", "stale", "the sequence of the latest voucher", 150, 3, next(500_000, 200_000, func(v *settle.Voucher) { v.Sequence = 1 })),
		step("total-fell", "fell", "a lower total", 150, 3, next(300_000, 200_000, nil)),
		step("entry-fell", "fell", "one entry fell while the total rose", 150, 3, next(900_000, 199_999, nil)),
		step("entry-vanished", "fell", "one entry vanished while the total rose", 150, 3, next(700_000, 100_000, func(v *settle.Voucher) {
			v.Entries = []settle.Entry{{Lease: pktcloud.ID{1}, Cumulative: 800_000}}
		})),
		step("capacity", "capacity", "one unit beyond what the channel can pay", 150, 3, tooMuch),
		step("late", "late", "at the deadline: expiry less two margins", 1712, 3, good),
		step("proof", "proof", "a proof for one unit less", 150, 3, next(500_000, 200_000, func(v *settle.Voucher) { v.Proof = f.voucher(t, 699_999).Proof })),
		step("after-close", "closed", "after a close was signed", 150, 3, good).With("close", mustEncode(t, closeOffer)),
		base("close", "ok", "a close of exactly what was paid").With("height", 150).With("depth", 3).With("close", mustEncode(t, closeOffer)),
		base("close-below-paid", "close", "a final below the latest voucher").With("height", 150).With("depth", 3).With("close", mustEncode(t, lowOffer)),
	}
}

// turnVectors are steps of one side alone in a channel from which nothing was
// paid.
func turnVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	turn := func(name, expect, about, side, turn string, height uint64) vector.Case {
		return vector.New("turn-"+name, expect, about).With("params", mustEncode(t, f.params)).With("side", side).With("height", height).With("turn", turn)
	}
	return []vector.Case{
		turn("refund", "ok", "at the expiry height", "payer", "refund", expiry),
		turn("refund-early", "early", "one block before the expiry height", "payer", "refund", expiry-1),
		turn("refund-by-payee", "wrong-side", "by the side that is paid", "payee", "refund", expiry),
		turn("claim-by-payer", "wrong-side", "by the side that pays", "payer", "claim", 150),
		turn("abandon", "closed", "a funding that the chain has", "payer", "abandon", 150),
		turn("abandon-by-payee", "wrong-side", "by the side that did not fund it", "payee", "abandon", 150),
	}
}

func keyVectors(t *testing.T) []vector.Case {
	var cases []vector.Case
	for _, n := range pktchain.Networks() {
		for _, index := range []uint32{0, 1} {
			k := keychainOf(t, n.Rail, seedOf("payer"))
			c := vector.New(fmt.Sprintf("keys-%s-%d", n.Rail, index), "ok", "m/390'/coin'/role'/index' of a seed").
				With("rail", n.Rail).With("seed", seedOf("payer")).With("index", index)
			for _, key := range []struct {
				name   string
				public func(uint32) ([]byte, error)
			}{{"spender", k.SpenderKey}, {"refund", k.RefundKey}, {"payee", k.PayeeKey}} {
				b, err := key.public(index)
				if err != nil {
					t.Fatal(err)
				}
				c = c.With(key.name, b)
			}
			cases = append(cases, c)
		}
	}
	identity := pktcloud.IdentityKey(seedOf("payer")).Public()
	m, err := keychain(t, "payer").MoneyKey(identity)
	if err != nil {
		t.Fatal(err)
	}
	money := func(name, expect, about string, identity pktcloud.PublicKey, proof []byte) vector.Case {
		return vector.New("money-key-"+name, expect, about).With("identity", identity.String()).With("rail", m.Rail).With("key", m.Key).With("proof", proof)
	}
	return append(cases,
		money("good", "ok", "a money key that signed the identity", identity, m.Proof),
		money("other-identity", "proof", "another identity", payeeDevice.Public(), m.Proof),
		money("high-s", "proof", "S above half the order", identity, bytes.TrimSuffix(highS(append(slices.Clone(m.Proof), 1)), []byte{1})))
}

func fundingVectors(t *testing.T) []vector.Case {
	script := func(name, expect, about string, expiry uint64, refund pktchain.RefundKeys) vector.Case {
		d := fund(t, pktchain.RefundKeys{}, nil).channel.Detail
		c := vector.New("script-"+name, expect, about).With("payee", d.Payee).With("spender", d.Spender).With("expiry", expiry).With("required", refund.Required)
		for _, k := range refund.Keys {
			c = c.With("refund", k)
		}
		if s, err := pktchain.FundingScript(d.Payee, d.Spender, expiry, refund); err == nil {
			c = c.With("script", s)
		}
		return c
	}
	f := fund(t, pktchain.RefundKeys{}, nil)
	single := f.channel.Detail.Refund
	note := func(name, expect, about string, seed []byte) vector.Case {
		return vector.New("note-"+name, expect, about).With("rail", f.params.Rail).With("seed", seed).With("funding", encode(f.funding)).
			With("index", 7).With("expiry", expiry).With("capacity", capacity).With("script", f.channel.Script())
	}
	funding := func(name, expect, about string, alter func(tx *wire.MsgTx, p *settle.Params)) vector.Case {
		f := fund(t, pktchain.RefundKeys{}, alter)
		return vector.New("funding-"+name, expect, about).With("params", mustEncode(t, f.params)).With("funding", encode(f.funding)).
			With("input-amount", f.prev.Value).With("input-script", f.prev.PkScript)
	}
	return []vector.Case{
		script("single", "ok", "refund by one key", expiry, single),
		script("multi", "ok", "refund by two of three keys", expiry, multiKeys(t)),
		script("small-expiry", "ok", "an expiry that is pushed as a small number", 16, single),
		script("time-lock", "params", "an expiry that would be a time", 500_000_000, single),
		note("good", "ok", "the sealed note of a funding transaction, opened with the payer's seed", seedOf("payer")),
		note("stranger", "funding", "another seed opens nothing", seedOf("stranger")),
		funding("good", "ok", "a funding transaction in order", nil),
		funding("capacity", "funding", "an output of one unit less", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[0].Value-- }),
		funding("expiry", "funding", "the script has another expiry", func(_ *wire.MsgTx, p *settle.Params) { p.ExpiryHeight-- }),
		funding("replaceable", "funding", "an input that signals replacement", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxIn[0].Sequence = 0xfffffffd }),
		funding("lock-time", "funding", "a lock time", func(tx *wire.MsgTx, _ *settle.Params) { tx.LockTime = 100 }),
		funding("low-fee", "fee", "less than ten times the relay floor", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[2].Value += 500 }),
	}
}

func claimVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	v := f.voucher(t, 1_000_000)
	claim := func(name, expect, about string, total pktcloud.Amount, proof []byte, fee pktcloud.Amount) vector.Case {
		c := vector.New("claim-"+name, expect, about).With("params", mustEncode(t, f.params)).With("payee-seed", seedOf("payee")).
			With("payee-index", 4).With("total", uint64(total)).With("proof", proof).With("fee", uint64(fee))
		if raw, err := f.payee.Claim(f.channel, 4, settle.Voucher{Total: total, Proof: proof}, fee); err == nil {
			c = c.With("sighash", sighash(t, f.channel, raw, txscript.SigHashSingle)).With("transaction", raw)
		}
		return c
	}
	proof := func(name, expect, about string, total pktcloud.Amount, proof []byte) vector.Case {
		return vector.New("proof-"+name, expect, about).With("params", mustEncode(t, f.params)).With("total", uint64(total)).With("proof", proof)
	}
	all, err := f.signer.SignClose(v.Total, 360)
	if err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(v.Proof)
	other[len(other)-1] = 0x83
	return []vector.Case{
		claim("low-fee", "ok", "the least fee", v.Total, v.Proof, f.channel.ClaimFee(0)),
		claim("high-fee", "ok", "the same proof at a high fee", v.Total, v.Proof, 250_000),
		claim("below-floor", "fee", "a fee that nodes do not relay", v.Total, v.Proof, f.channel.ClaimFee(0)-1),
		claim("dust", "dust", "a fee that leaves dust to the payee", v.Total, v.Proof, v.Total+reserve-293),
		claim("other-total", "proof", "a proof for another total", v.Total+1, v.Proof, 300),
		proof("good", "ok", "SIGHASH_SINGLE, low S, strict DER", v.Total, v.Proof),
		proof("other-total", "proof", "a proof for another total", v.Total-1, v.Proof),
		proof("zero", "capacity", "a total of zero", 0, v.Proof),
		proof("beyond", "capacity", "a total beyond what the channel pays", f.params.Spendable()+1, v.Proof),
		proof("high-s", "proof", "S above half the order", v.Total, highS(v.Proof)),
		proof("padded", "proof", "R with a needless zero byte", v.Total, padR(v.Proof)),
		proof("sighash-all", "proof", "the signature of a close", v.Total, all),
		proof("anyone-can-pay", "proof", "another signature type", v.Total, other),
	}
}

func endVectors(t *testing.T) []vector.Case {
	f := fund(t, pktchain.RefundKeys{}, nil)
	closing := func(name, expect, about string, final, fee pktcloud.Amount, spoil func(sig []byte)) vector.Case {
		sig, err := f.signer.SignClose(final, fee)
		if err != nil {
			sig = f.offer(t, 1_000_000, 360).Signature
		}
		if spoil != nil {
			spoil(sig)
		}
		c := vector.New("close-"+name, expect, about).With("params", mustEncode(t, f.params)).With("payee-seed", seedOf("payee")).
			With("payee-index", 4).With("final", uint64(final)).With("fee", uint64(fee)).With("signature", sig)
		o := settle.CloseOffer{Final: final, Fee: fee, Signature: sig}
		if raw, err := f.payee.CompleteClose(f.channel, 4, o); err == nil {
			c = c.With("sighash", sighash(t, f.channel, raw, txscript.SigHashAll)).With("transaction", raw)
		}
		return c
	}
	refund := func(name, expect, about string, f fixture, index uint32, fee pktcloud.Amount, seeds ...string) vector.Case {
		c := vector.New("refund-"+name, expect, about).With("params", mustEncode(t, f.params)).With("index", index).With("fee", uint64(fee))
		var sigs [][]byte
		for _, s := range seeds {
			c = c.With("refund-seed", seedOf(s))
			if sig, err := keychain(t, s).SignRefund(f.channel, index, fee); err == nil {
				sigs = append(sigs, sig)
			}
		}
		if raw, err := f.channel.Refund(fee, sigs); err == nil {
			c = c.With("sighash", sighash(t, f.channel, raw, txscript.SigHashAll)).With("transaction", raw)
		}
		return c
	}
	multi := fund(t, multiKeys(t), nil)
	return []vector.Case{
		closing("two-outputs", "ok", "exactly the final to the payee, the rest to the payer", 1_000_000, 360, nil),
		closing("nothing-paid", "ok", "a final of zero: the payee's output is left out", 0, 360, nil),
		closing("all-paid", "ok", "a rest of zero: the payer's output is left out", capacity-400, 400, nil),
		closing("dust-final", "dust", "a final that is dust", 293, 360, nil),
		closing("dust-rest", "dust", "a rest that is dust", capacity-400-293, 400, nil),
		closing("low-fee", "fee", "a fee that nodes do not relay", 1_000_000, 179, nil),
		closing("too-much", "close", "final and fee exceed the capacity", capacity, 1, nil),
		closing("signature", "proof", "a changed signature", 1_000_000, 360, func(sig []byte) { sig[8] ^= 1 }),
		refund("single", "ok", "by the key that the seed derives", f, 7, 400, "payer"),
		refund("multi", "ok", "by two of three keys", multi, 0, 600, "a", "c"),
		refund("wrong-key", "proof", "by the key of another index", f, 8, 400, "payer"),
		refund("one-of-two", "proof", "one signature where two are needed", multi, 0, 600, "a"),
		refund("low-fee", "fee", "a fee that nodes do not relay", f, 7, f.channel.RefundFee(0)-1, "payer"),
	}
}
