package sshd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// ownFiles is run where the provider serves no files: the server that the image has,
// where distributions put it.
var ownFiles = []string{"/bin/sh", "-c", `for dir in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec; do
	test -x $dir/sftp-server && exec $dir/sftp-server
done
echo "pktcloud: neither the provider nor the image serves files; install openssh-sftp-server in the image" >&2
exit 127`}

// maxGreeting bounds a client's first packet: five bytes, and extensions that
// nobody uses.
const maxGreeting = 1024

// serveFiles is SFTP, by the provider's server or else the image's. A client says
// one packet and waits for the answer, so that the packet can be said again to the
// second server; what follows it must reach one of them alone.
func (t *terminal) serveFiles(ctx context.Context, name string, _ service.ExecRequest, s service.Streams) (int, error) {
	greeting, err := readGreeting(s.Stdin)
	if err != nil {
		return 0, service.Errorf(service.CodeInvalid, "what the client says is not SFTP: %v", err)
	}
	rest, feed := io.Pipe()
	defer feed.Close() //nolint:errcheck // it never fails
	answered := &onFirst{w: s.Stdout, then: func() {
		go func() {
			io.Copy(feed, s.Stdin) //nolint:errcheck // the program has ended
			feed.Close()           //nolint:errcheck // it never fails
		}()
	}}
	code, err := t.Config.Sessions.Exec(ctx, name, service.ExecRequest{Files: true}, service.Streams{
		Stdin: io.MultiReader(bytes.NewReader(greeting), rest), Stdout: answered, Stderr: s.Stderr,
	})
	if service.CodeOf(err) != service.CodeMissing {
		return code, err
	}
	return t.Config.Sessions.Exec(ctx, name, service.ExecRequest{Args: ownFiles}, service.Streams{
		Stdin: io.MultiReader(bytes.NewReader(greeting), s.Stdin), Stdout: s.Stdout, Stderr: s.Stderr,
	})
}

// readGreeting reads a client's first packet: four bytes say how long it is.
func readGreeting(r io.Reader) ([]byte, error) {
	packet := make([]byte, 4, 4+maxGreeting)
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(packet)
	if n == 0 || n > maxGreeting {
		return nil, io.ErrUnexpectedEOF
	}
	packet = packet[:4+n]
	_, err := io.ReadFull(r, packet[4:])
	return packet, err
}

// onFirst does something before the first write to w.
type onFirst struct {
	w    io.Writer
	then func()
	once sync.Once
}

func (o *onFirst) Write(b []byte) (int, error) {
	o.once.Do(o.then)
	return o.w.Write(b)
}
