package node

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/store"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// translate gives an error of any part a code of the service. A nil error
// stays nil, and so does one that has a code.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*service.Error](err); ok {
		return err
	}
	e := &service.Error{Code: codeOf(err), Err: plain(err)}
	if e.Code == service.CodeLedger {
		e.Detail = "see that the chain's node runs and that --chain and its cookie are right"
	}
	return e
}

// told is an error in the words for a person; its cause still matches.
type told struct {
	text string
	err  error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.err }

// bare leaves out the name of the package that an error's text begins with.
func bare(err error) string {
	_, text, ok := strings.Cut(err.Error(), ": ")
	if !ok {
		return err.Error()
	}
	return text
}

// plain leaves out the names of package and code that a refusal of market,
// lease or settle begins with: the code of the service says as much.
func plain(err error) error {
	var m *market.Error
	var l *lease.Error
	var s *settle.Error
	var detail string
	var cause error
	switch {
	case errors.Is(err, peer.ErrUnreachable):
		return &told{"the provider does not answer at its addresses; try again later, or choose another offer", err}
	case errors.Is(err, session.ErrUnreachable):
		return &told{"the provider does not answer at its addresses; the lease stays, try again later", err}
	case errors.As(err, &l):
		detail, cause = l.Detail, l.Err
	case errors.As(err, &m):
		detail, cause = m.Detail, m.Err
	case errors.As(err, &s):
		detail = s.Text
	}
	if detail == "" {
		return err
	}
	if cause != nil {
		detail += ": " + plain(cause).Error()
	}
	return &told{detail, err}
}

// codes lists what the parts say and what it is to the node's owner; the first
// that matches counts.
var codes = []struct {
	err  error
	code service.Code
}{
	{store.ErrFull, service.CodeFull},
	{syscall.ENOSPC, service.CodeFull},
	{store.ErrNewer, service.CodeConflict},
	{store.ErrForeign, service.CodeConflict},
	{keystore.ErrPassword, service.CodeUnauthorized},
	{keystore.ErrExposed, service.CodeForbidden},
	{keystore.ErrDamaged, service.CodeInvalid},
	{keystore.ErrPhrase, service.CodeInvalid},
	{keystore.ErrExists, service.CodeConflict},
	{fs.ErrPermission, service.CodeForbidden},

	{container.CodeNotRoot, service.CodeMissing},
	{container.CodeNoCgroups, service.CodeMissing},
	{container.CodeUnsupported, service.CodeMissing},
	{container.CodeMissingFeature, service.CodeMissing},
	{container.CodeDiskFull, service.CodeFull},
	{container.CodePortRefused, service.CodeNotRunning},
	{container.CodeNotRunning, service.CodeNotRunning},
	{container.CodeNotFound, service.CodeNotRunning},
	{container.CodeInvalidSpec, service.CodeInvalid},

	{settle.ErrLedgerUnavailable, service.CodeLedger},
	{wallet.ErrFunds, service.CodeMoney},
	{wallet.ErrFee, service.CodeMoney},
	{wallet.ErrCoin, service.CodeConflict},
	{wallet.ErrReplace, service.CodeConflict},
	{wallet.ErrLocked, service.CodeLocked},
	{wallet.ErrNoHistory, service.CodeMissing},
	{settle.ErrParams, service.CodeInvalid},
	{settle.ErrCapacity, service.CodeMoney},
	{settle.ErrUnconfirmed, service.CodeMoney},
	{settle.ErrUnknown, service.CodeNotFound},

	{peer.ErrUnreachable, service.CodeUnreachable},
	{session.ErrUnreachable, service.CodeUnreachable},

	{market.CodeExpired, service.CodeExpired},
	{market.CodePrice, service.CodeMoney},
	{market.CodeMalformed, service.CodeInvalid},
	{market.CodeFull, service.CodeConflict},

	{lease.CodePrice, service.CodeMoney},
	{lease.CodeMalformed, service.CodeInvalid},
	{lease.CodeUnknown, service.CodeNotFound},
	{lease.CodePhase, service.CodeConflict},
	{lease.CodeMissing, service.CodeMissing},

	{context.DeadlineExceeded, service.CodeUnreachable},
	{context.Canceled, service.CodeUnreachable},
}

func codeOf(err error) service.Code {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	var fromMarket *market.Error
	var fromLease *lease.Error
	if errors.As(err, &fromMarket) || errors.As(err, &fromLease) {
		return service.CodeRefused
	}
	return service.CodeInternal
}
