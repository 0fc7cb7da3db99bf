package wallet_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// outcomes are the refusals of the wallet by their names in the specification.
var outcomes = []struct {
	name string
	err  error
}{
	{"malformed", settle.ErrMalformed},
	{"dust", settle.ErrDust},
	{"fee", wallet.ErrFee},
	{"fee", settle.ErrFee},
	{"coin", wallet.ErrCoin},
	{"not replaceable", wallet.ErrReplace},
	{"locked", wallet.ErrLocked},
	{"no history", wallet.ErrNoHistory},
	{"funds", wallet.ErrFunds},
	{"rejected", settle.ErrRejected},
	{"unavailable", settle.ErrLedgerUnavailable},
}

// callVectors are calls of a wallet with two coins, one fault each.
func callVectors() []vector.Case {
	call := func(name, expect, about string, with ...vector.Line) vector.Case {
		c := vector.New("call-"+name, expect, about)
		for _, d := range []vector.Line{
			{Key: "call", Value: "send"},
			{Key: "coins", Value: "1000000 2000000"},
			{Key: "ledger", Value: "good"},
			{Key: "locked", Value: "no"},
			{Key: "script", Value: "0014" + strings.Repeat("11", 20)},
			{Key: "amount", Value: "500000"},
			{Key: "fee-rate", Value: "1000"},
			{Key: "max-fee", Value: "1000"},
		} {
			for _, w := range with {
				if w.Key == d.Key {
					d = w
				}
			}
			c = c.With(d.Key, d.Value)
		}
		for _, w := range with {
			if w.Key == "outpoint" {
				c = c.With(w.Key, w.Value)
			}
		}
		return c
	}
	is := func(key, value string) vector.Line { return vector.Line{Key: key, Value: value} }
	return []vector.Case{
		call("send", "ok", "a payment"),
		call("taproot", "malformed", "to a script that the nodes of PKT do not relay", is("script", "5120"+strings.Repeat("11", 32))),
		call("nothing", "dust", "of no amount", is("amount", "0")),
		call("dust", "dust", "one unit less than nodes relay", is("amount", "293")),
		call("least", "ok", "the least that nodes relay", is("amount", "294")),
		call("limit", "fee", "dearer than the caller allows", is("max-fee", "100")),
		call("no-limit", "fee", "a limit of nothing allows no fee", is("max-fee", "0")),
		call("rate", "fee", "an absurd rate", is("fee-rate", "100000001"), is("max-fee", "1000000000")),
		call("too-much", "funds", "more than there is", is("amount", "3000001")),
		call("no-fee-left", "funds", "all that there is, so that nothing pays the fee", is("amount", "3000000")),
		call("coin", "coin", "from a coin that the wallet does not have", is("outpoint", strings.Repeat("22", 32))),
		call("locked", "locked", "before the passphrase", is("locked", "yes")),
		call("rejected", "rejected", "the node refuses it", is("ledger", "refuses")),
		call("unavailable", "unavailable", "the chain does not answer", is("ledger", "silent")),
		call("replace", "not replaceable", "a payment that the wallet did not make", is("call", "replace"), is("outpoint", strings.Repeat("22", 32))),
		call("history", "ok", "with a ledger that tells of transactions", is("call", "history")),
		call("no-history", "no history", "with a ledger that tells of none", is("call", "history"), is("ledger", "plain")),
	}
}

// refusing is a ledger whose node takes nothing.
type refusing struct{ settle.Ledger }

func (refusing) Broadcast(context.Context, []byte) error { return &settle.Rejection{Code: -26} }

// runCall answers a vector from its file alone.
func runCall(t *testing.T, c vector.Case) error {
	t.Helper()
	chain := settletest.NewLedger(network(t, "pkt"))
	var ledger settle.Ledger = chain
	switch c.Value("ledger") {
	case "refuses":
		ledger = refusing{chain}
	case "plain":
		ledger = plain{chain}
	}
	w, err := wallet.Open(t.Context(), seed(70), wallet.Config{Network: network(t, "pkt"), Ledger: ledger, Store: settletest.NewStore()})
	if err != nil {
		t.Fatal(err)
	}
	for units := range strings.FieldsSeq(c.Value("coins")) {
		script, err := w.ReceiveScript(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		chain.Mint(script, amountOf(t, units))
	}
	chain.Mine(1)
	if c.Value("locked") == "yes" {
		w.Lock()
	}
	chain.SetDown(c.Value("ledger") == "silent")
	var other settle.Outpoint
	copy(other.TxID[:], c.Bytes("outpoint"))
	switch c.Value("call") {
	case "history":
		_, err = w.History(t.Context())
	case "replace":
		_, err = w.Replace(t.Context(), other.TxID, amountOf(t, c.Value("fee-rate")), amountOf(t, c.Value("max-fee")))
	case "send":
		script, e := hex.DecodeString(c.Value("script"))
		if e != nil {
			t.Fatal(e)
		}
		r := wallet.SendRequest{
			To:      settle.Payment{Script: script, Amount: amountOf(t, c.Value("amount"))},
			FeeRate: amountOf(t, c.Value("fee-rate")), MaxFee: amountOf(t, c.Value("max-fee")),
		}
		if other != (settle.Outpoint{}) {
			r.From = []settle.Outpoint{other}
		}
		_, err = w.Send(t.Context(), r)
	default:
		t.Fatalf("vector %s: no call %q", c.Name, c.Value("call"))
	}
	return err
}

func amountOf(t *testing.T, text string) pktcloud.Amount {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pktcloud.Amount(n)
}

// testCall compares a call's outcome with the vector's.
func testCall(t *testing.T, c vector.Case) {
	t.Helper()
	err := runCall(t, c)
	got := "ok"
	if err != nil {
		got = err.Error()
		for _, o := range outcomes {
			if errors.Is(err, o.err) {
				got = o.name
			}
		}
	}
	if want := c.Value("expect"); got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}
