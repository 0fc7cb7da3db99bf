package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// module is a tiny tree in which mutants can be tried for real.
var module = map[string]string{
	"go.mod": "module tiny\n\ngo 1.26\n",
	"a/a.go": "package a\n\nfunc Less(x, y int) bool {\n\treturn x < y\n}\n\nfunc Unseen() int {\n\treturn 7\n}\n",
	"a/a_test.go": "package a\n\nimport \"testing\"\n\nfunc TestLess(t *testing.T) {\n\tif !Less(1, 2) || Less(2, 1) {\n\t\tt.Fatal(\"wrong\")\n\t}\n}\n\n" +
		"func TestUnseen(t *testing.T) { Unseen() }\n",
}

func TestTry(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a module")
	}
	dir := t.TempDir()
	files := maps.Clone(module)
	files["a/tagged.go"] = "//go:build broken\n\npackage a\n\nfunc one() int { return 1 }\n"
	files["a/broken_test.go"] = "//go:build broken\n\npackage a\n\nimport \"testing\"\n\nfunc TestBroken(t *testing.T) { t.Fatal(one()) }\n"
	files["b/b.go"] = "package b\n"
	files["c/c_test.go"] = "package c\n\nimport \"testing\"\n\nfunc TestLess(*testing.T) {}\n"
	for name, text := range files {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The tests that pass without a mutant are known to, whatever time the first
	// case leaves them.
	healthy := new(baseline)
	for _, c := range []struct {
		name   string
		m      mutant
		want   verdict
		detail string
	}{
		{"caught", mutant{Old: "x < y", New: "y < x", Test: "./a -run TestLess"}, caught, ""},
		{"hangs", mutant{Old: "return x < y", New: "for {}", Test: "./a -run TestLess", Hangs: true}, hung, ""},
		{"hangs unforeseen", mutant{Old: "return x < y", New: "for {}", Test: "./a -run TestLess"}, tookLong, "hangs: yes"},
		{"its own timeout", mutant{Old: "return x < y", New: "for {}", Test: "./a -timeout 5s -run TestLess"}, tookLong, "test timed out after 5s"},
		{"may hang", mutant{Old: "x < y", New: "y < x", Test: "./a -run TestLess", Hangs: true}, caught, "wrong"},
		{"may hang, survives", mutant{Old: "return 7", New: "return 8", Test: "./a -run TestUnseen", Hangs: true}, survives, "passes with"},
		{"fails always", mutant{Old: "x < y", New: "y < x", Test: "./a -tags broken -run TestBroken"}, unusable, "it fails\n"},
		{"a tag", mutant{Old: "x < y", New: "y < x", Test: "./a -tags broken -run TestLess"}, caught, "wrong"},
		{"no compile with a tag", mutant{File: "a/tagged.go", Old: "return 1", New: "return", Test: "./a -tags broken -run TestLess"}, unusable, "does not compile"},
		{"survives", mutant{Old: "return 7", New: "return 8", Test: "./a -run TestUnseen"}, survives, "passes with"},
		{"no compile", mutant{Old: "x < y", New: "x +", Test: "./a -run TestLess"}, unusable, "does not compile"},
		{"no such line", mutant{Old: "x > y", New: "", Test: "./a -run TestLess"}, unusable, "occurs 0 times"},
		{"line twice", mutant{Old: "return", New: "", Test: "./a -run TestLess"}, unusable, "occurs 2 times"},
		{"no such test", mutant{Old: "x < y", New: "y < x", Test: "./a -run TestGone"}, unusable, "does not exist"},
		{"no test files", mutant{Old: "x < y", New: "y < x", Test: "./b -run TestLess"}, unusable, "does not exist"},
		{"second package", mutant{Old: "x < y", New: "y < x", Test: "./c ./a -run TestLess"}, caught, "wrong"},
		{"no package", mutant{Old: "x < y", New: "y < x", Test: "-run TestLess"}, unusable, "names no package"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.m.File == "" {
				c.m.File = "a/a.go"
			}
			limit := time.Minute
			if strings.HasPrefix(c.name, "hangs") {
				limit = 2 * time.Second // only a mutant that never ends is tried with it
			}
			r := trial{timeout: limit, healthy: healthy}.try(t.Context(), dir, c.m)
			if r.verdict != c.want || !strings.Contains(r.detail, c.detail) {
				t.Errorf("got %s (%s), want %s (%s)", r.verdict, r.detail, c.want, c.detail)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "a/a.go")); err != nil || string(text) != module["a/a.go"] {
				t.Errorf("the file was not restored: %v\n%s", err, text)
			}
		})
	}
}

