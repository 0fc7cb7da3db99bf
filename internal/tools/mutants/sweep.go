package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/tools/mutants/operators"
)

// sweep is code whose every operator mutant must be noticed by a test, but for
// those that a committed file explains.
type sweep struct {
	name      string
	files     []string // patterns; test files are left out
	tests     []string // packages, tried in this order until one notices
	survivors string   // the committed file
	least     int      // mutants
	killed    int      // of a hundred
}

// sweeps are all of them.
var sweeps = []sweep{{
	name: "channel core",
	files: []string{
		"settle/*.go",
		"settle/pktchain/channel.go", "settle/pktchain/detail.go", "settle/pktchain/funding.go", "settle/pktchain/keychain.go",
		"settle/pktchain/rail.go",
		"settle/pktchain/script.go", "settle/pktchain/sign.go",
	},
	tests:     []string{"./settle", "./settle/pktchain"},
	survivors: "settle/testdata/survivors.txt",
	least:     300,
	killed:    95,
}}

// swept is a mutant of a sweep and what became of it.
type swept struct {
	operators.Mutant
	number  int
	file    string
	line    int
	verdict verdict
	late    bool   // its test was ended
	because string // why it survives
}

// key names a mutant in the whole tree.
func (m *swept) key() string { return m.file + " " + m.Name }

// sweepRun is a sweep under way in a copy of the tree.
type sweepRun struct {
	sweep
	dir      string
	mutants  []*swept
	places   map[string]map[int]operators.Lines // by file
	binaries []binary
}

// binary is a test program that holds all mutants.
type binary struct {
	file, pkg string
	args      []string
	limit     time.Duration
}

