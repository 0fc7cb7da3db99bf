package pktcloud_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

// manySpellings lists, by folder and name, the Parse functions that read more
// than one spelling of a value. Their fuzz targets compare values, not bytes.
var manySpellings = []string{
	". ParseAmount",    // "1.5", "1.50 PKT" and "1610612736 units"
	". ParsePublicKey", // with or without "did:key:"
}

func TestEveryParseIsFuzzed(t *testing.T) {
	tree, err := source.Load(os.DirFS("."), 0)
	if err != nil {
		t.Fatal(err)
	}
	parsers := exportedParsers(tree)
	if len(parsers) < 3 {
		t.Fatalf("got %d exported Parse functions, want at least those of the root package", len(parsers))
	}
	for _, fault := range fuzzFaults(tree) {
		t.Error(fault)
	}
}

// parseFunc is an exported function whose name begins with Parse.
type parseFunc struct{ dir, name, position string }

// exportedParsers lists the exported Parse functions and methods of all library
// packages.
func exportedParsers(tree *source.Tree) []parseFunc {
	var found []parseFunc
	for _, f := range tree.Files {
		if f.Test || f.AST.Name.Name == "main" {
			continue
		}
		for _, decl := range f.AST.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			rest, ok := strings.CutPrefix(fn.Name.Name, "Parse")
			if ok && (rest == "" || !unicode.IsLower([]rune(rest)[0])) {
				found = append(found, parseFunc{f.Dir, fn.Name.Name, tree.Fset.Position(fn.Pos()).String()})
			}
		}
	}
	return found
}

// fuzzFaults returns a sentence for each exported Parse function that has no
// fuzz target, or one that would not notice a second spelling.
func fuzzFaults(tree *source.Tree) []string {
	tests := map[string]map[string]*ast.FuncDecl{} // by folder and name
	for _, f := range tree.Files {
		if !f.Test {
			continue
		}
		if tests[f.Dir] == nil {
			tests[f.Dir] = map[string]*ast.FuncDecl{}
		}
		for _, decl := range f.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Body != nil {
				tests[f.Dir][fn.Name.Name] = fn
			}
		}
	}
	var faults []string
	for _, p := range exportedParsers(tree) {
		target := "Fuzz" + p.name
		decl := tests[p.dir][target]
		if decl == nil {
			faults = append(faults, fmt.Sprintf("%s: %s has no fuzz target: write %s in a _test.go file of folder %s", p.position, p.name, target, p.dir))
			continue
		}
		anySpelling := slices.Contains(manySpellings, p.dir+" "+p.name)
		if why := targetFault(decl, tests[p.dir], p.name, anySpelling); why != "" {
			faults = append(faults, fmt.Sprintf("%s: the fuzz target of %s %s", tree.Fset.Position(decl.Pos()), p.name, why))
		}
	}
	return faults
}

// targetFault returns what a fuzz target lacks, or "". Functions of the same
// folder's tests that it calls count as part of it.
func targetFault(target *ast.FuncDecl, helpers map[string]*ast.FuncDecl, parse string, anySpelling bool) string {
	fuzzes, parses, compares := false, false, false
	seen := map[*ast.FuncDecl]bool{}
	var visit func(*ast.FuncDecl)
	visit = func(fn *ast.FuncDecl) {
		if seen[fn] {
			return
		}
		seen[fn] = true
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				parses = parses || n.Name == parse
				if helper := helpers[n.Name]; helper != nil {
					visit(helper)
				}
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				fuzzes = fuzzes || ok && sel.Sel.Name == "Fuzz"
			case *ast.FuncLit:
				if inputs := fuzzInputs(n); len(inputs) > 0 {
					compares = compares || failsOnDifference(n.Body, inputs, anySpelling)
				}
			}
			return true
		})
	}
	visit(target)
	switch {
	case !fuzzes:
		return "never calls Fuzz of its *testing.F"
	case !parses:
		return "never calls " + parse
	case !compares && anySpelling:
		return "never compares the parsed value with that of its own encoding: parse what it prints, and fail where they differ"
	case !compares:
		return "never compares the input with its re-encoding: encode what was accepted, and fail where bytes.Equal with the input is false"
	}
	return ""
}

// fuzzInputs returns the names of a fuzz function's inputs: what follows the
// *testing.T.
func fuzzInputs(fn *ast.FuncLit) []string {
	params := fn.Type.Params.List
	if len(params) == 0 || !isTestingT(params[0].Type) {
		return nil
	}
	var names []string
	for _, field := range params[1:] {
		for _, name := range field.Names {
			names = append(names, name.Name)
		}
	}
	return names
}

func isTestingT(e ast.Expr) bool {
	star, ok := e.(*ast.StarExpr)
	if !ok {
		return false
	}
	sel, ok := star.X.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "T"
}

