package containertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
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
	// BadRef leads to an image with other bytes than its digest, BadDigest, names.
	BadRef, BadDigest string
	// QuitRef is an image like that of Ref, whose stop signal is SIGUSR1, and which
	// runs Say with the argument "image" by itself; Say is its entrypoint.
	QuitRef string
	// Say writes its arguments, with a space between them, and a newline.
	Say []string
	// Serve writes the line "serving" to standard output, then answers each
	// connection to Port with "hello\n" and closes it, until it is killed.
	Serve []string
	Port  uint16
	// Exit writes "out\n" to standard output, "err\n" to standard error, and
	// ends with the given code. Late ends with it a little later.
	Exit, Late func(code int) []string
	// Cat copies its input to its output. Env writes the value of the variable
	// NAME and a newline.
	Cat, Env []string
	// Trap writes "ready", then "usr2" at each SIGUSR2. At SIGTERM it writes
	// "term" and ends with code 5, at SIGUSR1 with code 6. It handles no other
	// signal.
	Trap []string
	// Hold takes so much memory that cannot be freed, writes "holding", and
	// keeps it.
	Hold func(bytes uint64) []string
	// Exhaust takes more memory than there is, Fork starts more processes, and
	// Fill writes more to the disk, which it leaves full. Spin uses up a
	// tenth of a processor for a moment. All but the first end by themselves.
	Exhaust, Fork, Fill, Spin []string
	// Reopen ends the runtime as when its process dies, calls meanwhile, and
	// returns another one over the same containers.
	Reopen func(meanwhile func()) (container.Runtime, error)
	// Left lists what the runtime has on the machine for containers.
	Left func() []string
	// Write writes a text to a file, Read writes a file to its output, and FillFile
	// writes to a file until there is no space, and fails; the others end with 0.
	// Only [TestVolumes] needs them.
	Write    func(path, text string) []string
	Read     func(path string) []string
	FillFile func(path string) []string
	// Limits are for every container; the zero value means modest ones.
	Limits container.Limits
	// Without names promises that the runtime does not keep, each with the
	// reason. They are not checked.
	Without map[string]string
	// OwnPids: a kernel inside bounds the processes, from beginning to end. An
	// Update of Limits.Pids is refused with [container.CodeMissingFeature], and
	// Usage says 0.
	OwnPids bool
}

// patience bounds every single wait of the kit; an emulated machine is slow.
// Tests of the kit itself make it shorter.
var patience = 2 * time.Minute

// TestRuntime checks a runtime against the promises of container.Runtime, one
// after another as [Promises] lists them. It leaves nothing behind, unless it
// fails, and expects to be the runtime's only user. The error names the first
// promise that was broken.
func TestRuntime(rt container.Runtime, f Fixture) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	if f.Limits == (container.Limits{}) {
		f.Limits = container.SmallLimits()
	}
	k := &kit{rt: rt, f: f}
	for name, reason := range f.Without {
		if reason == "" || !slices.ContainsFunc(promises, func(p Promise) bool { return p.Name == name }) {
			return fmt.Errorf("a fixture without %q, for the reason %q", name, reason)
		}
	}
	for _, p := range promises {
		if f.Without[p.Name] != "" {
			continue
		}
		if err := p.check(k, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// Containers of the kit that many checks use.
const (
	serving = "kit-serve" // Serve
	trapped = "kit-trap"  // Trap, from signal to update
	gone    = "kit-gone"  // Exit(42), has ended
)

type kit struct {
	rt    container.Runtime
	f     Fixture
	image container.Image
	quit  container.Image
	began time.Time // of serving
}

func (k *kit) spec(id string, args []string) container.Spec {
	return container.Spec{ID: id, Image: k.image.Digest, Args: args, Env: []string{"NAME=spec"}, Limits: k.f.Limits}
}

// refused wants an error of a code.
func refused(what string, err error, want container.Code) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: got %w, want %q", what, err, string(want))
	}
	return nil
}

