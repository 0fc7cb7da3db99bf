package settle

import (
	"errors"
	"fmt"
)

// Code is a refusal of the table in spec/settle.md. A Code is an error of its
// own, so that errors.Is(err, settle.ErrStale) tells refusals apart, also when
// they came from the other side as a number and a text.
type Code uint16

// The refusals. Their numbers are part of the protocol and never reused.
const (
	// ErrMalformed marks bytes or records that break their own shape.
	ErrMalformed Code = 1
	// ErrParams marks parameters that this side does not accept.
	ErrParams Code = 2
	// ErrFunding marks a funding transaction that does not fit the parameters
	// or could be changed or replaced.
	ErrFunding Code = 3
	// ErrUnknown marks a channel that this side does not have.
	ErrUnknown Code = 4
	// ErrRole marks a call that only the other side of a channel may make.
	ErrRole Code = 5
	// ErrChannel marks a message that belongs to another channel or payer.
	ErrChannel Code = 6
	// ErrStale marks a voucher whose sequence is not beyond the latest one's.
	ErrStale Code = 7
	// ErrFell marks a voucher whose total or one of whose entries is lower
	// than before, or that lost an entry.
	ErrFell Code = 8
	// ErrCapacity marks a total beyond what the channel can pay.
	ErrCapacity Code = 9
	// ErrUnconfirmed marks a total beyond what is accepted before the funding
	// is deep enough.
	ErrUnconfirmed Code = 10
	// ErrProof marks a rail signature that does not verify.
	ErrProof Code = 11
	// ErrClosed marks a channel that pays no more: it closes, has closed, or
	// was abandoned.
	ErrClosed Code = 12
	// ErrLate marks a channel too near to its expiry.
	ErrLate Code = 13
	// ErrClose marks a close offer whose final amount or fee is not acceptable.
	ErrClose Code = 14
	// ErrDust marks an output so small that the network would not carry it.
	ErrDust Code = 15
	// ErrFee marks a fee below the network's floor or beyond what pays for it.
	ErrFee Code = 16
	// ErrEarly marks a refund before the expiry height.
	ErrEarly Code = 17
	// ErrRolling marks what a channel that rolls does not take by itself: pay,
	// or close, over its successor as well.
	ErrRolling Code = 20
	// ErrRoll marks a roll offer whose first voucher or transaction does not fit.
	ErrRoll Code = 21
	// ErrQuota marks what a tower has no room for.
	ErrQuota Code = 30
	// ErrBusy marks what cannot be judged now: ask again later.
	ErrBusy Code = 31
)

// names are the refusals' names in the specification.
var names = map[Code]string{
	ErrMalformed: "malformed", ErrParams: "params", ErrFunding: "funding", ErrUnknown: "unknown-channel",
	ErrRole: "wrong-side", ErrChannel: "wrong-channel", ErrStale: "stale", ErrFell: "fell",
	ErrCapacity: "capacity", ErrUnconfirmed: "unconfirmed", ErrProof: "proof", ErrClosed: "closed",
	ErrLate: "late", ErrClose: "close", ErrDust: "dust", ErrFee: "fee", ErrEarly: "early", ErrRolling: "rolling", ErrRoll: "roll",
	ErrQuota: "quota", ErrBusy: "busy",
}

// String returns the refusal's name in the specification.
func (c Code) String() string {
	if s, ok := names[c]; ok {
		return s
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// Error returns the refusal's name.
func (c Code) Error() string { return "settle: " + c.String() }

// Error is a refusal: its code, a sentence for a person, and the cause that the
// sentence ends with, if there is one. It matches its code in errors.Is. Text
// is never matched.
type Error struct {
	Code Code
	Text string
	Err  error
}

// Error returns "settle: name: text".
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Code.Error()
	}
	return e.Code.Error() + ": " + e.Text
}

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Refuse returns an [Error] with a formatted sentence; %w keeps a cause.
// Rails and running halves use it too.
func Refuse(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), Err: errors.Unwrap(err)}
}
