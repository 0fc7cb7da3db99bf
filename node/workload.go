package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/services"
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
	// startDeadline bounds how long the probed service may wait for others
	// before it runs.
	startDeadline = 5 * time.Minute
	// pullDeadline bounds what a slow registry can hold.
	pullDeadline = 10 * time.Minute
	// maxPulls bounds what is remembered.
	maxPulls = 256
)

// workload runs leases as sets of services, named by the lease's id.
type workload struct {
	runtime container.Runtime
	sets    *services.Manager
	look    inspector // nil: images are judged when a lease starts
	lend    LeaseNetwork
	secrets string       // directory of the credentials of leases
	volumes bool         // there can be some, as offers say
	images  *image.Store // nil: the caller's runtime keeps its own
	log     *slog.Logger

	giving sync.Mutex // held from the choice of ports outside until their set has begun

	mu    sync.Mutex // guards pulls
	pulls map[string]pulled
}

type pulled struct {
	image container.Image
	at    time.Time
	here  bool // and not only looked at
}

var (
	_ peer.Workload    = (*workload)(nil)
	_ session.Workload = (*workload)(nil)
	_ peer.Resizer     = (*workload)(nil)
)

// pull brings a service's image into the store and checks its digest. What a
// tag led to when it was last looked at is what is brought.
func (w *workload) pull(ctx context.Context, v lease.Service, c lease.Credentials) (container.Image, error) {
	o := pullOptions(v.Image, c)
	key := pullKey(v.Image, o)
	p, ok := w.recent(key)
	if !ok || !p.here {
		from := v.Image
		if ok {
			from = image.Pinned(from, p.image.Digest)
		}
		ctx, cancel := context.WithTimeout(ctx, pullDeadline)
		defer cancel()
		got, err := w.runtime.Pull(ctx, from, o)
		if err != nil {
			return got, err
		}
		if ok {
			got.Index = p.image.Index
		}
		p = w.remember(key, pulled{image: got, here: true})
	}
	return p.image, checkPin(v, p.image)
}

func checkPin(v lease.Service, got container.Image) error {
	if v.Digest != "" && v.Digest != got.Digest && v.Digest != got.Index {
		return &container.Error{Code: container.CodeDigestMismatch, Detail: v.Image}
	}
	return nil
}

func (w *workload) recent(key string) (pulled, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.pulls[key]
	return p, ok && time.Since(p.at) <= pullMemory
}

func (w *workload) remember(key string, p pulled) pulled {
	p.at = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pulls == nil || len(w.pulls) >= maxPulls {
		w.pulls = map[string]pulled{}
	}
	w.pulls[key] = p
	return p
}

// PullImage brings an image to this provider ahead of the first lease.
func (n *Node) PullImage(ctx context.Context, ref string) (service.Image, error) {
	if n.work == nil {
		return service.Image{}, service.Errorf(service.CodeMissing, "this node rents only; start it with --provider")
	}
	got, err := n.work.pull(ctx, lease.Service{Image: ref}, nil)
	return service.Image{Ref: ref, Digest: got.Digest, SizeBytes: got.SizeBytes}, translate(err)
}

// Start implements peer.Workload.
func (w *workload) Start(ctx context.Context, id pktcloud.ID, m lease.Manifest) error {
	if _, err := w.sets.Status(id.Hex()); errors.Is(err, container.CodeNotFound) {
		set, err := w.setOf(ctx, id, m)
		if err == nil {
			err = w.begin(ctx, set, m)
		}
		if err != nil {
			w.log.Warn("a lease's services could not be started", "lease", id, "error", err)
			return err
		}
	}
	return w.up(ctx, id, m)
}

// begin makes a set run with ports outside, which are its own from then on
// [SERVICE-20].
func (w *workload) begin(ctx context.Context, set services.Set, m lease.Manifest) error {
	w.giving.Lock()
	defer w.giving.Unlock()
	if err := w.give(set, m); err != nil {
		return err
	}
	return w.sets.Begin(ctx, set)
}

// up waits until the service that the probe names runs.
func (w *workload) up(ctx context.Context, id pktcloud.ID, m lease.Manifest) error {
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	name := m.ProbeService().Name
	s, err := w.sets.Await(ctx, id.Hex(), func(s services.Status) bool {
		return s.Outcome != services.Going || slices.ContainsFunc(s.Services, func(v services.ServiceStatus) bool {
			return v.Name == name && v.Begun
		})
	})
	switch {
	case err == nil && s.Outcome == services.Broken:
		return faultOfSet(s)
	case err != nil && ctx.Err() != nil:
		return stuck(s, name)
	}
	return err
}

