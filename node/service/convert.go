package service

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// Convert reads a file of services of either form. It is pure, and takes a file
// from a stranger. Errors are [CodeInvalid], have a line for each fault, and match
// what [compose.Read] returns.
func Convert(r ConversionRequest) (Conversion, error) {
	egress, err := manifest.Egress(r.Egress)
	if err != nil {
		return Conversion{}, Errorf(CodeInvalid, "egress: %s", lease.Plainly(err))
	}
	m, format, warnings, err := compose.Read([]byte(r.File), compose.Options{Variables: r.Variables, Profiles: r.Profiles, Egress: egress})
	if err != nil {
		return Conversion{}, &Error{Code: CodeInvalid, Err: &fileFaults{err}}
	}
	return Conversion{Format: string(format), Manifest: m, Resources: Resources(m.Resources()), Warnings: warnings}, nil
}

// fileFaults tells what is wrong with a file, without the names of packages.
type fileFaults struct{ err error }

func (f *fileFaults) Unwrap() error { return f.err }

func (f *fileFaults) Error() string {
	list := []error{f.err}
	if faults := new(compose.Faults); errors.As(f.err, &faults) {
		list = faults.List
	}
	var out []string
	for _, err := range list {
		text := ""
		if at := new(manifest.LineError); errors.As(err, &at) {
			text, err = fmt.Sprintf("line %d: ", at.Line), at.Err
		}
		out = append(out, text+lease.Plainly(err))
	}
	return strings.Join(out, "\n")
}
