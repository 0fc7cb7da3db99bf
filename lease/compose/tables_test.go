package compose_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"

	"github.com/pkt-cash/pkt-cloud/lease/compose"
)

// keysOfSchema are all keys of Compose, each with * for a name.
func keysOfSchema(t *testing.T) []string {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &whole); err != nil {
		t.Fatal(err)
	}
	defs, _ := whole["$defs"].(map[string]any)
	seen := map[string]bool{}
	var walk func(n any, path string, within []string)
	walk = func(n any, path string, within []string) {
		s, _ := n.(map[string]any)
		if ref, _ := s["$ref"].(string); ref != "" {
			name := strings.TrimPrefix(ref, "#/$defs/")
			if !slices.Contains(within, name) {
				walk(defs[name], path, append(slices.Clone(within), name))
			}
		}
		for _, word := range []string{"oneOf", "anyOf", "allOf"} {
			list, _ := s[word].([]any)
			for _, e := range list {
				walk(e, path, within)
			}
		}
		properties, _ := s["properties"].(map[string]any)
		for k, v := range properties {
			below := strings.TrimPrefix(path+"."+k, ".")
			seen[below] = true
			walk(v, below, within)
		}
		patterns, _ := s["patternProperties"].(map[string]any)
		for k, v := range patterns {
			if k != "^x-" {
				walk(v, path+".*", within)
			}
		}
		walk0 := func(word string, below string) {
			if v, ok := s[word].(map[string]any); ok {
				walk(v, below, within)
			}
		}
		walk0("additionalProperties", path+".*")
		walk0("items", path)
	}
	walk(whole, "", nil)
	var keys []string
	for k := range seen {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestTables: each key that the schema of Compose has stands in one of the three
// tables, or below one that is refused or left out as a whole; and no table has
// another one [SERVICE-38].
func TestTables(t *testing.T) {
	keys := keysOfSchema(t)
	if len(keys) < 300 || !slices.Contains(keys, "services.*.healthcheck.test") || !slices.Contains(keys, "volumes.*.driver_opts") {
		t.Fatalf("got %d keys of the schema", len(keys))
	}
	for _, k := range keys {
		if _, ok := compose.Judge(k); !ok {
			t.Errorf("no table has %s", k)
		}
	}
	seen := map[string]bool{}
	for _, r := range compose.Tables() {
		if seen[r.Key] {
			t.Errorf("the tables have %s twice", r.Key)
		}
		seen[r.Key] = true
		if !slices.Contains(keys, r.Key) {
			t.Errorf("the tables have %s, which Compose has not", r.Key)
		}
		if len(r.Text) < 2 {
			t.Errorf("%s: no word on it", r.Key)
		}
	}
	if _, ok := compose.Judge("services.*.environmnt"); ok {
		t.Error("a key that Compose has not was judged")
	}
}

// TestDocs: the page for users has the tables as they are; -update writes them.
func TestDocs(t *testing.T) {
	const path = "../../docs/compose.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, v := range []compose.Verdict{compose.Maps, compose.Approximated, compose.Refused} {
		begin, end := "<!-- "+string(v)+" -->\n", "<!-- end -->"
		before, rest, ok := strings.Cut(page, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("the page has no place for what is %s", v)
		}
		page = before + begin + table(v) + end + after
	}
	if page != string(data) {
		t.Error("the tables of docs/compose.md are others; run the test with -update")
	}
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for block := range strings.SplitSeq("\n"+page, "\n\n") {
		if !strings.HasPrefix(block, "    services:\n") {
			continue
		}
		found++
		text := strings.ReplaceAll("\n"+block, "\n    ", "\n")
		if _, format, _, err := compose.Read([]byte(text), compose.Options{Variables: variables}); err != nil || format != compose.Compose {
			t.Errorf("%v, %s in%s", err, format, text)
		}
	}
	if found == 0 {
		t.Error("the page has no file")
	}
}

// table is the rows of one verdict, those of one text in one row.
func table(v compose.Verdict) string {
	var out strings.Builder
	out.WriteString("| key | " + map[compose.Verdict]string{compose.Maps: "means here", compose.Approximated: "instead", compose.Refused: "do instead"}[v] + " |\n|---|---|\n")
	rows := slices.DeleteFunc(compose.Tables(), func(r compose.Row) bool { return r.Verdict != v })
	for i := 0; i < len(rows); {
		var names []string
		j := i
		for ; j < len(rows) && rows[j].Text == rows[i].Text; j++ {
			names = append(names, "`"+strings.TrimPrefix(rows[j].Key, "services.*.")+"`")
		}
		out.WriteString("| " + strings.Join(names, ", ") + " | " + rows[i].Text + " |\n")
		i = j
	}
	return out.String()
}
