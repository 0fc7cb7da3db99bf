package pktcloud

import (
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// UnitsPerPKT is the number of base units in one PKT [ENC-10].
const UnitsPerPKT = 1 << 30

// MaxAmount is the largest amount a record may carry: six thousand million
// PKT, a bound that the chain's whole emission stays below [ENC-10].
const MaxAmount Amount = 6_000_000_000 * UnitsPerPKT

// maxAmountText bounds what ParseAmount reads.
const maxAmountText = 64

// Amount is a sum of money in base units. 1 PKT is 2^30 base units. An Amount
// is never negative and never fractional; its JSON and text form is the exact
// decimal number of units, as a string.
type Amount uint64

// Add returns a + b, or an error matching [ErrAmountRange] beyond [MaxAmount].
func (a Amount) Add(b Amount) (Amount, error) {
	sum, carry := bits.Add64(uint64(a), uint64(b), 0)
	if carry != 0 || Amount(sum) > MaxAmount {
		return 0, fmt.Errorf("%w: %d + %d units exceed the maximum", ErrAmountRange, a, b)
	}
	return Amount(sum), nil
}

// Sub returns a - b, or an error matching [ErrAmountRange] when b is larger.
func (a Amount) Sub(b Amount) (Amount, error) {
	if b > a {
		return 0, fmt.Errorf("%w: %d - %d units is negative", ErrAmountRange, a, b)
	}
	return a - b, nil
}

// SubFloor returns a - b, or zero when b is larger.
func (a Amount) SubFloor(b Amount) Amount {
	if b > a {
		return 0
	}
	return a - b
}

// Validate returns an error matching [ErrAmountRange] beyond [MaxAmount].
func (a Amount) Validate() error {
	if a > MaxAmount {
		return fmt.Errorf("%w: %d units exceed the maximum", ErrAmountRange, a)
	}
	return nil
}

// String returns the amount in PKT with as few decimals as still give back the
// same amount in [ParseAmount], such as "1.5 PKT".
func (a Amount) String() string { return a.decimal() + " PKT" }

// decimal is the shortest text of a in PKT. One unit is 9.3e-10 PKT, so ten
// decimals, rounded to the nearest, always tell units apart.
func (a Amount) decimal() string {
	whole, frac := uint64(a)/UnitsPerPKT, uint64(a)%UnitsPerPKT
	scale := uint64(1)
	for places := 0; ; places++ {
		digits := (frac*scale + UnitsPerPKT/2) / UnitsPerPKT
		if (digits*UnitsPerPKT+scale/2)/scale == frac {
			if places == 0 {
				return strconv.FormatUint(whole, 10)
			}
			return fmt.Sprintf("%d.%0*d", whole, places, digits)
		}
		scale *= 10
	}
}

// ParseAmount reads "12 PKT", "0.25", "0.25 PKT" or "250 units". A decimal
// number of PKT is rounded to the nearest unit. Errors match [ErrAmountSyntax]
// or [ErrAmountRange].
func ParseAmount(s string) (Amount, error) {
	text := strings.TrimSpace(s)
	if len(text) > maxAmountText {
		return 0, fmt.Errorf("%w: longer than %d characters", ErrAmountSyntax, maxAmountText)
	}
	if units, ok := strings.CutSuffix(text, "units"); ok {
		return parseUnits(strings.TrimSpace(units))
	}
	number := strings.TrimSpace(strings.TrimSuffix(text, "PKT"))
	whole, frac, hasPoint := strings.Cut(number, ".")
	if whole == "" || !allDigits(whole) || !allDigits(frac) || hasPoint && frac == "" {
		return 0, fmt.Errorf("%w: %q is no amount; write for example \"0.25 PKT\" or \"250 units\"", ErrAmountSyntax, s)
	}
	units, ok := new(big.Int).SetString(whole+frac, 10)
	if !ok {
		return 0, fmt.Errorf("%w: %q", ErrAmountSyntax, s)
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(frac))), nil)
	units.Mul(units, big.NewInt(2*UnitsPerPKT))
	units.Add(units, scale)
	units.Quo(units, scale.Mul(scale, big.NewInt(2)))
	if !units.IsUint64() || Amount(units.Uint64()) > MaxAmount {
		return 0, fmt.Errorf("%w: %s is more than the maximum", ErrAmountRange, s)
	}
	return Amount(units.Uint64()), nil
}

func parseUnits(s string) (Amount, error) {
	if s == "" || !allDigits(s) || len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("%w: %q is no number of units", ErrAmountSyntax, s)
	}
	u, err := strconv.ParseUint(s, 10, 64)
	if err != nil || Amount(u) > MaxAmount {
		return 0, fmt.Errorf("%w: %s units are more than the maximum", ErrAmountRange, s)
	}
	return Amount(u), nil
}

func allDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// MarshalText returns the exact decimal number of base units.
func (a Amount) MarshalText() ([]byte, error) {
	return strconv.AppendUint(nil, uint64(a), 10), nil
}

// UnmarshalText reads what MarshalText writes, and nothing else. Errors match
// [ErrAmountSyntax] or [ErrAmountRange].
func (a *Amount) UnmarshalText(text []byte) error {
	v, err := parseUnits(string(text))
	if err != nil {
		return err
	}
	*a = v
	return nil
}
