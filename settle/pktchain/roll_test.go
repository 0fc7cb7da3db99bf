package pktchain_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	rollVectorDir = "../../spec/vectors/roll"
	rollCapacity  = 8_000_000
	rollPaid      = 1_000_000
	rollFee       = 4_000
)

// rolled is a top-up: the fixture's channel rolls into a successor that one coin
// of the wallet adds money to.
type rolled struct {
	fixture
	to      fixture // its params, channel and signer alone
	coin    *wire.TxOut
	tx      *wire.MsgTx
	voucher settle.Voucher // the predecessor's
}

// rollOf makes one; alter may change it before the wallet signs its input, and
// spoil after that.
func rollOf(t testing.TB, alter func(tx *wire.MsgTx, p *settle.Params), spoil func(tx *wire.MsgTx)) rolled {
	t.Helper()
	r := rolled{fixture: fund(t, pktchain.RefundKeys{}, nil)}
	plan := r.plan
	plan.Index, plan.Expiry, plan.Capacity = 8, 2*expiry, rollCapacity
	outputs, err := r.payer.FundingOutputs(plan)
	if err != nil {
		t.Fatal(err)
	}
	outScript := script("payer change")
	r.coin = wire.NewTxOut(rollCapacity-capacity+rollFee+change, script("roll coin"))
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: r.funding.TxHash()}, Sequence: 0xfffffffd})
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: sha256.Sum256([]byte("before the roll"))}, Sequence: 0xfffffffe})
	for _, o := range outputs {
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
	}
	tx.AddTxOut(wire.NewTxOut(change, outScript))
	r.to.params = r.params
	r.to.params.Capacity, r.to.params.ExpiryHeight = rollCapacity, 2*expiry
	if alter != nil {
		alter(tx, &r.to.params)
	}
	r.sign(t, tx)
	if spoil != nil {
		spoil(tx)
	}
	r.tx = tx
	plan.Capacity = pktcloud.Amount(tx.TxOut[0].Value)
	d, err := r.payer.DetailOf(plan, encode(tx))
	if err != nil {
		t.Fatal(err)
	}
	if r.to.params.Detail, err = d.Encode(); err != nil {
		t.Fatal(err)
	}
	if r.to.channel, err = pktchain.ChannelOf(network(t), r.to.params); err != nil {
		t.Fatal(err)
	}
	if r.to.signer, err = r.payer.Signer(r.to.channel, plan.Index); err != nil {
		t.Fatal(err)
	}
	r.voucher = r.fixture.voucher(t, rollPaid)
	return r
}

// sign signs the wallet's input.
func (r rolled) sign(t testing.TB, tx *wire.MsgTx) {
	t.Helper()
	key, script := coin("roll coin")
	fetch := txscript.NewMultiPrevOutFetcher(map[wire.OutPoint]*wire.TxOut{
		{Hash: r.funding.TxHash()}: r.funding.TxOut[0],
	})
	for _, in := range tx.TxIn {
		fetch.AddPrevOut(in.PreviousOutPoint, r.coin)
	}
	for i := 1; i < len(tx.TxIn); i++ {
		witness, err := txscript.WitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), i, r.coin.Value, script, txscript.SigHashAll, key, true)
		if err != nil {
			t.Fatal(err)
		}
		tx.TxIn[i].Witness = witness
	}
}

