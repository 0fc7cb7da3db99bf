package main

import (
	"go/parser"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

const (
	good = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"output","Package":"m/a","Test":"TestA","Output":"    a_test.go:1: quiet\n"}
{"Action":"pass","Package":"m/a","Test":"TestA/sub","Elapsed":0.1}
{"Action":"pass","Package":"m/a","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a","Elapsed":0.1}
`
	skipped = `{"Action":"output","Package":"m/a","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"m/a","Test":"TestB","Output":"    b_test.go:1: needs PKTD_RPC\n"}
{"Action":"output","Package":"m/a","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestB"}
`
	bad = `{"Action":"output","Package":"m/c","Test":"TestC","Output":"    c_test.go:1: got 1, want 2\n"}
{"Action":"fail","Package":"m/c","Test":"TestC"}
{"Action":"output","Package":"m/c","Output":"FAIL\tm/c\t0.1s\n"}
{"Action":"fail","Package":"m/c"}
`
	crashed  = `{"Action":"output","Package":"m/d","Test":"TestD","Output":"panic: boom\n"}` + "\n"
	noBuild  = `{"Action":"build-output","ImportPath":"m/e","Output":"e.go:1: undefined: x\n"}` + "\n" + `{"Action":"fail","Package":"m/e"}` + "\n"
	noTests  = `{"Action":"output","Package":"m/f","Output":"?   \tm/f\t[no test files]\n"}` + "\n" + `{"Action":"skip","Package":"m/f"}` + "\n"
	notAnEvt = "go: cannot find main module\n"
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name, in string
		noSkips  bool
		optional []string
		ok       bool
		want     []string // parts of the output
		absent   string
	}{
		{"all pass", good + noTests, false, nil, true, []string{"ok  \tm/a\t0.1s\n", "[no test files]", "ok  \t2 packages, 0 failed\t1 tests passed, 0 failed, 0 skipped"}, "quiet"},
		{"with logs", good, false, nil, true, []string{"a_test.go:1: quiet\n", "ok  \tm/a\t0.1s\n"}, ""},
		{"one fails", good + bad, false, nil, false, []string{"got 1, want 2", "FAIL\tm/c", "--- FAIL: m/c TestC\n", "FAIL\t2 packages, 1 failed\t1 tests passed, 1 failed"}, "quiet"},
		{"a skip is told", skipped + good, false, nil, true, []string{"--- SKIP: m/a TestB: b_test.go:1: needs PKTD_RPC\n", "1 skipped"}, ""},
		{"a skip is a failure", skipped + good, true, nil, false, []string{"needs PKTD_RPC [must run here]", "FAIL\t"}, ""},
		{"a skip is excused", skipped + good, true, []string{"PKTD_RPC"}, true, []string{"needs PKTD_RPC\n"}, ""},
		{"a crash", good + crashed, false, nil, false, []string{"panic: boom", "FAIL\tm/d\t[did not end]"}, ""},
		{"no build", good + noBuild, false, nil, false, []string{"undefined: x"}, ""},
		{"nothing ran", noTests, false, nil, false, []string{"no test ran"}, ""},
		{"go itself fails", good + notAnEvt, false, nil, true, []string{"cannot find main module"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			s := summary{out: &out, noSkips: c.noSkips, optional: c.optional, logs: c.name == "with logs"}
			if err := s.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if got := s.finish(true); got != c.ok {
				t.Errorf("got ok %v, want %v", got, c.ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("got no %q in:\n%s", want, out.String())
				}
			}
			if c.absent != "" && strings.Contains(out.String(), c.absent) {
				t.Errorf("got %q in:\n%s", c.absent, out.String())
			}
		})
	}
	s := summary{out: &strings.Builder{}}
	if err := s.read(strings.NewReader(good)); err != nil || s.finish(false) {
		t.Error("a failure of go test itself was passed over")
	}
}

func TestTaggedFolders(t *testing.T) {
	tree, err := source.Load(fstest.MapFS{
		"a/x_test.go": {Data: []byte("//go:build system\n\npackage a\n")},
		"b/x_test.go": {Data: []byte("//go:build linux && system\n\npackage b\n")},
		"c/x_test.go": {Data: []byte("//go:build !system\n\npackage c\n")},
		"d/x_test.go": {Data: []byte("package d\n\n//go:build system\n")},
		"e/x.go":      {Data: []byte("//go:build system\n\npackage e\n")},
	}, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := taggedFolders(tree, "system"), []string{"./a", "./b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
