package market

import "fmt"

// Code says why an offer, a quote or a request is refused: the refusal table
// of spec/market.md. A Code is an error itself, so errors.Is(err, CodePrice)
// works on whatever this package returns.
type Code string

// The refusal table.
const (
	CodeMalformed   Code = "malformed"    // a field breaks its bounds
	CodeExpired     Code = "expired"      // its time is over
	CodeEarly       Code = "early"        // issued too far in the future
	CodeStale       Code = "stale"        // a newer record of that slot is known
	CodeEquivocal   Code = "equivocal"    // two contents under one sequence
	CodeFull        Code = "full"         // the book has no room
	CodeRateLimited Code = "rate-limited" // too many records in too short a time
	CodeCapacity    Code = "capacity"     // more than the offer has
	CodePrice       Code = "price"        // dearer than the request allows
	CodeRegion      Code = "region"       // elsewhere
	CodeRail        Code = "rail"         // not paid that way, or not that much
	CodeTerm        Code = "term"         // too short or too long
	CodeIsolation   Code = "isolation"    // not separated as the request wants
	CodeNetwork     Code = "network"      // less of the network than the request needs
	CodeExposure    Code = "exposure"     // interval or credit beyond the offer's limits
	CodeMismatch    Code = "mismatch"     // a quote that answers something else
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
		return fmt.Sprintf("market: %s: %s", e.Code, e.Detail)
	}
	return fmt.Sprintf("market: %s: %s: %v", e.Code, e.Detail, e.Err)
}

// Is reports whether target is this refusal's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}