// signature is the payer's, of the roll as it is.
func (r rolled) signature(t testing.TB) []byte {
	t.Helper()
	roll, err := r.channel.ReadRoll(r.to.channel, encode(r.tx))
	if err != nil {
		return r.voucher.Proof // a roll that nobody reads
	}
	sig, err := r.signer.SignRoll(roll)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// output answers as a ledger that knows the wallet's coin.
func (r rolled) output(at settle.Outpoint) (settle.Output, error) {
	if at.TxID != sha256.Sum256([]byte("before the roll")) {
		return settle.Output{}, nil
	}
	return settle.Output{Known: true, Depth: 1, Amount: pktcloud.Amount(r.coin.Value), Script: r.coin.PkScript}, nil
}

// first is the successor's first voucher.
func (r rolled) first(t testing.TB) pktcloud.Signed[settle.Voucher] {
	t.Helper()
	return r.pays(t, r.to, 1, rollPaid)
}

func (r rolled) pays(t testing.TB, of fixture, sequence uint64, total pktcloud.Amount) pktcloud.Signed[settle.Voucher] {
	t.Helper()
	v := of.voucher(t, total)
	v.Sequence = sequence
	s, err := pktcloud.Seal(payerDevice, v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r rolled) rollOffer(t testing.TB) settle.RollOffer {
	t.Helper()
	id, err := r.params.ID()
	if err != nil {
		t.Fatal(err)
	}
	late, err := r.to.signer.SignLate(rollPaid)
	if err != nil {
		t.Fatal(err)
	}
	return settle.RollOffer{
		Version: settle.RollOfferVersion, Channel: id, Successor: r.to.params, First: r.first(t), Late: late,
		Tx: encode(r.tx), Signature: r.signature(t),
	}
}

// TestRollVectors makes the vectors of spec/roll.md, compares them with the
// files, and answers what the files ask.
func TestRollVectors(t *testing.T) {
	made := slices.Concat(rollTxVectors(t), rollOfferVectors(t), rollStepVectors(t), rollPayVectors(t))
	cases, err := vector.Sync(rollVectorDir, "", made, *update)
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]func(*testing.T, vector.Case) error{"tx": runRollTx, "offer": runRollOffer, "step": runRollStep, "pay": runRollPay}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			kind, _, _ := strings.Cut(c.Name, "-")
			got := "ok"
			if err := run[kind](t, c); err != nil {
				var refusal *settle.Error
				if !errors.As(err, &refusal) {
					t.Fatalf("got %v, which is no refusal", err)
				}
				got = refusal.Code.String()
			}
			if want := c.Value("expect"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func rollTxVectors(t *testing.T) []vector.Case {
	made := func(name, expect, about string, alter func(*wire.MsgTx, *settle.Params), spoil func(*wire.MsgTx), sign func(rolled, []byte) []byte) vector.Case {
		r := rollOf(t, alter, spoil)
		sig := r.signature(t)
		if sign != nil {
			sig = sign(r, sig)
		}
		c := vector.New("tx-"+name, expect, about).With("params", mustEncode(t, r.params)).With("successor", mustEncode(t, r.to.params)).
			With("roll", encode(r.tx)).With("signature", sig).With("coin-amount", r.coin.Value).With("coin-script", r.coin.PkScript)
		if expect == "ok" {
			roll, err := r.channel.ReadRoll(r.to.channel, encode(r.tx))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := r.payee.CompleteRoll(roll, 4, sig)
			if err != nil {
				t.Fatal(err)
			}
			c = c.With("payee-seed", seedOf("payee")).With("payee-index", 4).With("sighash", sighash(t, r.channel, raw, txscript.SigHashAll)).With("transaction", raw)
		}
		return c
	}
	shape := func(name, expect, about string, alter func(*wire.MsgTx, *settle.Params)) vector.Case {
		return made(name, expect, about, alter, nil, nil)
	}
	return []vector.Case{
		shape("good", "ok", "a top-up with one coin of the wallet", nil),
		shape("high-fee", "fee", "more than a thousand times the relay floor", func(tx *wire.MsgTx, p *settle.Params) {
			tx.TxOut[0].Value -= 700_000
			p.Capacity -= 700_000
		}),
		shape("low-fee", "fee", "less than ten times the relay floor", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[2].Value += 1_000 }),
		shape("takes-out", "roll", "the successor has less, and the difference goes to the payer", func(tx *wire.MsgTx, p *settle.Params) {
			moved := int64(rollCapacity - capacity + 10_000)
			tx.TxOut[0].Value -= moved
			tx.TxOut[2].Value += moved
			p.Capacity = pktcloud.Amount(tx.TxOut[0].Value)
		}),
		shape("outputs-exceed", "roll", "outputs exceed inputs", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxOut[2].Value += 2 * rollFee }),
		shape("final", "roll", "an input 0 that no claim could replace", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxIn[0].Sequence = 0xffffffff }),
		shape("replaceable", "roll", "a coin's input that signals replacement", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxIn[1].Sequence = 0xfffffffd }),
		shape("lock-time", "roll", "a lock time", func(tx *wire.MsgTx, _ *settle.Params) { tx.LockTime = 100 }),
		shape("version", "roll", "version 1", func(tx *wire.MsgTx, _ *settle.Params) { tx.Version = 1 }),
		shape("other-order", "roll", "the predecessor's funding is not the first input", func(tx *wire.MsgTx, _ *settle.Params) {
			tx.TxIn[0].PreviousOutPoint, tx.TxIn[1].PreviousOutPoint = tx.TxIn[1].PreviousOutPoint, tx.TxIn[0].PreviousOutPoint
		}),
		shape("input-twice", "roll", "an input is listed twice", func(tx *wire.MsgTx, _ *settle.Params) { tx.AddTxIn(tx.TxIn[1]) }),
		shape("capacity", "roll", "the output has one unit less than the capacity", func(_ *wire.MsgTx, p *settle.Params) { p.Capacity++ }),
		shape("expiry", "roll", "the script has another expiry", func(_ *wire.MsgTx, p *settle.Params) { p.ExpiryHeight++ }),
		shape("unknown-coin", "funding", "a coin that the chain does not know as unspent", func(tx *wire.MsgTx, _ *settle.Params) { tx.TxIn[1].PreviousOutPoint.Index = 1 }),
		withCoin(shape("other-script", "funding", "a coin that is not P2WPKH", nil), append([]byte{0, 32}, make([]byte, 32)...)),
		made("wrong-witness", "roll", "a coin's signature that does not hold", nil, func(tx *wire.MsgTx) { tx.TxIn[1].Witness[0][10] ^= 1 }, nil),
		made("unsigned-coin", "roll", "a coin without signature", nil, func(tx *wire.MsgTx) { tx.TxIn[1].Witness = nil }, nil),
		made("signed-before", "roll", "input 0 has a witness", nil, func(tx *wire.MsgTx) { tx.TxIn[0].Witness = wire.TxWitness{{1}} }, nil),
		made("wrong-signature", "proof", "the signature of a voucher", nil, nil, func(r rolled, _ []byte) []byte { return r.voucher.Proof }),
		made("wrong-type", "proof", "another type of signature", nil, nil, func(_ rolled, sig []byte) []byte {
			return append(slices.Clone(sig[:len(sig)-1]), byte(txscript.SigHashSingle))
		}),
	}
}

