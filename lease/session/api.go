package session

import (
	"context"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/protocol"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// ProtocolID names the session protocol on libp2p.
const ProtocolID protocol.ID = "/pktcloud/session/1"

// Command is what a session does.
type Command string

// The commands.
const (
	CommandExec    Command = "exec"
	CommandLogs    Command = "logs"
	CommandForward Command = "forward"
	// CommandFiles serves the files of a service, as an exec of SFTP.
	CommandFiles Command = "files"
	// CommandServices asks how the services stand.
	CommandServices Command = "services"
	// CommandMetrics asks what the services have used.
	CommandMetrics Command = "metrics"
	// CommandVolumes asks how the volumes stand.
	CommandVolumes Command = "volumes"
)

// Reads reports whether a command only looks: it may be used also while the
// lease is suspended [SESSION-3].
func (c Command) Reads() bool {
	return c == CommandLogs || c == CommandServices || c == CommandMetrics || c == CommandVolumes
}

// Workload is what a session reaches, on the provider's machine. Its methods
// may be called from several goroutines at once.
type Workload interface {
	// Exec runs a program inside a service and returns its exit code once it has
	// ended and its output was written. When ctx ends the program is killed.
	Exec(ctx context.Context, lease pktcloud.ID, service string, e ExecRequest) (exitCode int, err error)
	// Logs returns the output of a service, oldest first, as lines; without a
	// name that of all, each line with its service's. With Follow the reader ends
	// when the workload does. The caller closes it.
	Logs(ctx context.Context, lease pktcloud.ID, service string, o LogOptions) (io.ReadCloser, error)
	// Dial connects to a TCP port of a service.
	Dial(ctx context.Context, lease pktcloud.ID, service string, port uint16) (net.Conn, error)
	// Services says how the services stand, in the manifest's order.
	Services(ctx context.Context, lease pktcloud.ID) ([]ServiceStatus, error)
	// Metrics says what a service has used or, without a name, what each has, in
	// the manifest's order.
	Metrics(ctx context.Context, lease pktcloud.ID, service string) ([]Metrics, error)
	// Volumes says how the volumes stand, in the manifest's order.
	Volumes(ctx context.Context, lease pktcloud.ID) ([]VolumeStatus, error)
}

// Authorizer says whether a device may use a command on a lease now. Errors are
// refusals of package lease.
type Authorizer interface {
	Authorize(ctx context.Context, lease pktcloud.ID, device pktcloud.PublicKey, c Command) error
}

// ExecRequest is a program to run inside a lease; with Files, which takes none of
// the other fields but the first two streams, a file server of the provider's that
// speaks SFTP on them.
type ExecRequest struct {
	Args    []string
	Files   bool
	Env     []string
	WorkDir string
	TTY     bool // Stderr is then part of Stdout
	Size    Size // of the terminal, with TTY

	Stdin          io.Reader // nil: empty
	Stdout, Stderr io.Writer
	// Resize delivers new sizes of the terminal. Nil: none.
	Resize <-chan Size
}

// Size is that of a terminal, in characters.
type Size struct {
	Cols uint16 `cbor:"cols"`
	Rows uint16 `cbor:"rows"`
}

// LogOptions select lines.
type LogOptions struct {
	Follow bool
	Tail   int // only so many last lines; zero: all
}
