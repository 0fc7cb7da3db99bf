//go:build cgo && amd64

package libcontainer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// The log lies in two files: the newer is written until it has half of the
// cap, then it becomes the older [CONTAINER-14].
const (
	logNew = "log.0"
	logOld = "log.1"
)

// logWriter gathers a container's output. One goroutine for each pipe feeds
// it.
type logWriter struct {
	dir string
	max int64
	wg  sync.WaitGroup

	mu    sync.Mutex
	file  *os.File
	size  int64
	last  time.Time
	buf   []byte
	pipes []*os.File
}

func openLog(dir string, maxBytes int64) (*logWriter, error) {
	f, err := os.OpenFile(filepath.Join(dir, logNew), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &logWriter{dir: dir, max: maxBytes / 2, file: f}, nil
}

// pipe returns the end of a pipe for the container to write to.
func (l *logWriter) pipe(s container.Stream) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.pipes = append(l.pipes, r)
	l.mu.Unlock()
	l.wg.Go(func() { l.copy(s, r) })
	return w, nil
}

// copy cuts a stream into lines, which are on disk once they were read.
func (l *logWriter) copy(s container.Stream, r io.Reader) {
	buf, used := make([]byte, container.MaxLogText), 0
	for {
		n, err := r.Read(buf[used:])
		used += n
		rest := buf[:used]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			l.add(s, rest[:i])
			rest = rest[i+1:]
		}
		if len(rest) == len(buf) || err != nil && len(rest) > 0 {
			l.add(s, rest)
			rest = nil
		}
		used = copy(buf, rest)
		if err != nil {
			return
		}
	}
}

func (l *logWriter) add(s container.Stream, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now()
	if at.Before(l.last) { // the clock was set back; keep the order
		at = l.last
	}
	l.last = at
	l.buf = container.AppendLogLine(l.buf[:0], container.LogLine{Time: at, Stream: s, Text: text})
	if l.size+int64(len(l.buf)) > l.max {
		l.rotate()
	}
	// A full disk loses log lines, not the container.
	n, _ := l.file.Write(l.buf)
	l.size += int64(n)
}

func (l *logWriter) rotate() {
	path := filepath.Join(l.dir, logNew)
	if err := os.Rename(path, filepath.Join(l.dir, logOld)); err != nil {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	_ = l.file.Close()
	l.file, l.size = f, 0
}

// drain reads the pipes to their end, or gives up on what still holds them.
func (l *logWriter) drain(wait time.Duration) {
	l.mu.Lock()
	for _, p := range l.pipes {
		_ = p.SetReadDeadline(time.Now().Add(wait))
	}
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *logWriter) close() {
	l.drain(0)
	for _, p := range l.pipes {
		_ = p.Close()
	}
	_ = l.file.Close()
}

// logReader reads both files, and what is added to them, as one.
type logReader struct {
	ctx   context.Context
	stop  context.CancelFunc
	dir   string
	opt   container.LogOptions
	ended func() bool // nothing will be added any more

	file   *os.File
	opened bool   // the older file was looked for
	part   []byte // a line that is not whole yet
	out    []byte
}

const logPoll = 50 * time.Millisecond

func newLogReader(ctx context.Context, dir string, o container.LogOptions, ended func() bool) (*logReader, error) {
	ctx, stop := context.WithCancel(ctx)
	r := &logReader{ctx: ctx, stop: stop, dir: dir, opt: o, ended: ended}
	if o.Tail > 0 {
		if err := r.tail(min(o.Tail, container.MaxTail)); err != nil {
			stop()
			return nil, err
		}
	}
	return r, nil
}

// tail finds the time of the n-th line from the end, and starts there.
func (r *logReader) tail(n int) error {
	scan := &logReader{ctx: r.ctx, dir: r.dir, opt: container.LogOptions{Since: r.opt.Since}, ended: func() bool { return true }}
	defer func() { _ = scan.Close() }()
	var lines [][]byte
	size := 0
	for {
		line, err := scan.line()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		lines, size = append(lines, line), size+len(line)
		for len(lines) > n || size > container.MaxTailBytes {
			size -= len(lines[0])
			lines = lines[1:]
		}
	}
	for _, l := range lines {
		r.out = append(r.out, l...)
	}
	r.file, r.opened, r.part = scan.file, scan.opened, scan.part
	scan.file = nil
	return nil
}

// Read returns bytes of whole lines, in any pieces.
func (r *logReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		line, err := r.line()
		if err != nil {
			return 0, err
		}
		r.out = line
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// line returns the next line that is wanted.
func (r *logReader) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.part, '\n'); i >= 0 {
			line := bytes.Clone(r.part[:i+1])
			r.part = r.part[i+1:]
			l, err := container.ParseLogLine(line)
			if err == nil && !l.Time.Before(r.opt.Since) {
				return line, nil
			}
			continue
		}
		if len(r.part) > container.MaxLogLine {
			r.part = nil
		}
		if err := r.more(); err != nil {
			return nil, err
		}
	}
}

// more reads on, in the next file where this one was rotated away, and waits
// when following.
func (r *logReader) more() error {
	for {
		ended := r.ended() // asked before reading, so that nothing is missed
		if r.file == nil && !r.open() {
			return io.EOF
		}
		buf := make([]byte, 32<<10)
		n, err := r.file.Read(buf)
		if n > 0 {
			r.part = append(r.part, buf[:n]...)
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if r.rotated() {
			// What was written between the read and the rotation.
			if n, _ := r.file.Read(buf); n > 0 {
				r.part = append(r.part, buf[:n]...)
				return nil
			}
			_ = r.file.Close()
			r.file, r.part = nil, nil
			continue
		}
		if ended || !r.opt.Follow {
			return io.EOF
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-time.After(logPoll):
		}
	}
}

// open opens the older file first, later the newer.
func (r *logReader) open() bool {
	names := []string{logOld, logNew}
	if r.opened {
		names = names[1:]
	}
	for _, name := range names {
		if f, err := os.Open(filepath.Join(r.dir, name)); err == nil {
			r.file, r.opened = f, true
			return true
		}
	}
	return false
}

// rotated reports whether the open file is no longer the newer.
func (r *logReader) rotated() bool {
	now, err := os.Stat(filepath.Join(r.dir, logNew))
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	mine, err2 := r.file.Stat()
	return err == nil && err2 == nil && !os.SameFile(now, mine)
}

// Close ends the reading.
func (r *logReader) Close() error {
	if r.stop != nil {
		r.stop()
	}
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