// withCoin is a vector whose roll spends another coin.
func withCoin(c vector.Case, script []byte) vector.Case {
	for i := range c.Lines {
		if c.Lines[i].Key == "coin-script" {
			c.Lines[i].Value = hex.EncodeToString(script)
		}
	}
	return c
}

func runRollTx(t *testing.T, c vector.Case) error {
	from := channelOf(t, c)
	p, err := settle.ParseParams(c.Bytes("successor"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := pktchain.ChannelOf(from.Network, p)
	if err != nil {
		return err
	}
	roll, err := from.ReadRoll(to, c.Bytes("roll"))
	if err != nil {
		return err
	}
	roll, err = roll.Verify(to, c.Bytes("signature"), func(at settle.Outpoint) (settle.Output, error) {
		return settle.Output{Known: at.Index == 0, Depth: 1, Amount: amount(t, c, "coin-amount"), Script: c.Bytes("coin-script")}, nil
	})
	if err != nil {
		return err
	}
	raw, err := keychainOf(t, from.Network.Rail, c.Bytes("payee-seed")).CompleteRoll(roll, uint32(number(t, c, "payee-index")), c.Bytes("signature"))
	if err == nil {
		same(t, "transaction", raw, c.Bytes("transaction"))
		same(t, "sighash", sighash(t, from, raw, txscript.SigHashAll), c.Bytes("sighash"))
		err = roll.Completed(raw)
	}
	return err
}

func rollOfferVectors(t *testing.T) []vector.Case {
	o := rollOf(t, nil, nil).rollOffer(t)
	return append(faults("offer-", func(o settle.RollOffer) []byte { return mustEncode(t, o) }, func() settle.RollOffer { return o }, []fault[settle.RollOffer]{
		{"version", "malformed", "an unknown version", func(o *settle.RollOffer) { o.Version = 0 }},
		{"no-transaction", "malformed", "no transaction", func(o *settle.RollOffer) { o.Tx = nil }},
		{"no-signature", "malformed", "no signature", func(o *settle.RollOffer) { o.Signature = nil }},
		{"long-late", "malformed", "a late signature of 129 bytes", func(o *settle.RollOffer) { o.Late = make([]byte, 129) }},
		{"successor", "params", "a successor whose payer is its payee", func(o *settle.RollOffer) { o.Successor.Payee = o.Successor.Payer }},
	}), vector.New("offer-trailing", "malformed", "a byte too many").With("bytes", append(mustEncode(t, o), 0)))
}

func runRollOffer(_ *testing.T, c vector.Case) error {
	_, err := settle.ParseRollOffer(c.Bytes("bytes"))
	return err
}

func rollStepVectors(t *testing.T) []vector.Case {
	r := rollOf(t, nil, nil)
	step := func(name, expect, about string, height, depth uint64, spoil func(o *settle.RollOffer)) vector.Case {
		o := r.rollOffer(t)
		if spoil != nil {
			spoil(&o)
		}
		return vector.New("step-"+name, expect, about).With("params", mustEncode(t, r.params)).With("latest", sealed(t, r.voucher)).
			With("height", height).With("depth", depth).With("offer", mustEncode(t, o))
	}
	unpaid := step("unpaid", "ok", "nothing was paid, and no voucher comes along", 150, 3, func(o *settle.RollOffer) {
		o.First, o.Late = pktcloud.Signed[settle.Voucher]{}, nil
	})
	from := step("from-nothing", "roll", "a first voucher where nothing was paid", 150, 3, nil)
	for _, c := range []*vector.Case{&unpaid, &from} {
		c.Lines = slices.DeleteFunc(c.Lines, func(l vector.Line) bool { return l.Key == "latest" })
	}
	return []vector.Case{
		unpaid, from,
		step("good", "ok", "what was paid is carried over", 150, 3, nil),
		step("last-block", "ok", "one block before no roll may begin", 1708, 3, nil),
		step("late", "late", "the deadline less the depth", 1709, 3, nil),
		step("shallow", "unconfirmed", "the predecessor's own funding is not deep", 150, 2, nil),
		step("other-channel", "wrong-channel", "the roll of another channel", 150, 3, func(o *settle.RollOffer) { o.Channel = pktcloud.ID{7} }),
		step("other-payee", "params", "another payee", 150, 3, func(o *settle.RollOffer) { o.Successor.Payee = pktcloud.NewPrivateKey([32]byte{9}).Public() }),
		step("reserve", "params", "less reserve", 150, 3, func(o *settle.RollOffer) { o.Successor.Reserve-- }),
		step("margin", "params", "a smaller margin", 150, 3, func(o *settle.RollOffer) { o.Successor.MarginBlocks-- }),
		step("depth", "params", "less depth", 150, 3, func(o *settle.RollOffer) { o.Successor.MinDepth-- }),
		step("unconfirmed-limit", "params", "more trust before it is deep", 150, 3, func(o *settle.RollOffer) { o.Successor.Unconfirmed++ }),
		step("sooner", "params", "an expiry before the predecessor's", 150, 3, func(o *settle.RollOffer) { o.Successor.ExpiryHeight = expiry - 1 }),
		step("too-small", "capacity", "a successor that cannot pay what is paid", 150, 3, func(o *settle.RollOffer) {
			o.Successor.Capacity = rollPaid + reserve
		}),
		step("no-voucher", "roll", "no first voucher", 150, 3, func(o *settle.RollOffer) { o.First = pktcloud.Signed[settle.Voucher]{} }),
		step("less-paid", "roll", "one unit less than was paid", 150, 3, func(o *settle.RollOffer) { o.First = r.pays(t, r.to, 1, rollPaid-1) }),
		step("sequence", "roll", "a first voucher of sequence 2", 150, 3, func(o *settle.RollOffer) { o.First = r.pays(t, r.to, 2, rollPaid) }),
		step("no-late-proof", "roll", "no late proof", 150, 3, func(o *settle.RollOffer) { o.Late = nil }),
		step("proof", "proof", "the first voucher has the predecessor's proof", 150, 3, func(o *settle.RollOffer) {
			v := o.First.Body
			v.Proof = r.voucher.Proof
			s, err := pktcloud.Seal(payerDevice, v)
			if err != nil {
				t.Fatal(err)
			}
			o.First = s
		}),
	}
}

// rollState is the payee's channel of a vector before the offer, and the offer.
func rollState(t *testing.T, c vector.Case) (settle.Channel, settle.RollOffer) {
	t.Helper()
	p, err := settle.ParseParams(c.Bytes("params"))
	if err != nil {
		t.Fatal(err)
	}
	ch, err := settle.NewChannel(p, settle.Payee, 100)
	if err != nil {
		t.Fatal(err)
	}
	ch = ch.Observe(settle.Observation{Height: 140, Funded: true, Depth: 3})
	if c.Value("latest") != "" {
		v, err := settle.ParseVoucher(c.Bytes("latest"))
		if err != nil {
			t.Fatal(err)
		}
		if ch, err = ch.Accept(v, pktchain.Rail{Network: networkOf(t, p.Rail)}); err != nil {
			t.Fatal(err)
		}
	}
	o, err := settle.ParseRollOffer(c.Bytes("offer"))
	if err != nil {
		t.Fatal(err)
	}
	return ch, o
}

func runRollStep(t *testing.T, c vector.Case) error {
	ch, o := rollState(t, c)
	ch = ch.Observe(settle.Observation{Height: number(t, c, "height"), Funded: true, Depth: number(t, c, "depth")})
	pair, err := ch.Roll(o, [32]byte{1}, pktchain.Rail{Network: networkOf(t, ch.Params.Rail)})
	if err != nil {
		return err
	}
	return pair.Check()
}

func rollPayVectors(t *testing.T) []vector.Case {
	r := rollOf(t, nil, nil)
	const trust = 90_000
	pay := func(name, expect, about string, to, from pktcloud.Amount) vector.Case {
		c := vector.New("pay-"+name, expect, about).With("params", mustEncode(t, r.params)).With("latest", sealed(t, r.voucher)).
			With("offer", mustEncode(t, r.rollOffer(t))).With("voucher", mustEncode(t, r.pays(t, r.to, 2, to)))
		if from > 0 {
			c = c.With("predecessor-voucher", mustEncode(t, r.pays(t, r.fixture, 2, from)))
		}
		return c
	}
	return []vector.Case{
		pay("both", "ok", "both say the same", rollPaid+500_000, rollPaid+500_000),
		pay("alone", "ok", "the successor alone, within the unconfirmed limit", rollPaid+trust, 0),
		pay("alone-too-much", "unconfirmed", "the successor alone, beyond the limit", rollPaid+trust+1, 0),
		pay("exceeds", "ok", "the predecessor's and the limit above it", rollPaid+500_000+trust, rollPaid+500_000),
		pay("exceeds-too-much", "unconfirmed", "one unit more than the predecessor's and the limit", rollPaid+500_000+trust+1, rollPaid+500_000),
		pay("uncovered", "rolling", "the predecessor's says more than the successor's", rollPaid+500_000, rollPaid+500_001),
		pay("fell", "fell", "the predecessor's fell", rollPaid+10, rollPaid-1),
	}
}

func runRollPay(t *testing.T, c vector.Case) error {
	ch, o := rollState(t, c)
	rail := pktchain.Rail{Network: networkOf(t, ch.Params.Rail)}
	pair, err := ch.Roll(o, [32]byte{1}, rail)
	if err != nil {
		t.Fatal(err)
	}
	to, err := settle.ParseVoucher(c.Bytes("voucher"))
	if err != nil {
		t.Fatal(err)
	}
	var from pktcloud.Signed[settle.Voucher]
	if c.Value("predecessor-voucher") != "" {
		if from, err = settle.ParseVoucher(c.Bytes("predecessor-voucher")); err != nil {
			t.Fatal(err)
		}
	}
	rails := map[pktcloud.ID]settle.Rail{}
	for _, ch := range []settle.Channel{pair.From, pair.To} {
		chain, err := pktchain.ChannelOf(rail.Network, ch.Params)
		if err != nil {
			t.Fatal(err)
		}
		rails[ch.ID] = chain.Rail()
	}
	next, err := pair.Accept(to, from, rails[pair.To.ID], rails[pair.From.ID])
	if err != nil {
		return err
	}
	return next.Check()
}

// A roll's fee lies within its limits, to the unit.
func TestRollFees(t *testing.T) {
	for _, limit := range []pktcloud.Amount{pktchain.FundingFeeFactor, pktchain.MaxRollFeeFactor} {
		refused := map[bool]int{}
		for around := range 40 {
			r := rollOf(t, func(tx *wire.MsgTx, p *settle.Params) {
				less := int64(limit)*342 - rollFee + int64(around-20)*int64(limit)/8
				tx.TxOut[0].Value -= less
				p.Capacity -= pktcloud.Amount(less)
			}, nil)
			full := r.tx.Copy()
			full.TxIn[0].Witness = wire.TxWitness{nil, make([]byte, 72), make([]byte, 72), {1}, r.channel.Script()}
			edge := pktcloud.Amount(vsize(full)) * limit
			fee := pktcloud.Amount(r.coin.Value) + capacity
			for _, out := range r.tx.TxOut {
				fee -= pktcloud.Amount(out.Value)
			}
			roll, err := r.channel.ReadRoll(r.to.channel, encode(r.tx))
			if err != nil {
				t.Fatal(err)
			}
			roll, err = roll.Verify(r.to.channel, r.signature(t), r.output)
			bad := limit == pktchain.FundingFeeFactor && fee < edge || limit == pktchain.MaxRollFeeFactor && fee > edge
			if refused[bad]++; bad != (err != nil) || bad && !errors.Is(err, settle.ErrFee) {
				t.Errorf("a fee of %d units, the limit is %d: got %v", uint64(fee), uint64(edge), err)
			}
			if err == nil && (roll.Level.Fee != fee || roll.Level.VBytes != uint64(vsize(full))) {
				t.Errorf("got the level %+v, want %d units for %d bytes", roll.Level, uint64(fee), vsize(full))
			}
		}
		if refused[true] == 0 || refused[false] == 0 {
			t.Errorf("limit %d: got %v, want both", uint64(limit), refused)
		}
	}
}

// A claim at the fee that beats a roll replaces it, whatever its size.
func TestClaimBeatsRoll(t *testing.T) {
	r := rollOf(t, nil, nil)
	roll, err := r.channel.ReadRoll(r.to.channel, encode(r.tx))
	if err != nil {
		t.Fatal(err)
	}
	if roll, err = roll.Verify(r.to.channel, r.signature(t), r.output); err != nil {
		t.Fatal(err)
	}
	raw, err := r.payee.Claim(r.channel, 4, r.voucher, r.channel.FeeAbove(roll.Level))
	if err != nil {
		t.Fatal(err)
	}
	level, err := r.channel.LevelOf(raw)
	if err != nil || !level.Beats(roll.Level, network(t)) {
		t.Errorf("got %+v, %v, which does not beat %+v", level, err, roll.Level)
	}
}

// The payee's answer is the roll and nothing else.
func TestRollCompleted(t *testing.T) {
	r := rollOf(t, nil, nil)
	roll, err := r.channel.ReadRoll(r.to.channel, encode(r.tx))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.payee.CompleteRoll(roll, 4, r.signature(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := roll.Completed(raw); err != nil {
		t.Errorf("the payee's answer: %v", err)
	}
	_, err = r.payer.CompleteRoll(roll, 4, r.signature(t))
	wantCode(t, err, settle.ErrProof)
	spoilt := func(what string, want settle.Code, spoil func(tx *wire.MsgTx)) {
		t.Helper()
		tx := decode(t, raw)
		spoil(tx)
		if err := roll.Completed(encode(tx)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	spoilt("an output changed", settle.ErrRoll, func(tx *wire.MsgTx) { tx.TxOut[0].Value-- })
	spoilt("the coin's signature changed", settle.ErrRoll, func(tx *wire.MsgTx) { tx.TxIn[1].Witness[0][10] ^= 1 })
	spoilt("the payee's signature changed", settle.ErrProof, func(tx *wire.MsgTx) { tx.TxIn[0].Witness[1][10] ^= 1 })
	spoilt("no signature", settle.ErrProof, func(tx *wire.MsgTx) { tx.TxIn[0].Witness = nil })
	wantCode(t, roll.Completed(raw[1:]), settle.ErrMalformed)
	wantCode(t, roll.Completed(make([]byte, settle.MaxRollBytes+pktchain.MaxEndingBytes+1)), settle.ErrMalformed)
	_, err = r.channel.ReadRoll(r.to.channel, make([]byte, settle.MaxRollBytes+1))
	wantCode(t, err, settle.ErrMalformed)
}

// The successor pays to the same scripts and the same payee's key.
func TestRollKeepsThePayee(t *testing.T) {
	r := rollOf(t, nil, nil)
	for name, change := range map[string]func(d *pktchain.Detail){
		"payee's key":    func(d *pktchain.Detail) { d.Payee = d.Refund.Keys[0] },
		"payee's script": func(d *pktchain.Detail) { d.PayeeScript = script("elsewhere") },
		"payer's script": func(d *pktchain.Detail) { d.PayerScript = script("elsewhere") },
	} {
		p := r.to.params
		d := r.to.channel.Detail
		change(&d)
		var err error
		if p.Detail, err = d.Encode(); err != nil {
			t.Fatal(err)
		}
		to, err := pktchain.ChannelOf(network(t), p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.channel.ReadRoll(to, encode(r.tx)); !errors.Is(err, settle.ErrParams) {
			t.Errorf("another %s: got %v, want %v", name, err, settle.ErrParams)
		}
	}
}

// Without a wallet's coin the successor has what there was, less the fee.
func TestRollAlone(t *testing.T) {
	f := fund(t, pktchain.RefundKeys{}, nil)
	for _, rate := range []pktcloud.Amount{0, 10_000, 25_000} {
		plan := f.plan
		plan.Index = 8
		raw, err := f.payer.RollAlone(f.channel, &plan, rate)
		if err != nil {
			t.Fatal(err)
		}
		tx := decode(t, raw)
		tx.TxIn[0].Witness = wire.TxWitness{nil, make([]byte, 72), make([]byte, 72), {1}, f.channel.Script()}
		want := capacity - pktcloud.Amount(vsize(tx))*max(rate, 10_000)/1000
		if plan.Capacity != want || pktcloud.Amount(tx.TxOut[0].Value) != want || len(tx.TxIn) != 1 {
			t.Errorf("at a rate of %d: got a capacity of %d units, want %d", uint64(rate), uint64(plan.Capacity), uint64(want))
		}
		r, err := f.payer.Restore(raw, pktchain.RefundKeys{})
		if err != nil || r.Index != 8 || r.Capacity != want {
			t.Errorf("from the phrase: got %+v, %v", r, err)
		}
	}
	plan := f.plan
	_, err := f.payer.RollAlone(f.channel, &plan, 100_000_000_000)
	wantCode(t, err, settle.ErrFee)
	if in := f.channel.RollInput(); in.Amount != capacity || in.At != f.channel.Detail.Funding || string(in.Script) != string(f.channel.PkScript()) {
		t.Errorf("got the input %+v", in)
	}
	if got := f.channel.RollBytes(); got != 108 {
		t.Errorf("got an input of %d virtual bytes, want 108", got)
	}
}
