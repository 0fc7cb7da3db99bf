package node

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (n *Node) target(v peer.View) session.Target {
	return session.Target{Host: n.host, Provider: v.Terms.ProviderDevice, Lease: v.ID}
}

// tenantLease finds a lease that this node rents.
func (n *Node) tenantLease(name string) (peer.View, error) {
	v, err := n.find(name)
	if err == nil && v.Role != lease.RoleTenant {
		err = service.Errorf(service.CodeForbidden, "lease %s is somebody else's: a provider does not look into it", name)
	}
	return v, err
}

// Exec runs a program in a lease.
func (n *Node) Exec(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
	v, err := n.tenantLease(name)
	if err != nil {
		return 0, err
	}
	if len(r.Args) == 0 {
		return 0, service.Errorf(service.CodeInvalid, "say which program to run")
	}
	sizes := make(chan session.Size)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for {
			select {
			case size, ok := <-s.Resize:
				if !ok {
					return
				}
				select {
				case sizes <- session.Size(size):
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	code, err := session.Exec(ctx, n.target(v), session.ExecRequest{
		Args: r.Args, Env: r.Env, TTY: r.TTY, Size: session.Size{Cols: r.Cols, Rows: r.Rows},
		Stdin: s.Stdin, Stdout: orDiscard(s.Stdout), Stderr: orDiscard(s.Stderr), Resize: sizes,
	})
	return code, translate(err)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Logs copies a lease's log to w.
func (n *Node) Logs(ctx context.Context, name string, r service.LogRequest, w io.Writer) error {
	v, err := n.tenantLease(name)
	if err != nil {
		return err
	}
	if !r.Since.IsZero() {
		w = &sinceWriter{w: w, since: r.Since}
	}
	return translate(session.Logs(ctx, n.target(v), session.LogOptions{Follow: r.Follow, Tail: r.Tail}, w))
}

// Forward connects to a port of a lease.
func (n *Node) Forward(ctx context.Context, name string, port uint16) (net.Conn, error) {
	v, err := n.tenantLease(name)
	if err != nil {
		return nil, err
	}
	c, err := session.Dial(ctx, n.target(v), port)
	return c, translate(err)
}
