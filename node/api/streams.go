package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pkt-cash/pkt-cloud/node/internal/stream"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// streams registers the operations whose answers go on and on.
func (a *API) streams() {
	huma.Register(a.huma, huma.Operation{
		OperationID: "logs", Method: http.MethodGet, Path: Base + "/leases/{lease}/logs", Summary: "Log lines, as text",
	}, func(_ context.Context, i *logInput) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.logs(hc, i) }}, nil
	})
	a.mux.HandleFunc("POST "+Base+"/leases/{lease}/exec", a.exec)
	a.mux.HandleFunc("POST "+Base+"/leases/{lease}/forward", a.forward)
	a.describeUpgrade("exec", "/leases/{lease}/exec", "Run a program in a lease, in the service given as ?service= or the one that is probed; the connection becomes a stream of frames")
	a.describeUpgrade("forward", "/leases/{lease}/forward", "Connect to the TCP port given as ?port= of the service given as ?service=, or the one that is probed; the connection becomes that one")
}

// describeUpgrade adds an operation to the OpenAPI description that huma does
// not serve itself.
func (a *API) describeUpgrade(id, path, summary string) {
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: Base + path, Summary: summary,
		Parameters: []*huma.Param{
			{Name: "lease", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
			{Name: "service", In: "query", Schema: &huma.Schema{Type: huma.TypeString}},
			{Name: "Upgrade", In: "header", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{stream.Protocol}}},
		},
		Responses: map[string]*huma.Response{"101": {Description: "Switching Protocols"}, "default": {Description: "A refusal"}},
	})
}

// firstWrite sends a status before the first byte, so that a refusal that
// comes instead can have its own.
type firstWrite struct {
	hc      huma.Context
	flush   func()
	started bool
}

func (f *firstWrite) start() {
	if !f.started {
		f.started = true
		f.hc.SetHeader("Content-Type", "text/plain; charset=utf-8")
		f.hc.SetStatus(http.StatusOK)
	}
}

func (f *firstWrite) Write(b []byte) (int, error) {
	f.start()
	n, err := f.hc.BodyWriter().Write(b)
	f.flush()
	return n, err
}

func (a *API) logs(hc huma.Context, i *logInput) {
	w := &firstWrite{hc: hc, flush: func() {}}
	if f, ok := hc.BodyWriter().(http.Flusher); ok {
		w.flush = f.Flush
	}
	err := a.svc.Logs(hc.Context(), named(i.Lease, i.Service), service.LogRequest{Follow: i.Follow, Tail: i.Tail, Since: i.Since}, w)
	switch {
	case w.started: // an error now can only cut the answer short
	case err == nil:
		w.start()
	default:
		p := problem(err)
		hc.SetHeader("Content-Type", "application/problem+json")
		hc.SetStatus(p.Status)
		json.NewEncoder(hc.BodyWriter()).Encode(p) //nolint:errcheck // the client is gone, or reads it
	}
}

// upgrade takes the connection over from the HTTP server.
func upgrade(w http.ResponseWriter) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+stream.Protocol+"\r\n\r\n"); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, rw.Reader, nil
}

func wantsStream(r *http.Request) error {
	if r.Header.Get("Upgrade") != stream.Protocol || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		return service.Errorf(service.CodeInvalid, "send \"Connection: Upgrade\" and \"Upgrade: %s\"", stream.Protocol)
	}
	return nil
}

// named is LEASE/SERVICE, or LEASE where no service is named.
func named(lease, service string) string {
	if service == "" {
		return lease
	}
	return lease + "/" + service
}

// target is what a stream is to reach: a lease, and the service of ?service=.
func target(r *http.Request) string { return named(r.PathValue("lease"), r.URL.Query().Get("service")) }

func (a *API) exec(w http.ResponseWriter, r *http.Request) {
	if err := wantsStream(r); err != nil {
		writeProblem(w, err)
		return
	}
	// A wrong name is told before the connection changes its nature.
	if _, err := a.svc.Lease(r.Context(), r.PathValue("lease")); err != nil {
		writeProblem(w, err)
		return
	}
	conn, in, err := upgrade(w)
	if err != nil {
		return
	}
	defer conn.Close()
	a.runExec(r.Context(), target(r), conn, in)
}

// lingerTime is how long a client may take to read the last frame.
const lingerTime = 5 * time.Second

