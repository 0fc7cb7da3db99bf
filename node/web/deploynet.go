package web

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// volumeRows is how many volumes the form for one service has.
const volumeRows = 3

// Choices of the field egress, beside the empty one: nowhere.
const (
	egressPublic = lease.EgressPublic
	egressPlaces = "places"
)

// volumeRow is the fields of one volume, by their names.
type volumeRow struct{ Name, Size, Path string }

func rowOf(n int) volumeRow {
	s := strconv.Itoa(n)
	return volumeRow{"volume" + s, "size" + s, "path" + s}
}

// optionalFields may be left empty.
var optionalFields = func() []string {
	out := []string{"port", "command", "allow", "publish", "bandwidth", "registry", "registry_user"}
	for n := range volumeRows {
		r := rowOf(n + 1)
		out = append(out, r.Name, r.Size, r.Path)
	}
	return out
}()

// networkFields and volumeFields are the further fields of one service.
var networkFields = append([]string{"egress"}, optionalFields[2:]...)

// VolumeRows are the fields of all volumes.
func (p deployPage) VolumeRows() (out []volumeRow) {
	for n := range volumeRows {
		out = append(out, rowOf(n+1))
	}
	return out
}

// MoreVolumes says whether the rows after the first are to be seen.
func (p deployPage) MoreVolumes() bool {
	for _, r := range p.VolumeRows()[1:] {
		for _, f := range []string{r.Name, r.Size, r.Path} {
			if p.Form[f] != "" || p.Field == f {
				return true
			}
		}
	}
	return false
}

// Asks says whether one of the fields has something in it, or a fault.
func (p deployPage) Asks(fields ...string) bool {
	return slices.ContainsFunc(fields, func(f string) bool { return p.Form[f] != "" || p.Field == f })
}

