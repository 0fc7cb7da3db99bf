package node

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// target finds a lease that this node rents and, by LEASE/SERVICE, a service of
// it: without one that which the lease is probed by.
func (n *Node) target(name string) (session.Target, error) {
	name, part, named := strings.Cut(name, "/")
	v, err := n.find(name)
	if err != nil {
		return session.Target{}, err
	}
	if v.Role != lease.RoleTenant {
		return session.Target{}, service.Errorf(service.CodeForbidden, "lease %s is somebody else's: a provider does not look into it", name)
	}
	s, err := v.Manifest.Service(part)
	if err != nil || named && part == "" {
		return session.Target{}, service.Errorf(service.CodeNotFound, "lease %s has no service %q; \"pktcloud lease services %s\" shows those that it has", name, part, name)
	}
	return session.Target{Host: n.host, Provider: v.Terms.ProviderDevice, Lease: v.ID, Service: s.Name}, nil
}

// LeaseServices says how a lease's services stand: by its provider's word, or
// at the provider itself.
func (n *Node) LeaseServices(ctx context.Context, name string) ([]service.Standing, error) {
	v, err := n.find(name)
	if err != nil {
		return nil, err
	}
	return n.standing(ctx, v)
}

func (n *Node) standing(ctx context.Context, v peer.View) ([]service.Standing, error) {
	var list []session.ServiceStatus
	var err error
	if v.Role == lease.RoleProvider {
		list, err = n.work.Services(ctx, v.ID)
	} else {
		list, err = session.Services(ctx, session.Target{Host: n.host, Provider: v.Terms.ProviderDevice, Lease: v.ID})
	}
	if err != nil {
		return nil, translate(err)
	}
	out := []service.Standing{}
	for _, s := range list {
		row := service.Standing{
			Name: s.Name, Job: s.Job, State: s.Phase, Health: s.Health, Restarts: max(s.Runs, 1) - 1, Looping: s.Looping, OOM: s.OOMKilled,
			Since: s.Since, Text: s.Text, CPU: s.CPUMillis, Memory: s.MemoryBytes,
		}
		if s.Network != nil {
			row.Network = &service.StandingNetwork{
				BytesIn: s.Network.BytesIn, BytesOut: s.Network.BytesOut, Refused: s.Network.Refused, Open: s.Network.Open, Published: []service.PublishedAt{},
			}
			for _, p := range s.Network.Published {
				row.Network.Published = append(row.Network.Published, service.PublishedAt{Port: uint16(p.Port), Protocol: p.Protocol, Address: p.Address})
			}
		}
		if s.Ended {
			code := int(s.Exit)
			row.Exit = &code
		}
		out = append(out, row)
	}
	if v.Role == lease.RoleTenant {
		n.stands.remember(v.ID, out)
	}
	return out, nil
}

// LeaseVolumes says how a lease's volumes stand: by its provider's word, or at
// the provider itself.
func (n *Node) LeaseVolumes(ctx context.Context, name string) ([]service.VolumeStanding, error) {
	v, err := n.find(name)
	if err != nil {
		return nil, err
	}
	var list []session.VolumeStatus
	switch {
	case len(v.Manifest.Volumes) == 0: // nobody needs to be asked
	case v.Role == lease.RoleProvider:
		list, err = n.work.Volumes(ctx, v.ID)
	default:
		list, err = session.Volumes(ctx, session.Target{Host: n.host, Provider: v.Terms.ProviderDevice, Lease: v.ID})
	}
	if err != nil {
		return nil, translate(err)
	}
	out := []service.VolumeStanding{}
	for _, agreed := range service.VolumesOf(v.Manifest) {
		row := service.VolumeStanding{LeaseVolume: agreed}
		if i := slices.IndexFunc(list, func(s session.VolumeStatus) bool { return s.Name == agreed.Name }); i >= 0 {
			row.Ready, row.Free = list[i].Ready, min(list[i].FreeBytes, agreed.Size)
			row.Full = row.Ready && row.Free < container.FullVolumeBytes
		}
		out = append(out, row)
	}
	return out, nil
}

// Exec runs a program in a lease.
func (n *Node) Exec(ctx context.Context, name string, r service.ExecRequest, s service.Streams) (int, error) {
	target, err := n.target(name)
	if err != nil {
		return 0, err
	}
	if len(r.Args) == 0 && !r.Files {
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
	code, err := session.Exec(ctx, target, session.ExecRequest{
		Args: r.Args, Files: r.Files, Env: r.Env, TTY: r.TTY, Size: session.Size{Cols: r.Cols, Rows: r.Rows},
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
	target, err := n.target(name)
	if err != nil {
		return err
	}
	if !strings.Contains(name, "/") {
		target.Service = ""
	}
	if !r.Since.IsZero() {
		w = &sinceWriter{w: w, since: r.Since}
	}
	return translate(session.Logs(ctx, target, session.LogOptions{Follow: r.Follow, Tail: r.Tail}, w))
}

// Forward connects to a port of a lease.
func (n *Node) Forward(ctx context.Context, name string, port uint16) (net.Conn, error) {
	target, err := n.target(name)
	if err != nil {
		return nil, err
	}
	c, err := session.Dial(ctx, target, port)
	return c, translate(err)
}