// stuck says what a service that does not come up waits for.
func stuck(s services.Status, name string) error {
	var waits []string
	for _, v := range s.Services {
		if v.Phase != services.Running && v.Phase != services.Done || v.Health == services.HealthStarting || v.Health == services.HealthUnhealthy {
			waits = append(waits, v.Name+" is "+cmp.Or(v.Health, v.Phase.String()))
		}
	}
	return lease.Faultf(lease.FaultPort, "service %s does not run after %s: %s", name, startDeadline, strings.Join(waits, ", "))
}

// setOf brings the images of a manifest, and says what is to run.
func (w *workload) setOf(ctx context.Context, id pktcloud.ID, m lease.Manifest) (services.Set, error) {
	set := services.Set{ID: id.Hex(), Class: container.Class(m.Isolation()), Volumes: volumesOf(m)}
	secrets, err := w.credentials(set.ID)
	if err != nil {
		return set, fmt.Errorf("the credentials of the lease: %w", err)
	}
	for _, v := range m.Services {
		got, err := w.pull(ctx, v, secrets)
		if err != nil {
			return set, explained(err, v)
		}
		s := services.Service{
			Name: v.Name, Image: got.Digest, Ref: v.Image, Args: v.Args, Entrypoint: v.Entrypoint, Env: v.Env, WorkDir: v.WorkDir, User: v.User,
			Limits:  limitsOf(v),
			Restart: services.Restart{Policy: services.Policy(v.Restart.Policy), Max: v.Restart.Max}, Job: v.Job, StopGrace: seconds(v.Stop),
			Health: services.Health{
				Check: services.Check(v.Health.Check), Command: v.Health.Command, Port: uint16(v.Health.Port), Path: v.Health.Path,
				Interval: seconds(v.Health.Interval), Timeout: seconds(v.Health.Timeout), Start: seconds(v.Health.Start), Retries: v.Health.Retries,
			},
			Network: networkOf(v),
		}
		for _, o := range v.Mounts {
			s.Mounts = append(s.Mounts, container.Mount(o))
		}
		for _, d := range v.Depends {
			s.Depends = append(s.Depends, services.Dependency{Service: d.Service, When: services.Condition(d.When)})
		}
		set.Services = append(set.Services, s)
	}
	return set, nil
}

func seconds(n uint64) time.Duration { return time.Duration(n) * time.Second }

// fetch brings an image back that the store has let go of meanwhile.
func (w *workload) fetch(ctx context.Context, set, ref, digest string) error {
	ctx, cancel := context.WithTimeout(ctx, pullDeadline)
	defer cancel()
	secrets, err := w.credentials(set)
	if err == nil {
		_, err = w.runtime.Pull(ctx, image.Pinned(ref, digest), pullOptions(ref, secrets))
	}
	return err
}

// imageFaults are the codes that tell of a tenant's image.
var imageFaults = []container.Code{
	container.CodeUnknownImage, container.CodeRegistry, container.CodeForbiddenHost, container.CodeBadImage,
	container.CodeDigestMismatch, container.CodeWrongArch, container.CodeTooLarge,
}

// classes returns the classes of isolation that offers name, ascending.
func (w *workload) classes() []string {
	out := []string{string(container.ClassUserns)}
	if r, ok := w.runtime.(interface{ IsolationClasses() []container.Class }); ok {
		out = nil
		for _, c := range r.IsolationClasses() {
			out = append(out, string(c))
		}
	}
	slices.Sort(out)
	return out
}

// failure is an error with what the tenant is told of it.
type failure struct {
	error
	fault lease.Fault
}

func (f *failure) Unwrap() []error { return []error{f.error, f.fault} }

// explained says what a tenant may know of an image that cannot be had: all
// about the image, and of this machine only that the fault lies there
// [LEASE-22].
func explained(err error, v lease.Service) error {
	if e, ok := errors.AsType[*container.Error](err); ok && slices.Contains(imageFaults, e.Code) {
		return &failure{err, lease.Faultf(lease.FaultImage, "%.120s: %s", v.Image, e.Code)}
	}
	return err
}

// faultOfSet is why a set does not go on. Where there is one service its name
// says nothing.
func faultOfSet(s services.Status) lease.Fault {
	alone := len(s.Services) == 1
	if s.Outcome == services.Finished {
		return lease.Faultf(lease.FaultDone, "%.200s", s.Why) // [LEASE-46]
	}
	for _, v := range s.Services {
		if v.Phase != services.Failed || v.Refusal == "" {
			continue
		}
		code := lease.FaultMachine
		switch {
		case slices.Contains(imageFaults, v.Refusal) || v.Refusal == container.CodeInvalidSpec: // a path or a user that it does not have
			code = lease.FaultImage
		case v.Refusal == container.CodeProgram:
			code = lease.FaultProgram
		}
		if alone {
			return lease.Faultf(code, "%.200s", strings.TrimPrefix(strings.TrimPrefix(v.Text, services.CannotStart), services.CouldNotStart))
		}
		return lease.Faultf(code, "%.200s", s.Why)
	}
	if alone && !s.Services[0].Job {
		return lease.Faultf(lease.FaultExit, "the program %.200s", s.Services[0].Text)
	}
	return lease.Faultf(lease.FaultExit, "%.200s", s.Why)
}

