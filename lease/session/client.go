package session

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/host"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Target is a lease at its provider.
type Target struct {
	Host     host.Host          // of the tenant
	Provider pktcloud.PublicKey // the provider's device
	Lease    pktcloud.ID
}

var errTodo = errors.New("not written yet")

// Exec runs a program inside a lease and returns its exit code.
func Exec(ctx context.Context, t Target, e ExecRequest) (exitCode int, err error) { return 0, errTodo }

// Logs copies a lease's log to w until it ends.
func Logs(ctx context.Context, t Target, o LogOptions, w io.Writer) error { return errTodo }

// Dial connects to a TCP port of a lease. The connection's CloseWrite closes
// one half; ctx bounds the dialling only.
func Dial(ctx context.Context, t Target, port uint16) (net.Conn, error) { return nil, errTodo }
