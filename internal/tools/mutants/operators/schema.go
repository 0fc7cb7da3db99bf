package operators

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
)

// Variable is the environment variable that selects a mutant by its number.
const Variable = "PKTCLOUD_MUTANT"

// Selector is the text of a file that each package with a schema needs.
func Selector(pkg string) []byte {
	return fmt.Appendf(nil, `package %s

import (
	"os"
	"strconv"
)

var selectedMutant, _ = strconv.Atoi(os.Getenv(%q))
`, pkg, Variable)
}

// Lines is the place of a mutant in a schema, both ends inclusive.
type Lines struct{ First, Last int }

// Schema returns a file in which every function with mutants has a copy of its
// body for each, chosen by its number: mutants[i] has number first+i, and none
// is 0. Those whose number is in dead are left out. It also returns where each
// one stands, for the errors of a compiler.
func Schema(name string, text []byte, mutants []Mutant, first int, dead map[int]bool) ([]byte, map[int]Lines, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	var out bytes.Buffer
	places := map[int]Lines{}
	line := func() int { return bytes.Count(out.Bytes(), []byte("\n")) + 1 }
	done := 0
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		from, to := offset(fn.Body.Lbrace), offset(fn.Body.End())
		out.Write(text[done : from+1])
		done = from + 1
		results := ""
		if r := fn.Type.Results; r != nil {
			results = string(text[offset(r.Pos()):offset(r.End())])
		}
		begun := false
		for i, m := range mutants {
			number := first + i
			if m.Start < from || m.End > to || dead[number] {
				continue
			}
			if !begun {
				out.WriteString("\nswitch selectedMutant {\n")
				begun = true
			}
			fmt.Fprintf(&out, "case %d:\n", number)
			at := line()
			body := fmt.Sprintf("func() %s %s%s%s()", results, text[from:m.Start], m.New, text[m.End:to])
			if results == "" {
				out.WriteString(body + "\nreturn\n")
			} else {
				out.WriteString("return " + body + "\n")
			}
			places[number] = Lines{at, line() - 1}
		}
		if begun {
			out.WriteString("}\n")
		}
	}
	out.Write(text[done:])
	return out.Bytes(), places, nil
}
