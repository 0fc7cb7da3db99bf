package services

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/order"
)

// Limits of a [Set] [SERVICE-1].
const (
	MaxServices  = 16
	MaxName      = 32 // bytes of a service's name
	MaxInterval  = time.Hour
	MaxStopGrace = 5 * time.Minute
	MaxRetries   = 100
	MaxRestarts  = 1000
	MaxPath      = 256 // bytes of an HTTP check's path
	MaxVolumes   = 16
)

// Set is what runs together: the services of one lease. While it runs nothing
// of it changes but its [Sizes].
type Set struct {
	// ID names the set on this machine, and begins the ids of its containers:
	// an id of [container.ValidateID] with at most 64 bytes.
	ID       string
	Services []Service
	// Class is that of all its containers [CONTAINER-80]; empty leaves it to the
	// runtime.
	Class container.Class
	// Volumes are made before the first service is started, and removed with
	// the set. They belong to the lease called ID.
	Volumes []Volume
}

// Volume is a disk of a set that outlives the containers.
type Volume struct {
	Name      string
	SizeBytes uint64
}

func (s Set) volume(i int) container.VolumeSpec {
	v := s.Volumes[i]
	return container.VolumeSpec{VolumeID: container.VolumeID{Lease: s.ID, Name: v.Name}, SizeBytes: v.SizeBytes}
}

// Service is one program of a set: one that is meant to go on or, as a job,
// one that is meant to end.
type Service struct {
	// Name is unique in the set, and a DNS label of at most [MaxName] bytes.
	Name string
	// Image is the digest that Pull returned, "sha256:…"; Ref is where the
	// image can be had again should the store have let go of it.
	Image string
	Ref   string
	// Args, Env, WorkDir, User and Limits are those of [container.Spec].
	Args    []string
	Env     []string
	WorkDir string
	User    string
	Limits  container.Limits
	// Entrypoint is that of [container.Spec], too.
	Entrypoint bool `json:",omitzero"`
	// Mounts are volumes of the set, in each container of the service.
	Mounts []container.Mount
	// Depends is what must be so before this service starts, and starts again.
	Depends []Dependency
	Health  Health
	Restart Restart
	// Network is what the service has of the world outside its set.
	Network Network `json:",omitzero"`
	// Job says that the program is meant to end, with exit code 0.
	Job bool
	// StopGrace is how long the program has to end by itself when it is stopped,
	// where the runtime can ask it to.
	StopGrace time.Duration
}

// Network is what a service has of the world outside its set: Egress, Publish
// and BytesPerSecond of [container.Network], the same for each of its runs
// [SERVICE-21]. The zero value is nothing.
type Network struct {
	Egress         container.Egress          `json:",omitzero"`
	Publish        []container.PublishedPort `json:",omitempty"`
	BytesPerSecond uint64                    `json:",omitempty"`
}

func (n Network) isZero() bool {
	return !n.Egress.Public && len(n.Egress.Allow) == 0 && len(n.Publish) == 0 && n.BytesPerSecond == 0
}

// overlaps reports whether two services would have the same port outside.
func (n Network) overlaps(o Network) bool {
	return slices.ContainsFunc(n.Publish, func(p container.PublishedPort) bool {
		return slices.ContainsFunc(o.Publish, func(q container.PublishedPort) bool {
			return p.Host == q.Host && p.Port == q.Port && p.Protocol == q.Protocol
		})
	})
}

// Dependency is a service that another one waits for.
type Dependency struct {
	Service string
	When    Condition
}

// Condition is what a service waits for in another.
type Condition string

// Conditions of a [Dependency].
const (
	Started   Condition = "started"   // it runs, or has run
	Healthy   Condition = "healthy"   // its check agrees
	Completed Condition = "completed" // the job has ended with exit code 0
)

// Check is how one looks whether a service is healthy.
type Check string

// Checks of a [Health].
const (
	CheckNone    Check = ""
	CheckCommand Check = "command" // exit code 0 inside the container
	CheckHTTP    Check = "http"    // a whole answer with a status below 400
	CheckTCP     Check = "tcp"     // a connection
)

