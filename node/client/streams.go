package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/internal/stream"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Events calls fn for each event that the node reports.
func (c *Client) Events(ctx context.Context, fn func(service.Event) error) error {
	answer, err := c.request(ctx, http.MethodGet, "/events", nil, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e service.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return &service.Error{Code: service.CodeInternal, Detail: "the node's answer is malformed", Err: err}
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.transport(ctx, err)
	}
	return ctx.Err()
}

// upgrade sends a request that turns its connection into a stream.
func (c *Client) upgrade(ctx context.Context, path string) (net.Conn, *bufio.Reader, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, nil, c.transport(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	in, err := c.handshake(conn, path)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, in, nil
}

func (c *Client) handshake(conn net.Conn, path string) (*bufio.Reader, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+c.address+api.Base+path, nil)
	if err != nil {
		return nil, &service.Error{Code: service.CodeInternal, Err: err}
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", stream.Protocol)
	if err := r.Write(conn); err != nil {
		return nil, c.transport(r.Context(), err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, r)
	if err != nil {
		return nil, c.transport(r.Context(), err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusal(answer)
	}
	return in, nil
}

// streamPath is the path of a stream to LEASE or LEASE/SERVICE.
func streamPath(name, what string, q url.Values) string {
	lease, service, named := strings.Cut(name, "/")
	if q == nil {
		q = url.Values{}
	}
	if named {
		q.Set("service", service)
	}
	path := leasePath(lease) + "/" + what
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return path
}

// Exec runs a program in a lease.
func (c *Client) Exec(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
	conn, in, err := c.upgrade(ctx, streamPath(name, "exec", nil))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	out := stream.NewWriter(conn)
	if err := out.WriteJSON(stream.Request, r); err != nil {
		return 0, c.transport(ctx, err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { sendSizes(out, s.Resize, done) })
	defer wg.Wait()
	defer close(done)
	// Reading standard input cannot be interrupted, so nobody waits for it.
	go sendInput(out, s.Stdin)
	return c.receive(ctx, in, s)
}

func sendInput(out *stream.Writer, stdin io.Reader) {
	if stdin != nil {
		io.Copy(out.Pipe(stream.Stdin), stdin) //nolint:errcheck // the program has ended
	}
	out.Write(stream.Stdin, nil) //nolint:errcheck // the program has ended
}

func sendSizes(out *stream.Writer, sizes <-chan service.Size, done <-chan struct{}) {
	for {
		select {
		case s, ok := <-sizes:
			if !ok || out.WriteJSON(stream.Resize, s) != nil {
				return
			}
		case <-done:
			return
		}
	}
}

func (c *Client) receive(ctx context.Context, in io.Reader, s service.Streams) (int, error) {
	for {
		kind, payload, err := stream.Read(in)
		if err != nil {
			return 0, c.transport(ctx, err)
		}
		switch kind {
		case stream.Stdout:
			err = write(s.Stdout, payload)
		case stream.Stderr:
			err = write(s.Stderr, payload)
		case stream.Exit:
			var result stream.Result
			if err := json.Unmarshal(payload, &result); err != nil {
				return 0, &service.Error{Code: service.CodeInternal, Detail: "the node's answer is malformed", Err: err}
			}
			if result.Code != "" {
				return 0, service.Errorf(service.Code(result.Code), "%s", result.Detail)
			}
			return result.ExitCode, nil
		case stream.Request, stream.Stdin, stream.Resize:
			err = errors.New("a frame of the wrong direction")
		default:
			err = errors.New("an unknown frame")
		}
		if err != nil {
			return 0, &service.Error{Code: service.CodeInternal, Err: err}
		}
	}
}

func write(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// Forward connects to a port of a lease.
func (c *Client) Forward(ctx context.Context, name string, port uint16) (net.Conn, error) {
	conn, in, err := c.upgrade(ctx, streamPath(name, "forward", url.Values{"port": {strconv.Itoa(int(port))}}))
	if err != nil {
		return nil, err
	}
	return &forwarded{Conn: conn, in: in}, nil
}

// forwarded reads first what came with the answer.
type forwarded struct {
	net.Conn
	in *bufio.Reader
}

func (f *forwarded) Read(b []byte) (int, error) { return f.in.Read(b) }

// CloseWrite ends the sending direction.
func (f *forwarded) CloseWrite() error {
	if h, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
