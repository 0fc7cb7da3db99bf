package session_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/leasetest"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

var leaseID = pktcloud.IDOf([]byte("lease"))

// gate is an authorizer: one device, while it is open.
type gate struct {
	device    pktcloud.PublicKey
	suspended atomic.Bool
	closed    atomic.Bool
}

func (g *gate) Authorize(_ context.Context, id pktcloud.ID, device pktcloud.PublicKey, c session.Command) error {
	switch {
	case id != leaseID || device != g.device:
		return lease.Refusal(lease.CodeUnknown, "no such lease of this device")
	case g.closed.Load() || g.suspended.Load() && c != session.CommandLogs:
		return lease.Refusal(lease.CodePhase, "not now")
	}
	return nil
}

func newHost(t *testing.T, name string) (host.Host, pktcloud.PublicKey) {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	priv, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(priv), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics(), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, pktcloud.NewPrivateKey(seed).Public()
}

func serve(t *testing.T, maxSessions int) (session.Target, *gate, *leasetest.Workload) {
	t.Helper()
	provider, device := newHost(t, "provider "+t.Name())
	tenant, tenantDevice := newHost(t, "tenant "+t.Name())
	tenant.Peerstore().AddAddrs(provider.ID(), provider.Addrs(), time.Hour)
	w := leasetest.NewWorkload()
	if err := w.Start(t.Context(), leaseID, lease.Manifest{}); err != nil {
		t.Fatal(err)
	}
	g := &gate{device: tenantDevice}
	s, err := session.NewServer(session.ServerConfig{Host: provider, Workload: w, Authorizer: g, MaxSessions: maxSessions})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v from Run", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("a session outlives the server")
		}
		w.Destroy(context.Background(), leaseID)
	})
	for len(provider.Mux().Protocols()) == 0 {
		time.Sleep(time.Millisecond)
	}
	return session.Target{Host: tenant, Provider: device, Lease: leaseID}, g, w
}

func TestExec(t *testing.T) {
	target, _, _ := serve(t, 0)
	long := strings.Repeat("0123456789", 100_000)
	sizes := make(chan session.Size, 1)
	sizes <- session.Size{Cols: 132, Rows: 43}
	for _, c := range []struct {
		name           string
		request        session.ExecRequest
		stdout, stderr string
		code           int
	}{
		{"output", session.ExecRequest{Args: []string{"echo", "a", "b"}}, "a b\n", "", 0},
		{"input, larger than any buffer", session.ExecRequest{Args: []string{"cat"}, Stdin: strings.NewReader(long)}, long, "", 0},
		{"no input", session.ExecRequest{Args: []string{"cat"}}, "", "", 0},
		{"exit code and error output", session.ExecRequest{Args: []string{"fail"}}, "", "failed\n", 3},
		{"unknown program", session.ExecRequest{Args: []string{"nothing"}}, "", "", 127},
		{"a terminal's size", session.ExecRequest{Args: []string{"size"}, TTY: true, Resize: sizes}, "132x43\n", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			c.request.Stdout, c.request.Stderr = &stdout, &stderr
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			code, err := session.Exec(ctx, target, c.request)
			if err != nil || code != c.code || stdout.String() != c.stdout || stderr.String() != c.stderr {
				t.Errorf("got %d, %v, %d bytes and %q, want %d, %d bytes and %q", code, err, stdout.Len(), stderr.String(), c.code, len(c.stdout), c.stderr)
			}
		})
	}
	nobody := target
	nobody.Provider = pktcloud.NewPrivateKey([32]byte{1}).Public()
	if _, err := session.Exec(t.Context(), nobody, session.ExecRequest{Args: []string{"cat"}}); !errors.Is(err, session.ErrUnreachable) {
		t.Errorf("got %v from a provider that is not there, want ErrUnreachable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := session.Exec(ctx, target, session.ExecRequest{Args: []string{"wait"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v from a program that waits, want the context's end", err)
	}
}

func TestLogs(t *testing.T) {
	target, g, _ := serve(t, 0)
	var out bytes.Buffer
	if err := session.Logs(t.Context(), target, session.LogOptions{Tail: 1}, &out); err != nil || out.String() != "two\n" {
		t.Errorf("got %q, %v, want the last line", out.String(), err)
	}
	g.suspended.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- session.Logs(ctx, target, session.LogOptions{Follow: true}, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || line != "one\n" {
		t.Errorf("got %q, %v, want the first line, of a suspended lease too", line, err)
	}
	go io.Copy(io.Discard, r)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v at the end of following, want nil", err)
	}
}

