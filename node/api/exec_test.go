package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/internal/stream"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// endless is a service whose programs run until they are ended, and read
// nothing.
type endless struct {
	service.Service
	started, ended chan struct{}
}

func (e *endless) Exec(ctx context.Context, _ string, _ service.ExecRequest, _ service.Streams) (int, error) {
	close(e.started)
	<-ctx.Done()
	close(e.ended)
	return 0, ctx.Err()
}

// more is input without an end; it tells when some of it has been sent.
type more struct {
	reads int
	sent  chan struct{}
}

func (m *more) Read(b []byte) (int, error) {
	if m.reads++; m.reads == 3 {
		close(m.sent)
	}
	return len(b), nil
}

// TestExecEndsWithItsClient: a program does not outlive the one who ran it, be
// it that the client hangs up, also with input on the way that the program
// never reads, or that it breaks the protocol [API-11].
func TestExecEndsWithItsClient(t *testing.T) {
	f := newFixture(t)
	l := f.lease(t)
	e := &endless{Service: f.twin}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	guard, err := api.NewGuard(f.token, ln.Addr())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, ln, api.New(e, guard, "test")) }()
	t.Cleanup(func() { cancel(); <-done })
	client := client.New(ln.Addr().String(), f.token)
	hangUp := func(stdin io.Reader, when chan struct{}) {
		call, leave := context.WithCancel(t.Context())
		go func() { <-e.started; <-when; leave() }()
		if _, err := client.Exec(call, l.Label, service.ExecRequest{Args: []string{"sleep"}}, service.Streams{Stdin: stdin}); err == nil {
			t.Error("a call that was given up succeeded")
		}
	}
	for name, leave := range map[string]func(){
		"hangs up": func() { hangUp(nil, e.started) },
		"hangs up with input on the way": func() {
			in := &more{sent: make(chan struct{})}
			hangUp(in, in.sent)
		},
		"breaks the protocol": func() {
			conn := f.execConn(t, ln.Addr().String(), l.Label)
			<-e.started
			if err := stream.NewWriter(conn).Write(stream.Exit, nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e.started, e.ended = make(chan struct{}), make(chan struct{})
			leave()
			select {
			case <-e.ended:
			case <-time.After(2 * time.Minute):
				t.Error("the program goes on without its client")
			}
		})
	}
}

// execConn begins an exec and leaves the rest of the conversation to the test.
func (f *fixture) execConn(t *testing.T, address, label string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s/leases/%s/exec HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		api.Base, label, address, f.token, stream.Protocol)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", answer, err)
	}
	if err := stream.NewWriter(conn).WriteJSON(stream.Request, service.ExecRequest{Args: []string{"sleep"}}); err != nil {
		t.Fatal(err)
	}
	return conn
}
