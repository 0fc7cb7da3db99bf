package lease

import (
	"math"
	"math/bits"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Segment is a part of a lease's service at one rate: the seconds from From to
// the next segment's [AMEND-9].
type Segment struct {
	From uint64        `cbor:"from" json:"from"` // the first second that costs this
	Rate pktcloud.Rate `cbor:"rate" json:"rate"`
}

// Tariff is what each second of a lease costs, by segments that ascend. Where
// two begin at one second the later one counts. The first begins at 0.
type Tariff []Segment

// accrued is what a number of seconds costs since the start, not yet rounded.
func (t Tariff) accrued(seconds uint64) (pktcloud.Due, error) {
	var sum pktcloud.Due
	var err error
	for i, s := range t {
		end := seconds
		if i+1 < len(t) {
			end = min(end, t[i+1].From)
		}
		if end <= s.From {
			continue
		}
		if sum, err = sum.Accrue(s.Rate, end-s.From); err != nil {
			return sum, wrap(CodeMalformed, "the amount due", err)
		}
	}
	return sum, nil
}

// DueAfter returns what is owed after a number of seconds served since the
// start, rounded up once for all segments [LEASE-10] [AMEND-9]. Errors match
// [CodeMalformed] for more than a channel could ever pay.
func (t Tariff) DueAfter(seconds uint64) (pktcloud.Amount, error) {
	sum, err := t.accrued(seconds)
	if err != nil {
		return 0, err
	}
	a, err := sum.Amount()
	return a, wrap(CodeMalformed, "the amount due", err)
}

// SecondsFor is the inverse: the most seconds of service whose due is at most
// amount.
func (t Tariff) SecondsFor(amount pktcloud.Amount) uint64 {
	hi, lo := bits.Mul64(uint64(amount), pktcloud.SecondsPerHour)
	return t.within(pktcloud.Due{Hi: hi, Lo: lo})
}

// within is the most seconds that cost no more than a budget.
func (t Tariff) within(budget pktcloud.Due) uint64 {
	var seconds uint64
	for i, s := range t {
		most := uint64(math.MaxUint64)
		if i+1 < len(t) {
			most = t[i+1].From - min(s.From, t[i+1].From)
		}
		fits := uint64(math.MaxUint64)
		if budget.Hi < uint64(s.Rate) {
			fits, _ = bits.Div64(budget.Hi, budget.Lo, uint64(s.Rate))
		}
		if fits < most || i+1 == len(t) {
			if fits > math.MaxUint64-seconds {
				return math.MaxUint64
			}
			return seconds + fits
		}
		hi, lo := bits.Mul64(uint64(s.Rate), most)
		budget = minus(budget, pktcloud.Due{Hi: hi, Lo: lo})
		seconds += most
	}
	return seconds
}

// minus is a less b, no less than zero.
func minus(a, b pktcloud.Due) pktcloud.Due {
	lo, borrow := bits.Sub64(a.Lo, b.Lo, 0)
	hi, under := bits.Sub64(a.Hi, b.Hi, borrow)
	if under != 0 {
		return pktcloud.Due{}
	}
	return pktcloud.Due{Hi: hi, Lo: lo}
}

// plus is the sum of both.
func plus(a, b pktcloud.Due) (pktcloud.Due, error) {
	lo, carry := bits.Add64(a.Lo, b.Lo, 0)
	hi, over := bits.Add64(a.Hi, b.Hi, carry)
	if over != 0 {
		return a, Refusal(CodeMalformed, "the amount due overflows its accumulator")
	}
	return pktcloud.Due{Hi: hi, Lo: lo}, nil
}