// Health is a service's check. Retries is how many looks in a row must fail
// before the service counts as unhealthy; those within Start since it began to
// run do not count.
type Health struct {
	Check    Check
	Command  []string
	Port     uint16
	Path     string
	Interval time.Duration
	Timeout  time.Duration
	Start    time.Duration
	Retries  uint64
}

// Policy says when a service that has ended is started again.
type Policy string

// Policies of a [Restart].
const (
	Never     Policy = "no"
	OnFailure Policy = "on-failure" // a job, too
	Always    Policy = "always"
)

// Restart is a service's policy. Max bounds the restarts that follow each
// other without [StableAfter] between them; 0 is no bound.
type Restart struct {
	Policy Policy
	Max    uint64
}

// Validate checks the shape of a set [SERVICE-1]. Errors are
// [container.CodeInvalidSpec] and name the service.
func (s Set) Validate() error {
	if err := container.ValidateID(s.ID); err != nil {
		return err
	}
	if len(s.ID) > 64 || len(s.Services) == 0 || len(s.Services) > MaxServices {
		return invalid("a set has an id of at most 64 bytes and 1 to %d services", MaxServices)
	}
	if err := s.validateVolumes(); err != nil {
		return err
	}
	for i, v := range s.Services {
		if err := v.validate(); err != nil {
			return container.Wrap(container.CodeInvalidSpec, fmt.Sprintf("service %.80q", v.Name), err)
		}
		if s.index(v.Name) != i {
			return invalid("two services are called %q", v.Name)
		}
		for _, o := range s.Services[:i] {
			if o.Network.overlaps(v.Network) {
				return invalid("services %q and %q publish the same port", o.Name, v.Name)
			}
		}
		if err := v.spec(s, 1).Validate(); err != nil {
			return err
		}
	}
	return s.validateDepends()
}

// validateVolumes wants each to be named once, and each mount to have one.
func (s Set) validateVolumes() error {
	if len(s.Volumes) > MaxVolumes {
		return invalid("a set has at most %d volumes", MaxVolumes)
	}
	known := map[string]bool{}
	for i, v := range s.Volumes {
		if err := s.volume(i).Validate(); err != nil {
			return err
		}
		if known[v.Name] {
			return invalid("two volumes are called %q", v.Name)
		}
		known[v.Name] = true
	}
	for _, v := range s.Services {
		for _, m := range v.Mounts {
			if !known[m.Volume] {
				return invalid("service %.80q mounts a volume that is not there", v.Name)
			}
		}
	}
	return nil
}

func (s Set) validateDepends() error {
	for _, v := range s.Services {
		for k, d := range v.Depends {
			i := s.index(d.Service)
			switch {
			case i < 0:
				return invalid("service %q waits for %.80q, which is not there", v.Name, d.Service)
			case slices.ContainsFunc(v.Depends[:k], func(e Dependency) bool { return e.Service == d.Service }):
				return invalid("service %q waits for %q twice", v.Name, d.Service)
			case d.When == Healthy && s.Services[i].Health.Check == CheckNone:
				return invalid("service %q waits until %q is healthy, which has no check", v.Name, d.Service)
			case d.When == Completed != s.Services[i].Job || d.When != Started && d.When != Healthy && d.When != Completed:
				return invalid("service %q waits until %q is %.20q; a job is waited for until it is \"completed\", any other service until it is \"started\" or \"healthy\"", v.Name, d.Service, d.When)
			}
		}
	}
	if circle, ok := order.Sort(len(s.Services), s.waits); !ok {
		return invalid("services wait for each other: %s", s.names(circle))
	}
	return nil
}

