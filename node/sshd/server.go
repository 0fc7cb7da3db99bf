package sshd

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// User is the name by which clients log in. A service's programs run as the
// user that its image names, so there is no choice of another.
const User = "pktcloud"

// maxChannels bounds what one connection has open at once: programs and
// forwarded connections.
const maxChannels = 64

// Sessions reaches into leases; [service.Service] does.
type Sessions interface {
	Exec(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error)
	Forward(ctx context.Context, name string, port uint16) (net.Conn, error)
}

// Config is what a connection is served with. All of it is needed.
type Config struct {
	Name     string // LEASE, or LEASE/SERVICE
	HostKey  ssh.Signer
	Sessions Sessions
}

// Serve speaks with the client at the other end of conn until that leaves or
// ctx ends, and closes conn, which must end what reads from it.
func Serve(ctx context.Context, conn io.ReadWriteCloser, c Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	config := &ssh.ServerConfig{
		NoClientAuth:         true,
		NoClientAuthCallback: authorize,
		BannerCallback:       banner,
		ServerVersion:        "SSH-2.0-pktcloud",
	}
	config.AddHostKey(c.HostKey)
	link, channels, requests, err := ssh.NewServerConn(pipe{ReadWriteCloser: conn}, config)
	if err != nil {
		return fmt.Errorf("the SSH client left before it was let in: %w", err)
	}
	defer link.Close() //nolint:errcheck // the client is gone
	s := &server{Config: c, places: make(chan struct{}, maxChannels)}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { ssh.DiscardRequests(requests) }) // of the connection: all are refused, keep-alives too, which answers them
	for offered := range channels {
		select {
		case s.places <- struct{}{}:
		default:
			offered.Reject(ssh.ResourceShortage, fmt.Sprintf("%d programs and forwarded connections are open; end one of them", maxChannels)) //nolint:errcheck // the client is gone, or reads it
			continue
		}
		wg.Go(func() {
			defer func() { <-s.places }()
			s.channel(ctx, offered)
		})
	}
	return nil
}

// authorize lets everybody in who asks for the one user: whoever reaches the
// pipe has the node's files.
func authorize(m ssh.ConnMetadata) (*ssh.Permissions, error) {
	if m.User() != User {
		return nil, fmt.Errorf("no user %q", m.User())
	}
	return nil, nil
}

// banner says why somebody will not be let in.
func banner(m ssh.ConnMetadata) string {
	if m.User() == User {
		return ""
	}
	return fmt.Sprintf("A lease has no user %q: programs run as the user that their image names. Log in as %s, or leave the name out.\n", printable(m.User()), User)
}

// printable is a client's text without what a terminal would act on.
func printable(text string) string {
	if len(text) > 64 {
		text = text[:64]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, text)
}

// server serves one connection.
type server struct {
	Config
	places chan struct{}
}

// channel serves what a client opened.
func (s *server) channel(ctx context.Context, offered ssh.NewChannel) {
	switch offered.ChannelType() {
	case "session":
		ch, requests, err := offered.Accept()
		if err != nil {
			return
		}
		(&terminal{server: s, ch: ch}).serve(ctx, requests)
	case "direct-tcpip":
		s.forward(ctx, offered)
	default:
		offered.Reject(ssh.UnknownChannelType, "leases know programs and forwarded TCP ports") //nolint:errcheck // the client is gone, or reads it
	}
}

// forward connects a client to a port of the lease (RFC 4254, 7.2).
func (s *server) forward(ctx context.Context, offered ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	reject := func(why ssh.RejectionReason, text string) {
		offered.Reject(why, text) //nolint:errcheck // the client is gone, or reads it
	}
	if err := ssh.Unmarshal(offered.ExtraData(), &to); err != nil || to.Port == 0 || to.Port > 65535 {
		reject(ssh.ConnectionFailed, "a port is a number from 1 to 65535")
		return
	}
	target, err := s.Config.Sessions.Forward(ctx, s.at(to.Host), uint16(to.Port))
	if err != nil {
		reason := ssh.ConnectionFailed
		if code := service.CodeOf(err); code == service.CodeNotFound || code == service.CodeForbidden {
			reason = ssh.Prohibited
		}
		reject(reason, err.Error())
		return
	}
	defer target.Close()
	ch, requests, err := offered.Accept()
	if err != nil {
		return
	}
	defer ch.Close()                                                      //nolint:errcheck // the client is gone
	stop := context.AfterFunc(ctx, func() { ch.Close(); target.Close() }) //nolint:errcheck // the client is gone
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { ssh.DiscardRequests(requests) })
	wg.Go(func() {
		io.Copy(target, ch) //nolint:errcheck // the end of a connection
		closeWrite(target)
	})
	io.Copy(ch, target) //nolint:errcheck // the end of a connection
	ch.CloseWrite()     //nolint:errcheck // the client is gone
	// What the client still sends, it may: until it closes its side too.
	wg.Wait()
}

// at is the service that a client means by a host: the one that it is in by the
// names for oneself, else another one of the lease by its name.
func (s *server) at(host string) string {
	switch host {
	case "localhost", "127.0.0.1", "::1", "":
		return s.Name
	}
	lease, _, _ := strings.Cut(s.Name, "/")
	return lease + "/" + host
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite() //nolint:errcheck // the other side is gone
		return
	}
	c.Close()
}
