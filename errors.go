package pktcloud

import "errors"

// Errors that functions of this package wrap. Match them with errors.Is.
var (
	// ErrAmountRange marks money that overflows, is negative, or exceeds MaxAmount.
	ErrAmountRange = errors.New("amount out of range")
	// ErrAmountSyntax marks text that is no amount.
	ErrAmountSyntax = errors.New("malformed amount")
	// ErrEncoding marks bytes that are not the one strict encoding of a value [ENC-1].
	ErrEncoding = errors.New("malformed encoding")
	// ErrTooLarge marks input longer than its kind allows [ENC-4].
	ErrTooLarge = errors.New("input too large")
	// ErrID marks text or bytes that are no record id [ENC-6].
	ErrID = errors.New("malformed record id")
	// ErrKey marks a public key that is malformed or on the list of weak keys [ID-3].
	ErrKey = errors.New("unacceptable public key")
	// ErrSignature marks a signature that does not verify [ID-4].
	ErrSignature = errors.New("signature does not verify")
	// ErrRecord marks a well-encoded record whose content breaks a rule.
	ErrRecord = errors.New("invalid record")
	// ErrExpired marks a record or a device beyond its time.
	ErrExpired = errors.New("expired")
)
