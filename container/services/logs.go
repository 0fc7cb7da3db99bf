package services

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// What is kept of the log of a container that is removed because its service
// starts again [SERVICE-12].
const (
	KeptRuns     = 3
	KeptLogBytes = 64 << 10 // of one run
	keptLines    = 2000
)

func logKey(set, service string, run uint64) string {
	return fmt.Sprintf("%s%s/%s/%016x", keyLog, set, service, run)
}

// keepLog keeps the end of a container's log. A container that is not there
// has none.
func (r *runner) keepLog(ctx context.Context, service, id string, run uint64) error {
	rd, err := r.m.cfg.Runtime.Logs(ctx, id, container.LogOptions{Tail: keptLines})
	if err != nil {
		return nil //nolint:nilerr // it is gone, or broken: no reason to keep the container
	}
	end := &tail{most: KeptLogBytes}
	_, err = io.Copy(end, rd)
	rd.Close()
	if err != nil && ctx.Err() != nil {
		return err
	}
	b := end.b
	if end.cut {
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	puts := []Put{{Key: logKey(r.set.ID, service, run), Value: b}}
	if len(b) == 0 {
		puts = nil
	}
	if run > KeptRuns {
		puts = append(puts, Put{Key: logKey(r.set.ID, service, run-KeptRuns)})
	}
	if len(puts) == 0 {
		return nil
	}
	return r.m.cfg.Store.Apply(ctx, puts)
}

// lastLine returns what a container wrote last, "" where that is not to be had.
func (r *runner) lastLine(ctx context.Context, id string) string {
	rd, err := r.m.cfg.Runtime.Logs(ctx, id, container.LogOptions{Tail: 1})
	if err != nil {
		return ""
	}
	defer rd.Close()
	b, err := io.ReadAll(io.LimitReader(rd, container.MaxLogLine))
	if err != nil {
		return ""
	}
	line, err := container.ParseLogLine(b)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(line.Text))
}

// LogOptions chooses log lines. An empty Service means all services: each line
// then begins with the service's name [SERVICE-12]. The rest is as in
// [container.LogOptions].
type LogOptions struct {
	Service string
	container.LogOptions
}

// Logs returns the lines of a set, oldest first, in the form of
// [container.AppendLogLine]: what is kept of earlier runs, and of the present
// one. With Follow it goes on with what is written later, over restarts, until
// ctx ends, the reader is closed, or the set has ended. The caller closes it.
func (m *Manager) Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	names := []string{o.Service}
	if o.Service == "" {
		names = nil
		for _, v := range r.set.Services {
			names = append(names, v.Name)
		}
	} else if r.set.index(o.Service) < 0 {
		return nil, &container.Error{Code: container.CodeNotFound, Detail: "service " + o.Service}
	}
	l := &merged{r: r, prefix: o.Service == "" && len(names) > 1, last: map[string]time.Time{}}
	past, err := l.past(ctx, names, o)
	if err != nil || !o.Follow {
		return past, err
	}
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	l.out = pw
	f := &following{past: past, rest: pr, cancel: cancel}
	f.begin = func() {
		for _, name := range names {
			f.wg.Go(func() { l.follow(ctx, name) })
		}
		go func() { // ends with the followers, which Close awaits
			f.wg.Wait()
			pw.Close() //nolint:errcheck // it never fails
		}()
	}
	return f, nil
}

// merged is the log of several services.
type merged struct {
	r      *runner
	prefix bool
	last   map[string]time.Time // of what was returned, by service
	mu     sync.Mutex           // one line at a time
	out    *io.PipeWriter
}

type line struct {
	at   time.Time
	text []byte
}

