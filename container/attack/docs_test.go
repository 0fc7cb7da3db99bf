//go:build linux && amd64

package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of attacks into docs/security.md")

const (
	docsFile   = "../../docs/security.md"
	tableBegin = "<!-- attacks: made by go test ./container/attack -update -->\n"
	tableEnd   = "<!-- end of attacks -->\n"
)

// TestDocs compares the table of docs/security.md with the program's list.
func TestDocs(t *testing.T) {
	want := table()
	page, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(page, []byte(tableBegin))
	got, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", docsFile)
	}
	if *update {
		whole := string(before) + tableBegin + want + tableEnd + string(after)
		if err := os.WriteFile(docsFile, []byte(whole), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(got) != want {
		t.Errorf("the table of %s is not that of the program; run this test with -update", docsFile)
	}
}

// TestList holds the list to its form.
func TestList(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range attacks() {
		if seen[a.Name] || !strings.Contains(a.Name, "/") || a.About == "" || len(a.Without) == 0 || (a.run == nil) != a.Outside {
			t.Errorf("%+v: a name twice or without subject, or no text, defence or function", a)
		}
		seen[a.Name] = true
	}
}
