package pktcloud_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
)

func amountCases() []vector.Case {
	ok := func(name, text, units, about string) vector.Case {
		return vector.New("amount-"+name, "ok", about).With("text", text).With("units", units)
	}
	refuse := func(name, expect, text, about string) vector.Case {
		return vector.New("amount-"+name, expect, about).With("text", text)
	}
	return []vector.Case{
		ok("whole", "12 PKT", "12884901888", "a whole number of PKT"),
		ok("decimal", "0.25", "268435456", "a decimal number, PKT understood"),
		ok("units", "250 units", "250", "a number of base units"),
		ok("one-unit", "0.000000001 PKT", "1", "the shortest decimal of one unit"),
		ok("half-rounds-up", "0.0000000004656612873077392578125", "1", "exactly half a unit"),
		ok("below-half", "0.0000000004656612873077392578124", "0", "just below half a unit"),
		ok("maximum", "6000000000 PKT", "6442450944000000000", "the largest amount"),
		refuse("above-maximum", "amount-range", "6000000000.000000001 PKT", "one unit above the largest"),
		refuse("units-above-maximum", "amount-range", "6442450944000000001 units", "one unit above the largest"),
		refuse("huge", "amount-range", "99999999999999999999999999999999999999999999", "more than 64 bits"),
		refuse("empty", "amount-syntax", "", "nothing"),
		refuse("negative", "amount-syntax", "-1 PKT", "money is never negative"),
		refuse("exponent", "amount-syntax", "1e3", "no exponents"),
		refuse("comma", "amount-syntax", "0,25 PKT", "a comma could part decimals or thousands"),
		refuse("no-whole", "amount-syntax", ".5", "a digit stands before the point"),
		refuse("no-fraction", "amount-syntax", "5.", "a digit stands behind the point"),
		refuse("two-points", "amount-syntax", "1.2.3", "one point at most"),
		refuse("other-currency", "amount-syntax", "5 BTC", "another currency"),
		refuse("fractional-units", "amount-syntax", "1.5 units", "units are whole"),
		refuse("zero-led-units", "amount-syntax", "007 units", "one spelling for a number of units"),
		refuse("other-digits", "amount-syntax", "١٢", "digits of another script"),
		refuse("long", "amount-syntax", "1.00000000000000000000000000000000000000000000000000000000000000000", "longer than 64 characters"),
	}
}

func TestAmountVectors(t *testing.T) {
	cases, err := vector.Sync(encodingVectors, "amount-", amountCases(), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		a, err := pktcloud.ParseAmount(c.Value("text"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if text, _ := a.MarshalText(); err == nil && string(text) != c.Value("units") {
			t.Errorf("%s: got %s units, want %s", c.Name, text, c.Value("units"))
		}
	}
}

func TestAmountTextGivesTheAmountBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := pktcloud.Amount(rapid.Uint64Range(0, uint64(pktcloud.MaxAmount)).Draw(t, "amount"))
		if got, err := pktcloud.ParseAmount(a.String()); err != nil || got != a {
			t.Fatalf("%s: got %d, %v, want %d", a, got, err, a)
		}
		text, err := json.Marshal(a)
		var back pktcloud.Amount
		if err != nil || json.Unmarshal(text, &back) != nil || back != a {
			t.Fatalf("%s: got %d, want %d", text, back, a)
		}
	})
}

// TestAmountTextIsShortest: no shorter decimal gives the amount back.
func TestAmountTextIsShortest(t *testing.T) {
	for a, want := range map[pktcloud.Amount]string{
		0: "0 PKT", 1: "0.000000001 PKT", 2: "0.000000002 PKT", pktcloud.UnitsPerPKT: "1 PKT",
		pktcloud.UnitsPerPKT * 3 / 2: "1.5 PKT", pktcloud.UnitsPerPKT - 1: "0.999999999 PKT", pktcloud.MaxAmount: "6000000000 PKT",
	} {
		if got := a.String(); got != want {
			t.Errorf("%d units: got %s, want %s", uint64(a), got, want)
		}
	}
}

