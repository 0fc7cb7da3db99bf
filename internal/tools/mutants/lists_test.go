package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLists: each listed mutant of this tree can be made, and its test is there.
func TestLists(t *testing.T) {
	const root = "../../.."
	all, err := readMutants(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 500 {
		t.Errorf("only %d mutants are found", len(all))
	}
	tests := map[string][]string{} // of a package
	for _, m := range all {
		text, err := os.ReadFile(filepath.Join(root, m.File))
		if n := strings.Count(string(text), m.Old); err != nil || n != 1 {
			t.Errorf("%s: %s: its line occurs %d times in %s, %v; want once", m.list, m.Name, n, m.File, err)
		}
		args, err := splitArgs(m.Test)
		if err != nil {
			t.Errorf("%s: %v", m.list, err)
			continue
		}
		pattern := "."
		if i := slices.Index(args, "-run"); i >= 0 && i+1 < len(args) {
			pattern, _, _ = strings.Cut(args[i+1], "/")
		}
		want, err := regexp.Compile(pattern)
		if err != nil {
			t.Errorf("%s: %v", m.list, err)
			continue
		}
		there := false
		for _, pkg := range packages(args) {
			if tests[pkg] == nil {
				tests[pkg] = testsOf(t, filepath.Join(root, pkg))
			}
			there = there || slices.ContainsFunc(tests[pkg], want.MatchString)
		}
		if !there {
			t.Errorf("%s: %s: there is no test %s", m.list, m.Name, m.Test)
		}
	}
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testsOf returns the names of the tests in a folder.
func testsOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names = append(names, f[1])
		}
	}
	return names
}
