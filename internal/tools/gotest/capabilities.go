package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// capability is a line of .ci/capabilities.
type capability struct{ kind, name, purpose string }

// Kinds of capabilities.
const (
	byDoctor = "doctor"   // a check of pktcloud doctor by this name must be good
	byPath   = "command"  // a command of this name must be on PATH
	byTool   = "tool"     // a program that make builds must be in this user's cache
	optional = "optional" // tests that name it may be skipped
)

func parseCapabilities(text string) ([]capability, error) {
	var list []capability
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		if len(f) < 3 || !slices.Contains([]string{byDoctor, byPath, byTool, optional}, f[0]) {
			return nil, fmt.Errorf("capabilities: want %q, %q, %q or %q, a name and a purpose, got %q", byDoctor, byPath, byTool, optional, strings.TrimSpace(line))
		}
		list = append(list, capability{f[0], f[1], strings.Join(f[2:], " ")})
	}
	return list, nil
}

// optionalNames returns the names of what tests may do without.
func optionalNames(list []capability) []string {
	var names []string
	for _, c := range list {
		if c.kind == optional {
			names = append(names, c.name)
		}
	}
	return names
}

// doctorReport is what pktcloud doctor --json prints.
type doctorReport struct {
	Checks []struct {
		Name, Detail, Remedy string
		OK                   bool
	}
}

// askDoctor runs a command such as "bin/pktcloud doctor --json". Its exit code
// does not count: the list decides what must be there.
func askDoctor(command string) (doctorReport, error) {
	var report doctorReport
	f := strings.Fields(command)
	if len(f) == 0 {
		return report, nil
	}
	out, err := exec.Command(f[0], f[1:]...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return report, err
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return report, fmt.Errorf("%s: %w", command, err)
	}
	return report, nil
}

// checkCapabilities prints what the machine must offer and returns an error that
// names all that it lacks.
func checkCapabilities(w io.Writer, list []capability, report doctorReport, found, built func(program string) bool) error {
	fmt.Fprintln(w, "this machine must offer")
	var missing []string
	for _, c := range list {
		why := ""
		switch c.kind {
		case byDoctor:
			why = report.lacks(c.name)
		case byPath:
			if !found(c.name) {
				why = "the command is not on PATH"
			}
		case byTool:
			if !built(c.name) {
				why = "it is not built; make " + c.name
			}
		default:
			continue
		}
		word := "ok"
		if why != "" {
			word = "MISSING: " + why
			missing = append(missing, c.name)
		}
		fmt.Fprintf(w, "  %-20s %-60s %s\n", c.name, c.purpose, word)
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine lacks %s", strings.Join(missing, ", "))
	}
	return nil
}

// lacks returns what doctor says against a check, or "".
func (r doctorReport) lacks(name string) string {
	for _, check := range r.Checks {
		if strings.ReplaceAll(check.Name, " ", "-") == name {
			if check.OK {
				return ""
			}
			return strings.TrimSuffix(check.Detail+"; "+check.Remedy, "; ")
		}
	}
	return "doctor has no check of this name; .ci/capabilities and doctor must use the same"
}
