package lease

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/order"
	"github.com/pkt-cash/pkt-cloud/market"
)

// Service is one program of a lease [LEASE-3]: one that is meant to go on or,
// as a job, one that is meant to end. How services are run is told in
// spec/services.md.
type Service struct {
	Name   string   `cbor:"name" json:"name"`               // unique in the lease, a DNS label
	Image  string   `cbor:"image" json:"image"`             // an image reference
	Digest string   `cbor:"digest" json:"digest,omitempty"` // "sha256:…", or empty: whatever the reference names
	Args   []string `cbor:"args" json:"args,omitempty"`     // empty: the image's own
	// Entrypoint puts Args behind the image's entrypoint, in place of the image's own
	// arguments; without it they replace both [SERVICE-37].
	Entrypoint bool             `cbor:"entrypoint,omitempty" json:"entrypoint,omitempty"`
	Env        []string         `cbor:"env" json:"env,omitempty"`         // "NAME=value"
	WorkDir    string           `cbor:"workdir" json:"workdir,omitempty"` // empty: the image's own
	User       string           `cbor:"user" json:"user,omitempty"`       // empty: the image's own
	Ports      []uint64         `cbor:"ports" json:"ports,omitempty"`     // the TCP ports served inside, ascending
	Resources  market.Resources `cbor:"resources" json:"resources"`
	Depends    []Dependency     `cbor:"depends" json:"depends,omitempty"`
	Health     Health           `cbor:"health" json:"health,omitzero"`
	Restart    Restart          `cbor:"restart" json:"restart"`
	Job        bool             `cbor:"job" json:"job,omitempty"`
	Stop       uint64           `cbor:"stop" json:"stop,omitempty"` // seconds that it has to end by itself
	// Egress is where the service may connect outside its lease: absent, nowhere;
	// [EgressPublic] alone; or places such as "example.org:443", "192.0.2.0/24:*".
	Egress    []string        `cbor:"egress,omitempty" json:"egress,omitempty"`
	Publish   []PublishedPort `cbor:"publish,omitempty" json:"publish,omitempty"`
	Bandwidth uint64          `cbor:"bandwidth,omitempty" json:"bandwidth,omitempty"` // bytes a second outside its lease; absent: as the provider has it
	// Mounts are volumes of the lease at paths of the service's files.
	Mounts []Mount           `cbor:"mounts,omitempty" json:"mounts,omitempty"` // absent: none
	Ext    map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// Dependency is a service that another one waits for before it starts.
type Dependency struct {
	Service string `cbor:"service" json:"service"`
	When    string `cbor:"when" json:"when"` // one of the words below
}

// What a [Dependency] waits for.
const (
	WhenStarted   = "started"
	WhenHealthy   = "healthy"
	WhenCompleted = "completed" // of a job: it ended with exit code 0
)

// Health is how the provider looks whether a service is healthy.
type Health struct {
	Check    string   `cbor:"check" json:"check"`               // one of the words below
	Command  []string `cbor:"command" json:"command,omitempty"` // of a command
	Port     uint64   `cbor:"port" json:"port,omitempty"`       // of HTTP and TCP
	Path     string   `cbor:"path" json:"path,omitempty"`       // of HTTP
	Interval uint64   `cbor:"interval" json:"interval"`         // seconds
	Timeout  uint64   `cbor:"timeout" json:"timeout"`           // seconds
	Start    uint64   `cbor:"start" json:"start,omitempty"`     // seconds in which failures do not count
	Retries  uint64   `cbor:"retries" json:"retries"`           // failures in a row
}

// Checks of a [Health].
const (
	CheckNone    = ""
	CheckCommand = "command"
	CheckHTTP    = "http"
	CheckTCP     = "tcp"
)

// Restart says when a service that has ended is started again. Max bounds the
// restarts in a row after failures; zero is no bound.
type Restart struct {
	Policy string `cbor:"policy" json:"policy"` // one of the words below
	Max    uint64 `cbor:"max" json:"max,omitempty"`
}

// Policies of a [Restart].
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// DefaultServiceName is what the service of a lease is called that has one, and
// that nobody named.
const DefaultServiceName = "web"

// ValidServiceName reports whether a service may be called so: 1 to
// [MaxServiceName] of a-z, 0-9 and '-', with a letter or digit at both ends.
func ValidServiceName(s string) bool {
	ok := s != "" && len(s) <= MaxServiceName && s[0] != '-' && s[len(s)-1] != '-'
	return ok && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// ProbeService returns the service that the tenant's probe looks at, and that
// sessions mean when they name none: that of the probe, or the first one.
func (m Manifest) ProbeService() Service {
	if i := m.index(m.Probe.Service); i >= 0 {
		return m.Services[i]
	}
	if len(m.Services) == 0 {
		return Service{}
	}
	return m.Services[0]
}

// Service returns a service by its name; "" is that of ProbeService. Errors
// match [CodeUnknown].
func (m Manifest) Service(name string) (Service, error) {
	if name == "" && len(m.Services) > 0 {
		return m.ProbeService(), nil
	}
	if i := m.index(name); i >= 0 {
		return m.Services[i], nil
	}
	return Service{}, Refusal(CodeUnknown, "no service of that name in this lease; it has %s", m.names())
}

func (m Manifest) index(name string) int {
	return slices.IndexFunc(m.Services, func(s Service) bool { return s.Name == name })
}

func (m Manifest) names() string {
	var names []string
	for _, s := range m.Services {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// Resources is the sum of what the services have, and the volumes of its disk
// besides [SERVICE-2] [SERVICE-26]. The manifest has been validated.
func (m Manifest) Resources() market.Resources {
	sum := market.Resources{DiskBytes: m.VolumeBytes()}
	for _, s := range m.Services {
		sum.MilliCPU += s.Resources.MilliCPU
		sum.MemoryBytes += s.Resources.MemoryBytes
		sum.DiskBytes += s.Resources.DiskBytes
	}
	return sum
}

func (m Manifest) validateServices() error {
	if len(m.Services) == 0 || len(m.Services) > MaxServices {
		return Refusal(CodeManifest, "a lease has 1 to %d services", MaxServices)
	}
	for i, s := range m.Services {
		if !ValidServiceName(s.Name) || m.index(s.Name) != i {
			return Refusal(CodeManifest, "the name of service %d is not 1 to %d of a-z, 0-9 and '-', with a letter or digit at both ends, or another one has it", i, MaxServiceName)
		}
		if err := s.validate(); err != nil {
			return wrap(CodeManifest, "service "+s.Name, err)
		}
	}
	for _, s := range m.Services {
		for k, d := range s.Depends {
			if err := m.validateDependency(d); err != nil {
				return wrap(CodeManifest, "service "+s.Name, err)
			}
			if slices.ContainsFunc(s.Depends[:k], func(e Dependency) bool { return e.Service == d.Service }) {
				return Refusal(CodeManifest, "service %s waits for %s twice", s.Name, d.Service)
			}
		}
	}
	waits := func(i int) (out []int) {
		for _, d := range m.Services[i].Depends {
			out = append(out, m.index(d.Service))
		}
		return out
	}
	if circle, ok := order.Sort(len(m.Services), waits); !ok {
		return Refusal(CodeManifest, "services wait for each other, %s among them", m.Services[circle[0]].Name)
	}
	return nil
}

// validateDependency wants a dependency that can be met.
func (m Manifest) validateDependency(d Dependency) error {
	i := m.index(d.Service)
	if i < 0 {
		return Refusal(CodeManifest, "it waits for %.40q, which is not there", d.Service)
	}
	on := m.Services[i]
	switch {
	case d.When == WhenCompleted && on.Job || d.When == WhenStarted && !on.Job || d.When == WhenHealthy && on.Health.Check != CheckNone:
		return nil
	case d.When == WhenHealthy && !on.Job:
		return Refusal(CodeManifest, "it waits until %s is healthy, which has no health check", on.Name)
	}
	return Refusal(CodeManifest, "a job is waited for until it is %q, any other service until it is %q or %q", WhenCompleted, WhenStarted, WhenHealthy)
}

func (s Service) validate() error {
	switch {
	case s.Image == "" || len(s.Image) > MaxImage || !printable(s.Image) || strings.ContainsRune(s.Image, ' '):
		return Refusal(CodeManifest, "an image reference has 1 to %d printable characters and no space", MaxImage)
	case s.Digest != "" && !validDigest(s.Digest):
		return Refusal(CodeManifest, "digest %q is not \"sha256:\" and 64 hexadecimal digits", s.Digest)
	case len(s.Args) > MaxArgs || len(s.Env) > MaxEnv:
		return Refusal(CodeManifest, "at most %d arguments and %d environment entries", MaxArgs, MaxEnv)
	case len(s.WorkDir) > MaxPath || s.WorkDir != "" && s.WorkDir[0] != '/' || !printable(s.WorkDir) || slices.Contains(strings.Split(s.WorkDir, "/"), ".."):
		return Refusal(CodeManifest, "a working directory is an absolute path without \"..\" of at most %d printable bytes", MaxPath)
	case len(s.User) > MaxUser || !printable(s.User) || strings.Count(s.User, ":") > 1:
		return Refusal(CodeManifest, "a user is \"name\", \"uid\", \"name:group\" or \"uid:gid\", at most %d printable bytes", MaxUser)
	case s.Stop > MaxStop:
		return Refusal(CodeManifest, "a program has at most %d s to end by itself", MaxStop)
	}
	for i, a := range s.Args {
		if len(a) > MaxArg || strings.ContainsRune(a, 0) {
			return Refusal(CodeManifest, "argument %d is longer than %d bytes or holds a zero byte", i+1, MaxArg)
		}
	}
	for i, e := range s.Env {
		name, _, ok := strings.Cut(e, "=")
		if len(e) > MaxArg || !ok || name == "" || strings.ContainsRune(e, 0) { // its value may be a secret
			return Refusal(CodeManifest, "environment entry %d, %.40q, is not NAME=value of at most %d bytes", i+1, name, MaxArg)
		}
	}
	if err := s.validateResources(); err != nil {
		return err
	}
	if err := s.validateLife(); err != nil {
		return err
	}
	if err := s.validateNetwork(); err != nil {
		return err
	}
	if err := s.validateMounts(); err != nil {
		return err
	}
	return validateExt(CodeManifest, s.Ext)
}

// validateResources checks that the service can run with what it asks for.
func (s Service) validateResources() error {
	r := s.Resources
	switch {
	case r.MilliCPU < MinMilliCPU:
		return Refusal(CodeManifest, "a service needs at least %.2f cores; it has %.3f", MinMilliCPU/1000.0, float64(r.MilliCPU)/1000)
	case r.MemoryBytes < MinMemoryBytes:
		return Refusal(CodeManifest, "a service needs at least %d MiB of memory; it has %s", MinMemoryBytes>>20, bytesText(r.MemoryBytes))
	case r.DiskBytes != 0 && r.DiskBytes < MinDiskBytes:
		return Refusal(CodeManifest, "a service needs at least %d MiB of disk; it has %s", MinDiskBytes>>20, bytesText(r.DiskBytes))
	}
	return wrap(CodeManifest, "resources", r.Validate())
}

// bytesText is a number of bytes in the largest unit that leaves it whole.
func bytesText(n uint64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; n != 0 && n%1024 == 0 && i < len(units)-1; i++ {
		n /= 1024
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// validateLife checks ports, health and restarts.
func (s Service) validateLife() error {
	if len(s.Ports) > MaxPorts {
		return Refusal(CodeManifest, "a service has at most %d ports", MaxPorts)
	}
	for i, p := range s.Ports {
		if p == 0 || p > 65535 || i > 0 && p <= s.Ports[i-1] {
			return Refusal(CodeManifest, "port %d is out of place: ports are 1 to 65535, each once, in ascending order", p)
		}
	}
	switch {
	case s.Restart.Policy != RestartNo && s.Restart.Policy != RestartOnFailure && s.Restart.Policy != RestartAlways:
		return Refusal(CodeManifest, "a service restarts %q, %q or %q, not %.40q", RestartNo, RestartOnFailure, RestartAlways, s.Restart.Policy)
	case s.Restart.Max > MaxRestarts || s.Restart.Max != 0 && s.Restart.Policy != RestartOnFailure:
		return Refusal(CodeManifest, "only %q has a number of restarts, at most %d", RestartOnFailure, MaxRestarts)
	case s.Job && (s.Restart.Policy == RestartAlways || s.Health.Check != CheckNone || len(s.Ports) != 0):
		return Refusal(CodeManifest, "a job ends: it is not restarted always, and has no port and no health check")
	}
	return s.Health.validate()
}

func (h Health) validate() error {
	var command, port, path bool // that the check has
	switch h.Check {
	case CheckNone:
		if len(h.Command) != 0 || h.Port != 0 || h.Path != "" || h.Interval != 0 || h.Timeout != 0 || h.Start != 0 || h.Retries != 0 {
			return Refusal(CodeManifest, "a health check says how to look")
		}
		return nil
	case CheckCommand:
		command = true
	case CheckHTTP:
		port, path = true, true
	case CheckTCP:
		port = true
	default:
		return Refusal(CodeManifest, "a health check is %q, %q or %q", CheckCommand, CheckHTTP, CheckTCP)
	}
	switch {
	case command != (len(h.Command) != 0) || port != (h.Port != 0) || path != (h.Path != ""):
		return Refusal(CodeManifest, "a %s check lacks a field, or has one of another", h.Check)
	case len(h.Command) > MaxArgs || h.Port > 65535 || path && !validPath(h.Path):
		return Refusal(CodeManifest, "a health check's command, port or path is out of range")
	case slices.ContainsFunc(h.Command, func(a string) bool { return len(a) > MaxArg || strings.ContainsRune(a, 0) }) || command && h.Command[0] == "":
		return Refusal(CodeManifest, "a health check's command names a program and holds no zero byte")
	case h.Interval == 0 || h.Interval > MaxCheck || h.Timeout == 0 || h.Timeout > MaxCheck || h.Start > MaxCheck:
		return Refusal(CodeManifest, "a check's interval and timeout are 1 to %d s, its start period at most as long", MaxCheck)
	case h.Retries == 0 || h.Retries > MaxRetries:
		return Refusal(CodeManifest, "a check fails after 1 to %d looks", MaxRetries)
	}
	return nil
}

func validPath(s string) bool {
	return len(s) <= MaxProbePath && s[0] == '/' && printable(s) && !strings.ContainsRune(s, ' ')
}
