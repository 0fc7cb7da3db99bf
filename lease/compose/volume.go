package compose

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// extension is the word under which a file says what Compose has no word for
// [SERVICE-40].
const extension = "x-pktcloud"

// clocks are files of the machine that many files mount, and that a lease can do
// without.
var clocks = []string{"/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"}

func (c *converter) mounts(k key, s types.ServiceConfig, out *lease.Service) {
	for i, v := range s.Volumes {
		line := k.value.lineOf("volumes", strconv.Itoa(i))
		switch v.Type {
		case types.VolumeTypeVolume:
		case types.VolumeTypeTmpfs:
			c.warn(line, k.name, "what is written to %.80s is on the service's own disk, and not in memory", v.Target)
			continue
		case types.VolumeTypeBind:
			if slices.ContainsFunc(clocks, func(p string) bool { return v.Source == p || strings.HasPrefix(v.Source, p+"/") }) {
				c.warn(line, k.name, "%.80s is left out: a lease sees none of this machine's files; set TZ in its environment for another time zone than UTC", v.Source)
				continue
			}
			c.fault(line, k.name, "a lease sees none of this machine's files, and %.80q is one; make it a named volume, or put the files into the image", v.Source)
			continue
		default:
			c.fault(line, k.name, "a volume of the type %.20q cannot be had here; make it a named one", v.Type)
			continue
		}
		if v.Source == "" {
			c.fault(line, k.name, "the volume at %.80s has no name; write NAME:%[1]s, and NAME under volumes", v.Target)
			continue
		}
		out.Mounts = append(out.Mounts, lease.Mount{Volume: c.volumes[v.Source], Path: cleaned(v.Target), ReadOnly: v.ReadOnly})
	}
}

// cleaned leaves out a slash at the end, which Compose does not mind.
func cleaned(path string) string {
	if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
		return trimmed
	}
	return path
}

// makeVolumes sizes the volumes that services mount, in the order of the file.
func (c *converter) makeVolumes() {
	all := c.root.get("volumes")
	if all == nil {
		return
	}
	for _, k := range all.keys {
		name := c.volumes[k.name]
		mounted := slices.ContainsFunc(c.m.Services, func(s lease.Service) bool {
			return slices.ContainsFunc(s.Mounts, func(m lease.Mount) bool { return m.Volume == name })
		})
		if !mounted {
			c.warn(k.line, "", "the volume %s is left out: no service mounts it", k.name)
			continue
		}
		out := lease.Volume{Name: name, SizeBytes: DefaultVolumeBytes}
		config := c.project.Volumes[k.name]
		if d := config.Driver; d != "" && d != "local" {
			c.fault(k.value.lineOf("driver"), "", "the volume %.40s cannot have the driver %.40q: it is one of the provider's", k.name, d)
		}
		size, sized := "", false
		for _, o := range slices.Sorted(maps.Keys(config.DriverOpts)) {
			if o != "size" {
				c.fault(k.value.lineOf("driver_opts", o), "", "the volume %.40s cannot have the option %.40q: it is one of the provider's, and begins empty", k.name, o)
				continue
			}
			size, sized = config.DriverOpts[o], true
		}
		line := k.value.lineOf("driver_opts", "size")
		if x := k.value.get(extension); x != nil {
			c.words(x, k.value.lineOf(extension), "", "size")
			if n := x.get("size"); n != nil {
				size, sized, line = n.text, true, x.lineOf("size")
			}
		}
		if !sized {
			c.warn(k.line, "", "the volume %s gets 1 GiB; another size stands below it, as in %s: {size: 5GiB}", k.name, extension)
		} else if out.SizeBytes = c.bytes(line, "", size); out.SizeBytes%lease.VolumeStep != 0 {
			out.SizeBytes += lease.VolumeStep - out.SizeBytes%lease.VolumeStep
		}
		c.m.Volumes = append(c.m.Volumes, out)
	}
}

// bytes reads a size in the words of either format: 5g, 5GB, 5GiB.
func (c *converter) bytes(line int, service, text string) uint64 {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 || n > 1<<60 {
		c.fault(line, service, "%.40q is no size, such as 512MiB or 5GiB", text)
		return 0
	}
	if digits := strings.Trim(text, "0123456789"); digits == "" && n < manifest.LeastBare {
		c.fault(line, service, "%s is a number of bytes; did you mean %[1]sMiB?", text)
	}
	return uint64(n)
}

