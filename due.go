package pktcloud

import (
	"fmt"
	"math/bits"
)

// SecondsPerHour converts between rates, which are per hour, and time served.
const SecondsPerHour = 3600

// Rate is a price over time in base units per hour.
type Rate uint64

// MaxRate bounds a rate so that a due over a century still fits its
// accumulator by many orders of magnitude.
const MaxRate = Rate(MaxAmount)

// Validate returns an error matching [ErrAmountRange] beyond [MaxRate].
func (r Rate) Validate() error { return Amount(r).Validate() }

// MarshalText returns the exact decimal number of base units per hour.
func (r Rate) MarshalText() ([]byte, error) { return Amount(r).MarshalText() }

// UnmarshalText reads what MarshalText writes.
func (r *Rate) UnmarshalText(text []byte) error { return (*Amount)(r).UnmarshalText(text) }

// For returns the price of a number of seconds at this rate, rounded up to the
// next unit. It serves estimates and limits; what is owed over several
// segments is a [Due].
func (r Rate) For(seconds uint64) (Amount, error) {
	d, err := Due{}.Accrue(r, seconds)
	if err != nil {
		return 0, err
	}
	return d.Amount()
}

// Due accumulates what is owed in unit-seconds per hour, a 128-bit number:
// the sum of rate * seconds over all segments plus 3600 * extras. The amount
// owed is that sum divided by 3600, rounded up once, so that neither side
// gains by cutting time into more pieces [ENC-11]. The zero value owes nothing.
type Due struct {
	Hi uint64 `cbor:"hi"`
	Lo uint64 `cbor:"lo"`
}

// Accrue returns d with seconds served at rate added. Errors match
// [ErrAmountRange].
func (d Due) Accrue(rate Rate, seconds uint64) (Due, error) {
	hi, lo := bits.Mul64(uint64(rate), seconds)
	return d.add(hi, lo)
}

// AddExtra returns d with a metered extra, in base units, added. Errors match
// [ErrAmountRange].
func (d Due) AddExtra(extra Amount) (Due, error) {
	hi, lo := bits.Mul64(uint64(extra), SecondsPerHour)
	return d.add(hi, lo)
}

func (d Due) add(hi, lo uint64) (Due, error) {
	sumLo, carry := bits.Add64(d.Lo, lo, 0)
	sumHi, over := bits.Add64(d.Hi, hi, carry)
	if over != 0 {
		return d, fmt.Errorf("%w: the amount due overflows its accumulator", ErrAmountRange)
	}
	return Due{Hi: sumHi, Lo: sumLo}, nil
}

// Amount returns what is owed, rounded up to the next unit. Errors match
// [ErrAmountRange].
func (d Due) Amount() (Amount, error) {
	if d.Hi >= SecondsPerHour {
		return 0, fmt.Errorf("%w: the amount due exceeds the maximum", ErrAmountRange)
	}
	quo, rem := bits.Div64(d.Hi, d.Lo, SecondsPerHour)
	if rem != 0 {
		quo++
	}
	if quo > uint64(MaxAmount) {
		return 0, fmt.Errorf("%w: the amount due exceeds the maximum", ErrAmountRange)
	}
	return Amount(quo), nil
}
