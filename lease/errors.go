package lease

import (
	"errors"
	"fmt"

	"github.com/pkt-cash/pkt-cloud/market"
)

// Code says why a message is refused: the refusal table of spec/lease.md. A
// Code is an error itself, so errors.Is(err, CodeLate) works on whatever this
// package returns. It travels in [Refuse] and [Dispute].
type Code string

// The refusal table.
const (
	CodeMalformed Code = "malformed" // not the one encoding, or a field breaks its bounds
	CodeSignature Code = "signature" // a signature or an account does not hold
	CodeOffer     Code = "offer"     // the offer is unknown, expired or another's
	CodeQuote     Code = "quote"     // the quote is not mine, or answers another draft
	CodePrice     Code = "price"     // dearer than the tenant allows, or not the quoted rate
	CodeCapacity  Code = "capacity"  // no room
	CodeLimits    Code = "limits"    // the four limits do not fit each other or the offer
	CodeManifest  Code = "manifest"  // not the manifest of the terms, or not acceptable
	CodeNetwork   Code = "network"   // more of the network than the provider grants
	CodeChannel   Code = "channel"   // the payment channel does not hold
	CodeLate      Code = "late"      // after commitBy
	CodeUnknown   Code = "unknown"   // no such lease
	CodePhase     Code = "phase"     // not in this phase
	CodeSequence  Code = "sequence"  // a statement is missing before this one
	CodeDue       Code = "due"       // the amount due is not that of the seconds served
	CodeAhead     Code = "ahead"     // more seconds than have passed
	CodeProbe     Code = "probe"     // the tenant's own probe disagrees
	CodePayment   Code = "payment"   // more or less than the limits allow
	CodeRecord    Code = "record"    // a close record that does not match
	CodeBusy      Code = "busy"      // too many at once, try again
	CodeMissing   Code = "missing"   // the provider cannot do this at all
	CodeInternal  Code = "internal"  // the fault of the one who answers
)

// Error returns the code.
func (c Code) Error() string { return string(c) }

// Error is a refusal: its code, a sentence for a person, and its cause, if
// another package found it.
type Error struct {
	Code   Code
	Detail string
	Err    error
}

// Error returns the refusal as a sentence.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("lease: %s: %s", e.Code, e.Detail)
	}
	return fmt.Sprintf("lease: %s: %s: %v", e.Code, e.Detail, e.Err)
}

// Is reports whether target is this refusal's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Refusal returns an error with a code and a sentence.
func Refusal(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Plainly is the text of an error for people: without the names of this package
// and of its codes where it is a refusal.
func Plainly(err error) string {
	e, ok := errors.AsType[*Error](err)
	m, priced := errors.AsType[*market.Error](err)
	switch {
	case err == nil:
		return ""
	case !ok && priced && m.Err == nil:
		return m.Detail
	case !ok:
		return err.Error()
	case e.Err == nil:
		return e.Detail
	case e.Detail == "":
		return Plainly(e.Err)
	}
	return e.Detail + ": " + Plainly(e.Err)
}

// CodeOf returns the code of err, or [CodeInternal].
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

func wrap(code Code, detail string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Detail: detail, Err: err}
}
