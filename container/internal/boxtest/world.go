//go:build linux && cgo && amd64

package boxtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// Patience bounds each wait; an emulated machine is slow.
const Patience = 2 * time.Minute

// Kind is a runtime under test.
type Kind struct {
	// Limits are those of containers that a test asks for no others for.
	Limits container.Limits
	// Open opens it.
	Open func(libcontainer.Config) (*libcontainer.Runtime, error)
}

// World is a runtime over a store that has one image.
type World struct {
	T   *testing.T // a part of a test sets its own
	Dir string
	// Ref is where Image is from; QuitRef differs only in its stop signal.
	Ref, QuitRef string
	Image        container.Image
	Store        *image.Store
	RT           *libcontainer.Runtime
	// Config is the runtime's, when it is next opened, but for the directory and
	// the images.
	Config libcontainer.Config
	kind   Kind
}

// New makes a world in an empty directory. It skips the test where the machine
// has not what that needs: root, control groups, loop devices and [Busybox]. The
// test's end destroys all containers, and looks for what may have been left on
// the machine.
func New(t *testing.T, k Kind, dir string) *World {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(Busybox); err != nil {
		t.Skip("needs " + Busybox + " of the package busybox-static")
	}
	for path, stop := range map[string]string{layout(dir): "", quitLayout(dir): "SIGUSR1"} {
		if err := writeImage(path, stop); err != nil {
			t.Fatal(err)
		}
	}
	w := Join(t, k, dir)
	t.Cleanup(func() {
		w.DestroyAll()
		w.CloseAll()
		w.CheckClean()
	})
	return w
}

func layout(dir string) string { return filepath.Join(dir, "layout") }

func quitLayout(dir string) string { return filepath.Join(dir, "quit") }

// Join is the world that [New] made in a directory, for another process. Its end
// is that of the process.
func Join(t *testing.T, k Kind, dir string) *World {
	t.Helper()
	w := &World{T: t, Dir: dir, Ref: "oci:" + layout(dir), QuitRef: "oci:" + quitLayout(dir), kind: k}
	w.OpenAll()
	w.Image = w.Pull(w.Ref)
	return w
}

// RunDir is the runtime's.
func (w *World) RunDir() string { return filepath.Join(w.Dir, "run") }

// Box is the directory of a container.
func (w *World) Box(id string) string { return filepath.Join(w.RunDir(), "boxes", id) }

// Open opens the runtime.
func (w *World) Open() {
	w.T.Helper()
	cfg := w.Config
	cfg.Dir, cfg.Images = w.RunDir(), w.Store
	var err error
	if w.RT, err = w.kind.Open(cfg); err != nil {
		w.T.Fatal(err)
	}
}

// Reopen has another runtime come after the one that is open.
func (w *World) Reopen() {
	w.T.Helper()
	if err := w.RT.Close(); err != nil {
		w.T.Fatal(err)
	}
	w.Open()
}

// OpenAll opens the store and the runtime.
func (w *World) OpenAll() {
	w.T.Helper()
	var err error
	if w.Store, err = image.Open(image.Config{Dir: filepath.Join(w.Dir, "images"), Local: true}); err != nil {
		w.T.Fatal(err)
	}
	w.Open()
}

// CloseAll closes them, so that another process can have them.
func (w *World) CloseAll() {
	w.T.Helper()
	if err := errors.Join(w.RT.Close(), w.Store.Close()); err != nil {
		w.T.Error(err)
	}
}

// Pull has an image pulled.
func (w *World) Pull(ref string) container.Image {
	w.T.Helper()
	img, err := w.RT.Pull(w.T.Context(), ref, container.PullOptions{})
	if err != nil {
		w.T.Fatal(err)
	}
	return img
}

// DestroyAll destroys all containers.
func (w *World) DestroyAll() {
	w.T.Helper()
	all, err := w.RT.List(context.Background())
	if err != nil {
		w.T.Error(err)
	}
	for _, s := range all {
		if err := w.RT.Destroy(context.Background(), s.ID); err != nil {
			w.T.Error(err)
		}
	}
}

// RemoveVolumes destroys all containers and volumes.
func (w *World) RemoveVolumes() {
	w.T.Helper()
	w.DestroyAll()
	all, err := w.RT.Volumes(context.Background(), "")
	if err != nil {
		w.T.Error(err)
	}
	for _, v := range all {
		if err := w.RT.RemoveVolume(context.Background(), v.VolumeID); err != nil {
			w.T.Error(err)
		}
	}
}

// Sh is a shell's command line.
func Sh(script string) []string { return []string{"sh", "-c", script} }

// Spec is a container of the world's image.
func (w *World) Spec(id string, args ...string) container.Spec {
	return container.Spec{ID: id, Image: w.Image.Digest, Args: args, Limits: w.kind.Limits}
}

// Start starts a container.
func (w *World) Start(s container.Spec) {
	w.T.Helper()
	if err := w.RT.Start(w.T.Context(), s); err != nil {
		b, _ := os.ReadFile(filepath.Join(w.Box(s.ID), "monitor.log"))
		w.T.Fatalf("%v\n%s", err, b)
	}
}

// Exec returns what a program wrote, and its exit code.
func (w *World) Exec(id string, args ...string) (string, int) {
	w.T.Helper()
	var b bytes.Buffer
	code, err := w.RT.Exec(w.T.Context(), id, container.ExecSpec{Args: args, Stdout: &b, Stderr: &b})
	if err != nil {
		w.T.Fatal(err)
	}
	return b.String(), code
}

// Has wants a program to print a text.
func (w *World) Has(id, what, want string, args ...string) {
	w.T.Helper()
	if got, _ := w.Exec(id, args...); !strings.Contains(got, want) {
		w.T.Errorf("%s: %v printed %q, want %q", what, args, got, want)
	}
}

// Fails wants a program to fail.
func (w *World) Fails(id, what string, args ...string) {
	w.T.Helper()
	if got, code := w.Exec(id, args...); code == 0 {
		w.T.Errorf("%s: %v succeeded: %q", what, args, got)
	}
}

// Status is a container's.
func (w *World) Status(id string) container.Status {
	w.T.Helper()
	s, err := w.RT.Status(w.T.Context(), id)
	if err != nil {
		w.T.Fatal(err)
	}
	return s
}

// Await polls a container until it is as wanted.
func (w *World) Await(id string, want func(container.Status) bool) container.Status {
	w.T.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		s := w.Status(id)
		if want(s) {
			return s
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("got %+v for too long", s)
		}
	}
}

// Exited is for [World.Await].
func Exited(s container.Status) bool { return s.State == container.Exited }

// Usage is a container's.
func (w *World) Usage(id string) container.Usage {
	w.T.Helper()
	u, err := w.RT.Usage(w.T.Context(), id)
	if err != nil {
		w.T.Fatal(err)
	}
	return u
}

// AwaitUsage polls until what is used is as wanted.
func (w *World) AwaitUsage(id string, want func(container.Usage) bool) container.Usage {
	w.T.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		u := w.Usage(id)
		if want(u) {
			return u
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("got %+v for too long", u)
		}
	}
}

// Logs is all that a container wrote.
func (w *World) Logs(id string) string {
	w.T.Helper()
	r, err := w.RT.Logs(w.T.Context(), id, container.LogOptions{})
	if err != nil {
		w.T.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.T.Fatal(err)
	}
	return string(b)
}

// AwaitLog waits until a container has written a text.
func (w *World) AwaitLog(id, text string) {
	w.T.Helper()
	w.Await(id, func(container.Status) bool { return strings.Contains(w.Logs(id), text) })
}
