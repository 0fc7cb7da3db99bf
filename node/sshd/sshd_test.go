package sshd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/sshd"
)

// lease is a lease of which each test says what it does.
type lease struct {
	exec    func(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error)
	forward func(name string, port uint16) (net.Conn, error)
}

func (l lease) Exec(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
	return l.exec(ctx, name, r, s)
}

func (l lease) Forward(_ context.Context, name string, port uint16) (net.Conn, error) {
	return l.forward(name, port)
}

// dial serves l as "shop/web" and returns a client of it.
func dial(t *testing.T, l lease) *ssh.Client {
	t.Helper()
	c, err := dialAs(t, l, sshd.User)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dialAs(t *testing.T, l lease, user string) (*ssh.Client, error) {
	t.Helper()
	key, err := sshd.HostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	near, far, err := connected()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { sshd.Serve(ctx, far, sshd.Config{Name: "shop/web", HostKey: key, Sessions: l}) })
	t.Cleanup(func() { cancel(); wg.Wait() }) // Serve leaves nobody behind
	link, channels, requests, err := ssh.NewClientConn(near, "shop", &ssh.ClientConfig{User: user, HostKeyCallback: ssh.FixedHostKey(key.PublicKey())})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(link, channels, requests), nil
}

// TestProgram: what a client runs gets its arguments, environment and input, and
// its output and exit code come back.
func TestProgram(t *testing.T) {
	c := dial(t, lease{exec: func(_ context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
		in, err := io.ReadAll(s.Stdin)
		fmt.Fprintf(s.Stdout, "%s %q %q %q %v", name, r.Args, r.Env, in, r.TTY)
		fmt.Fprint(s.Stderr, "a warning")
		return 3, err
	}})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("LANG", "C"); err != nil {
		t.Error(err)
	}
	var out, warn strings.Builder
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader("typed"), &out, &warn
	err = s.Run("cat | wc -c")
	if exit := (*ssh.ExitError)(nil); !errors.As(err, &exit) || exit.ExitStatus() != 3 {
		t.Errorf("got %v, want exit code 3", err)
	}
	if want := `shop/web ["/bin/sh" "-c" "cat | wc -c"] ["LANG=C"] "typed" false`; out.String() != want || warn.String() != "a warning" {
		t.Errorf("got %s and %s, want %s and a warning", &out, &warn, want)
	}
}

// TestTerminal: a shell has the client's terminal, and each new size of it.
func TestTerminal(t *testing.T) {
	sizes := make(chan service.Size)
	c := dial(t, lease{exec: func(_ context.Context, _ string, r service.ExecRequest, s service.Streams) (int, error) {
		if !r.TTY || !slices.Contains(r.Env, "TERM=vt100") || r.Args[0] != "/bin/sh" {
			return 0, fmt.Errorf("started as %v", r)
		}
		sizes <- service.Size{Cols: r.Cols, Rows: r.Rows}
		sizes <- <-s.Resize
		return 0, nil
	}})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("vt100", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if got := <-sizes; got != (service.Size{Cols: 80, Rows: 24}) {
		t.Errorf("begins with %v", got)
	}
	if err := s.WindowChange(50, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := <-sizes; got != (service.Size{Cols: 1<<16 - 1, Rows: 50}) {
		t.Errorf("goes on with %v", got)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRefusals: what cannot be had is refused with a reason, and the connection
// goes on.
func TestRefusals(t *testing.T) {
	c := dial(t, lease{
		exec: func(context.Context, string, service.ExecRequest, service.Streams) (int, error) {
			return 0, service.Errorf(service.CodeNotRunning, "the lease is suspended")
		},
		forward: func(name string, port uint16) (net.Conn, error) {
			return nil, service.Errorf(service.CodeNotFound, "no %s at %d", name, port)
		},
	})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.CombinedOutput("true")
	if exit := (*ssh.ExitError)(nil); !errors.As(err, &exit) || exit.ExitStatus() != 255 || !strings.Contains(string(out), "the lease is suspended") {
		t.Errorf("a program that cannot run: %q, %v", out, err)
	}
	if s, err := c.NewSession(); err != nil {
		t.Error(err)
	} else if err := s.RequestSubsystem("netconf"); err == nil {
		t.Error("an unknown subsystem is accepted")
	}
	if s, err := c.NewSession(); err != nil {
		t.Error(err)
	} else if err := s.Setenv("HUGE", strings.Repeat("x", 5000)); err == nil {
		t.Error("a variable of 5000 bytes is accepted")
	}
	if _, err := c.Dial("tcp", "db:5432"); err == nil || !strings.Contains(err.Error(), "no shop/db at 5432") {
		t.Errorf("a port that is not there: %v", err)
	}
	if _, _, err := c.OpenChannel("x11", nil); err == nil {
		t.Error("a channel of another kind is accepted")
	}
	if _, _, err := c.OpenChannel("direct-tcpip", []byte{1, 2, 3}); err == nil {
		t.Error("a malformed forward is accepted")
	}
	if _, err := c.Listen("tcp", "127.0.0.1:80"); err == nil {
		t.Error("listening in the lease is accepted")
	}
	if _, err := dialAs(t, lease{}, "root"); err == nil {
		t.Error("another user is let in")
	}
}

// TestForward: a client's connections reach the service that it named, both ways,
// and each end ends by itself.
func TestForward(t *testing.T) {
	c := dial(t, lease{forward: func(name string, port uint16) (net.Conn, error) {
		near, far, err := connected()
		if err != nil {
			return nil, err
		}
		go func() {
			defer far.Close()
			asked, _ := io.ReadAll(far) // to the client's end
			fmt.Fprintf(far, "%s:%d %s", name, port, asked)
		}()
		return near, nil
	}})
	for host, want := range map[string]string{"localhost:80": "shop/web:80 hello", "127.0.0.1:80": "shop/web:80 hello", "db:5432": "shop/db:5432 hello"} {
		conn, err := c.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "hello")
		conn.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(conn); string(got) != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", host, got, err, want)
		}
		conn.Close()
	}
}

// TestFiles: an SFTP client reaches the provider's file server or, where there is
// none, that of the image, which hears the client's first word too.
func TestFiles(t *testing.T) {
	for _, missing := range []bool{false, true} {
		dir := t.TempDir()
		c := dial(t, lease{exec: func(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
			if r.Files == missing || name != "shop/web" || r.TTY {
				return 0, service.Errorf(service.CodeMissing, "files are not served")
			}
			if !r.Files && !strings.Contains(r.Args[2], "sftp-server") {
				return 0, fmt.Errorf("started as %q", r.Args)
			}
			server, err := sftp.NewServer(streams{s.Stdin, s.Stdout}, sftp.WithServerWorkingDirectory(dir))
			if err != nil {
				return 0, err
			}
			if err := server.Serve(); !errors.Is(err, io.EOF) {
				return 1, err
			}
			return 0, nil
		}})
		files, err := sftp.NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := files.Create("made")
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write([]byte("through the lease"))
		if err := errors.Join(err, f.Close(), files.Close()); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "made")); string(got) != "through the lease" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// TestNoGreeting: a client that says something else than SFTP's first packet is
// told so.
func TestNoGreeting(t *testing.T) {
	c := dial(t, lease{})
	for _, said := range []string{"", "\x00\x00\x00\x00", "\xff\xff\xff\xffxx", "\x00\x00\x00\x05\x01"} {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"true"})); ok || err != nil {
			t.Error("a channel has two programs", err)
		}
		io.WriteString(ch, said)
		ch.CloseWrite()
		if told, err := io.ReadAll(ch.Stderr()); !strings.Contains(string(told), "is not SFTP") || err != nil {
			t.Errorf("%q: told %q, %v", said, told, err)
		}
	}
}

