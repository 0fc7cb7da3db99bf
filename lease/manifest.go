package lease

import (
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// ManifestVersion is the version of Manifest that this package writes.
const ManifestVersion = 1

// Manifest says what runs: one service in this version [LEASE-3]. It travels
// privately between the two parties; the terms hold only its id.
type Manifest struct {
	Version   uint64            `cbor:"v" json:"v"`
	Image     string            `cbor:"image" json:"image"`   // an image reference
	Digest    string            `cbor:"digest" json:"digest"` // "sha256:…", or empty: whatever the reference names
	Args      []string          `cbor:"args" json:"args"`     // empty: the image's own
	Env       []string          `cbor:"env" json:"env"`       // "NAME=value"
	Port      uint64            `cbor:"port" json:"port"`     // the TCP port served inside; zero: none
	Probe     Probe             `cbor:"probe" json:"probe"`
	Resources market.Resources  `cbor:"resources" json:"resources"`
	Ext       map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// Probe is how the tenant looks whether the service serves. A probe over HTTP
// wants a whole answer with a status below 500. One over TCP wants no more
// than a connection, which the kernel grants even for a frozen process.
type Probe struct {
	HTTPPath       string `cbor:"http" json:"http"` // begins with "/"; empty: TCP
	TimeoutSeconds uint64 `cbor:"timeout" json:"timeout"`
}

// ID returns the manifest's id, which the terms carry.
func (m Manifest) ID() (pktcloud.ID, error) { return idOf(m) }

// Validate checks the manifest's shape [LEASE-3]. Errors match [CodeManifest].
func (m Manifest) Validate() error {
	switch {
	case m.Version != ManifestVersion:
		return Refusal(CodeManifest, "manifest version %d, want %d", m.Version, ManifestVersion)
	case m.Image == "" || len(m.Image) > MaxImage || !printable(m.Image) || strings.ContainsRune(m.Image, ' '):
		return Refusal(CodeManifest, "an image reference has 1 to %d printable characters and no space", MaxImage)
	case m.Digest != "" && !validDigest(m.Digest):
		return Refusal(CodeManifest, "digest %q is not \"sha256:\" and 64 hexadecimal digits", m.Digest)
	case len(m.Args) > MaxArgs || len(m.Env) > MaxEnv:
		return Refusal(CodeManifest, "at most %d arguments and %d environment entries", MaxArgs, MaxEnv)
	case m.Port > 65535:
		return Refusal(CodeManifest, "port %d: ports end at 65535", m.Port)
	}
	for i, s := range m.Args {
		if len(s) > MaxArg || strings.ContainsRune(s, 0) {
			return Refusal(CodeManifest, "argument %d is longer than %d bytes or holds a zero byte", i, MaxArg)
		}
	}
	for i, s := range m.Env {
		name, _, ok := strings.Cut(s, "=")
		if len(s) > MaxArg || !ok || name == "" || strings.ContainsRune(s, 0) {
			return Refusal(CodeManifest, "environment entry %d is not NAME=value of at most %d bytes", i, MaxArg)
		}
	}
	if m.Resources.MilliCPU == 0 || m.Resources.MemoryBytes == 0 {
		return Refusal(CodeManifest, "a service needs some processor time and some memory")
	}
	if err := wrap(CodeManifest, "resources", m.Resources.Validate()); err != nil {
		return err
	}
	if err := m.Probe.validate(m.Port); err != nil {
		return err
	}
	return validateExt(CodeManifest, m.Ext)
}

func (p Probe) validate(port uint64) error {
	if p.TimeoutSeconds > MaxProbe {
		return Refusal(CodeManifest, "a probe takes at most %d s", MaxProbe)
	}
	if p.HTTPPath == "" {
		return nil
	}
	if port == 0 || p.HTTPPath[0] != '/' || len(p.HTTPPath) > MaxProbePath || !printable(p.HTTPPath) || strings.ContainsRune(p.HTTPPath, ' ') {
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
