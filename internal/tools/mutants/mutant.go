package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// mutant is one seeded violation.
type mutant struct {
	Name, File, Old, New, Test string

	// Hangs says that the mutant may keep its test from ending.
	Hangs bool

	list string // the file and line where it stands
}

// readMutants reads every testdata/mutants.txt below the root of fsys.
func readMutants(fsys fs.FS) ([]mutant, error) {
	var all []mutant
	var faults []error
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && skipped(name) {
			return fs.SkipDir
		}
		if !strings.HasSuffix("/"+name, "/testdata/mutants.txt") {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		found, err := parseMutants(name, string(text))
		faults = append(faults, err)
		all = append(all, found...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for _, m := range all {
		if first, twice := seen[m.Name]; twice {
			faults = append(faults, fmt.Errorf("%s: the name %s is taken by %s", m.list, m.Name, first))
		}
		seen[m.Name] = m.list
	}
	return all, errors.Join(faults...)
}

// skipped reports whether a folder is no part of the source.
func skipped(name string) bool {
	base := path.Base(name)
	return name != "." && (strings.HasPrefix(base, ".") || name == "bin")
}

// parseMutants reads one list. Its faults name file and line.
func parseMutants(name, text string) ([]mutant, error) {
	var all []mutant
	var faults []error
	m, begun, number := mutant{}, false, 0
	end := func() {
		if begun {
			for key, value := range map[string]string{"name": m.Name, "file": m.File, "old": m.Old, "test": m.Test} {
				if value == "" {
					faults = append(faults, fmt.Errorf("%s: the block has no %q line", m.list, key))
				}
			}
			all = append(all, m)
		}
		m, begun = mutant{}, false
	}
	for line := range strings.Lines(text + "\n") {
		number++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			end()
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !begun {
			m.list, begun = fmt.Sprintf("%s:%d", name, number), true
		}
		key, value, _ := strings.Cut(line, ":")
		if key == "hangs" && strings.TrimSpace(value) == "yes" && !m.Hangs {
			m.Hangs = true
			continue
		}
		field := map[string]*string{"name": &m.Name, "file": &m.File, "old": &m.Old, "new": &m.New, "test": &m.Test}[key]
		if field == nil || *field != "" {
			faults = append(faults, fmt.Errorf("%s:%d: want one each of name, file, old, new and test, and perhaps hangs: yes, got %q", name, number, line))
			continue
		}
		*field = strings.TrimSpace(value)
	}
	end()
	return all, errors.Join(faults...)
}

// apply changes the mutant's file in the copy at dir and returns a function that
// changes it back.
func (m mutant) apply(dir string) (restore func() error, err error) {
	if !filepath.IsLocal(m.File) {
		return nil, fmt.Errorf("file %s is outside the tree", m.File)
	}
	target := filepath.Join(dir, filepath.FromSlash(m.File))
	before, err := os.ReadFile(target)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(before), m.Old); n != 1 {
		return nil, fmt.Errorf("the old line occurs %d times in %s, want once: %s", n, m.File, m.Old)
	}
	after := strings.Replace(string(before), m.Old, m.New, 1)
	if err := os.WriteFile(target, []byte(after), 0o600); err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(target, before, 0o600) }, nil
}

// copyTree copies the source below the root of fsys to dir.
func copyTree(fsys fs.FS, dir string) error {
	return fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(name))
		if entry.IsDir() {
			if skipped(name) {
				return fs.SkipDir
			}
			return os.MkdirAll(target, 0o755)
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, info.Mode().Perm()|0o200)
	})
}