func (a *API) runExec(ctx context.Context, lease string, conn net.Conn, in *bufio.Reader) {
	out := stream.NewWriter(conn)
	kind, payload, err := stream.Read(in)
	var request service.ExecRequest
	if err != nil || kind != stream.Request || json.Unmarshal(payload, &request) != nil {
		out.WriteJSON(stream.Exit, stream.Result{Code: string(service.CodeInvalid), Detail: "the first frame is no request"}) //nolint:errcheck // the client is gone, or reads it
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	stdin, feed := io.Pipe()
	resize := make(chan service.Size, 1)
	var waiting atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel() // a client that goes away ends the program
		readExec(ctx, in, &input{feed, &waiting}, resize)
	})
	wg.Go(func() {
		defer cancel()
		knock(ctx, out, &waiting)
	})
	code, err := a.svc.Exec(ctx, lease, request, service.Streams{
		Stdin: stdin, Stdout: out.Pipe(stream.Stdout), Stderr: out.Pipe(stream.Stderr), Resize: resize,
	})
	cancel()
	stdin.CloseWithError(io.ErrClosedPipe)
	result := stream.Result{ExitCode: code}
	if err != nil {
		result.Code, result.Detail = string(service.CodeOf(err)), err.Error()
	}
	out.WriteJSON(stream.Exit, result) //nolint:errcheck // the client is gone, or reads it
	// Closing with input unread would reset the connection and lose the frame.
	closeWrite(conn)
	conn.SetReadDeadline(time.Now().Add(lingerTime)) //nolint:errcheck // it is closed, then
	wg.Wait()
}

// knockInterval is how often a client whose input waits is looked for.
const knockInterval = time.Second

// knock returns when the client has left, or ctx ends. While input waits for a
// program that reads none, nobody reads on to the connection's end; but then a
// frame without bytes cannot be written [API-11].
func knock(ctx context.Context, out *stream.Writer, waiting *atomic.Bool) {
	t := time.NewTicker(knockInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if waiting.Load() && out.Write(stream.Stdout, nil) != nil {
				return
			}
		}
	}
}

// input is a program's standard input, and whether a write to it waits.
type input struct {
	*io.PipeWriter
	waiting *atomic.Bool
}

func (i *input) Write(b []byte) (int, error) {
	i.waiting.Store(true)
	defer i.waiting.Store(false)
	return i.PipeWriter.Write(b)
}

// readExec hands the client's frames on until it leaves.
func readExec(ctx context.Context, in io.Reader, stdin *input, resize chan service.Size) {
	defer stdin.CloseWithError(io.ErrUnexpectedEOF)
	for {
		kind, payload, err := stream.Read(in)
		if err != nil {
			return
		}
		switch kind {
		case stream.Stdin:
			if len(payload) == 0 {
				stdin.Close() //nolint:errcheck // it never fails
			} else {
				stdin.Write(payload) //nolint:errcheck // a program that reads no more
			}
		case stream.Resize:
			var s service.Size
			if json.Unmarshal(payload, &s) != nil {
				continue
			}
			select {
			case resize <- s:
			case <-ctx.Done():
				return
			}
		case stream.Request, stream.Stdout, stream.Stderr, stream.Exit:
			return
		default:
			return
		}
	}
}

func (a *API) forward(w http.ResponseWriter, r *http.Request) {
	if err := wantsStream(r); err != nil {
		writeProblem(w, err)
		return
	}
	port, err := strconv.ParseUint(r.URL.Query().Get("port"), 10, 16)
	if err != nil || port == 0 {
		writeProblem(w, service.Errorf(service.CodeInvalid, "port is a number from 1 to 65535"))
		return
	}
	target, err := a.svc.Forward(r.Context(), target(r), uint16(port))
	if err != nil {
		writeProblem(w, err)
		return
	}
	defer target.Close()
	conn, in, err := upgrade(w)
	if err != nil {
		return
	}
	defer conn.Close()
	Splice(conn, in, target)
}

// Splice copies between two connections until both directions have ended; in
// reads what comes from a.
func Splice(a net.Conn, in io.Reader, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(b, in) //nolint:errcheck // the end of a connection
		closeWrite(b)
	})
	io.Copy(a, b) //nolint:errcheck // the end of a connection
	closeWrite(a)
	wg.Wait()
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite() //nolint:errcheck // the other side is gone
		return
	}
	c.Close()
}
