package compose

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// service converts one service.
func (c *converter) service(k key, s types.ServiceConfig) {
	out := lease.Service{Name: c.names[k.name], Image: s.Image, WorkDir: s.WorkingDir, User: s.User, Job: c.jobs[k.name], Stop: manifest.DefaultStop}
	if i := strings.LastIndex(s.Image, "@sha256:"); i > 0 {
		out.Digest = s.Image[i+1:]
	}
	out.Resources = c.resources(k, s)
	c.image(k, s)
	c.commandLine(k, s, &out)
	c.environment(k, s, &out)
	c.ports(k, s, &out)
	c.waits(k, s, &out)
	c.health(k, s, &out)
	c.restart(k, s, &out)
	c.mounts(k, s, &out)
	c.refusals(k, s)
	if s.StopGracePeriod != nil {
		out.Stop = wholeSeconds(time.Duration(*s.StopGracePeriod))
	}
	out.Egress = c.options.Egress
	c.extended(k, &out)
	c.m.Services = append(c.m.Services, out)
}

func (c *converter) image(k key, s types.ServiceConfig) {
	if k.value.get("build") == nil {
		return
	}
	line := k.value.lineOf("build")
	if s.Image == "" {
		c.fault(line, k.name, "build cannot be had here: build the image, push it to a registry, and write its name as \"image\"")
		return
	}
	c.warn(line, k.name, "build is left out: the image %s is pulled, and has to be in its registry", s.Image)
}

// commandLine: a command keeps the image's entrypoint, and an entrypoint drops the
// image's arguments.
func (c *converter) commandLine(k key, s types.ServiceConfig, out *lease.Service) {
	entry, command := k.value.get("entrypoint"), k.value.get("command")
	given := func(n *node) bool { return n != nil && (n.kind != scalar || n.value != nil) }
	switch {
	case given(entry) && len(s.Entrypoint) == 0 && len(s.Command) == 0:
		c.fault(k.value.lineOf("entrypoint"), k.name, "an empty entrypoint leaves no program; write the command, too")
	case given(entry):
		out.Args = slices.Concat([]string(s.Entrypoint), []string(s.Command))
	case given(command):
		out.Args, out.Entrypoint = slices.Clone([]string(s.Command)), true
	}
}

func (c *converter) environment(k key, s types.ServiceConfig, out *lease.Service) {
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		value := s.Environment[name]
		if value == nil {
			v, ok := c.options.Variables[name]
			if !ok {
				c.warn(k.value.lineOf("environment"), k.name, "%s is not set: it has no value, and none is taken from this machine; give it one, or with --variables or --set", name)
				continue
			}
			value = &v
		}
		out.Env = append(out.Env, name+"="+*value)
	}
}

