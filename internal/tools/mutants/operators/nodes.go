package operators

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
)

// swaps are the operators that have one counterpart.
var swaps = map[token.Token]struct {
	operator string
	to       token.Token
}{
	token.LSS: {"boundary", token.LEQ}, token.LEQ: {"boundary", token.LSS},
	token.GTR: {"boundary", token.GEQ}, token.GEQ: {"boundary", token.GTR},
	token.LAND: {"logical", token.LOR}, token.LOR: {"logical", token.LAND},
	token.ADD: {"arithmetic", token.SUB}, token.SUB: {"arithmetic", token.ADD},
	token.MUL: {"arithmetic", token.QUO}, token.QUO: {"arithmetic", token.MUL},
	token.REM: {"arithmetic", token.MUL}, token.AND: {"arithmetic", token.OR},
	token.OR: {"arithmetic", token.AND}, token.XOR: {"arithmetic", token.AND},
	token.SHL: {"arithmetic", token.SHR}, token.SHR: {"arithmetic", token.SHL},
	token.ADD_ASSIGN: {"arithmetic", token.SUB_ASSIGN}, token.SUB_ASSIGN: {"arithmetic", token.ADD_ASSIGN},
	token.MUL_ASSIGN: {"arithmetic", token.QUO_ASSIGN}, token.QUO_ASSIGN: {"arithmetic", token.MUL_ASSIGN},
	token.INC: {"arithmetic", token.DEC}, token.DEC: {"arithmetic", token.INC},
	token.BREAK: {"jump", token.CONTINUE}, token.CONTINUE: {"jump", token.BREAK},
}

// opposites of comparisons.
var opposites = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR,
}

// swap exchanges a token for its counterpart.
func (f *finder) swap(at token.Pos, t token.Token) {
	if s, ok := swaps[t]; ok {
		f.replace(s.operator, at, at+token.Pos(len(t.String())), s.to.String())
	}
}

// node applies the operators to a node whose parents are on the stack.
func (f *finder) node(n ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		f.negate(n.Cond)
		if n.Else == nil {
			f.remove(n)
		}
	case *ast.ForStmt:
		if n.Cond != nil {
			f.negate(n.Cond)
		}
		f.remove(n)
	case *ast.RangeStmt, *ast.ExprStmt, *ast.DeferStmt:
		f.remove(n)
	case *ast.AssignStmt:
		f.swap(n.TokPos, n.Tok)
		if n.Tok != token.DEFINE {
			f.remove(n)
		}
	case *ast.IncDecStmt:
		f.swap(n.TokPos, n.Tok)
		f.remove(n)
	case *ast.CaseClause:
		f.clause(n)
	case *ast.BranchStmt:
		f.swap(n.TokPos, n.Tok)
	case *ast.ReturnStmt:
		f.results(n)
	case *ast.BinaryExpr:
		f.binary(n)
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			f.change("not", n, f.source(n.X))
		}
	case *ast.BasicLit:
		f.literal(n)
	case *ast.CallExpr:
		f.call(n)
	case *ast.Ident:
		f.enum(n)
	case *ast.CompositeLit:
		f.fields(n)
	}
}

func (f *finder) negate(cond ast.Expr) { f.change("negate", cond, "!("+f.source(cond)+")") }

// remove leaves a statement out, where it stands in a list of them.
func (f *finder) remove(n ast.Node) {
	switch f.parent().(type) {
	case *ast.BlockStmt, *ast.CaseClause:
		f.change("remove", n, "")
	}
}

func (f *finder) clause(n *ast.CaseClause) {
	if s, ok := f.stack[len(f.stack)-2].(*ast.SwitchStmt); ok && s.Tag == nil {
		for _, cond := range n.List {
			f.negate(cond)
			if len(n.List) > 1 {
				f.change("operand", cond, "false")
			}
		}
	}
	f.change("case", n, "")
}

