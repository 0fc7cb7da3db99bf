//go:build !linux || !cgo || !amd64

package libcontainer

import (
	"context"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Runtime is the driver. This build has none.
type Runtime struct {
	container.Runtime
	container.Volumes
	container.Snapshots
}

// New returns [container.CodeUnsupported]: this build cannot run containers.
func New(Config) (*Runtime, error) {
	return nil, &container.Error{Code: container.CodeUnsupported}
}

// Check returns [container.CodeUnsupported].
func Check() error { return &container.Error{Code: container.CodeUnsupported} }

// CheckVolumes returns [container.CodeUnsupported].
func CheckVolumes() error { return &container.Error{Code: container.CodeUnsupported} }

// CheckNetwork returns [container.CodeUnsupported].
func CheckNetwork(NetworkConfig) error { return &container.Error{Code: container.CodeUnsupported} }

// Wait returns [container.CodeUnsupported].
func (*Runtime) Wait(context.Context, string) (container.Status, error) {
	return container.Status{}, &container.Error{Code: container.CodeUnsupported}
}

// Close does nothing.
func (*Runtime) Close() error { return nil }
