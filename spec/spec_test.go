// Package spec_test binds the pages of the spec to the code: every rule names
// the test or the vector that would fail without it, every rule that the code
// cites exists, every limit has the value that the code has.
package spec_test

import (
	"go/parser"
	"os"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

// parts is what the checks read of the tree.
type parts struct {
	tree    *source.Tree
	pages   []page
	vectors []string
	faults  []string // of single vectors
}

func load(t *testing.T) parts {
	t.Helper()
	root := os.DirFS("..")
	tree, err := source.Load(root, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := readPages(root)
	if err != nil {
		t.Fatal(err)
	}
	vectors, faults, err := readVectors(root, pages)
	if err != nil {
		t.Fatal(err)
	}
	return parts{tree, pages, vectors, faults}
}

func TestPages(t *testing.T) {
	p := load(t)
	if len(p.pages) < 2 {
		t.Fatalf("got %d pages, want more than the README", len(p.pages))
	}
	rules, limits := 0, 0
	for _, page := range p.pages {
		rules += len(page.rules)
		limits += len(page.limits)
	}
	for _, fault := range pageFaults(p.pages, indexTests(p.tree), p.vectors, newConstants(p.tree)) {
		t.Error(fault)
	}
	t.Logf("%d pages, %d rules, %d limits", len(p.pages), rules, limits)
}

// TestReadmeHasPages: whoever begins to read finds every page.
func TestReadmeHasPages(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range load(t).pages {
		if page.name != "README.md" && !strings.Contains(string(readme), "]("+page.name+")") {
			t.Errorf("README.md does not list %s", page.name)
		}
	}
}

func TestVectorOutcomes(t *testing.T) {
	p := load(t)
	for _, fault := range p.faults {
		t.Error(fault)
	}
	t.Logf("%d vector files", len(p.vectors))
}

func TestCitations(t *testing.T) {
	p := load(t)
	for _, fault := range citationFaults(p.tree, p.pages) {
		t.Error(fault)
	}
}