func (v Service) validate() error {
	switch {
	case !validName(v.Name):
		return invalid("a name is 1 to %d of a-z, 0-9 and '-', with a letter or digit at both ends", MaxName)
	case v.StopGrace < 0 || v.StopGrace > MaxStopGrace:
		return invalid("a stop grace of 0 to %s", MaxStopGrace)
	case v.Restart.Policy != Never && v.Restart.Policy != OnFailure && v.Restart.Policy != Always:
		return invalid("restart %.20q is not %q, %q or %q", v.Restart.Policy, Never, OnFailure, Always)
	case v.Restart.Max > MaxRestarts || v.Restart.Max != 0 && v.Restart.Policy != OnFailure:
		return invalid("only %q has a number of restarts, at most %d", OnFailure, MaxRestarts)
	case v.Job && (v.Restart.Policy == Always || v.Health.Check != CheckNone):
		return invalid("a job ends: it is not restarted always, and has no health check")
	}
	return v.Health.validate()
}

func (h Health) validate() error {
	rest := h
	switch h.Check {
	case CheckNone:
		if len(h.Command) != 0 || h.Port != 0 || h.Path != "" || h.Interval != 0 || h.Timeout != 0 || h.Start != 0 || h.Retries != 0 {
			return invalid("a health check says how to look")
		}
		return nil
	case CheckCommand:
		if err := (container.ExecSpec{Args: h.Command}).Validate(); err != nil {
			return err
		}
		rest.Command = nil
	case CheckHTTP:
		if h.Port == 0 || len(h.Path) > MaxPath || !strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return invalid("an HTTP check needs a port and a path that begins with \"/\", at most %d printable characters", MaxPath)
		}
		rest.Port, rest.Path = 0, ""
	case CheckTCP:
		if h.Port == 0 {
			return invalid("a TCP check needs a port")
		}
		rest.Port = 0
	default:
		return invalid("a health check is %q, %q or %q", CheckCommand, CheckHTTP, CheckTCP)
	}
	switch {
	case len(rest.Command) != 0 || rest.Port != 0 || rest.Path != "":
		return invalid("a %s check has a field of another", h.Check)
	case h.Interval < time.Second || h.Interval > MaxInterval || h.Timeout < time.Second || h.Timeout > MaxInterval || h.Start < 0 || h.Start > MaxInterval:
		return invalid("a check's interval and timeout are 1 s to %s, its start period at most as long", MaxInterval)
	case h.Retries == 0 || h.Retries > MaxRetries:
		return invalid("a check fails after 1 to %d looks", MaxRetries)
	}
	return nil
}

// validName reports whether a service may be called so [SERVICE-1].
func validName(s string) bool {
	ok := s != "" && len(s) <= MaxName && s[0] != '-' && s[len(s)-1] != '-'
	return ok && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Container returns the id of the container that a run of a service has
// [SERVICE-3]. Runs count from 1.
func Container(set, service string, run uint64) string {
	return fmt.Sprintf("%s.%s.%d", set, service, run)
}

// spec is the container of a run. Services of one set reach each other by their
// names [SERVICE-15]; one alone has nobody to reach, and a network only if it
// asks for some of the world outside.
func (v Service) spec(set Set, run uint64) container.Spec {
	s := container.Spec{
		ID: Container(set.ID, v.Name, run), Image: v.Image, Args: v.Args, Entrypoint: v.Entrypoint, Env: v.Env, WorkDir: v.WorkDir, User: v.User,
		Hostname: v.Name, Limits: v.Limits, Class: set.Class,
	}
	if len(v.Mounts) > 0 {
		s.Lease, s.Volumes = set.ID, v.Mounts
	}
	if len(set.Services) > 1 || !v.Network.isZero() {
		s.Network = container.Network{
			Group: set.ID, Name: v.Name, Egress: v.Network.Egress, Publish: v.Network.Publish, BytesPerSecond: v.Network.BytesPerSecond,
		}
	}
	return s
}

func (s Set) index(name string) int {
	return slices.IndexFunc(s.Services, func(v Service) bool { return v.Name == name })
}

// waits returns which services one waits for.
func (s Set) waits(i int) []int {
	var out []int
	for _, d := range s.Services[i].Depends {
		out = append(out, s.index(d.Service))
	}
	return out
}

func (s Set) names(list []int) string {
	var names []string
	for _, i := range list {
		names = append(names, s.Services[i].Name)
	}
	return strings.Join(names, ", ")
}

func invalid(format string, args ...any) error {
	return &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf(format, args...)}
}
