package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/market"
)

// What a file gets that does not say [SERVICE-38].
const (
	DefaultVolumeBytes = 1 << 30
	// MaxListed bounds services, ports and the like of a file before it is known
	// how many are wanted.
	MaxListed = 256

	defaultInterval = 30 // seconds, as Compose has it
	defaultRetries  = 3
	probeSeconds    = 5
)

// Options are what a file may be given from outside. The zero value gives it
// nothing.
type Options struct {
	// Variables are for the ${NAME} of the file, and for names in an environment
	// that have no value there.
	Variables map[string]string
	// Profiles names those whose services run.
	Profiles []string
	// Egress is where services connect that do not say, as [lease.Service] has it.
	Egress []string
}

// converter makes a manifest of one file.
type converter struct {
	notes
	options Options
	root    *node
	project *types.Project
	left    []string          // services whose profiles nobody named
	names   map[string]string // of services here, by theirs
	volumes map[string]string
	jobs    map[string]bool
	m       lease.Manifest
	probes  map[string]lease.Probe
}

// Convert makes a manifest of a file of Compose [SERVICE-38]. It is valid.
// Warnings say what means here not quite the same; errors are [*Faults], which
// match [lease.CodeManifest], and say at which lines the file asks for what a
// lease does not have.
func Convert(file []byte, o Options) (lease.Manifest, []Warning, error) {
	c := &converter{options: o, names: map[string]string{}, volumes: map[string]string{}, jobs: map[string]bool{}, probes: map[string]lease.Probe{}}
	err := c.convert(file)
	if err != nil {
		if faults := new(Faults); !errors.As(err, &faults) {
			err = &Faults{[]error{err}}
		}
		return lease.Manifest{}, c.sorted(), err
	}
	return c.m, c.sorted(), nil
}

func (c *converter) convert(file []byte) (err error) {
	if len(file) > manifest.MaxFileBytes {
		return at(0, "a file of more than %d KiB", manifest.MaxFileBytes>>10)
	}
	if c.root, err = parse(file, c.options.Variables); err != nil {
		return err
	}
	if err := c.bounds(); err != nil {
		return err
	}
	c.byProfile()
	left := c.check()
	for _, k := range c.root.get("services").keys {
		if k.value.get("image") == nil && k.value.get("build") == nil && !slices.Contains(c.left, k.name) {
			c.fault(k.line, k.name, "it has no image")
		}
	}
	if err := c.err(); err != nil {
		return err
	}
	if err := c.load(left); err != nil {
		return err
	}
	c.naming()
	c.whichEnd()
	c.m.Version = lease.ManifestVersion
	for _, k := range c.root.get("services").keys {
		if s, ok := c.project.Services[k.name]; ok {
			c.service(k, s)
		}
	}
	c.makeVolumes()
	c.top()
	if err := c.err(); err != nil {
		return err
	}
	if err := c.m.Validate(); err != nil {
		return c.culprit(err)
	}
	return nil
}

// bounds refuses what is too much before the library sees it.
func (c *converter) bounds() error {
	s := c.root.get("services")
	if s == nil || s.kind != mapping || len(s.keys) == 0 {
		return at(c.root.lineOf("services"), "\"services\" names each service, and under its name what it is")
	}
	if len(s.keys) > MaxListed {
		return at(c.root.lineOf("services"), "the file has %d services; a lease has at most %d", len(s.keys), lease.MaxServices)
	}
	for _, k := range s.keys {
		if k.value.kind != mapping {
			return at(k.line, "service %.40q: under its name stands what it is, such as image: example.org/app:1", k.name)
		}
		for _, word := range []string{"ports", "expose"} {
			for i, p := range k.value.get(word).all() {
				if i >= MaxListed || wide(p) {
					return at(p.line, "service %.40q: a service has at most %d ports; name those that it needs", k.name, lease.MaxPorts)
				}
			}
		}
	}
	return nil
}

func (n *node) all() []*node {
	if n == nil {
		return nil
	}
	return n.entries
}

