package spec_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/token"
	"go/types"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

// constants evaluates constants of the tree's packages. It type-checks only what
// is asked for, without function bodies, and looks past errors: a file that does
// not compile, or a package that cannot be imported, hides only what needs it.
type constants struct {
	tree    *source.Tree
	checked map[string]*types.Package // by folder
}

// standard reads the standard library's own sources, each package once.
var standard = sync.OnceValue(func() types.Importer { return importer.ForCompiler(token.NewFileSet(), "source", nil) })

func newConstants(tree *source.Tree) constants {
	return constants{tree: tree, checked: map[string]*types.Package{}}
}

// differs returns how a row of a Limits table differs from the code, or "".
func (c constants) differs(name, value string) string {
	pkg, ident, ok := strings.Cut(name, ".")
	if !ok {
		return fmt.Sprintf("limit %q: want the package too, as in settle.MaxVoucherBytes", name)
	}
	folders := c.folders(pkg)
	if len(folders) == 0 {
		return fmt.Sprintf("limit %s: no package %s", name, pkg)
	}
	for _, folder := range folders {
		checked, err := c.check(folder)
		if err != nil {
			return fmt.Sprintf("limit %s: %v", name, err)
		}
		object, ok := checked.Scope().Lookup(ident).(*types.Const)
		if !ok {
			continue
		}
		want, ok := parseLimit(value, object.Type().String() == "time.Duration")
		if !ok {
			return fmt.Sprintf("limit %s: the value %q is no number with a known unit", name, value)
		}
		if object.Val().Kind() != constant.Int || !constant.Compare(object.Val(), token.EQL, want) {
			return fmt.Sprintf("limit %s: the page says %s, the code %s", name, value, object.Val())
		}
		return ""
	}
	return fmt.Sprintf("limit %s: package %s has no such constant", name, pkg)
}

// folders returns the folders of the packages of a name; a name with slashes is
// the folder itself.
func (c constants) folders(name string) []string {
	var found []string
	for _, f := range c.tree.Files {
		if !f.Test && (f.AST.Name.Name == name || f.Dir == name) && !slices.Contains(found, f.Dir) {
			found = append(found, f.Dir)
		}
	}
	return found
}

func (c constants) check(folder string) (*types.Package, error) {
	if pkg, ok := c.checked[folder]; ok {
		if pkg == nil {
			return nil, fmt.Errorf("package %s imports itself", folder)
		}
		return pkg, nil
	}
	c.checked[folder] = nil
	var files []*ast.File
	name := ""
	for _, f := range c.tree.Files {
		if f.Dir == folder && !f.Test && (name == "" || f.AST.Name.Name == name) {
			name = f.AST.Name.Name
			files = append(files, f.AST)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("folder %s has no package", folder)
	}
	config := types.Config{IgnoreFuncBodies: true, FakeImportC: true, Importer: c, Error: func(error) {}}
	pkg, _ := config.Check(folder, c.tree.Fset, files, nil) // errors hide only what needs them
	c.checked[folder] = pkg
	return pkg, nil
}

// Import implements types.Importer: our packages from the tree, those of the
// standard library in which constants of ours can be rooted from its source, and
// an empty package for the rest.
func (c constants) Import(importPath string) (*types.Package, error) {
	if folder, ours := source.Folder(importPath); ours {
		return c.check(folder)
	}
	if slices.Contains([]string{"math", "math/bits", "time", "crypto/ed25519", "crypto/sha256", "crypto/sha512"}, importPath) {
		return standard().Import(importPath)
	}
	pkg := types.NewPackage(importPath, path.Base(importPath))
	pkg.MarkComplete()
	return pkg, nil
}

var limitValue = regexp.MustCompile(`^([\d][\d_, ]*)(?:\s*(<<|\^|\*|×)\s*([\d][\d_, ]*))?\s*([A-Za-z]*)`)

// units are what a Limits table may count in; a word that is not here, such as
// "blocks", counts in ones.
var units = map[string]int64{
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PKT": 1 << 30,
	"min": 60, "minutes": 60, "minute": 60, "h": 3600, "hours": 3600, "hour": 3600, "d": 86400, "days": 86400, "day": 86400,
}

// parseLimit reads a value such as "16", "64 KiB", "1 << 20", "2^30", "24 h" or
// "16,384 (16 KiB)". Durations are in nanoseconds, other times in seconds.
func parseLimit(text string, duration bool) (constant.Value, bool) {
	m := limitValue.FindStringSubmatch(strings.TrimSpace(strings.Trim(strings.TrimSpace(text), "`")))
	if m == nil {
		return nil, false
	}
	v := digits(m[1])
	switch m[2] {
	case "<<":
		v = constant.Shift(v, token.SHL, uint(small(m[3])))
	case "^":
		base := v
		for v = constant.MakeInt64(1); small(m[3]) > 0 && len(m[3]) < 4; m[3] = fmt.Sprint(small(m[3]) - 1) {
			v = constant.BinaryOp(v, token.MUL, base)
		}
	case "*", "×":
		v = constant.BinaryOp(v, token.MUL, digits(m[3]))
	}
	unit := m[4]
	if scale, ok := units[unit]; ok {
		v = constant.BinaryOp(v, token.MUL, constant.MakeInt64(scale))
	}
	if duration && unit == "ms" {
		return constant.BinaryOp(v, token.MUL, constant.MakeInt64(int64(time.Millisecond))), true
	}
	if duration && unit != "ns" {
		v = constant.BinaryOp(v, token.MUL, constant.MakeInt64(int64(time.Second)))
	}
	return v, true
}

func digits(text string) constant.Value {
	return constant.MakeFromLiteral(strings.NewReplacer("_", "", ",", "", " ", "").Replace(text), token.INT, 0)
}

func small(text string) uint64 {
	n, _ := constant.Uint64Val(digits(text))
	return min(n, 1<<12)
}
