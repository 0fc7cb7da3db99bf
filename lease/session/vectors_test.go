package session_test

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectors = "../../spec/vectors/session"

func marshal(v any) []byte {
	b, err := pktcloud.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func headerCases() []vector.Case {
	header := func(name, expect, about string, h session.Header) vector.Case {
		if h.Version == 0 {
			h.Version = 1
		}
		h.Lease = leaseID
		return vector.New("header-"+name, expect, about).With("header", marshal(h))
	}
	exec := session.Header{Command: session.CommandExec, Args: []string{"sh", "-c", "id"}, Env: []string{"A=b"}, WorkDir: "/", TTY: true, Size: session.Size{Cols: 80, Rows: 24}}
	noArgs, zero := exec, exec
	noArgs.Args = nil
	zero.Args = []string{"a\x00b"}
	return []vector.Case{
		header("exec", "ok", "a shell on a terminal", exec),
		header("logs", "ok", "the last ten lines and what follows", session.Header{Command: session.CommandLogs, Follow: true, Tail: 10}),
		header("forward", "ok", "port 8080", session.Header{Command: session.CommandForward, Port: 8080}),
		header("version", "malformed", "version 2", session.Header{Version: 2, Command: session.CommandForward, Port: 1}),
		header("no-lease", "malformed", "no lease", session.Header{}),
		header("command", "malformed", "a command that there is not", session.Header{Command: "copy"}),
		header("exec-no-args", "malformed", "exec of nothing", noArgs),
		header("exec-zero-byte", "malformed", "a zero byte in an argument", zero),
		header("forward-port-zero", "malformed", "port 0", session.Header{Command: session.CommandForward}),
		header("forward-port-large", "malformed", "port 65536", session.Header{Command: session.CommandForward, Port: 65536}),
		header("logs-tail", "malformed", "more last lines than the limit", session.Header{Command: session.CommandLogs, Tail: session.MaxTail + 1}),
		header("foreign-field", "malformed", "logs with a port", session.Header{Command: session.CommandLogs, Port: 1}),
	}
}

func TestHeaderVectors(t *testing.T) {
	found, err := vector.Sync(vectors, "header-", headerCases(), *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		h, err := session.ParseHeader(c.Bytes("header"))
		got := "ok"
		if err != nil {
			got = string(lease.CodeOf(err))
		}
		if got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err == nil && !bytes.Equal(marshal(h), c.Bytes("header")) {
			t.Errorf("%s: got another encoding", c.Name)
		}
	}
}

func TestReplyBounds(t *testing.T) {
	for _, r := range []session.Reply{{Version: 2}, {Version: 1, Code: lease.Code(strings.Repeat("a", 33))}, {Version: 1, Text: strings.Repeat("a", lease.MaxText+1)}} {
		if _, err := session.ParseReply(marshal(r)); !errors.Is(err, lease.CodeMalformed) {
			t.Errorf("got %v for %+v, want malformed", err, r)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, c := range headerCases() {
		f.Add(c.Bytes("header"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := session.ParseHeader(data)
		if err != nil {
			return
		}
		if again := marshal(h); !bytes.Equal(again, data) {
			t.Fatalf("got %x again from %x", again, data)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add(marshal(session.Reply{Version: 1, Code: lease.CodePhase, Text: "suspended"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := session.ParseReply(data)
		if err != nil {
			return
		}
		if again := marshal(r); !bytes.Equal(again, data) {
			t.Fatalf("got %x again from %x", again, data)
		}
	})
}
