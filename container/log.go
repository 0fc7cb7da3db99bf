package container

import (
	"bytes"
	"fmt"
	"time"
)

// Stream is where a log line came from.
type Stream uint8

// Streams of a log line.
const (
	Stdout Stream = iota + 1
	Stderr
)

// String returns "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// LogLine is one line of a container's output. Text has no newline; a line
// longer than [MaxLogText] arrives as several [CONTAINER-14].
type LogLine struct {
	Time   time.Time // UTC, nanoseconds
	Stream Stream
	Text   []byte
}

// logTime is RFC 3339 with nine decimals always, so that lines sort as text.
const logTime = "2006-01-02T15:04:05.000000000Z"

// AppendLogLine appends the line's encoding [CONTAINER-14]:
//
//	<RFC 3339 time in UTC, nine decimals> SP ("stdout" | "stderr") SP <text> LF
func AppendLogLine(b []byte, l LogLine) []byte {
	b = l.Time.UTC().AppendFormat(b, logTime)
	b = append(b, ' ')
	b = append(b, l.Stream.String()...)
	b = append(b, ' ')
	b = append(b, l.Text...)
	return append(b, '\n')
}

// ParseLogLine reads one line in the form of [AppendLogLine], its newline
// included. Text aliases line. Errors are [CodeRuntime].
func ParseLogLine(line []byte) (LogLine, error) {
	rest, ok := bytes.CutSuffix(line, []byte("\n"))
	if !ok || len(line) > MaxLogLine || bytes.IndexByte(rest, '\n') >= 0 {
		return LogLine{}, badLine("not one line of at most %d bytes", MaxLogLine)
	}
	stamp, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return LogLine{}, badLine("no time")
	}
	at, err := time.Parse(logTime, string(stamp))
	if err != nil || at.Format(logTime) != string(stamp) {
		return LogLine{}, badLine("malformed time")
	}
	tag, text, ok := bytes.Cut(rest, []byte(" "))
	l := LogLine{Time: at, Stream: Stdout, Text: text}
	if string(tag) == "stderr" {
		l.Stream = Stderr
	}
	if !ok || l.Stream.String() != string(tag) || len(text) > MaxLogText {
		return LogLine{}, badLine("neither stdout nor stderr, or too long")
	}
	return l, nil
}

func badLine(format string, args ...any) error {
	return &Error{Code: CodeRuntime, Detail: "log line: " + fmt.Sprintf(format, args...)}
}
