package leasetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

var errNone = errors.New("leasetest: no such workload")

// Workload implements peer.Workload and session.Workload: each lease is a web
// server on the loopback that answers "hello". Like containers, it survives
// the party that started it. It may be used from several goroutines at once.
type Workload struct {
	mu   sync.Mutex
	runs map[pktcloud.ID]*run
	// Starts counts the workloads that Start made, Freezes the freezes.
	starts, freezes int
	fail            error
}

type run struct {
	listener net.Listener
	server   *http.Server
	frozen   bool
	thaw     chan struct{} // closed while it is not frozen
	ended    bool
}

// NewWorkload returns a machine on which nothing runs.
func NewWorkload() *Workload { return &Workload{runs: map[pktcloud.ID]*run{}} }

// Fail makes Start fail, or with nil work again.
func (w *Workload) Fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = err
}

// Counts returns how many workloads were started and how often one was frozen
// by its lease.
func (w *Workload) Counts() (starts, freezes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts, w.freezes
}

// Start implements peer.Workload.
func (w *Workload) Start(_ context.Context, id pktcloud.ID, _ lease.Manifest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	if w.runs[id] != nil {
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &run{listener: l, thaw: make(chan struct{})}
	close(r.thaw)
	r.server = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) { //nolint:gosec // loopback, in tests
		w.mu.Lock()
		thaw := r.thaw
		w.mu.Unlock()
		select {
		case <-thaw:
			fmt.Fprintln(rw, "hello")
		case <-req.Context().Done():
		}
	})}
	go r.server.Serve(l) //nolint:errcheck // ends with Close
	w.runs[id] = r
	w.starts++
	return nil
}

// SetFrozen freezes or thaws from outside, behind the lease's back.
func (w *Workload) SetFrozen(id pktcloud.ID, frozen bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.runs[id]
	if r == nil {
		return errNone
	}
	if frozen && !r.frozen {
		r.thaw = make(chan struct{})
	}
	if !frozen && r.frozen {
		close(r.thaw)
	}
	r.frozen = frozen
	return nil
}

// Freeze implements peer.Workload.
func (w *Workload) Freeze(_ context.Context, id pktcloud.ID) error {
	w.mu.Lock()
	w.freezes++
	w.mu.Unlock()
	return w.SetFrozen(id, true)
}

// Resume implements peer.Workload.
func (w *Workload) Resume(_ context.Context, id pktcloud.ID) error { return w.SetFrozen(id, false) }

// Status implements peer.Workload.
func (w *Workload) Status(_ context.Context, id pktcloud.ID) (peer.WorkloadStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.runs[id]
	switch {
	case r == nil || r.ended:
		return peer.WorkloadEnded, nil
	case r.frozen:
		return peer.WorkloadFrozen, nil
	}
	return peer.WorkloadRunning, nil
}

// Kill ends a workload by itself, as a crash of its program would.
func (w *Workload) Kill(id pktcloud.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[id]; r != nil {
		r.ended = true
		r.server.Close() //nolint:errcheck // in tests
	}
}

// Destroy implements peer.Workload.
func (w *Workload) Destroy(_ context.Context, id pktcloud.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[id]; r != nil {
		r.server.Close() //nolint:errcheck // in tests
		delete(w.runs, id)
	}
	return nil
}

// Dial implements peer.Workload and session.Workload.
func (w *Workload) Dial(ctx context.Context, id pktcloud.ID, _ uint16) (net.Conn, error) {
	w.mu.Lock()
	r := w.runs[id]
	w.mu.Unlock()
	if r == nil {
		return nil, errNone
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", r.listener.Addr().String())
}

// Exec implements session.Workload with a few programs: "echo" prints its
// arguments, "cat" its input, "size" a terminal's new size, "fail" exits with
// 3 and a word on its standard error, "wait" waits to be killed.
func (w *Workload) Exec(ctx context.Context, id pktcloud.ID, e session.ExecRequest) (int, error) {
	if st, err := w.Status(ctx, id); err != nil || st == peer.WorkloadEnded {
		return 0, errNone
	}
	switch e.Args[0] {
	case "echo":
		_, err := fmt.Fprintln(e.Stdout, strings.Join(e.Args[1:], " "))
		return 0, err
	case "cat":
		_, err := io.Copy(e.Stdout, e.Stdin)
		return 0, err
	case "size":
		s := <-e.Resize
		_, err := fmt.Fprintf(e.Stdout, "%dx%d\n", s.Cols, s.Rows)
		return 0, err
	case "fail":
		_, err := fmt.Fprintln(e.Stderr, "failed")
		return 3, err
	case "wait":
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 127, nil
}

// Logs implements session.Workload: two lines, and with Follow no end until
// the reader is closed.
func (w *Workload) Logs(_ context.Context, _ pktcloud.ID, o session.LogOptions) (io.ReadCloser, error) {
	lines := []string{"one\n", "two\n"}
	if o.Tail > 0 {
		lines = lines[max(0, len(lines)-o.Tail):]
	}
	text := strings.Join(lines, "")
	if !o.Follow {
		return io.NopCloser(strings.NewReader(text)), nil
	}
	r, pw := io.Pipe()
	go pw.Write([]byte(text)) //nolint:errcheck // ends with the reader
	return r, nil
}