func TestAmountArithmeticIsChecked(t *testing.T) {
	limit := new(big.Int).SetUint64(uint64(pktcloud.MaxAmount))
	number := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 10), rapid.Uint64Range(uint64(pktcloud.MaxAmount)-5, uint64(pktcloud.MaxAmount)+5))
	rapid.Check(t, func(t *rapid.T) {
		x, y := number.Draw(t, "x"), number.Draw(t, "y")
		bx, by := new(big.Int).SetUint64(x), new(big.Int).SetUint64(y)

		sum, err := pktcloud.Amount(x).Add(pktcloud.Amount(y))
		want := new(big.Int).Add(bx, by)
		if fits := want.Cmp(limit) <= 0; fits != (err == nil) || fits && uint64(sum) != want.Uint64() {
			t.Fatalf("%d + %d: got %d, %v", x, y, sum, err)
		}
		diff, err := pktcloud.Amount(x).Sub(pktcloud.Amount(y))
		if fits := x >= y; fits != (err == nil) || fits && uint64(diff) != x-y {
			t.Fatalf("%d - %d: got %d, %v", x, y, diff, err)
		}
		if floor := pktcloud.Amount(x).SubFloor(pktcloud.Amount(y)); uint64(floor) != max(x, y)-y {
			t.Fatalf("%d - %d floored: got %d", x, y, floor)
		}
		if err := pktcloud.Amount(x).Validate(); (err == nil) != (x <= uint64(pktcloud.MaxAmount)) {
			t.Fatalf("%d: got %v", x, err)
		}
	})
}

func TestAmountJSONIsExact(t *testing.T) {
	for _, bad := range []string{`"01"`, `""`, `"1.5"`, `"-1"`, `"+1"`, `" 1"`, `"1e3"`, `"6442450944000000001"`, `"99999999999999999999"`, `9007199254740993`} {
		var a pktcloud.Amount
		if err := json.Unmarshal([]byte(bad), &a); err == nil {
			t.Errorf("%s: got %d, want an error", bad, a)
		}
	}
}

func TestDueIsTheExactSumRoundedUpOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exact, due := new(big.Int), pktcloud.Due{}
		var err error
		for range rapid.IntRange(0, 20).Draw(t, "segments") {
			rate := rapid.OneOf(rapid.Uint64Range(0, 10_000), rapid.Uint64Range(0, uint64(pktcloud.MaxRate))).Draw(t, "rate")
			seconds := rapid.OneOf(rapid.Uint64Range(0, 10_000), rapid.Uint64()).Draw(t, "seconds")
			extra := rapid.Uint64Range(0, uint64(pktcloud.MaxAmount)).Draw(t, "extra")
			next := new(big.Int).Mul(new(big.Int).SetUint64(rate), new(big.Int).SetUint64(seconds))
			next.Add(next, new(big.Int).Mul(new(big.Int).SetUint64(extra), big.NewInt(3600)))
			next.Add(next, exact)
			before := due
			if due, err = due.Accrue(pktcloud.Rate(rate), seconds); err == nil {
				due, err = due.AddExtra(pktcloud.Amount(extra))
			}
			if fits := next.BitLen() <= 128; fits != (err == nil) {
				t.Fatalf("after %v: got %v for a sum of %d bits", before, err, next.BitLen())
			}
			if err != nil {
				return
			}
			exact = next
		}
		want := new(big.Int).Add(exact, big.NewInt(3599))
		want.Quo(want, big.NewInt(3600))
		got, err := due.Amount()
		if fits := want.IsUint64() && want.Uint64() <= uint64(pktcloud.MaxAmount); fits != (err == nil) || fits && uint64(got) != want.Uint64() {
			t.Fatalf("got %d, %v, want %s", got, err, want)
		}
	})
}

func TestDueDoesNotDependOnTheCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := pktcloud.Rate(rapid.Uint64Range(0, 1<<40).Draw(t, "rate"))
		total, pieces := uint64(0), pktcloud.Due{}
		for range rapid.IntRange(1, 50).Draw(t, "pieces") {
			s := rapid.Uint64Range(0, 100).Draw(t, "seconds")
			total += s
			var err error
			if pieces, err = pieces.Accrue(rate, s); err != nil {
				t.Fatal(err)
			}
		}
		whole, err := rate.For(total)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pieces.Amount(); err != nil || got != whole {
			t.Fatalf("got %d, %v in pieces, want %d", got, err, whole)
		}
	})
}

func TestDueOverflow(t *testing.T) {
	full := pktcloud.Due{Hi: math.MaxUint64, Lo: math.MaxUint64}
	if got, err := full.Accrue(1, 1); outcome(err) != "amount-range" || got != full {
		t.Errorf("got %v, %v, want ErrAmountRange and no change", got, err)
	}
	if _, err := full.Amount(); outcome(err) != "amount-range" {
		t.Errorf("got %v, want ErrAmountRange", err)
	}
	if _, err := pktcloud.Rate(math.MaxUint64).For(math.MaxUint64); outcome(err) != "amount-range" {
		t.Errorf("got %v, want ErrAmountRange", err)
	}
}
