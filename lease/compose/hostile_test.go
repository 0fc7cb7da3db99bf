package compose_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// hostile are small files that would cost much.
func hostile() map[string]string {
	var laughs, merges, wide strings.Builder
	laughs.WriteString("x-a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	merges.WriteString("x-m0: &m0 {a: b}\n")
	for i := range 12 {
		fmt.Fprintf(&laughs, "x-a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
		fmt.Fprintf(&merges, "x-m%d: &m%d {k%d: *m%d, <<: [%s]}\n", i+1, i+1, i, i, strings.Repeat(fmt.Sprintf("*m%d, ", i), 8))
	}
	for range 3000 {
		wide.WriteString("\n      - \"1-15:1-15\"")
	}
	long := strings.Repeat("a", 100<<10)
	return map[string]string{
		"laughs":      laughs.String() + "services: {a: {image: x, command: *a12}}\n",
		"merges":      merges.String() + "services: {a: {image: x, labels: *m12}}\n",
		"circle":      "services: &s {a: {image: x, environment: *s}}\n",
		"merge self":  "services: {a: &a {<<: *a, image: x}}\n",
		"deep":        "services: {a: {image: x, labels: " + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}}\n",
		"text":        "x-t: &t " + long + "\nservices: {a: {image: x, labels: [*t, *t, *t, *t, *t, *t, *t, *t, *t]}}\n",
		"variables":   "services: {a: {image: x, command: \"" + strings.Repeat("${V}", 20_000) + "\"}}\n",
		"nested":      "services: {a: {image: x, command: \"" + strings.Repeat("${A:-", 20_000) + strings.Repeat("}", 20_000) + "\"}}\n",
		"ports":       "services:\n  a:\n    image: x\n    ports:" + wide.String() + "\n",
		"range":       "services: {a: {image: x, ports: [\"1-65535\"]}}\n",
		"many":        "services: {" + strings.Repeat("a: {image: x}, ", 10) + "}\n",
		"large":       strings.Repeat("#", manifest.MaxFileBytes+1),
		"binary":      "services: {a: {image: !!binary AAAA}}\n",
		"number":      "services: {a: {image: x, cpus: .inf}}\n",
		"keys":        "services: {a: {image: x, {a: b}: c}}\n",
		"control":     "services: {a: {image: \"\\e[2J\"}}\n",
		"name":        "services: {\"../a\": {image: x}}\n",
		"size":        "services: {a: {image: x, volumes: [\"data:/d\"]}}\nvolumes: {data: {x-pktcloud: {size: 99999999999999999999g}}}\n",
		"long memory": "services: {a: {image: x, mem_limit: 99999999999999999999g}}\n",
		"zeros":       "services: {a: {image: x, healthcheck: {test: [CMD, \"\"]}}}\n",
	}
}

// TestHostile: a file from a stranger costs no more than its bounds, is refused
// with a sentence, and reads nothing of this machine [SERVICE-39].
func TestHostile(t *testing.T) {
	value := strings.Repeat("v", 60<<10)
	for name, file := range hostile() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := compose.Convert([]byte(file), compose.Options{Variables: map[string]string{"V": value}})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, lease.CodeManifest) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 64<<20 {
			t.Errorf("%s: %d MiB were allocated", name, spent>>20)
		}
	}
}

// TestReadsNothing: what names a file or a variable of this machine is refused, and
// what it says is in no answer [SERVICE-39].
func TestReadsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("MARK=found-it\nservices: {b: {image: found-it}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET", "found-it")
	t.Chdir(filepath.Dir(path))
	if err := os.WriteFile(".env", []byte("SECRET=found-it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{
		"services: {a: {image: x, env_file: " + path + "}}",
		"services: {a: {image: x, label_file: " + path + "}}",
		"services: {a: {image: x, extends: {file: " + path + ", service: b}}}",
		"services: {a: {image: x}}\ninclude: [" + path + "]",
		"services: {a: {image: x, configs: [c]}}\nconfigs: {c: {file: " + path + "}}",
		"services: {a: {image: x, secrets: [c]}}\nsecrets: {c: {environment: SECRET}}",
		"services: {a: {image: \"x:${SECRET}\"}}",
		"services: {a: {image: \"x:${SECRET:-other}\"}}",
		"services: {a: {image: x, environment: [SECRET]}}",
		"services: {a: {image: x, environment: {SECRET: }}}",
		"services: {a: {image: x, build: {context: " + filepath.Dir(path) + ", dockerfile: secret}}}",
	} {
		m, warnings, err := compose.Convert([]byte(file), compose.Options{})
		if text := fmt.Sprint(m, warnings, err); strings.Contains(text, "found-it") {
			t.Errorf("%s: got %s", file, text)
		}
	}
}

func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, c := range refusals {
		f.Add([]byte(c.file))
	}
	for _, file := range hostile() {
		if len(file) < 10_000 {
			f.Add([]byte(file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, _, err := compose.Read(data, compose.Options{Variables: variables})
		if err != nil {
			if !errors.Is(err, lease.CodeManifest) {
				t.Fatalf("got %v, want a refusal", err)
			}
			return
		}
		b, err := pktcloud.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lease.ParseManifest(b); err != nil && len(b) <= lease.MaxManifestBytes {
			t.Fatalf("what was accepted is refused on the wire: %v", err)
		}
	})
}
