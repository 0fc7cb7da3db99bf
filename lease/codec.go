package lease

import (
	"errors"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// validator is a value that knows its own bounds.
type validator interface{ Validate() error }

// parse decodes the one encoding of a value and validates it.
func parse[T validator](data []byte, maxBytes int) (T, error) {
	var v, none T
	if err := pktcloud.Unmarshal(data, &v, maxBytes); err != nil {
		return none, wrap(CodeMalformed, "decoding", err)
	}
	if err := v.Validate(); err != nil {
		return none, err
	}
	return v, nil
}

// parseSigned decodes and verifies a record.
func parseSigned[B pktcloud.Body](data []byte, maxBytes int) (pktcloud.Signed[B], error) {
	s, err := pktcloud.ParseSigned[B](data, maxBytes)
	if err != nil {
		return pktcloud.Signed[B]{}, asRefusal(err)
	}
	return s, nil
}

// idOf returns the id of a value's encoding.
func idOf(v any) (pktcloud.ID, error) {
	b, err := pktcloud.Marshal(v)
	if err != nil {
		return pktcloud.ID{}, err
	}
	return pktcloud.IDOf(b), nil
}

// asRefusal gives the root package's errors a code of this one.
func asRefusal(err error) error {
	var e *Error
	switch {
	case err == nil || errors.As(err, &e):
		return err
	case errors.Is(err, pktcloud.ErrSignature), errors.Is(err, pktcloud.ErrKey):
		return wrap(CodeSignature, "a record", err)
	default:
		return wrap(CodeMalformed, "a record", err)
	}
}