func TestReadMutants(t *testing.T) {
	const good = "# a comment\nname: a\nfile: x.go\nold: if a == \"b: c\" {\nnew: if false {\ntest: ./x -run TestX\n\n\nname: b\nfile: x.go\nold: y\nnew:\nhangs: yes\ntest: ./x\n"
	for _, c := range []struct {
		name, text string
		want       string // part of the error; "" for none
	}{
		{"good", good, ""},
		{"no test", "name: a\nfile: x.go\nold: y\nnew: z\n", `x/testdata/mutants.txt:1: the block has no "test" line`},
		{"hangs no", good + "hangs: no\n", "perhaps hangs: yes"},
		{"hangs twice", good + "hangs: yes\nhangs: yes\n", "perhaps hangs: yes"},
		{"unknown key", strings.Replace(good, "old:", "odd:", 1), "want one each of"},
		{"key twice", strings.Replace(good, "new: if false {", "old: z", 1), "want one each of"},
		{"name twice", strings.Replace(good, "name: b", "name: a", 1), "the name a is taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readMutants(fstest.MapFS{
				"x/testdata/mutants.txt":       {Data: []byte(c.text)},
				".git/x/testdata/mutants.txt":  {Data: []byte("broken")},
				"x/testdata/other/mutants.txt": {Data: []byte("broken")},
			})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got error %v, want one that contains %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || got[0].Old != `if a == "b: c" {` || got[0].Hangs || got[1].New != "" || !got[1].Hangs {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestSplitArgs(t *testing.T) {
	got, err := splitArgs("./a  -run 'TestA|TestB x' ./b")
	if want := []string{"./a", "-run", "TestA|TestB x", "./b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if _, err := splitArgs("./a 'x"); err == nil {
		t.Error("an open quote was passed over")
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		verdict verdict
		want    string // in the report
		ok      bool
	}{
		{caught, "1 mutants: 1 caught, 0 timed out as they may, 0 timed out, 0 survive, 0 broken", true},
		{hung, "1 mutants: 0 caught, 1 timed out as they may, 0 timed out, 0 survive, 0 broken", true},
		{tookLong, "1 mutants: 0 caught, 0 timed out as they may, 1 timed out, 0 survive, 0 broken", false},
		{survives, "1 mutants: 0 caught, 0 timed out as they may, 0 timed out, 1 survive, 0 broken", false},
		{unusable, "1 mutants: 0 caught, 0 timed out as they may, 0 timed out, 0 survive, 1 broken", false},
	} {
		t.Run(string(c.verdict), func(t *testing.T) {
			var text strings.Builder
			err := report(&text, []result{{mutant: mutant{Name: "a-mutant"}, verdict: c.verdict, detail: "the detail"}})
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "a-mutant") {
				t.Errorf("got error %v", err)
			}
			if got := text.String(); !strings.Contains(got, c.want) || strings.Contains(got, "the detail") == c.ok {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestSplitFlags(t *testing.T) {
	build, test := splitFlags([]string{"./a", "-tags", "system", "-run", "TestA|TestB", "-race", "-timeout=20s", "-rapid.shrinktime=1s", "-short"})
	if want := []string{"-tags", "system", "-race"}; !slices.Equal(build, want) {
		t.Errorf("got %q to build, want %q", build, want)
	}
	if want := []string{"-test.paniconexit0", "-test.count=1", "-test.run", "TestA|TestB", "-test.timeout=20s", "-rapid.shrinktime=1s", "-test.short"}; !slices.Equal(test, want) {
		t.Errorf("got %q to run, want %q", test, want)
	}
}
