package operators

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// Names are the operators, in the order of the package comment.
var Names = []string{
	"negate", "boundary", "comparison", "logical", "operand", "not", "arithmetic", "literal", "remove", "case",
	"jump", "result", "arguments", "minmax", "enum", "refusal", "field",
}

// Mutant is one change of a function: the bytes [Start, End) of the file become
// New. Name is unique within the file, and stays when other lines change.
type Mutant struct {
	Name     string // function operator: old -> new
	Operator string
	Func     string // "Channel.Accept"
	Start    int
	End      int
	New      string
}

// Enums are the constants of a package by enumeration, in order.
type Enums [][]string

// EnumsOf collects the constants that a package declares with a type of its
// own. Those of the type Code are left out: they are refusals.
func EnumsOf(files []*ast.File) Enums {
	var all Enums
	for _, f := range files {
		for _, d := range f.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			var names []string
			typed := ""
			for _, s := range group.Specs {
				spec := s.(*ast.ValueSpec)
				if id, ok := spec.Type.(*ast.Ident); ok {
					typed = id.Name
				} else if len(spec.Values) > 0 {
					typed = ""
				}
				if typed != "" && ast.IsExported(typed) && typed != "Code" {
					names = append(names, spec.Names[0].Name)
				}
			}
			if len(names) > 1 {
				all = append(all, names)
			}
		}
	}
	return all
}

// next returns the constant after name in its enumeration.
func (e Enums) next(name string) (string, bool) {
	for _, group := range e {
		if i := slices.Index(group, name); i >= 0 {
			return group[(i+1)%len(group)], true
		}
	}
	return "", false
}

// Mutants returns the mutants of a Go file, in order of place.
func Mutants(name string, text []byte, enums Enums) ([]Mutant, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &finder{fset: fset, text: text, enums: enums, seen: map[string]bool{}}
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			f.function(fn)
		}
	}
	slices.SortStableFunc(f.found, func(a, b Mutant) int { return cmp.Compare(a.Start, b.Start) })
	twice := map[string]int{}
	for i := range f.found {
		m := &f.found[i]
		m.Name = fmt.Sprintf("%s %s: %s -> %s", m.Func, m.Operator, brief(string(text[m.Start:m.End])), brief(m.New))
		if twice[m.Name]++; twice[m.Name] > 1 {
			m.Name += fmt.Sprintf(" #%d", twice[m.Name])
		}
	}
	return f.found, nil
}

// brief is a text on one line, its middle left out where it is long.
func brief(s string) string {
	const most = 72
	s = strings.Join(strings.Fields(s), " ")
	switch {
	case s == "":
		return "nothing"
	case len(s) > most:
		return s[:most/2] + "…" + s[len(s)-most/2:]
	}
	return s
}

// funcName is "Func" or "Type.Method".
func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// finder walks one file.
type finder struct {
	fset  *token.FileSet
	text  []byte
	enums Enums
	seen  map[string]bool
	found []Mutant
	name  string // of the function
	stack []ast.Node
}

func (f *finder) offset(p token.Pos) int { return f.fset.Position(p).Offset }

func (f *finder) source(n ast.Node) string {
	return string(f.text[f.offset(n.Pos()):f.offset(n.End())])
}

// replace notes a mutant, unless another operator made the same change.
func (f *finder) replace(operator string, from, to token.Pos, text string) {
	start, end := f.offset(from), f.offset(to)
	change := fmt.Sprint(start, end, text)
	if f.seen[change] || string(f.text[start:end]) == text {
		return
	}
	f.seen[change] = true
	f.found = append(f.found, Mutant{Operator: operator, Func: f.name, Start: start, End: end, New: text})
}

func (f *finder) change(operator string, n ast.Node, text string) {
	f.replace(operator, n.Pos(), n.End(), text)
}

func (f *finder) function(fn *ast.FuncDecl) {
	f.name, f.stack = funcName(fn), []ast.Node{fn.Type}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if n == nil {
			f.stack = f.stack[:len(f.stack)-1]
			return true
		}
		f.node(n)
		if call, ok := n.(*ast.CallExpr); ok && message(call) {
			f.refusal(call)
			return false // Inspect calls no end for it: nothing was pushed
		}
		f.stack = append(f.stack, n)
		return true
	})
}

// parent is the node around the one that is looked at.
func (f *finder) parent() ast.Node { return f.stack[len(f.stack)-1] }

// callee is the last name of what a call calls.
func callee(call *ast.CallExpr) string {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return fn.Name
	case *ast.SelectorExpr:
		return fn.Sel.Name
	}
	return ""
}

// message reports whether a call makes a text for people.
func message(call *ast.CallExpr) bool {
	return slices.Contains([]string{"Refuse", "Errorf", "Sprintf"}, callee(call))
}
