package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// verdict says what became of a mutant.
type verdict string

const (
	caught   verdict = "caught"
	survives verdict = "SURVIVES"
	unusable verdict = "BROKEN" // it cannot be applied, does not compile, or its test does not exist
)

// result is a mutant that was tried.
type result struct {
	mutant
	verdict verdict
	detail  string // for a reader, when it was not caught
	took    time.Duration
}

// trial is how mutants are tried.
type trial struct {
	timeout time.Duration
	tags    string
}

// try applies a mutant in the copy at dir, runs its test, and undoes it.
func (t trial) try(ctx context.Context, dir string, m mutant) result {
	start := time.Now()
	r := result{mutant: m, verdict: unusable}
	r.detail, r.verdict = t.judge(ctx, dir, m)
	r.took = time.Since(start)
	return r
}

func (t trial) judge(ctx context.Context, dir string, m mutant) (detail string, v verdict) {
	restore, err := m.apply(dir)
	if err != nil {
		return err.Error(), unusable
	}
	defer func() {
		if err := restore(); err != nil {
			detail, v = err.Error(), unusable
		}
	}()
	args, err := splitArgs(m.Test)
	if err != nil {
		return err.Error(), unusable
	}
	// Compiled first, so that what fails afterwards is a test.
	build := append([]string{"test", "-tags", t.tags, "-count=1", "-run", "^$"}, packages(args)...)
	if out, err := t.run(ctx, dir, 4*t.timeout, build); err != nil {
		return "does not compile:\n" + out, unusable
	}
	// What rapid noted of a failure must not help to catch the next mutant.
	for _, pkg := range packages(args) {
		defer os.RemoveAll(filepath.Join(dir, pkg, "testdata", "rapid")) //nolint:errcheck // a temporary folder
	}
	out, err := t.run(ctx, dir, t.timeout, append([]string{"test", "-tags", t.tags, "-count=1"}, args...))
	switch {
	case ctx.Err() != nil:
		return "interrupted", unusable
	case err != nil && strings.Contains(out, "[setup failed]"):
		return out, unusable
	case err != nil:
		return "", caught
	case strings.Contains(out, "[no tests to run]") || strings.Contains(out, "[no test files]"):
		return "its test does not exist: " + m.Test, unusable
	}
	return "go test " + m.Test + " passes with\n  - " + m.Old + "\n  + " + m.New, survives
}

// run runs go in dir. A run that takes too long is ended with all that it
// started and counts as failed.
func (t trial) run(ctx context.Context, dir string, limit time.Duration, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// packages returns those arguments of go test that name packages.
func packages(args []string) []string {
	var found []string
	for _, a := range args {
		if a == "." || strings.HasPrefix(a, "./") {
			found = append(found, a)
		}
	}
	return found
}

// splitArgs splits at blanks; single quotes keep a piece whole.
func splitArgs(text string) ([]string, error) {
	var args []string
	for i, piece := range strings.Split(text, "'") {
		if i%2 == 1 {
			args = append(args, piece)
		} else {
			args = append(args, strings.Fields(piece)...)
		}
	}
	if strings.Count(text, "'")%2 != 0 {
		return nil, errors.New("the test line has an odd number of quotes")
	}
	if len(packages(args)) == 0 {
		return nil, fmt.Errorf("the test line names no package such as ./settle: %q", text)
	}
	return args, nil
}
