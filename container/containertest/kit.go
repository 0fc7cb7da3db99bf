package containertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Fixture is what [TestRuntime] needs to know of the runtime under test: an
// image that it can pull, and command lines that this image can run.
type Fixture struct {
	Ref        string // an image
	UnknownRef string // a reference that leads nowhere
	// Serve writes the line "serving" to standard output, then answers each
	// connection to Port with "hello\n" and closes it, until it is killed.
	Serve []string
	Port  uint16
	// Exit writes "out\n" to standard output, "err\n" to standard error, and
	// ends with the given code.
	Exit func(code int) []string
	// Cat copies its input to its output. Env writes the value of the variable
	// NAME and a newline.
	Cat, Env []string
	// Limits are for every container; the zero value means modest ones.
	Limits container.Limits
}

// patience bounds every single wait of the kit.
const patience = 20 * time.Second

// TestRuntime checks a runtime against the promises of container.Runtime. It
// leaves nothing behind, unless it fails, and expects to be the runtime's only
// user. The error names the first promise that was broken.
func TestRuntime(rt container.Runtime, f Fixture) error {
	ctx, cancel := context.WithTimeout(context.Background(), 12*patience)
	defer cancel()
	if f.Limits == (container.Limits{}) {
		f.Limits = container.SmallLimits()
	}
	k := &kit{rt: rt, f: f}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"pull", k.pull},
		{"refusals", k.refusals},
		{"start and status", k.start},
		{"dial", k.dial},
		{"exec", k.exec},
		{"pause and resume", k.pause},
		{"logs", k.logs},
		{"exit", k.exit},
		{"list", k.list},
		{"destroy", k.destroy},
		{"many at once", k.many},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

type kit struct {
	rt    container.Runtime
	f     Fixture
	image container.Image
}

func (k *kit) spec(id string, args []string) container.Spec {
	return container.Spec{ID: id, Image: k.image.Digest, Args: args, Env: []string{"NAME=spec"}, Limits: k.f.Limits}
}

func (k *kit) pull(ctx context.Context) error {
	if _, err := k.rt.Pull(ctx, k.f.UnknownRef, container.PullOptions{}); err == nil {
		return errors.New("an unknown reference was pulled")
	}
	var total uint64
	img, err := k.rt.Pull(ctx, k.f.Ref, container.PullOptions{Progress: func(_, t uint64) { total = t }})
	if err != nil {
		return err
	}
	if !container.ValidDigest(img.Digest) || total == 0 {
		return fmt.Errorf("got digest %q after %d bytes", img.Digest, total)
	}
	again, err := k.rt.Pull(ctx, k.f.Ref, container.PullOptions{})
	if err != nil || again.Digest != img.Digest {
		return fmt.Errorf("a second pull gave %q, %w", again.Digest, err)
	}
	if _, err := k.rt.Pull(ctx, k.f.Ref, container.PullOptions{MaxBytes: 1}); !errors.Is(err, container.CodeTooLarge) {
		return fmt.Errorf("an image beyond MaxBytes: got %w, want %q", err, container.CodeTooLarge)
	}
	k.image = img
	return nil
}

func (k *kit) refusals(ctx context.Context) error {
	good := k.spec("kit-refused", k.f.Serve)
	unknown := good
	unknown.Image = "sha256:" + strings.Repeat("0", 64)
	noProgram := good
	noProgram.Args = []string{"/no/such/program"}
	noLimit := good
	noLimit.Limits.Pids = 0
	for _, c := range []struct {
		name string
		err  error
		want container.Code
	}{
		{"an unknown image", k.rt.Start(ctx, unknown), container.CodeUnknownImage},
		{"a missing program", k.rt.Start(ctx, noProgram), container.CodeProgram},
		{"a missing limit", k.rt.Start(ctx, noLimit), container.CodeInvalidSpec},
		{"pausing nothing", k.rt.Pause(ctx, "kit-none"), container.CodeNotFound},
		{"resuming nothing", k.rt.Resume(ctx, "kit-none"), container.CodeNotFound},
		{"destroying nothing", k.rt.Destroy(ctx, "kit-none"), ""},
	} {
		if c.want == "" && c.err != nil || c.want != "" && !errors.Is(c.err, c.want) {
			return fmt.Errorf("%s: got %w, want %q", c.name, c.err, string(c.want))
		}
	}
	if _, err := k.rt.Status(ctx, good.ID); !errors.Is(err, container.CodeNotFound) {
		return fmt.Errorf("a failed Start left a container: %w", err)
	}
	return nil
}

