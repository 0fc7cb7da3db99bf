package main

import (
	"fmt"
	"strings"
)

// limit is what a package may cost its embedder.
type limit struct {
	folder  string
	modules int
	bytes   int64
}

const limitsHead = `# What embedding one package may cost: outside modules compiled, and the bytes of
# a stripped program that uses it. make light compares; after a growth that is
# wanted: go run ./internal/tools/light -update
`

func (l limit) check(c cost) error {
	if len(c.modules) > l.modules {
		return fmt.Errorf("%s: needs %d outside modules, limit %d: %s", l.folder, len(c.modules), l.modules, strings.Join(c.modules, " "))
	}
	if c.bytes > l.bytes {
		return fmt.Errorf("%s: a program that embeds it has %d bytes, limit %d", l.folder, c.bytes, l.bytes)
	}
	return nil
}

func parseLimits(text string) ([]limit, error) {
	var limits []limit
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var l limit
		if _, err := fmt.Sscanf(line, "%s %d modules %d bytes", &l.folder, &l.modules, &l.bytes); err != nil {
			return nil, fmt.Errorf("%s: want lines such as %q, got %q", limitsFile, "settle 3 modules 2000000 bytes", line)
		}
		limits = append(limits, l)
	}
	if len(limits) == 0 {
		return nil, fmt.Errorf("%s names no package", limitsFile)
	}
	return limits, nil
}

func formatLimits(limits []limit) string {
	var b strings.Builder
	b.WriteString(limitsHead)
	for _, l := range limits {
		fmt.Fprintf(&b, "%-10s %2d modules %9d bytes\n", l.folder, l.modules, l.bytes)
	}
	return b.String()
}