// begin starts a container and waits until it has written a line.
func (k *kit) begin(ctx context.Context, id string, args []string, line string) error {
	return k.beginSpec(ctx, k.spec(id, args), line)
}

func (k *kit) beginSpec(ctx context.Context, s container.Spec, line string) error {
	if err := k.rt.Start(ctx, s); err != nil {
		return err
	}
	return k.wrote(ctx, s.ID, line, 1)
}

// wrote waits until a container has written a line n times.
func (k *kit) wrote(ctx context.Context, id, line string, n int) error {
	return until(patience, func() error {
		lines, err := k.readLogs(ctx, id, container.LogOptions{})
		if err == nil && count(lines, line) < n {
			err = fmt.Errorf("%s has not written %q %d times", id, line, n)
		}
		return err
	})
}

func count(lines []container.LogLine, text string) (n int) {
	for _, l := range lines {
		if string(l.Text) == text {
			n++
		}
	}
	return n
}

// exited waits until a container has ended.
func (k *kit) exited(ctx context.Context, id string) (container.Status, error) {
	var st container.Status
	err := until(patience, func() (err error) {
		st, err = k.rt.Status(ctx, id)
		if err == nil && st.State != container.Exited {
			err = fmt.Errorf("got %+v, want it to end", st)
		}
		return err
	})
	return st, err
}

// is wants a state.
func (k *kit) is(ctx context.Context, id string, want container.State) error {
	st, err := k.rt.Status(ctx, id)
	if err == nil && st.State != want {
		err = fmt.Errorf("got %+v, want it %s", st, want)
	}
	return err
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

// soon calls f, and fails when it does not return.
func soon(what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("%s did not return", what)
	}
}

func (k *kit) pull(ctx context.Context) error {
	img, err := k.rt.Pull(ctx, k.f.Ref, container.PullOptions{})
	if err != nil {
		return err
	}
	if !container.ValidDigest(img.Digest) {
		return fmt.Errorf("got digest %q", img.Digest)
	}
	k.image = img
	if err := k.rt.Start(ctx, k.spec("kit-pulled", k.f.Exit(0))); err != nil {
		return fmt.Errorf("start from it: %w", err)
	}
	return k.rt.Destroy(ctx, "kit-pulled")
}

func (k *kit) pullAgain(ctx context.Context) error {
	again, err := k.rt.Pull(ctx, k.f.Ref, container.PullOptions{})
	if err == nil && !reflect.DeepEqual(again, k.image) {
		err = fmt.Errorf("got %+v, and then %+v", k.image, again)
	}
	return err
}

func (k *kit) pullBad(ctx context.Context) error {
	if _, err := k.rt.Pull(ctx, k.f.UnknownRef, container.PullOptions{}); err == nil {
		return errors.New("an unknown reference was pulled")
	}
	_, err := k.rt.Pull(ctx, k.f.BadRef, container.PullOptions{})
	return refused("other bytes than the digest names", err, container.CodeDigestMismatch)
}

func (k *kit) pullPart(ctx context.Context) error {
	s := k.spec("kit-part", k.f.Exit(0))
	s.Image = k.f.BadDigest
	return refused("starting what could not be pulled", k.rt.Start(ctx, s), container.CodeUnknownImage)
}

func (k *kit) pullLarge(ctx context.Context) error {
	_, err := k.rt.Pull(ctx, k.f.Ref, container.PullOptions{MaxBytes: 1})
	return refused("an image beyond MaxBytes", err, container.CodeTooLarge)
}

func (k *kit) pullProgress(ctx context.Context) error {
	var done, total uint64
	var err error
	k.quit, err = k.rt.Pull(ctx, k.f.QuitRef, container.PullOptions{Progress: func(d, t uint64) { done, total = d, t }})
	if err == nil && (total == 0 || done != total) {
		err = fmt.Errorf("the last progress was %d of %d", done, total)
	}
	return err
}

