package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

// MaxFileBytes is the largest file that Read reads.
const MaxFileBytes = 256 << 10

// LeastBare is the least number that is taken as one of bytes where no unit
// stands behind it.
const LeastBare = 4 << 20

// What a service gets whose file does not say [SERVICE-14].
const (
	DefaultMilliCPU    = 500
	DefaultMemoryBytes = 256 << 20
	DefaultDiskBytes   = 1 << 30
	DefaultInterval    = 10 // seconds
	DefaultTimeout     = 5
	DefaultRetries     = 3
	DefaultStop        = 10
	probeSeconds       = 5
)

// file is what people write.
type file struct {
	Services yaml.Node `yaml:"services"`
	Volumes  yaml.Node `yaml:"volumes"`
	Probe    string    `yaml:"probe"`
	Class    string    `yaml:"class"`
}

type entry struct {
	Image     string    `yaml:"image"`
	Command   []string  `yaml:"command"`
	Args      []string  `yaml:"args"`
	Env       yaml.Node `yaml:"env"`
	WorkDir   string    `yaml:"workdir"`
	User      string    `yaml:"user"`
	Ports     []uint64  `yaml:"ports"`
	CPU       string    `yaml:"cpu"`
	Memory    string    `yaml:"memory"`
	Disk      string    `yaml:"disk"`
	Depends   yaml.Node `yaml:"depends"`
	Health    *health   `yaml:"health"`
	Restart   string    `yaml:"restart"`
	Job       bool      `yaml:"job"`
	Stop      string    `yaml:"stop"`
	Egress    yaml.Node `yaml:"egress"`
	Publish   []string  `yaml:"publish"`
	Bandwidth string    `yaml:"bandwidth"`
	HTTP      string    `yaml:"http"` // path of the probe, or none
	Mounts    []string  `yaml:"mounts"`
}

type health struct {
	Command  []string `yaml:"command"`
	HTTP     string   `yaml:"http"`
	TCP      uint64   `yaml:"tcp"`
	Interval string   `yaml:"interval"`
	Timeout  string   `yaml:"timeout"`
	Start    string   `yaml:"start"`
	Retries  uint64   `yaml:"retries"`
}

// Read reads a manifest that people wrote, YAML or JSON [SERVICE-14]. What it
// returns is valid. Errors match [lease.CodeManifest], name the service, and are a
// [*LineError] where the fault is in one place.
func Read(data []byte) (lease.Manifest, error) {
	var none lease.Manifest
	if len(data) > MaxFileBytes {
		return none, refuse("a file of more than %d bytes", MaxFileBytes)
	}
	var f file
	if err := decode(data, &f); err != nil {
		return none, err
	}
	if f.Services.Kind != yaml.MappingNode || len(f.Services.Content) == 0 {
		return none, refuse("\"services\" names each service, and under its name what it is")
	}
	m := lease.Manifest{Version: lease.ManifestVersion}
	probes := map[string]lease.Probe{}
	names, nodes := map[string]*yaml.Node{}, map[string]*yaml.Node{}
	for i := 0; i < len(f.Services.Content); i += 2 {
		key, node := f.Services.Content[i], f.Services.Content[i+1]
		name := key.Value
		s, probe, err := service(name, node)
		if err != nil {
			return none, said(name, located(node, key.Line, err))
		}
		if names[name] != nil {
			return none, atLine(key.Line, refuse("there are two services %.40q", name))
		}
		names[name], nodes[name] = key, node
		m.Services = append(m.Services, s)
		probes[name] = probe
	}
	dependencies(m.Services)
	var err error
	if m.Volumes, err = volumes(&f.Volumes); err != nil {
		return none, err
	}
	name := cmp.Or(f.Probe, probed(m.Services))
	m.Probe = probes[name]
	m.Probe.Service, m.Probe.TimeoutSeconds = name, probeSeconds
	m.Demand(f.Class)
	if err := m.Validate(); err != nil {
		return none, culprit(m, probes, names, nodes, resolved(&f.Volumes), err)
	}
	return m, nil
}

// said names the service that an error is about, behind its line.
func said(name string, err error) error {
	if at := new(LineError); errors.As(err, &at) {
		return &LineError{at.Line, said(name, at.Err)}
	}
	return &lease.Error{Code: lease.CodeManifest, Detail: fmt.Sprintf("service %.40q", name), Err: err}
}

// probed is the service that the tenant looks at when nobody says: the first
// with a port, else the first that is no job, else the first.
func probed(list []lease.Service) string {
	for _, ok := range []func(lease.Service) bool{
		func(s lease.Service) bool { return len(s.Ports) > 0 },
		func(s lease.Service) bool { return !s.Job },
	} {
		if i := slices.IndexFunc(list, ok); i >= 0 {
			return list[i].Name
		}
	}
	return list[0].Name
}