// find makes the mutants of a sweep.
func (s sweep) find(root string) ([]*swept, error) {
	var all []*swept
	for _, pattern := range s.files {
		names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil || len(names) == 0 {
			return nil, fmt.Errorf("no file matches %s (%w)", pattern, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			enums, err := enumsBeside(name)
			if err != nil {
				return nil, err
			}
			found, err := operators.Mutants(name, text, enums)
			if err != nil {
				return nil, err
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return nil, err
			}
			for _, m := range found {
				all = append(all, &swept{Mutant: m, number: len(all) + 1, file: filepath.ToSlash(rel), line: 1 + bytes.Count(text[:m.Start], []byte("\n"))})
			}
		}
	}
	return all, nil
}

// enumsBeside are the enumerations of the package that a file is part of.
func enumsBeside(name string) (operators.Enums, error) {
	names, err := filepath.Glob(filepath.Join(filepath.Dir(name), "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, n := range names {
		if strings.HasSuffix(n, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), n, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return operators.EnumsOf(files), nil
}

// run tries the mutants whose name matches, prints the table, and returns an
// error that says what was not noticed. It returns false when none matches.
func (s sweep) run(ctx context.Context, filter *regexp.Regexp, workers int) (tried bool, err error) {
	start := time.Now()
	all, err := s.find(".")
	if err != nil {
		return false, err
	}
	whole := !slices.ContainsFunc(all, func(m *swept) bool { return !filter.MatchString(m.key()) })
	all = slices.DeleteFunc(all, func(m *swept) bool { return !filter.MatchString(m.key()) })
	if len(all) == 0 {
		return false, nil
	}
	explained, err := readSurvivors(s.survivors)
	if err != nil {
		return true, err
	}
	temp, err := os.MkdirTemp("", "pktcloud-sweep-")
	if err != nil {
		return true, err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // a temporary folder
	r := &sweepRun{sweep: s, dir: filepath.Join(temp, "tree"), mutants: all}
	if err := copyTree(os.DirFS("."), r.dir); err != nil {
		return true, fmt.Errorf("copying the tree: %w", err)
	}
	fmt.Printf("%s: %d changes, compiling them\n", s.name, len(all))
	if err := r.build(ctx); err != nil {
		return true, err
	}
	if err := r.tryAll(ctx, workers); err != nil {
		return true, err
	}
	err = r.report(explained, whole)
	fmt.Printf("%s: %.0f s\n", s.name, time.Since(start).Seconds())
	return true, err
}

// build makes the test programs. What does not compile is dropped, round by
// round.
func (r *sweepRun) build(ctx context.Context) error {
	bin := filepath.Join(filepath.Dir(r.dir), "bin")
	dead := map[int]bool{}
	for range 20 {
		if err := r.write(dead); err != nil {
			return err
		}
		args := append([]string{"test", "-c", "-vet=off", "-gcflags=-e", "-o", bin + "/"}, r.tests...)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = r.dir
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return err
		}
		out, err := cmd.CombinedOutput()
		if err == nil {
			r.mutants = slices.DeleteFunc(r.mutants, func(m *swept) bool { return dead[m.number] })
			fmt.Printf("%s: %d mutants, %d changes did not compile\n", r.name, len(r.mutants), len(dead))
			return r.baseline(ctx, bin)
		}
		before := len(dead)
		r.bury(string(out), dead)
		if len(dead) == before {
			return fmt.Errorf("the mutants do not compile: %w\n%s", err, out)
		}
	}
	return errors.New("the mutants do not compile")
}

// write writes the files with all mutants into the copy.
func (r *sweepRun) write(dead map[int]bool) error {
	r.places = map[string]map[int]operators.Lines{}
	for i := 0; i < len(r.mutants); {
		file := r.mutants[i].file
		first := i
		var list []operators.Mutant
		for ; i < len(r.mutants) && r.mutants[i].file == file; i++ {
			list = append(list, r.mutants[i].Mutant)
		}
		// Numbers have holes where a filter chose.
		for k := range list {
			r.mutants[first+k].number = first + k + 1
		}
		text, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			return err
		}
		schema, places, err := operators.Schema(file, text, list, first+1, dead)
		if err != nil {
			return err
		}
		r.places[file] = places
		target := filepath.Join(r.dir, filepath.FromSlash(file))
		if err := os.WriteFile(target, schema, 0o600); err != nil {
			return err
		}
		pkg, err := parser.ParseFile(token.NewFileSet(), file, text, parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(target), "selected_mutant.go"), operators.Selector(pkg.Name.Name), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// complaint is a line of a compiler.
var complaint = regexp.MustCompile(`(?m)^(?:\./)?([^\s:]+\.go):(\d+):\d+: `)

// bury marks the mutants that a compiler complains of.
func (r *sweepRun) bury(out string, dead map[int]bool) {
	for _, c := range complaint.FindAllStringSubmatch(out, -1) {
		line, _ := strconv.Atoi(c[2])
		for number, at := range r.places[filepath.ToSlash(c[1])] {
			if at.First <= line && line <= at.Last {
				dead[number] = true
			}
		}
	}
}

// baseline runs each test program without a mutant.
func (r *sweepRun) baseline(ctx context.Context, bin string) error {
	for _, pkg := range r.tests {
		b := binary{file: filepath.Join(bin, path.Base(pkg)+".test"), pkg: pkg, limit: time.Minute}
		b.args = []string{"-test.failfast", "-test.count=1"}
		// The same seed each time: what a model notices once it notices again.
		seeded := []string{"-rapid.nofailfile", "-rapid.seed=1", "-rapid.shrinktime=1ms"}
		if out, err := r.exec(ctx, binary{file: b.file, pkg: pkg, args: append(seeded, "-test.list=^$"), limit: b.limit}, 0); err == nil {
			b.args = append(b.args, seeded...)
		} else if !strings.Contains(out, "flag provided but not defined") {
			return fmt.Errorf("%s: %w\n%s", pkg, err, out)
		}
		start := time.Now()
		if out, err := r.exec(ctx, b, 0); err != nil {
			return fmt.Errorf("%s fails without a mutant: %w\n%s", pkg, err, out)
		}
		b.limit = 10*time.Since(start) + 10*time.Second
		r.binaries = append(r.binaries, b)
	}
	return nil
}

// exec runs a test program with a mutant. One that took too long is ended, and
// the error is context.DeadlineExceeded.
func (r *sweepRun) exec(ctx context.Context, b binary, number int) (string, error) {
	limited, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	cmd := exec.CommandContext(limited, b.file, b.args...)
	cmd.Dir = filepath.Join(r.dir, filepath.FromSlash(b.pkg))
	cmd.Env = append(os.Environ(), operators.Variable+"="+strconv.Itoa(number), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = context.DeadlineExceeded
	}
	return string(out), err
}

// tryAll tries the mutants.
func (r *sweepRun) tryAll(ctx context.Context, workers int) error {
	next := make(chan *swept)
	var wg sync.WaitGroup
	for range min(workers, runtime.NumCPU()) {
		wg.Go(func() {
			for m := range next {
				m.verdict = survives
				for _, b := range r.binaries {
					if _, err := r.exec(ctx, b, m.number); err != nil {
						m.verdict, m.late = caught, errors.Is(err, context.DeadlineExceeded)
						break
					}
				}
			}
		})
	}
	for _, m := range r.mutants {
		if ctx.Err() != nil {
			break
		}
		next <- m
	}
	close(next)
	wg.Wait()
	return ctx.Err()
}
