package session

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// Limits of the protocol [SESSION-2].
const (
	MaxHeaderBytes = 64 << 10
	MaxReplyBytes  = 1 << 10
	MaxFrameBytes  = 32<<10 + 1 // of a stream: a kind and a piece of it
	MaxArgs        = 256
	MaxTail        = 1 << 20
)

// HeaderVersion is the version of Header that this package writes.
const HeaderVersion = 1

// Header opens a session [SESSION-1]. The fields that a command does not use
// are zero.
type Header struct {
	Version uint64      `cbor:"v"`
	Lease   pktcloud.ID `cbor:"lease"`
	Command Command     `cbor:"command"`
	Args    []string    `cbor:"args"`    // exec
	Env     []string    `cbor:"env"`     // exec, "NAME=value"
	WorkDir string      `cbor:"workdir"` // exec
	TTY     bool        `cbor:"tty"`     // exec
	Size    Size        `cbor:"size"`    // exec with TTY
	Follow  bool        `cbor:"follow"`  // logs
	Tail    uint64      `cbor:"tail"`    // logs
	Port    uint64      `cbor:"port"`    // forward
	Service string      `cbor:"service"` // exec, files and forward; logs and metrics, or empty: all
}

// Validate checks the header's shape [SESSION-2]. Errors match
// [lease.CodeMalformed].
func (h Header) Validate() error {
	if h.Version != HeaderVersion || h.Lease.IsZero() {
		return lease.Refusal(lease.CodeMalformed, "a session has version %d and names a lease", HeaderVersion)
	}
	rest := h
	named := lease.ValidServiceName(h.Service)
	switch h.Command {
	case CommandExec:
		rest.Args, rest.Env, rest.WorkDir, rest.TTY, rest.Size = nil, nil, "", false, Size{}
		if len(h.Args) == 0 || len(h.Args) > MaxArgs || len(h.Env) > MaxArgs || h.Args[0] == "" {
			return lease.Refusal(lease.CodeMalformed, "exec wants 1 to %d arguments and at most as many environment entries", MaxArgs)
		}
		if slices.ContainsFunc(slices.Concat(h.Args, h.Env, []string{h.WorkDir}), func(s string) bool { return strings.ContainsRune(s, 0) }) {
			return lease.Refusal(lease.CodeMalformed, "a zero byte in an argument")
		}
	case CommandLogs:
		rest.Follow, rest.Tail = false, 0
		named = named || h.Service == ""
		if h.Tail > MaxTail {
			return lease.Refusal(lease.CodeMalformed, "at most %d last lines", MaxTail)
		}
	case CommandForward:
		rest.Port = 0
		if h.Port == 0 || h.Port > 65535 {
			return lease.Refusal(lease.CodeMalformed, "port %d: ports are 1 to 65535", h.Port)
		}
	case CommandFiles:
	case CommandServices, CommandVolumes:
		named = h.Service == ""
	case CommandMetrics:
		named = named || h.Service == ""
	default:
		return lease.Refusal(lease.CodeMalformed, "no such command")
	}
	if !named {
		return lease.Refusal(lease.CodeMalformed, "%s and the name of a service do not go together so", h.Command)
	}
	if len(rest.Args) != 0 || len(rest.Env) != 0 || rest.WorkDir != "" || rest.TTY || rest.Size != (Size{}) || rest.Follow || rest.Tail != 0 || rest.Port != 0 {
		return lease.Refusal(lease.CodeMalformed, "a field that %s does not use is set", h.Command)
	}
	return nil
}

// ParseHeader decodes and validates a header.
func ParseHeader(data []byte) (Header, error) {
	var h Header
	if err := pktcloud.Unmarshal(data, &h, MaxHeaderBytes); err != nil {
		return Header{}, &lease.Error{Code: lease.CodeMalformed, Detail: "a session's header", Err: err}
	}
	return h, h.Validate()
}

// Reply answers a header. An empty code means that the session begins.
type Reply struct {
	Version uint64     `cbor:"v"`
	Code    lease.Code `cbor:"code"`
	Text    string     `cbor:"text"`
}

// Validate checks the reply's shape.
func (r Reply) Validate() error {
	if r.Version != HeaderVersion || len(r.Code) > 32 || len(r.Text) > lease.MaxText {
		return lease.Refusal(lease.CodeMalformed, "a reply of version %d with a short code and text", HeaderVersion)
	}
	return nil
}

// ParseReply decodes and validates a reply.
func ParseReply(data []byte) (Reply, error) {
	var r Reply
	if err := pktcloud.Unmarshal(data, &r, MaxReplyBytes); err != nil {
		return Reply{}, &lease.Error{Code: lease.CodeMalformed, Detail: "a session's reply", Err: err}
	}
	return r, r.Validate()
}

// Kinds of frames after the reply, in exec and logs [SESSION-4].
const (
	kindStdin  = 0 // to the workload; empty: its end
	kindStdout = 1
	kindStderr = 2
	kindResize = 3 // to the workload: encoding of Size
	kindExit   = 4 // from the workload: encoding of exit; the last frame
)

// exit ends an exec or a log.
type exit struct {
	Exit uint64     `cbor:"exit"` // the program's exit code
	Code lease.Code `cbor:"code"` // empty: it ended; otherwise the session failed
	Text string     `cbor:"text"`
}

// frames writes frames, from several goroutines.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) write(kind byte, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return wire.WriteFrame(f.w, append([]byte{kind}, p...))
}

// readFrame returns the next frame.
func readFrame(r io.Reader) (kind byte, p []byte, err error) {
	b, err := wire.ReadFrame(r, MaxFrameBytes)
	if err != nil {
		return 0, nil, err
	}
	if len(b) == 0 {
		return 0, nil, lease.Refusal(lease.CodeMalformed, "an empty frame")
	}
	return b[0], b[1:], nil
}

// kindWriter cuts what is written to it into frames of one kind.
type kindWriter struct {
	f    *frames
	kind byte
}

func (w kindWriter) Write(p []byte) (int, error) {
	n := 0
	for piece := range slices.Chunk(p, MaxFrameBytes-1) {
		if err := w.f.write(w.kind, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func replyTo(err error) Reply {
	if err == nil {
		return Reply{Version: HeaderVersion}
	}
	code, text := failure(err)
	return Reply{Version: HeaderVersion, Code: code, Text: text}
}

func failure(err error) (code lease.Code, text string) {
	text = err.Error()
	if e, ok := errors.AsType[*lease.Error](err); ok {
		text = e.Detail
	}
	if len(text) > lease.MaxText {
		text = text[:lease.MaxText]
	}
	return lease.CodeOf(err), strings.ToValidUTF8(text, "")
}

func writeValue(w io.Writer, v any) error {
	b, err := pktcloud.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	return wire.WriteFrame(w, b)
}
