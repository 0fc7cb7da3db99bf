package tower_test

import (
	"bytes"
	"errors"
	"flag"
	"slices"
	"strconv"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../spec/vectors/tower"

func TestVectors(t *testing.T) {
	cases, err := vector.Sync(vectorDir, "", slices.Concat(recordVectors(t), keepVectors(t), refuseVectors(t)), *update)
	if err != nil {
		t.Fatal(err)
	}
	runners := map[string]func(c vector.Case) error{
		"deposit": func(c vector.Case) error { _, err := tower.Read(network(t), c.Bytes("bytes")); return err },
		"receipt": func(c vector.Case) error { _, err := tower.ParseReceipt(c.Bytes("bytes")); return err },
		"query":   func(c vector.Case) error { _, err := tower.ParseQuery(c.Bytes("bytes")); return err },
		"hello":   func(c vector.Case) error { _, err := tower.ParseHello(c.Bytes("bytes")); return err },
		"keep":    func(c vector.Case) error { return runKeep(t, c) },
		"refuse":  func(c vector.Case) error { return tower.ParseRefusal(c.Bytes("bytes")) },
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			kind, _, _ := strings.Cut(c.Name, "-")
			got := "ok"
			if err := runners[kind](c); err != nil {
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

func recordVectors(t *testing.T) []vector.Case {
	l := settletest.NewLedger(network(t))
	c, other := open(t, l, 0), open(t, l, 1)
	key := towerKey(t, c.payee)
	good, self := c.late(1_000_000, 400, 1_600), pktcloud.NewPrivateKey([32]byte{9})
	deposit := func(name, expect, about string, change func(d *tower.Deposit)) vector.Case {
		d := tower.Deposit{Version: tower.DepositVersion, Client: key.Public(), Rail: network(t).Rail, Owner: good.Owner, Txs: slices.Clone(good.Txs)}
		if change != nil {
			change(&d)
		}
		return vector.New("deposit-"+name, expect, about).With("bytes", sealed(t, key, d))
	}
	receipt := func(name, expect, about string, change func(r *tower.Receipt)) vector.Case {
		r := tower.Receipt{Version: 1, Tower: self.Public(), Client: key.Public(), Deposit: pktcloud.IDOf([]byte("deposit")), Height: 7}
		if change != nil {
			change(&r)
		}
		return vector.New("receipt-"+name, expect, about).With("bytes", sealed(t, self, r))
	}
	query := func(name, expect, about string, change func(q *tower.Query)) vector.Case {
		q := tower.Query{Version: 1, Client: key.Public(), Tower: self.Public(), Nonce: make([]byte, 32)}
		if change != nil {
			change(&q)
		}
		return vector.New("query-"+name, expect, about).With("bytes", sealed(t, key, q))
	}
	hello := func(name, expect, about string, change func(h *tower.Hello)) vector.Case {
		h := tower.Hello{Version: 1, Tower: self.Public(), Rail: network(t).Rail, Nonce: make([]byte, 32), MinValue: 1_000, Deposits: 10, Bytes: 10_000}
		if change != nil {
			change(&h)
		}
		b, err := pktcloud.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return vector.New("hello-"+name, expect, about).With("bytes", b)
	}
	refund := c.deposit(c.payer, c.refund(400, 1_600))
	return []vector.Case{
		deposit("good", "ok", "a late claim at two levels", nil),
		vector.New("deposit-refund", "ok", "a refund at two levels").With("bytes", refund),
		vector.New("deposit-trailing", "malformed", "a byte too many").With("bytes", append(slices.Clone(refund), 0)),
		deposit("version", "malformed", "an unknown version", func(d *tower.Deposit) { d.Version = 2 }),
		deposit("extension", "malformed", "an extension", func(d *tower.Deposit) { d.Ext = map[string][]byte{"note": {1}} }),
		deposit("empty", "malformed", "no transaction", func(d *tower.Deposit) { d.Txs = nil }),
		deposit("levels", "malformed", "nine levels", func(d *tower.Deposit) { d.Txs = slices.Repeat(d.Txs[:1], 9) }),
		deposit("two-totals", "malformed", "levels that pay the payer differently", func(d *tower.Deposit) { d.Txs[1] = c.late(1_000_001, 1_600).Txs[0] }),
		deposit("two-channels", "malformed", "levels of two channels", func(d *tower.Deposit) { d.Txs[1] = other.late(1_000_000, 1_600).Txs[0] }),
		deposit("two-kinds", "malformed", "a late claim and a refund", func(d *tower.Deposit) { d.Txs[1] = c.refund(1_600).Txs[0] }),
		deposit("rail", "params", "another rail", func(d *tower.Deposit) { d.Rail = "pkt" }),
		deposit("no-owner", "malformed", "no signature of the owner", func(d *tower.Deposit) { d.Owner = nil }),
		deposit("other-owner", "proof", "the payer's signature for a late claim", func(d *tower.Deposit) { d.Owner = c.owner(c.payer, pktchain.EndRefund) }),
		deposit("other-channel", "proof", "the owner's signature for another channel", func(d *tower.Deposit) { d.Owner = other.owner(other.payee, pktchain.EndLate) }),
		receipt("good", "ok", "a receipt", nil),
		receipt("version", "malformed", "an unknown version", func(r *tower.Receipt) { r.Version = 0 }),
		receipt("other-tower", "malformed", "signed by another tower", func(r *tower.Receipt) { r.Tower = key.Public() }),
		query("good", "ok", "the first page", nil),
		query("after", "ok", "a further page", func(q *tower.Query) { q.After = make([]byte, tower.KeyBytes) }),
		query("nonce", "malformed", "a nonce of 31 bytes", func(q *tower.Query) { q.Nonce = q.Nonce[1:] }),
		query("place", "malformed", "a place of 36 bytes", func(q *tower.Query) { q.After = make([]byte, tower.KeyBytes-1) }),
		hello("good", "ok", "a tower's first message", nil),
		hello("nonce", "malformed", "no nonce", func(h *tower.Hello) { h.Nonce = nil }),
		hello("rail", "malformed", "no rail", func(h *tower.Hello) { h.Rail = "" }),
		hello("version", "malformed", "an unknown version", func(h *tower.Hello) { h.Version = 2 }),
	}
}

// keepVectors are deposits as a tower weighs them: with the chain's word on the
// funding output, and perhaps a deposit that it has.
func keepVectors(t *testing.T) []vector.Case {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	held := c.lateDeposit(1_500_000, 400, 5_000)
	keep := func(name, expect, about string, deposit []byte, lines ...vector.Line) vector.Case {
		v := vector.New("keep-"+name, expect, about).With("deposit", deposit)
		for _, d := range []vector.Line{
			{Key: "height", Value: "20"},
			{Key: "funding-depth", Value: "3"},
			{Key: "funding-amount", Value: strconv.Itoa(capacity)},
			{Key: "client-deposits", Value: "2"},
			{Key: "least-value", Value: "0"},
		} {
			if i := slices.IndexFunc(lines, func(l vector.Line) bool { return l.Key == d.Key }); i >= 0 {
				d = lines[i]
			}
			v = v.With(d.Key, d.Value)
		}
		v = v.With("funding-script", c.chain.PkScript())
		return v
	}
	over := func(v vector.Case) vector.Case { return v.With("held", held) }
	line := func(key, value string) vector.Line { return vector.Line{Key: key, Value: value} }
	good := c.lateDeposit(1_600_000, 400, 5_400)
	low, beyond := strconv.Itoa(lock), strconv.Itoa(capacity+1)
	return []vector.Case{
		keep("first", "ok", "the first deposit of a channel", good),
		over(keep("newer", "ok", "claims more, at a higher fee", good)),
		over(keep("same", "ok", "the deposit that is there", held)),
		over(keep("refund", "ok", "the other side's end of the same channel", c.deposit(c.payer, c.refund(400)))),
		over(keep("fell", "fell", "claims less", c.lateDeposit(1_499_999, 9_000))),
		over(keep("stale", "stale", "its highest fee is 100 units above the one before", c.lateDeposit(1_600_000, 5_100))),
		keep("late", "late", "at its lock height", good, line("height", low)),
		keep("last-block", "ok", "one block before its lock height", good, line("height", strconv.Itoa(lock-1))),
		keep("unconfirmed", "funding", "the funding is in no block", good, line("funding-depth", "0")),
		keep("amount", "proof", "the funding output has another amount", good, line("funding-amount", beyond)),
		over(keep("other-client", "wrong-side", "the owner's deposit under another client key", c.by(pktcloud.NewPrivateKey([32]byte{66}), 1_600_000, 400, 5_400))),
		keep("small", "funding", "a channel below the least value", good, line("least-value", beyond)),
		keep("fees", "fee", "levels of which the second would not replace the first", c.lateDeposit(1_600_000, 5_400, 5_500)),
		over(keep("quota", "quota", "the client has as many as it may", c.deposit(c.payee, open(t, l, 3).late(1_000_000, 400)), line("client-deposits", "1"))),
	}
}

// refuseVectors are refusals as they travel.
func refuseVectors(t *testing.T) []vector.Case {
	made := func(name, expect, about string, err error) vector.Case {
		b, err := tower.RefusalBytes(err)
		if err != nil {
			t.Fatal(err)
		}
		return vector.New("refuse-"+name, expect, about).With("bytes", b)
	}
	return []vector.Case{
		made("quota", "quota", "a refusal with its reason", settle.Refuse(settle.ErrQuota, "no room")),
		made("busy", "busy", "what has no code is the tower's own trouble", errors.New("disk full")),
		made("escape", "fee", "a text with what a terminal would obey is sent without it", settle.Refuse(settle.ErrFee, "\x1b[2Jtoo\nlow")),
		made("long", "fee", "a longer text is sent shortened", settle.Refuse(settle.ErrFee, "%s", strings.Repeat("x", 2*tower.MaxRefuseText))),
		made("no-code", "malformed", "code 0 is no refusal", settle.Refuse(0, "")),
	}
}

func runKeep(t *testing.T, c vector.Case) error {
	number := func(key string) uint64 {
		n, err := strconv.ParseUint(c.Value(key), 10, 64)
		if err != nil {
			t.Fatalf("vector %s: %s: %v", c.Name, key, err)
		}
		return n
	}
	b := tower.NewBook(network(t), tower.Quota{ClientDeposits: number("client-deposits")}, pktcloud.Amount(number("least-value")))
	funding := settle.Output{Known: true, Depth: number("funding-depth"), Amount: pktcloud.Amount(number("funding-amount")), Script: c.Bytes("funding-script")}
	if held := c.Bytes("held"); len(held) > 0 {
		r, err := tower.Read(network(t), held)
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := b.Weigh(r, 10, funding)
		if err != nil {
			t.Fatal(err)
		}
		b.Put(e)
	}
	r, err := tower.Read(network(t), c.Bytes("deposit"))
	if err != nil {
		return err
	}
	_, _, err = b.Weigh(r, number("height"), funding)
	return err
}

func fuzzRecord[T any](f *testing.F, prefix string, parse func([]byte) (T, error), encode func(T) ([]byte, error)) {
	f.Helper()
	cases, err := vector.Load(vectorDir, prefix)
	if err != nil || len(cases) == 0 {
		f.Fatalf("no vectors %s*: %v", prefix, err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("bytes"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := parse(data)
		if err != nil {
			return
		}
		if again, err := encode(v); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

func FuzzParseDeposit(f *testing.F) {
	fuzzRecord(f, "deposit-", tower.ParseDeposit, pktcloud.Signed[tower.Deposit].Encode)
}

func FuzzParseReceipt(f *testing.F) {
	fuzzRecord(f, "receipt-", tower.ParseReceipt, pktcloud.Signed[tower.Receipt].Encode)
}

func FuzzParseQuery(f *testing.F) {
	fuzzRecord(f, "query-", tower.ParseQuery, pktcloud.Signed[tower.Query].Encode)
}

func FuzzParseHello(f *testing.F) {
	fuzzRecord(f, "hello-", tower.ParseHello, func(h tower.Hello) ([]byte, error) { return pktcloud.Marshal(h) })
}
