package service

import (
	"errors"
	"fmt"
	"net/http"
)

// Code classifies a refusal. A Code is an error, so errors.Is(err,
// CodeNotFound) tells what happened. The codes are the refusal table of
// spec/api.md and do not change.
type Code string

// The refusal table.
const (
	CodeInvalid      Code = "invalid"      // the request is malformed
	CodeUnauthorized Code = "unauthorized" // no token, or a wrong one
	CodeForbidden    Code = "forbidden"    // from a place that may not ask
	CodeNotFound     Code = "not-found"    // no such offer or lease
	CodeAmbiguous    Code = "ambiguous"    // a short name that fits several
	CodeConflict     Code = "conflict"     // not in this phase
	CodeRefused      Code = "refused"      // the other side said no
	CodeUnreachable  Code = "unreachable"  // the other side does not answer
	CodeMoney        Code = "money"        // too little, or above a limit
	CodeExpired      Code = "expired"      // the offer's time is over
	CodeLedger       Code = "ledger"       // the chain cannot be reached
	CodeNotRunning   Code = "not-running"  // the program or port is not there
	CodeWorkload     Code = "workload"     // services of the lease do not run, or not well
	CodeMissing      Code = "missing"      // this machine lacks a capability
	CodeRateLimited  Code = "rate-limited" // too many requests
	CodeFull         Code = "disk-full"    // the data directory's disk
	CodeLocked       Code = "locked"       // the wallet signs nothing until it is unlocked
	CodeNoNode       Code = "no-node"      // no node runs on this data directory
	CodeInternal     Code = "internal"     // a defect of ours
	unknownStatus         = http.StatusInternalServerError
)

// status is the HTTP status of each code, and exit the code that the command
// line ends with.
var table = map[Code]struct{ status, exit int }{
	CodeInvalid:      {http.StatusUnprocessableEntity, 2},
	CodeUnauthorized: {http.StatusUnauthorized, 3},
	CodeForbidden:    {http.StatusForbidden, 1},
	CodeNotFound:     {http.StatusNotFound, 6},
	CodeAmbiguous:    {http.StatusConflict, 6},
	CodeConflict:     {http.StatusConflict, 1},
	CodeRefused:      {http.StatusBadGateway, 4},
	CodeUnreachable:  {http.StatusGatewayTimeout, 7},
	CodeMoney:        {http.StatusPaymentRequired, 8},
	CodeExpired:      {http.StatusGone, 4},
	CodeLedger:       {http.StatusServiceUnavailable, 7},
	CodeNotRunning:   {http.StatusConflict, 1},
	CodeWorkload:     {http.StatusConflict, 9},
	CodeMissing:      {http.StatusNotImplemented, 5},
	CodeRateLimited:  {http.StatusTooManyRequests, 1},
	CodeFull:         {http.StatusInsufficientStorage, 1},
	CodeLocked:       {http.StatusConflict, 10},
	CodeNoNode:       {http.StatusServiceUnavailable, 3},
	CodeInternal:     {http.StatusInternalServerError, 1},
}

// Error returns the code.
func (c Code) Error() string { return string(c) }

// Status returns the code's HTTP status.
func (c Code) Status() int {
	if e, ok := table[c]; ok {
		return e.status
	}
	return unknownStatus
}

// Exit returns the exit code with which the command line ends.
func (c Code) Exit() int {
	if e, ok := table[c]; ok {
		return e.exit
	}
	return 1
}

// Error is a refusal: its code, a sentence that says what to do, and its
// cause, if any.
type Error struct {
	Code   Code
	Detail string
	Err    error
}

// Error returns the sentence and the cause.
func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Detail
	case e.Detail == "":
		return e.Err.Error()
	}
	return e.Detail + ": " + e.Err.Error()
}

// Is reports whether target is this refusal's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns a refusal.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of an error, [CodeInternal] when it has none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
