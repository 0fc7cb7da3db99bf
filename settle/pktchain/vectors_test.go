package pktchain_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../spec/vectors/settle"

// runners answer a vector from its file alone, by the first word of its name.
var runners = map[string]func(t *testing.T, c vector.Case) error{
	"params": func(_ *testing.T, c vector.Case) error { _, err := settle.ParseParams(c.Bytes("bytes")); return err },
	"voucher": func(_ *testing.T, c vector.Case) error {
		_, err := settle.ParseVoucher(c.Bytes("bytes"))
		return err
	},
	"offer": func(_ *testing.T, c vector.Case) error {
		_, err := settle.ParseCloseOffer(c.Bytes("bytes"))
		return err
	},
	"payee": func(_ *testing.T, c vector.Case) error {
		_, err := pktchain.ParsePayeeDetail(c.Bytes("bytes"))
		return err
	},
	"detail": func(_ *testing.T, c vector.Case) error { _, err := pktchain.ParseDetail(c.Bytes("bytes")); return err },
	"step":   runStep, "turn": runTurn, "keys": runKeys, "script": runScript, "note": runNote, "funding": runFunding,
	"claim": runClaim, "proof": runProof, "close": runClose, "refund": runRefund, "money": runMoney,
	"late": runLate, "ending": runEnding, "channel": runChannel, "depth": runDepth,
	"recall": runRecall, "shown": runShown, "resume": runResume,
}