func (k *kit) start(ctx context.Context) error {
	s := k.spec("kit-serve", k.f.Serve)
	for range 2 {
		if err := k.rt.Start(ctx, s); err != nil {
			return err
		}
	}
	other := s
	other.Env = []string{"NAME=other"}
	if err := k.rt.Start(ctx, other); !errors.Is(err, container.CodeConflict) {
		return fmt.Errorf("another spec of the same id: got %w, want %q", err, container.CodeConflict)
	}
	st, err := k.rt.Status(ctx, s.ID)
	if err != nil {
		return err
	}
	if st.ID != s.ID || st.Image != s.Image || st.State != container.Running || st.StartedAt.IsZero() {
		return fmt.Errorf("got %+v, want it running", st)
	}
	return nil
}

func (k *kit) dial(ctx context.Context) error {
	got, err := k.greeting(ctx, patience)
	if err != nil || got != "hello\n" {
		return fmt.Errorf("got %q, %w; want hello", got, err)
	}
	if _, err := k.rt.Dial(ctx, "kit-serve", 65000); !errors.Is(err, container.CodePortRefused) {
		return fmt.Errorf("a port where nothing listens: got %w, want %q", err, container.CodePortRefused)
	}
	return nil
}

// greeting dials until the service answers.
func (k *kit) greeting(ctx context.Context, wait time.Duration) (string, error) {
	var got string
	err := until(wait, func() error {
		c, err := k.rt.Dial(ctx, "kit-serve", k.f.Port)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		b, err := io.ReadAll(c)
		got = string(b)
		if err == nil && got == "" {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	return got, err
}

func (k *kit) exec(ctx context.Context) error {
	var out, errs bytes.Buffer
	code, err := k.rt.Exec(ctx, "kit-serve", container.ExecSpec{Args: k.f.Exit(7), Stdout: &out, Stderr: &errs})
	if err != nil || code != 7 || out.String() != "out\n" || errs.String() != "err\n" {
		return fmt.Errorf("exit 7: got %d, %w, out %q, err %q", code, err, out.String(), errs.String())
	}
	out.Reset()
	long := strings.Repeat("0123456789abcdef\n", 20000)
	code, err = k.rt.Exec(ctx, "kit-serve", container.ExecSpec{Args: k.f.Cat, Stdin: strings.NewReader(long), Stdout: &out})
	if err != nil || code != 0 || out.String() != long {
		return fmt.Errorf("cat: got %d, %w, %d bytes, want %d", code, err, out.Len(), len(long))
	}
	for env, want := range map[string]string{"": "spec\n", "NAME=exec": "exec\n"} {
		out.Reset()
		e := container.ExecSpec{Args: k.f.Env, Stdout: &out}
		if env != "" {
			e.Env = []string{env}
		}
		if code, err := k.rt.Exec(ctx, "kit-serve", e); err != nil || code != 0 || out.String() != want {
			return fmt.Errorf("environment: got %d, %w, %q; want %q", code, err, out.String(), want)
		}
	}
	if code, err := k.rt.Exec(ctx, "kit-serve", container.ExecSpec{Args: []string{"no-such-program"}}); err != nil || code != 127 {
		return fmt.Errorf("a missing program: got %d, %w; want 127", code, err)
	}
	if _, err := k.rt.Exec(ctx, "kit-serve", container.ExecSpec{}); !errors.Is(err, container.CodeInvalidSpec) {
		return fmt.Errorf("no program: got %w, want %q", err, container.CodeInvalidSpec)
	}
	brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	begun := time.Now()
	_, err = k.rt.Exec(brief, "kit-serve", container.ExecSpec{Args: k.f.Cat, Stdin: r})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > patience/2 {
		return fmt.Errorf("an abandoned program: got %w after %v", err, time.Since(begun))
	}
	return nil
}

func (k *kit) pause(ctx context.Context) error {
	for range 2 {
		if err := k.rt.Pause(ctx, "kit-serve"); err != nil {
			return err
		}
	}
	if st, err := k.rt.Status(ctx, "kit-serve"); err != nil || st.State != container.Paused {
		return fmt.Errorf("got %+v, %w; want it paused", st, err)
	}
	if got, err := k.greeting(ctx, 300*time.Millisecond); err == nil {
		return fmt.Errorf("a paused service answered %q", got)
	}
	if _, err := k.rt.Exec(ctx, "kit-serve", container.ExecSpec{Args: k.f.Cat}); !errors.Is(err, container.CodeNotRunning) {
		return fmt.Errorf("exec while paused: got %w, want %q", err, container.CodeNotRunning)
	}
	for range 2 {
		if err := k.rt.Resume(ctx, "kit-serve"); err != nil {
			return err
		}
	}
	if got, err := k.greeting(ctx, patience); err != nil || got != "hello\n" {
		return fmt.Errorf("after Resume: got %q, %w", got, err)
	}
	return nil
}

func (k *kit) logs(ctx context.Context) error {
	lines, err := k.readLogs(ctx, "kit-serve", container.LogOptions{})
	if err != nil || len(lines) == 0 || string(lines[0].Text) != "serving" || lines[0].Stream != container.Stdout {
		return fmt.Errorf("got %v, %w; want the line \"serving\"", lines, err)
	}
	if lines, err := k.readLogs(ctx, "kit-serve", container.LogOptions{Since: time.Now().Add(time.Hour)}); err != nil || len(lines) != 0 {
		return fmt.Errorf("lines of the future: got %v, %w", lines, err)
	}
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := k.readLogs(brief, "kit-serve", container.LogOptions{Follow: true}); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("following a running service: got %w, want it to wait", err)
	}
	return nil
}

func (k *kit) readLogs(ctx context.Context, id string, o container.LogOptions) ([]container.LogLine, error) {
	r, err := k.rt.Logs(ctx, id, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	var out []container.LogLine
	for line := range bytes.Lines(b) {
		l, perr := container.ParseLogLine(line)
		if perr != nil {
			return nil, perr
		}
		out = append(out, l)
	}
	return out, err
}

func (k *kit) exit(ctx context.Context) error {
	const id = "kit-exit"
	if err := k.rt.Start(ctx, k.spec(id, k.f.Exit(42))); err != nil {
		return err
	}
	// Following ends with the container, and has read all by then.
	lines, err := k.readLogs(ctx, id, container.LogOptions{Follow: true})
	if err != nil || len(lines) != 2 {
		return fmt.Errorf("followed logs: got %v, %w; want two lines", lines, err)
	}
	slices.SortFunc(lines, func(a, b container.LogLine) int { return int(a.Stream) - int(b.Stream) })
	if string(lines[0].Text) != "out" || string(lines[1].Text) != "err" || lines[1].Stream != container.Stderr {
		return fmt.Errorf("followed logs: got %v", lines)
	}
	if tail, err := k.readLogs(ctx, id, container.LogOptions{Tail: 1}); err != nil || len(tail) != 1 {
		return fmt.Errorf("the last line: got %v, %w", tail, err)
	}
	st, err := k.rt.Status(ctx, id)
	if err != nil || st.State != container.Exited || st.ExitCode != 42 || st.OOMKilled || st.FinishedAt.Before(st.StartedAt) {
		return fmt.Errorf("got %+v, %w; want exit 42", st, err)
	}
	if err := k.rt.Start(ctx, k.spec(id, k.f.Exit(42))); err != nil {
		return fmt.Errorf("Start again after the exit: %w", err)
	}
	if st, err := k.rt.Status(ctx, id); err != nil || st.State != container.Exited {
		return fmt.Errorf("Start ran an exited container again: %+v, %w", st, err)
	}
	for name, err := range map[string]error{"pause": k.rt.Pause(ctx, id), "resume": k.rt.Resume(ctx, id)} {
		if !errors.Is(err, container.CodeNotRunning) {
			return fmt.Errorf("%s after the exit: got %w, want %q", name, err, container.CodeNotRunning)
		}
	}
	if _, err := k.rt.Dial(ctx, id, k.f.Port); !errors.Is(err, container.CodeNotRunning) {
		return fmt.Errorf("dial after the exit: got %w", err)
	}
	if _, err := k.rt.Exec(ctx, id, container.ExecSpec{Args: k.f.Cat}); !errors.Is(err, container.CodeNotRunning) {
		return fmt.Errorf("exec after the exit: got %w", err)
	}
	return nil
}

func (k *kit) list(ctx context.Context) error {
	all, err := k.rt.List(ctx)
	if err != nil || len(all) != 2 || all[0].ID != "kit-exit" || all[1].ID != "kit-serve" {
		return fmt.Errorf("got %v, %w; want the two containers by id", all, err)
	}
	return nil
}

func (k *kit) destroy(ctx context.Context) error {
	r, err := k.rt.Logs(ctx, "kit-serve", container.LogOptions{Follow: true})
	if err != nil {
		return err
	}
	defer r.Close()
	for _, id := range []string{"kit-exit", "kit-serve", "kit-serve"} {
		if err := k.rt.Destroy(ctx, id); err != nil {
			return err
		}
		if _, err := k.rt.Status(ctx, id); !errors.Is(err, container.CodeNotFound) {
			return fmt.Errorf("after Destroy of %s: got %w", id, err)
		}
	}
	if _, err := io.ReadAll(r); err != nil {
		return fmt.Errorf("following a destroyed container: got %w, want its end", err)
	}
	// A paused container is destroyed like any other.
	if err := k.rt.Start(ctx, k.spec("kit-paused", k.f.Serve)); err != nil {
		return err
	}
	if err := k.rt.Pause(ctx, "kit-paused"); err != nil {
		return err
	}
	if err := k.rt.Destroy(ctx, "kit-paused"); err != nil {
		return err
	}
	if all, err := k.rt.List(ctx); err != nil || len(all) != 0 {
		return fmt.Errorf("after all: got %v, %w; want none", all, err)
	}
	return nil
}

func (k *kit) many(ctx context.Context) error {
	const n = 6
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- k.one(ctx, fmt.Sprintf("kit-many-%d", i), i) }()
	}
	var err error
	for range n {
		err = errors.Join(err, <-errs)
	}
	return err
}

// one is a container's whole life.
func (k *kit) one(ctx context.Context, id string, code int) error {
	if err := k.rt.Start(ctx, k.spec(id, k.f.Exit(code))); err != nil {
		return err
	}
	err := until(patience, func() error {
		st, err := k.rt.Status(ctx, id)
		if err == nil && (st.State != container.Exited || st.ExitCode != code) {
			err = fmt.Errorf("got %+v, want exit %d", st, code)
		}
		return err
	})
	return errors.Join(err, k.rt.Destroy(ctx, id))
}

// until tries f until it succeeds or wait has passed.
func until(wait time.Duration, f func() error) error {
	deadline := time.Now().Add(wait)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