func decode(data []byte, v any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return refuse("the file is empty")
		}
		return atLine(lineOf(err), refuse("%s", told(err)))
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return atLine(more.Line, refuse("a file has one document"))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || resolved(doc.Content[0]).Kind != yaml.MappingNode {
		return refuse("a file begins with \"services:\", and below it the name of each service")
	}
	return strict(doc.Content[0], v)
}

// told says what is wrong in a file without this package's own names. The line is
// said beside it.
func told(err error) string {
	var faults *yaml.TypeError
	if !errors.As(err, &faults) {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if _, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(text, "line ") {
			text = rest
		}
		return text
	}
	var out []string
	for _, text := range faults.Errors {
		if _, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(text, "line ") {
			text = rest
		}
		if field, ok := strings.CutPrefix(text, "field "); ok {
			if word, _, ok := strings.Cut(field, " not found in type "); ok {
				text = fmt.Sprintf("there is no word %q here", word)
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// strict decodes a part of the file, and refuses what it does not know.
func strict(n *yaml.Node, v any) error {
	err := n.Decode(v)
	if faults := new(yaml.TypeError); err == nil || errors.As(err, &faults) { // there is no circle in it
		if err := known(n, reflect.TypeOf(v)); err != nil {
			return err
		}
	}
	if err != nil {
		return atLine(lineOf(err), refuse("%s", told(err)))
	}
	return nil
}

// service reads one service, and how it would be probed: at the first port that
// is written.
func service(name string, n *yaml.Node) (lease.Service, lease.Probe, error) {
	var e entry
	var probe lease.Probe
	if err := strict(n, &e); err != nil {
		return lease.Service{}, probe, err
	}
	s := lease.Service{
		Name: name, Image: e.Image, Args: e.Command, WorkDir: e.WorkDir, User: e.User, Ports: slices.Sorted(slices.Values(e.Ports)), Job: e.Job,
	}
	if i := strings.LastIndex(e.Image, "@sha256:"); i > 0 {
		s.Digest = e.Image[i+1:]
	}
	if len(e.Ports) == 0 && e.HTTP != "" && e.HTTP != "none" {
		return s, probe, in("http", refuse("the tenant's probe asks for %.40q at the first of the \"ports\", and there are none", e.HTTP))
	}
	if len(e.Ports) > 0 {
		probe.Port, probe.HTTPPath = e.Ports[0], cmp.Or(e.HTTP, "/")
	}
	if e.HTTP == "none" {
		probe.HTTPPath = ""
	}
	if e.Args != nil {
		if len(e.Command) > 0 {
			return s, probe, in("args", refuse("\"command\" is the whole command line, and \"args\" what the image's entrypoint gets; write one of them"))
		}
		s.Args, s.Entrypoint = e.Args, true
	}
	var err error
	if s.Resources, err = resources(e); err != nil {
		return s, probe, err
	}
	if s.Env, err = environment(&e.Env); err != nil {
		return s, probe, in("env", err)
	}
	if s.Depends, err = depends(&e.Depends); err != nil {
		return s, probe, in("depends", err)
	}
	if s.Restart, err = restart(e); err != nil {
		return s, probe, in("restart", err)
	}
	if s.Stop, err = seconds(e.Stop, DefaultStop); err != nil {
		return s, probe, in("stop", err)
	}
	if err = e.network(&s); err != nil {
		return s, probe, err
	}
	for _, text := range e.Mounts {
		m, err := parseMount(text)
		if err != nil {
			return s, probe, in("mounts", err)
		}
		s.Mounts = append(s.Mounts, m)
	}
	if e.Health != nil {
		s.Health, err = e.Health.check()
	}
	return s, probe, in("health", err)
}

func resources(e entry) (r market.Resources, err error) {
	r = market.Resources{MilliCPU: DefaultMilliCPU, MemoryBytes: DefaultMemoryBytes, DiskBytes: DefaultDiskBytes}
	if e.CPU != "" {
		cores, err := strconv.ParseFloat(e.CPU, 64)
		if err != nil || !(cores > 0) || cores > 1<<20 {
			return r, in("cpu", refuse("cpu %.40q is no number of cores, such as 0.5", e.CPU))
		}
		r.MilliCPU = uint64(math.Round(cores * 1000))
	}
	if r.MemoryBytes, err = size(e.Memory, r.MemoryBytes); err != nil {
		return r, in("memory", err)
	}
	r.DiskBytes, err = size(e.Disk, r.DiskBytes)
	return r, in("disk", err)
}

var units = []struct {
	suffix string
	bytes  uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// size reads a number of bytes, such as 256MiB.
func size(text string, otherwise uint64) (uint64, error) {
	if text == "" {
		return otherwise, nil
	}
	number, unit := text, uint64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
	if err != nil || n > math.MaxUint64/unit {
		return 0, refuse("%.40q is no size, such as 256MiB or 2GiB", text)
	}
	if number == text && n < LeastBare {
		return 0, refuse("%s is a number of bytes; did you mean %[1]sMiB?", text)
	}
	return n * unit, nil
}

// seconds reads a time, such as 10s or 5m, or whole seconds.
func seconds(text string, otherwise uint64) (uint64, error) {
	if text == "" {
		return otherwise, nil
	}
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return n, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d%time.Second != 0 {
		return 0, refuse("%.40q is no time in whole seconds, such as 10s or 5m", text)
	}
	return uint64(d / time.Second), nil
}

// environment reads NAME: value, or a list of NAME=value.
func environment(n *yaml.Node) ([]string, error) {
	var out []string
	switch n.Kind {
	case 0:
		return nil, nil
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i+1].Kind != yaml.ScalarNode {
				return nil, refuse("the value of %.40q in env is no text", n.Content[i].Value)
			}
			out = append(out, n.Content[i].Value+"="+n.Content[i+1].Value)
		}
		return out, nil
	case yaml.SequenceNode:
		return out, n.Decode(&out)
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	return nil, refuse("env is NAME: value, or a list of NAME=value")
}

// depends reads SERVICE: condition, or a list of services.
func depends(n *yaml.Node) ([]lease.Dependency, error) {
	var out []lease.Dependency
	switch n.Kind {
	case 0:
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			out = append(out, lease.Dependency{Service: n.Content[i].Value, When: n.Content[i+1].Value})
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			out = append(out, lease.Dependency{Service: c.Value})
		}
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
		return nil, refuse("depends is SERVICE: started, healthy or completed, or a list of services")
	}
	return out, nil
}

// dependencies says what is waited for where nobody did: the end of a job,
// health where there is a check, and else the start.
func dependencies(list []lease.Service) {
	for i := range list {
		for k, d := range list[i].Depends {
			on := slices.IndexFunc(list, func(s lease.Service) bool { return s.Name == d.Service })
			if d.When != "" || on < 0 {
				continue
			}
			when := lease.WhenStarted
			switch {
			case list[on].Job:
				when = lease.WhenCompleted
			case list[on].Health.Check != lease.CheckNone:
				when = lease.WhenHealthy
			}
			list[i].Depends[k].When = when
		}
	}
}

// restart reads no, always, on-failure, or on-failure:3.
func restart(e entry) (lease.Restart, error) {
	policy, most, ok := strings.Cut(e.Restart, ":")
	r := lease.Restart{Policy: policy}
	if policy == "" {
		r.Policy = lease.RestartAlways
		if e.Job {
			r.Policy = lease.RestartNo
		}
	}
	if ok {
		n, err := strconv.ParseUint(most, 10, 32)
		if err != nil || n == 0 {
			return r, refuse("restart %.40q has no number of times behind the colon", e.Restart)
		}
		r.Max = n
	}
	return r, nil
}

func (h health) check() (out lease.Health, err error) {
	out.Retries = cmp.Or(h.Retries, DefaultRetries)
	if out.Interval, err = seconds(h.Interval, DefaultInterval); err != nil {
		return out, in("interval", err)
	}
	if out.Timeout, err = seconds(h.Timeout, DefaultTimeout); err != nil {
		return out, in("timeout", err)
	}
	if out.Start, err = seconds(h.Start, 0); err != nil {
		return out, in("start", err)
	}
	ways := 0
	if len(h.Command) > 0 {
		ways++
		out.Check, out.Command = lease.CheckCommand, h.Command
	}
	if h.TCP != 0 {
		ways++
		out.Check, out.Port = lease.CheckTCP, h.TCP
	}
	if h.HTTP != "" {
		ways++
		port, path, _ := strings.Cut(h.HTTP, "/")
		out.Check, out.Path = lease.CheckHTTP, "/"+path
		if out.Port, err = strconv.ParseUint(port, 10, 16); err != nil {
			return out, in("http", refuse("an HTTP check %.40q is no PORT/PATH, such as 8080/health", h.HTTP))
		}
	}
	if ways != 1 {
		return out, refuse("a health check has one of command, http and tcp")
	}
	return out, nil
}

func refuse(format string, args ...any) error {
	return lease.Refusal(lease.CodeManifest, format, args...)
}
