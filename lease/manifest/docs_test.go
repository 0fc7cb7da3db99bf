package manifest

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocs: the page for users has every word, and its files can be read
// [SERVICE-14].
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, of := range []reflect.Type{reflect.TypeFor[file](), reflect.TypeFor[entry](), reflect.TypeFor[health]()} {
		for f := range of.Fields() {
			word, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if !strings.Contains(page, "`"+word+"`") && !strings.Contains(page, "`"+word+": ") {
				t.Errorf("no word on %q", word)
			}
		}
	}
	files := 0
	for block := range strings.SplitSeq("\n"+page, "\n\n") {
		text := strings.ReplaceAll("\n"+block, "\n    ", "\n")
		if !strings.HasPrefix(block, "    ") || !strings.Contains(text, "\nservices:\n") {
			continue
		}
		files++
		if _, err := Read([]byte(text)); err != nil {
			t.Errorf("%v in%s", err, text)
		}
	}
	if files < 3 {
		t.Errorf("got %d files, want those of shop, try and volumes", files)
	}
}
