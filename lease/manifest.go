package lease

import (
	"slices"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// ManifestVersion is the version of Manifest that this package writes.
const ManifestVersion = 1

// Manifest says what runs: one or several services [LEASE-3]. It travels
// privately between the two parties; the terms hold only its id.
type Manifest struct {
	Version  uint64            `cbor:"v" json:"v,omitempty"`
	Services []Service         `cbor:"services" json:"services"`
	Volumes  []Volume          `cbor:"volumes,omitempty" json:"volumes,omitempty"` // absent: none
	Probe    Probe             `cbor:"probe" json:"probe"`
	Ext      map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// Probe is how the tenant looks whether the lease serves: at which service, and
// at which of its ports. A probe over HTTP wants a whole answer with a status
// below 500. One over TCP wants no more than a connection, which the kernel
// grants even for a frozen process. Without a port it looks at nothing.
type Probe struct {
	Service        string `cbor:"service" json:"service"`
	Port           uint64 `cbor:"port" json:"port,omitempty"` // one of the service's; zero: none
	HTTPPath       string `cbor:"http" json:"http,omitempty"` // begins with "/"; empty: TCP
	TimeoutSeconds uint64 `cbor:"timeout" json:"timeout,omitempty"`
}

// ID returns the manifest's id, which the terms carry.
func (m Manifest) ID() (pktcloud.ID, error) { return idOf(m) }

// Validate checks the manifest's shape [LEASE-3]. Errors match [CodeManifest].
func (m Manifest) Validate() error {
	if m.Version != ManifestVersion {
		return Refusal(CodeManifest, "manifest version %d, want %d", m.Version, ManifestVersion)
	}
	if err := m.validateServices(); err != nil {
		return err
	}
	if err := m.validateVolumes(); err != nil {
		return err
	}
	if err := wrap(CodeManifest, "resources of all services and volumes", m.Resources().Validate()); err != nil {
		return err
	}
	if err := m.validateProbe(); err != nil {
		return err
	}
	if err := validateIsolation(m.Ext); err != nil {
		return err
	}
	return validateExt(CodeManifest, m.Ext)
}

func (m Manifest) validateProbe() error {
	p := m.Probe
	i := m.index(p.Service)
	switch {
	case i < 0 || m.Services[i].Job:
		if i < 0 || p.Port != 0 || slices.ContainsFunc(m.Services, func(s Service) bool { return !s.Job }) {
			return Refusal(CodeManifest, "the probe names a service, and no job while there is another")
		}
	case p.Port != 0 && !slices.Contains(m.Services[i].Ports, p.Port):
		return Refusal(CodeManifest, "the probe's port %d is none of service %s", p.Port, p.Service)
	}
	if p.TimeoutSeconds > MaxProbe {
		return Refusal(CodeManifest, "a probe takes at most %d s", MaxProbe)
	}
	if p.HTTPPath != "" && (p.Port == 0 || !validPath(p.HTTPPath)) {
		return Refusal(CodeManifest, "an HTTP probe needs a port and a path that begins with \"/\", at most %d printable characters", MaxProbePath)
	}
	return nil
}

// ParseManifest decodes and validates a manifest. Errors match [CodeMalformed]
// or [CodeManifest].
func ParseManifest(data []byte) (Manifest, error) {
	return parse[Manifest](data, MaxManifestBytes)
}

func validDigest(s string) bool {
	hexes, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hexes) == 64 && strings.Trim(hexes, "0123456789abcdef") == ""
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

func validateExt(code Code, ext map[string][]byte) error {
	if len(ext) > MaxExtEntries {
		return Refusal(code, "at most %d extensions", MaxExtEntries)
	}
	for k, v := range ext {
		if k == "" || len(k) > MaxExtKey || len(v) > MaxExtValue {
			return Refusal(code, "an extension has a name of at most %d and a value of at most %d bytes", MaxExtKey, MaxExtValue)
		}
	}
	return nil
}
