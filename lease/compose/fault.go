package compose

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// Warning says that something of a file means here not quite what it means to
// Compose.
type Warning struct {
	Line    int    `json:"line,omitempty"`    // from 1; 0: not in one place
	Service string `json:"service,omitempty"` // empty: of none alone
	Text    string `json:"text"`
}

// String begins with the line.
func (w Warning) String() string {
	text := w.Text
	if w.Service != "" {
		text = "service " + w.Service + ": " + text
	}
	if w.Line > 0 {
		text = fmt.Sprintf("line %d: %s", w.Line, text)
	}
	return text
}

// MaxFaults is how many faults of a file are told at once.
const MaxFaults = 20

// Faults are what is wrong with a file, in the order of its lines. It matches
// [lease.CodeManifest] and, where the first has a line, a
// [*manifest.LineError].
type Faults struct{ List []error }

// Error has a line for each fault.
func (f *Faults) Error() string {
	var out []string
	for _, err := range f.List {
		out = append(out, err.Error())
	}
	return strings.Join(out, "\n")
}

// Unwrap returns the faults.
func (f *Faults) Unwrap() []error { return f.List }

// at is a fault at a line; 0: in no one place.
func at(line int, format string, args ...any) error {
	err := lease.Refusal(lease.CodeManifest, format, args...)
	if line <= 0 {
		return err
	}
	return &manifest.LineError{Line: line, Err: err}
}

func lineOf(err error) int {
	if l := new(manifest.LineError); errors.As(err, &l) {
		return l.Line
	}
	return 0
}

// notes collects what is to be said of a file.
type notes struct {
	warnings []Warning
	faults   []error
}

func (n *notes) warn(line int, service, format string, args ...any) {
	w := Warning{Line: line, Service: service, Text: fmt.Sprintf(format, args...)}
	if !slices.Contains(n.warnings, w) {
		n.warnings = append(n.warnings, w)
	}
}

// fault notes what is wrong. A service's name stands before it.
func (n *notes) fault(line int, service, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if service != "" {
		text = fmt.Sprintf("service %.40q: %s", service, text)
	}
	n.faults = append(n.faults, at(line, "%s", text))
}

// err returns the faults, or nil.
func (n *notes) err() error {
	if len(n.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(n.faults, func(a, b error) int { return cmp.Compare(lineOf(a), lineOf(b)) })
	list := n.faults
	if len(list) > MaxFaults {
		list = append(slices.Clone(list[:MaxFaults]), at(0, "and %d more", len(list)-MaxFaults))
	}
	return &Faults{list}
}

// sorted returns the warnings in the order of their lines.
func (n *notes) sorted() []Warning {
	slices.SortStableFunc(n.warnings, func(a, b Warning) int { return cmp.Compare(a.Line, b.Line) })
	return n.warnings
}
