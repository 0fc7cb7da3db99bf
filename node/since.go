package node

import (
	"bytes"
	"io"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// sinceWriter passes on whole log lines from a moment on.
type sinceWriter struct {
	w     io.Writer
	since time.Time
	part  []byte
}

func (s *sinceWriter) Write(b []byte) (int, error) {
	s.part = append(s.part, b...)
	for {
		i := bytes.IndexByte(s.part, '\n')
		if i < 0 {
			if len(s.part) > container.MaxLogLine {
				s.part = s.part[:0] // no line of ours
			}
			return len(b), nil
		}
		line := s.part[:i+1]
		if l, err := container.ParseLogLine(line); err != nil || !l.Time.Before(s.since) {
			if _, err := s.w.Write(line); err != nil {
				return 0, err
			}
		}
		s.part = s.part[i+1:]
	}
}
