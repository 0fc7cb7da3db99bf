package spec_test

import (
	"go/parser"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

const (
	seededPage = "# Toy\n\nOne sentence. Reasons: [TOY-2].\n\n## Rules\n\n" +
		"- [TOY-1] The payee MUST refuse\n  more than one line.\n- [TOY-2] The payer MUST sign, or the answer is `stale`.\n\n" +
		"```\n- [TOY-9] is in a code block\n```\n\n" +
		"## Limits\n\n| constant | value | meaning |\n|---|---|---|\n| `toy.MaxBytes` | 64 KiB | largest toy |\n| `toy.MaxAge` | 24 h | oldest toy |\n\n" +
		"## Tests\n\n| rule | shown by |\n|---|---|\n| TOY-1 | `toy.TestRefuse` |\n| [TOY-2] | `spec/vectors/toy/stale.txt`, `./toy TestSign/empty` |\n"
	seededCode   = "package toy\n\nimport \"time\"\n\n// MaxBytes is a limit [TOY-1].\nconst MaxBytes = 64 << 10\n\n// MaxAge is another [TOY-1, TOY-2], see [RFC-6979].\nconst MaxAge = 24 * time.Hour\n"
	seededTests  = "package toy\n\nfunc TestRefuse() {}\n\nfunc TestSign() {}\n"
	seededVector = "name: a\nexpect: stale\n"
)

func TestSeededViolations(t *testing.T) {
	good := map[string]string{
		"spec/README.md": "# Spec\n", "spec/toy.md": seededPage, "spec/why/x.md": "# Why\n", "spec/vectors/toy/stale.txt": seededVector,
		"toy/toy.go": seededCode, "toy/toy_test.go": seededTests,
	}
	for _, c := range []struct {
		name, file, old, new string
		want                 string // the one fault's text; "" for none
	}{
		{"good", "spec/toy.md", "", "", ""},
		{"rule twice", "spec/toy.md", "- [TOY-2] The", "- [TOY-1] The", "rule TOY-1 stands already at spec/toy.md:7"},
		{"rule without a test", "spec/toy.md", "| TOY-1 | `toy.TestRefuse` |\n", "", "rule TOY-1 has no row"},
		{"row without a rule", "spec/toy.md", "- [TOY-1] The", "- The", "names rule TOY-1, which the page does not have"},
		{"test that is gone", "toy/toy_test.go", "TestRefuse", "TestAccept", `no folder "toy" has a test function TestRefuse`},
		{"test of another folder", "spec/toy.md", "`toy.TestRefuse`", "`root.TestRefuse`", "no folder"},
		{"vector that is gone", "spec/toy.md", "toy/stale.txt", "toy/old.txt", "there is no vector spec/vectors/toy/old.txt"},
		{"row without evidence", "spec/toy.md", "`toy.TestRefuse`", "by inspection", "neither a test function nor a vector file"},
		{"page cites nothing", "spec/toy.md", "Reasons: [TOY-2]", "Reasons: [TOY-3]", "cites TOY-3"},
		{"code cites nothing", "toy/toy.go", "limit [TOY-1]", "limit [TOY-7]", "cites [TOY-7]"},
		{"code cites a code block", "toy/toy.go", "[TOY-1, TOY-2]", "[TOY-1, TOY-9]", "cites [TOY-9]"},
		{"limit of another value", "toy/toy.go", "64 << 10", "65 << 10", "limit toy.MaxBytes: the page says 64 KiB, the code 66560"},
		{"duration of another value", "spec/toy.md", "24 h", "23 h", "limit toy.MaxAge"},
		{"limit that is gone", "spec/toy.md", "toy.MaxAge", "toy.MaxTime", "no such constant"},
		{"limit without a number", "spec/toy.md", "64 KiB", "some", "no number"},
		{"limit out of code quotes", "spec/toy.md", "`toy.MaxAge` | 24", "toy.MaxAge | 23", "limit toy.MaxAge"},
		{"limit of no package", "spec/toy.md", "`toy.MaxAge`", "`MaxAge`", "want the package too"},
		{"vector without outcome", "spec/vectors/toy/stale.txt", "expect", "name", "want one line such as"},
		{"outcome of no list", "spec/vectors/toy/stale.txt", "stale", "fresh", `the outcome "fresh" is on no page's closed list`},
		{"outcome of a table", "spec/toy.md", "is `stale`.", "is that.\n\n| code | name |\n|---|---|\n| 4 | stale |", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, text := range good {
				if name == c.file && c.old != "" {
					if !strings.Contains(text, c.old) {
						t.Fatalf("%s does not hold %q", name, c.old)
					}
					text = strings.Replace(text, c.old, c.new, 1)
				}
				fsys[name] = &fstest.MapFile{Data: []byte(text)}
			}
			got := allFaults(t, fsys)
			if c.want == "" && len(got) != 0 || c.want != "" && !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("got faults %q, want %q", got, c.want)
			}
		})
	}
	broken := maps.Clone(good)
	broken["spec/empty.md"] = "# Empty\n"
	fsys := fstest.MapFS{}
	for name, text := range broken {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	if got := allFaults(t, fsys); len(got) != 1 || !strings.Contains(got[0], "spec/empty.md has no rule") {
		t.Errorf("got %q, want one fault of the empty page", got)
	}
}

func allFaults(t *testing.T, fsys fstest.MapFS) []string {
	t.Helper()
	tree, err := source.Load(fsys, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := readPages(fsys)
	if err != nil {
		t.Fatal(err)
	}
	vectors, faults, err := readVectors(fsys, pages)
	if err != nil {
		t.Fatal(err)
	}
	faults = append(faults, pageFaults(pages, indexTests(tree), vectors, newConstants(tree))...)
	return append(faults, citationFaults(tree, pages)...)
}

func TestParseLimit(t *testing.T) {
	for _, c := range []struct {
		text     string
		duration bool
		want     string // "" for refused
	}{
		{"16", false, "16"},
		{"`1 << 20`", false, "1048576"},
		{"2^30", false, "1073741824"},
		{"6 000 000 000 PKT", false, "6442450944000000000"},
		{"16,384 (16 KiB)", false, "16384"},
		{"1_000 blocks", false, "1000"},
		{"24 h", false, "86400"},
		{"24 h", true, "86400000000000"},
		{"250 ms", true, "250000000"},
		{"10 s", true, "10000000000"},
		{"64 × 3 bytes", false, "192"},
		{"many", false, ""},
		{"", false, ""},
	} {
		got, ok := parseLimit(c.text, c.duration)
		if ok != (c.want != "") || ok && got.String() != c.want && got.ExactString() != c.want {
			t.Errorf("%q: got %v (%v), want %q", c.text, got, ok, c.want)
		}
	}
}
