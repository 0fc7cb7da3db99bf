package spec_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

// testIndex holds the folders in which a test, fuzz target or example of a name
// is declared.
type testIndex map[string][]string

func indexTests(tree *source.Tree) testIndex {
	index := testIndex{}
	for _, f := range tree.Files {
		if !f.Test {
			continue
		}
		for _, decl := range f.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && testName.MatchString(fn.Name.Name) {
				index[fn.Name.Name] = append(index[fn.Name.Name], f.Dir)
			}
		}
	}
	return index
}

var (
	testName = regexp.MustCompile(`^(Test|Fuzz|Example)[A-Z0-9_]`)
	// A test is named with its folder, as in "settle.TestX", "settle/pktchain TestX"
	// or "./settle TestX"; "pktcloud" is the root package. What follows a slash is
	// the name of a subtest.
	testMention = regexp.MustCompile("(?:([\\w./-]*\\w)(?:\\.|`?\\s+`?))?\\b((?:Test|Fuzz|Example)[A-Z0-9_]\\w*)")
	fileMention = regexp.MustCompile(`[\w./*-]+\.txt\b|[\w./-]*vectors/[\w./*-]+`)
)

// shownByFaults checks the right cell of a row of the Tests table.
func shownByFaults(cell string, tests testIndex, vectors []string) []string {
	var faults []string
	files := fileMention.FindAllString(cell, -1)
	for _, file := range files {
		if !slices.ContainsFunc(vectors, func(v string) bool { return vectorMatches(v, file) }) {
			faults = append(faults, fmt.Sprintf("there is no vector %s", file))
		}
	}
	mentions := testMention.FindAllStringSubmatch(fileMention.ReplaceAllString(cell, ""), -1)
	for _, m := range mentions {
		folder, name := m[1], m[2]
		if !testExists(tests[name], folder) {
			faults = append(faults, fmt.Sprintf("no folder %q has a test function %s", folder, name))
		}
	}
	if len(files)+len(mentions) == 0 {
		faults = append(faults, fmt.Sprintf("the Tests table names neither a test function nor a vector file: %q", cell))
	}
	return faults
}

// testExists reports whether one of the folders with a test of the name is the
// one that is meant. Without a folder the name must be the only one.
func testExists(folders []string, meant string) bool {
	meant = strings.TrimPrefix(strings.TrimPrefix(meant, source.Module), "/")
	meant = strings.TrimSuffix(strings.TrimPrefix(meant, "./"), "_test")
	switch meant {
	case "pktcloud", "pkt-cloud", "root":
		meant = "."
	case "", "and", "by", "or":
		return len(folders) == 1
	}
	return slices.ContainsFunc(folders, func(dir string) bool { return dir == meant || strings.HasSuffix(dir, "/"+meant) })
}

// vectorMatches reports whether a vector file is the one, or one of those, that
// a mention names. Mentions may leave out the leading folders and may hold stars.
func vectorMatches(file, mention string) bool {
	mention = strings.TrimPrefix(strings.TrimPrefix(mention, "./"), "spec/")
	mention = strings.TrimSuffix(strings.TrimPrefix(mention, "vectors/"), "/")
	file = strings.TrimPrefix(file, "spec/vectors/")
	if ok, err := path.Match(mention, file); ok && err == nil {
		return true
	}
	return strings.HasPrefix(file, mention+"/") || strings.HasSuffix(file, "/"+mention)
}

// readVectors lists the vector files and faults of those whose outcome is not of
// the closed list: a word that some page has in a code span or as a table's cell.
func readVectors(fsys fs.FS, pages []page) (files, faults []string, err error) {
	if _, err := fs.Stat(fsys, "spec/vectors"); err != nil {
		return nil, nil, nil // a spec without vectors yet
	}
	err = fs.WalkDir(fsys, "spec/vectors", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) == ".md" {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		files = append(files, name)
		if why := vectorFault(string(text), pages); why != "" {
			faults = append(faults, name+": "+why)
		}
		return nil
	})
	return files, faults, err
}

func vectorFault(text string, pages []page) string {
	var outcomes []string
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "expect:"); ok {
			outcomes = append(outcomes, strings.TrimSpace(value))
		}
	}
	if len(outcomes) != 1 || outcomes[0] == "" {
		return fmt.Sprintf("want one line such as “expect: ok”, got %d", len(outcomes))
	}
	if !slices.ContainsFunc(pages, func(p page) bool { return p.quoted[outcomes[0]] }) {
		return fmt.Sprintf("the outcome %q is on no page's closed list: write it there as `%s`", outcomes[0], outcomes[0])
	}
	return ""
}

// foreign are prefixes of standards of others, which comments cite in brackets
// as well.
var foreign = []string{"RFC", "BIP", "SLIP", "ISO", "FIPS"}

// citationFaults returns a sentence for each comment that cites a rule which no
// page has.
func citationFaults(tree *source.Tree, pages []page) []string {
	known := map[string]bool{}
	for _, p := range pages {
		for _, r := range p.rules {
			known[r.id] = true
		}
	}
	var faults []string
	for _, f := range tree.Files {
		for _, group := range f.AST.Comments {
			for _, c := range group.List {
				for _, m := range citation.FindAllStringSubmatch(c.Text, -1) {
					for _, id := range ruleID.FindAllString(m[1], -1) {
						prefix, _, _ := strings.Cut(id, "-")
						if !known[id] && !slices.Contains(foreign, prefix) {
							faults = append(faults, fmt.Sprintf("%s cites [%s], which no page of the spec has", tree.Fset.Position(c.Pos()), id))
						}
					}
				}
			}
		}
	}
	return faults
}