func (f *finder) binary(n *ast.BinaryExpr) {
	f.swap(n.OpPos, n.Op)
	if to, ok := opposites[n.Op]; ok {
		f.replace("comparison", n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), to.String())
	}
	if n.Op == token.LAND || n.Op == token.LOR {
		f.change("operand", n, f.source(n.X))
		f.change("operand", n, f.source(n.Y))
	}
}

func (f *finder) literal(n *ast.BasicLit) {
	if n.Kind != token.INT {
		return
	}
	value, err := strconv.ParseUint(n.Value, 0, 63)
	if err != nil {
		return
	}
	f.change("literal", n, strconv.FormatUint(value+1, 10))
	if value > 0 {
		f.change("literal", n, strconv.FormatUint(value-1, 10))
	}
}

func (f *finder) call(n *ast.CallExpr) {
	if message(n) {
		return
	}
	switch name := callee(n); name {
	case "min":
		f.change("minmax", n.Fun, "max")
		return
	case "max":
		f.change("minmax", n.Fun, "min")
		return
	case "Equal", "Join": // the order is all the same
		return
	}
	for i := range len(n.Args) - 1 {
		a, b := n.Args[i], n.Args[i+1]
		f.replace("arguments", a.Pos(), b.End(), f.source(b)+", "+f.source(a))
	}
}

// enum exchanges a constant that stands for itself, not the name of a field.
func (f *finder) enum(n *ast.Ident) {
	if p, ok := f.parent().(*ast.SelectorExpr); ok && p.Sel == n {
		return
	}
	if next, ok := f.enums.next(n.Name); ok {
		f.change("enum", n, next)
	}
}

func (f *finder) fields(n *ast.CompositeLit) {
	for i, e := range n.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if _, ok := kv.Key.(*ast.Ident); !ok {
			continue
		}
		end := kv.End()
		if i+1 < len(n.Elts) {
			end = n.Elts[i+1].Pos()
		}
		f.replace("field", kv.Pos(), end, "")
	}
}

// refusal exchanges the code of a Refuse.
func (f *finder) refusal(call *ast.CallExpr) {
	if callee(call) != "Refuse" || len(call.Args) == 0 {
		return
	}
	prefix, name := "", ""
	switch code := call.Args[0].(type) {
	case *ast.Ident:
		name = code.Name
	case *ast.SelectorExpr:
		prefix, name = f.source(code.X)+".", code.Sel.Name
	}
	if len(name) < 4 || name[:3] != "Err" {
		return
	}
	other := "ErrUnknown"
	if name == other {
		other = "ErrMalformed"
	}
	f.change("refusal", call.Args[0], prefix+other)
}

// results exchanges what is returned, one result at a time.
func (f *finder) results(n *ast.ReturnStmt) {
	types := f.resultTypes()
	if len(types) != len(n.Results) {
		return // none, or those of a call
	}
	for i, r := range n.Results {
		old := f.source(r)
		for _, zero := range f.zeros(types[i], old) {
			f.change("result", r, zero)
		}
	}
}

// zeros are what an expression of a type is exchanged for.
func (f *finder) zeros(t ast.Expr, old string) []string {
	typed := f.source(t)
	switch {
	case slices.Contains([]string{"nil", "0", `""`, typed + "{}"}, old):
		return nil
	case typed == "bool":
		return []string{"true", "false"}
	case typed == "error":
		return []string{"nil"}
	}
	return []string{"*new(" + typed + ")"}
}

// resultTypes are the result types of the innermost function, one for each
// result.
func (f *finder) resultTypes() []ast.Expr {
	for _, n := range slices.Backward(f.stack) {
		var t *ast.FuncType
		switch n := n.(type) {
		case *ast.FuncLit:
			t = n.Type
		case *ast.FuncType:
			t = n
		default:
			continue
		}
		var types []ast.Expr
		if t.Results == nil {
			return nil
		}
		for _, field := range t.Results.List {
			for range max(1, len(field.Names)) {
				types = append(types, field.Type)
			}
		}
		return types
	}
	return nil
}
