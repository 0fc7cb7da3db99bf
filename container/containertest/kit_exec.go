package containertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

func (k *kit) exec(ctx context.Context) error {
	for env, want := range map[string]string{"": "spec\n", "NAME=exec": "exec\n"} {
		e := container.ExecSpec{Args: k.f.Env}
		if env != "" {
			e.Env = []string{env}
		}
		if out, _, code, err := k.run(ctx, e); err != nil || code != 0 || out != want {
			return fmt.Errorf("environment: got %d, %w, %q; want %q", code, err, out, want)
		}
	}
	_, _, _, err := k.run(ctx, container.ExecSpec{})
	if err := refused("no program", err, container.CodeInvalidSpec); err != nil {
		return err
	}
	_, err = k.rt.Exec(ctx, gone, container.ExecSpec{Args: k.f.Cat})
	return refused("a container that has ended", err, container.CodeNotRunning)
}

func (k *kit) execCode(ctx context.Context) error {
	out, errs, code, err := k.run(ctx, container.ExecSpec{Args: k.f.Exit(7)})
	if err != nil || code != 7 || out != "out\n" || errs != "err\n" {
		return fmt.Errorf("exit 7: got %d, %w, out %q, err %q", code, err, out, errs)
	}
	return nil
}

func (k *kit) execMissing(ctx context.Context) error {
	if _, _, code, err := k.run(ctx, container.ExecSpec{Args: []string{"no-such-program"}}); err != nil || code != 127 {
		return fmt.Errorf("got %d, %w; want 127", code, err)
	}
	return nil
}

func (k *kit) execOutput(ctx context.Context) error {
	long := strings.Repeat("0123456789abcdef\n", 20000)
	out, _, code, err := k.run(ctx, container.ExecSpec{Args: k.f.Cat, Stdin: strings.NewReader(long)})
	if err != nil || code != 0 || out != long {
		return fmt.Errorf("cat: got %d, %w, %d bytes, want %d", code, err, len(out), len(long))
	}
	return nil
}

// execFiles greets a file server: its answer is a version.
func (k *kit) execFiles(ctx context.Context) error {
	const init, version = "\x00\x00\x00\x05\x01\x00\x00\x00\x03", 2
	out, _, code, err := k.run(ctx, container.ExecSpec{Files: true, Stdin: strings.NewReader(init)})
	if !errors.Is(err, container.CodeMissingFeature) && (err != nil || code != 0 || len(out) < 5 || out[4] != version) {
		return fmt.Errorf("got %d, %w, %q; want a version", code, err, out)
	}
	_, _, _, err = k.run(ctx, container.ExecSpec{Files: true, Args: k.f.Cat})
	return refused("files, and a program", err, container.CodeInvalidSpec)
}

func (k *kit) execLimits(ctx context.Context) error {
	const killed = 128 + int(container.SIGKILL)
	if _, _, code, err := k.run(ctx, container.ExecSpec{Args: k.f.Exhaust}); err != nil || code != killed {
		return fmt.Errorf("a program that takes more memory than there is: got %d, %w; want %d", code, err, killed)
	}
	return k.is(ctx, serving, container.Running)
}

func (k *kit) execAbandoned(ctx context.Context) error {
	brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	before, err := k.rt.Usage(ctx, serving)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	err = soon("Exec", func() error {
		_, err := k.rt.Exec(brief, serving, container.ExecSpec{Args: k.f.Cat, Stdin: r})
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("got %w", err)
	}
	return until(patience, func() error {
		after, err := k.rt.Usage(ctx, serving)
		if err == nil && after.Pids > before.Pids {
			err = fmt.Errorf("the program runs on: %d processes, not %d", after.Pids, before.Pids)
		}
		return err
	})
}

// noWaiting lives another container's life while a program runs in one.
func (k *kit) noWaiting(ctx context.Context) error {
	r, w := io.Pipe()
	out := first{seen: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := k.rt.Exec(ctx, serving, container.ExecSpec{Args: k.f.Cat, Stdin: r, Stdout: &out})
		done <- err
	}()
	_, _ = io.WriteString(w, "x\n")
	<-out.seen // it runs
	err := soon("another container's life", func() error {
		if err := k.rt.Start(ctx, k.spec("kit-other", k.f.Exit(0))); err != nil {
			return err
		}
		return k.rt.Destroy(ctx, "kit-other")
	})
	_ = w.Close()
	return errors.Join(err, <-done)
}

// first tells when something was written.
type first struct {
	once sync.Once
	seen chan struct{}
}

func (f *first) Write(p []byte) (int, error) {
	f.once.Do(func() { close(f.seen) })
	return len(p), nil
}

// turns starts one container from several goroutines: it is started once.
func (k *kit) turns(ctx context.Context) error {
	const id, n = "kit-turns", 4
	errs := make(chan error, n)
	for range n {
		go func() { errs <- k.rt.Start(ctx, k.spec(id, k.f.Exit(0))) }()
	}
	var err error
	for range n {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	lines, err := k.readLogs(ctx, id, container.LogOptions{Follow: true})
	if err == nil && count(lines, "out") != 1 {
		err = fmt.Errorf("the program ran %d times", count(lines, "out"))
	}
	return errors.Join(err, k.rt.Destroy(ctx, id))
}

// many lives several lives at once.
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
	st, err := k.exited(ctx, id)
	if err == nil && st.ExitCode != code {
		err = fmt.Errorf("got %+v, want exit %d", st, code)
	}
	return errors.Join(err, k.rt.Destroy(ctx, id))
}

func (k *kit) pause(ctx context.Context) error {
	if err := k.rt.Pause(ctx, serving); err != nil {
		return err
	}
	if err := k.is(ctx, serving, container.Paused); err != nil {
		return err
	}
	if got, err := k.greeting(ctx, 300*time.Millisecond); err == nil {
		return fmt.Errorf("a paused service answered %q", got)
	}
	return nil
}

func (k *kit) execPaused(ctx context.Context) error {
	_, _, _, err := k.run(ctx, container.ExecSpec{Args: k.f.Cat})
	return refused("Exec", err, container.CodeNotRunning)
}

func (k *kit) resume(ctx context.Context) error {
	if err := k.rt.Resume(ctx, serving); err != nil {
		return err
	}
	if got, err := k.greeting(ctx, patience); err != nil || got != "hello\n" {
		return fmt.Errorf("got %q, %w", got, err)
	}
	return nil
}

func (k *kit) pauseAgain(ctx context.Context) error {
	for _, f := range []func(context.Context, string) error{k.rt.Resume, k.rt.Pause, k.rt.Pause, k.rt.Resume} {
		if err := f(ctx, serving); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) pauseExited(ctx context.Context) error {
	return errors.Join(refused("Pause", k.rt.Pause(ctx, gone), container.CodeNotRunning),
		refused("Resume", k.rt.Resume(ctx, gone), container.CodeNotRunning))
}
