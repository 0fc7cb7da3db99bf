package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// verdict says what became of a mutant.
type verdict string

const (
	caught   verdict = "caught"
	hung     verdict = "timed out" // its test did not end, and its block says that it hangs
	tookLong verdict = "TIMED OUT" // its test did not end, which shows nothing: a slow machine does that too
	survives verdict = "SURVIVES"
	unusable verdict = "BROKEN" // it cannot be applied, does not compile, or its test does not exist or fails without it
)

// noticed reports whether a mutant is dealt with.
func (v verdict) noticed() bool { return v == caught || v == hung }

// result is a mutant that was tried.
type result struct {
	mutant
	verdict verdict
	detail  string // for a reader: why it was not noticed, or the end of what its test said
	took    time.Duration
}

// trial is how mutants are tried.
type trial struct {
	timeout time.Duration
	tags    string

	// If not nil, the tests are first run without their mutants.
	healthy *baseline
}

// baseline remembers how tests end without a mutant.
type baseline struct {
	mu     sync.Mutex
	faults map[string]func() string
}

// fault returns what is wrong with the tests that a line names, or "". find is
// called once for a line.
func (b *baseline) fault(line string, find func() string) string {
	b.mu.Lock()
	known := b.faults[line]
	if known == nil {
		known = sync.OnceValue(find)
		if b.faults == nil {
			b.faults = map[string]func() string{}
		}
		b.faults[line] = known
	}
	b.mu.Unlock()
	return known()
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
	args, err := splitArgs(m.Test)
	if err != nil {
		return err.Error(), unusable
	}
	if t.healthy != nil {
		if fault := t.healthy.fault(m.Test, func() string { return t.fault(ctx, dir, args) }); fault != "" {
			return "go test " + m.Test + " without the mutant: " + fault, unusable
		}
	}
	restore, err := m.apply(dir)
	if err != nil {
		return err.Error(), unusable
	}
	defer func() {
		if err := restore(); err != nil {
			detail, v = err.Error(), unusable
		}
	}()
	switch detail, end := t.test(ctx, dir, args); {
	case end == overdue && m.Hangs:
		return detail, hung
	case end == overdue:
		return "its test did not end. If the mutant makes something wait for ever, its block says hangs: yes\n" + detail, tookLong
	case end == failed:
		return detail, caught
	case end == untested:
		return detail, unusable
	}
	return "go test " + m.Test + " passes with\n  - " + m.Old + "\n  + " + m.New, survives
}

// fault runs tests without a mutant and returns what is wrong with them.
func (t trial) fault(ctx context.Context, dir string, args []string) string {
	switch detail, end := t.test(ctx, dir, args); end {
	case passed:
		return ""
	case overdue:
		return "it does not end in time\n" + detail
	case failed:
		return "it fails\n" + detail
	case untested:
		return detail
	}
	panic("unreachable")
}

// ending is how a run of tests ended.
type ending int

const (
	passed ending = iota
	failed
	overdue  // not by itself
	untested // it says nothing
)

// test builds the tests that args name, and runs them.
func (t trial) test(ctx context.Context, dir string, args []string) (detail string, end ending) {
	// Built first, so that what fails afterwards is a test, and what takes time too.
	bin, err := os.MkdirTemp("", "pktcloud-mutant-")
	if err != nil {
		return err.Error(), untested
	}
	defer os.RemoveAll(bin) //nolint:errcheck // a temporary folder
	flags, rest := splitFlags(args)
	pkgs := packages(args)
	for i, pkg := range pkgs {
		build := append([]string{"test", "-c", "-o", testProgram(bin, i), "-ldflags=-s -w", "-tags", t.tags}, flags...)
		if out, _, err := t.run(ctx, dir, max(4*t.timeout, 10*time.Minute), "go", append(build, pkg)...); err != nil {
			return "does not compile:\n" + out, untested
		}
	}
	deadline := time.Now().Add(t.timeout)
	for i, pkg := range pkgs {
		// What rapid noted of a failure must not help to catch the next mutant.
		defer os.RemoveAll(filepath.Join(dir, pkg, "testdata", "rapid")) //nolint:errcheck // a temporary folder
		out, late, err := t.run(ctx, filepath.Join(dir, pkg), time.Until(deadline), testProgram(bin, i), rest...)
		switch {
		case ctx.Err() != nil:
			return "interrupted", untested
		case late || err != nil && strings.Contains(out, "panic: test timed out after "):
			return excerpt(out), overdue
		case errors.Is(err, fs.ErrNotExist) || strings.Contains(out, "testing: warning: no tests to run"):
			return "its test does not exist: " + strings.Join(args, " "), untested
		case err != nil:
			return excerpt(out), failed
		}
	}
	return "", passed
}

// testProgram names the test program of one of the packages.
func testProgram(dir string, number int) string {
	return filepath.Join(dir, strconv.Itoa(number)+".test")
}

// run runs a program in dir. A run that takes too long is ended with all that it
// started; late says so.
func (t trial) run(ctx context.Context, dir string, limit time.Duration, program string, args ...string) (out string, late bool, err error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, program, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ended := false
	cmd.Cancel = func() error {
		ended = true
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	cmd.WaitDelay = 5 * time.Second
	text, err := cmd.CombinedOutput()
	return string(text), ended && ctx.Err() == nil, err
}

// excerpt returns the begin and the end of what a test said.
func excerpt(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) > 40 {
		lines = slices.Concat(lines[:20], []string{"…"}, lines[len(lines)-15:])
	}
	return strings.Join(lines, "\n")
}

// testFlags are those flags of go test that its program has by another name.
var testFlags = []string{"cpu", "failfast", "parallel", "run", "short", "shuffle", "skip", "timeout", "v"}

// splitFlags parts those arguments of go test that choose what is built from
// those for the test program, spelled as it wants them.
func splitFlags(args []string) (build, test []string) {
	test = []string{"-test.paniconexit0", "-test.count=1"}
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "-"), "=")
		switch {
		case a == "-race":
			build = append(build, a)
		case a == "-tags" && i+1 < len(args):
			build = append(build, a, args[i+1])
			i++
		case strings.HasPrefix(a, "-") && slices.Contains(testFlags, name):
			test = append(test, "-test."+a[1:])
		case !isPackage(a):
			test = append(test, a)
		}
	}
	return build, test
}

func isPackage(arg string) bool { return arg == "." || strings.HasPrefix(arg, "./") }

// packages returns those arguments of go test that name packages.
func packages(args []string) []string {
	var found []string
	for _, a := range args {
		if isPackage(a) {
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