func (k *kit) start(ctx context.Context) error {
	if err := k.begin(ctx, serving, k.f.Serve, "serving"); err != nil {
		return err
	}
	return k.is(ctx, serving, container.Running)
}

func (k *kit) status(ctx context.Context) error {
	st, err := k.rt.Status(ctx, serving)
	if err != nil {
		return err
	}
	if st.ID != serving || st.Image != k.image.Digest || st.State != container.Running || st.StartedAt.IsZero() || st.End != container.NotEnded || st.Limits != k.f.Limits {
		return fmt.Errorf("got %+v, want it running", st)
	}
	k.began = st.StartedAt
	return nil
}

func (k *kit) startAgain(ctx context.Context) error {
	return k.rt.Start(ctx, k.spec(serving, k.f.Serve))
}

func (k *kit) startOther(ctx context.Context) error {
	s := k.spec(serving, k.f.Serve)
	s.Env = []string{"NAME=other"}
	return refused("another spec of the same id", k.rt.Start(ctx, s), container.CodeConflict)
}

// startEntrypoint runs an image that has an entrypoint and an argument of its own
// as it is, with another argument, with none, and with another program.
func (k *kit) startEntrypoint(ctx context.Context) error {
	for _, c := range []struct {
		args       []string
		entrypoint bool
		want       string
	}{
		{nil, false, "image"},
		{[]string{"tenant", "says"}, true, "tenant says"},
		{nil, true, ""},
		{append(slices.Clone(k.f.Say), "alone"), false, "alone"},
	} {
		s := k.spec("kit-says", c.args)
		s.Image, s.Entrypoint = k.quit.Digest, c.entrypoint
		if err := k.beginSpec(ctx, s, c.want); err != nil {
			return fmt.Errorf("%q, behind the entrypoint %v: %w", c.args, c.entrypoint, err)
		}
		if err := k.rt.Destroy(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) unchanged(ctx context.Context) error {
	st, err := k.rt.Status(ctx, serving)
	if err == nil && (st.State != container.Running || !st.StartedAt.Equal(k.began)) {
		err = fmt.Errorf("got %+v, want it running since %v", st, k.began)
	}
	return err
}

func (k *kit) startFails(ctx context.Context) error {
	good := k.spec("kit-refused", k.f.Serve)
	unknown, noProgram, noLimit := good, good, good
	unknown.Image = "sha256:" + strings.Repeat("0", 64)
	noProgram.Args = []string{"/no/such/program"}
	noLimit.Limits.Pids = 0
	for _, c := range []struct {
		name string
		spec container.Spec
		want container.Code
	}{
		{"an unknown image", unknown, container.CodeUnknownImage},
		{"a missing program", noProgram, container.CodeProgram},
		{"a missing limit", noLimit, container.CodeInvalidSpec},
	} {
		if err := refused(c.name, k.rt.Start(ctx, c.spec), c.want); err != nil {
			return err
		}
		_, err := k.rt.Status(ctx, good.ID)
		if err := refused("status after "+c.name, err, container.CodeNotFound); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) startInterrupted(ctx context.Context) error {
	const id = "kit-interrupted"
	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
		brief, cancel := context.WithTimeout(ctx, after)
		err := k.rt.Start(brief, k.spec(id, k.f.Serve))
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a Start of %v: got %w", after, err)
		}
		if err := k.begin(ctx, id, k.f.Serve, "serving"); err != nil {
			return fmt.Errorf("after a Start of %v: %w", after, err)
		}
		if err := k.rt.Destroy(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) startExited(ctx context.Context) error {
	if err := k.rt.Start(ctx, k.spec(gone, k.f.Exit(42))); err != nil {
		return err
	}
	was, err := k.exited(ctx, gone)
	if err != nil {
		return err
	}
	if err := k.rt.Start(ctx, k.spec(gone, k.f.Exit(42))); err != nil {
		return err
	}
	now, err := k.rt.Status(ctx, gone)
	if err == nil && (now.State != container.Exited || !now.StartedAt.Equal(was.StartedAt)) {
		err = fmt.Errorf("it was run again: %+v", now)
	}
	return err
}

// typed looks at refusals of many methods.
func (k *kit) typed(ctx context.Context) error {
	for name, err := range map[string]error{
		"Start":  k.rt.Start(ctx, container.Spec{}),
		"Pause":  k.rt.Pause(ctx, "kit-none"),
		"Resume": k.rt.Resume(ctx, "kit-none"),
		"Signal": k.rt.Signal(ctx, gone, container.SIGTERM),
		"Update": k.rt.Update(ctx, gone, k.f.Limits),
		"Stop":   k.rt.Stop(ctx, "kit-none", 0),
	} {
		if !errors.As(err, new(*container.Error)) {
			return fmt.Errorf("%s: got %T, %w", name, err, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := k.rt.Status(ended, serving); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("an ended context: got %w", err)
	}
	return nil
}

func (k *kit) notFound(ctx context.Context) error {
	const none = "kit-none"
	_, serr := k.rt.Status(ctx, none)
	_, uerr := k.rt.Usage(ctx, none)
	_, eerr := k.rt.Exec(ctx, none, container.ExecSpec{Args: k.f.Cat})
	_, lerr := k.rt.Logs(ctx, none, container.LogOptions{})
	_, derr := k.rt.Dial(ctx, none, k.f.Port)
	for name, err := range map[string]error{
		"Status": serr, "Usage": uerr, "Exec": eerr, "Logs": lerr, "Dial": derr,
		"Pause": k.rt.Pause(ctx, none), "Resume": k.rt.Resume(ctx, none), "Update": k.rt.Update(ctx, none, k.f.Limits),
		"Signal": k.rt.Signal(ctx, none, container.SIGTERM), "Stop": k.rt.Stop(ctx, none, time.Second),
	} {
		if err := refused(name, err, container.CodeNotFound); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) list(ctx context.Context) error {
	all, err := k.rt.List(ctx)
	has := map[string]bool{}
	for _, s := range all {
		has[s.ID] = true
	}
	if err == nil && (len(all) != 2 || !has[serving] || !has[gone]) {
		err = fmt.Errorf("got %v, want %s and %s", all, serving, gone)
	}
	return err
}

func (k *kit) listOrder(ctx context.Context) error {
	all, err := k.rt.List(ctx)
	if err == nil && (len(all) != 2 || all[0].ID >= all[1].ID) {
		err = fmt.Errorf("got %v", all)
	}
	return err
}

func (k *kit) dial(ctx context.Context) error {
	got, err := k.greeting(ctx, patience)
	if err == nil && got != "hello\n" {
		err = fmt.Errorf("got %q, want hello", got)
	}
	return err
}

func (k *kit) dialRefused(ctx context.Context) error {
	_, err := k.rt.Dial(ctx, serving, 65000)
	if err := refused("a port where nothing listens", err, container.CodePortRefused); err != nil {
		return err
	}
	_, err = k.rt.Dial(ctx, gone, k.f.Port)
	return refused("a container that has ended", err, container.CodeNotRunning)
}

// greeting dials until the service answers.
func (k *kit) greeting(ctx context.Context, wait time.Duration) (string, error) {
	var got string
	err := until(wait, func() error {
		c, err := k.rt.Dial(ctx, serving, k.f.Port)
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

// run executes a program in the serving container.
func (k *kit) run(ctx context.Context, e container.ExecSpec) (out, errs string, code int, err error) {
	var o, x bytes.Buffer
	e.Stdout, e.Stderr = &o, &x
	code, err = k.rt.Exec(ctx, serving, e)
	return o.String(), x.String(), code, err
}
