package container

import (
	"context"
	"io"
	"net"
	"time"
)

// Runtime runs containers on this machine. All methods may be called from
// several goroutines at once; calls that change one container take their turn,
// and calls about different containers do not wait for each other. What a
// method has returned nil for survives the death of the calling process: a new
// Runtime over the same directory finds the same containers [CONTAINER-6].
//
// Errors are *[Error], or those of ctx; match a [Code] with errors.Is. A method
// that fails leaves the container as it was, and a failed Start leaves nothing.
// About a container that is not there all but Destroy say [CodeNotFound].
type Runtime interface {
	// Pull brings an image into the store and verifies it. It is idempotent,
	// and atomic: an image is in the store whole or not at all [CONTAINER-10].
	Pull(ctx context.Context, ref string, o PullOptions) (Image, error)
	// Start makes and starts a container. It is idempotent by Spec.ID: nil when
	// a container was already started from an equal spec, even if it has exited
	// since; [CodeConflict] when it was started from another [CONTAINER-4].
	// An interrupted Start is begun anew by the next one. What runs is
	// [Spec.CommandLine] of the image: Args stand for the whole of the image's own,
	// and with Entrypoint for its arguments alone [CONTAINER-120].
	Start(ctx context.Context, s Spec) error
	// Status reports on one container. The exit code of a container that ended
	// while no Runtime was looking is known all the same.
	Status(ctx context.Context, id string) (Status, error)
	// List reports on all containers, ordered by id.
	List(ctx context.Context) ([]Status, error)
	// Usage reports what a container has used, and how often it hit each of its
	// limits. The last numbers of one that has exited stay.
	Usage(ctx context.Context, id string) (Usage, error)
	// Pause freezes all processes of a running container, and Resume thaws
	// them. Both are idempotent; [CodeNotRunning] for one that has exited.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// Update changes the limits of a container while it runs or is paused, all
	// of them or none [CONTAINER-73]. They are those of its spec from then on.
	// [CodeDoesNotFit] when it uses more than a new limit, or the disk would
	// shrink; [CodeNotRunning] for one that has exited.
	Update(ctx context.Context, id string, l Limits) error
	// Signal sends a signal to the first process of a container, which acts on
	// it once it is not paused; SIGKILL ends also a paused one. A signal that
	// the program does not handle does nothing, other than SIGKILL and SIGSTOP:
	// so it is with first processes. [CodeNotRunning] for one that has exited,
	// [CodeInvalidSpec] for what is no signal.
	Signal(ctx context.Context, id string, s Signal) error
	// Stop ends a container: it sends the image's stop signal, SIGTERM unless
	// the image names another, and SIGKILL if there is no end within grace. It
	// thaws a paused one for that, and returns once the container has exited;
	// nil for one that already has [CONTAINER-71]. No other call waits for a
	// Stop. When ctx ends first, the error is ctx.Err() and there is no SIGKILL.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Exec runs a program inside a running container under the same limits and
	// filters, and returns its exit code: 128 + n when signal n ended it, 126
	// or 127 when it could not be started. It returns after the program has
	// ended and its output was written. When ctx ends the program is killed
	// and the error is ctx.Err(). A paused container refuses it,
	// [CodeNotRunning].
	Exec(ctx context.Context, id string, e ExecSpec) (exitCode int, err error)
	// Logs returns lines in the form of [AppendLogLine], oldest first. The
	// reader ends at the newest line or, with Follow, when the container is
	// destroyed or has exited and all was read. The caller closes it; ctx
	// bounds the whole reading.
	Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error)
	// Dial connects to 127.0.0.1:port inside the container's own network,
	// [CodePortRefused] when nothing listens there.
	Dial(ctx context.Context, id string, port uint16) (net.Conn, error)
	// Destroy kills a container and removes all that belongs to it: processes,
	// mounts, cgroups, devices, files. It is idempotent, and nil when there is
	// no such container [CONTAINER-7].
	Destroy(ctx context.Context, id string) error
}

// PullOptions adjusts a pull. The zero value is an anonymous pull within the
// store's own limits.
type PullOptions struct {
	// Username and Password are for the registry that the reference names, and
	// go to no other host.
	Username, Password string
	// MaxBytes bounds the compressed size; 0 means the store's limit.
	MaxBytes uint64
	// Progress, if not nil, is called now and then, from one goroutine at a
	// time, with the compressed bytes received and expected.
	Progress func(done, total uint64)
}

// Image is an image in the store.
type Image struct {
	// Digest is that of the manifest for this machine's architecture,
	// "sha256:…". It is what Spec.Image names.
	Digest string
	// Index is the digest that the reference led to: that of an index over
	// several architectures, or the same as Digest.
	Index string
	// SizeBytes counts the compressed layers, UnpackedBytes the file system.
	SizeBytes, UnpackedBytes uint64
	OS, Arch                 string
	// Args, Env, WorkDir and User are what the image would run by itself.
	Args    []string
	Env     []string
	WorkDir string
	User    string
	// Entrypoint is how many of Args are the image's entrypoint; the others are the
	// arguments that it gives it.
	Entrypoint int
	// StopSignal is what asks its program to end, as the image writes it; see
	// [StopSignalOf].
	StopSignal string
	// Ports are the TCP ports that the image says it serves, ascending.
	Ports []uint16
}

// State is where a container stands:
//
//	Created ──► Running ◄──► Paused
//	   │           │            │
//	   └───────────┴──► Exited ◄┘     Destroy removes it from any state
type State uint8

// States of a container.
const (
	// Created: Start is under way or was interrupted.
	Created State = iota + 1
	Running
	Paused
	Exited
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Paused:
		return "paused"
	case Exited:
		return "exited"
	}
	return "unknown"
}

// Status is what is known of a container.
type Status struct {
	ID    string
	Image string
	State State
	// Limits are those that hold: of the spec, or of the last Update.
	Limits Limits
	// End is why it ended, NotEnded until then. ExitCode is meaningful once
	// Exited: the program's own, 128 + n after signal n, and -1 when it was
	// lost in a crash of the machine.
	End      End
	ExitCode int
	// OOMKilled: the kernel killed one of its processes for memory, which need
	// not have been the first.
	OOMKilled bool
	// Times are zero when not reached.
	StartedAt, FinishedAt time.Time
	// CPUTime and MemoryBytes are the use so far and now; zero when unknown.
	CPUTime     time.Duration
	MemoryBytes uint64
	Network     NetworkStatus
}

// Size is that of a terminal, in characters.
type Size struct {
	Cols, Rows uint16
}

// ExecSpec is a program to run inside a container. Env is added to the
// container's own. With TTY the program gets a terminal, Stderr stays unused
// and Resize, if not nil, sets its size whenever a value arrives. A nil Stdin
// is empty; a nil Stdout or Stderr discards; where both are one writer, it has
// one caller at a time.
//
// With Files, and neither Args nor TTY, the program is a file server of the
// runtime's own, which speaks SFTP on Stdin and Stdout; [CodeMissingFeature]
// where the runtime has none for the container.
//
// Exec does not wait for Stdin to end: a Read that is blocked when Exec
// returns takes one more piece of it.
type ExecSpec struct {
	Args    []string
	Files   bool
	Env     []string
	WorkDir string
	TTY     bool
	Size    Size
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Resize  <-chan Size
}

// LogOptions chooses log lines. Since is inclusive, its zero value means from
// the first; Tail is a number of lines before following, of at most
// [MaxTailBytes] in all; 0 means all.
type LogOptions struct {
	Follow bool
	Since  time.Time
	Tail   int
}
