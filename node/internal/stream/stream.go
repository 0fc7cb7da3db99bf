// Package stream carries an exec session over one connection that was an HTTP
// request before: frames of a kind, a length and a payload. The layout is that
// of spec/api.md.
package stream

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Protocol is the name in the Upgrade header.
const Protocol = "pktcloud-stream"

// MaxFrame bounds a payload.
const MaxFrame = 64 << 10

// Kind says what a frame carries.
type Kind uint8

// Kinds of frames.
const (
	Request Kind = iota + 1 // JSON service.ExecRequest; first, from the client
	Stdin                   // bytes; empty: the end
	Resize                  // JSON service.Size
	Stdout                  // bytes
	Stderr                  // bytes
	Exit                    // JSON Result; last, from the server
)

// Result is how an exec session ended: an exit code, or a refusal.
type Result struct {
	ExitCode int    `json:"exit_code"`
	Code     string `json:"code,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// Writer writes frames. It may be used from several goroutines.
type Writer struct {
	mu sync.Mutex // held while a frame is written
	w  io.Writer
}

// NewWriter returns a writer of frames.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one frame:
//
//	kind (1 byte) || length (4 bytes, big-endian) || payload
func (w *Writer) Write(k Kind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes, at most %d", len(payload), MaxFrame)
	}
	b := make([]byte, 5, 5+len(payload))
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(append(b, payload...))
	return err
}

// WriteJSON sends a value.
func (w *Writer) WriteJSON(k Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.Write(k, b)
}

// Pipe returns an io.Writer whose writes become frames of kind k.
func (w *Writer) Pipe(k Kind) io.Writer { return pipe{w, k} }

type pipe struct {
	w *Writer
	k Kind
}

func (p pipe) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), MaxFrame)]
		if err := p.w.Write(p.k, part); err != nil {
			return n, err
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}

// Read reads one frame. A payload longer than [MaxFrame] is refused unread.
func Read(r io.Reader) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes, at most %d", n, MaxFrame)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("inside a frame: %w", err)
	}
	return Kind(head[0]), payload, nil
}