// list splits a field at white space and commas.
func (f form) list(name string) []string {
	return strings.FieldsFunc(f[name], func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

// refusal is what is wrong with a service, as a sentence, or "".
func refusal(edit func(*lease.Manifest, *lease.Service)) string {
	m := lease.Manifest{
		Version: lease.ManifestVersion,
		Services: []lease.Service{{
			Name: lease.DefaultServiceName, Image: "image", Restart: lease.Restart{Policy: lease.RestartNo},
			Resources: market.Resources{MilliCPU: lease.MinMilliCPU, MemoryBytes: lease.MinMemoryBytes, DiskBytes: lease.MinDiskBytes},
		}},
		Probe: lease.Probe{Service: lease.DefaultServiceName, TimeoutSeconds: 1},
	}
	edit(&m, &m.Services[0])
	if err := m.Validate(); err != nil {
		return sentence(errors.New(strings.TrimPrefix(plainly(err), "service "+lease.DefaultServiceName+": ")))
	}
	return ""
}

// network reads what the service has of the world outside, into r.
func (p deployPage) network(r *service.LeaseRequest) error {
	f, has := p.Form, p.Offer.Body.Network
	places := f.list("allow")
	switch f["egress"] {
	case egressPublic:
		r.Egress = []string{egressPublic}
	case egressPlaces:
		if r.Egress = places; len(places) == 0 {
			return &fieldError{"allow", "Say to which places, such as example.org:443."}
		}
	case "":
	default:
		return &fieldError{"egress", "Choose one of these."}
	}
	if f["egress"] != egressPlaces && len(places) > 0 {
		return &fieldError{"allow", "These places count only with the choice “only places that I list”; choose that, or empty this field."}
	}
	if why := refusal(func(_ *lease.Manifest, s *lease.Service) { s.Egress = r.Egress }); why != "" {
		return &fieldError{"allow", why}
	}
	if why := has.Lacks(market.Network{Egress: len(r.Egress) > 0}); why != "" {
		return &fieldError{"egress", sentence(errors.New(why))}
	}
	r.Publish = f.list("publish")
	ports, err := manifest.Publish(r.Publish)
	if err != nil {
		return &fieldError{"publish", sentence(errors.New(plainly(err)))}
	}
	if why := refusal(func(_ *lease.Manifest, s *lease.Service) { s.Publish = ports }); why != "" {
		return &fieldError{"publish", why}
	}
	asked := uint64(len(lease.Service{Publish: ports}.PublishedPorts()))
	if why := has.Lacks(market.Network{Ports: asked}); why != "" {
		return &fieldError{"publish", sentence(errors.New(why))}
	}
	if r.Bandwidth, err = f.quantity("bandwidth", "The bandwidth in MiB a second", 1<<20, 1<<20); err != nil {
		return err
	}
	if why := refusal(func(_ *lease.Manifest, s *lease.Service) {
		s.Egress, s.Publish, s.Bandwidth = r.Egress, ports, r.Bandwidth
	}); why != "" {
		return &fieldError{"bandwidth", why}
	}
	if r.Bandwidth != 0 && has.BytesPerSecond != 0 && r.Bandwidth > has.BytesPerSecond {
		return &fieldError{"bandwidth", fmt.Sprintf("The provider carries %s a second for a lease.", byteText(has.BytesPerSecond))}
	}
	return nil
}

// volumes reads the volumes of the service. A row of which nothing is filled in
// is none.
func (f form) volumes() ([]service.VolumeRequest, error) {
	var all []service.VolumeRequest
	var volumes []lease.Volume
	var mounts []lease.Mount
	for n := range volumeRows {
		r := rowOf(n + 1)
		v := service.VolumeRequest{Name: f[r.Name], Path: f[r.Path]}
		if v.Name == "" && v.Path == "" && f[r.Size] == "" {
			continue
		}
		size, err := f.quantity(r.Size, "The size in GiB", 1<<30, lease.MaxVolumeBytes>>30)
		if err != nil {
			return nil, err
		}
		v.Size = (size + lease.VolumeStep - 1) / lease.VolumeStep * lease.VolumeStep
		if !lease.ValidServiceName(v.Name) {
			return nil, &fieldError{r.Name, fmt.Sprintf("A name is 1 to %d of a-z, 0-9 and '-', with a letter or digit at both ends.", lease.MaxServiceName)}
		}
		if slices.ContainsFunc(all, func(o service.VolumeRequest) bool { return o.Name == v.Name }) {
			return nil, &fieldError{r.Name, "Another volume has this name."}
		}
		if v.Size < lease.MinVolumeBytes {
			return nil, &fieldError{r.Size, fmt.Sprintf("A volume has at least %s GiB; its file system needs them.", leastVolume)}
		}
		if !strings.HasPrefix(v.Path, "/") {
			return nil, &fieldError{r.Path, "Where the service shall have it, such as /var/lib/app."}
		}
		volumes = append(volumes, lease.Volume{Name: v.Name, SizeBytes: v.Size})
		mounts = append(mounts, lease.Mount{Volume: v.Name, Path: v.Path})
		if why := refusal(func(m *lease.Manifest, s *lease.Service) { m.Volumes, s.Mounts = volumes, mounts }); why != "" {
			return nil, &fieldError{r.Path, why}
		}
		all = append(all, v)
	}
	return all, nil
}

// leastVolume is the least size of a volume in GiB, as people type it.
const leastVolume = "0.3"

// wanted is what the form wants of the machine, the volumes as part of the disk.
func (p deployPage) wanted() service.Resources {
	if p.Manifest != nil {
		return p.Whole()
	}
	r, err := p.Form.resources()
	if err != nil {
		return service.Resources{}
	}
	volumes, err := p.Form.volumes()
	if err != nil {
		return r
	}
	for _, v := range volumes {
		r.DiskBytes += v.Size
	}
	return r
}

// credentials reads those of a private image; the password is not in the form,
// which is shown again.
func (p deployPage) credentials() ([]service.RegistryCredential, error) {
	f := p.Form
	switch {
	case p.password == "" && f["registry"] == "" && f["registry_user"] == "":
		return nil, nil
	case p.password == "":
		return nil, &fieldError{"registry_password", "Type the password or token; a page never shows one again."}
	case f["registry_user"] == "":
		return nil, &fieldError{"registry_user", "Say whose password that is."}
	}
	return []service.RegistryCredential{{Registry: f["registry"], Username: f["registry_user"], Password: p.password}}, nil
}

// lendsText says what an offer has of network and volumes.
func lendsText(o market.Offer) string {
	switch {
	case !o.Volumes:
		return networkText(o.Network)
	case o.Network.IsZero():
		return "volumes"
	}
	return networkText(o.Network) + ", volumes"
}

// networkText says what an offer grants of its network, in words.
func networkText(n market.Network) string {
	out := []string{"no connections to outside"}
	if n.Egress {
		out[0] = "internet"
	}
	switch {
	case n.Ports == 1:
		out = append(out, "1 port")
	case n.Ports > 1:
		out = append(out, grouped(n.Ports)+" ports")
	}
	if n.IsZero() {
		return "none"
	}
	if n.BytesPerSecond > 0 {
		out = append(out, byteText(n.BytesPerSecond)+"/s")
	}
	return strings.Join(out, ", ")
}