// wide reports whether a port, or one of its parts, is a range of more ports than
// a service has.
func wide(p *node) bool {
	texts := []string{p.text}
	for _, k := range p.keys {
		texts = append(texts, k.value.text)
	}
	for _, text := range texts {
		text, _, _ = strings.Cut(text, "/")
		for part := range strings.SplitSeq(text, ":") {
			from, to, ok := strings.Cut(part, "-")
			if ok && number(to) >= number(from)+lease.MaxPorts {
				return true
			}
		}
	}
	return false
}

// number reads one of at most six digits; what is none is 0, and refused later.
func number(text string) (n int) {
	for _, c := range text {
		if c < '0' || c > '9' || n > 99_999 {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// byProfile leaves out services whose profiles nobody named.
func (c *converter) byProfile() {
	for _, k := range c.root.get("services").keys {
		profiles := k.value.get("profiles").all()
		if len(profiles) == 0 || slices.ContainsFunc(profiles, func(p *node) bool {
			return slices.Contains(c.options.Profiles, p.text) || slices.Contains(c.options.Profiles, "*")
		}) {
			continue
		}
		c.left = append(c.left, k.name)
		c.warn(k.value.lineOf("profiles"), k.name, "it is left out: nobody asked for its profile %s; --profile does", profiles[0].text)
	}
}

// load has the library check what is left by the schema of Compose, and bring
// short forms into long ones. It gets values and no file, reads nothing, and
// looks up nothing: what would have it do so has been refused.
func (c *converter) load(left map[string]any) (err error) {
	defer func() {
		if p := recover(); p != nil { // a library's fault ends a file, and not a node
			err = at(0, "the file cannot be read: %.200v", p)
		}
	}()
	delete(left, "version")
	delete(left, "name")
	details := types.ConfigDetails{ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Config: left}}, Environment: types.Mapping{}}
	c.project, err = loader.LoadWithContext(context.Background(), details, func(o *loader.Options) {
		o.SetProjectName("lease", true)
		o.SkipInclude, o.SkipExtends, o.SkipResolveEnvironment, o.SkipResolveLabels, o.SkipNormalization = true, true, true, true, true
		o.ResolvePaths, o.Interpolate = false, nil
		o.Profiles = []string{"*"}
	})
	if err != nil {
		return c.located(err)
	}
	return nil
}

// located finds the line of an error of the library, which begins with the path of
// what is wrong, or names it in its text.
func (c *converter) located(err error) error {
	text := strings.TrimPrefix(err.Error(), "validating compose.yaml: ")
	line := 0
	for word := range strings.FieldsSeq(text) {
		word = strings.Trim(word, `:"',`)
		word = strings.NewReplacer("[", ".", "]", "").Replace(word)
		path := strings.Split(word, ".")
		if len(path) > 1 && c.root.get(path[0]) != nil {
			line = c.root.lineOf(path...)
			break
		}
	}
	if line == 0 {
		_, rest, _ := strings.Cut(text, `service "`)
		if name, _, ok := strings.Cut(rest, `"`); ok {
			line = c.root.lineOf("services", name)
		}
	}
	return at(line, "%.300s", text)
}

// naming gives services and volumes names that a lease takes.
func (c *converter) naming() {
	taken := map[string]string{}
	for _, k := range c.root.get("services").keys {
		if _, ok := c.project.Services[k.name]; !ok {
			continue
		}
		name := plainName(k.name)
		if other, ok := taken[name]; ok {
			c.fault(k.line, k.name, "it and %q would both be called %s here; rename one", other, name)
		}
		if name != k.name {
			c.warn(k.line, k.name, "it is called %s here, and other services reach it by that name; mend what names it", name)
		}
		taken[name], c.names[k.name] = k.name, name
	}
	taken = map[string]string{}
	if v := c.root.get("volumes"); v != nil {
		for _, k := range v.keys {
			name := plainName(k.name)
			if other, ok := taken[name]; ok {
				c.fault(k.line, "", "the volumes %q and %q would both be called %s here; rename one", other, k.name, name)
			}
			taken[name], c.volumes[k.name] = k.name, name
		}
	}
}

func plainName(s string) string {
	return strings.Trim(strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(s)), "-")
}

// whichEnd finds the services that are meant to end: those of which others wait
// for the end, and those that say so.
func (c *converter) whichEnd() {
	for _, s := range c.project.Services {
		for name, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				c.jobs[name] = true
			}
		}
	}
	for _, k := range c.root.get("services").keys {
		if n := k.value.get(extension, "job"); n != nil {
			c.jobs[k.name] = n.value == true
		}
	}
}

