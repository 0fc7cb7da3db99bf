// Package vector reads and writes the test vectors of the spec: one small text
// file per case, lines of "key: value", bytes in hexadecimal.
//
// A test makes its cases, hands them to [Sync], which compares them with the
// files or writes these anew, and then runs what the files say.
package vector

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Case is one vector: a name, which is its file's, and lines in order.
type Case struct {
	Name  string
	Lines []Line
}

// Line is one "key: value". Keys may repeat.
type Line struct{ Key, Value string }

// New returns a case with an outcome and a sentence that says what it shows.
func New(name, expect, about string) Case {
	return Case{Name: name}.With("about", about).With("expect", expect)
}

// With returns c with another line; bytes are written in hexadecimal.
func (c Case) With(key string, value any) Case {
	text := fmt.Sprint(value)
	if b, ok := value.([]byte); ok {
		text = hex.EncodeToString(b)
	}
	c.Lines = append(slices.Clone(c.Lines), Line{key, text})
	return c
}

// Value returns the first value of a key, or "".
func (c Case) Value(key string) string {
	for _, l := range c.Lines {
		if l.Key == key {
			return l.Value
		}
	}
	return ""
}

// Bytes returns the first value of a key as bytes. It panics where the file
// has no hexadecimal: a vector is part of the test.
func (c Case) Bytes(key string) []byte {
	b, err := hex.DecodeString(c.Value(key))
	if err != nil {
		panic(fmt.Sprintf("vector %s: %s: %v", c.Name, key, err))
	}
	return b
}

// Text returns the content of the case's file.
func (c Case) Text() string {
	var b strings.Builder
	for _, l := range c.Lines {
		fmt.Fprintf(&b, "%s: %s\n", l.Key, l.Value)
	}
	return b.String()
}

// parse reads a file's content.
func parse(name, text string) (Case, error) {
	c := Case{Name: name}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			return Case{}, fmt.Errorf("vector %s: no \"key: value\": %q", name, line)
		}
		c.Lines = append(c.Lines, Line{key, value})
	}
	return c, nil
}

// Load returns the cases of a folder whose names begin with prefix, sorted.
func Load(dir, prefix string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, prefix+"*.txt"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var cases []Case
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		c, err := parse(strings.TrimSuffix(filepath.Base(f), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// Sync returns the cases of dir whose names begin with prefix. It fails when
// they are not exactly made; with update it first writes those and removes all
// others.
func Sync(dir, prefix string, made []Case, update bool) ([]Case, error) {
	if update {
		if err := write(dir, prefix, made); err != nil {
			return nil, err
		}
	}
	found, err := Load(dir, prefix)
	if err != nil {
		return nil, err
	}
	made = slices.SortedFunc(slices.Values(made), func(a, b Case) int { return strings.Compare(a.Name+".txt", b.Name+".txt") })
	var errs []error
	for _, m := range made {
		i := slices.IndexFunc(found, func(f Case) bool { return f.Name == m.Name })
		if i < 0 || found[i].Text() != m.Text() {
			errs = append(errs, fmt.Errorf("%s is not what the generator makes; review the change, then run the test with -update", filepath.Join(dir, m.Name+".txt")))
		}
	}
	if len(found) != len(made) {
		errs = append(errs, fmt.Errorf("%s has %d vectors %s*, the generator makes %d", dir, len(found), prefix, len(made)))
	}
	return found, errors.Join(errs...)
}

func write(dir, prefix string, made []Case) error {
	old, err := filepath.Glob(filepath.Join(dir, prefix+"*.txt"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range made {
		if !strings.HasPrefix(c.Name, prefix) {
			return fmt.Errorf("vector %s does not begin with %s", c.Name, prefix)
		}
		if err := os.WriteFile(filepath.Join(dir, c.Name+".txt"), []byte(c.Text()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
