package spec_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// refusing are the pages of which each refusal has a vector, and the folders of
// spec/vectors where these lie.
var refusing = map[string][]string{
	"settle.md": {"settle", "resume", "roll", "tower"},
	"roll.md":   {"roll"},
	"tower.md":  {"tower"},
	"wallet.md": {"wallet"},
	"ledger.md": {"ledger", "quorum"},
}

// refusalRow is a row of a table of refusals.
type refusalRow struct{ code, name string }

// readRefusals returns the refusals of a page.
func readRefusals(fsys fs.FS, page string) (rows []refusalRow, err error) {
	text, err := fs.ReadFile(fsys, "spec/"+page)
	if err != nil {
		return nil, err
	}
	_, section, _ := strings.Cut(string(text), "\n## Refusals\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := tableRow(line)
		if len(cells) < 3 || cells[0] == "code" || strings.Trim(cells[0], ":- ") == "" {
			continue
		}
		rows = append(rows, refusalRow{cells[0], strings.Trim(cells[1], "`")})
	}
	return rows, nil
}

// refusalFaults returns a sentence for each refusal that no vector shows.
func refusalFaults(fsys fs.FS, refusing map[string][]string) (faults []string, err error) {
	for page, folders := range refusing {
		rows, err := readRefusals(fsys, page)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			faults = append(faults, fmt.Sprintf("spec/%s has no refusals", page))
		}
		shown := map[string]bool{}
		for _, folder := range folders {
			files, err := fs.Glob(fsys, path.Join("spec/vectors", folder, "*.txt"))
			if err != nil {
				return nil, err
			}
			for _, file := range files {
				text, err := fs.ReadFile(fsys, file)
				if err != nil {
					return nil, err
				}
				for line := range strings.Lines(string(text)) {
					if outcome, ok := strings.CutPrefix(line, "expect:"); ok {
						shown[strings.TrimSpace(outcome)] = true
					}
				}
			}
		}
		for _, r := range rows {
			if !shown[r.name] {
				faults = append(faults, fmt.Sprintf("spec/%s: no vector of %v expects %q", page, folders, r.name))
			}
		}
	}
	return faults, nil
}

// TestRefusalsHaveVectors: of the pages on settlement, every refusal has a vector.
func TestRefusalsHaveVectors(t *testing.T) {
	faults, err := refusalFaults(os.DirFS(".."), refusing)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		t.Error(fault)
	}
	seeded := fstest.MapFS{
		"spec/toy.md":              {Data: []byte("# Toy\n\n## Refusals\n\n| code | name | Go error |\n|---|---|---|\n| 1 | `stale` | x |\n| – | no coin | y |\n\n## Limits\n\n| a | b | c |\n")},
		"spec/vectors/toy/a.txt":   {Data: []byte("about: a\nexpect: stale\n")},
		"spec/vectors/other/a.txt": {Data: []byte("expect: no coin\n")},
	}
	faults, err = refusalFaults(seeded, map[string][]string{"toy.md": {"toy"}})
	if err != nil || len(faults) != 1 || !strings.Contains(faults[0], `"no coin"`) {
		t.Errorf("a refusal without a vector: got %q, %v", faults, err)
	}
}

// TestRefusalTable: settle.md lists the codes that the code has, by their names.
func TestRefusalTable(t *testing.T) {
	rows, err := readRefusals(os.DirFS(".."), "settle.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[settle.Code]string{}
	for _, r := range rows {
		n, err := strconv.ParseUint(r.code, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		listed[settle.Code(n)] = r.name
	}
	for code := range settle.Code(1 << 10) {
		name := code.String()
		if strings.HasPrefix(name, "code ") {
			name = ""
		}
		if listed[code] != name {
			t.Errorf("code %d: the page says %q, the code %q", uint16(code), listed[code], name)
		}
	}
}
