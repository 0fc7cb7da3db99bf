package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json; see go doc test2json.
type event struct {
	Time    time.Time
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

// summary turns events into short text and totals.
type summary struct {
	out      io.Writer
	each     bool     // print a line for each test
	logs     bool     // pass on what tests say
	noSkips  bool     // a skipped test is a failure …
	optional []string // … unless its reason holds one of these names

	packages, failedPackages int
	passed, failed           int // tests, without their subtests
	failures, skips          []string
	forbidden                int // of skips
	first, last              time.Time
	running                  map[string]*tests // by package
}

// tests is what a package that still runs has printed, by test; the empty name
// is the package's own.
type tests struct {
	order  []string
	output map[string]*strings.Builder
	over   map[string]bool // passed or skipped: nothing to show
}

// read prints what the events say until their end. Lines that are no events,
// which go writes when it cannot start, are passed on.
func (s *summary) read(r io.Reader) error {
	s.running = map[string]*tests{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(s.out, line)
			} else {
				s.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	if !e.Time.IsZero() {
		if s.first.IsZero() {
			s.first = e.Time
		}
		s.last = e.Time
	}
	if e.Action == "build-output" {
		fmt.Fprint(s.out, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	pkg := s.running[e.Package]
	if pkg == nil {
		pkg = &tests{output: map[string]*strings.Builder{}, over: map[string]bool{}}
		s.running[e.Package] = pkg
	}
	switch e.Action {
	case "output":
		if s.logs && e.Test != "" {
			fmt.Fprint(s.out, e.Output)
			return
		}
		pkg.write(e.Test, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e, pkg)
		} else {
			s.endTest(e, pkg)
		}
	}
}

func (p *tests) write(test, text string) {
	b := p.output[test]
	if b == nil {
		b = &strings.Builder{}
		p.output[test] = b
		p.order = append(p.order, test)
	}
	b.WriteString(text)
}

func (s *summary) endTest(e event, pkg *tests) {
	top := !strings.Contains(e.Test, "/")
	switch e.Action {
	case "pass":
		pkg.over[e.Test] = true
		if top {
			s.passed++
		}
	case "fail":
		if top {
			s.failed++
			s.failures = append(s.failures, e.Package+" "+e.Test)
		}
	case "skip":
		pkg.over[e.Test] = true
		s.skip(e, pkg)
	}
	if s.each && top {
		fmt.Fprintf(s.out, "--- %s: %s (%.2fs)\n", strings.ToUpper(e.Action), e.Test, e.Elapsed)
	}
}

// skip notes a skipped test with the reason that it gave.
func (s *summary) skip(e event, pkg *tests) {
	var reason []string
	if b := pkg.output[e.Test]; b != nil {
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
				reason = append(reason, line)
			}
		}
	}
	text := fmt.Sprintf("%s %s: %s", e.Package, e.Test, strings.Join(reason, " "))
	excused := slices.ContainsFunc(s.optional, func(name string) bool { return strings.Contains(text, name) })
	if s.noSkips && !excused {
		s.forbidden++
		text += " [must run here]"
	}
	s.skips = append(s.skips, text)
}

func (s *summary) endPackage(e event, pkg *tests) {
	s.packages++
	delete(s.running, e.Package)
	if e.Action == "fail" {
		s.failedPackages++
		s.show(pkg)
		return
	}
	b := pkg.output[""]
	if b == nil {
		return
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "ok") || strings.HasPrefix(line, "?") {
			fmt.Fprint(s.out, line)
		}
	}
}

// show prints all that a failed package said but what its good tests did.
func (s *summary) show(pkg *tests) {
	for _, name := range pkg.order {
		if name != "" && !pkg.over[name] {
			fmt.Fprint(s.out, pkg.output[name].String())
		}
	}
	if b := pkg.output[""]; b != nil {
		fmt.Fprint(s.out, b.String())
	}
}

// finish prints skips and totals and reports whether all is well. ok is what go
// test itself said.
func (s *summary) finish(ok bool) bool {
	for name, pkg := range s.running { // interrupted
		s.failedPackages++
		s.show(pkg)
		fmt.Fprintf(s.out, "FAIL\t%s\t[did not end]\n", name)
	}
	for _, text := range s.skips {
		fmt.Fprintln(s.out, "--- SKIP:", text)
	}
	for _, name := range s.failures {
		fmt.Fprintln(s.out, "--- FAIL:", name)
	}
	if s.passed+s.failed == 0 {
		fmt.Fprintln(s.out, "no test ran")
		ok = false
	}
	ok = ok && s.failed == 0 && s.failedPackages == 0 && s.forbidden == 0
	word := "ok  "
	if !ok {
		word = "FAIL"
	}
	fmt.Fprintf(s.out, "%s\t%d packages, %d failed\t%d tests passed, %d failed, %d skipped\t%.3fs\n",
		word, s.packages, s.failedPackages, s.passed, s.failed, len(s.skips), s.last.Sub(s.first).Seconds())
	return ok
}
