package source_test

import (
	"go/parser"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

func TestLoad(t *testing.T) {
	fsys := fstest.MapFS{
		"a.go":             {Data: []byte("package a\nimport \"fmt\"\nvar _ = fmt.Sprint\n")},
		"a_test.go":        {Data: []byte("package a\n")},
		"b/tagged.go":      {Data: []byte("//go:build never\n\npackage b\n")},
		"b/testdata/x.go":  {Data: []byte("not Go")},
		".hidden/x.go":     {Data: []byte("not Go")},
		"_old/x.go":        {Data: []byte("not Go")},
		"b/_gen.go":        {Data: []byte("not Go")},
		"nested/go.mod":    {Data: []byte("module nested\n")},
		"nested/x.go":      {Data: []byte("not Go")},
		"b/tagged_test.go": {Data: []byte("package b_test\n")},
	}
	tree, err := source.Load(fsys, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range tree.Files {
		got = append(got, f.Path)
	}
	want := []string{"a.go", "a_test.go", "b/tagged.go", "b/tagged_test.go"}
	if !slices.Equal(got, want) {
		t.Errorf("got files %v, want %v", got, want)
	}
	if got := tree.Files[0].Imports(); !slices.Equal(got, []string{"fmt"}) {
		t.Errorf("got imports %v, want fmt", got)
	}
	if tree.Files[0].Dir != "." || tree.Files[2].Dir != "b" || !tree.Files[3].Test || tree.Files[2].Test {
		t.Errorf("got wrong folders or kinds: %+v", tree.Files)
	}

	fsys["broken.go"] = &fstest.MapFile{Data: []byte("packag")}
	if _, err := source.Load(fsys, parser.ImportsOnly); err == nil {
		t.Error("a file that does not parse was passed over")
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		path, folder string
		ours, std    bool
	}{
		{source.Module, ".", true, false},
		{source.Module + "/settle/pktchain", "settle/pktchain", true, false},
		{source.Module + "2/x", "", false, false},
		{"net/http", "", false, true},
		{"modernc.org/sqlite", "", false, false},
	} {
		folder, ours := source.Folder(c.path)
		if !ours {
			folder = ""
		}
		if folder != c.folder || ours != c.ours || source.Standard(c.path) != c.std {
			t.Errorf("%s: got folder %q (ours %v), standard %v", c.path, folder, ours, source.Standard(c.path))
		}
	}
}