// Freeze implements peer.Workload.
func (w *workload) Freeze(ctx context.Context, id pktcloud.ID) error {
	return w.sets.Freeze(ctx, id.Hex())
}

// Resume implements peer.Workload.
func (w *workload) Resume(ctx context.Context, id pktcloud.ID) error {
	return w.sets.Thaw(ctx, id.Hex())
}

// Status implements peer.Workload [SERVICE-11].
func (w *workload) Status(_ context.Context, id pktcloud.ID) (peer.WorkloadStatus, error) {
	s, err := w.sets.Status(id.Hex())
	switch {
	case errors.Is(err, container.CodeNotFound):
		return peer.WorkloadEnded, nil
	case err != nil:
		return peer.WorkloadUnknown, err
	case s.Outcome != services.Going:
		return peer.WorkloadEnded, faultOfSet(s)
	case s.Frozen:
		return peer.WorkloadFrozen, nil
	}
	return peer.WorkloadRunning, nil
}

// Destroy implements peer.Workload.
func (w *workload) Destroy(ctx context.Context, id pktcloud.ID) error {
	if err := w.sets.End(ctx, id.Hex()); err != nil {
		return err
	}
	return w.KeepCredentials(ctx, id, nil)
}

// box returns the container of a service, by the name that a tenant gave.
func (w *workload) box(id pktcloud.ID, service string) (string, error) {
	box, err := w.sets.Container(id.Hex(), service)
	switch {
	case errors.Is(err, container.CodeNotFound):
		return "", lease.Refusal(lease.CodeUnknown, "there is no service %.40q in this lease", service)
	case errors.Is(err, container.CodeNotRunning):
		return "", lease.Refusal(lease.CodePhase, "service %s has not been started yet", service)
	}
	return box, err
}

// Dial implements peer.Workload and session.Workload.
func (w *workload) Dial(ctx context.Context, id pktcloud.ID, service string, port uint16) (net.Conn, error) {
	box, err := w.box(id, service)
	if err != nil {
		return nil, err
	}
	return w.runtime.Dial(ctx, box, port)
}

// Exec implements session.Workload.
func (w *workload) Exec(ctx context.Context, id pktcloud.ID, service string, e session.ExecRequest) (int, error) {
	box, err := w.box(id, service)
	if err != nil {
		return 0, err
	}
	var resize chan container.Size
	if e.Resize != nil {
		resize = make(chan container.Size)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(ctx)
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { convertSizes(ctx, e.Resize, resize) })
	}
	code, err := w.runtime.Exec(ctx, box, container.ExecSpec{
		Args: e.Args, Files: e.Files, Env: e.Env, WorkDir: e.WorkDir, TTY: e.TTY, Size: container.Size(e.Size),
		Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr, Resize: resize,
	})
	if errors.Is(err, container.CodeMissingFeature) {
		err = &lease.Error{Code: lease.CodeMissing, Detail: "files are not served: " + bare(err), Err: err}
	}
	return code, err
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
func (w *workload) Logs(ctx context.Context, id pktcloud.ID, service string, o session.LogOptions) (io.ReadCloser, error) {
	r, err := w.sets.Logs(ctx, id.Hex(), services.LogOptions{Service: service, LogOptions: container.LogOptions{Follow: o.Follow, Tail: o.Tail}})
	if errors.Is(err, container.CodeNotFound) {
		err = lease.Refusal(lease.CodeUnknown, "there is no service %.40q in this lease", service)
	}
	return r, err
}

// Services implements session.Workload.
func (w *workload) Services(ctx context.Context, id pktcloud.ID) ([]session.ServiceStatus, error) {
	s, err := w.sets.Status(id.Hex())
	if err != nil {
		return nil, lease.Refusal(lease.CodePhase, "the lease has no services now")
	}
	var out []session.ServiceStatus
	for _, v := range s.Services {
		row := session.ServiceStatus{
			Name: v.Name, Phase: v.Phase.String(), Job: v.Job, Health: v.Health, Runs: v.Run, Looping: v.Looping, Ended: v.Ended,
			Exit: uint64(uint8(v.ExitCode)), OOMKilled: v.OOMKilled, Since: v.Since.Unix(), Text: lease.Clip(v.Text),
		}
		var traffic container.NetworkStatus
		if v.Phase == services.Running {
			if use, err := w.runtime.Status(ctx, v.Container); err == nil {
				row.CPUMillis, row.MemoryBytes, traffic = uint64(use.CPUTime.Milliseconds()), use.MemoryBytes, use.Network
			}
		}
		row.Network = w.networkStatus(v.Publish, traffic)
		out = append(out, row)
	}
	return out, nil
}
