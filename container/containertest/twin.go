package containertest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Program is what a twin's container runs instead of a binary. It returns the
// exit code, and should return soon after ctx has ended.
type Program func(ctx context.Context, p *Process) int

// Process is what a [Program] sees.
type Process struct {
	Args   []string
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Listen serves a port of the container's loopback until the container
	// ends.
	Listen func(port uint16) (net.Listener, error)
	// Signals gets the signals that Runtime.Signal sends, but SIGKILL, and not
	// while the container is paused. It is nil for what Exec runs.
	Signals <-chan container.Signal
	// Memory, Pids, Disk, Write and CPU say what the program uses. What a limit
	// refuses is counted, and false; beyond its memory the program is killed.
	Memory, Pids, Disk func(more uint64) bool
	Write              func(bytes uint64)
	CPU                func(time.Duration)
	// Volumes are those of the container, by their paths.
	Volumes map[string]*TwinMount
}

// TwinImage is an image of a [Twin], with its programs by name. One that is
// Bad has other bytes than its digest names.
type TwinImage struct {
	Image    container.Image
	Programs map[string]Program
	Bad      bool
}

// Twin is a container.Runtime in memory. It isolates nothing and keeps nothing
// beyond its own life. It takes a network for granted and makes none: each of its
// containers has a loopback of its own.
type Twin struct {
	images map[string]TwinImage // by reference

	mu         sync.Mutex
	pulled     map[string]TwinImage // by digest
	containers map[string]*twinBox
	volumes    map[container.VolumeID]*twinVolume
	noVolumes  error
	running    sync.WaitGroup
}

var _ container.Runtime = (*Twin)(nil)

// NewTwin returns a twin that can pull the given images, by reference.
func NewTwin(images map[string]TwinImage) *Twin {
	return &Twin{images: maps.Clone(images), pulled: map[string]TwinImage{}, containers: map[string]*twinBox{}, volumes: map[container.VolumeID]*twinVolume{}}
}

// Close destroys all containers and waits for their programs.
func (t *Twin) Close() error {
	all, _ := t.List(context.Background())
	for _, s := range all {
		_ = t.Destroy(context.Background(), s.ID)
	}
	t.running.Wait()
	return nil
}

// Pull makes one of the twin's images known.
func (t *Twin) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	if err := ctx.Err(); err != nil {
		return container.Image{}, err
	}
	img, err := t.image(ref, o)
	if err != nil {
		return container.Image{}, err
	}
	t.mu.Lock()
	t.pulled[img.Image.Digest] = img
	t.mu.Unlock()
	if o.Progress != nil {
		o.Progress(img.Image.SizeBytes, img.Image.SizeBytes)
	}
	return img.Image, nil
}

// Inspect says what Pull would bring, and changes nothing.
func (t *Twin) Inspect(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	if err := ctx.Err(); err != nil {
		return container.Image{}, err
	}
	img, err := t.image(ref, o)
	return img.Image, err
}

// image follows a reference, or the digest in it.
func (t *Twin) image(ref string, o container.PullOptions) (TwinImage, error) {
	img, ok := t.images[ref]
	if _, digest, pinned := strings.Cut(ref, "@"); !ok && pinned {
		for _, i := range t.images {
			if i.Image.Digest == digest {
				img, ok = i, true
			}
		}
	}
	switch {
	case !ok:
		return TwinImage{}, fail(container.CodeUnknownImage, ref)
	case o.MaxBytes != 0 && img.Image.SizeBytes > o.MaxBytes:
		return TwinImage{}, fail(container.CodeTooLarge, ref)
	case img.Bad:
		return TwinImage{}, fail(container.CodeDigestMismatch, ref)
	}
	return img, nil
}

// Start runs the program that the spec or the image names.
func (t *Twin) Start(ctx context.Context, s container.Spec) error {
	if err := cmp.Or(ctx.Err(), s.Validate()); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.containers[s.ID]; old != nil {
		if !old.specNow().Equal(s) {
			return fail(container.CodeConflict, s.ID)
		}
		return nil
	}
	img, ok := t.pulled[s.Image]
	if !ok {
		return fail(container.CodeUnknownImage, s.Image)
	}
	args := s.CommandLine(img.Image)
	if len(args) == 0 || img.Programs[args[0]] == nil {
		return fail(container.CodeProgram, strings.Join(args, " "))
	}
	mounts, err := t.mounts(s)
	if err != nil {
		return err
	}
	b := newTwinBox(s, img, slices.Concat(img.Image.Env, s.Env))
	b.volumes = mounts
	t.containers[s.ID] = b
	t.running.Go(func() { b.main(args) })
	return nil
}

func (t *Twin) find(ctx context.Context, id string) (*twinBox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.containers[id]; b != nil {
		return b, nil
	}
	return nil, fail(container.CodeNotFound, id)
}

// Status reports on one container.
func (t *Twin) Status(ctx context.Context, id string) (container.Status, error) {
	b, err := t.find(ctx, id)
	if err != nil {
		return container.Status{}, err
	}
	return b.report(), nil
}

// List reports on all containers.
func (t *Twin) List(ctx context.Context) ([]container.Status, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]container.Status, 0, len(t.containers))
	for _, id := range slices.Sorted(maps.Keys(t.containers)) {
		out = append(out, t.containers[id].report())
	}
	return out, nil
}

// Pause freezes the container: connections and new programs wait. A program
// that computes does not notice.
func (t *Twin) Pause(ctx context.Context, id string) error { return t.setPaused(ctx, id, true) }

// Resume undoes Pause.
func (t *Twin) Resume(ctx context.Context, id string) error { return t.setPaused(ctx, id, false) }

func (t *Twin) setPaused(ctx context.Context, id string, paused bool) error {
	b, err := t.find(ctx, id)
	if err != nil {
		return err
	}
	return b.setPaused(paused)
}

// Exec runs another program of the image.
func (t *Twin) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	b, err := t.find(ctx, id)
	if err != nil {
		return -1, err
	}
	if err := e.Validate(); err != nil {
		return -1, err
	}
	if e.Files {
		return -1, &container.Error{Code: container.CodeMissingFeature, Detail: "a twin has no files"}
	}
	return b.exec(ctx, e)
}

// Logs returns the program's lines.
func (t *Twin) Logs(ctx context.Context, id string, o container.LogOptions) (io.ReadCloser, error) {
	b, err := t.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return b.log.reader(ctx, o), nil
}

// Dial connects to a port on which the program listens.
func (t *Twin) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	b, err := t.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return b.dial(ctx, port)
}

// Destroy ends the program and forgets the container.
func (t *Twin) Destroy(ctx context.Context, id string) error {
	b, err := t.find(ctx, id)
	if errors.Is(err, container.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	b.end(container.EndDestroyed)
	<-b.ended
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.containers[id] == b {
		delete(t.containers, id)
	}
	return nil
}

// left lists the containers that are still there.
func (t *Twin) left() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.containers))
}

func fail(code container.Code, detail string) error {
	return &container.Error{Code: code, Detail: detail}
}

// now is the twin's clock.
var now = time.Now