// past returns what was written so far, by time. It is not gathered but read as
// the caller reads, since it may be large; only the end of it is.
func (l *merged) past(ctx context.Context, names []string, o LogOptions) (_ io.ReadCloser, err error) {
	p := &pastReader{l: l}
	defer func() {
		if err != nil {
			p.Close() //nolint:errcheck // it never fails
		}
	}()
	if o.Tail > 0 {
		select {
		case l.r.m.tails <- struct{}{}:
			defer func() { <-l.r.m.tails }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for _, name := range names {
		s, err := l.source(ctx, name, o)
		if err != nil {
			return nil, err
		}
		p.sources = append(p.sources, s)
		if err := s.next(l); err != nil {
			return nil, err
		}
	}
	if o.Tail <= 0 {
		return p, nil
	}
	defer p.Close() //nolint:errcheck // it never fails
	end, err := p.end(o.Tail)
	return io.NopCloser(bytes.NewReader(end)), err
}

// source returns the past lines of one service.
func (l *merged) source(ctx context.Context, name string, o LogOptions) (*source, error) {
	s := &source{name: name, since: o.Since}
	take := func(_ string, b []byte) error {
		s.kept = append(s.kept, b...)
		return nil
	}
	if err := l.r.m.cfg.Store.Load(ctx, keyLog+l.r.set.ID+"/"+name+"/", take); err != nil {
		return nil, err
	}
	id, err := l.r.m.Container(l.r.set.ID, name)
	if err != nil {
		return s, nil //nolint:nilerr // it has not been started yet
	}
	rd, err := l.r.m.cfg.Runtime.Logs(ctx, id, container.LogOptions{Since: o.Since, Tail: o.Tail})
	if errors.Is(err, container.CodeNotFound) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.rd, s.in = rd, bufio.NewReaderSize(rd, container.MaxLogLine)
	return s, nil
}

// source is the past of one service.
type source struct {
	name  string
	since time.Time
	kept  []byte // of runs before the present one
	rd    io.Closer
	in    *bufio.Reader // nil at its end
	head  line          // the next line, until the next call of next
	over  bool
}

// next goes to the next line.
func (s *source) next(l *merged) error {
	for {
		var text []byte
		if len(s.kept) > 0 {
			i := bytes.IndexByte(s.kept, '\n')
			if i < 0 {
				i = len(s.kept) - 1
			}
			text, s.kept = s.kept[:i+1], s.kept[i+1:]
		} else if s.in == nil {
			s.over = true
			return nil
		} else {
			var err error
			text, err = s.in.ReadSlice('\n')
			if errors.Is(err, io.EOF) {
				s.in = nil
				continue
			}
			if err != nil {
				return err
			}
		}
		if at, shown, ok := l.show(s.name, text); ok && !at.Before(s.since) {
			s.head = line{at, shown}
			return nil
		}
	}
}

// pastReader merges sources by time.
type pastReader struct {
	l *merged

	mu      sync.Mutex
	sources []*source
	from    *source // of the line that is being returned
	out     []byte
	closed  bool
}

// line returns the next line, which is good until the next call; nil at the end.
func (p *pastReader) line() ([]byte, error) {
	if p.from != nil {
		if err := p.from.next(p.l); err != nil {
			return nil, err
		}
		p.from = nil
	}
	for _, s := range p.sources {
		if !s.over && (p.from == nil || s.head.at.Before(p.from.head.at)) {
			p.from = s
		}
	}
	if p.from == nil {
		return nil, nil
	}
	p.l.last[p.from.name] = p.from.head.at
	return p.from.head.text, nil
}

// end returns the last lines, of at most [container.MaxTailBytes].
func (p *pastReader) end(most int) ([]byte, error) {
	var lines [][]byte
	size := 0
	for {
		text, err := p.line()
		if err != nil || text == nil {
			return slices.Concat(lines...), err
		}
		lines, size = append(lines, bytes.Clone(text)), size+len(text)
		for len(lines) > most || size > container.MaxTailBytes {
			size -= len(lines[0])
			lines = lines[1:]
		}
	}
}

// Read returns bytes of whole lines, in any pieces.
func (p *pastReader) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	if len(p.out) == 0 {
		var err error
		if p.out, err = p.line(); err != nil {
			return 0, err
		}
		if p.out == nil {
			return 0, io.EOF
		}
	}
	n := copy(b, p.out)
	p.out = p.out[n:]
	return n, nil
}

// Close lets go of the logs.
func (p *pastReader) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.sources {
		if s.rd != nil {
			s.rd.Close()
		}
	}
	p.sources = nil
	return nil
}

// show returns a line as it is returned.
func (l *merged) show(name string, text []byte) (time.Time, []byte, bool) {
	parsed, err := container.ParseLogLine(text)
	if err != nil {
		return time.Time{}, nil, false
	}
	if !l.prefix {
		return parsed.Time, text, true
	}
	parsed.Text = slices.Concat([]byte(name), []byte(" | "), parsed.Text)
	parsed.Text = parsed.Text[:min(len(parsed.Text), container.MaxLogText)]
	return parsed.Time, container.AppendLogLine(nil, parsed), true
}

// follow copies what a service writes from now on, one container after the
// other.
func (l *merged) follow(ctx context.Context, name string) {
	l.mu.Lock()
	since := l.last[name]
	l.mu.Unlock()
	for read := uint64(0); ; {
		s, err := l.r.m.Await(ctx, l.r.set.ID, func(s Status) bool {
			v := s.Services[l.r.set.index(name)]
			return v.Run > read || v.Phase.Over()
		})
		if err != nil {
			return
		}
		v := s.Services[l.r.set.index(name)]
		if v.Run <= read {
			return
		}
		read = v.Run
		since = l.copy(ctx, name, v.Container, since)
	}
}

// copy copies the lines of one container that are newer than since, until it
// has exited.
func (l *merged) copy(ctx context.Context, name, id string, since time.Time) time.Time {
	from := since
	if !from.IsZero() {
		from = from.Add(1)
	}
	for delay := firstPoll; ; delay = min(2*delay, maxPoll) {
		rd, err := l.r.m.cfg.Runtime.Logs(ctx, id, container.LogOptions{Follow: true, Since: from})
		if errors.Is(err, container.CodeNotFound) && l.starting(id) {
			if sleep(ctx, delay) {
				continue
			}
		}
		if err != nil {
			return since
		}
		defer rd.Close()
		for in := bufio.NewReaderSize(rd, container.MaxLogLine); ; {
			text, err := in.ReadSlice('\n')
			if err != nil {
				return since
			}
			at, shown, ok := l.show(name, text)
			if !ok {
				continue
			}
			l.mu.Lock()
			_, err = l.out.Write(shown)
			l.mu.Unlock()
			if err != nil {
				return since
			}
			since = at
		}
	}
}

// starting reports whether a container is still to come.
func (l *merged) starting(id string) bool {
	s, _ := l.r.status()
	return slices.ContainsFunc(s.Services, func(v ServiceStatus) bool { return v.Container == id && v.Phase == Starting })
}

// following reads a log that goes on.
type following struct {
	past   io.ReadCloser
	rest   *io.PipeReader
	begin  func() // to follow
	cancel func()
	wg     sync.WaitGroup
	begun  sync.Once
	once   sync.Once
}

// Read returns bytes of whole lines, in any pieces.
func (f *following) Read(p []byte) (int, error) {
	n, err := f.past.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	f.begun.Do(f.begin)
	return f.rest.Read(p)
}

// Close ends the reading.
func (f *following) Close() error {
	f.once.Do(func() {
		f.cancel()
		f.past.Close()
		f.rest.Close() //nolint:errcheck // it never fails
		f.begun.Do(func() {})
		f.wg.Wait()
	})
	return nil
}
