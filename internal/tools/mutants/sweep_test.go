package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestSweep sweeps over a tiny module, whose second function no test looks at.
func TestSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a module")
	}
	dir := t.TempDir()
	for name, text := range module {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	const explained = "# a comment\nmutant: a/a.go Unseen literal: 7 -> 8\nmutant: a/a.go Unseen literal: 7 -> 6\n" +
		"mutant: a/a.go Unseen result: 7 -> *new(int)\nmutant: a/a.go Less boundary: < -> <=\nbecause: nobody looks\n"
	for _, c := range []struct {
		name, survivors, filter string
		least, killed           int
		want                    string // part of the error; "" for none
		tried                   bool
	}{
		{"explained", explained, ".", 4, 40, "", true},
		{"not explained", "", ".", 4, 40, "survives: a/a.go Unseen literal: 7 -> 8 (line 8)", true},
		{"too few", explained, ".", 100, 40, "mutants, want 100", true},
		{"too many survive", explained, ".", 4, 90, "want 90 %", true},
		{"a part", explained, "Less comparison|Less result", 100, 90, "", true},
		{"none", explained, "nowhere", 4, 40, "", false},
		{"explains what is killed", explained + "\nmutant: a/a.go Less result: x < y -> true\nbecause: no\n", ".", 4, 40, "that is killed", true},
		{"explains what is not", explained + "\nmutant: a/a.go Gone\nbecause: no\n", ".", 4, 40, "that there is not", true},
		{"no reason", "mutant: a/a.go Gone\n", ".", 4, 40, "no because", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile("survivors.txt", []byte(c.survivors), 0o600); err != nil {
				t.Fatal(err)
			}
			s := sweep{name: "tiny", files: []string{"a/*.go"}, tests: []string{"./a"}, survivors: "survivors.txt", least: c.least, killed: c.killed}
			tried, err := s.run(t.Context(), regexp.MustCompile(c.filter), 2)
			if tried != c.tried || (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want %v and %q", tried, err, c.tried, c.want)
			}
		})
	}
}

// TestSweepLate: a test that was ended is told from one that failed.
func TestSweepLate(t *testing.T) {
	r := &sweepRun{dir: t.TempDir()}
	for _, c := range []struct {
		name, script string
		limit        time.Duration
		fails, late  bool
	}{
		{"passes", "exit 0", time.Minute, false, false},
		{"fails", "exit 1", time.Minute, true, false},
		{"hangs", "while :; do :; done", 100 * time.Millisecond, true, true},
	} {
		_, err := r.exec(t.Context(), binary{file: "/bin/sh", args: []string{"-c", c.script}, limit: c.limit}, 1)
		if (err != nil) != c.fails || errors.Is(err, context.DeadlineExceeded) != c.late {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	var got tally
	got.add(&swept{verdict: caught, late: true})
	got.add(&swept{verdict: caught})
	got.add(&swept{verdict: survives, because: "nobody looks"})
	if want := (tally{made: 3, killed: 2, late: 1, survived: 1, explained: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
