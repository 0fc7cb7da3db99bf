//go:build linux && cgo && amd64

package libcontainer

import (
	"errors"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestClassOf shows who runs what [CONTAINER-80] [CONTAINER-82].
func TestClassOf(t *testing.T) {
	strong := Class{Name: container.ClassGVisor, Monitor: "strong", MinMemoryBytes: 32 << 20}
	both, other := Config{Classes: []Class{strong}}, Config{Classes: []Class{strong}, Default: container.ClassGVisor}
	for _, c := range []struct {
		name    string
		config  Config
		demand  container.Class
		memory  uint64
		monitor string
		want    container.Code
	}{
		{"no demand", both, "", 64 << 20, "", ""},
		{"its own", both, container.ClassUserns, 16 << 20, "", ""},
		{"the other", both, container.ClassGVisor, 64 << 20, "strong", ""},
		{"the other with little memory", both, container.ClassGVisor, 32<<20 - 1, "", container.CodeInvalidSpec},
		{"the other by default", other, "", 64 << 20, "strong", ""},
		{"its own beside that", other, container.ClassUserns, 64 << 20, "", ""},
		{"one that is not there", Config{}, container.ClassGVisor, 64 << 20, "", container.CodeNoClass},
	} {
		got, err := c.config.classOf(container.Spec{Class: c.demand, Limits: container.Limits{MemoryBytes: c.memory}})
		if got.Monitor != c.monitor || (c.want == "") != (err == nil) || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %q, %v", c.name, got.Monitor, err)
		}
	}
}
