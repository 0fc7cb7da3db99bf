package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/lease"
)

// LineError says at which line of a file something is wrong.
type LineError struct {
	Line int // from 1
	Err  error
}

// Error begins with the line.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// atLine adds a line to an error that has none yet.
func atLine(line int, err error) error {
	if known := new(LineError); err == nil || line <= 0 || errors.As(err, &known) {
		return err
	}
	return &LineError{line, err}
}

// wordError is an error about a word of a service.
type wordError struct {
	word string
	err  error
}

func (e *wordError) Error() string { return e.err.Error() }
func (e *wordError) Unwrap() error { return e.err }

// in says which word an error is about, if it is one.
func in(word string, err error) error {
	if err == nil || word == "" {
		return err
	}
	return &wordError{word, err}
}

// located adds the line of what an error is about: that of the word in a
// mapping, and of the words in it.
func located(n *yaml.Node, otherwise int, err error) error {
	about := err
	for e := new(wordError); errors.As(about, &e); about = e.err {
		key, value := lookup(n, e.word)
		if key == nil {
			break
		}
		n, otherwise = value, key.Line
	}
	return atLine(otherwise, err)
}

// lookup finds a word in a mapping.
func lookup(n *yaml.Node, word string) (key, value *yaml.Node) {
	if n = resolved(n); n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == word {
				return n.Content[i], n.Content[i+1]
			}
		}
	}
	return nil, nil
}

// resolved is what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// lineOf takes the line out of an error of the YAML library, which has it in its
// text alone. 0: it has none.
func lineOf(err error) int {
	text := err.Error()
	if faults := new(yaml.TypeError); errors.As(err, &faults) {
		text = faults.Errors[0]
	}
	_, rest, ok := strings.Cut(text, "line ")
	digits, _, _ := strings.Cut(rest, ":")
	if line, err := strconv.Atoi(digits); ok && err == nil {
		return line
	}
	return 0
}

// known refuses words that a struct does not have. What a mapping merges from
// elsewhere is looked at too; the library has found no circle in it before.
func known(n *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n = resolved(n); n.Kind != yaml.MappingNode || t.Kind() != reflect.Struct || t == reflect.TypeFor[yaml.Node]() {
		return nil
	}
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields[name] = f.Type
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			merged := []*yaml.Node{value}
			if value.Kind == yaml.SequenceNode {
				merged = value.Content
			}
			for _, m := range merged {
				if err := known(m, t); err != nil {
					return err
				}
			}
			continue
		}
		field, ok := fields[key.Value]
		if !ok {
			return atLine(key.Line, refuse("there is no word %.40q here%s", key.Value, instead(key.Value, fields)))
		}
		if err := cmp.Or(shape(key, value, field), known(value, field)); err != nil {
			return err
		}
	}
	return nil
}

// culprit adds to a refusal of the whole manifest the line of what is at fault:
// of the volume without whose fault all is good; of the first service that is
// refused also alone, and in it of the word without which it is not; or, where
// each alone is good, of what the first waits for without which all is.
func culprit(m lease.Manifest, probes map[string]lease.Probe, names, nodes map[string]*yaml.Node, sizes *yaml.Node, err error) error {
	for i, v := range m.Volumes {
		fair, gone := m, m
		fair.Volumes, gone.Volumes = slices.Clone(m.Volumes), slices.Delete(slices.Clone(m.Volumes), i, i+1)
		fair.Volumes[i].SizeBytes = lease.MinVolumeBytes
		if fair.Validate() == nil || gone.Validate() == nil {
			return located(sizes, sizes.Line, &wordError{v.Name, err})
		}
	}
	for _, s := range m.Services {
		alone := m
		s.Depends = nil
		alone.Services, alone.Probe = []lease.Service{s}, probes[s.Name]
		alone.Volumes = slices.DeleteFunc(slices.Clone(m.Volumes), func(v lease.Volume) bool {
			return !slices.ContainsFunc(s.Mounts, func(o lease.Mount) bool { return o.Volume == v.Name })
		})
		alone.Probe.Service, alone.Probe.TimeoutSeconds = s.Name, probeSeconds
		if alone.Validate() != nil {
			return located(nodes[s.Name], names[s.Name].Line, in(faulty(alone), err))
		}
	}
	for i, s := range m.Services {
		without := m
		without.Services = slices.Clone(m.Services)
		without.Services[i].Depends = nil
		if len(s.Depends) > 0 && without.Validate() == nil {
			return located(nodes[s.Name], names[s.Name].Line, &wordError{"depends", err})
		}
	}
	return err
}

// faulty is the word of a lease's only service without which it is good, or "".
func faulty(m lease.Manifest) string {
	for _, w := range []struct {
		word string
		drop func(s *lease.Service, p *lease.Probe)
	}{
		{"image", func(s *lease.Service, _ *lease.Probe) { s.Image, s.Digest = "x", "" }},
		{"command", func(s *lease.Service, _ *lease.Probe) { s.Args = nil }},
		{"args", func(s *lease.Service, _ *lease.Probe) { s.Args = nil }},
		{"env", func(s *lease.Service, _ *lease.Probe) { s.Env = nil }},
		{"workdir", func(s *lease.Service, _ *lease.Probe) { s.WorkDir = "" }},
		{"user", func(s *lease.Service, _ *lease.Probe) { s.User = "" }},
		{"http", func(_ *lease.Service, p *lease.Probe) { p.HTTPPath = "" }},
		{"ports", func(s *lease.Service, p *lease.Probe) { s.Ports, p.Port, p.HTTPPath = nil, 0, "" }},
		{"cpu", func(s *lease.Service, _ *lease.Probe) { s.Resources.MilliCPU = DefaultMilliCPU }},
		{"memory", func(s *lease.Service, _ *lease.Probe) { s.Resources.MemoryBytes = DefaultMemoryBytes }},
		{"disk", func(s *lease.Service, _ *lease.Probe) { s.Resources.DiskBytes = DefaultDiskBytes }},
		{"restart", func(s *lease.Service, _ *lease.Probe) { s.Restart = lease.Restart{Policy: lease.RestartNo} }},
		{"stop", func(s *lease.Service, _ *lease.Probe) { s.Stop = DefaultStop }},
		{"health", func(s *lease.Service, _ *lease.Probe) { s.Health = lease.Health{} }},
		{"egress", func(s *lease.Service, _ *lease.Probe) { s.Egress, s.Bandwidth = nil, 0 }},
		{"publish", func(s *lease.Service, _ *lease.Probe) { s.Publish, s.Bandwidth = nil, 0 }},
		{"bandwidth", func(s *lease.Service, _ *lease.Probe) { s.Bandwidth = 0 }},
		{"job", func(s *lease.Service, _ *lease.Probe) { s.Job = false }},
	} {
		if fair(m, w.drop) {
			return w.word
		}
	}
	m.Volumes = nil
	if fair(m, func(s *lease.Service, _ *lease.Probe) { s.Mounts = nil }) {
		return "mounts"
	}
	return ""
}

// fair reports whether a lease of one service is good once something is changed.
func fair(m lease.Manifest, change func(*lease.Service, *lease.Probe)) bool {
	m.Services = slices.Clone(m.Services)
	change(&m.Services[0], &m.Probe)
	return m.Validate() == nil
}
