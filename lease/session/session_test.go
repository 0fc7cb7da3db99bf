package session_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/leasetest"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

// patience is for what does not come.
const patience = 2 * time.Minute

var (
	leaseID = pktcloud.IDOf([]byte("lease"))
	otherID = pktcloud.IDOf([]byte("other lease"))
)

// gate is an authorizer: one device, while it is open.
type gate struct {
	device    pktcloud.PublicKey
	suspended atomic.Bool
	closed    atomic.Bool
}

func (g *gate) Authorize(_ context.Context, id pktcloud.ID, device pktcloud.PublicKey, c session.Command) error {
	switch {
	case id != leaseID && id != otherID || device != g.device:
		return lease.Refusal(lease.CodeUnknown, "no such lease of this device")
	case g.closed.Load() || g.suspended.Load() && !c.Reads():
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
		case <-time.After(patience):
			t.Error("a session outlives the server")
		}
		w.Destroy(context.Background(), leaseID)
	})
	for len(provider.Mux().Protocols()) == 0 {
		time.Sleep(time.Millisecond)
	}
	return session.Target{Host: tenant, Provider: device, Lease: leaseID, Service: "web"}, g, w
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
			ctx, cancel := context.WithTimeout(t.Context(), patience)
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
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := &signal{done: make(chan struct{})}
	go func() { <-begun.done; cancel() }()
	if _, err := session.Exec(ctx, target, session.ExecRequest{Args: []string{"wait"}, Stdout: begun}); !errors.Is(err, context.Canceled) {
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

func TestServices(t *testing.T) {
	target, g, _ := serve(t, 0)
	for _, suspended := range []bool{false, true} {
		g.suspended.Store(suspended)
		list, err := session.Services(t.Context(), target)
		if err != nil || len(list) != 1 || list[0].Name != "web" || list[0].Phase != "running" {
			t.Errorf("got %+v, %v with a lease that is suspended: %t, want one service that runs", list, err, suspended)
		}
	}
	other := target
	other.Lease = pktcloud.IDOf([]byte("other"))
	if _, err := session.Services(t.Context(), other); !errors.Is(err, lease.CodeUnknown) {
		t.Errorf("got %v for another lease, want unknown", err)
	}
}

// TestMetrics [SESSION-3] [SESSION-35].
func TestMetrics(t *testing.T) {
	target, g, _ := serve(t, 0)
	for _, suspended := range []bool{false, true} {
		g.suspended.Store(suspended)
		for _, name := range []string{"", "web"} {
			target.Service = name
			list, err := session.ReadMetrics(t.Context(), target)
			if err != nil || len(list) != 1 || list[0].Name != "web" || list[0].Recent.CPU[0] != 6000 {
				t.Errorf("got %+v, %v of %q with a lease that is suspended: %t, want those of one service", list, err, name, suspended)
			}
		}
	}
	target.Service = "db"
	if _, err := session.ReadMetrics(t.Context(), target); !errors.Is(err, lease.CodeUnknown) {
		t.Errorf("got %v for a service that is not there, want unknown", err)
	}
	g.closed.Store(true)
	if _, err := session.ReadMetrics(t.Context(), target); !errors.Is(err, lease.CodePhase) {
		t.Errorf("got %v of a lease that is over, want phase", err)
	}
}

// serveFrames is a provider that agrees to any session, sends what it is told,
// and ends.
func serveFrames(t *testing.T, frames [][]byte) session.Target {
	t.Helper()
	provider, device := newHost(t, "provider "+t.Name())
	tenant, _ := newHost(t, "tenant "+t.Name())
	tenant.Peerstore().AddAddrs(provider.ID(), provider.Addrs(), time.Hour)
	provider.SetStreamHandler(session.ProtocolID, func(st network.Stream) {
		defer st.Close()
		if _, err := wire.ReadFrame(st, session.MaxHeaderBytes); err != nil {
			return
		}
		for _, f := range append([][]byte{marshal(session.Reply{Version: 1})}, frames...) {
			if wire.WriteFrame(st, f) != nil {
				return // the tenant has had enough
			}
		}
	})
	return session.Target{Host: tenant, Provider: device, Lease: leaseID}
}

// TestHostileMetrics: whatever a provider answers, the tenant keeps no more than
// the limits [SESSION-38].
func TestHostileMetrics(t *testing.T) {
	one := func(name string) []byte {
		b, err := session.AppendMetrics(nil, metricsOf(func(m *session.Metrics) { m.Name = name }))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		service string
		frames  [][]byte
		want    error
	}{
		"none":        {"", nil, io.EOF},
		"one":         {"", [][]byte{one("web")}, nil},
		"another":     {"web", [][]byte{one("db")}, lease.CodeMalformed},
		"two for one": {"web", [][]byte{one("web"), one("db")}, lease.CodeMalformed},
		"one twice":   {"", [][]byte{one("web"), one("web")}, lease.CodeMalformed},
		"too long":    {"", [][]byte{make([]byte, session.MaxMetricsBytes+1)}, lease.CodeMalformed},
		"no metrics":  {"", [][]byte{{0xa0}}, lease.CodeMalformed},
		"without end": {"", slices.Collect(func(yield func([]byte) bool) {
			for i := range lease.MaxServices + 1 {
				yield(one(fmt.Sprint("s", i)))
			}
		}), lease.CodeMalformed},
		"all there is": {"", slices.Collect(func(yield func([]byte) bool) {
			for i := range lease.MaxServices {
				yield(one(fmt.Sprint("s", i)))
			}
		}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			target := serveFrames(t, c.frames)
			target.Service = c.service
			list, err := session.ReadMetrics(t.Context(), target)
			if !errors.Is(err, c.want) || err == nil && len(list) != len(c.frames) {
				t.Errorf("got %d services, %v, want %v", len(list), err, c.want)
			}
		})
	}
}

// TestVolumes [SESSION-30] [SESSION-3].
func TestVolumes(t *testing.T) {
	target, g, _ := serve(t, 0)
	for _, suspended := range []bool{false, true} {
		g.suspended.Store(suspended)
		list, err := session.Volumes(t.Context(), target)
		if err != nil || len(list) != 1 || list[0] != (session.VolumeStatus{Name: "data", SizeBytes: 2 << 30, FreeBytes: 1 << 30, Ready: true}) {
			t.Errorf("got %+v, %v with a lease that is suspended: %t, want one volume", list, err, suspended)
		}
	}
	other := target
	other.Lease = pktcloud.IDOf([]byte("other"))
	if _, err := session.Volumes(t.Context(), other); !errors.Is(err, lease.CodeUnknown) {
		t.Errorf("got %v for another lease, want unknown", err)
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
	if err := second.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the connection cut when the lease ends", err)
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
	refused("another device", session.Target{Host: stranger, Provider: target.Provider, Lease: leaseID, Service: "web"}, lease.CodeUnknown)
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

// TestLeaseLeavesRoom holds more sessions of one lease open than it may have:
// another lease still gets in, and the first one again when one has ended.
func TestLeaseLeavesRoom(t *testing.T) {
	target, _, w := serve(t, 0)
	if err := w.Start(t.Context(), otherID, lease.Manifest{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Destroy(context.Background(), otherID) })
	var open []net.Conn
	for range session.MaxOfLease {
		conn, err := session.Dial(t.Context(), target, 80)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
	}
	if _, err := session.Dial(t.Context(), target, 80); !errors.Is(err, lease.CodeBusy) {
		t.Errorf("got %v for one session too many, want busy", err)
	}
	other := target
	other.Lease = otherID
	conn, err := session.Dial(t.Context(), other, 80)
	if err != nil {
		t.Fatalf("another lease: %v", err)
	}
	conn.Close()
	open[0].Close()
	for deadline := time.Now().Add(patience); ; {
		conn, err := session.Dial(t.Context(), target, 80)
		if err == nil {
			conn.Close()
			return
		}
		if !errors.Is(err, lease.CodeBusy) || time.Now().After(deadline) {
			t.Fatalf("after the end of one: %v", err)
		}
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
	for deadline := time.Now().Add(patience); ; { // streams arrive in any order
		conn, err := session.Dial(t.Context(), session.Target{Host: stranger, Provider: target.Provider, Lease: leaseID, Service: "web"}, 80)
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

// signal is output of which the first is waited for.
type signal struct {
	once sync.Once
	done chan struct{}
}

func (s *signal) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.done) })
	return len(b), nil
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
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := &signal{done: make(chan struct{})}
			go func() {
				<-begun.done
				time.Sleep(50 * time.Millisecond) // in which input comes that it does not read
				cancel()
			}()
			_, err := session.Exec(ctx, target, session.ExecRequest{Args: []string{"wait"}, Stdin: stdin, Stdout: begun})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v from a program that waits, want the context's end", err)
			}
			// The only session is free once the program has ended.
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
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

// TestFiles: a file server is reached as a program is, by its own command; one that
// there is not is refused as missing [SESSION-41].
func TestFiles(t *testing.T) {
	target, _, _ := serve(t, 0)
	var out bytes.Buffer
	code, err := session.Exec(t.Context(), target, session.ExecRequest{Files: true, Stdin: strings.NewReader("asked"), Stdout: &out})
	if code != 0 || err != nil || out.String() != "files of web: asked" {
		t.Errorf("got %d, %v, %q", code, err, &out)
	}
	target.Service = "bare"
	if _, err := session.Exec(t.Context(), target, session.ExecRequest{Files: true}); !errors.Is(err, lease.CodeMissing) {
		t.Errorf("got %v, want missing", err)
	}
}
