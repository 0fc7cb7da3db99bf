package pktcloud_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamplesAreShort holds examples to lines of code that a person reads in a
// minute, without the node.
func TestExamplesAreShort(t *testing.T) {
	for name, most := range map[string]int{"run-container": 30, "run-services": 40, "convert-compose": 30} {
		file := filepath.Join("examples", name, "main.go")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				n++
			}
		}
		if n == 0 || n > most {
			t.Errorf("%s has %d lines of code, want at most %d", file, n, most)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, b, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, "pkt-cloud/node") {
				t.Errorf("%s imports %s", file, i.Path.Value)
			}
		}
	}
}
