package node

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	// maxPids bounds the processes of a lease.
	maxPids = 512
	// pullMemory is how long the digest of a reference stands without asking
	// the registry again: from the proposal to the start.
	pullMemory = 2 * time.Minute
	// pullDeadline bounds what a slow registry can hold.
	pullDeadline = 10 * time.Minute
	// maxPulls bounds what is remembered.
	maxPulls = 256
)

// workload runs leases as containers: one for each, named by the lease's id.
type workload struct {
	runtime container.Runtime
	log     *slog.Logger

	mu    sync.Mutex // guards pulls
	pulls map[string]pulled
}

type pulled struct {
	image container.Image
	at    time.Time
}

var (
	_ peer.Workload    = (*workload)(nil)
	_ session.Workload = (*workload)(nil)
)

// pull brings a manifest's image into the store and checks its digest.
func (w *workload) pull(ctx context.Context, m lease.Manifest) (container.Image, error) {
	ref := m.Image
	w.mu.Lock()
	p, ok := w.pulls[ref]
	w.mu.Unlock()
	if !ok || time.Since(p.at) > pullMemory {
		ctx, cancel := context.WithTimeout(ctx, pullDeadline)
		defer cancel()
		image, err := w.runtime.Pull(ctx, ref, container.PullOptions{})
		if err != nil {
			return image, err
		}
		p = pulled{image: image, at: time.Now()}
		w.mu.Lock()
		if w.pulls == nil || len(w.pulls) >= maxPulls {
			w.pulls = map[string]pulled{}
		}
		w.pulls[ref] = p
		w.mu.Unlock()
	}
	if m.Digest != "" && m.Digest != p.image.Digest && m.Digest != p.image.Index {
		return p.image, &container.Error{Code: container.CodeDigestMismatch, Detail: ref}
	}
	return p.image, nil
}

// PullImage brings an image to this provider ahead of the first lease.
func (n *Node) PullImage(ctx context.Context, ref string) (service.Image, error) {
	if n.work == nil {
		return service.Image{}, service.Errorf(service.CodeMissing, "this node rents only; start it with --provider")
	}
	image, err := n.work.pull(ctx, lease.Manifest{Image: ref})
	return service.Image{Ref: ref, Digest: image.Digest, SizeBytes: image.SizeBytes}, translate(err)
}

// Start implements peer.Workload.
func (w *workload) Start(ctx context.Context, id pktcloud.ID, m lease.Manifest) error {
	switch s, err := w.runtime.Status(ctx, id.Hex()); {
	case err == nil && s.State != container.Created:
		return nil
	case err != nil && !errors.Is(err, container.CodeNotFound):
		return err
	}
	if err := w.start(ctx, id, m); err != nil {
		w.log.Warn("a lease's container could not be started", "lease", id, "image", m.Image, "error", err)
		return explained(err, m)
	}
	return nil
}

func (w *workload) start(ctx context.Context, id pktcloud.ID, m lease.Manifest) error {
	image, err := w.pull(ctx, m)
	if err != nil {
		return err
	}
	return w.runtime.Start(ctx, container.Spec{
		ID: id.Hex(), Image: image.Digest, Args: m.Args, Env: m.Env,
		Limits: container.Limits{
			MilliCPU: m.Resources.MilliCPU, MemoryBytes: m.Resources.MemoryBytes, DiskBytes: max(m.Resources.DiskBytes, container.MinDisk), Pids: maxPids,
		},
	})
}

// failure is an error with what the tenant is told of it.
type failure struct {
	error
	fault lease.Fault
}

func (f *failure) Unwrap() []error { return []error{f.error, f.fault} }

// imageFaults are the codes that tell of a tenant's image.
var imageFaults = []container.Code{
	container.CodeUnknownImage, container.CodeRegistry, container.CodeForbiddenHost, container.CodeBadImage,
	container.CodeDigestMismatch, container.CodeWrongArch, container.CodeTooLarge,
}

// explained says what a tenant may know of an error: all about its own image
// and program, and of this machine only that the fault lies there [LEASE-22].
func explained(err error, m lease.Manifest) error {
	var e *container.Error
	switch {
	case !errors.As(err, &e):
		return err
	case slices.Contains(imageFaults, e.Code):
		return &failure{err, lease.Faultf(lease.FaultImage, "%.120s: %s", m.Image, e.Code)}
	case e.Code == container.CodeProgram:
		text := e.Detail
		if e.Err != nil {
			text += ": " + e.Err.Error()
		}
		return &failure{err, lease.Faultf(lease.FaultProgram, "%.200s", cmp.Or(text, e.Code.Error()))}
	}
	return err
}

// Freeze implements peer.Workload.
func (w *workload) Freeze(ctx context.Context, id pktcloud.ID) error {
	return w.runtime.Pause(ctx, id.Hex())
}

// Resume implements peer.Workload.
func (w *workload) Resume(ctx context.Context, id pktcloud.ID) error {
	return w.runtime.Resume(ctx, id.Hex())
}

// Status implements peer.Workload.
func (w *workload) Status(ctx context.Context, id pktcloud.ID) (peer.WorkloadStatus, error) {
	s, err := w.runtime.Status(ctx, id.Hex())
	if errors.Is(err, container.CodeNotFound) {
		return peer.WorkloadEnded, nil
	}
	if err != nil {
		return peer.WorkloadUnknown, err
	}
	switch s.State {
	case container.Running:
		return peer.WorkloadRunning, nil
	case container.Paused:
		return peer.WorkloadFrozen, nil
	case container.Exited:
		return peer.WorkloadEnded, nil
	case container.Created:
	}
	return peer.WorkloadUnknown, nil
}

// Destroy implements peer.Workload.
func (w *workload) Destroy(ctx context.Context, id pktcloud.ID) error {
	return w.runtime.Destroy(ctx, id.Hex())
}

// Dial implements peer.Workload and session.Workload.
func (w *workload) Dial(ctx context.Context, id pktcloud.ID, port uint16) (net.Conn, error) {
	return w.runtime.Dial(ctx, id.Hex(), port)
}

// Exec implements session.Workload.
func (w *workload) Exec(ctx context.Context, id pktcloud.ID, e session.ExecRequest) (int, error) {
	var resize chan container.Size
	if e.Resize != nil {
		resize = make(chan container.Size)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(ctx)
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { convertSizes(ctx, e.Resize, resize) })
	}
	return w.runtime.Exec(ctx, id.Hex(), container.ExecSpec{
		Args: e.Args, Env: e.Env, WorkDir: e.WorkDir, TTY: e.TTY, Size: container.Size(e.Size),
		Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr, Resize: resize,
	})
}

func convertSizes(ctx context.Context, in <-chan session.Size, out chan<- container.Size) {
	for {
		select {
		case s, ok := <-in:
			if !ok {
				return
			}
			select {
			case out <- container.Size(s):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Logs implements session.Workload.
func (w *workload) Logs(ctx context.Context, id pktcloud.ID, o session.LogOptions) (io.ReadCloser, error) {
	return w.runtime.Logs(ctx, id.Hex(), container.LogOptions{Follow: o.Follow, Tail: o.Tail})
}
