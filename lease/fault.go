package lease

import (
	"fmt"
	"slices"
	"strings"
)

// FaultCode says why a workload did not start, or ended: a closed list
// [LEASE-22].
type FaultCode string

// The faults.
const (
	FaultImage   FaultCode = "image"   // the image cannot be fetched or used
	FaultProgram FaultCode = "program" // the program cannot be started
	FaultPort    FaultCode = "port"    // nothing answers on the manifest's port
	FaultExit    FaultCode = "exit"    // the program ended
	FaultMachine FaultCode = "machine" // the provider's machine cannot run it
	FaultDone    FaultCode = "done"    // no fault: all services are jobs, and have ended with 0 [LEASE-46]
)

// Valid reports whether c is on the list.
func (c FaultCode) Valid() bool {
	return slices.Contains([]FaultCode{FaultImage, FaultProgram, FaultPort, FaultExit, FaultMachine, FaultDone}, c)
}

// Fault is the provider's word on why a workload did not start, or ended. It is
// an error, for whoever runs workloads. The zero Fault is none.
type Fault struct {
	Code FaultCode `json:"code"`
	Text string    `json:"text"` // 1 to MaxText bytes of printable ASCII
}

// Faultf returns a fault with a sentence; what does not print becomes "?", and
// what is beyond MaxText is cut off.
func Faultf(code FaultCode, format string, args ...any) Fault {
	return Fault{code, fmt.Sprintf(format, args...)}.fit()
}

// Error returns the sentence.
func (f Fault) Error() string { return f.Text }

// IsZero reports whether there is none.
func (f Fault) IsZero() bool { return f == Fault{} }

// fit makes any fault one that may travel.
func (f Fault) fit() Fault {
	if !f.Code.Valid() {
		f.Code = FaultMachine
	}
	if f.Text = Clip(f.Text); f.Text == "" {
		f.Text = "the provider gives no reason"
	}
	return f
}

// Names in ext that a final statement and a close record give a fault by.
const (
	extFault     = "fault"
	extFaultText = "fault-text"
)

// ext returns the entries of a fault, nil for none.
func (f Fault) ext() map[string][]byte {
	if f.IsZero() {
		return nil
	}
	return map[string][]byte{extFault: []byte(f.Code), extFaultText: []byte(f.Text)}
}

// faultOf reads the entries. The record has been validated.
func faultOf(ext map[string][]byte) Fault {
	return Fault{FaultCode(ext[extFault]), string(ext[extFaultText])}
}

// validateFault wants both entries or neither, a code of the list, a text that
// a terminal shows as it is, and the end that has a fault [LEASE-23].
func validateFault(ext map[string][]byte, by Role, reason Reason) error {
	_, coded := ext[extFault]
	_, told := ext[extFaultText]
	f := faultOf(ext)
	switch {
	case !coded && !told:
		return nil
	case by != RoleProvider || reason != ReasonWorkload:
		return Refusal(CodeMalformed, "a fault, and the provider did not end the lease over its workload")
	case !f.Code.Valid():
		return Refusal(CodeMalformed, "the fault is not on the list")
	case f.Text == "" || len(f.Text) > MaxText || !printable(f.Text):
		return Refusal(CodeMalformed, "a fault's text has 1 to %d printable characters", MaxText)
	}
	return nil
}

// Clip makes a text fit a message, and a terminal: what does not print becomes
// "?", and what is beyond MaxText is cut off.
func Clip(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || r > 0x7e:
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), MaxText)]
}
