package compose

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// Format is the form of a file.
type Format string

// Formats of a file.
const (
	Compose Format = "compose"
	Native  Format = "native"
)

// Read reads a file of either form, told apart by [Detect], as [Convert] and
// [manifest.Read] do.
func Read(file []byte, o Options) (lease.Manifest, Format, []Warning, error) {
	format := Detect(file)
	if format == Compose {
		m, warnings, err := Convert(file, o)
		return m, format, warnings, err
	}
	m, err := manifest.Read(file)
	return m, format, nil, err
}

// Words by which the forms are told apart: those that one has and the other has
// not.
var (
	composeTop = []string{"version", "name", "networks", "secrets", "configs", "include", "models", "jobs", extension}
	nativeTop  = []string{"probe", "class"}
	nativeOnly = []string{"args", "bandwidth", "cpu", "depends", "disk", "egress", "env", "health", "http", "job", "memory", "mounts", "publish", "stop", "workdir"}
	common     = []string{"image", "command", "user", "ports", "restart"}
)

// Detect tells by its words which form a file has: that of which it has more words
// that the other does not know. One that could be both is native.
func Detect(file []byte) Format {
	var doc yaml.Node
	if len(file) > manifest.MaxFileBytes || yaml.Unmarshal(file, &doc) != nil || len(doc.Content) != 1 {
		return Native
	}
	compose, native := 0, 0
	count := func(yes bool, n *int) {
		if yes {
			*n++
		}
	}
	pairs(doc.Content[0], func(word string, n *yaml.Node) {
		count(slices.Contains(composeTop, word), &compose)
		count(slices.Contains(nativeTop, word), &native)
		switch word {
		case "volumes":
			pairs(n, func(_ string, v *yaml.Node) {
				count(v.Kind == yaml.MappingNode || v.Tag == "!!null", &compose)
				count(v.Kind == yaml.ScalarNode && v.Tag != "!!null", &native)
			})
		case "services":
			pairs(n, func(_ string, s *yaml.Node) {
				pairs(s, func(word string, v *yaml.Node) {
					count(slices.Contains(nativeOnly, word), &native)
					_, known := byKey[service+word]
					count(known && !slices.Contains(common, word) || word == extension, &compose)
					count(word == "command" && v.Kind == yaml.ScalarNode, &compose)
					count(word == "restart" && v.Value == "unless-stopped", &compose)
					count(word == "ports" && slices.ContainsFunc(v.Content, func(p *yaml.Node) bool { return p.Tag != "!!int" }), &compose)
				})
			})
		}
	})
	if compose > native {
		return Compose
	}
	return Native
}

// pairs goes through a mapping, if it is one.
func pairs(n *yaml.Node, each func(word string, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		each(n.Content[i].Value, n.Content[i+1])
	}
}
