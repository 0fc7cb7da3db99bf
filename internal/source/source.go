// Package source reads the Go files of a module for the tests and tools that
// check the tree itself. It parses every file, whatever its build tags, so that
// nothing hides behind one.
//
// Start with [Load] over os.DirFS of the module's root.
package source

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Module is the import path of this module.
const Module = "github.com/pkt-cash/pkt-cloud"

// Tree is a set of parsed files. Files are in the order of their paths.
type Tree struct {
	Fset  *token.FileSet
	Files []File
}

// File is one parsed file. Path and Dir are relative to the module's root, with
// slashes; Dir is "." for the root package.
type File struct {
	Path string
	Dir  string
	Test bool // the name ends in _test.go
	AST  *ast.File
}

// Load parses every Go file below the root of fsys but those that the go
// command ignores too (testdata, names that begin with a dot or an underscore)
// and those of nested modules.
func Load(fsys fs.FS, mode parser.Mode) (*Tree, error) {
	tree := &Tree{Fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return enter(fsys, name, entry.Name())
		}
		if !strings.HasSuffix(name, ".go") || hidden(entry.Name()) {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(tree.Fset, name, text, mode|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		tree.Files = append(tree.Files, File{Path: name, Dir: path.Dir(name), Test: strings.HasSuffix(name, "_test.go"), AST: parsed})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the source tree: %w", err)
	}
	return tree, nil
}

// enter decides whether a folder belongs to the module.
func enter(fsys fs.FS, name, base string) error {
	if name == "." {
		return nil
	}
	if base == "testdata" || hidden(base) {
		return fs.SkipDir
	}
	if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func hidden(base string) bool { return base[0] == '.' || base[0] == '_' }

// Imports returns the import paths of a file.
func (f File) Imports() []string {
	var paths []string
	for _, spec := range f.AST.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// Folder returns the folder of an import path of this module, "." for its root
// package, and false for any other path.
func Folder(importPath string) (string, bool) {
	if importPath == Module {
		return ".", true
	}
	return strings.CutPrefix(importPath, Module+"/")
}

// Standard reports whether an import path belongs to the standard library: its
// first element has no dot.
func Standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}
