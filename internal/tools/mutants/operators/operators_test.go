package operators

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

const source = `package a

type Phase uint8

const (
	Open   Phase = 1
	Closed Phase = 2
)

func (s State) Step(a, b int, p *Phase) (State, error) {
	if !s.ok && a < b {
		return s, Refuse(ErrLate, "too late by %d", a-b)
	}
	for i := range 3 {
		if i == b {
			break
		}
		s.sum += min(a, 7)
	}
	switch {
	case a > 1 || b > 1:
		*p = Closed
	default:
		call(a, b)
	}
	return State{sum: s.sum}, nil
}
`

func find(t *testing.T) []Mutant {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "a.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Mutants("a.go", []byte(source), EnumsOf([]*ast.File{f}))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOperators: each operator at its work.
func TestOperators(t *testing.T) {
	var names []string
	for _, m := range find(t) {
		names = append(names, m.Name)
		if m.Func != "State.Step" || !slices.Contains(Names, m.Operator) {
			t.Errorf("got %+v", m)
		}
	}
	for _, want := range []string{
		"negate: !s.ok && a < b -> !(!s.ok && a < b)",
		"negate: a > 1 || b > 1 -> !(a > 1 || b > 1)",
		"boundary: < -> <=",
		"comparison: < -> >=",
		"logical: && -> ||",
		"operand: !s.ok && a < b -> a < b",
		"not: !s.ok -> s.ok",
		"arithmetic: += -> -=",
		"literal: 7 -> 8",
		"literal: 7 -> 6",
		"remove: s.sum += min(a, 7) -> nothing",
		"remove: call(a, b) -> nothing",
		"case: default: call(a, b) -> nothing",
		"jump: break -> continue",
		`result: Refuse(ErrLate, "too late by %d", a-b) -> nil`,
		"result: State{sum: s.sum} -> *new(State)",
		"arguments: a, b -> b, a",
		"minmax: min -> max",
		"enum: Closed -> Open",
		"refusal: ErrLate -> ErrUnknown",
		"field: sum: s.sum -> nothing",
	} {
		if !slices.Contains(names, "State.Step "+want) {
			t.Errorf("no mutant %q among\n%s", want, strings.Join(names, "\n"))
		}
	}
	for _, unwanted := range []string{"arithmetic: - -> +", "result: nil -> nil"} {
		if slices.Contains(names, "State.Step "+unwanted) {
			t.Errorf("got %q, which changes a text or nothing", unwanted)
		}
	}
	sorted := slices.Sorted(slices.Values(names))
	if len(slices.Compact(sorted)) != len(names) {
		t.Error("two mutants have one name")
	}
}

// TestSchema: all mutants in one text that is Go, and each where it says.
func TestSchema(t *testing.T) {
	found := find(t)
	dead := map[int]bool{3: true}
	text, places, err := Schema("a.go", []byte(source), found, 1, dead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "a.go", text, 0); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if len(places) != len(found)-1 {
		t.Errorf("got %d places for %d mutants, one of them dead", len(places), len(found))
	}
	lines := strings.Split(string(text), "\n")
	for i, m := range found {
		at, ok := places[i+1]
		if ok == dead[i+1] {
			t.Fatalf("mutant %d: placed %v", i+1, ok)
		}
		if body := strings.Join(lines[max(0, at.First-1):at.Last], "\n"); ok && !strings.Contains(body, m.New) {
			t.Errorf("%s is not in lines %d to %d", m.Name, at.First, at.Last)
		}
	}
}