func TestForward(t *testing.T) {
	target, g, _ := serve(t, 0)
	conn, err := session.Dial(t.Context(), target, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil { //nolint:forcetypeassert // or the test fails
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "hello\n" {
		t.Errorf("got %q, %v, want hello after the half close", body, err)
	}
	second, err := session.Dial(t.Context(), target, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	g.closed.Store(true)
	if err := second.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := second.Read(make([]byte, 1)); err == nil || time.Since(began) > 9*time.Second {
		t.Errorf("got %v after %s, want the connection cut when the lease ends", err, time.Since(began))
	}
}

func TestAuthorization(t *testing.T) {
	target, g, _ := serve(t, 0)
	refused := func(name string, target session.Target, want lease.Code) {
		t.Helper()
		if _, err := session.Dial(t.Context(), target, 80); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	other := target
	other.Lease = pktcloud.IDOf([]byte("other"))
	refused("another lease", other, lease.CodeUnknown)
	stranger, _ := newHost(t, "stranger")
	stranger.Peerstore().AddAddrs(mustPeer(t, target), target.Host.Peerstore().Addrs(mustPeer(t, target)), time.Hour)
	refused("another device", session.Target{Host: stranger, Provider: target.Provider, Lease: leaseID}, lease.CodeUnknown)
	g.suspended.Store(true)
	refused("suspended", target, lease.CodePhase)
}

func mustPeer(t *testing.T, target session.Target) peer.ID {
	t.Helper()
	id, err := session.PeerOf(target.Provider)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSessionsAreBounded(t *testing.T) {
	target, _, _ := serve(t, 1)
	conn, err := session.Dial(t.Context(), target, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := session.Dial(t.Context(), target, 80); !errors.Is(err, lease.CodeBusy) {
		t.Errorf("got %v for a second session, want busy", err)
	}
}

// TestSilentStreamsShutNobodyOut holds more streams open than a device may, and
// says nothing on them: the next is told so, and the tenant still gets in.
func TestSilentStreamsShutNobodyOut(t *testing.T) {
	target, _, _ := serve(t, 1)
	stranger, _ := newHost(t, "stranger "+t.Name())
	provider := mustPeer(t, target)
	stranger.Peerstore().AddAddrs(provider, target.Host.Peerstore().Addrs(provider), time.Hour)
	for range session.MaxBeginning {
		st, err := stranger.NewStream(t.Context(), provider, session.ProtocolID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write([]byte{0, 0, 1}); err != nil { // a stream begins with its first byte
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; { // streams arrive in any order
		conn, err := session.Dial(t.Context(), session.Target{Host: stranger, Provider: target.Provider, Lease: leaseID}, 80)
		if errors.Is(err, lease.CodeBusy) {
			break
		}
		if err == nil {
			conn.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v for one stream too many, want busy", err)
		}
	}
	conn, err := session.Dial(t.Context(), target, 80)
	if err != nil {
		t.Fatalf("the tenant beside silent streams: %v", err)
	}
	conn.Close()
}

func TestHostileHeader(t *testing.T) {
	target, _, _ := serve(t, 0)
	st, err := target.Host.NewStream(t.Context(), mustPeer(t, target), session.ProtocolID)
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.WriteFrame(st, make([]byte, session.MaxHeaderBytes+1)); err != nil {
		t.Fatal(err)
	}
	b, err := wire.ReadFrame(st, session.MaxReplyBytes)
	if err != nil {
		t.Fatalf("a header that is too long is not answered: %v", err)
	}
	if r, err := session.ParseReply(b); err != nil || r.Code != lease.CodeMalformed {
		t.Errorf("got %+v, %v for a header that is too long, want malformed", r, err)
	}
}

// more is input without an end.
type more struct{}

func (more) Read(b []byte) (int, error) { return len(b), nil }

// TestProgramIsKilled: also where the tenant has sent more than the program
// will ever read, so that nobody reads on to the end of the stream [SESSION-6].
func TestProgramIsKilled(t *testing.T) {
	for name, stdin := range map[string]io.Reader{"no input": nil, "unread input": more{}} {
		t.Run(name, func(t *testing.T) {
			target, _, _ := serve(t, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := session.Exec(ctx, target, session.ExecRequest{Args: []string{"wait"}, Stdin: stdin})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v from a program that waits, want the context's end", err)
			}
			// The only session is free once the program has ended.
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				_, err := session.Exec(t.Context(), target, session.ExecRequest{Args: []string{"echo"}})
				if err == nil {
					return
				}
				if !errors.Is(err, lease.CodeBusy) || time.Now().After(end) {
					t.Fatalf("got %v, want the first program killed", err)
				}
			}
		})
	}
}
