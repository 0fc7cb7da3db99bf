package containertest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPromises shows that the kit checks the promises that are made: each
// promise of the kit stands in a comment, and of the comments of the interface
// nothing is left that none of them checks. Each promise has a violation.
func TestPromises(t *testing.T) {
	docs := comments(t)
	names := map[string]bool{}
	for _, p := range Promises() {
		if names[p.Name] {
			t.Errorf("two promises are named %s", p.Name)
		}
		names[p.Name] = true
		of := p.Of
		if interfaceMethods[of] {
			of = "Runtime." + of
		}
		before, after, ok := strings.Cut(docs[of], p.Says)
		if !ok {
			t.Errorf("%s: the comment of %s does not say %q", p.Name, p.Of, p.Says)
			continue
		}
		docs[of] = before + after
		if len(violations[p.Name]) == 0 {
			t.Errorf("%s: no violation shows that it is checked", p.Name)
		}
	}
	for name := range violations {
		if !names[name] {
			t.Errorf("a violation of %s, which is no promise", name)
		}
	}
	methods := []string{"Runtime"}
	for m := range interfaceMethods {
		methods = append(methods, "Runtime."+m)
	}
	for _, m := range methods {
		if left := strings.Trim(docs[m], " "); left != said[m] {
			t.Errorf("the comment of %s says what no promise of the kit is: %q", m, left)
		}
	}
}

// said is what comments say beside promises.
var said = map[string]string{
	"Runtime": "Runtime runs containers on this machine.",
}

var interfaceMethods = map[string]bool{}

// comments returns the comments of the types of package container, of the
// methods of Runtime and of constants, by name and each in one line.
func comments(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, file := range []string{"../runtime.go", "../usage.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		note := func(name string, groups ...*ast.CommentGroup) {
			for _, g := range groups {
				docs[name] += " " + strings.Join(strings.Fields(g.Text()), " ")
			}
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GenDecl:
				if s, ok := n.Specs[0].(*ast.TypeSpec); ok {
					note(s.Name.Name, n.Doc)
				}
			case *ast.TypeSpec:
				switch body := n.Type.(type) {
				case *ast.StructType:
					for _, f := range body.Fields.List {
						note(n.Name.Name, f.Doc)
					}
				case *ast.InterfaceType:
					for _, m := range body.Methods.List {
						note("Runtime."+m.Names[0].Name, m.Doc)
						interfaceMethods[m.Names[0].Name] = true
					}
				}
			case *ast.ValueSpec:
				note(n.Names[0].Name, n.Doc)
			}
			return true
		})
	}
	if len(interfaceMethods) < 10 {
		t.Fatalf("found methods %v of Runtime", slices.Collect(maps.Keys(interfaceMethods)))
	}
	return docs
}

// TestViolations breaks each promise in turn. The kit notices it where it checks
// that promise, and not before.
func TestViolations(t *testing.T) {
	was := patience
	patience = 5 * time.Second
	t.Cleanup(func() { patience = was })
	room := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for _, p := range Promises() {
		for i, spoil := range violations[p.Name] {
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				twin, fixture := NewTwinWithPrograms()
				x := newFaulty(twin, &fixture)
				spoil(x)
				err := TestRuntime(x, fixture)
				if err == nil || !strings.HasPrefix(err.Error(), p.Name+": ") {
					t.Errorf("violation %d of %s: got %v, want the kit to fail there", i, p.Name, err)
				}
				_ = twin.Close()
			})
		}
	}
	wg.Wait()
}
