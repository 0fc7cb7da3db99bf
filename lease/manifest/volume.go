package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/lease"
)

// volumes reads NAME: SIZE [SERVICE-31].
func volumes(n *yaml.Node) (out []lease.Volume, err error) {
	if n.Kind == 0 {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return nil, atLine(n.Line, refuse("\"volumes\" names each volume, and behind its name how large it is, such as 2GiB"))
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		name, line, value := n.Content[i].Value, n.Content[i].Line, n.Content[i+1]
		if seen[name] {
			return nil, atLine(line, refuse("two volumes are called %.40q", name))
		}
		seen[name] = true
		if value.Kind != yaml.ScalarNode || value.Value == "" {
			return nil, atLine(line, refuse("volume %.40q has no size, such as 2GiB", name))
		}
		bytes, err := size(value.Value, 0)
		if err != nil {
			return nil, atLine(line, err)
		}
		out = append(out, lease.Volume{Name: name, SizeBytes: bytes})
	}
	return out, nil
}

// parseMount reads VOLUME:PATH, or VOLUME:PATH:ro [SERVICE-31]. Errors match
// [lease.CodeManifest].
func parseMount(text string) (lease.Mount, error) {
	name, path, ok := strings.Cut(text, ":")
	m := lease.Mount{Volume: name, Path: path}
	if at, found := strings.CutSuffix(path, ":ro"); found {
		m.Path, m.ReadOnly = at, true
	}
	if !ok || name == "" || m.Path == "" || strings.Contains(m.Path, ":") {
		return m, refuse("mount %.80q is not VOLUME:PATH, or VOLUME:PATH:ro", text)
	}
	return m, nil
}

// ReadVolume reads a volume and where the only service of a lease has it:
// VOLUME:PATH:SIZE. Errors match [lease.CodeManifest].
func ReadVolume(text string) (lease.Volume, lease.Mount, error) {
	i := strings.LastIndex(text, ":")
	if i < 0 {
		return lease.Volume{}, lease.Mount{}, refuse("volume %.80q is not NAME:PATH:SIZE, such as data:/var/lib/db:2GiB", text)
	}
	m, err := parseMount(text[:i])
	if err != nil || m.ReadOnly {
		return lease.Volume{}, m, refuse("volume %.80q is not NAME:PATH:SIZE, such as data:/var/lib/db:2GiB", text)
	}
	bytes, err := size(text[i+1:], 0)
	return lease.Volume{Name: m.Volume, SizeBytes: bytes}, m, err
}