// words refuses what an extension does not have.
func (c *converter) words(x *node, line int, service string, known ...string) {
	if x.kind != mapping {
		c.fault(line, service, "%s has words of its own: %s", extension, strings.Join(known, ", "))
	}
	for _, k := range x.keys {
		if !slices.Contains(known, k.name) {
			c.fault(k.line, service, "%s has no word %.40q here; it has %s", extension, k.name, strings.Join(known, ", "))
		}
	}
}

// extended fills in what a service says in the extension.
func (c *converter) extended(k key, out *lease.Service) {
	x := k.value.get(extension)
	if x == nil {
		return
	}
	c.words(x, k.value.lineOf(extension), k.name, "bandwidth", "disk", "egress", "http", "job")
	if n := x.get("disk"); n != nil {
		out.Resources.DiskBytes = c.bytes(x.lineOf("disk"), k.name, n.text)
	}
	if n := x.get("bandwidth"); n != nil {
		out.Bandwidth = c.bytes(x.lineOf("bandwidth"), k.name, n.text)
	}
	if n := x.get("job"); n != nil && n.value != true && n.value != false {
		c.fault(x.lineOf("job"), k.name, "job is true or false")
	}
	if n := x.get("egress"); n != nil {
		places := []string{n.text}
		if n.kind == list {
			places = nil
			for _, e := range n.entries {
				places = append(places, e.text)
			}
		} else if n.text != "none" && n.text != lease.EgressPublic {
			c.fault(x.lineOf("egress"), k.name, "egress is public, none, or a list of places such as [\"example.org:443\"]")
			return
		}
		var err error
		if out.Egress, err = manifest.Egress(places); err != nil {
			c.fault(x.lineOf("egress"), k.name, "%s", lease.Plainly(err))
		}
	}
	if n := x.get("http"); n != nil {
		p := c.probes[out.Name]
		if p.HTTPPath = n.text; n.text == "none" {
			p.HTTPPath = ""
		}
		if p.Port == 0 && p.HTTPPath != "" {
			c.fault(x.lineOf("http"), k.name, "the tenant's probe asks at the first port, and it has none; write it under ports or expose")
		}
		c.probes[out.Name] = p
	}
}

// top fills in what belongs to no service: the probe, the class, and what is said
// of all.
func (c *converter) top() {
	class, wanted := "", ""
	if x := c.root.get(extension); x != nil {
		c.words(x, c.root.lineOf(extension), "", "class", "probe")
		if n := x.get("class"); n != nil {
			class = n.text
		}
		if n := x.get("probe"); n != nil {
			name, ok := c.names[n.text]
			if !ok {
				c.fault(x.lineOf("probe"), "", "probe names a service, and %.40q is none", n.text)
			}
			wanted = name
		}
	}
	if wanted == "" && len(c.m.Services) > 0 {
		wanted = c.probed()
	}
	c.m.Probe = c.probes[wanted]
	c.m.Probe.Service, c.m.Probe.TimeoutSeconds = wanted, probeSeconds
	c.m.Demand(class)
	if !slices.ContainsFunc(c.m.Services, func(s lease.Service) bool { return len(s.Egress) > 0 }) && !c.silent() {
		c.warn(0, "", "no service connects to anything outside the lease, where Compose would let each; --egress public, or the box on a page, lets all, %s: {egress: public} one", extension)
	}
	if len(c.m.Services) == 0 && len(c.faults) == 0 {
		c.fault(c.root.lineOf("services"), "", "no service is left; --profile names those that run")
	}
}

// silent reports whether each service says itself that it connects nowhere.
func (c *converter) silent() bool {
	return !slices.ContainsFunc(c.root.get("services").keys, func(k key) bool { return k.value.get(extension, "egress") == nil })
}

// probed is the service at which the tenant looks: the first that publishes a port
// over TCP, else the first with a port, else the first that does not end.
func (c *converter) probed() string {
	for _, ok := range []func(lease.Service) bool{
		func(s lease.Service) bool { return len(s.Ports) > 0 && len(s.Publish) > 0 },
		func(s lease.Service) bool { return len(s.Ports) > 0 },
		func(s lease.Service) bool { return !s.Job },
	} {
		if i := slices.IndexFunc(c.m.Services, ok); i >= 0 {
			return c.m.Services[i].Name
		}
	}
	return c.m.Services[0].Name
}
