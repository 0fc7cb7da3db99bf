package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file [SERVICE-39]. A file of a few lines can mean one of any size
// by what it repeats, so that what it means is bounded as well.
const (
	MaxNodes = 20_000    // values, what is repeated counted each time
	MaxDepth = 24        // of values within values
	MaxText  = 512 << 10 // bytes of all values, variables put in
)

// kind is what a value is.
type kind uint8

const (
	scalar kind = iota
	list
	mapping
)

// node is a value of the file, with what it repeats and merges in its place.
type node struct {
	line    int
	kind    kind
	value   any // of a scalar: nil, bool, int, float64 or string
	text    string
	entries []*node
	keys    []key
}

type key struct {
	name  string
	line  int
	value *node
	// merged: it comes from a mapping that is repeated here.
	merged bool
}

// get returns the value below keys, or nil. An entry of a list is its number.
func (n *node) get(path ...string) *node {
	for _, name := range path {
		if n = n.child(name); n == nil {
			return nil
		}
	}
	return n
}

func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	for _, k := range n.keys {
		if k.name == name {
			return k.value
		}
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.entries) {
		return n.entries[i]
	}
	return nil
}

// lineOf is the line of the key behind a path, or of the last key of it that is
// there.
func (n *node) lineOf(path ...string) int {
	line := n.line
	for _, name := range path {
		next := n.child(name)
		if next == nil {
			break
		}
		line = next.line
		for _, k := range n.keys {
			if k.name == name {
				line = k.line
			}
		}
		n = next
	}
	return line
}

// reader makes nodes, and spends what a file may mean.
type reader struct {
	nodes, text int
	variables   map[string]string
}

// parse reads a file of one document.
func parse(file []byte, variables map[string]string) (*node, error) {
	d := yaml.NewDecoder(bytes.NewReader(file))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, at(0, "the file is empty")
		}
		return nil, ofLibrary(err)
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, at(more.Line, "a file has one document; leave out what follows \"---\"")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, at(0, "a file begins with \"services:\"")
	}
	r := reader{nodes: MaxNodes, text: MaxText, variables: variables}
	root, err := r.node(doc.Content[0], 0)
	if err != nil {
		return nil, err
	}
	if root.kind != mapping {
		return nil, at(root.line, "a file begins with \"services:\", and below it the name of each service")
	}
	return root, nil
}

// ofLibrary takes the line out of an error of the YAML library.
func ofLibrary(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if digits, said, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(digits); err == nil {
				return at(line, "%s", said)
			}
		}
	}
	return at(0, "%.200s", text)
}

func (r *reader) node(n *yaml.Node, depth int) (*node, error) {
	if r.nodes--; r.nodes < 0 {
		return nil, at(n.Line, "the file means more than %d values, with all that it repeats", MaxNodes)
	}
	if depth > MaxDepth {
		return nil, at(n.Line, "values stand more than %d deep in each other", MaxDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return r.node(n.Alias, depth+1) // a circle ends at the depth
	case yaml.ScalarNode:
		return r.scalar(n)
	case yaml.SequenceNode:
		if n.Tag != "!!seq" {
			return nil, tagged(n)
		}
		out := &node{line: n.Line, kind: list}
		for _, c := range n.Content {
			e, err := r.node(c, depth+1)
			if err != nil {
				return nil, err
			}
			out.entries = append(out.entries, e)
		}
		return out, nil
	case yaml.MappingNode:
		return r.mapping(n, depth)
	case yaml.DocumentNode:
	}
	return nil, at(n.Line, "this is no value")
}

func tagged(n *yaml.Node) error {
	return at(n.Line, "the tag %.20q has no meaning here; the file stands alone, so that there is nothing to reset or override", n.Tag)
}

func (r *reader) mapping(n *yaml.Node, depth int) (*node, error) {
	if n.Tag != "!!map" {
		return nil, tagged(n)
	}
	out := &node{line: n.Line, kind: mapping}
	place := map[string]int{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag == "!!merge" {
			merges = append(merges, v)
			continue
		}
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			return nil, at(k.Line, "a key is one word")
		}
		if r.text -= len(k.Value); r.text < 0 {
			return nil, tooMuchText(k.Line)
		}
		if _, twice := place[k.Value]; twice {
			return nil, at(k.Line, "%.40q stands here twice", k.Value)
		}
		value, err := r.node(v, depth+1)
		if err != nil {
			return nil, err
		}
		place[k.Value] = len(out.keys)
		out.keys = append(out.keys, key{name: k.Value, line: k.Line, value: value})
	}
	for _, m := range merges { // what stands here counts, then the first that is merged
		if err := r.merge(out, place, m, depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *reader) merge(out *node, place map[string]int, m *yaml.Node, depth int) error {
	merged, err := r.node(m, depth+1)
	if err != nil {
		return err
	}
	from := []*node{merged}
	if merged.kind == list {
		from = merged.entries
	}
	for _, f := range from {
		if f.kind != mapping {
			return at(m.Line, "<< merges a mapping, or a list of mappings")
		}
		for _, k := range f.keys {
			if _, there := place[k.name]; !there {
				place[k.name] = len(out.keys)
				k.merged = true
				out.keys = append(out.keys, k)
			}
		}
	}
	return nil
}

func tooMuchText(line int) error {
	return at(line, "the file means more than %d KiB of text, with all that it repeats", MaxText>>10)
}

func (r *reader) scalar(n *yaml.Node) (*node, error) {
	text := n.Value
	if strings.ContainsRune(text, '$') {
		var err error
		if text, err = substitute(text, r.variables, min(r.text, maxValue)); err != nil {
			return nil, at(n.Line, "%v", err)
		}
	}
	if r.text -= len(text); r.text < 0 {
		return nil, tooMuchText(n.Line)
	}
	out := &node{line: n.Line, text: text, value: text}
	put := *n
	if put.Value = text; text != n.Value && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		put.Tag = "" // "${N}" is a number where N is one
	}
	switch put.ShortTag() {
	case "!!null":
		out.value = nil
	case "!!bool", "!!int", "!!float":
		var v any
		if err := put.Decode(&v); err != nil {
			return nil, ofLibrary(err)
		}
		switch v := v.(type) {
		case bool, int:
			out.value = v
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, at(n.Line, "%s is no number", text)
			}
			out.value = v
		case int64, uint64: // beyond int: too much for anything here
			out.value = fmt.Sprint(v)
		}
	case "!!str", "!!timestamp", "!!merge":
	default:
		return nil, tagged(n)
	}
	return out, nil
}
