package main

import (
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
	for name, text := range module {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		m      mutant
		want   verdict
		detail string
	}{
		{"caught", mutant{Old: "x < y", New: "y < x", Test: "./a -run TestLess"}, caught, ""},
		{"hangs", mutant{Old: "return x < y", New: "select {}", Test: "./a -run TestLess"}, caught, ""},
		{"survives", mutant{Old: "return 7", New: "return 8", Test: "./a -run TestUnseen"}, survives, "passes with"},
		{"no compile", mutant{Old: "x < y", New: "x +", Test: "./a -run TestLess"}, unusable, "does not compile"},
		{"no such line", mutant{Old: "x > y", New: "", Test: "./a -run TestLess"}, unusable, "occurs 0 times"},
		{"line twice", mutant{Old: "return", New: "", Test: "./a -run TestLess"}, unusable, "occurs 2 times"},
		{"no such test", mutant{Old: "x < y", New: "y < x", Test: "./a -run TestGone"}, unusable, "does not exist"},
		{"no package", mutant{Old: "x < y", New: "y < x", Test: "-run TestLess"}, unusable, "names no package"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.m.File = "a/a.go"
			limit := time.Minute
			if c.name == "hangs" {
				limit = 4 * time.Second
			}
			r := trial{timeout: limit}.try(t.Context(), dir, c.m)
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
	const good = "# a comment\nname: a\nfile: x.go\nold: if a == \"b: c\" {\nnew: if false {\ntest: ./x -run TestX\n\n\nname: b\nfile: x.go\nold: y\nnew:\ntest: ./x\n"
	for _, c := range []struct {
		name, text string
		want       string // part of the error; "" for none
	}{
		{"good", good, ""},
		{"no test", "name: a\nfile: x.go\nold: y\nnew: z\n", `x/testdata/mutants.txt:1: the block has no "test" line`},
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
			if len(got) != 2 || got[0].Old != `if a == "b: c" {` || got[1].New != "" {
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