// TestVectors makes the vectors of spec/settle.md, compares them with the
// files, and answers what the files ask.
func TestVectors(t *testing.T) {
	made := slices.Concat(recordVectors(t), detailVectors(t), stepVectors(t), turnVectors(t), keyVectors(t), fundingVectors(t), claimVectors(t), endVectors(t),
		lateVectors(t), endingVectors(t), manyVectors(t), restoreVectors(t))
	cases, err := vector.Sync(vectorDir, "", made, *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			kind, _, _ := strings.Cut(strings.TrimPrefix(c.Name, "close-offer-"), "-")
			if strings.HasPrefix(c.Name, "close-offer-") {
				kind = "offer"
			}
			run := runners[kind]
			if run == nil {
				t.Fatalf("no runner for %q", kind)
			}
			got := "ok"
			if err := run(t, c); err != nil {
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

func number(t *testing.T, c vector.Case, key string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(c.Value(key), 10, 64)
	if err != nil {
		t.Fatalf("vector %s: %s: %v", c.Name, key, err)
	}
	return n
}

func amount(t *testing.T, c vector.Case, key string) pktcloud.Amount {
	t.Helper()
	return pktcloud.Amount(number(t, c, key))
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

// channelOf reads the channel of a vector.
func channelOf(t *testing.T, c vector.Case) pktchain.Channel {
	t.Helper()
	p, err := settle.ParseParams(c.Bytes("params"))
	if err != nil {
		t.Fatal(err)
	}
	ch, err := pktchain.ChannelOf(networkOf(t, p.Rail), p)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func networkOf(t *testing.T, rail string) pktchain.Network {
	t.Helper()
	n, ok := pktchain.NetworkOf(rail)
	if !ok {
		t.Fatalf("no rail %q", rail)
	}
	return n
}

func keychainOf(t *testing.T, rail string, seed []byte) *pktchain.Keychain {
	t.Helper()
	k, err := pktchain.NewKeychain(networkOf(t, rail), seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func runStep(t *testing.T, c vector.Case) error {
	p, err := settle.ParseParams(c.Bytes("params"))
	if err != nil {
		t.Fatal(err)
	}
	ch, err := settle.NewChannel(p, settle.Payee, 100)
	if err != nil {
		t.Fatal(err)
	}
	rail := pktchain.Rail{Network: networkOf(t, p.Rail)}
	if b := c.Bytes("latest"); len(b) > 0 {
		latest, err := settle.ParseVoucher(b)
		if err != nil {
			t.Fatal(err)
		}
		ch = ch.Observe(settle.Observation{Height: 101, Funded: true, Depth: p.MinDepth})
		if ch, err = ch.Accept(latest, rail); err != nil {
			t.Fatal(err)
		}
	}
	ch = ch.Observe(settle.Observation{Height: number(t, c, "height"), Funded: true, Depth: number(t, c, "depth")})
	if c.Value("close") != "" {
		o, err := settle.ParseCloseOffer(c.Bytes("close"))
		if err != nil {
			t.Fatal(err)
		}
		if ch, err = ch.AcceptClose(o, rail); err != nil {
			return err
		}
		if c.Value("voucher") == "" {
			return nil
		}
	}
	v, err := settle.ParseVoucher(c.Bytes("voucher"))
	if err != nil {
		return err
	}
	after, err := ch.Accept(v, rail)
	if err == nil && uint64(after.Paid()) != number(t, c, "paid") {
		t.Errorf("paid: got %d, want %s", uint64(after.Paid()), c.Value("paid"))
	}
	return err
}

// turns are the steps that a side takes without the other.
var turns = map[string]func(settle.Channel) (settle.Channel, error){
	"refund": settle.Channel.Refund, "claim": settle.Channel.Claim, "abandon": settle.Channel.Abandon,
}

func runTurn(t *testing.T, c vector.Case) error {
	p, err := settle.ParseParams(c.Bytes("params"))
	if err != nil {
		t.Fatal(err)
	}
	role := settle.Payer
	if c.Value("side") == "payee" {
		role = settle.Payee
	}
	ch, err := settle.NewChannel(p, role, 100)
	if err != nil {
		t.Fatal(err)
	}
	ch = ch.Observe(settle.Observation{Height: number(t, c, "height"), Funded: true, Depth: p.MinDepth})
	after, err := turns[c.Value("turn")](ch)
	if err != nil && !reflect.DeepEqual(after, ch) {
		t.Errorf("a step that is refused left %+v, want %+v", after, ch)
	}
	return err
}

func runKeys(t *testing.T, c vector.Case) error {
	k := keychainOf(t, c.Value("rail"), c.Bytes("seed"))
	index := uint32(number(t, c, "index"))
	for name, public := range map[string]func(uint32) ([]byte, error){"spender": k.SpenderKey, "refund": k.RefundKey, "payee": k.PayeeKey} {
		got, err := public(index)
		if err != nil {
			return err
		}
		same(t, name, got, c.Bytes(name))
	}
	return nil
}

func runScript(t *testing.T, c vector.Case) error {
	refund := pktchain.RefundKeys{Required: number(t, c, "required")}
	for _, l := range c.Lines {
		if l.Key == "refund" {
			key, err := hex.DecodeString(l.Value)
			if err != nil {
				t.Fatal(err)
			}
			refund.Keys = append(refund.Keys, key)
		}
	}
	got, err := pktchain.FundingScript(c.Bytes("payee"), c.Bytes("spender"), number(t, c, "expiry"), refund)
	if err == nil {
		same(t, "script", got, c.Bytes("script"))
	}
	return err
}

func runNote(t *testing.T, c vector.Case) error {
	all, err := keychainOf(t, c.Value("rail"), c.Bytes("seed")).RestoreAll(c.Bytes("funding"), pktchain.RefundKeys{})
	if err != nil {
		return err
	}
	var want, got []string
	for _, l := range c.Lines {
		if l.Key == "capacity" || l.Key == "script" {
			want = append(want, l.Value)
		}
	}
	for i, r := range all {
		got = append(got, strconv.FormatUint(uint64(r.Capacity), 10), hex.EncodeToString(r.Script))
		if uint64(r.Index) != number(t, c, "index")+uint64(i) || r.Expiry != number(t, c, "expiry") {
			t.Errorf("got %+v", r)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func runFunding(t *testing.T, c vector.Case) error {
	return channelOf(t, c).CheckFunding(c.Bytes("funding"), func(settle.Outpoint) (settle.Output, error) {
		return settle.Output{Known: true, Depth: 1, Amount: amount(t, c, "input-amount"), Script: c.Bytes("input-script")}, nil
	})
}

func runProof(t *testing.T, c vector.Case) error {
	return channelOf(t, c).VerifyVoucher(amount(t, c, "total"), c.Bytes("proof"))
}

func runClaim(t *testing.T, c vector.Case) error {
	ch := channelOf(t, c)
	v := settle.Voucher{Total: amount(t, c, "total"), Proof: c.Bytes("proof")}
	raw, err := keychainOf(t, ch.Network.Rail, c.Bytes("payee-seed")).Claim(ch, uint32(number(t, c, "payee-index")), v, amount(t, c, "fee"))
	if err == nil {
		same(t, "transaction", raw, c.Bytes("transaction"))
		same(t, "sighash", sighash(t, ch, raw, txscript.SigHashSingle), c.Bytes("sighash"))
	}
	return err
}

func runClose(t *testing.T, c vector.Case) error {
	ch := channelOf(t, c)
	o := settle.CloseOffer{Final: amount(t, c, "final"), Fee: amount(t, c, "fee"), Signature: c.Bytes("signature")}
	if err := ch.VerifyClose(o); err != nil {
		return err
	}
	raw, err := keychainOf(t, ch.Network.Rail, c.Bytes("payee-seed")).CompleteClose(ch, uint32(number(t, c, "payee-index")), o)
	if err == nil {
		same(t, "transaction", raw, c.Bytes("transaction"))
		same(t, "sighash", sighash(t, ch, raw, txscript.SigHashAll), c.Bytes("sighash"))
	}
	return err
}

func runRefund(t *testing.T, c vector.Case) error {
	ch := channelOf(t, c)
	var sigs [][]byte
	for _, l := range c.Lines {
		if l.Key != "refund-seed" {
			continue
		}
		seed, err := hex.DecodeString(l.Value)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := keychainOf(t, ch.Network.Rail, seed).SignRefund(ch, uint32(number(t, c, "index")), amount(t, c, "fee"))
		if err != nil {
			return err
		}
		sigs = append(sigs, sig)
	}
	raw, err := ch.Refund(amount(t, c, "fee"), sigs)
	if err == nil {
		same(t, "transaction", raw, c.Bytes("transaction"))
		same(t, "sighash", sighash(t, ch, raw, txscript.SigHashAll), c.Bytes("sighash"))
	}
	return err
}

func runMoney(t *testing.T, c vector.Case) error {
	identity, err := pktcloud.ParsePublicKey(c.Value("identity"))
	if err != nil {
		t.Fatal(err)
	}
	return pktchain.VerifyMoneyKey(pktcloud.MoneyKey{Rail: c.Value("rail"), Key: c.Bytes("key"), Proof: c.Bytes("proof")}, identity)
}

// sighash is BIP 143's digest of a spending transaction.
func sighash(t *testing.T, c pktchain.Channel, raw []byte, kind txscript.SigHashType) []byte {
	t.Helper()
	tx := decode(t, raw)
	fetch := txscript.NewCannedPrevOutputFetcher(c.PkScript(), int64(c.Params.Capacity))
	digest, err := txscript.CalcWitnessSigHash(c.Script(), txscript.NewTxSigHashes(tx, fetch), kind, tx, 0, int64(c.Params.Capacity))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}
