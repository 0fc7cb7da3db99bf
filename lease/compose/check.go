package compose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/spelling"
)

// check judges each key of a file, and returns what is left for conversion: what
// maps. Nothing else reaches the library.
func (c *converter) check() map[string]any {
	left, _ := c.judged(c.root, "", nil).(map[string]any)
	if n := c.root.get("networks"); n != nil { // that services are in them is checked
		names := map[string]any{}
		for _, k := range n.keys {
			names[k.name] = nil
		}
		left["networks"] = names
	}
	return left
}

// judged judges the keys below one, whose places in a file are at path.
func (c *converter) judged(n *node, pattern string, path []string) any {
	switch n.kind {
	case list:
		out := make([]any, 0, len(n.entries))
		for i, e := range n.entries {
			out = append(out, c.judged(e, pattern, append(slices.Clone(path), strconv.Itoa(i))))
		}
		return out
	case scalar:
		return n.value
	case mapping:
	}
	out := map[string]any{}
	for _, k := range n.keys {
		below := append(slices.Clone(path), k.name)
		if strings.HasPrefix(k.name, "x-") && !named(pattern) {
			continue
		}
		if pattern == "services" && slices.Contains(c.left, k.name) || pattern == service+"depends_on" && c.optional(k, path) {
			continue
		}
		key := k.name
		if named(pattern) {
			key = "*"
		}
		if pattern != "" {
			key = pattern + "." + key
		}
		if c.keep(key, k, below) {
			out[k.name] = c.judged(k.value, key, below)
		}
	}
	return out
}

// optional reports whether a service is waited for that is left out, and need not be
// there.
func (c *converter) optional(k key, path []string) bool {
	if !slices.Contains(c.left, k.name) {
		return false
	}
	if n := k.value.get("required"); n == nil || n.value != false {
		c.fault(k.line, path[1], "it waits for %.40s, which is left out, as nobody asked for its profile", k.name)
	}
	return true
}

// named reports whether the keys below one are names.
func named(pattern string) bool {
	switch pattern {
	case "services", "volumes", "networks", service + "depends_on", service + "networks", service + "environment", "volumes.*.driver_opts":
		return true
	}
	return false
}

// keep judges one key, and reports whether it is converted.
func (c *converter) keep(key string, k key, path []string) bool {
	if strings.HasSuffix(key, ".*") {
		return true
	}
	of := ""
	if len(path) > 1 && path[0] == "services" {
		of = path[1]
	}
	row, ok := judge(key)
	if !ok {
		c.fault(k.line, of, "Compose has no key %.40q here%s", k.name, meant(key))
		return false
	}
	if row.Key != key || empty(k.value) && row.Verdict != Maps { // it was judged with the key above it
		return row.Verdict == Maps
	}
	switch row.Verdict {
	case Refused:
		c.fault(k.line, of, "%s cannot be had here: %s", k.name, row.Text)
	case Approximated:
		if key == "networks" {
			c.extraNetworks(k)
			return false
		}
		if text := row.Text; !harmless(key, k.value) {
			c.warn(k.line, of, "%q is left out: %s", strings.TrimPrefix(strings.TrimPrefix(key, service), "volumes.*."), text)
		}
	case Maps:
		return true
	}
	return key == service+"ports.published" || key == service+"ports.mode" // the library wants them
}

// empty reports whether a key is there and says nothing.
func empty(n *node) bool {
	switch n.kind {
	case list:
		return len(n.entries) == 0
	case mapping:
		return len(n.keys) == 0
	case scalar:
	}
	return n.value == nil || n.value == false || n.text == ""
}

// harmless reports whether what is left out makes no difference.
func harmless(key string, n *node) bool {
	switch key {
	case service + "restart":
		return false
	case service + "ports.mode", service + "ports.published": // said of all ports in one place
		return true
	case service + "pull_policy":
		return n.text != "build" && n.text != "never"
	case service + "deploy.endpoint_mode":
		return n.text == "vip"
	}
	return false
}

// extraNetworks warns of networks that are one here.
func (c *converter) extraNetworks(k key) {
	if len(k.value.keys) > 1 {
		var names []string
		for _, n := range k.value.keys {
			names = append(names, n.name)
		}
		c.warn(k.line, "", "the networks %s are one: all services of a lease reach each other, and nothing else that is not asked for", strings.Join(names, ", "))
	}
	for _, n := range k.value.keys {
		if e := n.value.get("external"); e != nil && !empty(e) {
			c.warn(n.line, "", "the network %.40q is one of this machine; services of a lease are in none but the lease's own", n.name)
		}
	}
}

// meant suggests a key in place of one that is not known.
func meant(key string) string {
	i := strings.LastIndexByte(key, '.')
	best, least := "", 3
	for _, r := range rows {
		if rest, ok := strings.CutPrefix(r.Key, key[:i+1]); ok && !strings.Contains(rest, ".") && rest != "*" {
			if d := spelling.Distance(key[i+1:], rest); d < least && d < len(rest) {
				best, least = rest, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
