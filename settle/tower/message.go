package tower

import (
	"errors"
	"io"
	"strings"
	"unicode"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Kinds of messages [TOWER-1]: the first byte of a frame; the encoded record
// follows.
const (
	kindHello   = 0
	kindDeposit = 1
	kindReceipt = 2
	kindQuery   = 3
	kindPage    = 4
	kindRefuse  = 5
)

// Hello is the first message of a connection, from the tower.
type Hello struct {
	Version  uint64             `cbor:"v" json:"v"`
	Tower    pktcloud.PublicKey `cbor:"tower" json:"tower"`
	Rail     string             `cbor:"rail" json:"rail"`
	Nonce    []byte             `cbor:"nonce" json:"-"`
	MinValue pktcloud.Amount    `cbor:"min_value" json:"min_value"` // least capacity of a channel
	Deposits uint64             `cbor:"deposits" json:"deposits"`   // for one client
	Bytes    uint64             `cbor:"bytes" json:"bytes"`
	Ext      map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// Validate checks the message's shape. Errors match [settle.ErrMalformed].
func (h Hello) Validate() error {
	if h.Version != HelloVersion || len(h.Nonce) != NonceBytes || h.Rail == "" || len(h.Rail) > settle.MaxRailName || len(h.Ext) > settle.MaxExt {
		return settle.Refuse(settle.ErrMalformed, "hello version %d, want %d, a rail and a nonce", h.Version, HelloVersion)
	}
	return h.Tower.Validate()
}

// page answers a query.
type page struct {
	Version  uint64            `cbor:"v"`
	Deposits [][]byte          `cbor:"deposits"` // encoded, ascending by key
	More     bool              `cbor:"more"`
	Ext      map[string][]byte `cbor:"ext"`
}

// Validate checks the message's shape.
func (p page) Validate() error {
	if p.Version != 1 || len(p.Deposits) > MaxPageDeposits || p.More && len(p.Deposits) == 0 || len(p.Ext) > settle.MaxExt {
		return settle.Refuse(settle.ErrMalformed, "a page with %d deposits", len(p.Deposits))
	}
	return nil
}

// refuse answers what the tower does not take.
type refuse struct {
	Version uint64            `cbor:"v"`
	Code    uint64            `cbor:"code"`
	Text    string            `cbor:"text"`
	Ext     map[string][]byte `cbor:"ext"`
}

// Validate checks the message's shape.
func (r refuse) Validate() error {
	if r.Version != 1 || r.Code == 0 || r.Code > 1<<16-1 || len(r.Text) > MaxRefuseText || len(r.Ext) > settle.MaxExt {
		return settle.Refuse(settle.ErrMalformed, "a refusal with code %d", r.Code)
	}
	return nil
}

// refusalOf is how an error travels. What has no code is the tower's own
// trouble: the client may try again.
func refusalOf(err error) refuse {
	r := refuse{Version: 1, Code: uint64(settle.ErrBusy), Text: "the tower cannot judge this now"}
	if e, ok := errors.AsType[*settle.Error](err); ok {
		r.Code, r.Text = uint64(e.Code), e.Text
	}
	text := line(r.Text)
	r.Text = strings.ToValidUTF8(text[:min(len(text), MaxRefuseText)], "")
	return r
}

// line is a text without control characters, which a terminal would obey.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// validator is a message that knows its own bounds.
type validator interface{ Validate() error }

// parse decodes and validates a message.
func parse[T validator](data []byte, maxBytes int, what string) (T, error) {
	var v, none T
	if err := pktcloud.Unmarshal(data, &v, maxBytes); err != nil {
		return none, settle.Refuse(settle.ErrMalformed, what+": %w", err)
	}
	if err := v.Validate(); err != nil {
		return none, err
	}
	return v, nil
}

// ParseHello decodes and validates a Hello. Errors match [settle.ErrMalformed].
func ParseHello(data []byte) (Hello, error) { return parse[Hello](data, MaxSmallBytes, "hello") }

// writeMessage sends one message.
func writeMessage(w io.Writer, kind byte, v any) error {
	b, err := pktcloud.Marshal(v)
	if err != nil {
		return err
	}
	return wire.WriteFrame(w, append([]byte{kind}, b...))
}

// readMessage returns the kind and the bytes of the next message.
func readMessage(r io.Reader, maxBytes int) (kind byte, data []byte, err error) {
	b, err := wire.ReadFrame(r, maxBytes+1)
	if err != nil {
		return 0, nil, err
	}
	if len(b) == 0 {
		return 0, nil, settle.Refuse(settle.ErrMalformed, "an empty message")
	}
	return b[0], b[1:], nil
}