// failsOnDifference reports whether a body has an if statement that compares
// one of the inputs, or any two values where anything goes, and fails the test.
func failsOnDifference(body *ast.BlockStmt, inputs []string, anything bool) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		if stmt, ok := n.(*ast.IfStmt); ok && comparesInput(stmt.Cond, inputs, anything) && failsTest(stmt.Body) {
			found = true
		}
		return !found
	})
	return found
}

func comparesInput(cond ast.Expr, inputs []string, anything bool) bool {
	found := false
	ast.Inspect(cond, func(n ast.Node) bool {
		var operands []ast.Expr
		switch n := n.(type) {
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Equal" || sel.Sel.Name == "DeepEqual") {
				operands = n.Args
			}
		case *ast.BinaryExpr:
			if n.Op == token.NEQ {
				operands = []ast.Expr{n.X, n.Y}
			}
		}
		constant := slices.ContainsFunc(operands, isConstant)
		if len(operands) == 2 && !constant {
			found = found || anything || slices.ContainsFunc(operands, func(e ast.Expr) bool { return isInput(e, inputs) })
		}
		return true
	})
	return found
}

// isConstant reports whether an operand says nothing of a re-encoding: nil, a
// literal, a boolean.
func isConstant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false"
	}
	return false
}

// isInput reports whether an operand is an input, or one converted as in
// string(data). A length or a part of it is not enough.
func isInput(e ast.Expr, inputs []string) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return slices.Contains(inputs, e.Name)
	case *ast.ParenExpr:
		return isInput(e.X, inputs)
	case *ast.CallExpr: // a conversion
		_, toSlice := e.Fun.(*ast.ArrayType)
		name, named := e.Fun.(*ast.Ident)
		return (toSlice || named && name.Name == "string") && len(e.Args) == 1 && isInput(e.Args[0], inputs)
	}
	return false
}

func failsTest(body *ast.BlockStmt) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Error", "Errorf", "Fatal", "Fatalf", "Fail", "FailNow"}, sel.Sel.Name) {
			found = true
		}
		return true
	})
	return found
}

func TestFuzzFaults(t *testing.T) {
	const library = "package p\n\nfunc ParseX(b []byte) (X, error) { return X{}, nil }\nfunc Parser() {}\nfunc parseY() {}\n"
	target := func(inner string) string {
		return "package p_test\n\nfunc FuzzParseX(f *testing.F) {\n\tf.Fuzz(func(t *testing.T, data []byte) {\n" + inner + "\n})\n}\n"
	}
	const parse = "x, err := p.ParseX(data)\nif err != nil { return }\n"
	for _, c := range []struct {
		name, test string
		want       string // part of the fault; "" for none
	}{
		{"good", target(parse + "if !bytes.Equal(x.Encode(), data) { t.Fatal(1) }"), ""},
		{"good, as text", target(parse + "if x.String() != string(data) { t.Errorf(\"x\") }"), ""},
		{"good, generic", target("x, err := p.ParseX[int](data)\nif again := x.Encode(); err == nil && !bytes.Equal(again, data) { t.Fatal(1) }"), ""},
		{
			"good, by a helper",
			"package p_test\n\nfunc FuzzParseX(f *testing.F) { fuzz(f, p.ParseX) }\n" +
				"func fuzz(f *testing.F, parse func([]byte) (X, error)) { f.Fuzz(func(t *testing.T, in []byte) { x, _ := parse(in); if !bytes.Equal(x.Encode(), in) { t.Fatal(1) } }) }\n",
			"",
		},
		{"no target", "package p_test\n", "ParseX has no fuzz target: write FuzzParseX"},
		{"of another name", strings.ReplaceAll(target(parse+"if !bytes.Equal(x.Encode(), data) { t.Fatal(1) }"), "FuzzParseX", "FuzzX"), "has no fuzz target"},
		{"does not fuzz", "package p_test\n\nfunc FuzzParseX(f *testing.F) { p.ParseX(nil) }\n", "never calls Fuzz"},
		{"does not parse", target("if !bytes.Equal(data, other) { t.Fatal(1) }"), "never calls ParseX"},
		{"does not compare", target(parse + "_ = x"), "never compares the input"},
		{"compares with nil alone", target(parse + "if err != nil { t.Fatal(err) }"), "never compares the input"},
		{"compares a length", target(parse + "if len(x.Encode()) != len(data) { t.Fatal(1) }"), "never compares the input"},
		{"compares something else", target(parse + "if !bytes.Equal(x.Encode(), y.Encode()) { t.Fatal(1) }"), "never compares the input"},
		{"compares without failing", target(parse + "if !bytes.Equal(x.Encode(), data) { t.Log(1) }"), "never compares the input"},
		{"fails where equal", target(parse + "if string(x.Encode()) == string(data) { t.Fatal(1) }"), "never compares the input"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree, err := source.Load(fstest.MapFS{"p/p.go": {Data: []byte(library)}, "p/p_test.go": {Data: []byte(c.test)}}, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(fuzzFaults(tree), "\n")
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got fault %q, want one that contains %q", got, c.want)
			}
		})
	}
}