// culprit adds to a refusal of the whole manifest the line of the service that is
// at fault.
func (c *converter) culprit(err error) error {
	said := lease.Plainly(err)
	for _, k := range c.root.get("services").keys {
		name, ok := c.names[k.name]
		if !ok {
			continue
		}
		i := slices.IndexFunc(c.m.Services, func(s lease.Service) bool { return s.Name == name })
		if i < 0 {
			continue
		}
		alone := c.m
		s := c.m.Services[i]
		s.Depends = nil
		alone.Services, alone.Probe = []lease.Service{s}, lease.Probe{Service: s.Name}
		alone.Volumes = slices.DeleteFunc(slices.Clone(c.m.Volumes), func(v lease.Volume) bool {
			return !slices.ContainsFunc(s.Mounts, func(o lease.Mount) bool { return o.Volume == v.Name })
		})
		if alone.Validate() != nil || strings.HasPrefix(said, "service "+name+":") {
			return at(c.lineWithin(k, said), "%s", said)
		}
	}
	for theirs, name := range c.volumes {
		if strings.HasPrefix(said, "volume "+name+" ") {
			return at(c.root.lineOf("volumes", theirs), "%s", said)
		}
	}
	return at(0, "%s", said)
}

// lineWithin is the line of the key of a service that a refusal is about, as far
// as its words tell.
func (c *converter) lineWithin(k key, said string) int {
	for _, w := range []struct{ word, key string }{
		{"image", "image"},
		{"environment", "environment"},
		{"argument", "command"},
		{"working directory", "working_dir"},
		{"user", "user"},
		{"memory", "mem_limit"},
		{"memory", "deploy"},
		{"core", "cpus"},
		{"core", "deploy"},
		{"end by itself", "stop_grace_period"},
		{"mount", "volumes"},
		{"volume", "volumes"},
		{"published port", "ports"},
		{"port", "expose"},
		{"port", "ports"},
		{"check", "healthcheck"},
		{"restart", "restart"},
		{"wait", "depends_on"},
		{"egress", extension},
		{"bandwidth", extension},
	} {
		if strings.Contains(said, w.word) && k.value.get(w.key) != nil {
			return k.value.lineOf(w.key)
		}
	}
	return k.line
}

// resources is what a service uses.
func (c *converter) resources(k key, s types.ServiceConfig) market.Resources {
	r := market.Resources{MilliCPU: manifest.DefaultMilliCPU, MemoryBytes: manifest.DefaultMemoryBytes, DiskBytes: manifest.DefaultDiskBytes}
	cpu, memory := float64(s.CPUS), int64(s.MemLimit)
	reserved := int64(s.MemReservation)
	if s.Deploy != nil {
		if l := s.Deploy.Resources.Limits; l != nil {
			cpu, memory = max(cpu, float64(l.NanoCPUs.Value())), max(memory, int64(l.MemoryBytes))
		}
		if l := s.Deploy.Resources.Reservations; l != nil {
			if cpu == 0 {
				cpu = float64(l.NanoCPUs.Value())
			}
			reserved = max(reserved, int64(l.MemoryBytes))
		}
	}
	if memory == 0 {
		memory = reserved
	}
	var lacks []string
	switch {
	case cpu > 0 && cpu < 1<<20:
		r.MilliCPU = uint64(cpu*1000 + 0.5)
	case cpu != 0:
		c.fault(k.line, k.name, "%v is no number of cores, such as 0.5", cpu)
	default:
		lacks = append(lacks, fmt.Sprintf("%.1f cores", float64(r.MilliCPU)/1000))
	}
	switch {
	case memory > 0:
		r.MemoryBytes = uint64(memory)
	case memory < 0:
		c.fault(k.line, k.name, "a memory limit of less than nothing")
	default:
		lacks = append(lacks, fmt.Sprintf("%d MiB of memory", r.MemoryBytes>>20))
	}
	if len(lacks) > 0 {
		c.warn(k.line, k.name, "it gets %s; more, or less, stands in deploy.resources.limits, or in cpus and mem_limit", strings.Join(lacks, " and "))
	}
	return r
}
