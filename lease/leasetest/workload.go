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
	hold            chan struct{} // Start waits for its end
	resize          func(id pktcloud.ID, m lease.Manifest) error
	sizes           map[pktcloud.ID]lease.Manifest
}

type run struct {
	listener net.Listener
	server   *http.Server
	frozen   bool
	thaw     chan struct{} // closed while it is not frozen
	ended    bool
}

// NewWorkload returns a machine on which nothing runs.
func NewWorkload() *Workload {
	return &Workload{runs: map[pktcloud.ID]*run{}, sizes: map[pktcloud.ID]lease.Manifest{}}
}

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

// Hold makes each Start wait, too far gone to look at its context, until the
// returned function is called.
func (w *Workload) Hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = make(chan struct{})
	return sync.OnceFunc(func() { close(w.hold) })
}

// OnResize judges each Resize from now on: with an error of its own it changes
// nothing. Nil lets all be.
func (w *Workload) OnResize(judge func(id pktcloud.ID, m lease.Manifest) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resize = judge
}

// Sizes returns the manifest whose sizes a lease has.
func (w *Workload) Sizes(id pktcloud.ID) lease.Manifest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sizes[id]
}

// Resize implements peer.Resizer.
func (w *Workload) Resize(_ context.Context, id pktcloud.ID, m lease.Manifest) error {
	w.mu.Lock()
	judge := w.resize
	w.mu.Unlock()
	if judge != nil {
		if err := judge(id, m); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs[id] == nil {
		return errNone
	}
	w.sizes[id] = m
	return nil
}

// Start implements peer.Workload.
func (w *Workload) Start(_ context.Context, id pktcloud.ID, m lease.Manifest) error {
	w.mu.Lock()
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		<-hold
	}
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
	w.runs[id], w.sizes[id] = r, m
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
func (w *Workload) Dial(ctx context.Context, id pktcloud.ID, _ string, _ uint16) (net.Conn, error) {
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
// 3 and a word on its standard error, "wait" says so and waits to be
// killed.
func (w *Workload) Exec(ctx context.Context, id pktcloud.ID, service string, e session.ExecRequest) (int, error) {
	if st, err := w.Status(ctx, id); err != nil || st == peer.WorkloadEnded {
		return 0, errNone
	}
	if e.Files {
		if service == "bare" {
			return 0, lease.Refusal(lease.CodeMissing, "service bare has no files")
		}
		_, err := io.Copy(e.Stdout, io.MultiReader(strings.NewReader("files of "+service+": "), e.Stdin))
		return 0, err
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
		if _, err := fmt.Fprintln(e.Stdout, "waiting"); err != nil {
			return 0, err
		}
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 127, nil
}

// Services implements session.Workload: one that runs.
func (w *Workload) Services(ctx context.Context, id pktcloud.ID) ([]session.ServiceStatus, error) {
	if st, err := w.Status(ctx, id); err != nil || st == peer.WorkloadEnded {
		return nil, errNone
	}
	return []session.ServiceStatus{{Name: "web", Phase: "running", Runs: 1, MemoryBytes: 1 << 20}}, nil
}

// Metrics implements session.Workload: a minute of use of one service.
func (w *Workload) Metrics(ctx context.Context, id pktcloud.ID, service string) ([]session.Metrics, error) {
	if st, err := w.Status(ctx, id); err != nil || st == peer.WorkloadEnded {
		return nil, errNone
	}
	if service != "" && service != "web" {
		return nil, lease.Refusal(lease.CodeUnknown, "no service %q", service)
	}
	minute := session.Series{
		Begin: 1_800_000_000, Step: 60, Seen: []uint64{60_000}, CPU: []uint64{6_000}, Throttled: []uint64{0}, Memory: []uint64{1 << 20},
		Disk: []uint64{0}, In: []uint64{0}, Out: []uint64{0}, Hits: []uint64{0},
	}
	return []session.Metrics{{Version: session.HeaderVersion, Name: "web", Run: 1, Recent: minute, Life: minute}}, nil
}

// Volumes implements session.Workload: one that is half full.
func (w *Workload) Volumes(ctx context.Context, id pktcloud.ID) ([]session.VolumeStatus, error) {
	if st, err := w.Status(ctx, id); err != nil || st == peer.WorkloadEnded {
		return nil, errNone
	}
	return []session.VolumeStatus{{Name: "data", SizeBytes: 2 << 30, FreeBytes: 1 << 30, Ready: true}}, nil
}

// Logs implements session.Workload: two lines, and with Follow no end until
// the reader is closed.
func (w *Workload) Logs(_ context.Context, _ pktcloud.ID, _ string, o session.LogOptions) (io.ReadCloser, error) {
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
