//go:build !linux || !cgo || !amd64

package gvisor

import (
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// New returns [container.CodeUnsupported]: this build cannot run containers.
func New(Config) (*libcontainer.Runtime, error) {
	return nil, &container.Error{Code: container.CodeUnsupported}
}

// Find returns [container.CodeUnsupported].
func Find(string) (sandbox.Class, error) {
	return sandbox.Class{}, &container.Error{Code: container.CodeUnsupported}
}
