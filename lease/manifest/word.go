package manifest

import (
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/internal/spelling"
)

// otherWords are what Compose files call a word, or what takes its place.
var otherWords = map[string]string{
	"environment": "it is \"env\"", "depends_on": "it is \"depends\"", "healthcheck": "it is \"health\"",
	"volumes": "a service has \"mounts\", VOLUME:PATH", "working_dir": "it is \"workdir\"", "stop_grace_period": "it is \"stop\"",
	"entrypoint": "\"command\" is the whole command line, \"args\" what follows the image's own entrypoint", "deploy": "a service has \"cpu\", \"memory\" and \"disk\"",
	"cpus": "it is \"cpu\"", "mem_limit": "it is \"memory\"", "expose": "it is \"ports\"", "version": "no version is needed",
	"networks": "services of a lease reach each other by name; for the world outside there are \"egress\" and \"publish\"",
	"test":     "it is \"command\", \"http\" or \"tcp\"", "start_period": "it is \"start\"", "build": "services run images that a registry has",
}

// instead says what to write in place of a word that is not known.
func instead(word string, fields map[string]reflect.Type) string {
	best, least := "", 3
	for name := range fields {
		if d := spelling.Distance(word, name); d < least && d < len(name) || d == least && best != "" && name < best {
			best, least = name, d
		}
	}
	switch other := otherWords[word]; {
	case other != "" && best == "":
		return "; " + other
	case best != "":
		return "; did you mean \"" + best + "\"?"
	}
	if _, service := fields["image"]; service && spelling.Distance(word, "environment") < 3 {
		return "; it is \"env\""
	}
	return ""
}

// shape refuses a value that is not of its word's kind, where what the library
// would say of it names types of this package's own.
func shape(key, n *yaml.Node, t reflect.Type) error {
	word, n := key.Value, resolved(n)
	one := n.Kind == yaml.ScalarNode
	if t == reflect.TypeFor[yaml.Node]() || one && n.Tag == "!!null" {
		return nil
	}
	switch t.Kind() { //nolint:exhaustive // words have these kinds
	case reflect.String:
		if !one {
			return atLine(key.Line, refuse("%s is one text, not several", word))
		}
	case reflect.Bool:
		var b bool
		if !one || n.Decode(&b) != nil {
			return atLine(n.Line, refuse("%s is true or false", word))
		}
	case reflect.Uint64:
		if !one || !number(n) {
			return atLine(n.Line, refuse("%s is a whole number, such as 3", word))
		}
	case reflect.Slice:
		return list(key, n, t)
	case reflect.Pointer, reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return atLine(key.Line, refuse("%s has words of its own, such as http: 8080/healthz", word))
		}
	}
	return nil
}

// list refuses what is no list, or one of other things than its word has.
func list(key, n *yaml.Node, t reflect.Type) error {
	word := key.Value
	if n.Kind != yaml.SequenceNode {
		example := `["first", "second"]`
		if word == "ports" || word == "publish" {
			example = "[8080]"
		}
		return atLine(key.Line, refuse("%s is a list, such as %s", word, example))
	}
	numbers := t.Elem().Kind() == reflect.Uint64
	if i := slices.IndexFunc(n.Content, func(c *yaml.Node) bool {
		c = resolved(c)
		return c.Kind != yaml.ScalarNode || numbers && !number(c)
	}); i >= 0 {
		line := n.Content[i].Line
		if numbers {
			return atLine(line, refuse("%s are numbers of TCP ports that the service listens on, such as 8080; what is reached from outside stands in \"publish\"", word))
		}
		return atLine(line, refuse("%s is a list of texts; entry %d is none", word, i+1))
	}
	return nil
}

func number(n *yaml.Node) bool {
	_, err := strconv.ParseUint(n.Value, 0, 64)
	return err == nil
}