// streams are a program's input and output as one.
type streams struct {
	io.Reader
	io.Writer
}

func (streams) Close() error { return nil }

// connected is the two ends of a TCP connection, whose directions end each by itself.
func connected() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	far, err = l.Accept()
	return near, far, err
}

// TestProgramEndsWithItsClient: a program is ended when its client leaves.
func TestProgramEndsWithItsClient(t *testing.T) {
	started, ended := make(chan bool), make(chan bool)
	c := dial(t, lease{exec: func(ctx context.Context, _ string, _ service.ExecRequest, _ service.Streams) (int, error) {
		started <- true
		<-ctx.Done()
		ended <- true
		return 0, ctx.Err()
	}})
	for _, leave := range []func(s *ssh.Session){
		func(s *ssh.Session) { s.Close() },
		func(*ssh.Session) { c.Close() },
	} {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start("sleep 1000"); err != nil {
			t.Fatal(err)
		}
		<-started
		leave(s)
		<-ended
	}
}

// TestChannelsAreBounded: of channels beyond the bound a client is told so, and
// can go on once one has ended.
func TestChannelsAreBounded(t *testing.T) {
	c := dial(t, lease{})
	var open []*ssh.Session
	for {
		s, err := c.NewSession()
		if err != nil {
			if len(open) != 64 || !strings.Contains(err.Error(), "end one of them") {
				t.Errorf("after %d channels: %v", len(open), err)
			}
			break
		}
		if open = append(open, s); len(open) > 64 {
			t.Fatal("no bound")
		}
	}
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	for { // its place is free once the server has seen that
		s, err := c.NewSession()
		if err == nil {
			s.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// FuzzClient: whatever a client says before it is let in, the server ends and says
// why.
func FuzzClient(f *testing.F) {
	key, err := sshd.HostKey(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("SSH-2.0-x\r\n"))
	f.Add([]byte("SSH-1.5-x\r\nabc"))
	f.Add([]byte("SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		near, far, err := connected()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			near.Write(said)
			near.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, near)
			near.Close()
		}()
		if err := sshd.Serve(t.Context(), far, sshd.Config{Name: "shop", HostKey: key, Sessions: lease{}}); err == nil {
			t.Error("let in")
		}
	})
}

// TestHostKey: the key is made once, by whoever is first, and only its owner reads
// it.
func TestHostKey(t *testing.T) {
	dir := t.TempDir()
	keys := make([]string, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := sshd.HostKey(dir)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = string(key.PublicKey().Marshal())
		})
	}
	wg.Wait()
	if len(slices.Compact(keys)) != 1 {
		t.Error("several processes have several keys")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the directory has %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(files[0], []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sshd.HostKey(dir); service.CodeOf(err) != service.CodeInvalid || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a broken key: %v", err)
	}
}
