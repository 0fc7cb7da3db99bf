package containertest

import (
	"bytes"
	"context"
	"io"
	"sync"

	"github.com/pkt-cash/pkt-cloud/container"
)

// twinLog keeps the lines of one container.
type twinLog struct {
	mu    sync.Mutex
	lines []container.LogLine
	ended bool
	more  chan struct{} // closed and replaced at each change
}

func newTwinLog() *twinLog { return &twinLog{more: make(chan struct{})} }

func (l *twinLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.more)
	l.more = make(chan struct{})
}

func (l *twinLog) end() { l.change(func() { l.ended = true }) }

func (l *twinLog) writer(s container.Stream) *twinLogWriter { return &twinLogWriter{log: l, stream: s} }

// twinLogWriter cuts a stream into lines.
type twinLogWriter struct {
	log    *twinLog
	stream container.Stream

	mu   sync.Mutex
	part []byte
}

// Write takes any piece of the stream.
func (w *twinLogWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.part = append(w.part, p...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 && len(w.part) <= container.MaxLogText {
			return len(p), nil
		}
		if i < 0 || i > container.MaxLogText {
			w.add(w.part[:container.MaxLogText])
			w.part = w.part[container.MaxLogText:]
			continue
		}
		w.add(w.part[:i])
		w.part = w.part[i+1:]
	}
}

func (w *twinLogWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) > 0 {
		w.add(w.part)
		w.part = nil
	}
}

func (w *twinLogWriter) add(text []byte) {
	line := container.LogLine{Time: now().UTC(), Stream: w.stream, Text: bytes.Clone(text)}
	w.log.change(func() { w.log.lines = append(w.log.lines, line) })
}

// reader returns the lines that o chooses.
func (l *twinLog) reader(ctx context.Context, o container.LogOptions) io.ReadCloser {
	l.mu.Lock()
	next := 0
	for next < len(l.lines) && l.lines[next].Time.Before(o.Since) {
		next++
	}
	if o.Tail > 0 {
		next = max(next, len(l.lines)-o.Tail)
	}
	l.mu.Unlock()
	ctx, stop := context.WithCancel(ctx)
	return &twinLogReader{log: l, ctx: ctx, stop: stop, next: next, follow: o.Follow}
}

type twinLogReader struct {
	log    *twinLog
	ctx    context.Context
	stop   context.CancelFunc
	next   int
	follow bool
	buf    []byte
}

// Read returns bytes of whole lines, in any pieces.
func (r *twinLogReader) Read(p []byte) (int, error) {
	for len(r.buf) == 0 {
		r.log.mu.Lock()
		for ; r.next < len(r.log.lines); r.next++ {
			r.buf = container.AppendLogLine(r.buf, r.log.lines[r.next])
		}
		more, ended := r.log.more, r.log.ended || !r.follow
		r.log.mu.Unlock()
		if len(r.buf) > 0 {
			break
		}
		if ended {
			return 0, io.EOF
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

// Close ends a reading that waits.
func (r *twinLogReader) Close() error {
	r.stop()
	return nil
}