// ports converts what is published and exposed.
func (c *converter) ports(k key, s types.ServiceConfig, out *lease.Service) {
	var probe lease.Probe
	for _, p := range s.Ports {
		protocol := cmp.Or(p.Protocol, lease.TCP)
		if protocol != lease.TCP && protocol != lease.UDP {
			c.fault(k.value.lineOf("ports"), k.name, "a port is reached over tcp or udp, not %.20s", protocol)
			continue
		}
		port := uint64(p.Target)
		if protocol == lease.TCP {
			out.Ports = append(out.Ports, port)
			if probe.Port == 0 {
				probe.Port, probe.HTTPPath = port, webPath(port, p.AppProtocol)
			}
		}
		host, err := netip.ParseAddr(p.HostIP)
		if err == nil && host.IsLoopback() {
			continue // reached from this machine alone: through the tunnel
		}
		if p.HostIP != "" && (err != nil || !host.IsUnspecified()) {
			c.warn(k.value.lineOf("ports"), k.name, "port %d is published at an address of the provider, and not at %.60s", port, p.HostIP)
		}
		out.Publish = append(out.Publish, lease.PublishedPort{Port: port, Protocol: protocol})
		if p.Published != "" {
			c.warn(k.value.lineOf("ports"), k.name, "the provider chooses the numbers outside, those that stand here where they are free; %q shows them", "pktcloud lease services")
		}
	}
	for i, e := range s.Expose {
		text, protocol, _ := strings.Cut(e, "/")
		from, to, ranged := strings.Cut(text, "-")
		first, err := strconv.ParseUint(from, 10, 16)
		last := first
		if ranged && err == nil {
			last, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil {
			c.fault(k.value.lineOf("expose", strconv.Itoa(i)), k.name, "%.40q is no port", e)
			continue
		}
		for n := first; n <= last && n-first < lease.MaxPorts; n++ {
			if protocol != lease.UDP {
				out.Ports = append(out.Ports, n)
				if probe.Port == 0 {
					probe.Port, probe.HTTPPath = n, webPath(n, "")
				}
			}
		}
	}
	slices.Sort(out.Ports)
	out.Ports = slices.Compact(out.Ports)
	slices.SortFunc(out.Publish, lease.ComparePublished)
	out.Publish = slices.Compact(out.Publish)
	c.probes[out.Name] = probe
}

// webPath is what the tenant's probe asks for: a path where HTTP is likely, else
// nothing, so that it only connects.
func webPath(port uint64, protocol string) string {
	if protocol == "http" || protocol == "" && (port == 80 || port == 8080) {
		return "/"
	}
	return ""
}

// waits converts what it waits for, in the order of the file.
func (c *converter) waits(k key, s types.ServiceConfig, out *lease.Service) {
	line := k.value.lineOf("depends_on")
	for _, theirs := range c.dependencyOrder(k, s) {
		d := s.DependsOn[theirs]
		name, ok := c.names[theirs]
		if !ok {
			continue // not required: the library has refused all others
		}
		on := lease.Dependency{Service: name, When: lease.WhenStarted}
		switch {
		case d.Condition == types.ServiceConditionCompletedSuccessfully, c.jobs[theirs]:
			if on.When = lease.WhenCompleted; d.Condition != types.ServiceConditionCompletedSuccessfully {
				c.warn(line, k.name, "%s is one that ends, and is waited for until it has", theirs)
			}
		case d.Condition == types.ServiceConditionHealthy:
			on.When = lease.WhenHealthy
			if h := c.root.get("services", theirs, "healthcheck"); h == nil || !empty(orNothing(h.get("disable"))) {
				c.fault(line, k.name, "it waits until %s is healthy, which has no healthcheck here; that of an image does not count, so write it", theirs)
			}
		}
		out.Depends = append(out.Depends, on)
	}
	for i, text := range s.Links {
		on, alias, _ := strings.Cut(text, ":")
		line := k.value.lineOf("links", strconv.Itoa(i))
		name, ok := c.names[on]
		switch {
		case !ok:
			c.fault(line, k.name, "it is linked to %.40q, which is not there", on)
		case alias != "" && alias != name:
			c.fault(line, k.name, "a link is called as its service, %s, and not %.40q; write %s where the program names it", name, alias, name)
		case !slices.ContainsFunc(out.Depends, func(d lease.Dependency) bool { return d.Service == name }):
			when := lease.WhenStarted
			if c.jobs[on] {
				when = lease.WhenCompleted
			}
			out.Depends = append(out.Depends, lease.Dependency{Service: name, When: when})
		}
	}
}

func orNothing(n *node) *node {
	if n == nil {
		return &node{}
	}
	return n
}

// dependencyOrder is the order in which a file has what a service waits for.
func (c *converter) dependencyOrder(k key, s types.ServiceConfig) (out []string) {
	n := k.value.get("depends_on")
	if n == nil {
		return slices.Sorted(maps.Keys(s.DependsOn))
	}
	for _, e := range n.entries {
		out = append(out, e.text)
	}
	for _, d := range n.keys {
		out = append(out, d.name)
	}
	return slices.DeleteFunc(out, func(name string) bool { _, ok := s.DependsOn[name]; return !ok })
}

func (c *converter) health(k key, s types.ServiceConfig, out *lease.Service) {
	h := s.HealthCheck
	if h == nil || h.Disable || len(h.Test) == 1 && h.Test[0] == "NONE" {
		return
	}
	line := k.value.lineOf("healthcheck")
	if len(h.Test) < 2 {
		c.fault(line, k.name, "a healthcheck says by \"test\" how to look; that of an image does not count here")
		return
	}
	out.Health = lease.Health{Check: lease.CheckCommand, Command: h.Test[1:], Interval: defaultInterval, Timeout: defaultInterval, Retries: defaultRetries}
	if h.Test[0] == "CMD-SHELL" {
		out.Health.Command = []string{"/bin/sh", "-c", strings.Join(h.Test[1:], " ")}
	}
	for _, t := range []struct {
		from *types.Duration
		to   *uint64
	}{{h.Interval, &out.Health.Interval}, {h.Timeout, &out.Health.Timeout}, {h.StartPeriod, &out.Health.Start}} {
		if t.from != nil {
			*t.to = wholeSeconds(time.Duration(*t.from))
		}
	}
	if h.Retries != nil && *h.Retries > 0 {
		out.Health.Retries = *h.Retries
	}
	if out.Health.Interval == 0 {
		out.Health.Interval = defaultInterval
	}
	if out.Health.Timeout == 0 {
		out.Health.Timeout = defaultInterval
	}
	if out.Job {
		out.Health = lease.Health{}
		c.warn(line, k.name, "healthcheck is left out: a service that ends is not looked at")
	}
}

// wholeSeconds rounds up. What is out of range is refused with the rest of the
// manifest.
func wholeSeconds(d time.Duration) uint64 {
	if d < 0 {
		return 1 << 62
	}
	return uint64((d + time.Second - 1) / time.Second)
}

func (c *converter) restart(k key, s types.ServiceConfig, out *lease.Service) {
	policy, most, bounded := strings.Cut(s.Restart, ":")
	line := k.value.lineOf("restart")
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil {
		p := s.Deploy.RestartPolicy
		line = k.value.lineOf("deploy", "restart_policy")
		policy = map[string]string{"none": lease.RestartNo, "on-failure": lease.RestartOnFailure, "any": lease.RestartAlways, "": lease.RestartAlways}[p.Condition]
		if policy == "" {
			policy = p.Condition
		}
		if bounded = false; p.MaxAttempts != nil && *p.MaxAttempts > 0 && policy == lease.RestartOnFailure {
			bounded, most = true, strconv.FormatUint(*p.MaxAttempts, 10)
		}
	}
	switch policy {
	case "", lease.RestartNo:
		out.Restart.Policy = lease.RestartNo
		if !out.Job {
			c.warn(line, k.name, "the lease ends when it ends: write restart: unless-stopped, or %s: {job: true} where it is meant to end", extension)
		}
	case "unless-stopped", lease.RestartAlways:
		out.Restart.Policy = lease.RestartAlways
		if out.Job {
			out.Restart.Policy = lease.RestartOnFailure
			c.warn(line, k.name, "it is one that ends, and is started again when it fails")
		}
	case lease.RestartOnFailure:
		out.Restart.Policy = lease.RestartOnFailure
		if bounded {
			n, err := strconv.ParseUint(most, 10, 32)
			if err != nil {
				c.fault(line, k.name, "on-failure is followed by a number of times, not %.20q", most)
			}
			out.Restart.Max = n
		}
	default:
		c.fault(line, k.name, "restart is no, always, unless-stopped or on-failure, not %.40q", policy)
	}
}

// refusals are keys that map for some values and are refused for others.
func (c *converter) refusals(k key, s types.ServiceConfig) {
	line := func(path ...string) int { return k.value.lineOf(path...) }
	if s.Privileged {
		c.fault(line("privileged"), k.name, "privileged cannot be had here: a container has no rights on the provider's machine; run a program that needs none")
	}
	for i, opt := range s.SecurityOpt {
		if name, value, _ := strings.Cut(strings.Replace(opt, "=", ":", 1), ":"); name != "no-new-privileges" || value == "false" {
			c.fault(line("security_opt", strconv.Itoa(i)), k.name, "security_opt %.60q cannot be had here: the provider's filters hold for every container", opt)
		}
	}
	if m := s.NetworkMode; m != "" && m != "bridge" && m != "default" {
		c.fault(line("network_mode"), k.name, "network_mode %.40q cannot be had here: services of a lease reach each other by name, and the world by `ports` and by egress in %s", m, extension)
	}
	if n := s.GetScale(); n != 1 {
		path := []string{"scale"}
		if s.Scale == nil {
			path = []string{"deploy", "replicas"}
		}
		c.fault(line(path...), k.name, "it runs once, not %d times; for more write a service for each", n)
	}
	if s.Deploy != nil && s.Deploy.Mode != "" && s.Deploy.Mode != "replicated" {
		c.fault(line("deploy", "mode"), k.name, "deploy.mode %.40q cannot be had here: each service runs once", s.Deploy.Mode)
	}
	for name, n := range s.Networks {
		if n == nil {
			continue
		}
		for _, alias := range n.Aliases {
			if alias != c.names[k.name] {
				c.fault(line("networks", name, "aliases"), k.name, "it is found by its own name, %s, and not as %.40q; write %[2]s where others name it", c.names[k.name], alias)
			}
		}
	}
}
